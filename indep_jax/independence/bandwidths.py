"""Bandwidths of mixtures of Gaussian kernels on codebook vectors.

Component c of a mixture has the kernel exp(-d_k / (2 a[c, k])) on codebook k, where d_k is the
squared distance and a the squared bandwidth.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.independence.distances import squared_distances
from indep_jax.signal.stft import at_least_float32
from indep_jax.support.errors import UserError

PAPER = (0.1, 1.0, 5.0, 10.0, 20.0, 50.0)  # ICML 2024; for standardised vectors
MEDIAN_FACTORS = (0.5, 1.0, 2.0)
MEDIAN_ROWS = 128  # 8k pairs: the median's own error is far below the steps of the factors
SMALLEST = 1e-6  # keeps 1 / a finite for a codebook that has collapsed to a point
LARGEST_POWER = 32  # of an exp, which multiplies its rounding: at most 2e-6 in float32


def choose(
    rule: str | Sequence | jax.Array, rows_NxKxD: jax.Array, segments: jax.Array | None = None
) -> jax.Array:
    """Return squared bandwidths a [components, codebooks]; no gradient flows through them.

    rule "paper": PAPER for every codebook. "median": per codebook, the median squared distance over
    pairs of an evenly spaced subsample of at most 128 rows, times MEDIAN_FACTORS; pairs of one
    segment are left out where segments [n] are given (unless no other pair exists). Where half of
    the pairs coincide the mean stands in for the median. An array [components] or [components,
    codebooks] of positive numbers is taken as it is. Raises UserError for other names.
    """
    n, codebooks, _ = rows_NxKxD.shape
    dtype = jnp.promote_types(rows_NxKxD.dtype, jnp.float32)
    if not isinstance(rule, str):
        a = jnp.asarray(rule, dtype)
        chex.assert_rank(a, {1, 2})
        a = a[:, None] if a.ndim == 1 else a
        return jax.lax.stop_gradient(jnp.broadcast_to(a, (a.shape[0], codebooks)))
    if rule == "paper":
        a = jnp.asarray(PAPER, dtype)
        return jnp.broadcast_to(a[:, None], (len(PAPER), codebooks))
    if rule != "median":
        raise UserError(f"bandwidths {rule!r}: expected 'paper', 'median' or an array")
    if n < 2:
        raise UserError(f"bandwidths {rule!r} of {n} rows: expected at least 2")
    size = min(n, MEDIAN_ROWS)
    chosen = np.arange(size) * n // size
    x_SxKxD = jax.lax.stop_gradient(at_least_float32(rows_NxKxD[chosen]))
    x_KxSxD = jnp.swapaxes(x_SxKxD - jnp.mean(x_SxKxD, axis=0), 0, 1)
    first, second = np.triu_indices(size, 1)
    pairs_KxP = squared_distances(x_KxSxD, x_KxSxD)[:, first, second]
    if segments is not None:
        other = segments[chosen[first]] != segments[chosen[second]]
        pairs_KxP = jnp.where(other | ~jnp.any(other), pairs_KxP, jnp.nan)
    median, mean = jnp.nanmedian(pairs_KxP, axis=1), jnp.nanmean(pairs_KxP, axis=1)
    scale_K = jnp.maximum(jnp.where(median > 1e-3 * mean, median, mean), SMALLEST)
    return jnp.asarray(MEDIAN_FACTORS, dtype)[:, None] * scale_K


def ladder(rule: str | Sequence | jax.Array) -> tuple[tuple[int, int | None, int], ...]:
    """Return which of a mixture's kernels need an exp: steps (component, source, power), in order.

    Where a bandwidth is another's by a whole number, its kernel is that one's to this power: a few
    products. source None asks for an exp (always for a traced array, whose ratios nobody knows).
    The median's three components take one exp, the paper's six take three. No kernel is a power of
    an exp above LARGEST_POWER, so that its relative rounding is at most that many times one exp's.

    rule: as for `choose`.
    """
    if isinstance(rule, jax.core.Tracer):
        return tuple((c, None, 1) for c in range(rule.shape[0]))
    if isinstance(rule, str):
        rule = PAPER if rule == "paper" else MEDIAN_FACTORS
    a_CxK = np.asarray(rule, np.float64)
    a_CxK = a_CxK.reshape(len(a_CxK), -1)
    steps: dict[int, tuple[int | None, int]] = {}
    powers: dict[int, int] = {}  # of an exp
    for c in map(int, np.argsort(-a_CxK[:, 0], kind="stable")):
        steps[c], powers[c] = (None, 1), 1
        for source in reversed(powers):  # from the nearest bandwidth on
            ratios = a_CxK[source] / a_CxK[c]
            power = round(float(ratios[0]))
            small = source != c and power * powers[source] <= LARGEST_POWER
            if small and np.allclose(ratios, power, rtol=1e-6, atol=0):
                steps[c], powers[c] = (source, power), power * powers[source]
                break
    return tuple((c, *step) for c, step in steps.items())
