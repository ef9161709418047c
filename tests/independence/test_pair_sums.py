"""Bandwidths, and kernels of several bandwidths from few exponentials."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indep_jax.independence import bandwidths, pair_sums


def test_median_bandwidths():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2, 3)) * np.array([1.0, 10.0])[:, None]
    a = bandwidths.choose("median", jnp.asarray(x))
    squares = np.sum((x[:, None] - x[None]) ** 2, axis=-1)[np.triu_indices(100, 1)]
    expected = np.array([[0.5], [1], [2]]) * np.median(squares, axis=0)
    np.testing.assert_allclose(a, expected, rtol=1e-3)
    files = np.arange(100) // 50
    x[50:] += 100.0  # pairs of different files are far apart, pairs of one file near
    across = np.sum((x[:50, None] - x[None, 50:]) ** 2, axis=-1).reshape(-1, 2)
    a = bandwidths.choose("median", jnp.asarray(x), jnp.asarray(files))
    np.testing.assert_allclose(a[1], np.median(across, axis=0), rtol=1e-3)
    assert (bandwidths.choose("median", jnp.asarray(x), jnp.zeros(100, int)) > 0).all()
    gradient = jax.grad(lambda x: jnp.sum(bandwidths.choose("median", x)))(jnp.asarray(x))
    assert not gradient.any()


def sums(rule, x, **options):
    a = bandwidths.choose(rule, x)
    return pair_sums.pair_sums(x, None, a, None, None, block=8, **options)[0]


# Exps a pass needs with a ladder and without, for a mixture of codebooks' own bandwidths or not.
RULES = {"paper": (3, 6), "median": (1, 3), (1.0, 3.0): (1, 2), (1.0, 2.5): (2, 2)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("marginals", [True, False])
def test_few_exponentials(rule, marginals):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3, 2)), jnp.float32)

    def exps(ladder):
        loss = lambda x: jnp.sum(sums(rule, x, marginals=marginals, ladder=ladder))
        # Once in the forward pass, once in the backward pass.
        return str(jax.make_jaxpr(jax.grad(loss))(x)).count("= exp") / 2

    assert (exps(bandwidths.ladder(rule)), exps(None)) == RULES[rule]


@pytest.mark.parametrize("rule", ["paper", "median"])
def test_rounding_of_the_ladder(rule):
    # Per codebook and in float32, the worst case: the power multiplies the rounding of the exp.
    ladder = bandwidths.ladder(rule)
    factors = bandwidths.PAPER if rule == "paper" else bandwidths.MEDIAN_FACTORS
    rates = 1 / (2 * np.array(factors))[:, None]
    d = np.concatenate([np.linspace(0, 1, 1001), np.linspace(1, 400, 4001)])[None, None]
    plan = pair_sums.Plan(True, 1, ladder, pair_sums.LOCAL)
    low = pair_sums._kernels(plan, jnp.asarray(d, jnp.float32), jnp.asarray(rates, jnp.float32))
    # Of the very numbers that went in: what rounding distances and rates costs is not the ladder's.
    exact = np.exp(-np.float64(np.float32(d)) * np.float64(np.float32(rates))[:, :, None, None])
    for kernel, truth in zip(low, exact):
        np.testing.assert_allclose(kernel, truth, rtol=0, atol=3e-6)
        np.testing.assert_allclose(kernel, truth, rtol=2e-5, atol=1e-30)


@pytest.mark.parametrize("rule", ["paper", "median"])
def test_the_ladder_changes_no_sum_in_float64(x64, rule):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3, 2)))
    for marginals in (True, False):
        direct, climbed = (
            jax.value_and_grad(lambda x: jnp.sum(jnp.square(function(x))))(x)
            for function in (
                functools.partial(sums, rule, marginals=marginals, ladder=ladder)
                for ladder in (None, bandwidths.ladder(rule))
            )
        )
        np.testing.assert_allclose(climbed[0], direct[0], rtol=1e-12)
        np.testing.assert_allclose(climbed[1], direct[1], rtol=1e-9, atol=1e-12)
