"""The Fréchet distance of embeddings, and the network that makes them, against TensorFlow's."""

import pathlib

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import soxr

from indep_jax.evaluation import frechet, musicnn

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "musicnn.npz"


@pytest.fixture(scope="module")
def golden():
    """make_musicnn.py's: a sound of 4 s, librosa's log-mel of it, TensorFlow's embedding of two patches."""
    return dict(np.load(GOLDEN))


def test_the_spectrogram_is_librosas(golden):
    found = np.asarray(musicnn._log_mel(golden["wave"]))
    # The logarithm of 1 + 10,000 power makes the last digits of near-silence large.
    np.testing.assert_allclose(found, golden["log_mel"], atol=5e-5)


def test_the_embedding_is_tensorflows(golden):
    frames, expected = golden["log_mel"], golden["embedding"]
    patches = np.stack([frames[: musicnn.PATCH], frames[-musicnn.PATCH :]])
    found = np.asarray(musicnn._network(musicnn._weights(), patches))
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    (whole,) = musicnn.embed(golden["wave"][:, None], musicnn.SAMPLE_RATE)
    assert np.linalg.norm(whole - expected[0]) < 1e-4 * np.linalg.norm(expected[0])


def test_patches_do_not_depend_on_what_is_beside_them(golden):
    wave = np.tile(golden["wave"], 5)[:, None]  # of 20 s, in more than one batch
    found = musicnn.embed(wave, 16_000)
    stride = musicnn.PATCH // 2 * musicnn.HOP
    assert len(found) == 1 + (1 + len(wave) // musicnn.HOP - musicnn.PATCH) // (musicnn.PATCH // 2)
    for number in (1, 7):
        start = (
            number * stride - musicnn.HOP
        )  # a frame more at each end: the first hears a reflection
        piece = wave[start : start + (musicnn.PATCH + 1) * musicnn.HOP]
        frames = np.asarray(musicnn._log_mel(piece[:, 0]))[1 : 1 + musicnn.PATCH]
        alone = np.asarray(musicnn._network(musicnn._weights(), frames[None]))[0]
        np.testing.assert_allclose(found[number], alone, atol=1e-4)


def test_channels_and_rates_and_short_sounds(golden):
    wave = golden["wave"]
    expected = musicnn.embed(wave[:, None], 16_000)
    stereo = np.stack([2 * wave, np.zeros_like(wave)], axis=1)
    np.testing.assert_allclose(musicnn.embed(stereo, 16_000), expected, atol=1e-5)
    # Without what the resampler's filter takes off below 8 kHz.
    low = scipy.signal.sosfiltfilt(scipy.signal.butter(16, 6_000, fs=16_000, output="sos"), wave)
    expected = musicnn.embed(low[:, None], 16_000)
    found = musicnn.embed(soxr.resample(low, 16_000, 48_000)[:, None], 48_000)
    assert np.linalg.norm(found - expected) < 0.01 * np.linalg.norm(expected)
    silent = np.concatenate([wave[:16_000], np.zeros(32_000, np.float32)])[:, None]
    np.testing.assert_array_equal(
        musicnn.embed(silent[:16_000], 16_000)[0], musicnn.embed(silent, 16_000)[0]
    )


def normal(rng, rows, mean, root):
    """Rows whose mean is `mean` and whose covariance is root' root, both exactly."""
    x = rng.standard_normal((rows, len(root)))
    q = np.linalg.qr(x - x.mean(0))[0]
    return mean + np.sqrt(rows - 1) * q @ root


def test_the_distance_of_known_normal_distributions():
    rng = np.random.default_rng(0)
    one, other = rng.uniform(0.5, 2, (2, 6))
    mean = rng.standard_normal(6)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]  # covariances that commute
    first = normal(rng, 40, np.zeros(6), np.diag(one) @ turn)
    second = normal(rng, 50, mean, np.diag(other) @ turn)
    expected = np.sum(mean**2) + np.sum((one - other) ** 2)
    assert frechet.distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet.distance(second, first) == pytest.approx(expected, rel=1e-9)
    assert frechet.distance(first, first[::-1]) == pytest.approx(0, abs=1e-9)

    third = rng.standard_normal((60, 6)) @ rng.standard_normal((6, 6))
    product = np.cov(first.T) @ np.cov(third.T)
    trace = np.trace(np.cov(first.T) + np.cov(third.T) - 2 * scipy.linalg.sqrtm(product).real)
    expected = np.sum((first.mean(0) - third.mean(0)) ** 2) + trace
    assert frechet.distance(first, third) == pytest.approx(expected, rel=1e-9)


def test_fewer_rows_than_dimensions():
    """Two rows each, along axes at an angle: tr (C C')^(1/2) is s s' |cos|."""
    axis, other = np.eye(50)[0], np.eye(50)[0] * 0.6 + np.eye(50)[1] * 0.8
    first, second = np.stack([axis, -axis]), np.stack([3 * other, -3 * other])
    expected = 2 + 18 - 2 * np.sqrt(2 * 18) * 0.6
    assert frechet.distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_more_noise_is_further_away(golden):
    rng = np.random.default_rng(0)
    pieces = [golden["wave"][start : start + 50_000, None] for start in range(0, 14_000, 2_000)]

    def distance(noise):
        heard = [x + noise * rng.standard_normal(x.shape).astype(np.float32) for x in pieces]
        return frechet.distance(*(musicnn.embed_all(x, 16_000, "") for x in (pieces, heard)))

    found = [distance(noise) for noise in (0.0, 0.003, 0.03, 0.3)]
    assert found[0] == pytest.approx(0, abs=1e-6) and found == sorted(found)
