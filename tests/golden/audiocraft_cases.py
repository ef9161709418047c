"""What make_audiocraft.py and test_audiocraft.py agree on: inputs and weights from numpy seeds."""

import zlib

import numpy as np

FILTERS, N_FFTS, SAMPLE_RATE = 4, (128, 64), 16_000
DISCRIMINATOR_LAYERS = 6  # five with a nonlinearity and the last
BALANCER_WEIGHTS = dict(small=1.0, large=3.0, wave=0.5)
BALANCER_STEPS, BALANCER_DECAY = 4, 0.9
CODES, CODE_DIM, EMA_STEPS, EMA_DECAY = 12, 5, 3, 0.99


def array(name: str, shape, scale: float = 1.0) -> np.ndarray:
    """float32 normal numbers that depend on the name alone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def wave(name: str, time: int = 1_600) -> np.ndarray:
    """[2, 1, time]: noise over a chord, of a level that music has."""
    chord = np.sin(np.outer([0.05, 0.11, 0.31], np.arange(time))).sum(0)
    return (0.1 * chord + array(name, (2, 1, time), 0.05)).astype(np.float32)


def discriminator_weights(n_fft: int) -> list[dict[str, np.ndarray]]:
    """Of each layer: direction [frames, bins, in, out], gain [out], bias [out]."""
    sizes = [(3, 9, 2)] + [(3, 9, FILTERS)] * 3 + [(3, 3, FILTERS)] * 2
    layers = []
    for number, size in enumerate(sizes):
        out = 1 if number == DISCRIMINATOR_LAYERS - 1 else FILTERS
        name = f"discriminator/{n_fft}/{number}"
        layers.append(
            dict(
                direction=array(f"{name}/direction", (*size, out)),
                gain=np.abs(array(f"{name}/gain", (out,))) + 1,
                bias=array(f"{name}/bias", (out,), 0.3),
            )
        )
    return layers


def balancer_losses(y, x, xp) -> dict:
    """Three losses of y [items, time] of very different scales, in numpy's or torch's dialect."""
    return dict(
        small=1e-4 * xp.mean(xp.abs(y - x)),
        large=1e3 * xp.mean((y - x) ** 2),
        wave=xp.mean(xp.sin(3 * y) * x),
    )


def balancer_input(step: int) -> tuple[np.ndarray, np.ndarray]:
    return array(f"balancer/y{step}", (3, 50), 1 + step), array(f"balancer/x{step}", (3, 50))


def codebook() -> dict[str, np.ndarray]:
    """embed, average and count, every count far above what audiocraft replaces."""
    count = 5 + np.abs(array("codebook/count", (CODES,), 10))
    embed = array("codebook/embed", (CODES, CODE_DIM))
    return dict(embed=embed, average=embed * count[:, None], count=count)


def code_rows(step: int) -> np.ndarray:
    return array(f"codebook/rows{step}", (200, CODE_DIM))
