"""Condition dropout, which classifier-free guidance needs in training."""

import jax
import jax.numpy as jnp


def drop(
    key: jax.Array, states_BxTxD: jax.Array, mask_BxT: jax.Array, probability: float
) -> tuple[jax.Array, jax.Array]:
    """Remove each text of a batch, whole, with this probability: condition dropout.

    A removed text has the states and the mask of an empty one. Classifier-free guidance needs
    training with it (Ho & Salimans 2021, "Classifier-Free Diffusion Guidance"); audiocraft's MusicGen
    uses 0.3.
    """
    keep = jax.random.bernoulli(key, 1 - probability, (states_BxTxD.shape[0], 1))
    return jnp.where(keep[..., None], states_BxTxD, 0), mask_BxT & keep
