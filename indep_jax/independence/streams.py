"""Streams of codebook vectors: delay alignment, rows, standardisation.

Streams are [batch, time, codebooks, dim]: what each codebook of a tokenizer says about each
frame, as vectors. The statistics of this package work on rows [n, codebooks, dim].
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from indep_jax.signal.stft import at_least_float32


def delays(pattern: str | Sequence[int], codebooks: int) -> tuple[int, ...]:
    """Delay of each codebook, in frames, of a language model's code pattern.

    "parallel" is no delay, "delay" is MusicGen's 0, 1, ..., codebooks - 1; a sequence gives the
    delays themselves. ValueError for other names, a wrong length or a negative delay.
    """
    if pattern == "parallel":
        return (0,) * codebooks
    if pattern == "delay":
        return tuple(range(codebooks))
    if isinstance(pattern, str):
        raise ValueError(f"delay pattern {pattern!r}: expected 'parallel', 'delay' or a sequence")
    pattern = tuple(int(delay) for delay in pattern)
    if len(pattern) != codebooks or min(pattern) < 0:
        raise ValueError(f"delays {pattern}: expected {codebooks} integers of at least 0")
    return pattern


def align(streams_BxTxKxD, delays: Sequence[int]):
    """Streams as a language model with these delays predicts them, in one step each.

    Output frame i holds stream k of frame i + max(delays) - delays[k], so that codebooks
    predicted at the same decoding step share a row: [batch, time - max(delays), codebooks, dim],
    exactly the frames that every codebook has. ValueError when none is left.
    """
    chex.assert_rank(streams_BxTxKxD, 4)
    longest, time = max(delays), streams_BxTxKxD.shape[1]
    if len(delays) != streams_BxTxKxD.shape[2]:
        raise ValueError(f"{len(delays)} delays for {streams_BxTxKxD.shape[2]} codebooks")
    if time <= longest:
        raise ValueError(f"streams of {time} frames: expected more than the delay of {longest}")
    starts = [longest - delay for delay in delays]
    return jnp.stack(
        [streams_BxTxKxD[:, s : s + time - longest, k] for k, s in enumerate(starts)], axis=2
    )


def rows(streams, segments=None):
    """Rows [n, codebooks, dim] of streams, and the segment id of every row (None without).

    streams: [batch, time, codebooks, dim] with segments [batch], repeated over time, or
    [rows, codebooks, dim] with segments [rows]. Integers; rows of one id come from one file.
    """
    chex.assert_rank(streams, {3, 4})
    if segments is not None:
        segments = jnp.asarray(segments)
        chex.assert_shape(segments, streams.shape[:1])
    if streams.ndim == 4:
        if segments is not None:
            segments = jnp.repeat(segments, streams.shape[1])
        streams = streams.reshape(-1, *streams.shape[2:])
    return streams, segments


def standardize(rows_NxKxD, eps: float = 1e-8):
    """Every coordinate with zero mean and unit variance over the rows, in at least float32.

    Unbiased variance, eps inside the root (as published): a constant coordinate gives zeros and
    a finite gradient. Gradients flow through mean and variance.
    """
    x = at_least_float32(rows_NxKxD)
    # Shifted by a row first: the coordinates of a collapsed codebook are then exactly zero, not
    # rounding errors that a standard deviation of 1e-4 would blow up.
    x = x - jax.lax.stop_gradient(x[:1])
    x = x - jnp.mean(x, axis=0)
    variance = jnp.sum(jnp.square(x), axis=0) / (x.shape[0] - 1)
    return x / jnp.sqrt(variance + eps)
