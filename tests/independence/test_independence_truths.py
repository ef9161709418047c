"""Independence statistics where the truth is known: identities, closed forms, grids."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.independence_cases import compiled, covariance, dependent_rows, kernel

from indep_jax import independence
from indep_jax.independence import hsic, pair_sums, permutation


@pytest.mark.parametrize("n, codebooks", [(4, 2), (5, 2), (4, 3)])
def test_mean_over_all_permutations_of_the_v_statistic(x64, n, codebooks):
    x = dependent_rows(7, n=n, codebooks=codebooks)
    a = jnp.asarray([[1.3] * codebooks])
    everyone = np.array(list(itertools.permutations(range(n))))
    orders = np.stack(
        [
            np.stack([everyone[p] for p in choice], axis=1)
            for choice in itertools.product(range(len(everyone)), repeat=codebooks)
        ]
    )  # 24^3 of them at most

    def total(u, v):
        return jnp.sum(pair_sums.pair_sums(u, v, a, None, None, marginals=False, block=n)[0])

    @compiled
    @jax.vmap
    def v_statistic(order):
        y = jnp.take_along_axis(jnp.asarray(x), order[:, :, None], axis=0)
        return (total(jnp.asarray(x), None) + total(y, None) - 2 * total(jnp.asarray(x), y)) / n**2

    b = np.array(
        [
            np.mean([kernel(x[i, c], x[j, c], 1.3) for i in range(n) for j in range(n)])
            for c in range(codebooks)
        ]
    )
    closed = hsic.statistic(x, a, None)
    identity = closed - b.prod() + 1 / n + (1 - 1 / n) * np.prod((n * b - 1) / (n - 1))
    np.testing.assert_allclose(np.mean(v_statistic(orders)), identity, rtol=1e-11)


@pytest.mark.parametrize("n, codebooks", [(5, 2), (4, 3)])
def test_diagonal_free_dhsic_is_unbiased_under_independence(x64, n, codebooks):
    # The mean over all ways of joining the codebooks is the mean given independence.
    x = dependent_rows(8, n=n, codebooks=codebooks)
    everyone = list(itertools.permutations(range(n)))
    joined = np.array(
        [
            np.stack([x[:, 0]] + [x[list(p), c + 1] for c, p in enumerate(choice)], axis=1)
            for choice in itertools.product(everyone, repeat=codebooks - 1)
        ]
    )
    values = compiled(jax.vmap(independence.dhsic))(joined)
    assert np.abs(values).max() > 1e-2
    assert abs(np.mean(values)) < 1e-12


def test_permutation_mmd_is_unbiased_under_independence(x64):
    x = dependent_rows(9, n=6, codebooks=2)

    @compiled
    @jax.vmap
    def draw(key):
        join, permute = jax.random.split(key)
        joined = jnp.take_along_axis(x, permutation.permutations(join, 6, 2)[:, :, None], axis=0)
        return independence.permutation_mmd(permute, joined)

    values = np.asarray(draw(jax.random.split(jax.random.key(0), 20_000)))
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))
    assert values.std() / np.sqrt(len(values)) < 0.02  # 1/n, what a diagonal left in would add


def test_v_statistic_is_zero_on_a_full_factorial_grid(x64):
    rng = np.random.default_rng(1)
    levels = [rng.normal(size=(size, 3)) for size in (3, 4, 5)]
    grid = np.array([np.stack(point) for point in itertools.product(*levels)])
    a = jnp.asarray([[0.5] * 3, [1.0, 2.0, 3.0]])
    assert abs(hsic.statistic(grid, a, None)) < 1e-13
    assert hsic.statistic(grid[:-1], a, None) > 1e-6
    assert abs(covariance(np.repeat(grid, 40, axis=0))) < 1e-3


def test_replicated_discrete_distributions_have_the_population_value(x64):
    # dHSIC of a distribution with rational weights, from its definition, by enumeration.
    rng = np.random.default_rng(2)
    levels = [rng.normal(size=(size, 2)) for size in (2, 3, 2)]
    counts = rng.integers(0, 4, (2, 3, 2))
    states = [point for point in np.ndindex(counts.shape) for _ in range(counts[point])]
    rows = np.array([[levels[c][code] for c, code in enumerate(state)] for state in states])
    joint = counts / counts.sum()
    marginals = [joint.sum(tuple({0, 1, 2} - {c})) for c in range(3)]
    a = 1.3
    grams = [np.array([[kernel(u, v, a) for v in level] for u in level]) for level in levels]
    product = np.einsum("i,j,k->ijk", *marginals)
    gram = np.einsum("ia,jb,kc->ijkabc", *grams)
    both = lambda p, q: np.einsum("ijk,ijkabc,abc->", p, gram, q)
    truth = both(joint, joint) + both(product, product) - 2 * both(joint, product)
    assert truth > 1e-3
    for times in (1, 3):
        value = hsic.statistic(np.repeat(rows, times, axis=0), jnp.full((1, 3), a), None)
        np.testing.assert_allclose(value, truth, rtol=1e-10)


def gaussian_dhsic(sigma, dims, a):
    """Population dHSIC of jointly Gaussian codebooks with kernel bandwidth a per codebook."""
    edges = np.cumsum([0, *dims])
    blocks = [slice(s, e) for s, e in zip(edges, edges[1:])]
    scale = np.repeat(a, dims)
    joint = np.linalg.det(np.eye(edges[-1]) + 2 * sigma / scale) ** -0.5
    marginal, crossed, precision = 1.0, 1.0, np.zeros_like(sigma)
    for block, a_k in zip(blocks, a):
        own = sigma[block, block]
        marginal *= np.linalg.det(np.eye(len(own)) + 2 * own / a_k) ** -0.5
        # E over x' of the kernel at x is a Gaussian in x.
        crossed *= np.linalg.det(np.eye(len(own)) + own / a_k) ** -0.5
        precision[block, block] = np.linalg.inv(own + a_k * np.eye(len(own)))
    crossed *= np.linalg.det(np.eye(edges[-1]) + sigma @ precision) ** -0.5
    return joint + marginal - 2 * crossed


@pytest.mark.parametrize("codebooks, dim, mixing", [(2, 2, 0.9), (3, 2, 0.5), (4, 3, 0.7)])
def test_gaussian_codebooks_have_the_closed_form(codebooks, dim, mixing):
    rng = np.random.default_rng(codebooks)
    root = np.eye(codebooks * dim) + mixing * rng.normal(size=(codebooks * dim,) * 2) / 2
    a = np.linspace(2.0, 5.0, codebooks)
    sigma = root @ root.T
    scale = np.sqrt(np.diag(sigma))  # which the losses take away
    truth = gaussian_dhsic(sigma / np.outer(scale, scale), [dim] * codebooks, a)
    samples = (rng.normal(size=(16, 1000, codebooks * dim)) @ root.T).reshape(
        16, 1000, codebooks, dim
    )
    samples = jnp.asarray(samples, jnp.float32)
    settings = {"bandwidths": a[None]}
    closed = np.array(jax.lax.map(lambda x: independence.dhsic(x, **settings), samples))
    keys = jax.random.split(jax.random.key(0), 16)
    sampled = np.array(
        jax.lax.map(lambda kx: independence.permutation_mmd(*kx, **settings), (keys, samples))
    )
    assert truth > 1e-3
    for values in (closed, sampled):
        error = values.std(ddof=1) / 4
        assert error < 0.1 * truth  # the test has power
        assert abs(values.mean() - truth) < 4 * error


def test_covariance_of_gaussians_is_their_mean_squared_correlation():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(20_000, 1, 2))
    x = 0.6 * source + 0.8 * rng.normal(size=(20_000, 3, 2))
    expected = 2 * 0.36**2 / 4  # same coordinates of two codebooks correlate 0.36, others 0
    np.testing.assert_allclose(covariance(x.astype(np.float32)), expected, rtol=0.05)
    noise = rng.normal(size=(100, 300, 4, 8)).astype(np.float32)
    values = np.array([covariance(x) for x in noise])
    assert abs(values.mean()) < 0.05 / 300  # the plain squared norm reads 1/300
