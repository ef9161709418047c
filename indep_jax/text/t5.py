"""The encoder of T5, of either version.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer"; version 1.1 gates the feed-forward layer as in Shazeer 2020, "GLU Variants Improve
Transformer". Pre-norm, no biases, no dropout: here it is frozen.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def relative_buckets(length: int, buckets: int, max_distance: int) -> np.ndarray:
    """Return the bucket, int32 [length, length], of each key's distance from each query.

    Half of the buckets are for keys behind the query, half for keys ahead. In each half, half
    again are for one distance each, the others logarithmic up to `max_distance`, beyond which all
    distances share the last.
    """
    offset = np.arange(length)[None, :] - np.arange(length)[:, None]
    half = buckets // 2
    exact = half // 2
    distance = np.abs(offset)
    # float32, as where the published weights were trained: it decides at a bucket's first distance.
    octaves = np.log(np.maximum(distance, exact).astype(np.float32) / np.float32(exact))
    scale = np.float32(np.log(max_distance / exact))
    logarithmic = exact + (octaves / scale * np.float32(half - exact)).astype(np.int32)
    bucket = np.where(distance < exact, distance, np.minimum(logarithmic, half - 1))
    return (bucket + half * (offset > 0)).astype(np.int32)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) over the last axis, times a learned scale."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones_init(), x.shape[-1:])
        return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + self.epsilon) * scale


class T5Encoder(nn.Module):
    """T5's encoder: tokens to states.

    vocab_size: values of a token.
    dim: of the states.
    layers, heads, head_dim: of the self-attention; heads x head_dim need not be `dim`.
    hidden_dim: of the feed-forward layers.
    gated: gated GELU (version 1.1) in the place of ReLU (version 1.0).
    buckets, max_distance: of the relative positions, see `relative_buckets`.
    epsilon: of the norms.
    """

    vocab_size: int
    dim: int
    layers: int
    heads: int
    head_dim: int
    hidden_dim: int
    gated: bool = False
    buckets: int = 32
    max_distance: int = 128
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, ids_BxT: jax.Array, mask_BxT: jax.Array) -> jax.Array:
        """Return states float32 [batch, tokens, dim].

        Args:
          ids_BxT: int32 [batch, tokens].
          mask_BxT: bool, False at padding, to which nothing attends; its own states are arbitrary.
        """
        chex.assert_rank(ids_BxT, 2)
        chex.assert_equal_shape([ids_BxT, mask_BxT])

        def dense(features, name):
            return nn.Dense(features, use_bias=False, name=name)

        length = ids_BxT.shape[1]
        bucket_TxT = relative_buckets(length, self.buckets, self.max_distance)
        bias_TxTxH = nn.Embed(self.buckets, self.heads, name="position")(bucket_TxT)
        bias_1xHxTxT = jnp.transpose(bias_TxTxH, (2, 0, 1))[None]
        x = nn.Embed(self.vocab_size, self.dim, name="embedding")(ids_BxT)
        for i in range(self.layers):
            h = RMSNorm(self.epsilon, name=f"attention_norm_{i}")(x)
            query, key, value = (
                dense(self.heads * self.head_dim, f"{name}_{i}")(h).reshape(
                    *h.shape[:2], self.heads, self.head_dim
                )
                for name in ("query", "key", "value")
            )
            # T5 does not scale the products: its initial weights are that much smaller.
            h = jax.nn.dot_product_attention(
                query, key, value, bias=bias_1xHxTxT, mask=mask_BxT[:, None, None, :], scale=1.0
            )
            x = x + dense(self.dim, f"attended_{i}")(h.reshape(*h.shape[:2], -1))
            h = RMSNorm(self.epsilon, name=f"feed_forward_norm_{i}")(x)
            if self.gated:
                gate = nn.gelu(dense(self.hidden_dim, f"gate_{i}")(h), approximate=True)
                h = gate * dense(self.hidden_dim, f"hidden_{i}")(h)
            else:
                h = nn.relu(dense(self.hidden_dim, f"hidden_{i}")(h))
            x = x + dense(self.dim, f"out_{i}")(h)
        return RMSNorm(self.epsilon, name="norm")(x)
