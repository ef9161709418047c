"""Mixtures of Gaussian kernels on codebook vectors, and their sums over pairs of rows.

Component c of a mixture has the kernel exp(-d_k / (2 a[c, k])) on codebook k, d_k the squared
distance. Its product over codebooks is the Gaussian kernel on the concatenated vector when a is
the same for all k. The kernel statistics of this package are functions of the sums over pairs
below, and of nothing else that grows with the square of the rows.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.signal.stft import at_least_float32

PAPER_BANDWIDTHS = (0.1, 1.0, 5.0, 10.0, 20.0, 50.0)  # ICML 2024; for standardised vectors
MEDIAN_FACTORS = (0.5, 1.0, 2.0)
MEDIAN_ROWS = 128  # 8k pairs: the median's own error is far below the steps of the factors
SMALLEST_BANDWIDTH = 1e-6  # keeps 1 / a finite for a codebook that has collapsed to a point


def bandwidths(rule, rows_NxKxD, segments=None):
    """Squared bandwidths a [components, codebooks]; no gradient flows through them.

    rule "paper": PAPER_BANDWIDTHS for every codebook. "median": per codebook, the median squared
    distance over pairs of an evenly spaced subsample of at most 128 rows, times MEDIAN_FACTORS;
    pairs of one segment are left out where segments [n] are given (unless no other pair exists).
    Where half of the pairs coincide the mean stands in for the median. An array [components] or
    [components, codebooks] of positive numbers is taken as it is. ValueError for other names.
    """
    n, codebooks, _ = rows_NxKxD.shape
    dtype = jnp.promote_types(rows_NxKxD.dtype, jnp.float32)
    if not isinstance(rule, str):
        a = jnp.asarray(rule, dtype)
        chex.assert_rank(a, {1, 2})
        a = a[:, None] if a.ndim == 1 else a
        return jax.lax.stop_gradient(jnp.broadcast_to(a, (a.shape[0], codebooks)))
    if rule == "paper":
        a = jnp.asarray(PAPER_BANDWIDTHS, dtype)
        return jnp.broadcast_to(a[:, None], (len(PAPER_BANDWIDTHS), codebooks))
    if rule != "median":
        raise ValueError(f"bandwidths {rule!r}: expected 'paper', 'median' or an array")
    if n < 2:
        raise ValueError(f"bandwidths 'median' of {n} rows: expected at least 2")
    size = min(n, MEDIAN_ROWS)
    chosen = np.arange(size) * n // size
    x_SxKxD = jax.lax.stop_gradient(at_least_float32(rows_NxKxD[chosen]))
    x_KxSxD = jnp.swapaxes(x_SxKxD - jnp.mean(x_SxKxD, axis=0), 0, 1)
    first, second = np.triu_indices(size, 1)
    pairs_KxP = _squared_distances(x_KxSxD, x_KxSxD)[:, first, second]
    if segments is not None:
        other = segments[chosen[first]] != segments[chosen[second]]
        pairs_KxP = jnp.where(other | ~jnp.any(other), pairs_KxP, jnp.nan)
    median, mean = jnp.nanmedian(pairs_KxP, axis=1), jnp.nanmean(pairs_KxP, axis=1)
    scale = jnp.where(median > 1e-3 * mean, median, mean)
    return jnp.asarray(MEDIAN_FACTORS, dtype)[:, None] * jnp.maximum(scale, SMALLEST_BANDWIDTH)


def pair_sums(x_NxKxD, y_NxKxD, a_CxK, x_ids, y_ids, *, marginals: bool, block: int):
    """For each row i of x, sums over the rows j of y that may be its partners.

    x_ids, y_ids: integers [n, columns]; the pair (i, j) is left out when its ids agree in any
    column. Both None: every pair counts. y_NxKxD None stands for x (with the same ids): each pair
    is then visited once for both of its rows.

    Returns sums [components, 1 + codebooks, n], where sums[:, 0] is of the kernels' product over
    codebooks and sums[:, 1 + k] of codebook k's kernel alone (only the former, [components, 1, n],
    without `marginals`), and counts [n], the number of partners.

    Pairs are visited in tiles of block x block rows, in the backward pass too, which computes
    them again: memory is O(n + block^2), time O(n^2). Differentiable once, in reverse mode, in
    x and y; not in the bandwidths. float32 at least, matmuls at full precision.
    """
    chex.assert_rank(x_NxKxD, 3)
    n, symmetric, exclude = x_NxKxD.shape[0], y_NxKxD is None, x_ids is not None
    if block < 1:
        raise ValueError(f"block {block}: expected at least 1")
    block = min(block, n)
    # Distances do not see a shift; without it |x|^2 + |y|^2 - 2 x.y would cancel to rounding.
    x = at_least_float32(x_NxKxD)
    shift = jax.lax.stop_gradient(jnp.mean(x, axis=0))

    def prepare(rows, ids):
        if rows is None:
            return None, None
        rows = jnp.swapaxes(at_least_float32(rows) - shift, 0, 1)
        ids = ids if exclude else jnp.zeros((n, 0), jnp.int32)
        padding = (0, -n % block)
        return jnp.pad(rows, ((0, 0), padding, (0, 0))), jnp.pad(ids, (padding, (0, 0)))

    x, x_ids = prepare(x, x_ids)
    y, y_ids = prepare(y_NxKxD, y_ids)
    a_CxK = jax.lax.stop_gradient(a_CxK.astype(x.dtype))
    sums, counts = _sums(_Plan(symmetric, marginals, block, n), x, y, a_CxK, x_ids, y_ids)
    return sums[:, :, :n], counts[:n]


class _Plan(NamedTuple):
    """What the compiled sums depend on besides arrays."""

    symmetric: bool
    marginals: bool
    block: int
    n: int  # rows that are real, not padding


def _squared_distances(x_KxNxD, y_KxMxD):
    """[codebooks, n, m], at least 0 in spite of rounding. Its derivative is never asked for."""
    products = jnp.einsum("knd,kmd->knm", x_KxNxD, y_KxMxD, precision="highest")
    x_norms = jnp.sum(jnp.square(x_KxNxD), axis=-1)[:, :, None]
    y_norms = jnp.sum(jnp.square(y_KxMxD), axis=-1)[:, None, :]
    return jnp.maximum(x_norms + y_norms - 2 * products, 0)


def _over_tiles(plan, visit, carry, padded):
    """carry after visit(carry, i, j) for every tile; the upper triangle when symmetric."""
    blocks = padded // plan.block
    if blocks == 1:
        return visit(carry, 0, 0)
    tiles = [(i, j) for i in range(blocks) for j in range(i if plan.symmetric else 0, blocks)]
    tiles = jnp.asarray(np.array(tiles, np.int32))
    return jax.lax.scan(lambda c, tile: (visit(c, tile[0], tile[1]), None), carry, tiles)[0]


def _take(plan, x, index, axis):
    return jax.lax.dynamic_slice_in_dim(x, index * plan.block, plan.block, axis)


def _add(plan, x, update, index, axis):
    update = _take(plan, x, index, axis) + update
    return jax.lax.dynamic_update_slice_in_dim(x, update, index * plan.block, axis)


def _partners(plan, i, j, x_ids, y_ids):
    """Which pairs of tile (i, j) count, bool [block, block]."""
    row, column = (index * plan.block + jnp.arange(plan.block) for index in (i, j))
    partners = (row < plan.n)[:, None] & (column < plan.n)[None, :]
    own, other = _take(plan, x_ids, i, 0), _take(plan, y_ids, j, 0)
    for c in range(own.shape[1]):
        partners &= own[:, c, None] != other[None, :, c]
    return partners


def _joint(d_Kxbxb, rates_K):
    """The product of a component's kernels over codebooks [block, block], by one exp."""
    return jnp.exp(-sum(d * rate for d, rate in zip(d_Kxbxb, rates_K)))


