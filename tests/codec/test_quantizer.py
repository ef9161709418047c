import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indep_jax.codec import balancer, discriminator, quantizer

K, SIZE, DIM = 3, 8, 4


@pytest.fixture
def latents():
    return jax.random.normal(jax.random.key(0), (2, 20, DIM))


@pytest.fixture
def codebook():
    rng = np.random.default_rng(1)
    count = rng.uniform(3, 9, (K, SIZE)).astype(np.float32)
    embed = rng.standard_normal((K, SIZE, DIM)).astype(np.float32)
    return jax.tree.map(
        jnp.asarray, dict(embed=embed, average=embed * count[..., None], count=count)
    )


def test_residual_chain_is_numpys(latents, codebook):
    q = quantizer.quantize(codebook, latents)
    residual, commitment = np.asarray(latents, np.float64), 0
    for k in range(K):
        embed = np.asarray(codebook["embed"][k], np.float64)
        distance = ((residual[..., None, :] - embed) ** 2).sum(-1)
        codes = distance.argmin(-1)
        np.testing.assert_array_equal(q.codes[..., k], codes)
        np.testing.assert_allclose(q.inputs[..., k, :], residual, atol=1e-5)
        np.testing.assert_allclose(q.vectors[..., k, :], embed[codes], atol=1e-5)
        commitment += ((residual - embed[codes]) ** 2).mean() / K
        residual = residual - embed[codes]
    np.testing.assert_allclose(q.output, np.asarray(latents) - residual, atol=1e-5)
    np.testing.assert_allclose(q.output, quantizer.decode(codebook, q.codes), atol=1e-5)
    np.testing.assert_allclose(q.commitment, commitment, rtol=1e-5)


def test_output_and_every_stream_pass_the_gradient_straight_through(latents, codebook):
    weight = jax.random.normal(jax.random.key(3), latents.shape)
    picks = [lambda q: q.output]
    for k in range(K):
        picks += [lambda q, k=k: q.vectors[:, :, k], lambda q, k=k: q.inputs[:, :, k]]
    for pick in picks:
        gradient = jax.grad(lambda z: jnp.sum(weight * pick(quantizer.quantize(codebook, z))))(
            latents
        )
        np.testing.assert_allclose(gradient, weight, atol=1e-6)


def test_commitment_pulls_the_latents_to_fixed_code_vectors(latents, codebook):
    gradient = jax.grad(lambda z: quantizer.quantize(codebook, z).commitment)(latents)
    q = quantizer.quantize(codebook, latents)
    expected = (q.inputs - q.vectors).sum(axis=2) * 2 / K / latents.size
    np.testing.assert_allclose(gradient, expected, atol=1e-7)
    embed_gradient = jax.grad(
        lambda e: quantizer.quantize({**codebook, "embed": e}, latents).commitment
    )(codebook["embed"])
    assert not np.any(embed_gradient)


def test_dropped_codebooks_leave_output_commitment_and_themselves_alone(latents, codebook):
    q = quantizer.quantize(codebook, latents, active=jnp.int32(2))
    np.testing.assert_allclose(q.output, quantizer.decode(codebook, q.codes[..., :2]), atol=1e-5)
    errors = ((q.inputs - q.vectors) ** 2).mean(axis=(0, 1, 3))
    np.testing.assert_allclose(q.commitment, errors[:2].mean(), rtol=1e-5)
    new = quantizer.update(
        codebook,
        q.inputs,
        q.codes,
        jax.random.key(0),
        decay=0.9,
        expire_below=0.0,
        active=jnp.int32(2),
    )
    assert np.array_equal(new["embed"][2], codebook["embed"][2])
    assert not np.array_equal(new["embed"][1], codebook["embed"][1])


