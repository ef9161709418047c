"""Streams of codebook vectors: delay alignment, rows, standardisation.

Streams are [batch, time, codebooks, dim]: what each codebook of a tokenizer says about each
frame, as vectors. The statistics of this package work on rows [n, codebooks, dim].
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from indep_jax.signal.stft import at_least_float32
from indep_jax.support.errors import UserError

RIDGE = 0.1  # of `condition`, over the mean variance of what predicts


def delays(pattern: str | Sequence[int], codebooks: int) -> tuple[int, ...]:
    """Return the delay of each codebook, in frames, of a language model's code pattern.

    "parallel" is no delay, "delay" is MusicGen's 0, 1, ..., codebooks - 1; a sequence gives the
    delays themselves. Raises UserError for other names, a wrong length or a negative delay.
    """
    if pattern == "parallel":
        return (0,) * codebooks
    if pattern == "delay":
        return tuple(range(codebooks))
    if isinstance(pattern, str):
        raise UserError(f"delay pattern {pattern!r}: expected 'parallel', 'delay' or a sequence")
    pattern = tuple(int(delay) for delay in pattern)
    if len(pattern) != codebooks or min(pattern) < 0:
        raise UserError(f"delays {pattern}: expected {codebooks} integers of at least 0")
    return pattern


def align(streams_BxTxKxD: jax.Array, pattern: str | Sequence[int]) -> jax.Array:
    """Return streams as a language model with these delays predicts them, in one step each.

    pattern: a name or the delays themselves, see `delays`. Output frame i holds stream k of frame
    i + max(delays) - delays[k], so that codebooks predicted at the same decoding step share a row:
    [batch, time - max(delays), codebooks, dim],
    exactly the frames that every codebook has. Raises UserError when none is left.
    """
    chex.assert_rank(streams_BxTxKxD, 4)
    _, time, codebooks, _ = streams_BxTxKxD.shape
    lags = delays(pattern, codebooks)
    longest = max(lags)
    if time <= longest:
        raise UserError(f"streams of {time} frames: expected more than the delay of {longest}")
    starts = [longest - delay for delay in lags]
    return jnp.stack(
        [streams_BxTxKxD[:, s : s + time - longest, k] for k, s in enumerate(starts)], axis=2
    )


def condition(
    streams_BxTxKxD: jax.Array, past: int = 1, active: jax.Array | int | None = None
) -> jax.Array:
    """Return streams minus their linear prediction from the `past` frames before.

    [batch, time - past, codebooks, dim]: what is new in each frame. A language model sees the past,
    so what it loses by predicting codebooks side by side is their dependence given the past; that
    of these residuals is closer to it. Align first: with delays, the rows before a row are what was
    emitted before its step.

    Ridge regression of every coordinate on all coordinates of all codebooks in the past frames,
    and a constant, fitted on these streams; the penalty is RIDGE times the predictors' mean
    variance. Gradients flow through the fit. With fewer rows than past * codebooks * dim it is the
    penalty that keeps the residuals from zero. At least float32. `active`: how many leading codebooks there are, the
    others are neither predictors nor left (see `dhsic`). Cost: O(rows (past codebooks dim)^2) and a
    Cholesky factorisation. Raises UserError unless 1 <= past < time.
    """
    chex.assert_rank(streams_BxTxKxD, 4)
    _, time, codebooks, dim = streams_BxTxKxD.shape
    if not 1 <= past < time:
        raise UserError(f"condition of {time} frames: expected 1 <= past < {time}, not {past}")
    streams_BxTxKxD = active_alone(streams_BxTxKxD, active)
    x_BxTxW = at_least_float32(streams_BxTxKxD).reshape(-1, time, codebooks * dim)
    before = [x_BxTxW[:, past - lag : time - lag] for lag in range(1, past + 1)]
    x_NxP = jnp.concatenate(before, axis=-1).reshape(-1, past * codebooks * dim)
    y_NxW = x_BxTxW[:, past:].reshape(-1, codebooks * dim)
    x_NxP, y_NxW = (part - jnp.mean(part, axis=0) for part in (x_NxP, y_NxW))
    gram_PxP = jnp.einsum("np,nq->pq", x_NxP, x_NxP, precision="highest")
    cross_PxW = jnp.einsum("np,nw->pw", x_NxP, y_NxW, precision="highest")
    predictors = past * dim * (codebooks if active is None else jnp.clip(active, 1, codebooks))
    penalty = RIDGE * jnp.trace(gram_PxP) / predictors
    penalty = jnp.where(penalty > 0, penalty, 1)  # constant streams have nothing to predict from
    gram_PxP = gram_PxP + penalty * jnp.eye(len(gram_PxP), dtype=gram_PxP.dtype)
    weights_PxW = jax.scipy.linalg.solve(gram_PxP, cross_PxW, assume_a="pos")
    left_NxW = y_NxW - jnp.einsum("np,pw->nw", x_NxP, weights_PxW, precision="highest")
    return left_NxW.reshape(-1, time - past, codebooks, dim)


def rows(
    streams: jax.Array, segments: jax.Array | None = None
) -> tuple[jax.Array, jax.Array | None]:
    """Return rows [n, codebooks, dim] of streams, and the segment id of every row (None without).

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


def standardize(rows_NxKxD: jax.Array, eps: float = 1e-8) -> jax.Array:
    """Return every coordinate with zero mean and unit variance over the rows, in at least float32.

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


def active_alone(x: jax.Array, active: jax.Array | int | None) -> jax.Array:
    """Return x [..., codebooks, dim] with every codebook from index `active` on at zero (None: as it is).

    A constant depends on nothing, its kernels are 1 and it gets no gradient: statistics of all
    codebooks are then those of the leading ones.
    """
    if active is None:
        return x
    return jnp.where(jnp.arange(x.shape[-2])[:, None] < active, x, 0)


def of_several(value: jax.Array, active: jax.Array | int | None) -> jax.Array:
    """Return a statistic's value, 0 without gradient where fewer than two codebooks are active."""
    return value if active is None else jnp.where(active >= 2, value, 0)