def _marginals(d_Kxbxb, rates_K):
    return jnp.exp(-d_Kxbxb * rates_K[:, None, None])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(plan, x_KxNxD, y_KxNxD, a_CxK, x_ids, y_ids):
    x, y = x_KxNxD, x_KxNxD if plan.symmetric else y_KxNxD
    y_ids = x_ids if plan.symmetric else y_ids
    codebooks, padded, _ = x.shape
    rates_CxK = 1 / (2 * a_CxK)

    def visit(carry, i, j):
        sums, counts = carry
        partners = _partners(plan, i, j, x_ids, y_ids)
        d = _squared_distances(_take(plan, x, i, 1), _take(plan, y, j, 1))
        kernels = []  # of a component: the product over codebooks, then those of the codebooks
        for rates_K in rates_CxK:
            kernels.append(jnp.where(partners, _joint(d, rates_K), 0)[None])
            if plan.marginals:
                kernels.append(jnp.where(partners, _marginals(d, rates_K), 0))

        def along(axis):
            sums = jnp.concatenate([jnp.sum(kernel, axis) for kernel in kernels])
            return sums.reshape(len(a_CxK), -1, plan.block), jnp.sum(partners, axis, x.dtype)

        sums, counts = (_add(plan, s, new, i, -1) for s, new in zip((sums, counts), along(-1)))
        if plan.symmetric:
            sums, counts = (
                _add(plan, s, jnp.where(i == j, 0, new), j, -1)
                for s, new in zip((sums, counts), along(-2))
            )
        return sums, counts

    sums = jnp.zeros((len(a_CxK), 1 + plan.marginals * codebooks, padded), x.dtype)
    return _over_tiles(plan, visit, (sums, jnp.zeros(padded, x.dtype)), padded)


