"""Sampling codes from a language model: one compiled program for each shape, for every pattern.

The schedule of a pattern drives a scan over its steps, with cached keys and values; the steps that
the prompt decides are fed in one pass before it.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.lm import patterns
from indep_jax.lm.model import LM
from indep_jax.support.errors import UserError


def draw(logits_BxV, keys_B, temperature, top_k: int, top_p):
    """Draw a token for each row [batch] of logits, from the softmax of logits / temperature.

    Only the top_k largest count, and of these only the largest ones that together have a probability
    of top_p (Holtzman et al. 2020). The largest always counts, so top_k=1 is greedy. keys: [batch].
    """
    values_BxN, tokens_BxN = jax.lax.top_k(logits_BxV, top_k)  # largest first, lowest index first
    values_BxN = values_BxN / temperature
    probabilities_BxN = jax.nn.softmax(values_BxN)
    before_BxN = jnp.cumsum(probabilities_BxN, axis=-1) - probabilities_BxN
    values_BxN = jnp.where(before_BxN < top_p, values_BxN, -jnp.inf)
    chosen_B = jax.vmap(jax.random.categorical)(keys_B, values_BxN)
    return jnp.take_along_axis(tokens_BxN, chosen_B[:, None], axis=-1)[:, 0]


def keys(keys_B, frame, codebook: int):
    """Return the keys [batch] with which one code of every example is drawn."""
    fold = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, frame), codebook))
    return fold(keys_B)


@functools.partial(jax.jit, static_argnames=("model", "steps", "guided"))
def _begin(
    model: LM, variables, inputs_BxPxK, text_BxLxC, text_mask_BxL, *, steps: int, guided: bool
):
    """Return (memory of the text, cache of `steps` steps after the inputs)."""
    apply = functools.partial(model.apply, variables)
    memory = None
    if text_BxLxC is not None:
        mask = _both(text_mask_BxL, guided)
        if guided:
            mask = mask.at[len(text_mask_BxL) :].set(False)
        memory = apply(_both(text_BxLxC, guided), mask, method="read")
    inputs_BxPxK = _both(inputs_BxPxK, guided)
    cache = apply(len(inputs_BxPxK), steps, method="empty_cache")
    if inputs_BxPxK.shape[1]:
        _, cache = apply(inputs_BxPxK, memory, cache, method="advance")
    return memory, cache


@functools.partial(jax.jit, static_argnames=("model", "guided", "top_k"), donate_argnames="cache")
def _advance(
    model: LM, variables, memory, cache, tokens_BxK, given_SxBxK, known_SxK, frames_SxK, keys_B,
    guidance, temperature, top_p, *, guided: bool, top_k: int,
):  # fmt: skip
    """Return (cache, tokens [steps, batch, codebooks]) of the steps that follow tokens_BxK.

    given: tokens of each step, used where `known`. frames: the frame of each code, for its key.
    """
    apply = functools.partial(model.apply, variables)

    def step(carry, now):
        tokens_BxK, cache = carry
        given_BxK, known_K, frames_K = now
        inputs = _both(tokens_BxK, guided)[:, None]
        h, cache = apply(inputs, memory, cache, method="advance")

        def choose(logits, k):
            if guided:
                conditional, unconditional = jnp.split(logits, 2)
                logits = unconditional + guidance * (conditional - unconditional)
            drawn_B = draw(logits, keys(keys_B, frames_K[k], k), temperature, top_k, top_p)
            return _both(jnp.where(known_K[k], given_BxK[:, k], drawn_B), guided)

        tokens_BxK = apply(h[:, 0], choose, method="emit")[: len(tokens_BxK)]
        return (tokens_BxK, cache), tokens_BxK

    (_, cache), tokens = jax.lax.scan(
        step, (tokens_BxK, cache), (given_SxBxK, known_SxK, frames_SxK)
    )
    return cache, tokens


def _both(x, guided: bool):
    """Return the batch twice for guidance, the conditional half first."""
    return jnp.concatenate([x, x]) if guided else x


def generate(model: LM, variables, frames: int, **options) -> np.ndarray:
    """Sample codes int32 [batch, frames, codebooks]: the blocks of `stream`, concatenated."""
    return np.concatenate(list(stream(model, variables, frames, **options)), axis=1)


def stream(
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
    chunk: int | None = None,
) -> Iterator[np.ndarray]:
    """Sample codes; yield them in blocks int32 [batch, frames, codebooks] as frames are complete.

    examples: [batch] integers. An example's codes are a function of (seed, its number here, its
        text and prompt), whatever else is in the batch: the key of each code is the seed's, folded
        with example, frame and codebook.
    text: [batch, length, text_dim] hidden states, and text_mask [batch, length], True for tokens.
    prompt: [batch, fewer frames, codebooks] codes that the result begins with.
    guidance: of classifier-free guidance (Ho & Salimans 2022), logits = unconditional + guidance *
        (conditional - unconditional), both in one batch; 1 is none.
    temperature, top_k, top_p: see `draw`. top_k=1 is greedy, 0 is all; the defaults are MusicGen's.
    window: frames that the model sees at once, all by default. More frames are sampled window by
        window, each continuing from the last `overlap` frames of the one before.
    chunk: steps between blocks; by default those of a window.

    Programs are compiled for each (batch, window, frames of the prompt, length of text, chunk).
    Raises UserError for arguments that do not fit each other.
    """
    examples = np.asarray(examples)
    if examples.ndim != 1 or not len(examples) or examples.dtype.kind != "i":
        raise UserError(f"examples: expected integers [batch], not {examples!r}")
    limit = frames if window is None else window
    window = min(limit, frames)
    schedule_SxK = model.schedule(window)
    batch = len(examples)
    prompt = np.zeros((batch, 0, model.codebooks), np.int32) if prompt is None else prompt
    _check(model, frames, batch, text, text_mask, prompt, guidance, temperature, top_k, top_p)
    if not 0 <= overlap < limit:
        raise UserError(f"overlap: expected less than the window of {limit}, not {overlap}")
    if chunk is not None and chunk < 1:
        raise UserError(f"chunk: expected at least 1 step, not {chunk}")
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), examples)
    drawing = dict(
        guided=guidance != 1, top_k=min(top_k or model.codebook_size, model.codebook_size)
    )
    codes, given = np.asarray(prompt, np.int32), 0  # `given`: frames that the caller has
    while given < frames:
        start = 0 if codes.shape[1] < window else codes.shape[1] - overlap
        here = codes[:, start:]
        padded = np.pad(here, ((0, 0), (0, window - here.shape[1]), (0, 0)))
        known_SxK = schedule_SxK < here.shape[1]  # and where nothing is emitted
        prefill = int(np.argmin(known_SxK.all(axis=1)))
        tokens_BxSxK = np.array(patterns.build(padded, schedule_SxK, model.special)[0])
        first = np.full_like(tokens_BxSxK[:, :1], model.special)
        inputs_BxSxK = np.concatenate([first, tokens_BxSxK[:, :prefill]], axis=1)
        steps = len(schedule_SxK) - prefill
        size = steps if chunk is None else min(chunk, steps)
        memory, cache = _begin(
            model, variables, inputs_BxSxK[:, :prefill], text, text_mask,
            steps=prefill + -(-steps // size) * size, guided=drawing["guided"],
        )  # fmt: skip
        last = inputs_BxSxK[:, prefill]
        whole = patterns.inverse(schedule_SxK).max(axis=1)  # the step that completes each frame
        for begin in range(prefill, len(schedule_SxK), size):

            def steps_of(x, fill, axis=0):
                """Return those of this chunk; steps past the end of the schedule draw nothing."""
                x = np.moveaxis(x, axis, 0)[begin : begin + size]
                widths = [(0, size - len(x))] + [(0, 0)] * (x.ndim - 1)
                return np.pad(x, widths, constant_values=fill)

            cache, drawn_SxBxK = _advance(
                model, variables, memory, cache, last,
                steps_of(tokens_BxSxK, model.special, 1), steps_of(known_SxK, True),
                steps_of(schedule_SxK + start, 0), keys_B, guidance, temperature, top_p, **drawing,
            )  # fmt: skip
            end = min(begin + size, len(schedule_SxK))
            last = drawn_SxBxK[-1]
            tokens_BxSxK[:, begin:end] = np.asarray(drawn_SxBxK).swapaxes(0, 1)[:, : end - begin]
            done = start + int(np.searchsorted(np.maximum.accumulate(whole), end))
            if given < min(done, frames):
                found = np.array(patterns.revert(tokens_BxSxK, schedule_SxK)[0])
                codes = np.concatenate([codes[:, :start], found], axis=1)
                yield codes[:, given : min(done, frames)]
                given = min(done, frames)


def _check(model, frames, batch, text, text_mask, prompt, guidance, temperature, top_k, top_p):
    if (text is None) != (text_mask is None):
        raise UserError("text and text_mask: expected both or none")
    if text is not None and (
        np.ndim(text) != 3
        or np.shape(text)[0] != batch
        or np.shape(text)[2] != model.text_dim
        or np.shape(text_mask) != np.shape(text)[:2]
    ):
        raise UserError(
            f"text: expected [{batch}, length, {model.text_dim}] and a mask of its first two axes, "
            f"not {list(np.shape(text))} and {list(np.shape(text_mask))}"
        )
    if guidance != 1 and text is None:
        raise UserError(f"guidance {guidance}: expected a text to guide with, or guidance 1")
    shape = np.shape(prompt)
    if len(shape) != 3 or (shape[0], shape[2]) != (batch, model.codebooks) or shape[1] >= frames:
        raise UserError(
            f"prompt: expected [{batch}, less than {frames} frames, {model.codebooks}], "
            f"not {list(shape)}"
        )
    if np.size(prompt) and not 0 <= np.min(prompt) <= np.max(prompt) < model.codebook_size:
        raise UserError(
            f"prompt: expected codes 0 to {model.codebook_size - 1}, "
            f"not {np.min(prompt)} to {np.max(prompt)}"
        )
    if not temperature > 0:
        raise UserError(f"temperature: expected more than 0, not {temperature}; top_k=1 is greedy")
    if top_k < 0:
        raise UserError(f"top_k: expected at least 0, not {top_k}")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p: expected more than 0 and at most 1, not {top_p}")
