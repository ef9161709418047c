"""Squared cross-covariance of codebooks: the cheap baseline, blind to nonlinear dependence."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from indep_jax.independence import pair_sums
from indep_jax.independence import streams as streams_
from indep_jax.support.errors import UserError

BLOCK = 256


def from_config(config: Mapping[str, Any], pairs: pair_sums.Pairs | None = None) -> Callable:
    """Return `covariance`, which has no settings, as independence/loss.py asks."""
    del config, pairs

    def loss(key, streams, segments=None, active=None):
        del key
        return covariance(streams, segments=segments, active=active)

    return loss


def covariance(
    streams: jax.Array,
    *,
    segments: jax.Array | None = None,
    active: jax.Array | int | None = None,
) -> jax.Array:
    """Return the mean squared correlation of a coordinate of one codebook and one of another.

    A scalar, 0 to 1: an estimate of mean_{p < q} ||Cov(x_p, x_q)||_F^2 / dim^2 over the pairs of
    codebooks, each coordinate with zero mean and unit variance over the rows.

    streams: [batch, time, codebooks, dim] or [rows, codebooks, dim], at least two codebooks.
    segments: source file of each batch item (or row), integers; products of two rows of one file
        are left out.
    active: how many leading codebooks take part, as for `dhsic`.

    Written as a mean over pairs of different rows (different files) of prod <x_i, x_j>, which
    takes away the noise floor of 1/n that the plain squared norm has: what bias remains, from
    centring on the sample mean, is O(1/n^2) at independence (n the files, with segments).
    Variance: O(1/(dim n)^2) at independence, O(1/n) elsewhere; values may be below 0.
    Cost: O(n codebooks^2 dim^2) time and O(n) memory; with segments O(n^2 codebooks dim) time and
    O(n) memory. 0 if no pair of rows is left. Without segments sharded rows need no ring: sums over
    rows are all the communication.
    """
    x_NxKxD, segments = streams_.rows(streams, segments)
    x_NxKxD = streams_.standardize(streams_.active_alone(x_NxKxD, active))
    n, codebooks, dim = x_NxKxD.shape
    if codebooks < 2:
        raise UserError(f"covariance of {codebooks} codebook: expected at least 2")
    if segments is None:
        products = jnp.einsum("nkd,nle->kdle", x_NxKxD, x_NxKxD, precision="highest")
        squares_KxK = jnp.sum(jnp.square(products), axis=(1, 3))
        itself = _distinct(jnp.sum(jnp.square(x_NxKxD), axis=-1), axis=1)
        total, pairs = jnp.sum(jnp.triu(squares_KxK, 1)) - jnp.sum(itself), n * (n - 1)
    else:
        total, pairs = _across_segments(x_NxKxD, segments)
    if active is not None:
        codebooks = jnp.clip(active, 2, codebooks)
    value = total / (jnp.maximum(pairs, 1) * (codebooks * (codebooks - 1) / 2) * dim**2)
    return streams_.of_several(value, active)


def _distinct(x, axis):
    """Sum over k < l of x_k x_l along an axis."""
    return (jnp.square(jnp.sum(x, axis)) - jnp.sum(jnp.square(x), axis)) / 2


def _across_segments(x_NxKxD, segments):
    """Sum over rows of different segments of the products above, and the number of such pairs."""
    n = x_NxKxD.shape[0]
    block = min(BLOCK, n)
    padding = (0, -n % block)
    valid = jnp.pad(jnp.ones(n, bool), padding)
    x_blocks = jnp.pad(x_NxKxD, (padding, (0, 0), (0, 0))).reshape(-1, block, *x_NxKxD.shape[1:])
    id_blocks = jnp.pad(segments, padding).reshape(-1, block)

    @jax.checkpoint
    def visit(carry, rows):
        x, ids, real = rows
        inner_KxbxN = jnp.einsum("bkd,nkd->kbn", x, x_NxKxD, precision="highest")
        partners = (ids[:, None] != segments[None, :]) & real[:, None]
        total, pairs = carry
        total += jnp.sum(jnp.where(partners, _distinct(inner_KxbxN, axis=0), 0))
        return (total, pairs + jnp.sum(partners, dtype=x.dtype)), None

    zero = jnp.zeros((), x_NxKxD.dtype)
    return jax.lax.scan(visit, (zero, zero), (x_blocks, id_blocks, valid.reshape(-1, block)))[0]
