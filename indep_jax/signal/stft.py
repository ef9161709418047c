"""Short-time Fourier transform."""

import chex
import jax.numpy as jnp
import numpy as np


def hann_window(n: int) -> np.ndarray:
    """Return a periodic Hann window, float64 [n] (as torch.hann_window, scipy with sym=False)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)


def at_least_float32(x):
    """Return x in float32 if its precision is lower, else unchanged (float64 stays float64)."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def frame(x_BxT, size: int, hop: int):
    """Cut x [batch, time] into overlapping frames [batch, 1 + (time - size) // hop, size].

    `hop` must divide `size`. Frames are joined from shifted views of hop-sized blocks, whose
    gradient is a sum of pads; a gather's would be a scatter, slow on every backend.
    """
    chex.assert_rank(x_BxT, 2)
    if size % hop:
        raise ValueError(f"hop {hop} must divide the frame size {size}")
    overlap = size // hop
    frames = 1 + (x_BxT.shape[1] - size) // hop
    if frames < 1:
        raise ValueError(f"{x_BxT.shape[1]} samples are fewer than one frame of {size}")
    blocks = x_BxT[:, : (frames + overlap - 1) * hop].reshape(x_BxT.shape[0], -1, hop)
    return jnp.concatenate([blocks[:, i : i + frames] for i in range(overlap)], axis=-1)


def stft(x_BxT, n_fft: int, hop: int, *, normalized: bool = False):
    """Return the complex spectrogram [batch, frames, n_fft // 2 + 1] of x [batch, time].

    Periodic Hann window, no centring: frame i starts at sample i * hop. `normalized` divides by
    the root of the window's energy (torchaudio's normalized="window").
    """
    x_BxT = at_least_float32(x_BxT)
    window = hann_window(n_fft)
    if normalized:
        window = window / np.sqrt(np.sum(window**2))
    return jnp.fft.rfft(frame(x_BxT, n_fft, hop) * jnp.asarray(window, x_BxT.dtype))
