"""Independence losses against enumeration, finite differences and the published code."""

import itertools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.independence_cases import (
    BANDWIDTHS,
    SEGMENTS,
    compiled,
    covariance,
    dependent_rows,
    dhsic,
    kernel,
    permutation_mmd,
    standardized,
)

from indep_jax import independence
from indep_jax.independence import bandwidths, cross_covariance, hsic, permutation

GOLDEN = Path(__file__).parents[1] / "golden"


# Brute force: one pair at a time, straight from the definitions.


def brute_dhsic(x, bandwidths, partner):
    n, codebooks, _ = x.shape
    value = 0.0
    for a in bandwidths:
        pairs = [(i, j) for i in range(n) for j in range(n) if partner(i, j)]
        k = {p: [kernel(x[p[0], c], x[p[1], c], a[c]) for c in range(codebooks)] for p in pairs}
        joint = np.mean([math.prod(k[p]) for p in pairs])
        marginal = np.prod([np.mean([k[p][c] for p in pairs]) for c in range(codebooks)])
        crossed = []
        for i in range(n):
            own = [p for p in pairs if p[0] == i]
            if own:
                crossed.append(np.prod([np.mean([k[p][c] for p in own]) for c in range(codebooks)]))
        value += joint + marginal - 2 * np.mean(crossed)
    return value


def brute_mmd(x, order, bandwidths, ids):
    n, codebooks, _ = x.shape
    y = np.stack([x[order[:, c], c] for c in range(codebooks)], axis=1)
    x_ids, y_ids = np.repeat(ids[:, None], codebooks, 1), ids[order]

    def mean(u, v, u_ids, v_ids, a):
        return np.mean(
            [
                math.prod(kernel(u[i, c], v[j, c], a[c]) for c in range(codebooks))
                for i in range(n)
                for j in range(n)
                if not any(u_ids[i] == v_ids[j])
            ]
        )

    return sum(
        mean(x, x, x_ids, x_ids, a) + mean(y, y, y_ids, y_ids, a) - 2 * mean(x, y, x_ids, y_ids, a)
        for a in bandwidths
    )


def brute_covariance(x, ids):
    n, codebooks, dim = x.shape
    x = x - x.mean(0)
    pairs = [(i, j) for i in range(n) for j in range(n) if ids[i] != ids[j]]
    products = [
        np.dot(x[i, c], x[j, c]) * np.dot(x[i, e], x[j, e])
        for i, j in pairs
        for c, e in itertools.combinations(range(codebooks), 2)
    ]
    return np.mean(products) / dim**2


@pytest.mark.parametrize("block", [7, 8, 64])
def test_dhsic_is_the_enumerated_statistic(x64, block):
    x = dependent_rows()
    different = lambda i, j: i != j
    apart = lambda i, j: SEGMENTS[i] != SEGMENTS[j]
    always = lambda i, j: True
    how = dict(bandwidths=BANDWIDTHS, block=block)
    rows = standardized(x)
    for segments, partner in ((None, different), (SEGMENTS, apart)):
        expected = brute_dhsic(rows, BANDWIDTHS, partner)
        np.testing.assert_allclose(dhsic(x, segments=segments, **how), expected, rtol=1e-10)
    paper = [[a] * 3 for a in bandwidths.PAPER]
    np.testing.assert_allclose(
        dhsic(x, bandwidths="paper", block=block), brute_dhsic(rows, paper, different), rtol=1e-10
    )
    whole = compiled(lambda x: hsic.statistic(x, jnp.asarray(BANDWIDTHS), None, block=block))
    np.testing.assert_allclose(whole(x), brute_dhsic(x, BANDWIDTHS, always), rtol=1e-10)


@pytest.mark.parametrize("block", [7, 8, 64])
def test_permutation_mmd_is_the_enumerated_statistic(x64, block):
    x, key = dependent_rows(), jax.random.key(3)
    order = np.asarray(permutation.permutations(key, 24, 3))
    assert (np.sort(order, axis=0) == np.arange(24)[:, None]).all()
    assert (order[:, 0] != order[:, 1]).any() and (order[:, 1] != order[:, 2]).any()
    for segments in (None, SEGMENTS):
        value = permutation_mmd(key, x, bandwidths=BANDWIDTHS, segments=segments, block=block)
        ids = np.arange(24) if segments is None else segments
        np.testing.assert_allclose(
            value, brute_mmd(standardized(x), order, BANDWIDTHS, ids), rtol=1e-10
        )


def test_covariance_is_the_enumerated_statistic(x64, monkeypatch):
    x = dependent_rows()
    expected = brute_covariance(standardized(x), np.arange(24))
    np.testing.assert_allclose(covariance(x), expected, rtol=1e-10)
    for block in (5, 24):
        monkeypatch.setattr(cross_covariance, "BLOCK", block)
        value = compiled(independence.covariance)(x, segments=SEGMENTS)
        np.testing.assert_allclose(value, brute_covariance(standardized(x), SEGMENTS), rtol=1e-10)


# The published arithmetic.


def test_published_equals_golden(x64, monkeypatch):
    golden = np.load(GOLDEN / "published_mmd.npz")
    monkeypatch.setattr(permutation, "permutations", lambda key, n, codebooks: golden["order"])
    loss = lambda x: independence.permutation_mmd(jax.random.key(0), x, published=True)
    value, gradient = compiled(jax.value_and_grad(loss))(golden["streams"])
    np.testing.assert_allclose(value, golden["value"], rtol=1e-10)
    np.testing.assert_allclose(gradient, golden["gradient"], rtol=1e-5, atol=1e-7)


def test_published_equals_plain_numpy(x64):
    x, key, clips = dependent_rows(4, n=24), jax.random.key(9), 6
    order = np.asarray(permutation.permutations(key, 24, 3))
    rows = standardized(x)
    u = rows.reshape(24, -1)
    v = np.stack([rows[order[:, c], c] for c in range(3)], axis=1).reshape(24, -1)
    distance = lambda p, q: np.sum((p[:, None] - q[None]) ** 2, axis=-1)
    value = 0.0
    for a in (0.1, 1, 5, 10, 20, 50):
        s_xx, s_yy, s_xy = (np.exp(-0.5 * distance(*p) / a).sum() for p in ((u, u), (v, v), (u, v)))
        value += (s_xx - clips) / (clips * (clips - 1)) + (s_yy - clips) / (clips * (clips - 1))
        value -= 2 * s_xy / clips**2
    assert value > 0
    by_rows = permutation_mmd(key, x, published=True, batch=clips, block=10)
    by_clips = permutation_mmd(key, x.reshape(6, 4, 3, 2), published=True)
    np.testing.assert_allclose(by_rows, value, rtol=1e-10)
    np.testing.assert_allclose(by_clips, value, rtol=1e-10)


def test_published_is_clamped_and_far_off_on_independent_data():
    x = np.random.default_rng(0).normal(size=(24, 8, 4, 2)).astype(np.float32)
    values = [
        permutation_mmd(jax.random.key(s), x, published=True, batch=b)
        for s in range(6)
        for b in (24 * 8, 24)
    ]
    assert min(values) >= 0
    assert min(values[1::2]) > 1.0  # clips for rows
    assert max(values[::2]) < 0.1  # rows: the correct normalisation, diagonals apart