def test_moving_averages_are_numpys(latents, codebook):
    q = quantizer.quantize(codebook, latents)
    new = quantizer.update(
        codebook, q.inputs, q.codes, jax.random.key(0), decay=0.9, expire_below=0.0
    )
    for k in range(K):
        rows = np.asarray(q.inputs[:, :, k], np.float64).reshape(-1, DIM)
        codes = np.asarray(q.codes[..., k]).ravel()
        count = np.zeros(SIZE)
        total = np.zeros((SIZE, DIM))
        for row, code in zip(rows, codes):
            count[code] += 1
            total[code] += row
        count = 0.9 * np.asarray(codebook["count"][k], np.float64) + 0.1 * count
        total = 0.9 * np.asarray(codebook["average"][k], np.float64) + 0.1 * total
        smoothed = (count + 1e-5) / (count.sum() + SIZE * 1e-5) * count.sum()
        np.testing.assert_allclose(new["count"][k], count, rtol=1e-5)
        np.testing.assert_allclose(new["average"][k], total, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(new["embed"][k], total / smoothed[:, None], rtol=1e-4, atol=1e-5)


def test_collapsed_codebook_recovers():
    z = jax.random.normal(jax.random.key(0), (4, 50, DIM))
    # Every vector far away and one near: all latents get one code.
    far = jnp.full((1, SIZE, DIM), 100.0).at[0, 0].set(0.0)
    codebook = dict(embed=far, average=far * 0.0, count=jnp.zeros((1, SIZE)).at[0, 0].set(200.0))
    assert quantizer.perplexity(quantizer.quantize(codebook, z).codes, SIZE)[0] == 1
    for step in range(100):
        q = quantizer.quantize(codebook, z)
        codebook = quantizer.update(
            codebook, q.inputs, q.codes, jax.random.key(step), decay=0.9, expire_below=0.1
        )
    q = quantizer.quantize(codebook, z)
    assert quantizer.perplexity(q.codes, SIZE)[0] > 0.8 * SIZE
    # And it stays: a replaced code is not forgotten in the next step.
    assert q.commitment < 0.5 * jnp.mean(jnp.square(z))


def test_kmeans_lowers_the_error_and_finds_separate_clusters():
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((SIZE, DIM))
    x = jnp.asarray(np.repeat(centres, 30, 0) + 0.1 * rng.standard_normal((240, DIM)), jnp.float32)

    def error(iterations):
        means, counts = quantizer.kmeans(x, SIZE, jax.random.key(1), iterations)
        assert counts.sum() == 240
        return float(jnp.mean(jnp.square(x - means[quantizer.nearest(x, means)])))

    errors = [error(i) for i in (0, 1, 50)]
    assert errors[0] > errors[1] >= errors[2]


def test_initial_codebooks_shrink_the_residual_and_have_stationary_counts(latents):
    rows = latents.reshape(-1, DIM)
    codebook = quantizer.initialize(rows, K, SIZE, jax.random.key(0), 20, even_count=5.0)
    np.testing.assert_allclose(codebook["count"].sum(axis=1), SIZE * 5.0, rtol=1e-5)
    q = quantizer.quantize(codebook, latents)
    errors = jnp.mean(jnp.square(q.inputs), axis=(0, 1, 3))
    assert errors[0] > 2 * errors[1] > 2 * errors[2]
    np.testing.assert_allclose(
        codebook["average"], codebook["embed"] * codebook["count"][..., None]
    )


def test_restarted_codebooks_are_the_same_at_another_level(codebook):
    codebook["count"] = codebook["count"].at[2].set(0.0)
    new = quantizer.restart(codebook, even_count=5.0)
    assert np.array_equal(new["embed"], codebook["embed"])
    share = np.asarray(codebook["count"][:2]) / np.sum(codebook["count"][:2], 1, keepdims=True)
    np.testing.assert_allclose(new["count"][:2], share * SIZE * 5, rtol=1e-5)
    np.testing.assert_allclose(new["count"][2], 5)  # nobody counted: as if used evenly
    np.testing.assert_allclose(new["average"], new["embed"] * new["count"][..., None], rtol=1e-6)


def test_perplexity_of_even_use_is_the_size_and_of_one_code_is_one():
    codes = jnp.stack([jnp.arange(32) % SIZE, jnp.zeros(32, int)], axis=-1)
    np.testing.assert_allclose(quantizer.perplexity(codes, SIZE), [SIZE, 1], rtol=1e-5)


def test_balancer_gives_each_loss_its_weight_whatever_its_scale():
    rng = np.random.default_rng(0)
    state = balancer.init(("a", "b"))
    direction = {n: rng.standard_normal((3, 10, 1)) for n in "ab"}
    for step in range(4):
        gradients = {
            "a": jnp.asarray(1e-6 * (step + 1) * direction["a"]),
            "b": jnp.asarray(1e5 * direction["b"]),
        }
        state, joined, _ = balancer.combine(state, gradients, dict(a=3.0, b=1.0), decay=0.9)
    norm = {n: np.sqrt((d**2).sum(axis=(1, 2))).mean() for n, d in direction.items()}
    decays = 0.9 ** np.arange(3, -1, -1)
    average = (decays * np.arange(1, 5)).sum() / decays.sum()
    expected = 0.75 * direction["a"] / norm["a"] * 4 / average + 0.25 * direction["b"] / norm["b"]
    np.testing.assert_allclose(joined, expected, rtol=1e-5)


def test_hinge_and_feature_losses_are_their_definitions():
    rng = np.random.default_rng(0)
    scales = [
        (rng.standard_normal((2, 5, 7, 1)) * 2, [rng.standard_normal((2, 5, 7, 3))] * 2)
        for _ in range(4)
    ]
    real, fake = scales[:2], scales[2:]
    hinge = np.mean(
        [
            np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean()
            for (r, _), (f, _) in zip(real, fake)
        ]
    )
    np.testing.assert_allclose(discriminator.discriminator_loss(real, fake), hinge, rtol=1e-5)
    np.testing.assert_allclose(
        discriminator.adversarial_loss(fake), -np.mean([f.mean() for f, _ in fake]), rtol=1e-5
    )
    feature = np.mean([np.abs(r[0] - f[0]).mean() for (_, r), (_, f) in zip(real, fake)])
    np.testing.assert_allclose(discriminator.feature_loss(real, fake), feature, rtol=1e-5)
