"""Sums of Gaussian kernels over pairs of rows, of all components of a mixture in one pass.

Component c of a mixture has the kernel exp(-d_k / (2 a[c, k])) on codebook k, d_k the squared
distance and a the bandwidths (bandwidths.py). Its product over codebooks is the Gaussian kernel on
the concatenated vector when a is the same for all k. The kernel statistics of this package are
functions of the sums over pairs below, and of nothing else that grows with the square of the rows.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.independence.distances import squared_distances
from indep_jax.signal.stft import at_least_float32
from indep_jax.support.errors import UserError


class Rows(NamedTuple):
    """Rows that meet in pairs: vectors [codebooks, n, dim], ids [n, columns], real [n] bool.

    A pair is left out when its ids agree in any column. Rows that are not real are padding.
    """

    vectors: jax.Array
    ids: jax.Array
    real: jax.Array


class Pairs(NamedTuple):
    """How rows meet: LOCAL, or `independence.ring` for rows that are sharded over devices.

    shards: the rows are padded to a multiple of it.
    sums: (plan, x, y, rates) -> sums and counts as `pair_sums` says; y None stands for x.
    gradients: (plan, x, y, rates, cotangents of the sums) -> those of x.vectors and y.vectors
        (None where y is).
    permuted: (x [n, codebooks, ...], order [n, codebooks]) -> x[order[i, k], k] at [i, k].
    """

    shards: int
    sums: Callable
    gradients: Callable
    permuted: Callable


class Plan(NamedTuple):
    """What the compiled sums depend on besides arrays."""

    marginals: bool
    block: int
    ladder: tuple
    pairs: Pairs


def pair_sums(
    x_NxKxD, y_NxKxD, a_CxK, x_ids, y_ids, *, marginals: bool, block: int, ladder=None, pairs=None
):
    """Return, for each row i of x, sums over the rows j of y that may be its partners.

    x_ids, y_ids: integers [n, columns]; the pair (i, j) is left out when its ids agree in any
    column. Both None: every pair counts. y_NxKxD None stands for x (with the same ids): each pair
    is then visited once for both of its rows.
    ladder: of the bandwidths, default an exp for each. pairs: default LOCAL.

    Returns sums [components, 1 + codebooks, n], where sums[:, 0] is of the kernels' product over
    codebooks and sums[:, 1 + k] of codebook k's kernel alone (only the former, [components, 1, n],
    without `marginals`), and counts [n], the number of partners.

    Pairs are visited in tiles of block x block rows, in the backward pass too, which computes
    them again: memory is O(n + block^2), time O(n^2). Differentiable once, in reverse mode, in
    x and y; not in the bandwidths. float32 at least, matmuls at full precision.
    """
    chex.assert_rank(x_NxKxD, 3)
    n, exclude = x_NxKxD.shape[0], x_ids is not None
    pairs = LOCAL if pairs is None else pairs
    if block < 1:
        raise UserError(f"block {block}: expected at least 1")
    padding = (0, -n % pairs.shards)
    # Distances do not see a shift; without it |x|^2 + |y|^2 - 2 x.y would cancel to rounding.
    x = at_least_float32(x_NxKxD)
    shift = jax.lax.stop_gradient(jnp.mean(x, axis=0))

    def prepare(rows, ids):
        if rows is None:
            return None, None
        rows = jnp.swapaxes(at_least_float32(rows) - shift, 0, 1)
        ids = ids if exclude else jnp.zeros((n, 0), jnp.int32)
        return jnp.pad(rows, ((0, 0), padding, (0, 0))), jnp.pad(ids, (padding, (0, 0)))

    x, x_ids = prepare(x, x_ids)
    y, y_ids = prepare(y_NxKxD, y_ids)
    if ladder is None:
        ladder = tuple((c, None, 1) for c in range(a_CxK.shape[0]))
    rates_CxK = jax.lax.stop_gradient(1 / (2 * a_CxK.astype(x.dtype)))
    plan = Plan(marginals, min(block, x.shape[1] // pairs.shards), ladder, pairs)
    real = jnp.arange(x.shape[1]) < n
    sums, counts = _sums(plan, x, y, rates_CxK, x_ids, y_ids, real)
    return sums[:, :, :n], counts[:n]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(plan, x, y, rates_CxK, x_ids, y_ids, real):
    y = None if y is None else Rows(y, y_ids, real)
    return plan.pairs.sums(plan, Rows(x, x_ids, real), y, rates_CxK)


def _sums_forward(plan, *args):
    return _sums(plan, *args), args


def _sums_backward(plan, args, cotangents):
    x, y, rates_CxK, x_ids, y_ids, real = args
    y = None if y is None else Rows(y, y_ids, real)
    dx, dy = plan.pairs.gradients(plan, Rows(x, x_ids, real), y, rates_CxK, cotangents[0])
    return dx, dy, None, None, None, None


_sums.defvjp(_sums_forward, _sums_backward)


# One device: what LOCAL is, and what each device of a ring does with the rows that visit it.


def padded(plan: Plan, x, axis: int = -1):
    """Return an array, or all of Rows, padded to whole blocks with what does not count."""
    if isinstance(x, Rows):
        return Rows(padded(plan, x.vectors, 1), padded(plan, x.ids, 0), padded(plan, x.real, 0))
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % plan.block)
    return jnp.pad(x, widths)


def zero_sums(plan: Plan, x: Rows, rates_CxK):
    """Return sums and counts, as yet of no pair."""
    (codebooks, n, _), dtype = x.vectors.shape, x.vectors.dtype
    sums = jnp.zeros((len(rates_CxK), 1 + plan.marginals * codebooks, n), dtype)
    return sums, jnp.zeros(n, dtype)


def add_sums(plan: Plan, x: Rows, y: Rows, rates_CxK, to_x, to_y=None, *, half: bool = False):
    """(to_x, to_y) with the kernels of all pairs of x and y added, to the rows of both.

    x, y: padded alike. to_x, to_y: (sums, counts) of their rows; to_y None if nobody asks.
    half: only the tiles of block i of x and block j of y with i <= j, and those with i = j for x
        alone. Of x with itself that is every pair once; two devices that hold x and y the other
        way round share their pairs so.
    """

    def visit(carry, i, j):
        to_x, to_y = carry
        partners = _partners(plan, x, y, i, j)
        kernels = []  # of a component: the product over codebooks, then those of the codebooks
        for own_Kxbxb in _kernels(plan, squared_distances(*_tile(plan, x, y, i, j)), rates_CxK):
            kernels.append(jnp.where(partners, _product(own_Kxbxb), 0)[None])
            if plan.marginals:
                kernels.append(jnp.where(partners, own_Kxbxb, 0))

        def along(axis):
            sums = jnp.concatenate([jnp.sum(kernel, axis) for kernel in kernels])
            return sums.reshape(len(rates_CxK), -1, plan.block), jnp.sum(partners, axis, sums.dtype)

        to_x = tuple(_add(plan, s, new, i, -1) for s, new in zip(to_x, along(-1)))
        if to_y is not None:
            own = half & (i == j)
            to_y = tuple(
                _add(plan, s, jnp.where(own, 0, new), j, -1) for s, new in zip(to_y, along(-2))
            )
        return to_x, to_y

    return _over_tiles(plan, x, half, visit, (to_x, to_y))


def add_gradients(plan: Plan, x: Rows, y: Rows, rates_CxK, g_x, g_y, dx, dy, *, half: bool = False):
    """(dx, dy) with the derivatives of `add_sums` added, by x.vectors and y.vectors.

    g_x, g_y: cotangents of the rows' sums; g_y None where pairs were added to x alone.
    """

    def visit(carry, i, j):
        dx, dy = carry
        own, other = _tile(plan, x, y, i, j)
        partners = _partners(plan, x, y, i, j)
        d = squared_distances(own, other)
        g = _take(plan, g_x, i, -1)[..., :, None]
        if g_y is not None:  # the pair is in the sums of both of its rows
            g = g + _take(plan, g_y, j, -1)[..., None, :]
        slopes = 0
        for g_Sxbxb, rates_K, own_Kxbxb in zip(g, rates_CxK, _kernels(plan, d, rates_CxK)):
            kernels = g_Sxbxb[:1] * _product(own_Kxbxb)
            if plan.marginals:
                kernels = kernels + g_Sxbxb[1:] * own_Kxbxb
            slopes -= 2 * rates_K[:, None, None] * kernels
        slopes = jnp.where(partners, slopes, 0)
        # The derivative of d_k in x_i is 2 (x_i - y_j), zero where they coincide.
        to_own = jnp.sum(slopes, 2)[..., None] * own - jnp.einsum(
            "knm,kmd->knd", slopes, other, precision="highest"
        )
        to_other = jnp.sum(slopes, 1)[..., None] * other - jnp.einsum(
            "knm,knd->kmd", slopes, own, precision="highest"
        )
        dx = _add(plan, dx, to_own, i, 1)
        return dx, _add(plan, dy, jnp.where(half & (i == j), 0, to_other), j, 1)

    return _over_tiles(plan, x, half, visit, (dx, dy))


def sums_within(plan: Plan, x: Rows, rates_CxK):
    """Return sums and counts of the pairs of padded rows with each other, each visited once."""
    zero = zero_sums(plan, x, rates_CxK)
    return jax.tree.map(jnp.add, *add_sums(plan, x, x, rates_CxK, zero, zero, half=True))


def gradients_within(plan: Plan, x: Rows, rates_CxK, g):
    """Return their derivative by x.vectors."""
    zero = jnp.zeros_like(x.vectors)
    return jnp.add(*add_gradients(plan, x, x, rates_CxK, g, g, zero, zero, half=True))


def _local_sums(plan, x, y, rates_CxK):
    n, x = len(x.real), padded(plan, x)
    if y is None:
        sums, counts = sums_within(plan, x, rates_CxK)
    else:
        zero = zero_sums(plan, x, rates_CxK)
        (sums, counts), _ = add_sums(plan, x, padded(plan, y), rates_CxK, zero)
    return sums[..., :n], counts[:n]


def _local_gradients(plan, x, y, rates_CxK, g):
    n, x, g = len(x.real), padded(plan, x), padded(plan, g)
    if y is None:
        return gradients_within(plan, x, rates_CxK, g)[:, :n], None
    y, zero = padded(plan, y), jnp.zeros_like(x.vectors)
    dx, dy = add_gradients(plan, x, y, rates_CxK, g, None, zero, zero)
    return dx[:, :n], dy[:, :n]


def _local_permuted(x, order_NxK):
    return jnp.take_along_axis(x, order_NxK.reshape(order_NxK.shape + (1,) * (x.ndim - 2)), axis=0)


LOCAL = Pairs(1, _local_sums, _local_gradients, _local_permuted)


# Tiles.


def _kernels(plan, d_Kxbxb, rates_CxK):
    """For each component the kernels of the codebooks [codebooks, block, block]; their product
    alone [1, block, block] where the plan asks for no marginals. An exp only where needed."""
    found = {}
    for component, source, power in plan.ladder:
        rates_K = rates_CxK[component]
        if source is not None:
            found[component] = jax.lax.integer_pow(found[source], power)
        elif plan.marginals:
            found[component] = jnp.exp(-d_Kxbxb * rates_K[:, None, None])
        else:
            found[component] = jnp.exp(-sum(d * rate for d, rate in zip(d_Kxbxb, rates_K)))[None]
    return [found[component] for component in range(len(found))]


def _product(x_Kxbxb):
    """Over codebooks."""
    product, *others = x_Kxbxb
    for other in others:
        product = product * other
    return product


def _over_tiles(plan, x, half, visit, carry):
    """carry after visit(carry, i, j) for every tile of blocks; those of i <= j alone when half."""
    blocks = len(x.real) // plan.block
    if blocks == 1:
        return visit(carry, 0, 0)
    tiles = [(i, j) for i in range(blocks) for j in range(i if half else 0, blocks)]
    tiles = jnp.asarray(np.array(tiles, np.int32))
    return jax.lax.scan(lambda c, tile: (visit(c, tile[0], tile[1]), None), carry, tiles)[0]


def _tile(plan, x, y, i, j):
    """Vectors of block i of x and of block j of y."""
    return _take(plan, x.vectors, i, 1), _take(plan, y.vectors, j, 1)


def _partners(plan, x, y, i, j):
    """Which pairs of tile (i, j) count, bool [block, block]."""
    partners = _take(plan, x.real, i, 0)[:, None] & _take(plan, y.real, j, 0)[None, :]
    own, other = _take(plan, x.ids, i, 0), _take(plan, y.ids, j, 0)
    for c in range(own.shape[1]):
        partners &= own[:, c, None] != other[None, :, c]
    return partners


def _take(plan, x, index, axis):
    return jax.lax.dynamic_slice_in_dim(x, index * plan.block, plan.block, axis)


def _add(plan, x, update, index, axis):
    update = _take(plan, x, index, axis) + update
    return jax.lax.dynamic_update_slice_in_dim(x, update, index * plan.block, axis)
