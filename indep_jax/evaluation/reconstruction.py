"""How close a codec's reconstruction is to the original."""

from collections.abc import Sequence
from functools import partial

import chex
import jax
import numpy as np
from scipy import stats

from indep_jax.signal import losses, mel

SI_SNR_LIMIT_DB = 100.0


def si_snr(reference, estimate) -> np.ndarray:
    """Return the scale-invariant signal-to-noise ratio in dB of [..., time] signals, float64 [...].

    10 log10(|target|^2 / |estimate - target|^2), where target is the projection of the estimate
    on the reference, both less their mean (Le Roux et al. 2019). Clipped to +-100 dB, so that a
    perfect reconstruction (100) and a silent one (-100) stay finite. nan where the reference is
    silent (constant): no ratio describes it.
    """
    chex.assert_equal_shape([reference, estimate])
    reference, estimate = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    # Silent: less than -120 dB of full scale. Flat: nothing but the mean, to rounding.
    flat = np.var(estimate, -1) <= 1e-24 * np.mean(np.square(estimate), -1)
    reference = reference - reference.mean(-1, keepdims=True)
    estimate = estimate - estimate.mean(-1, keepdims=True)
    energy = np.sum(np.square(reference), -1)
    silent = energy <= 1e-12 * reference.shape[-1]
    scale = np.sum(reference * estimate, -1) / np.where(silent, 1, energy)
    target = scale[..., None] * reference
    tiny = 1e-300
    ratio = np.log10(np.sum(np.square(target), -1) + tiny) - np.log10(
        np.sum(np.square(estimate - target), -1) + tiny
    )
    # A flat estimate leaves 0 / 0: nothing of the reference is there.
    ratio = np.where(flat, -SI_SNR_LIMIT_DB, 10 * ratio)
    return np.where(silent, np.nan, np.clip(ratio, -SI_SNR_LIMIT_DB, SI_SNR_LIMIT_DB))


def mel_distance(reference_BxT, estimate_BxT, sample_rate: int) -> np.ndarray:
    """Return the mean absolute difference [batch] of log10(1e-5 + mel), averaged over five scales.

    The spectrograms are those of the multi-scale mel loss (signal.losses); one unit is 10 dB.
    """
    chex.assert_equal_shape([reference_BxT, estimate_BxT])
    return np.mean(
        [
            np.abs(
                _log_mel(reference_BxT, sample_rate, n_fft)
                - _log_mel(estimate_BxT, sample_rate, n_fft)
            ).mean((1, 2))
            for n_fft in losses.MEL_SCALES
        ],
        axis=0,
    )


def mean_log_mel(x_BxT, sample_rate: int) -> list[np.ndarray]:
    """Return the mean frame [64] of log10(1e-5 + mel) for every scale of `mel_distance`."""
    return [_log_mel(x_BxT, sample_rate, n_fft).mean((0, 1)) for n_fft in losses.MEL_SCALES]


def mean_frame_distance(
    reference_BxT, mean_frames: Sequence[np.ndarray], sample_rate: int
) -> np.ndarray:
    """Return the `mel_distance` [batch] to `mean_log_mel` of training music, repeated in every frame.

    A codec that learned nothing but the average spectrum would have it.
    """
    return np.mean(
        [
            np.abs(_log_mel(reference_BxT, sample_rate, n_fft) - frame).mean((1, 2))
            for n_fft, frame in zip(losses.MEL_SCALES, mean_frames, strict=True)
        ],
        axis=0,
    )


def summary(values) -> dict:
    """Return the median with its 95% interval, quartiles and mean of the items' values without nan.

    The interval is distribution-free, between two order statistics (binomial), and assumes that
    items are independent.
    """
    values = np.asarray(values, np.float64)
    kept = np.sort(values[np.isfinite(values)])
    n = len(kept)
    if n == 0:
        return dict(items=0, left_out=len(values))
    rank = int(stats.binom.ppf(0.025, n, 0.5))
    quartiles = np.quantile(kept, [0.25, 0.5, 0.75])
    return dict(
        median=float(quartiles[1]),
        median_interval_95=[float(kept[max(rank - 1, 0)]), float(kept[min(n - rank, n - 1)])],
        quartiles=[float(quartiles[0]), float(quartiles[2])],
        mean=float(kept.mean()),
        items=n,
        left_out=len(values) - n,
    )


def _log_mel(x_BxT, sample_rate: int, n_fft: int) -> np.ndarray:
    return np.asarray(_compiled_log_mel(x_BxT, sample_rate, n_fft))


@partial(jax.jit, static_argnums=(1, 2))
def _compiled_log_mel(x_BxT, sample_rate: int, n_fft: int):
    return losses.log_mel(mel.mel_spectrogram(x_BxT, sample_rate, n_fft))
