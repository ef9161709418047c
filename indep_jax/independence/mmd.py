"""Squared maximum mean discrepancy between codebooks and a permuted, so independent, sample."""

import jax
import jax.numpy as jnp

from indep_jax.independence import kernels, streams as streams_


def permutation_mmd(
    key,
    streams,
    *,
    bandwidths="paper",
    standardize: bool = True,
    published: bool = False,
    batch: int | None = None,
    segments=None,
    block: int = 1024,
):
    """MMD^2 of the joint rows against rows permuted independently per codebook; a scalar.

    Lemercier et al. 2024, Algorithm 1: mean k(x, x') + mean k(y, y') - 2 mean k(x, y), where x
    are the rows, y the rows with the codebooks shuffled against each other (a sample from the
    product of the marginals), k a mixture of Gaussian kernels on the concatenated vector.

    streams: [batch, time, codebooks, dim] or [rows, codebooks, dim].
    bandwidths: "paper", "median" or an array (see `kernels.bandwidths`).
    standardize: each coordinate to zero mean and unit variance over the rows first.
    segments: source file of each batch item (or row), integers. A pair is left out when its two
        sides have the same file in any codebook (a permuted row has a file per codebook).
    published: the arithmetic of the published code: no pair left out, and sums divided by the
        number of clips B as if it were the number of rows, (S_xx - B) / (B (B - 1)) and so on;
        clamped at 0. For comparison only. B is the first axis of [batch, time, ...] streams,
        `batch` says it for rows.

    Bias: a pair is left out when any codebook would meet its own row (the diagonal of xx and yy,
    and the pairs xy that the permutation maps there), so where the codebooks are independent the
    expectation is exactly 0, standardised or not. Where they are dependent it is low by a share
    of O(codebooks^2 / n) (of O(codebooks^2 / files) with segments): a permuted row may by chance
    hold two codebooks of one row.
    Variance: that of dHSIC plus that of the permutation, of the same order or larger; gradients
    of two permutations differ visibly at a thousand rows. Values may be below 0, not clamped.
    Cost: three passes over pairs (xx and yy at half price, by symmetry), O(n^2 codebooks dim)
    time, O(n + block^2) memory.

    ValueError for `published` with `segments`, or without a way to know the number of clips.
    """
    if published and segments is not None:
        raise ValueError("permutation_mmd: the published arithmetic knows no segments")
    if published and batch is None:
        if streams.ndim != 4:
            raise ValueError("permutation_mmd: published=True on rows needs batch=, their clips")
        batch = streams.shape[0]
    x_NxKxD, segments = streams_.rows(streams, segments)
    n, codebooks, _ = x_NxKxD.shape
    if standardize:
        x_NxKxD = streams_.standardize(x_NxKxD)
    a_CxK = kernels.bandwidths(bandwidths, x_NxKxD, segments)

    keys = jax.random.split(key, codebooks)
    order_NxK = jax.vmap(lambda key: jax.random.permutation(key, n), out_axes=1)(keys)
    y_NxKxD = jnp.take_along_axis(x_NxKxD, order_NxK[:, :, None], axis=0)
    x_ids = y_ids = None
    if not published:
        ids = jnp.arange(n) if segments is None else segments
        x_ids, y_ids = jnp.broadcast_to(ids[:, None], (n, codebooks)), ids[order_NxK]

    def total(x, y, x_ids, y_ids):
        sums, counts = kernels.pair_sums(
            x, y, a_CxK, x_ids, y_ids, marginals=False, block=block
        )
        return jnp.sum(sums), jnp.sum(counts)

    own = None if x_ids is None else x_ids[:, :1]  # the same in every codebook
    within_x, pairs_x = total(x_NxKxD, None, own, None)
    within_y, pairs_y = total(y_NxKxD, None, y_ids, None)
    across, pairs = total(x_NxKxD, y_NxKxD, x_ids, y_ids)
    if published:
        diagonal = batch * len(a_CxK)
        within = (within_x + within_y - 2 * diagonal) / (batch * (batch - 1))
        return jnp.maximum(within - 2 * across / batch**2, 0)
    return (
        within_x / jnp.maximum(pairs_x, 1)
        + within_y / jnp.maximum(pairs_y, 1)
        - 2 * across / jnp.maximum(pairs, 1)
    )
