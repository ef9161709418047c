"""The language model of codes as one Flax module, and its losses.

`head` says what is predicted in a step of the pattern (see patterns.py): "linear" the marginal
distribution of each code given the steps before, as MusicGen (Copet et al. 2023); "depth" their
joint distribution, one code after another by a small second transformer over the codebooks
(RQ-Transformer, Lee et al. 2022; Moshi, Défossez et al. 2024).
"""

from collections.abc import Callable, Mapping

import chex
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import FrozenDict

from indep_jax.lm import patterns
from indep_jax.lm.transformer import POSITIONS, Cache, Memory, Transformer
from indep_jax.support.errors import UserError

HEADS = ("linear", "depth")


class LM(nn.Module):
    """Variables: `params` alone.

    Tokens are int32 [batch, steps, codebooks], laid out by `pattern` (patterns.schedule): codes
    below `codebook_size`, and `special`, which stands where a codebook emits nothing and in the
    step before the first. Text is hidden states [batch, length, text_dim] with a mask
    [batch, length], True for tokens; no text, or one of padding alone, is unconditional.

    dim, layers, heads, ffn_dim, positions, remat: of the transformer over steps (transformer.py).
    text_dim: 0 for a model without cross-attention. Where it is not `dim`, a linear layer with bias
        leads from one to the other.
    depth: dim, layers, heads, ffn_dim of the transformer over codebooks, for the head "depth".
    """

    codebooks: int
    codebook_size: int
    pattern: str | tuple[int, ...]
    dim: int
    layers: int
    heads: int
    ffn_dim: int
    text_dim: int
    positions: str
    head: str
    depth: Mapping
    remat: bool
    dtype: jnp.dtype = jnp.float32

    @property
    def special(self) -> int:
        """The token that stands where there is no code."""
        return self.codebook_size

    def schedule(self, frames: int) -> np.ndarray:
        """Return the pattern's schedule of this many frames, [steps, codebooks]."""
        return patterns.schedule(self.pattern, frames, self.codebooks)

    def setup(self):
        shared = dict(positions=self.positions, remat=self.remat, dtype=self.dtype)
        tokens, width = self.codebook_size + 1, self.dim
        self.embedding = self.param(
            "embedding", nn.initializers.normal(width**-0.5), (self.codebooks, tokens, width)
        )
        self.temporal = Transformer(
            self.dim, self.layers, self.heads, self.ffn_dim, self.text_dim > 0, **shared
        )
        if self.text_dim not in (0, self.dim):
            self.text_projection = nn.Dense(self.dim, dtype=self.dtype)
        if self.head == "depth":
            width = self.depth["dim"]
            self.depth_input = nn.Dense(width, use_bias=False, dtype=self.dtype)
            self.depth_embedding = self.param(
                "depth_embedding",
                nn.initializers.normal(width**-0.5),
                (self.codebooks - 1, tokens, width),
            )
            self.depth_transformer = Transformer(**self.depth, reads_text=False, **shared)
        self.output = self.param(
            "output",
            nn.initializers.lecun_normal(batch_axis=0),
            (self.codebooks, width, self.codebook_size),
        )

    def __call__(self, tokens_BxSxK, text_BxLxC=None, text_mask_BxL=None):
        """Return logits [batch, steps, codebooks, codebook_size] of every token, at least float32.

        Those of a step see the tokens of earlier steps; with the head "depth" also those of earlier
        codebooks in the same step.
        """
        memory = None if text_BxLxC is None else self.read(text_BxLxC, text_mask_BxL)
        before = jnp.full_like(tokens_BxSxK[:, :1], self.special)
        inputs_BxSxK = jnp.concatenate([before, tokens_BxSxK[:, :-1]], axis=1)
        h_BxSxD, _ = self.advance(inputs_BxSxK, memory)
        if self.head == "linear":
            return self._logits("bsw,kwv->bskv", h_BxSxD, self.output)
        batch, steps, _ = tokens_BxSxK.shape
        x_BxSxKxW = jnp.stack(
            [self._depth_step(h_BxSxD, tokens_BxSxK, k) for k in range(self.codebooks)], axis=2
        )
        y, _ = self.depth_transformer(x_BxSxKxW.reshape(batch * steps, *x_BxSxKxW.shape[2:]))
        return self._logits("bskw,kwv->bskv", y.reshape(x_BxSxKxW.shape), self.output)

    def read(self, text_BxLxC, mask_BxL) -> Memory:
        """Return what the steps read of the text; computed once."""
        chex.assert_shape(text_BxLxC, (*mask_BxL.shape, self.text_dim))
        text = text_BxLxC.astype(self.dtype)
        if self.text_dim != self.dim:
            text = self.text_projection(text)
        return self.temporal.read(text, mask_BxL.astype(bool))

    def empty_cache(self, batch: int, steps: int) -> Cache:
        """Return the state of decoding before the first of `steps` steps."""
        return self.temporal.empty_cache(batch, steps)

    def advance(self, inputs_BxSxK, memory: Memory | None = None, cache: Cache | None = None):
        """Feed tokens; return (state of every step [batch, steps, dim], cache).

        The tokens of a step are predicted from the state of the step before.
        """
        embedded = sum(self.embedding[k][inputs_BxSxK[..., k]] for k in range(self.codebooks))
        return self.temporal(embedded, memory, cache)

    def emit(self, h_BxD, choose: Callable):
        """Return the next tokens [batch, codebooks] after a step of state h [batch, dim].

        choose: (logits [batch, codebook_size], codebook) -> tokens [batch]; called for codebook 0,
        1, ... in order: the head "depth" predicts the next codebook from what was chosen.
        """
        if self.head == "linear":
            logits_BxKxV = self._logits("bw,kwv->bkv", h_BxD, self.output)
            return jnp.stack([choose(logits_BxKxV[:, k], k) for k in range(self.codebooks)], -1)
        cache = self.depth_transformer.empty_cache(h_BxD.shape[0], self.codebooks)
        tokens_BxK = jnp.zeros((h_BxD.shape[0], self.codebooks), jnp.int32)
        for k in range(self.codebooks):
            x_BxW = self._depth_step(h_BxD, tokens_BxK, k)
            y_Bx1xW, cache = self.depth_transformer(x_BxW[:, None], cache=cache)
            logits_BxV = self._logits("bw,wv->bv", y_Bx1xW[:, 0], self.output[k])
            tokens_BxK = tokens_BxK.at[:, k].set(choose(logits_BxV, k))
        return tokens_BxK

    def _depth_step(self, h, tokens, k: int):
        """Return the depth transformer's input for codebook k: the state and the token before k."""
        x = self.depth_input(h)
        return x if k == 0 else x + self.depth_embedding[k - 1][tokens[..., k - 1]].astype(x.dtype)

    def _logits(self, equation: str, y, output):
        # In at least float32, the dtype of y: bfloat16 would leave logits two digits.
        return jnp.einsum(equation, y, output.astype(y.dtype))


