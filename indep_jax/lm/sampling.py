"""Sampling codes from a language model: one compiled program for each shape, for every pattern.

The schedule of a pattern drives a scan over its steps, with cached keys and values; the steps that
the prompt decides are fed in one pass before it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.lm import patterns
from indep_jax.lm.model import LM


def draw(logits_BxV, keys_B, temperature, top_k: int, top_p):
    """A token for each row [batch] of logits, from the softmax of logits / temperature.

    Only the top_k largest count, and of these only as many of the largest as it takes for a total
    probability of top_p (Holtzman et al. 2020). The largest always counts, so top_k=1 is greedy.
    keys: [batch], one for each row.
    """
    values_BxN, tokens_BxN = jax.lax.top_k(logits_BxV, top_k)  # largest first, lowest index first
    values_BxN = values_BxN / temperature
    probabilities_BxN = jax.nn.softmax(values_BxN)
    before_BxN = jnp.cumsum(probabilities_BxN, axis=-1) - probabilities_BxN
    values_BxN = jnp.where(before_BxN < top_p, values_BxN, -jnp.inf)
    chosen_B = jax.vmap(jax.random.categorical)(keys_B, values_BxN)
    return jnp.take_along_axis(tokens_BxN, chosen_B[:, None], axis=-1)[:, 0]


def _fold(keys_B, frame, codebook: int):
    """The keys [batch] with which one code of every example is drawn."""
    fold = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, frame), codebook))
    return fold(keys_B)


@functools.partial(jax.jit, static_argnames=("model", "prefill", "guided", "top_k"))
def _decode(
    model: LM,
    variables,
    inputs_BxSxK,
    given_SxBxK,
    known_SxK,
    frames_SxK,
    keys_B,
    text_BxLxC,
    text_mask_BxL,
    guidance,
    temperature,
    top_p,
    *,
    prefill: int,
    guided: bool,
    top_k: int,
):
    """Tokens [steps, batch, codebooks] of the steps from `prefill` on.

    inputs: tokens before each step. given: tokens of each step, used where `known`. frames: what
    each code is of, for its key.
    """
    apply = functools.partial(model.apply, variables)
    batch, steps, _ = inputs_BxSxK.shape

    def both(x):
        return jnp.concatenate([x, x]) if guided else x  # conditional, unconditional

    memory = None
    if text_BxLxC is not None:
        mask = both(text_mask_BxL)
        if guided:
            mask = mask.at[batch:].set(False)
        memory = apply(both(text_BxLxC), mask, method="read")
    cache = apply(len(both(inputs_BxSxK)), steps, method="empty_cache")
    if prefill:
        _, cache = apply(both(inputs_BxSxK[:, :prefill]), memory, cache, method="advance")

    def step(carry, now):
        tokens_BxK, cache = carry
        given_BxK, known_K, frames_K = now
        h, cache = apply(both(tokens_BxK)[:, None], memory, cache, method="advance")

        def choose(logits, k):
            if guided:
                conditional, unconditional = jnp.split(logits, 2)
                logits = unconditional + guidance * (conditional - unconditional)
            drawn_B = draw(logits, _fold(keys_B, frames_K[k], k), temperature, top_k, top_p)
            return both(jnp.where(known_K[k], given_BxK[:, k], drawn_B))

        tokens_BxK = apply(h[:, 0], choose, method="emit")[:batch]
        return (tokens_BxK, cache), tokens_BxK

    now = jax.tree.map(lambda x: x[prefill:], (given_SxBxK, known_SxK, frames_SxK))
    return jax.lax.scan(step, (inputs_BxSxK[:, prefill], cache), now)[1]


def generate(
    model: LM,
    variables,
    frames: int,
    *,
    seed: int,
    examples,
    text=None,
    text_mask=None,
    prompt=None,
    guidance: float = 1.0,
    temperature: float = 1.0,
    top_k: int = 250,
    top_p: float = 1.0,
    window: int | None = None,
    overlap: int = 0,
) -> np.ndarray:
    """Codes int32 [batch, frames, codebooks], sampled.

    examples: [batch] integers. An example's codes are a function of (seed, its number here, its
        text and prompt), whatever else is in the batch: the key of each code is the seed's, folded
        with example, frame and codebook.
    text: [batch, length, text_dim] hidden states, and text_mask [batch, length], True for tokens.
    prompt: [batch, fewer frames, codebooks] codes that the result begins with.
    guidance: of classifier-free guidance (Ho & Salimans 2022), logits = unconditional + guidance *
        (conditional - unconditional), both in one batch; 1 is none.
    temperature, top_k, top_p: see `draw`. top_k=1 is greedy, 0 is all; the defaults are MusicGen's.
    window: frames that the model sees at once, all by default. More than those are sampled window
        by window, each going on from the last `overlap` frames of the one before.

    One program is compiled for each (batch, window, frames of the prompt, length of text).
    Raises ValueError, one line, for what does not fit.
    """
    examples = np.asarray(examples)
    if examples.ndim != 1 or not len(examples) or examples.dtype.kind != "i":
        raise ValueError(f"examples: expected integers [batch], not {examples!r}")
    window = frames if window is None else min(window, frames)
    schedule_SxK = model.schedule(window)
    batch = len(examples)
    prompt = np.zeros((batch, 0, model.codebooks), np.int32) if prompt is None else prompt
    _check(model, frames, batch, text, text_mask, prompt, guidance, temperature, top_k, top_p)
    if not 0 <= overlap < window:
        raise ValueError(f"overlap: expected less than the window of {window}, not {overlap}")
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), examples)
    codes = np.asarray(prompt, np.int32)
    while codes.shape[1] < frames:
        start = 0 if codes.shape[1] < window else codes.shape[1] - overlap
        here = codes[:, start:]
        padded = np.pad(here, ((0, 0), (0, window - here.shape[1]), (0, 0)))
        known_SxK = schedule_SxK < here.shape[1]  # and where nothing is emitted
        prefill = int(np.argmin(known_SxK.all(axis=1)))
        given_BxSxK, _ = patterns.build(padded, schedule_SxK, model.special)
        first = np.full_like(given_BxSxK[:, :1], model.special)
        drawn_SxBxK = _decode(
            model,
            variables,
            np.concatenate([first, given_BxSxK[:, :-1]], axis=1),
            given_BxSxK.swapaxes(0, 1),
            known_SxK,
            schedule_SxK + start,
            keys_B,
            text,
            text_mask,
            guidance,
            temperature,
            top_p,
            prefill=prefill,
            guided=guidance != 1,
            top_k=min(top_k or model.codebook_size, model.codebook_size),
        )
        tokens = np.concatenate(
            [given_BxSxK[:, :prefill], np.asarray(drawn_SxBxK).swapaxes(0, 1)], axis=1
        )
        codes = np.concatenate([codes[:, :start], patterns.revert(tokens, schedule_SxK)[0]], axis=1)
    return codes[:, :frames]


def _check(model, frames, batch, text, text_mask, prompt, guidance, temperature, top_k, top_p):
    if (text is None) != (text_mask is None):
        raise ValueError("text and text_mask: expected both or none")
    if text is not None and (
        np.ndim(text) != 3
        or np.shape(text)[0] != batch
        or np.shape(text)[2] != model.text_dim
        or np.shape(text_mask) != np.shape(text)[:2]
    ):
        raise ValueError(
            f"text: expected [{batch}, length, {model.text_dim}] and a mask of its first two axes, "
            f"not {list(np.shape(text))} and {list(np.shape(text_mask))}"
        )
    if guidance != 1 and text is None:
        raise ValueError(f"guidance {guidance}: expected a text to guide with, or guidance 1")
    shape = np.shape(prompt)
    if len(shape) != 3 or (shape[0], shape[2]) != (batch, model.codebooks) or shape[1] >= frames:
        raise ValueError(
            f"prompt: expected [{batch}, less than {frames} frames, {model.codebooks}], "
            f"not {list(shape)}"
        )
    if np.size(prompt) and not 0 <= np.min(prompt) <= np.max(prompt) < model.codebook_size:
        raise ValueError(
            f"prompt: expected codes 0 to {model.codebook_size - 1}, "
            f"not {np.min(prompt)} to {np.max(prompt)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature: expected more than 0, not {temperature}; top_k=1 is greedy")
    if top_k < 0:
        raise ValueError(f"top_k: expected at least 0, not {top_k}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected more than 0 and at most 1, not {top_p}")
