"""Squared maximum mean discrepancy between codebooks and a permuted, so independent, sample."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from indep_jax.independence import bandwidths as bandwidths_
from indep_jax.independence import pair_sums
from indep_jax.independence import streams as streams_
from indep_jax.support.errors import UserError


def from_config(config: Mapping[str, Any], pairs: pair_sums.Pairs | None = None) -> Callable:
    """Return `permutation_mmd` with a config's settings, as independence/loss.py asks.

    The published arithmetic has its own bandwidths, and leaves no pairs of a file out.
    """

    def loss(key, streams, segments=None, active=None):
        how = dict(active=active, block=config["block"], pairs=pairs)
        if config["published"]:
            return permutation_mmd(key, streams, published=True, **how)
        return permutation_mmd(
            key, streams, bandwidths=config["bandwidths"], segments=segments, **how
        )

    return loss


def permutation_mmd(
    key: jax.Array,
    streams: jax.Array,
    *,
    bandwidths: str | Sequence | jax.Array = "paper",
    published: bool = False,
    batch: int | None = None,
    segments: jax.Array | None = None,
    active: jax.Array | int | None = None,
    block: int = 512,
    pairs: pair_sums.Pairs | None = None,
) -> jax.Array:
    """Return MMD^2 of the joint rows to rows permuted independently per codebook; a scalar.

    Lemercier et al. 2024, Algorithm 1: mean k(x, x') + mean k(y, y') - 2 mean k(x, y), where x
    are the rows, y the rows with the codebooks shuffled against each other (a sample from the
    product of the marginals), k a mixture of Gaussian kernels on the concatenated vector.

    streams: [batch, time, codebooks, dim] or [rows, codebooks, dim]; each coordinate is first
        brought to zero mean and unit variance over the rows.
    bandwidths: "paper", "median" or an array (see `bandwidths.choose`); no gradient in them.
    segments: source file of each batch item (or row), integers. A pair is left out when its two
        sides have the same file in any codebook (a permuted row has a file per codebook).
    active, block, pairs: as for `dhsic`.
    published: the arithmetic of the published code, for comparison: no pair left out, and the
        number of clips B where the number of rows belongs: (S_xx - B) / (B (B - 1)) and so on,
        S the sums over pairs; clamped at 0. B is the first axis of [batch, time, ...] streams;
        `batch` says it for rows. On independent data it is far above 0.

    Bias: a pair is left out when any codebook would meet its own row (the diagonal of xx and yy,
    and the pairs xy that the permutation maps there), so where the codebooks are independent the
    expectation is exactly 0, standardised or not (with segments: where a file is as like any
    other file in each codebook). Where they are dependent the bias is O(1/n) (O(1/files) with
    segments), since a permuted row may by chance hold two codebooks of one row.
    Variance: that of dHSIC plus that of the permutation, of the same order or larger; gradients
    of two permutations differ visibly at a thousand rows. Values may be below 0, not clamped.
    Cost: three passes over pairs (xx and yy at half price, by symmetry), O(n^2 codebooks dim)
    time, O(n + block^2) memory.

    Raises UserError for `published` with `segments` or fewer than two clips, or on rows without
    `batch`.
    """
    if published and segments is not None:
        raise UserError("permutation_mmd: the published arithmetic knows no segments")
    if published and batch is None:
        if streams.ndim != 4:
            raise UserError("permutation_mmd: published=True on rows needs batch=, their clips")
        batch = streams.shape[0]
    if published and batch < 2:
        raise UserError(f"permutation_mmd: published=True of {batch} clip: expected at least 2")
    x_NxKxD, segments = streams_.rows(streams, segments)
    x_NxKxD = streams_.standardize(streams_.active_alone(x_NxKxD, active))
    a_CxK = bandwidths_.choose(bandwidths, x_NxKxD, segments)
    order_NxK = permutations(key, *x_NxKxD.shape[:2])
    if active is not None:  # a codebook that takes no part has no pairs to leave out
        taking_part = jnp.arange(order_NxK.shape[1]) < active
        order_NxK = jnp.where(taking_part, order_NxK, order_NxK[:, :1])
    pairs = pair_sums.LOCAL if pairs is None else pairs
    y_NxKxD = pairs.permuted(x_NxKxD, order_NxK)
    sums = functools.partial(
        pair_sums.pair_sums,
        a_CxK=a_CxK,
        marginals=False,
        block=block,
        ladder=bandwidths_.ladder(bandwidths),
        pairs=pairs,
    )
    if published:
        value = _published(sums, x_NxKxD, y_NxKxD, batch)
    else:
        ids = jnp.arange(x_NxKxD.shape[0]) if segments is None else segments
        ids = jnp.broadcast_to(ids[:, None], order_NxK.shape)
        value = _mean_difference(sums, x_NxKxD, y_NxKxD, ids, pairs.permuted(ids, order_NxK))
    return streams_.of_several(value, active)


def permutations(key: jax.Array, rows: int, codebooks: int) -> jax.Array:
    """Return one independent permutation of the rows per codebook, int32 [rows, codebooks]."""
    keys = jax.random.split(key, codebooks)
    return jax.vmap(lambda key: jax.random.permutation(key, rows), out_axes=1)(keys)


def _mean_difference(sums, x_NxKxD, y_NxKxD, x_ids, y_ids):
    def mean(x, y, x_ids, y_ids):
        of_rows, counts = sums(x, y, x_ids=x_ids, y_ids=y_ids)
        return jnp.sum(of_rows) / jnp.maximum(jnp.sum(counts), 1)

    return (
        mean(x_NxKxD, None, x_ids[:, :1], None)  # the same in every column
        + mean(y_NxKxD, None, y_ids, None)
        - 2 * mean(x_NxKxD, y_NxKxD, x_ids, y_ids)
    )


def _published(sums, x_NxKxD, y_NxKxD, batch):
    def total(x, y):
        return jnp.sum(sums(x, y, x_ids=None, y_ids=None)[0], axis=(1, 2))  # of every component

    within = total(x_NxKxD, None) + total(y_NxKxD, None) - 2 * batch
    across = total(x_NxKxD, y_NxKxD)
    estimate = within / (batch * (batch - 1)) - 2 * across / batch**2
    return jnp.maximum(jnp.sum(estimate), 0)
