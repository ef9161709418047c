"""Waveforms cut into chunks that are coded apart, and joined by a linear cross-fade.

As EnCodec 48 kHz does it (Défossez et al. 2022, section 3.1): 1 s chunks that overlap by 1%. The
last chunk, and with it the one before, may be shorter.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from indep_jax.codec.model import Codec


def spans(codec: Codec, length: int) -> list[tuple[int, int]]:
    """(first, last) of the chunks of a waveform, in samples; the whole where there are no chunks."""
    if not codec.chunk_seconds:
        return [(0, length)]
    size = int(codec.chunk_seconds * codec.sample_rate)
    stride = max(1, int((1 - codec.chunk_overlap) * size))
    return [(start, min(start + size, length)) for start in range(0, length, stride)]


def frames(codec: Codec, length: int) -> list[int]:
    """How many frames each chunk of a waveform of `length` samples has."""
    return [-(-(last - first) // codec.hop) for first, last in spans(codec, length)]


def join(waves: Sequence, starts: Sequence[int]):
    """Cross-fades the waveforms [batch, time, channels] of chunks that begin at `starts`.

    Each is weighted by a triangle over the length of the first, and the sum divided by that of the
    weights: where one chunk is alone it is unchanged, and two that overlap fade linearly.
    """
    largest = waves[0].shape[1]
    time = np.linspace(0, 1, largest + 2, dtype=np.float32)[1:-1]
    weight_T = 0.5 - np.abs(time - 0.5)
    total = max(start + wave.shape[1] for start, wave in zip(starts, waves))
    batch, _, channels = waves[0].shape
    joined, weights = np.zeros((batch, total, channels), np.float32), np.zeros(total, np.float32)
    for start, wave in zip(starts, waves):
        weight = weight_T[: wave.shape[1]]
        joined[:, start : start + len(weight)] += weight[:, None] * np.asarray(wave)
        weights[start : start + len(weight)] += weight
    return jnp.asarray(joined / weights[:, None])
