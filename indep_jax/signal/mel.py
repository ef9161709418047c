"""Mel spectrograms."""

import chex
import jax.numpy as jnp
import numpy as np

from indep_jax.signal import stft


def mel_filterbank(
    sample_rate: int, n_fft: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None
) -> np.ndarray:
    """Return triangular filters, float64 [n_fft // 2 + 1, n_mels], on the HTK mel scale, peak 1.

    Frequencies in Hz; `f_max` defaults to half the sample rate. The same numbers as
    torchaudio.functional.melscale_fbanks(norm=None, mel_scale="htk").
    """
    f_max = sample_rate / 2 if f_max is None else f_max

    def to_mel(hz):
        return 2595 * np.log10(1 + hz / 700)

    edges_mel = np.linspace(to_mel(f_min), to_mel(f_max), n_mels + 2)
    return _triangles(700 * (10 ** (edges_mel / 2595) - 1), sample_rate, n_fft)


def slaney_filterbank(sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Return triangular filters, float64 [n_fft // 2 + 1, n_mels], of equal area.

    From 0 to half the sample rate, on the scale of Slaney's Auditory Toolbox: linear up to 1 kHz,
    then logarithmic. The same numbers as librosa.filters.mel, transposed.
    """

    def to_mel(hz):
        return hz * 3 / 200 if hz < 1_000 else 15 + 27 * np.log(hz / 1_000) / np.log(6.4)

    mels = np.linspace(0, to_mel(sample_rate / 2), n_mels + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1_000 * 6.4 ** ((mels - 15) / 27))
    return _triangles(edges, sample_rate, n_fft) * 2 / (edges[2:] - edges[:-2])


def _triangles(edges: np.ndarray, sample_rate: int, n_fft: int) -> np.ndarray:
    """Return filters that rise and fall between edges [n_mels + 2], Hz, at an FFT's frequencies."""
    bins = np.linspace(0, sample_rate // 2, n_fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


def mel_spectrogram(x_BxT, sample_rate: int, n_fft: int, *, n_mels: int = 64, f_min: float = 64.0):
    """Return the power mel spectrogram [batch, ceil(time / hop), n_mels] of x [batch, time].

    The hop is n_fft / 4. Window-normalised STFT of the signal reflected by (n_fft - hop) / 2 at both
    ends and padded with zeros to whole frames: the spectrogram of EnCodec's multi-scale mel loss
    (audiocraft).
    """
    chex.assert_rank(x_BxT, 2)
    hop = n_fft // 4
    edge = (n_fft - hop) // 2
    x_BxT = jnp.pad(x_BxT, ((0, 0), (edge, edge)), mode="reflect")
    x_BxT = jnp.pad(x_BxT, ((0, 0), (0, -(x_BxT.shape[1] - n_fft) % hop)))
    spectrum = stft.stft(x_BxT, n_fft, hop, normalized=True)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return power @ jnp.asarray(mel_filterbank(sample_rate, n_fft, n_mels, f_min), power.dtype)
