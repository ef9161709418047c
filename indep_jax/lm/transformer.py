"""A pre-norm causal transformer decoder with cross-attention, and its cache of keys and values.

MusicGen's (Copet et al. 2023) as transformers' MusicgenDecoder has it: LayerNorm (epsilon 1e-5)
with gain and bias before self-attention, cross-attention and feed-forward and at the end, exact
GELU, linear layers without biases, sinusoidal positions added to the input; or rotary positions
(Su et al. 2021). The state of decoding is data that goes in and comes out: `Cache`, `Memory`.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.signal.stft import at_least_float32

POSITIONS = ("sinusoidal", "rotary")
BLOCK = 256  # steps whose attention weights are in memory at once


class Cache(NamedTuple):
    """Keys and values of the steps so far, in arrays for all steps there will be.

    position: int32 scalar, steps so far. layers: for each layer keys and values, both
    [batch, steps, heads, dim / heads].
    """

    position: jax.Array
    layers: tuple[tuple[jax.Array, jax.Array], ...]


class Memory(NamedTuple):
    """What cross-attention reads, computed once.

    layers: for each layer keys and values, both [batch, length, heads, dim / heads].
    mask: bool [batch, length], False where there is padding.
    """

    layers: tuple[tuple[jax.Array, jax.Array], ...]
    mask: jax.Array


def sinusoids(positions_S, dim: int):
    """Return [steps, dim], float32: cosines of dim / 2 frequencies, 1 to 1 / 10000, then the sines.

    `dim` is even and at least 4. As transformers' MusicgenSinusoidalPositionalEmbedding.
    """
    # Exponents in float32, as published: late angles are large and show how it was rounded.
    exponents = np.float32(-np.log(10_000) / (dim // 2 - 1)) * np.arange(dim // 2, dtype=np.float32)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = positions_S[:, None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def rotate(x_BxSxNxH, positions_S):
    """Rotate features i and i + H / 2 of a head by position / 10000^(2 i / H): rotary positions."""
    half = x_BxSxNxH.shape[-1] // 2
    frequencies = 10_000.0 ** -(np.arange(half) / half)
    angles = positions_S[:, None, None].astype(jnp.float32) * frequencies.astype(np.float32)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(at_least_float32(x_BxSxNxH), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BxSxNxH.dtype)


def causal_attention(queries_BxSxNxH, keys_BxSxNxH, values_BxSxNxH):
    """Attend from every step to itself and those before, [batch, steps, heads, dim / heads].

    BLOCK steps at a time, each block to the keys that it sees only, with its weights recomputed in
    the backward pass: O(steps) memory and half the work.
    """

    @jax.checkpoint
    def attend(queries, keys, values):
        length = keys.shape[1]
        mask = np.arange(length) <= np.arange(length - queries.shape[1], length)[:, None]
        return jax.nn.dot_product_attention(queries, keys, values, mask=mask[None, None])

    steps = queries_BxSxNxH.shape[1]
    ends = [min(start + BLOCK, steps) for start in range(0, steps, BLOCK)]
    blocks = [
        attend(queries_BxSxNxH[:, start:end], keys_BxSxNxH[:, :end], values_BxSxNxH[:, :end])
        for start, end in zip([0, *ends], ends)
    ]
    return jnp.concatenate(blocks, axis=1)


class Attention(nn.Module):
    """Multi-head attention; keys and values are computed apart, so that they can be kept.

    States are rows [batch x steps, dim].
    """

    dim: int
    heads: int
    linear: functools.partial  # nn.Dense with all but the number of features

    def setup(self):
        self.query = self.linear(self.dim)
        self.key = self.linear(self.dim)
        self.value = self.linear(self.dim)
        self.out = self.linear(self.dim)

    def _split(self, x_RxD, batch: int):
        return x_RxD.reshape(batch, -1, self.heads, self.dim // self.heads)

    def keys_values(self, x_RxD, batch: int, positions_L=None):
        """Return both, [batch, length, heads, dim / heads]; keys rotated to `positions` if given."""
        keys, values = (self._split(linear(x_RxD), batch) for linear in (self.key, self.value))
        return (keys if positions_L is None else rotate(keys, positions_L)), values

    def __call__(self, x_RxD, keys_values, mask=None, positions_S=None):
        """Attend to keys and values; the softmax is in float32.

        mask: bool, broadcast to [batch, heads, steps, length]; without one each step attends to
        itself and those before.
        """
        queries = self._split(self.query(x_RxD), len(keys_values[0]))
        if positions_S is not None:
            queries = rotate(queries, positions_S)
        if mask is None:
            y = causal_attention(queries, *keys_values)
        else:
            y = jax.nn.dot_product_attention(queries, *keys_values, mask=mask)
        return self.out(y.reshape(x_RxD.shape))


class Layer(nn.Module):
    """Self-attention, cross-attention where text is read, feed-forward; each with a skip."""

    dim: int
    heads: int
    ffn_dim: int
    reads_text: bool
    rotary: bool
    depth: int  # 1 for the first layer
    dtype: jnp.dtype

    def setup(self):
        # MusicGen's initialisation: the standard deviation of fan-in, less the deeper the layer is.
        linear = functools.partial(
            nn.Dense,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.variance_scaling(
                0.5 / self.depth, "fan_in", "truncated_normal"
            ),
        )
        self.self_norm = _norm(self.dtype)
        self.self_attention = Attention(self.dim, self.heads, linear)
        if self.reads_text:
            self.cross_norm = _norm(self.dtype)
            self.cross_attention = Attention(self.dim, self.heads, linear)
        self.ffn_norm = _norm(self.dtype)
        self.ffn_in = linear(self.ffn_dim)
        self.ffn_out = linear(self.dim)

    def read(self, text_BxLxD):
        """Return keys and values of the text for this layer's cross-attention."""
        batch, _, dim = text_BxLxD.shape
        return self.cross_attention.keys_values(text_BxLxD.reshape(-1, dim), batch)

    def __call__(self, x_RxD, positions_S, cache, memory, memory_mask):
        """Return the output and (keys, values) of all steps up to these.

        `cache`, `memory`: of this layer. The states are rows [batch x steps, dim]: with three axes,
        XLA on CPU recomputes the gradient of each layer from those of all layers after it.
        """
        rotary_S = positions_S if self.rotary else None
        y = self.self_norm(x_RxD)
        keys_values = self.self_attention.keys_values(y, len(x_RxD) // len(positions_S), rotary_S)
        if cache is not None:
            keys_values = tuple(
                jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), positions_S[0], 1)
                for old, new in zip(cache, keys_values, strict=True)
            )
        mask = None
        if cache is not None:
            mask = (jnp.arange(keys_values[0].shape[1]) <= positions_S[:, None])[None, None]
        x = x_RxD + self.self_attention(y, keys_values, mask, rotary_S)
        if memory is not None:
            mask_Bx1x1xL = memory_mask[:, None, None]
            x = x + self.cross_attention(self.cross_norm(x), memory, mask_Bx1x1xL)
        y = nn.gelu(self.ffn_in(self.ffn_norm(x)), approximate=False)
        return x + self.ffn_out(y), keys_values


