"""The d-variable Hilbert-Schmidt independence criterion (dHSIC)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from indep_jax.independence import bandwidths as bandwidths_
from indep_jax.independence import pair_sums
from indep_jax.independence import streams as streams_


def from_config(config: Mapping[str, Any], pairs: pair_sums.Pairs | None = None) -> Callable:
    """Return `dhsic` with a config's bandwidths and block, as independence/loss.py asks."""

    def loss(key, streams, segments=None, active=None):
        del key
        return dhsic(
            streams,
            bandwidths=config["bandwidths"],
            segments=segments,
            active=active,
            block=config["block"],
            pairs=pairs,
        )

    return loss


def dhsic(
    streams: jax.Array,
    *,
    bandwidths: str | Sequence | jax.Array = "median",
    segments: jax.Array | None = None,
    active: jax.Array | int | None = None,
    block: int = 512,
    pairs: pair_sums.Pairs | None = None,
) -> jax.Array:
    """Return dHSIC of the codebooks, summed over the components of the kernel mixture; a scalar.

    For each component A + prod_k b_k - 2 C, where over pairs of rows
        A = mean_ij prod_k k_k(i, j),  b_k = mean_ij k_k(i, j),  C = mean_i prod_k mean_j k_k(i, j)
    (Pfister et al. 2018). It estimates the squared maximum mean discrepancy between the joint
    distribution of the codebooks and the product of their marginals: what `permutation_mmd`
    (Lemercier et al. 2024) samples with permutations, in closed form. Zero in the population if
    and only if the codebooks are independent.

    streams: [batch, time, codebooks, dim] or [rows, codebooks, dim]; each coordinate is first
        brought to zero mean and unit variance over the rows.
    bandwidths: "median", "paper" or an array (see `bandwidths.choose`); no gradient in them.
    segments: source file of each batch item (or row), integers; pairs of rows of one file are
        left out of every mean. Frames of one file resemble each other in every codebook, which
        reads as dependence between codebooks that have none.
    active: how many leading codebooks take part, a (traced) integer, default all: the others, which
        quantizer dropout left out, get no gradient. 0 with fewer than two.
    block: rows of a tile of pairs. pairs: default on one device (or as XLA likes), or
        `independence.ring(mesh, axis)` for rows that are sharded over devices.

    Bias: none where the codebooks are independent, standardised or not and whatever bandwidths each
    gets from its own values: mean over pairs of a product then is the product of means. (With
    segments this also asks that a file be as like any other file in each codebook.) Where they are
    dependent O(1/n).
    Variance: O(1/n^2) at independence, O(1/n) elsewhere, where n lies between the number of files
    and of rows when rows of one file are alike. Values may be below 0 and are not clamped, which
    would take the gradient away.
    Cost: O(n^2 codebooks dim) time, each pair visited once forward and once backward;
    O(n + block^2) memory.

    Rows without a partner take no part; 0 if no pair is left. Reverse-mode derivatives, once.
    """
    x_NxKxD, segments = streams_.rows(streams, segments)
    x_NxKxD = streams_.standardize(streams_.active_alone(x_NxKxD, active))
    value = statistic(
        x_NxKxD,
        bandwidths_.choose(bandwidths, x_NxKxD, segments),
        jnp.arange(x_NxKxD.shape[0]) if segments is None else segments,
        block=block,
        ladder=bandwidths_.ladder(bandwidths),
        pairs=pairs,
    )
    return streams_.of_several(value, active)


def statistic(
    x_NxKxD: jax.Array,
    a_CxK: jax.Array,
    ids_N: jax.Array | None,
    *,
    block: int = 512,
    ladder: tuple | None = None,
    pairs: pair_sums.Pairs | None = None,
) -> jax.Array:
    """Return dHSIC of rows as they are, with squared bandwidths [components, codebooks]; a scalar.

    Pairs of equal ids are left out. None leaves none out, a row with itself included: that is
    dHSIC of the empirical distribution (the V-statistic), at least 0 and biased up by O(1/n).
    """
    ids = None if ids_N is None else ids_N[:, None]
    how = dict(marginals=True, block=block, ladder=ladder, pairs=pairs)
    sums_CxSxN, counts_N = pair_sums.pair_sums(x_NxKxD, None, a_CxK, ids, None, **how)
    means_CxS = jnp.sum(sums_CxSxN, axis=-1) / jnp.maximum(jnp.sum(counts_N), 1)
    row_means_CxKxN = sums_CxSxN[:, 1:] / jnp.maximum(counts_N, 1)
    partnered = jnp.maximum(jnp.sum(counts_N > 0), 1)
    # A row without partners has the product 0 in every component.
    crossed_C = jnp.sum(_product(row_means_CxKxN, axis=1), axis=-1) / partnered
    return jnp.sum(means_CxS[:, 0] + _product(means_CxS[:, 1:], axis=1) - 2 * crossed_C)


def _product(x, axis):
    """Product along a short axis; unlike jnp.prod's, its gradient is fine at zeros and cheap."""
    product, *others = jnp.moveaxis(x, axis, 0)
    for other in others:
        product = product * other
    return product
