"""The language model's training step: a pure function of (config, state, batch, key).

It needs jax, flax, optax and chex alone. `config` is nested mappings with the fields of
configs/musicgen.py: a plain dict or an ml_collections ConfigDict alike.

A batch is dict(codes int32 [batch, frames, codebooks], -1 behind the end of a record), and with
text its hidden states, text [batch, tokens, dim], and text_mask [batch, tokens].
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from indep_jax.lm import model as lm
from indep_jax.text import dropout
from indep_jax.training.state import State

Config = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


def init(config: Config, key: jax.Array) -> State:
    """Return the first state: random weights."""
    params = lm.init(lm.from_config(config["model"], config["dtype"]), key)["params"]
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params),
        opt_state=optimizer(config).init(params),
    )


def start_from(state: State, params: Any) -> State:
    """Return the state with trained params."""
    return state.replace(params=params, ema=jax.tree.map(jnp.copy, params))


def step(config: Config, state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
    """Train one step: (state, metrics).

    The batch goes through in optimizer.accumulate parts, whose gradients add up to the whole's.
    """
    settings, params = config["optimizer"], state.params
    if "text" in batch:
        kept = dropout.drop(key, batch["text"], batch["text_mask"], config["text"]["dropout"])
        batch = {**batch, **dict(zip(("text", "text_mask"), kept))}
    counts_K = jnp.maximum(counts(batch["codes"]), 1)

    def loss(params, part):
        nats_K = nats(config, params, part) / counts_K
        return jnp.mean(nats_K), nats_K

    def add(total, part):
        return jax.tree.map(jnp.add, total, jax.grad(loss, has_aux=True)(params, part)), None

    # Part i takes every accumulate-th row from i on, so that each device keeps its own.
    split = partial(_split, parts=settings["accumulate"])
    zero = jax.tree.map(jnp.zeros_like, (params, jnp.zeros(len(counts_K))))
    (gradient, nats_K), _ = jax.lax.scan(add, zero, jax.tree.map(split, batch))
    updates, opt_state = optimizer(config).update(gradient, state.opt_state, params)
    params = optax.apply_updates(params, updates)
    metrics = dict(
        loss=jnp.mean(nats_K),
        bits_per_frame=lm.bits_per_frame(nats_K),
        gradient_norm=optax.tree.norm(gradient),
    )
    ema = optax.incremental_update(params, state.ema, 1 - settings["ema_decay"])
    state = State(step=state.step + 1, params=params, ema=ema, opt_state=opt_state)
    return state, metrics


PROGRAMS: dict[str, Callable[[Config, State, Batch, jax.Array], tuple[State, Metrics]]] = dict(
    lm=step
)


def nats(config: Config, params: Any, batch: Batch) -> jax.Array:
    """Return the cross-entropy of a batch's codes, nats, summed for each codebook: [codebooks]."""
    module = lm.from_config(config["model"], config["dtype"])
    text = (batch["text"], batch["text_mask"]) if "text" in batch else ()
    return lm.nats(module, dict(params=params), batch["codes"], *text)


def counts(codes_BxTxK: jax.Array) -> jax.Array:
    """Return how many codes each codebook has, [codebooks]; -1 is none."""
    return (codes_BxTxK >= 0).sum((0, 1))


def optimizer(config: Config) -> optax.GradientTransformation:
    """Return AdamW with clipping, warm-up and a cosine to 0 at `steps`."""
    settings = config["optimizer"]
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings["learning_rate"], settings["warmup_steps"], config["steps"]
    )
    adam = optax.adamw(rate, *settings["betas"], weight_decay=settings["weight_decay"])
    clip = settings["clip"]
    return optax.chain(optax.clip_by_global_norm(clip) if clip else optax.identity(), adam)


def _split(x, parts: int):
    return jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)