class Transformer(nn.Module):
    """[batch, steps, dim] -> the same shape, each step from itself and those before.

    reads_text: has cross-attention. positions: one of POSITIONS. remat: recompute the inside of
    each layer in the backward pass. Computes in `dtype`; norms, softmax and output in at least
    float32.
    """

    dim: int
    layers: int
    heads: int
    ffn_dim: int
    reads_text: bool
    positions: str
    remat: bool
    dtype: jnp.dtype

    def setup(self):
        layer = nn.remat(Layer) if self.remat else Layer
        self.layer = [
            layer(
                self.dim,
                self.heads,
                self.ffn_dim,
                self.reads_text,
                self.positions == "rotary",
                depth + 1,
                self.dtype,
            )
            for depth in range(self.layers)
        ]
        self.norm = _norm(self.dtype)

    def read(self, text_BxLxD, mask_BxL) -> Memory:
        """Return the text [batch, length, dim] as cross-attention reads it.

        Padding is set to 0, so that a text of padding only, which means unconditional prediction,
        adds nothing: keys and values have no bias.
        """
        text = jnp.where(mask_BxL[..., None], text_BxLxD, 0)
        return Memory(tuple(layer.read(text) for layer in self.layer), mask_BxL)

    def empty_cache(self, batch: int, steps: int) -> Cache:
        """Return the cache before the first of `steps` steps."""
        zeros = jnp.zeros((batch, steps, self.heads, self.dim // self.heads), self.dtype)
        return Cache(jnp.zeros((), jnp.int32), ((zeros, zeros),) * self.layers)

    def __call__(self, x_BxSxD, memory: Memory | None = None, cache: Cache | None = None):
        """Return (output, cache). With a cache the steps continue it; without, the cache is None."""
        steps = x_BxSxD.shape[1]
        positions_S = jnp.arange(steps) + (0 if cache is None else cache.position)
        x = x_BxSxD.astype(self.dtype)
        if self.positions == "sinusoidal":
            x = x + sinusoids(positions_S, self.dim).astype(self.dtype)
        x, kept = x.reshape(-1, self.dim), []
        for i, layer in enumerate(self.layer):
            x, keys_values = layer(
                x,
                positions_S,
                None if cache is None else cache.layers[i],
                None if memory is None else memory.layers[i],
                None if memory is None else memory.mask,
            )
            kept.append(keys_values)
        if cache is not None:
            cache = Cache(cache.position + steps, tuple(kept))
        return self.norm(x).reshape(x_BxSxD.shape), cache


def _norm(dtype) -> nn.LayerNorm:
    # The fast variance, mean of squares less square of mean, loses digits where the mean is large.
    at_least = jnp.promote_types(dtype, jnp.float32)
    return nn.LayerNorm(epsilon=1e-5, dtype=at_least, use_fast_variance=False)
