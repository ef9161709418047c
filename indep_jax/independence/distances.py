"""Squared distances of codebook vectors."""

import jax
import jax.numpy as jnp


def squared_distances(x_KxNxD: jax.Array, y_KxMxD: jax.Array) -> jax.Array:
    """Return the squared distances [codebooks, n, m] of the rows of x to those of y.

    At least 0 in spite of rounding. Centre the rows first: |x|^2 + |y|^2 - 2 x.y of rows far from 0
    cancels to rounding. Its derivative is never asked for (pair_sums.py has its own).
    """
    products = jnp.einsum("knd,kmd->knm", x_KxNxD, y_KxMxD, precision="highest")
    x_norms = jnp.sum(jnp.square(x_KxNxD), axis=-1)[:, :, None]
    y_norms = jnp.sum(jnp.square(y_KxMxD), axis=-1)[:, None, :]
    return jnp.maximum(x_norms + y_norms - 2 * products, 0)
