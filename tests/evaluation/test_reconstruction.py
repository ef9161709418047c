"""Reconstruction metrics against closed forms."""

import jax
import numpy as np
import pytest

from indep_jax.evaluation import reconstruction
from indep_jax.signal import losses, mel

RATE = 16_000
mel_spectrogram = jax.jit(mel.mel_spectrogram, static_argnums=(1, 2))


@pytest.fixture
def waves():
    return np.random.default_rng(0).normal(size=(3, 4000)).astype(np.float32) * 0.1


@pytest.mark.parametrize("decibels", [-10.0, 0.0, 17.0])
def test_si_snr_is_the_ratio_of_target_and_orthogonal_noise(decibels):
    time = np.arange(1000) / 1000
    target, noise = np.sin(2 * np.pi * 5 * time), np.sin(2 * np.pi * 9 * time)
    noisy = target + 10 ** (-decibels / 20) * noise
    assert reconstruction.si_snr(target, noisy) == pytest.approx(decibels, abs=1e-9)
    # Neither scale, nor sign, nor offset of either signal counts.
    changed = reconstruction.si_snr(3 * target + 1, 0.1 - 2 * noisy)
    assert changed == pytest.approx(decibels, abs=1e-6)
    pair = reconstruction.si_snr(np.stack([target, target]), np.stack([noisy, target]))
    np.testing.assert_allclose(pair, [decibels, 100])


def test_si_snr_where_there_is_silence(waves):
    silence = np.zeros(4000)
    assert np.isnan(reconstruction.si_snr(silence, waves[0]))
    assert np.isnan(reconstruction.si_snr(silence + 0.3, waves[0]))
    assert reconstruction.si_snr(waves[0], silence) == -100
    assert reconstruction.si_snr(waves[0], silence + 0.3) == -100
    assert reconstruction.si_snr(waves[0], waves[0]) == 100
    assert reconstruction.si_snr(waves[0], 1e-8 * waves[0]) == 100


def test_mel_distance_of_a_gain_is_the_gain(waves):
    loud = 30 * waves  # far above the floor of log10(1e-5 + mel)
    distance = reconstruction.mel_distance(loud, 10 * loud, RATE)
    # 20 dB, but for the bands of the small scales between whose edges no frequency lies.
    shares = [
        np.any(mel.mel_filterbank(RATE, n_fft, 64, 64.0) > 0, axis=0).mean()
        for n_fft in losses.MEL_SCALES
    ]
    np.testing.assert_allclose(distance, 2 * np.mean(shares), rtol=1e-3)
    same = reconstruction.mel_distance(waves, waves, RATE)
    np.testing.assert_array_equal(same, 0)


def test_mel_distance_is_the_mean_over_scales_and_symmetric(waves):
    other = waves[::-1].copy()
    expected = np.mean(
        [
            np.abs(
                np.log10(1e-5 + np.asarray(mel_spectrogram(waves, RATE, n)))
                - np.log10(1e-5 + np.asarray(mel_spectrogram(other, RATE, n)))
            ).mean((1, 2))
            for n in losses.MEL_SCALES
        ],
        axis=0,
    )
    found = reconstruction.mel_distance(waves, other, RATE)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    swapped = reconstruction.mel_distance(other, waves, RATE)
    np.testing.assert_array_equal(found, swapped)
    assert found[0] > 0.1


def test_mean_frame_is_the_mean_and_its_distance_the_deviation(waves):
    frames = reconstruction.mean_log_mel(waves, RATE)
    logs = [np.log10(1e-5 + np.asarray(mel_spectrogram(waves, RATE, n))) for n in losses.MEL_SCALES]
    for frame, log in zip(frames, logs, strict=True):
        np.testing.assert_allclose(frame, log.mean((0, 1)), rtol=1e-4)
    expected = np.mean([np.abs(log - log.mean((0, 1))).mean((1, 2)) for log in logs], axis=0)
    found = reconstruction.mean_frame_distance(waves, frames, RATE)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_interval_of_the_median_covers_it():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        found = reconstruction.summary(rng.exponential(size=24))
        low, high = found["median_interval_95"]
        assert low <= found["median"] <= high
        covered += low <= np.log(2) <= high
    assert covered >= 0.93 * 400  # at least 95%, less three standard errors of this trial


def test_summary_leaves_silence_out_and_counts_it():
    found = reconstruction.summary([1.0, np.nan, 3.0])
    assert (found["median"], found["items"], found["left_out"]) == (2, 2, 1)
    assert reconstruction.summary([np.nan]) == dict(items=0, left_out=1)
