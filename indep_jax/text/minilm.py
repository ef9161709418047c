"""MiniLM: a small encoder of BERT's architecture, trained to tell sentences apart by meaning.

Devlin et al. 2019, "BERT"; Wang et al. 2020, "MiniLM". Post-norm, with biases, positions learned,
no dropout: here it is frozen.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from indep_jax.support.errors import UserError


class MiniLM(nn.Module):
    """Tokens to states.

    vocab_size: values of a token.
    dim: of the states.
    layers, heads: of the self-attention; heads divides dim.
    hidden_dim: of the feed-forward layers.
    max_tokens: positions that were learned.
    token_types: rows of the table of segment embeddings, of which one text takes the first.
    epsilon: of the norms.
    """

    vocab_size: int
    dim: int
    layers: int
    heads: int
    hidden_dim: int
    max_tokens: int = 512
    token_types: int = 2
    epsilon: float = 1e-12

    @nn.compact
    def __call__(self, ids_BxT: jax.Array, mask_BxT: jax.Array) -> jax.Array:
        """States float32 [batch, tokens, dim].

        Args:
          ids_BxT: int32 [batch, tokens], at most `max_tokens` of them.
          mask_BxT: bool, False at padding, which nothing attends to; its own states mean nothing.
        """
        chex.assert_rank(ids_BxT, 2)
        chex.assert_equal_shape([ids_BxT, mask_BxT])
        length = ids_BxT.shape[1]
        if length > self.max_tokens:
            raise UserError(f"{length} tokens: this encoder knows {self.max_tokens} positions")

        def norm(name):
            # The fast variance, E[x^2] - E[x]^2, cancels.
            return nn.LayerNorm(self.epsilon, use_fast_variance=False, name=name)

        def embed(size, name):
            return nn.Embed(size, self.dim, name=name)

        x = embed(self.vocab_size, "embedding")(ids_BxT)
        x = x + embed(self.max_tokens, "position")(jnp.arange(length))
        x = x + embed(self.token_types, "token_type")(jnp.zeros((1, 1), int))
        x = norm("embedding_norm")(x)
        for i in range(self.layers):
            query, key, value = (
                nn.Dense(self.dim, name=f"{name}_{i}")(x).reshape(*x.shape[:2], self.heads, -1)
                for name in ("query", "key", "value")
            )
            h = jax.nn.dot_product_attention(query, key, value, mask=mask_BxT[:, None, None, :])
            h = nn.Dense(self.dim, name=f"attended_{i}")(h.reshape(x.shape))
            x = norm(f"attention_norm_{i}")(x + h)
            h = nn.gelu(nn.Dense(self.hidden_dim, name=f"hidden_{i}")(x), approximate=False)
            h = nn.Dense(self.dim, name=f"out_{i}")(h)
            x = norm(f"feed_forward_norm_{i}")(x + h)
        return x
