"""The d-variable Hilbert-Schmidt independence criterion (dHSIC)."""

import jax.numpy as jnp

from indep_jax.independence import pair_sums
from indep_jax.independence import streams as streams_
from indep_jax.support.errors import UserError


def dhsic(
    streams,
    *,
    bandwidths="median",
    standardize: bool = True,
    segments=None,
    diagonal: bool = False,
    active=None,
    block: int = 512,
    pairs=None,
):
    """dHSIC of the codebooks, summed over the components of the kernel mixture; a scalar.

    For each component A + prod_k b_k - 2 C, where over pairs of rows
        A = mean_ij prod_k k_k(i, j),  b_k = mean_ij k_k(i, j),  C = mean_i prod_k mean_j k_k(i, j)
    (Pfister et al. 2018). It estimates the squared maximum mean discrepancy between the joint
    distribution of the codebooks and the product of their marginals: what `permutation_mmd`
    (Lemercier et al. 2024) samples with permutations, in closed form. Zero in the population if
    and only if the codebooks are independent.

    streams: [batch, time, codebooks, dim] or [rows, codebooks, dim].
    bandwidths: "median", "median_shared", "paper" or an array (see `pair_sums.bandwidths`); no
        gradient in them.
    standardize: each coordinate to zero mean and unit variance over the rows first.
    segments: source file of each batch item (or row), integers; pairs of rows of one file are
        left out of every mean. Frames of one file resemble each other in every codebook, which
        reads as dependence between codebooks that have none.
    diagonal: False leaves i = j out of every mean; True is the V-statistic, which is exactly
        dHSIC of the empirical distribution and so at least 0 (zero on a full factorial grid).
    active: how many leading codebooks take part, a (traced) integer, default all: the others, which
        quantizer dropout left out, get no gradient. 0 with fewer than two.
    block: rows of a tile of pairs. pairs: default on one device (or as XLA likes), or
        `independence.ring(mesh, axis)` for rows that are sharded over devices.

    Bias: without the diagonal, none where the codebooks are independent, be they standardised or
    not and whatever bandwidths each gets from its own values: mean over pairs of a product then
    is the product of means. (With segments this also asks that a file be as like any other file
    in each codebook.) Where they are dependent O(1/n). The V-statistic is biased up by O(1/n)
    everywhere, which near independence is as much as there is to measure.
    Variance: O(1/n^2) at independence, O(1/n) elsewhere, where n lies between the number of files
    and of rows when rows of one file are alike. Values may be below 0 and are not clamped, which
    would take the gradient away.
    Cost: O(n^2 codebooks dim) time, each pair visited once forward and once backward;
    O(n + block^2) memory.

    Rows without a partner take no part; 0 if no pair is left. Reverse-mode derivatives, once.
    UserError for `diagonal` with `segments`.
    """
    if diagonal and segments is not None:
        raise UserError("dhsic: the V-statistic (diagonal) cannot leave out pairs of segments")
    x_NxKxD, segments = streams_.rows(streams, segments)
    x_NxKxD = streams_.active_alone(x_NxKxD, active)
    if standardize:
        x_NxKxD = streams_.standardize(x_NxKxD)
    a_CxK = pair_sums.bandwidths(bandwidths, x_NxKxD, segments)
    ids = None
    if not diagonal:
        ids = (jnp.arange(x_NxKxD.shape[0]) if segments is None else segments)[:, None]
    how = dict(marginals=True, block=block, ladder=pair_sums.ladder(bandwidths), pairs=pairs)
    sums_CxSxN, counts_N = pair_sums.pair_sums(x_NxKxD, None, a_CxK, ids, None, **how)
    means_CxS = jnp.sum(sums_CxSxN, axis=-1) / jnp.maximum(jnp.sum(counts_N), 1)
    row_means_CxKxN = sums_CxSxN[:, 1:] / jnp.maximum(counts_N, 1)
    partnered = jnp.maximum(jnp.sum(counts_N > 0), 1)
    # A row without partners has the product 0 in every component.
    crossed_C = jnp.sum(_product(row_means_CxKxN, axis=1), axis=-1) / partnered
    value = jnp.sum(means_CxS[:, 0] + _product(means_CxS[:, 1:], axis=1) - 2 * crossed_C)
    return streams_.of_several(value, active)


def _product(x, axis):
    """Product along a short axis; unlike jnp.prod's, its gradient is fine at zeros and cheap."""
    product, *others = jnp.moveaxis(x, axis, 0)
    for other in others:
        product = product * other
    return product
