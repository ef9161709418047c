"""How close a codec's reconstruction is to the original."""

from collections.abc import Sequence
from functools import partial

import chex
import jax
import matplotlib.figure
import numpy as np
from scipy import stats

from indep_jax.signal import losses, mel

SI_SNR_LIMIT_DB = 100.0


def si_snr(reference, estimate) -> np.ndarray:
    """Scale-invariant signal-to-noise ratio in dB of [..., time] signals, float64 [...].

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
    """[batch] mean absolute difference of log10(1e-5 + mel), averaged over the five scales.

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
    """For every scale of `mel_distance` the mean frame of log10(1e-5 + mel), [64]."""
    return [_log_mel(x_BxT, sample_rate, n_fft).mean((0, 1)) for n_fft in losses.MEL_SCALES]


def mean_frame_distance(
    reference_BxT, mean_frames: Sequence[np.ndarray], sample_rate: int
) -> np.ndarray:
    """[batch] `mel_distance` to `mean_log_mel` of training music, repeated in every frame.

    What a codec that learned nothing but the average spectrum would get.
    """
    return np.mean(
        [
            np.abs(_log_mel(reference_BxT, sample_rate, n_fft) - frame).mean((1, 2))
            for n_fft, frame in zip(losses.MEL_SCALES, mean_frames, strict=True)
        ],
        axis=0,
    )


def summary(values) -> dict:
    """Median with its 95% interval, quartiles and mean of the items' values; nan ones left out.

    The interval is distribution-free, between two order statistics (binomial); it takes items
    for independent.
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


def evaluate_reconstruction(
    reference_BxTxC, estimate_BxTxC, sample_rate: int, mean_frames: Sequence[np.ndarray]
) -> dict:
    """Summaries over items of waveforms [items, time, channels] and their reconstructions.

    si_snr_db, mel_distance_log10, mean_frame_distance_log10: see `summary`; channels of an item
    are averaged. mel_distance_relative: mean mel distance over the mean frame's; 1 is no better
    than the average spectrum. items: the three values of every item.
    """
    chex.assert_rank([reference_BxTxC, estimate_BxTxC], 3)
    channels = range(reference_BxTxC.shape[-1])

    def over_channels(metric):
        # One item at a time: spectrograms of the finest scale are 8 times the waveform.
        return np.array(
            [
                np.mean([metric(x[None, :, c], y[None, :, c])[0] for c in channels])
                for x, y in zip(reference_BxTxC, estimate_BxTxC, strict=True)
            ]
        )

    values = dict(
        si_snr_db=over_channels(si_snr),
        mel_distance_log10=over_channels(lambda x, y: mel_distance(x, y, sample_rate)),
        mean_frame_distance_log10=over_channels(
            lambda x, y: mean_frame_distance(x, mean_frames, sample_rate)
        ),
    )
    result = {name: summary(value) for name, value in values.items()}
    result["mel_distance_relative"] = float(
        np.mean(values["mel_distance_log10"]) / np.mean(values["mean_frame_distance_log10"])
    )
    result["items"] = [
        {name: float(value[n]) if np.isfinite(value[n]) else None for name, value in values.items()}
        for n in range(len(reference_BxTxC))
    ]
    return result


def mel_figure(originals, reconstructions, sample_rate: int) -> matplotlib.figure.Figure:
    """Mel spectrograms, dB, of some items [items, time] above their reconstructions."""
    figure = matplotlib.figure.Figure(figsize=(3 * len(originals), 4), layout="constrained")
    axes = figure.subplots(2, len(originals), squeeze=False)
    for column, pair in enumerate(zip(originals, reconstructions)):
        spectra = [
            10 * losses.log_mel(mel.mel_spectrogram(x[None], sample_rate, 1024)[0]).T for x in pair
        ]
        top = float(np.max(spectra[0]))
        for row, spectrum in enumerate(spectra):
            axes[row, column].imshow(
                spectrum, origin="lower", aspect="auto", vmin=top - 60, vmax=top
            )
            axes[row, column].set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("original")
    axes[1, 0].set_ylabel("reconstruction")
    return figure


def _log_mel(x_BxT, sample_rate: int, n_fft: int) -> np.ndarray:
    return np.asarray(_compiled_log_mel(x_BxT, sample_rate, n_fft))


@partial(jax.jit, static_argnums=(1, 2))
def _compiled_log_mel(x_BxT, sample_rate: int, n_fft: int):
    return losses.log_mel(mel.mel_spectrogram(x_BxT, sample_rate, n_fft))
