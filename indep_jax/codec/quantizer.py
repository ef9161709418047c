"""Residual vector quantization with codebooks learned by moving averages.

A codebook stack is plain data, the Flax collection `codebook`:
  embed    [codebooks, size, dim]  the code vectors
  average  [codebooks, size, dim]  moving sum of the vectors assigned to each code
  count    [codebooks, size]       moving count of those vectors
(van den Oord et al. 2017, appendix A; Zeghidour et al. 2021; EnCodec section 3.2).
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from indep_jax.signal.stft import at_least_float32


class Quantized(NamedTuple):
    """The result of quantizing latents [batch, frames, dim] with K codebooks.

    output: [batch, frames, dim] sum of the active codebooks' vectors, straight-through: its
        gradient passes to the latents unchanged.
    codes: [batch, frames, K] int32, of all codebooks.
    inputs: [batch, frames, K, dim], the input of each codebook: the latents minus the vectors of
        the codebooks before it. Every one has the gradient of the latents.
    vectors: [batch, frames, K, dim], the code vectors, straight-through likewise.
    commitment: mean over active codebooks of the mean squared distance between a codebook's
        inputs and its (fixed) code vectors.
    """

    output: jax.Array
    codes: jax.Array
    inputs: jax.Array
    vectors: jax.Array
    commitment: jax.Array


def empty(codebooks: int, size: int, dim: int) -> dict:
    """Return codebooks of zeros, to be filled by `initialize`."""
    return dict(
        embed=jnp.zeros((codebooks, size, dim)),
        average=jnp.zeros((codebooks, size, dim)),
        count=jnp.zeros((codebooks, size)),
    )


def nearest(x_NxD, embed_SxD):
    """Return int32 [N], for each row of x the index of its nearest code vector."""
    half_squares = 0.5 * jnp.sum(jnp.square(embed_SxD), axis=-1)
    return jnp.argmin(half_squares - x_NxD @ embed_SxD.T, axis=-1).astype(jnp.int32)


def quantize(codebook: dict, z_BxTxD, active=None) -> Quantized:
    """Quantize latents with the residual chain; the codebooks are not changed.

    `active` (a traced int, default all) is how many leading codebooks the output and the
    commitment use: quantizer dropout.
    """
    chex.assert_rank(z_BxTxD, 3)
    z_BxTxD = at_least_float32(z_BxTxD)
    embed = codebook["embed"].astype(z_BxTxD.dtype)
    codebooks = embed.shape[0]
    active = codebooks if active is None else active
    batch, frames, dim = z_BxTxD.shape
    residual = z_BxTxD
    output = jnp.zeros_like(z_BxTxD)
    commitment = 0.0
    codes, inputs, vectors = [], [], []
    for k in range(codebooks):
        code = nearest(jax.lax.stop_gradient(residual).reshape(-1, dim), embed[k])
        code = code.reshape(batch, frames)
        # A constant: so the next residual, and with it every stream, keeps the gradient of z.
        # (Subtracting the straight-through vector instead would cancel it.)
        vector = jax.lax.stop_gradient(embed[k][code])
        used = k < active
        codes.append(code)
        inputs.append(residual)
        vectors.append(residual + jax.lax.stop_gradient(vector - residual))
        commitment += jnp.where(used, jnp.mean(jnp.square(residual - vector)), 0.0)
        output += jnp.where(used, vector, 0.0)
        residual = residual - vector
    return Quantized(
        output=z_BxTxD + jax.lax.stop_gradient(output - z_BxTxD),
        codes=jnp.stack(codes, axis=-1),
        inputs=jnp.stack(inputs, axis=-2),
        vectors=jnp.stack(vectors, axis=-2),
        commitment=commitment / active,
    )


def decode(codebook: dict, codes_BxTxK):
    """Return the sum of the code vectors, [batch, frames, dim]; leading codebooks alone will do."""
    chex.assert_rank(codes_BxTxK, 3)
    used = codes_BxTxK.shape[-1]
    embed = codebook["embed"]
    return sum(embed[k][codes_BxTxK[..., k]] for k in range(used))


def update(
    codebook: dict,
    inputs_BxTxKxD,
    codes_BxTxK,
    key,
    *,
    decay: float,
    expire_below: float,
    active=None,
) -> dict:
    """Move the codebooks one moving-average step towards the vectors assigned to them.

    Each code becomes its moving sum over its Laplace-smoothed moving count (epsilon 1e-5). A code
    whose count has fallen under `expire_below` times the count that even use would give is
    replaced by a random input of this batch, its sum and count reset with it to that of an evenly
    used code; without the reset the next step would undo the replacement. Codebooks from index
    `active` on are left as they are. `expire_below=0` never replaces.
    """
    inputs = jax.lax.stop_gradient(inputs_BxTxKxD)
    codebooks, size, dim = codebook["embed"].shape
    rows = inputs.reshape(-1, codebooks, dim).swapaxes(0, 1)
    codes = codes_BxTxK.reshape(-1, codebooks).T
    even_count = rows.shape[1] / size
    epsilon = 1e-5

    def one(embed, average, count, rows_NxD, codes_N, key):
        onehot = jax.nn.one_hot(codes_N, size, dtype=rows_NxD.dtype)
        count = decay * count + (1 - decay) * jnp.sum(onehot, axis=0)
        average = decay * average + (1 - decay) * (onehot.T @ rows_NxD)
        total = jnp.sum(count)
        smoothed = (count + epsilon) / (total + size * epsilon) * total
        embed = average / smoothed[:, None]
        dead = count < expire_below * even_count
        fresh = rows_NxD[jax.random.randint(key, (size,), 0, rows_NxD.shape[0])]
        return dict(
            embed=jnp.where(dead[:, None], fresh, embed),
            average=jnp.where(dead[:, None], fresh * even_count, average),
            count=jnp.where(dead, even_count, count),
        )

    updated = jax.vmap(one)(
        codebook["embed"],
        codebook["average"],
        codebook["count"],
        rows,
        codes,
        jax.random.split(key, codebooks),
    )
    if active is None:
        return updated
    used = jnp.arange(codebooks) < active
    return jax.tree.map(
        lambda new, old: jnp.where(used.reshape((-1,) + (1,) * (old.ndim - 1)), new, old),
        updated,
        codebook,
    )


def kmeans(x_NxD, size: int, key, iterations: int):
    """Cluster rows by Lloyd's algorithm: (means [size, dim], counts [size]).

    It starts from `size` random rows. A cluster that loses all its rows is moved to a random row.
    """
    rows = x_NxD.shape[0]
    start_key, key = jax.random.split(key)
    # Distinct rows where there are enough, as duplicates would start as dead clusters.
    start = jax.random.choice(start_key, rows, (size,), replace=rows < size)

    def assign(means):
        onehot = jax.nn.one_hot(nearest(x_NxD, means), size, dtype=x_NxD.dtype)
        return onehot, jnp.sum(onehot, axis=0)

    def step(means, key):
        onehot, counts = assign(means)
        new = (onehot.T @ x_NxD) / jnp.maximum(counts, 1)[:, None]
        fresh = x_NxD[jax.random.randint(key, (size,), 0, rows)]
        return jnp.where(counts[:, None] > 0, new, fresh), None

    means, _ = jax.lax.scan(step, x_NxD[start], jax.random.split(key, iterations))
    return means, assign(means)[1]


def initialize(z_NxD, codebooks: int, size: int, key, iterations: int, even_count: float) -> dict:
    """Fit codebooks by k-means to latents [rows, dim], each to the residual of those before.

    Counts are scaled to sum to size * `even_count`, the vectors one training step assigns, so
    that the moving averages start at their stationary level.
    """
    z_NxD = at_least_float32(z_NxD)
    residual = z_NxD
    embeds, counts = [], []
    for key_of_one in jax.random.split(key, codebooks):
        embed, count = kmeans(residual, size, key_of_one, iterations)
        residual = residual - embed[nearest(residual, embed)]
        embeds.append(embed)
        counts.append(count * (size * even_count / z_NxD.shape[0]))
    embed, count = jnp.stack(embeds), jnp.stack(counts)
    return dict(embed=embed, average=embed * count[..., None], count=count)


def restart(codebook: dict, even_count: float) -> dict:
    """Rescale trained codebooks to another run: counts sum to size * `even_count`.

    The code vectors do not change, and stay the moving averages' ratio. A codebook without counts
    starts as if all its codes were used evenly.
    """
    embed, count = codebook["embed"], codebook["count"]
    total = jnp.sum(count, axis=-1, keepdims=True)
    share = jnp.where(total > 0, count / jnp.where(total > 0, total, 1), 1 / count.shape[-1])
    count = share * (count.shape[-1] * even_count)
    return dict(embed=embed, average=embed * count[..., None], count=count)


def perplexity(codes_BxTxK, size: int):
    """Return [K], two to the entropy in bits of each codebook's use; `size` when used evenly."""
    codes = codes_BxTxK.reshape(-1, codes_BxTxK.shape[-1])
    share = jnp.mean(jax.nn.one_hot(codes, size, dtype=jnp.float32), axis=0)
    return jnp.exp2(-jnp.sum(share * jnp.log2(jnp.maximum(share, 1e-12)), axis=-1))
