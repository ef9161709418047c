import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from indep_jax.signal import losses, mel, stft


@pytest.fixture
def noise():
    return np.random.default_rng(0).standard_normal((2, 1000))


def test_stft_is_scipys(noise):
    n_fft, hop = 64, 16
    with jax.enable_x64(True):
        ours = stft.stft(jnp.asarray(noise), n_fft, hop)
    window = scipy.signal.get_window("hann", n_fft)
    theirs = scipy.signal.ShortTimeFFT(window, hop, fs=1, phase_shift=None).stft(noise)
    # scipy's slice 0 is centred at sample 0; the first whole frame is the one centred at n_fft / 2.
    first = -scipy.signal.ShortTimeFFT(window, hop, fs=1).p_min + n_fft // 2 // hop
    expected = np.swapaxes(theirs[..., first : first + ours.shape[1]], 1, 2)
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_stft_normalized_keeps_the_power_of_white_noise():
    x = np.random.default_rng(0).standard_normal((1, 200_000))
    spectrum = stft.stft(jnp.asarray(x, jnp.float32), 128, 32, normalized=True)
    assert np.mean(np.abs(spectrum) ** 2) == pytest.approx(1.0, rel=0.02)


def test_stft_of_too_short_a_signal_is_refused():
    with pytest.raises(ValueError, match="fewer than one frame"):
        stft.stft(jnp.zeros((1, 10)), 64, 16)


def test_mel_filters_are_triangles_with_peaks_at_the_mel_points():
    bank = mel.mel_filterbank(16_000, 1 << 16, 10, f_min=64.0)  # fine bins: peaks are reached
    assert bank.min() == 0 and np.allclose(bank.max(axis=0), 1, atol=1e-2)
    frequencies = np.linspace(0, 8000, bank.shape[0])
    peaks = 2595 * np.log10(1 + frequencies[bank.argmax(axis=0)] / 700)
    low, high = (2595 * np.log10(1 + f / 700) for f in (64.0, 8000.0))
    np.testing.assert_allclose(peaks, np.linspace(low, high, 12)[1:-1], atol=1)
    inside = (frequencies > frequencies[bank.argmax(axis=0)[0]]) & (
        frequencies < frequencies[bank.argmax(axis=0)[-1]]
    )
    # Neighbouring triangles are linear in frequency and cross: together they make one.
    np.testing.assert_allclose(bank[inside].sum(axis=1), 1, atol=1e-9)


def test_mel_spectrogram_finds_a_tone():
    rate, frequency = 16_000, 1000.0
    tone = np.sin(2 * np.pi * frequency * np.arange(rate) / rate)[None]
    power = np.asarray(mel.mel_spectrogram(jnp.asarray(tone, jnp.float32), rate, 1024))
    assert power.shape == (1, -(-rate // 256), 64)
    bank = mel.mel_filterbank(rate, 1024, 64, 64.0)
    expected = bank[round(frequency / rate * 1024)].argmax()
    assert (power[0, 5:-5].argmax(axis=1) == expected).all()


def test_mel_loss_of_equal_signals_is_zero_and_of_others_is_its_definition(noise):
    x, y = (jnp.asarray(a, jnp.float32) for a in (noise, noise[::-1] * 0.5))
    assert losses.multi_scale_mel(x, x, 16_000) == 0
    terms = []
    for n_fft in (64, 128, 256, 512, 1024):
        a, b = (np.asarray(mel.mel_spectrogram(s, 16_000, n_fft), np.float64) for s in (x, y))
        terms += [np.abs(a - b).mean(), ((np.log10(a + 1e-5) - np.log10(b + 1e-5)) ** 2).mean()]
    value = losses.multi_scale_mel(x, y, 16_000)
    np.testing.assert_allclose(value, np.sum(terms) / 10, rtol=1e-5)


def test_relative_l1_does_not_depend_on_the_level(noise):
    x, y = noise, noise + 0.1
    quiet = losses.l1(1e-2 * x, 1e-2 * y, relative=True)
    assert quiet == pytest.approx(float(losses.l1(x, y, relative=True)), rel=2e-3)
    assert losses.l1(x, y) == pytest.approx(0.1)
