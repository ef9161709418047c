"""Metrics of a codec."""

import numpy as np
import pytest

from indep_jax.evaluation import codec, reconstruction

RATE = 16_000


def test_summaries_of_metrics_over_items_and_channels():
    waves = np.random.default_rng(0).normal(size=(3, 4000)).astype(np.float32) * 0.1
    stereo = np.stack([waves, 0.5 * waves], axis=-1)
    stereo[2] = 0
    noisy = stereo + 0.02 * np.random.default_rng(2).normal(size=stereo.shape).astype(np.float32)
    frames = reconstruction.mean_log_mel(waves, RATE)
    found = codec.compare(stereo, noisy, RATE, frames)
    assert found["si_snr_db"]["items"] == 2 and found["si_snr_db"]["left_out"] == 1
    assert found["items"][2]["si_snr_db"] is None
    of_channels = [reconstruction.si_snr(stereo[0, :, c], noisy[0, :, c]) for c in range(2)]
    assert found["items"][0]["si_snr_db"] == pytest.approx(np.mean(of_channels))
    ratio = found["mel_distance_log10"]["mean"] / found["mean_frame_distance_log10"]["mean"]
    assert found["mel_distance_relative"] == pytest.approx(ratio)
