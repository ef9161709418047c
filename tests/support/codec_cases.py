"""A codec small enough for tests, with an LSTM and fitted codebooks, and music for it."""

import jax
import numpy as np

from indep_jax import inference
from indep_jax.codec import quantizer

# Of a run, as far as loading reads it.
CONFIG = dict(
    task="codec",
    dtype="float32",
    seed=0,
    batch_size=4,
    data=dict(segment_seconds=0.5),
    model=dict(
        sample_rate=4_000,
        channels=2,
        causal=False,
        n_filters=4,
        ratios=(4, 3),
        dimension=6,
        residual_layers=1,
        kernel=5,
        residual_kernel=3,
        last_kernel=5,
        dilation_base=2,
        compress=2,
        lstm_layers=1,
        pad_mode="constant",
        conv_shortcut=False,
        norm="weight_norm",
    ),
    quantizer=dict(codebooks=2, codebook_size=16, kmeans_iterations=5, kmeans_batches=2),
)

MODEL = dict(
    sample_rate=1_200,
    channels=2,
    causal=False,
    n_filters=4,
    ratios=(4, 3),
    dimension=6,
    residual_layers=2,
    kernel=7,
    residual_kernel=3,
    last_kernel=5,
    dilation_base=2,
    compress=2,
    lstm_layers=2,
    pad_mode="constant",
    conv_shortcut=True,
    norm="weight_norm",
    init_std=1.0,  # else so small a network has nothing but its biases to say
)


def make_codec(**changes):
    config = dict(
        task="codec",
        dtype="float32",
        model={**MODEL, **changes},
        quantizer=dict(codebooks=2, codebook_size=64),
    )
    bare = inference.LoadedCodec(config, {})
    audio = music(8.0)[None, :, : bare.channels]

    @jax.jit
    def start(audio):
        params = bare.module.init(jax.random.key(1), audio)["params"]
        variables = dict(params=params, codebook=quantizer.empty(2, 64, 6))
        z = bare.module.apply(variables, audio, method="latents").reshape(-1, 6)
        return params, quantizer.initialize(z, 2, 64, jax.random.key(2), 5, 10.0)

    params, codebook = start(audio)
    return inference.LoadedCodec(config, dict(params=params, codebook=codebook))


def music(seconds, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((round(seconds * 1_200), 2))
    swell = np.sin(np.arange(len(noise)) / 700)[:, None]
    return (0.2 * np.cumsum(noise, 0) % 1 * swell).astype(np.float32)


def reader(wave, largest=None):
    def read(start, count):
        assert largest is None or count <= largest
        piece = wave[start : start + count]
        return np.pad(piece, ((0, count - len(piece)), (0, 0)))

    return read


def near_ties(codec, wave, codes, others):
    """Asserts that codes are equal but where two vectors are as near, to rounding.

    Rounding differs between programs, so such a tie may fall either way; the codebooks after it
    then encode another residual.
    """
    frames = np.flatnonzero((codes != others).any(axis=1))
    assert len(frames) <= 4e-3 * len(codes)
    if not len(frames):
        return
    latents = codec.module.apply(codec.variables, wave[None], method="latents")[0]
    embed = np.asarray(codec.code_vectors, np.float64)
    for frame in frames:
        first = np.flatnonzero(codes[frame] != others[frame])[0]
        residual = np.asarray(latents[frame], np.float64)
        for k in range(first):
            residual = residual - embed[k, codes[frame, k]]
        one, other = (
            np.sum((residual - embed[first, x[frame, first]]) ** 2) for x in (codes, others)
        )
        assert abs(one - other) < 1e-4 * np.sum(residual**2), frame