def _sums_forward(plan, *args):
    return _sums(plan, *args), args


def _sums_backward(plan, args, cotangents):
    x, y, a_CxK, x_ids, y_ids = args
    y, y_ids = (x, x_ids) if plan.symmetric else (y, y_ids)
    g_CxSxN, rates_CxK = cotangents[0], 1 / (2 * a_CxK)

    def visit(carry, i, j):
        own, other = _take(plan, x, i, 1), _take(plan, y, j, 1)
        partners = _partners(plan, i, j, x_ids, y_ids)
        d = _squared_distances(own, other)
        g = _take(plan, g_CxSxN, i, -1)[..., :, None]
        if plan.symmetric:  # the pair is in the sums of both of its rows
            g = g + _take(plan, g_CxSxN, j, -1)[..., None, :]
        slopes = 0
        for g_SxN, rates_K in zip(g, rates_CxK):
            kernels = g_SxN[:1] * _joint(d, rates_K)
            if plan.marginals:
                kernels = kernels + g_SxN[1:] * _marginals(d, rates_K)
            slopes -= 2 * rates_K[:, None, None] * kernels
        slopes = jnp.where(partners, slopes, 0)
        # The derivative of d_k in x_i is 2 (x_i - y_j), zero where they coincide.
        to_own = jnp.sum(slopes, 2)[..., None] * own - jnp.einsum(
            "knm,kmd->knd", slopes, other, precision="highest"
        )
        to_other = jnp.sum(slopes, 1)[..., None] * other - jnp.einsum(
            "knm,knd->kmd", slopes, own, precision="highest"
        )
        dx, dy = carry
        dx = _add(plan, dx, to_own, i, 1)
        if plan.symmetric:
            return _add(plan, dx, jnp.where(i == j, 0, to_other), j, 1), None
        return dx, _add(plan, dy, to_other, j, 1)

    carry = (jnp.zeros_like(x), None if plan.symmetric else jnp.zeros_like(y))
    dx, dy = _over_tiles(plan, visit, carry, x.shape[1])
    return dx, dy, None, None, None


_sums.defvjp(_sums_forward, _sums_backward)
