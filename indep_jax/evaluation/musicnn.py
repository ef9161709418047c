"""Embeddings of music from musicnn, a network that was trained to tag music.

Pons and Serra 2019, "musicnn: pre-trained convolutional neural networks for music audio tagging":
MSD_musicnn, trained on the Million Song Dataset. Its weights lie beside this file under its own
licence, musicnn.LICENSE; tests/golden/make_musicnn.py took them from the package.
"""

import functools
import pathlib
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import soxr

from indep_jax.signal import mel, stft
from indep_jax.support import progress

SAMPLE_RATE = 16_000
PATCH = 187  # frames that the network was trained on, 3 s
HOP = 256
_BATCH = 5  # the patches of 10 s


def embed_all(waves: Iterable[np.ndarray], sample_rate: int, label: str) -> np.ndarray:
    """Return `embed` of waveforms [time, channels], joined; label: for the progress on stderr."""
    waves = list(waves)
    return np.concatenate(
        [embed(wave, sample_rate) for wave in progress.each(waves, f"embed {label}")]
    )


def embed(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return embeddings float32 [patches, 200] of a waveform [time, channels], averaged to mono.

    A patch is 3 s, and neighbours overlap by half; a shorter waveform is padded with silence.
    """
    mono = soxr.resample(np.asarray(wave, np.float32).mean(axis=1), sample_rate, SAMPLE_RATE)
    mono = np.pad(mono, (0, max(0, (PATCH - 1) * HOP - len(mono))))
    frames = np.asarray(_log_mel(mono))
    patches = np.stack(
        [frames[i : i + PATCH] for i in range(0, len(frames) - PATCH + 1, PATCH // 2)]
    )
    embeddings = []
    for start in range(0, len(patches), _BATCH):
        batch = patches[start : start + _BATCH]
        filled = np.pad(batch, ((0, _BATCH - len(batch)), (0, 0), (0, 0)))  # one shape, one program
        embeddings.append(np.asarray(_network(_weights(), filled))[: len(batch)])
    return np.concatenate(embeddings)


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(pathlib.Path(__file__).with_suffix(".safetensors"))


@jax.jit
def _log_mel(x_T: jax.Array) -> jax.Array:
    """Return log-mel frames [1 + time // 256, 96], as librosa: centred, the ends reflected."""
    spectrum = stft.stft(jnp.pad(x_T, HOP, mode="reflect")[None], 2 * HOP, HOP)[0]
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    filters = mel.slaney_filterbank(SAMPLE_RATE, 2 * HOP, 96)
    return jnp.log10(10_000 * power @ jnp.asarray(filters, power.dtype) + 1)


@jax.jit
def _network(weights: dict, x_BxTxF: jax.Array) -> jax.Array:
    """Return the layer before the tags, [batch, 200], of log-mel patches [batch, 187, 96]."""

    def norm(x, number):
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        gamma, beta, mean, variance = (
            weights[f"{name}/{field}"]
            for field in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) * (gamma / jnp.sqrt(variance + 1e-3)) + beta

    def conv(x_BxTxFxC, number, before, after):
        """Convolve over time, padded with zeros, and over the frequencies where the kernel fits."""
        name = f"conv2d_{number}" if number else "conv2d"
        y = jax.lax.conv_general_dilated(
            x_BxTxFxC, weights[f"{name}/kernel"], (1, 1), [(before, after), (0, 0)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return norm(jax.nn.relu(y + weights[f"{name}/bias"]), number + 1)

    x = norm(x_BxTxF[..., None], 0)
    timbre = [conv(x, number, 3, 3).max(axis=2) for number in (0, 1)]
    # Kernels of 128, 64 and 32 frames of one frequency.
    tempo = [conv(x, 2 + i, n // 2 - 1, n // 2).max(axis=2) for i, n in enumerate((128, 64, 32))]
    features = [jnp.concatenate(timbre + tempo, axis=-1)]
    h = 0
    for number in (5, 6, 7):
        last = features[-1][..., None]
        h = h + conv(last, number, 3, 3)[:, :, 0]
        features.append(h)
    features_BxTxD = jnp.concatenate(features, axis=-1)
    pooled_BxDx2 = jnp.stack([features_BxTxD.max(axis=1), features_BxTxD.mean(axis=1)], axis=-1)
    pooled = norm(pooled_BxDx2.reshape(len(pooled_BxDx2), -1), 9)
    return norm(jax.nn.relu(pooled @ weights["dense/kernel"] + weights["dense/bias"]), 10)
