"""The loss balancer of EnCodec (Défossez et al. 2022, section 3.4)."""

import jax
import jax.numpy as jnp


def init(names) -> dict:
    """Return zero moving sums of the gradient norms, by loss, and of their weights."""
    return dict(norms={name: jnp.zeros(()) for name in names}, weight=jnp.zeros(()))


def combine(state: dict, gradients: dict, weights: dict, *, decay: float, total_norm: float = 1.0):
    """Combine the gradients of several losses at one array so that each counts by its weight.

    gradients: by loss name, d loss / d y for y [batch, ...].
    Each is divided by the moving average of its norm per batch item (mean over items of the L2
    norm of an item's gradient) and multiplied by total_norm * weight / sum of weights.
    Returns (state, combined gradient, the averaged norms by name).
    """
    norms = {
        name: jnp.mean(jnp.sqrt(jnp.sum(jnp.square(g), axis=tuple(range(1, g.ndim)))))
        for name, g in gradients.items()
    }
    weight = decay * state["weight"] + 1
    sums = {name: decay * state["norms"][name] + norms[name] for name in norms}
    averages = {name: total / weight for name, total in sums.items()}
    all_weights = sum(weights[name] for name in norms)
    joined = sum(
        (total_norm * weights[name] / all_weights / (1e-12 + averages[name])) * gradients[name]
        for name in gradients
    )
    return dict(norms=sums, weight=weight), jax.lax.stop_gradient(joined), averages
