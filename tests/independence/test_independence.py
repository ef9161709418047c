"""Independence losses against enumeration, finite differences and the published code."""

import itertools
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.independence_cases import (
    BANDWIDTHS,
    compiled,
    covariance,
    dependent_rows,
    dhsic,
    kernel,
    permutation_mmd,
    standardized,
)

from indep_jax import independence
from indep_jax.independence import mmd, pair_sums

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


SEGMENTS = np.array([0, 0, 0, 5, 5, 1, 1, 1, 1, 2, 7, 7, 7, 0, 3, 3, 3, 3, 3, 4, 4, 6, 6, 2])


@pytest.mark.parametrize("block", [7, 8, 64])
def test_dhsic_is_the_enumerated_statistic(x64, block):
    x = dependent_rows()
    off = {"standardize": False, "bandwidths": BANDWIDTHS, "block": block}
    different = lambda i, j: i != j
    apart = lambda i, j: SEGMENTS[i] != SEGMENTS[j]
    always = lambda i, j: True
    np.testing.assert_allclose(dhsic(x, **off), brute_dhsic(x, BANDWIDTHS, different), rtol=1e-10)
    np.testing.assert_allclose(
        dhsic(x, segments=SEGMENTS, **off),
        brute_dhsic(x, BANDWIDTHS, apart),
        rtol=1e-10,
    )
    np.testing.assert_allclose(
        dhsic(x, diagonal=True, **off), brute_dhsic(x, BANDWIDTHS, always), rtol=1e-10
    )
    np.testing.assert_allclose(
        dhsic(x, bandwidths="paper", block=block),
        brute_dhsic(standardized(x), [[a] * 3 for a in pair_sums.PAPER_BANDWIDTHS], different),
        rtol=1e-10,
    )


@pytest.mark.parametrize("block", [7, 8, 64])
def test_permutation_mmd_is_the_enumerated_statistic(x64, block):
    x, key = dependent_rows(), jax.random.key(3)
    order = np.asarray(mmd.permutations(key, 24, 3))
    assert (np.sort(order, axis=0) == np.arange(24)[:, None]).all()
    assert (order[:, 0] != order[:, 1]).any() and (order[:, 1] != order[:, 2]).any()
    for segments in (None, SEGMENTS):
        value = permutation_mmd(
            key, x, bandwidths=BANDWIDTHS, standardize=False, segments=segments, block=block
        )
        ids = np.arange(24) if segments is None else segments
        np.testing.assert_allclose(value, brute_mmd(x, order, BANDWIDTHS, ids), rtol=1e-10)


def test_covariance_is_the_enumerated_statistic(x64, monkeypatch):
    x = dependent_rows()
    off = covariance(x, standardize=False)
    np.testing.assert_allclose(off, brute_covariance(x, np.arange(24)), rtol=1e-10)
    for block in (5, 24):
        monkeypatch.setattr(sys.modules["indep_jax.independence.covariance"], "BLOCK", block)
        value = compiled(independence.covariance)(x, segments=SEGMENTS)
        np.testing.assert_allclose(value, brute_covariance(standardized(x), SEGMENTS), rtol=1e-10)


def test_v_statistics_are_the_plain_formulas(x64):
    x, key = dependent_rows(), jax.random.key(3)
    order = np.asarray(mmd.permutations(key, 24, 3))
    u = standardized(x).reshape(24, -1)
    v = np.stack([standardized(x)[order[:, c], c] for c in range(3)], axis=1).reshape(24, -1)
    squares = lambda p, q: np.sum((p[:, None] - q[None]) ** 2, axis=-1)
    expected = sum(
        np.mean(np.exp(-squares(u, u) / (2 * a)))
        + np.mean(np.exp(-squares(v, v) / (2 * a)))
        - 2 * np.mean(np.exp(-squares(u, v) / (2 * a)))
        for a in pair_sums.PAPER_BANDWIDTHS
    )
    found = permutation_mmd(key, x, diagonal=True, block=7)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    correlations = np.corrcoef(standardized(x).reshape(24, -1), rowvar=False) * (23 / 24)
    pairs = [correlations[2 * c : 2 * c + 2, 2 * e : 2 * e + 2] for c in range(3) for e in range(c)]
    expected = np.mean(np.square(pairs))
    np.testing.assert_allclose(covariance(x, diagonal=True), expected, rtol=1e-6)


