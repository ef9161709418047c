"""Reconstruction losses between waveforms."""

import jax.numpy as jnp

from indep_jax.signal import mel

MEL_SCALES = (64, 128, 256, 512, 1024)  # n_fft of the multi-scale mel loss: 2^6 .. 2^10


def log_mel(mel_power):
    """Return log10(1e-5 + mel); 1e-5 is the floor of EnCodec's mel loss."""
    return jnp.log10(1e-5 + mel_power)


def l1(x, y, *, relative: bool = False):
    """Return the mean absolute difference; `relative` divides it by the target's mean magnitude.

    x is the target.
    """
    distance = jnp.mean(jnp.abs(x - y))
    return distance / (jnp.mean(jnp.abs(x)) + 1e-5) if relative else distance


def multi_scale_mel(x_BxT, y_BxT, sample_rate: int, scales=MEL_SCALES):
    """Return EnCodec's mel loss between x and y, [batch, time] each; a scalar.

    The sum over scales of the mean absolute difference of mel and the mean squared difference of
    log-mel, divided by the number of terms (10 for the published five scales; Défossez et al.
    2022, section 3.4, with the constants of the released MusicGen codec recipe).
    """
    total = 0.0
    for n_fft in scales:
        x_mel = mel.mel_spectrogram(x_BxT, sample_rate, n_fft)
        y_mel = mel.mel_spectrogram(y_BxT, sample_rate, n_fft)
        total += jnp.mean(jnp.abs(x_mel - y_mel))
        total += jnp.mean(jnp.square(log_mel(x_mel) - log_mel(y_mel)))
    return total / (2 * len(scales))