def from_config(model: Mapping, dtype="float32") -> LM:
    """Return the module of a config's `model` section, whose fields are those of LM.

    Raises UserError, which names the field, for an invalid value.
    """
    fields = dict(model) | dict(depth=FrozenDict(model["depth"]))
    if not isinstance(fields["pattern"], str):
        fields["pattern"] = tuple(fields["pattern"])
    for name, allowed in dict(positions=POSITIONS, head=HEADS).items():
        if fields[name] not in allowed:
            raise UserError(f"model.{name} must be one of {allowed}, not {fields[name]!r}")
    joint = fields["head"] == "depth"
    for name, least in dict(codebooks=1 + joint, codebook_size=1, text_dim=0).items():
        if fields[name] < least:
            raise UserError(f"model.{name} must be at least {least}, not {fields[name]}")
    patterns.schedule(fields["pattern"], 1, fields["codebooks"])
    stacks = {"model": fields} | ({"model.depth": fields["depth"]} if joint else {})
    for section, stack in stacks.items():
        for name in ("dim", "layers", "heads", "ffn_dim"):
            if stack[name] < 1:
                raise UserError(f"{section}.{name} must be at least 1, not {stack[name]}")
        multiple = 2 * stack["heads"] if fields["positions"] == "rotary" else stack["heads"]
        if stack["dim"] % multiple or stack["dim"] % 2 or stack["dim"] < 4:
            raise UserError(
                f"{section}.dim must be even, at least 4 and a multiple of {multiple} for "
                f"{stack['heads']} heads, not {stack['dim']}"
            )
    return LM(**fields, dtype=jnp.dtype(dtype))


def example(model: LM) -> tuple:
    """Return the smallest arguments with which every parameter of the model takes part."""
    tokens = jnp.zeros((1, 1, model.codebooks), jnp.int32)
    text = (jnp.zeros((1, 1, model.text_dim)), jnp.ones((1, 1), bool))
    return tokens, *(text if model.text_dim else ())


def init(model: LM, rng) -> dict:
    """Return random variables of the model: {"params": ...}."""
    return model.init(rng, *example(model))


def cross_entropy(logits_BxSxKxV, tokens_BxSxK, mask):
    """Return the mean cross-entropy [codebooks], nats, of the tokens where `mask` is True.

    mask: broadcasts to tokens; where it is False a token may be any integer.
    """
    tokens = jnp.where(mask, tokens_BxSxK, 0)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits_BxSxKxV, tokens)
    weights = jnp.broadcast_to(mask, nats.shape)
    count = jnp.maximum(jnp.sum(weights, axis=(0, 1)), 1)
    return jnp.sum(jnp.where(weights, nats, 0), axis=(0, 1)) / count


def bits_per_frame(cross_entropy_K):
    """Return the bits that coding a frame of all codebooks takes, from `cross_entropy`; a scalar."""
    return jnp.sum(cross_entropy_K) / np.log(2)


def nats(model: LM, variables, codes_BxTxK, text_BxLxC=None, text_mask_BxL=None):
    """Return [codebooks], nats: the teacher-forced cross-entropy of codes, summed over the codes.

    -1 marks padding past the end of a record: it is not counted, and becomes the token `special`.
    MusicGen's loss is the mean over codebooks of this sum divided by the codebook's number of codes.

    All steps of the pattern count, so every code counts once and training matches sampling. (The
    published training leaves out the last steps, in which codebooks of small delay no longer emit
    anything; its sampling includes them.)
    """
    schedule_SxK = model.schedule(codes_BxTxK.shape[1])
    codes = jnp.where(codes_BxTxK < 0, model.special, codes_BxTxK)
    tokens_BxSxK, _ = patterns.build(codes, schedule_SxK, model.special)
    logits = model.apply(variables, tokens_BxSxK, text_BxLxC, text_mask_BxL)
    counted = tokens_BxSxK != model.special
    labels = jnp.where(counted, tokens_BxSxK, 0)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.sum(jnp.where(counted, each, 0), axis=(0, 1))