LOSSES = {
    "dhsic": lambda x, **kw: independence.dhsic(x, **kw),
    "dhsic_segments": lambda x, **kw: independence.dhsic(x, segments=SEGMENTS, **kw),
    "dhsic_v": lambda x, **kw: independence.dhsic(x, diagonal=True, bandwidths="paper", **kw),
    "mmd": lambda x, **kw: independence.permutation_mmd(jax.random.key(1), x, **kw),
    "mmd_v": lambda x, **kw: independence.permutation_mmd(
        jax.random.key(1), x, diagonal=True, **kw
    ),
    "mmd_segments": lambda x, **kw: independence.permutation_mmd(
        jax.random.key(1), x, segments=SEGMENTS, **kw
    ),
    "mmd_published": lambda x, **kw: independence.permutation_mmd(
        jax.random.key(1), x, published=True, batch=6, **kw
    ),
    "covariance": lambda x: independence.covariance(x),
    "covariance_segments": lambda x: independence.covariance(x, segments=SEGMENTS),
}


@pytest.mark.default_flags
@pytest.mark.parametrize("name", LOSSES)
def test_gradient_equals_finite_differences(x64, name):
    # Fixed bandwidths: the median ones are constants to the gradient but not to a difference.
    fixed = {} if name.startswith("covariance") else {"bandwidths": BANDWIDTHS, "block": 8}
    if name in ("dhsic_v", "mmd_v"):
        fixed = {"block": 8}  # the paper's
    x = dependent_rows()
    graded = compiled(jax.value_and_grad(lambda x: LOSSES[name](x, **fixed)))
    gradient = graded(x)[1]
    rng = np.random.default_rng(5)
    for _ in range(6):
        direction = rng.normal(size=x.shape)
        step = 1e-5 * direction
        numeric = (graded(x + step)[0] - graded(x - step)[0]) / 2e-5
        np.testing.assert_allclose(np.vdot(gradient, direction), numeric, rtol=2e-6, atol=1e-9)
    assert (np.abs(gradient).max(axis=(0, 2)) > 1e-6).all()  # every codebook


@pytest.mark.parametrize("name", ["dhsic_segments", "dhsic_v", "mmd_segments", "mmd_published"])
def test_blocks_do_not_change_value_or_gradient(x64, name):
    x = dependent_rows()
    dense = compiled(jax.value_and_grad(lambda x: LOSSES[name](x, block=1024)))(x)
    tiled = compiled(jax.value_and_grad(lambda x: LOSSES[name](x, block=7)))(x)
    np.testing.assert_allclose(tiled[0], dense[0], rtol=1e-11)
    np.testing.assert_allclose(tiled[1], dense[1], rtol=1e-8, atol=1e-12)


@pytest.mark.default_flags
def test_float32_is_close_to_float64_and_bfloat16_is_promoted():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 3, 8)).astype(np.float32)
    x[:, 1] += x[:, 0]
    x = x + 10.0
    losses = {
        "dhsic": independence.dhsic,
        "mmd": lambda x: independence.permutation_mmd(jax.random.key(0), x, bandwidths="median"),
        "covariance": independence.covariance,
    }
    for name, loss in losses.items():
        graded = compiled(jax.value_and_grad(loss))
        value, gradient = graded(jnp.asarray(x))
        assert value.dtype == gradient.dtype == jnp.float32
        with jax.enable_x64(True):
            exact, exact_gradient = map(np.asarray, graded(x.astype(np.float64)))
            assert exact.dtype == jnp.float64
        np.testing.assert_allclose(value, exact, rtol=1e-3, atol=2e-6, err_msg=name)
        error = np.linalg.norm(gradient - exact_gradient) / np.linalg.norm(exact_gradient)
        assert error < 1e-3, name
        if name == "mmd":  # promoted by the same lines as dhsic
            continue
        low = jnp.asarray(x, jnp.bfloat16)
        value, gradient = graded(low)
        assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
        np.testing.assert_allclose(value, graded(low.astype(jnp.float32))[0], rtol=1e-3, atol=2e-6)


# The published arithmetic.


def test_published_equals_golden(x64, monkeypatch):
    golden = np.load(GOLDEN / "published_mmd.npz")
    monkeypatch.setattr(mmd, "permutations", lambda key, n, codebooks: golden["order"])
    loss = lambda x: independence.permutation_mmd(jax.random.key(0), x, published=True)
    value, gradient = compiled(jax.value_and_grad(loss))(golden["streams"])
    np.testing.assert_allclose(value, golden["value"], rtol=1e-10)
    np.testing.assert_allclose(gradient, golden["gradient"], rtol=1e-5, atol=1e-7)


def test_published_equals_plain_numpy(x64):
    x, key, clips = dependent_rows(4, n=24), jax.random.key(9), 6
    order = np.asarray(mmd.permutations(key, 24, 3))
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
