"""Waveforms cut into chunks that are coded apart, and joined by a linear cross-fade.

As EnCodec 48 kHz does it (Défossez et al. 2022, section 3.1): 1 s chunks that overlap by 1%. The
last chunk, and with it the one before, may be shorter.
"""

from collections.abc import Iterable, Iterator, Sequence

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


def join(waves: Iterable[np.ndarray], starts: Sequence[int]) -> Iterator[np.ndarray]:
    """Cross-fades the waveforms [batch, time, channels] of chunks that begin at `starts`.

    Each is weighted by a triangle over the length of the first, and the sum divided by that of the
    weights: where one chunk is alone it is unchanged, and two that overlap fade linearly. In blocks
    of [batch, time, channels], each as soon as the next chunk cannot change it.
    """
    triangle_T = None
    for start, following, wave in zip(starts, [*starts[1:], None], waves, strict=True):
        if triangle_T is None:
            time = np.linspace(0, 1, wave.shape[1] + 2, dtype=np.float32)[1:-1]
            triangle_T = 0.5 - np.abs(time - 0.5)
            sums, weights_T = wave[:, :0], triangle_T[:0]
        more = max(0, wave.shape[1] - len(weights_T))
        sums = np.pad(sums, ((0, 0), (0, more), (0, 0)))
        weights_T = np.pad(weights_T, (0, more))
        weight_T = triangle_T[: wave.shape[1]]
        sums[:, : len(weight_T)] += weight_T[:, None] * wave
        weights_T[: len(weight_T)] += weight_T
        settled = len(weights_T) if following is None else following - start
        yield sums[:, :settled] / weights_T[:settled, None]
        sums, weights_T = sums[:, settled:], weights_T[settled:]
