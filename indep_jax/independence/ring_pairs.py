"""Pairs of rows that are sharded over devices: blocks of rows travel round a ring of them.

Each device keeps its own rows and one visiting block. Where rows meet rows of their own kind, a
block visits half of the ring: of two devices one is the other's visitor, and both rows of a pair
take their sums from one visit. A block's sums travel with it and go home at the end. So every
device does its share of the pairs' work, sends its rows half-way round (forward and backward
alike), and no device ever holds all rows.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from indep_jax.independence import pair_sums


@functools.lru_cache
def ring(mesh: Mesh, axis: str | tuple[str, ...] = "data") -> pair_sums.Pairs:
    """Return how rows that are sharded over an axis (or several) of a mesh meet in pairs.

        loss = independence.dhsic(streams, segments=files, pairs=independence.ring(mesh))

    Value and gradient are those without it, but for the order of additions; works under jit, with
    streams whose batch (or rows) is split over `axis`. Rows that do not divide evenly are padded,
    and the padding counts for nothing.

    Each device of P, with n rows in all: n^2 / 2P pairs (and half a tile for each of its blocks);
    n / 2 rows sent and as many received, with their sums; backward again, with their gradients;
    memory O(n / P + block^2).
    """
    shards = math.prod(mesh.shape[name] for name in _names(axis))
    rows = pair_sums.Rows(
        PartitionSpec(None, axis, None), PartitionSpec(axis, None), PartitionSpec(axis)
    )
    sums = PartitionSpec(None, None, axis), PartitionSpec(axis)
    everywhere = PartitionSpec()
    # Derivatives are written out below, so nothing is differentiated through shard_map.
    over = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)

    def shift(x, by: int):
        """x of the device `by` places before this one on the ring."""
        if by % shards == 0:
            return x
        return jax.lax.ppermute(x, axis, [(i, (i + by) % shards) for i in range(shards)])

    def forward(plan, x, y, rates_CxK):
        walk = functools.partial(_sums, shards, shift, plan)
        specs = (rows, None if y is None else rows, everywhere)
        return over(walk, in_specs=specs, out_specs=sums)(x, y, rates_CxK)

    def backward(plan, x, y, rates_CxK, g):
        walk = functools.partial(_gradients, shards, shift, plan)
        specs = (rows, None if y is None else rows, everywhere, sums[0])
        out = rows.vectors, None if y is None else rows.vectors
        return over(walk, in_specs=specs, out_specs=out)(x, y, rates_CxK, g)

    def permuted(x, order_NxK):
        n, padding = len(x), (0, -len(x) % shards)
        x = jnp.pad(x, (padding, *[(0, 0)] * (x.ndim - 1)))
        order_NxK = jnp.pad(order_NxK, (padding, (0, 0)))
        walk = functools.partial(_permuted, shards, shift, axis)
        spec = PartitionSpec(axis)
        return over(walk, in_specs=(spec, spec), out_specs=spec)(x, order_NxK)[:n]

    return pair_sums.Pairs(shards, forward, backward, permuted)


def _names(axis) -> Sequence[str]:
    return (axis,) if isinstance(axis, str) else axis


# What one device does. `shift` moves a visitor, and what it carries, one device on.


def _sums(shards, shift, plan, x, y, rates_CxK):
    n, x = len(x.real), pair_sums.padded(plan, x)
    if y is None:
        home = pair_sums.sums_within(plan, x, rates_CxK)

        def meet(carry, half=False):
            home, visitor, theirs = carry
            visitor, theirs = shift((visitor, theirs), 1)
            home, theirs = pair_sums.add_sums(plan, x, visitor, rates_CxK, home, theirs, half=half)
            return home, visitor, theirs

        carry = home, x, pair_sums.zero_sums(plan, x, rates_CxK)
        home, _, theirs = _half_way_round(shards, meet, carry)
        home = jax.tree.map(jnp.add, home, shift(theirs, -(shards // 2)))
    else:

        def meet(carry):
            home, visitor = carry
            visitor = shift(visitor, 1)
            return pair_sums.add_sums(plan, x, visitor, rates_CxK, home)[0], visitor

        carry = pair_sums.zero_sums(plan, x, rates_CxK), pair_sums.padded(plan, y)
        home, _ = _repeat(shards, meet, carry)
    return home[0][..., :n], home[1][:n]


def _gradients(shards, shift, plan, x, y, rates_CxK, g):
    n, x, g = len(x.real), pair_sums.padded(plan, x), pair_sums.padded(plan, g)
    zero = jnp.zeros_like(x.vectors)
    if y is None:

        def meet(carry, half=False):
            dx, visitor, g_visitor, theirs = carry
            visitor, g_visitor, theirs = shift((visitor, g_visitor, theirs), 1)
            dx, theirs = pair_sums.add_gradients(
                plan, x, visitor, rates_CxK, g, g_visitor, dx, theirs, half=half
            )
            return dx, visitor, g_visitor, theirs

        carry = pair_sums.gradients_within(plan, x, rates_CxK, g), x, g, zero
        dx, _, _, theirs = _half_way_round(shards, meet, carry)
        return (dx + shift(theirs, -(shards // 2)))[:, :n], None

    def meet(carry):
        dx, visitor, theirs = carry
        visitor, theirs = shift((visitor, theirs), 1)
        dx, theirs = pair_sums.add_gradients(plan, x, visitor, rates_CxK, g, None, dx, theirs)
        return dx, visitor, theirs

    # After the last meeting every visitor is at home.
    dx, _, dy = _repeat(shards, meet, (zero, pair_sums.padded(plan, y), zero))
    return dx[:, :n], dy[:, :n]


def _permuted(shards, shift, axis, x, order_NxK):
    """Every device picks what it needs from the rows that pass by."""
    n, place = len(x), jax.lax.axis_index(axis)
    trailing = (1,) * (x.ndim - 2)

    def meet(carry, step):
        found, visitor = carry
        at = order_NxK - (place - step) % shards * n  # where in the visitor's rows
        here = (0 <= at) & (at < n)
        at = jnp.clip(at, 0, n - 1).reshape(at.shape + trailing)
        picked = jnp.take_along_axis(visitor, at, axis=0)
        found = jnp.where(here.reshape(at.shape), picked, found)
        return (found, shift(visitor, 1)), None

    return jax.lax.scan(meet, (jnp.zeros_like(x), x), jnp.arange(shards))[0][0]


def _half_way_round(shards, meet, carry):
    """Meetings with the devices up to half the ring away; opposite ones share their pairs."""
    carry = _repeat((shards - 1) // 2, meet, carry)
    return meet(carry, half=True) if shards % 2 == 0 else carry


def _repeat(times, function, carry):
    return jax.lax.scan(lambda carry, _: (function(carry), None), carry, length=times)[0]
