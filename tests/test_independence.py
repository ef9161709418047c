"""Independence losses against enumeration, closed forms, identities and invariances."""

import functools
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indep_jax import independence
from indep_jax.independence import kernels, mmd

GOLDEN = Path(__file__).with_name("golden")


def compiled(function):
    """Jitted with little optimisation: these programs compile for longer than they run."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def jitted(loss):
    """The loss as one compiled program per set of options that are not arrays."""
    programs = {}

    def call(*args, **options):
        arrays = {name: value for name, value in options.items() if hasattr(value, "shape")}
        static = tuple((n, v) for n, v in options.items() if n not in arrays)
        if static not in programs:
            programs[static] = compiled(functools.partial(loss, **dict(static)))
        return programs[static](*args, **arrays)

    return call


covariance = jitted(independence.covariance)
dhsic = jitted(independence.dhsic)
permutation_mmd = jitted(independence.permutation_mmd)
BANDWIDTHS = np.array([[0.7, 1.5, 4.0], [3.0, 2.0, 9.0]])  # [components, codebooks]


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def dependent_rows(seed=0, n=24, codebooks=3, dim=2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, codebooks, dim))
    x[:, 1:] = 0.6 * x[:, 1:] + 0.8 * x[:, :1] ** 2
    return x + 3.0  # off centre, as code vectors are


# Brute force: one pair at a time, straight from the definitions.


def kernel(u, v, a):
    return math.exp(-float(np.sum((u - v) ** 2)) / (2 * a))


def standardized(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0, ddof=1) + 1e-8)


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
    np.testing.assert_allclose(
        dhsic(x, **off), brute_dhsic(x, BANDWIDTHS, different), rtol=1e-10
    )
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
        brute_dhsic(standardized(x), [[a] * 3 for a in kernels.PAPER_BANDWIDTHS], different),
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


LOSSES = {
    "dhsic": lambda x, **kw: independence.dhsic(x, **kw),
    "dhsic_segments": lambda x, **kw: independence.dhsic(x, segments=SEGMENTS, **kw),
    "dhsic_v": lambda x, **kw: independence.dhsic(x, diagonal=True, bandwidths="paper", **kw),
    "mmd": lambda x, **kw: independence.permutation_mmd(jax.random.key(1), x, **kw),
    "mmd_segments": lambda x, **kw: independence.permutation_mmd(
        jax.random.key(1), x, segments=SEGMENTS, **kw
    ),
    "mmd_published": lambda x, **kw: independence.permutation_mmd(
        jax.random.key(1), x, published=True, batch=6, **kw
    ),
    "covariance": lambda x: independence.covariance(x),
    "covariance_segments": lambda x: independence.covariance(x, segments=SEGMENTS),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_equals_finite_differences(x64, name):
    # Fixed bandwidths: the median ones are constants to the gradient but not to a difference.
    fixed = {} if name.startswith("covariance") else {"bandwidths": BANDWIDTHS, "block": 8}
    if name == "dhsic_v":
        fixed = {"block": 8}
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


# Identities and closed forms.


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
        return jnp.sum(kernels.pair_sums(u, v, a, None, None, marginals=False, block=n)[0])

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
    closed = dhsic(x, bandwidths=a, standardize=False, diagonal=True)
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
        joined = jnp.take_along_axis(x, mmd.permutations(join, 6, 2)[:, :, None], axis=0)
        return independence.permutation_mmd(permute, joined)

    values = np.asarray(draw(jax.random.split(jax.random.key(0), 20_000)))
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))
    assert values.std() / np.sqrt(len(values)) < 0.02  # 1/n, what a diagonal left in would add


def test_v_statistic_is_zero_on_a_full_factorial_grid(x64):
    rng = np.random.default_rng(1)
    levels = [rng.normal(size=(size, 3)) for size in (3, 4, 5)]
    grid = np.array([np.stack(point) for point in itertools.product(*levels)])
    for bandwidths in ("median", "paper"):
        assert abs(dhsic(grid, diagonal=True, bandwidths=bandwidths)) < 1e-13
        broken = grid[:-1]
        assert dhsic(broken, diagonal=True, bandwidths=bandwidths) > 1e-6
    assert abs(covariance(np.repeat(grid, 40, axis=0))) < 1e-3


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
    truth = gaussian_dhsic(root @ root.T, [dim] * codebooks, a)
    samples = (rng.normal(size=(16, 1000, codebooks * dim)) @ root.T).reshape(
        16, 1000, codebooks, dim
    )
    samples = jnp.asarray(samples, jnp.float32)
    settings = {"bandwidths": a[None], "standardize": False}
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


def autoregressive(rng, files, frames, codebooks, dim, correlation):
    x = rng.normal(size=(files, frames, codebooks, dim))
    for t in range(1, frames):
        innovation = np.sqrt(1 - correlation**2) * x[:, t]
        x[:, t] = correlation * x[:, t - 1] + innovation
    return x.astype(np.float32)


def test_leaving_out_files_removes_what_autocorrelation_feigns():
    rng = np.random.default_rng(4)
    draws = autoregressive(rng, 12 * 32, 20, 3, 4, 0.98).reshape(12, 640, 3, 4)
    files, alone = np.arange(640) // 20, np.arange(640)
    key = jax.random.key(0)
    losses = {
        "dhsic": lambda x, s: independence.dhsic(x, segments=s),
        "mmd": lambda x, s: independence.permutation_mmd(key, x, bandwidths="median", segments=s),
        "covariance": lambda x, s: independence.covariance(x, segments=s),
    }
    for name, loss in losses.items():
        measure = jax.jit(lambda x, s: jax.lax.map(lambda x: loss(x, s), x))
        apart, together = np.array(measure(draws, files)), np.array(measure(draws, alone))
        error = apart.std(ddof=1) / np.sqrt(12)
        assert abs(apart.mean()) < 4 * error, name
        assert together.mean() > 8 * error, name


# Invariances, borders.


@pytest.mark.parametrize("diagonal", [False, True])
def test_dhsic_invariances(x64, diagonal):
    rng = np.random.default_rng(3)
    x = dependent_rows(3, n=40, codebooks=4, dim=3)
    value = lambda x, a=(1.0, 6.0): dhsic(
        x, bandwidths=np.array(a), standardize=False, diagonal=diagonal
    )
    reference = value(x)
    np.testing.assert_allclose(value(x[:, [2, 0, 3, 1]]), reference, rtol=1e-9)
    np.testing.assert_allclose(value(x[rng.permutation(40)]), reference, rtol=1e-9)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turned = np.concatenate([x[:, :1] @ rotation + 5, x[:, 1:]], axis=1)
    np.testing.assert_allclose(value(turned), reference, rtol=1e-9)
    np.testing.assert_allclose(value(2 * x, (4.0, 24.0)), reference, rtol=1e-9)
    stretched = x * np.exp(rng.normal(size=(4, 3))) + rng.normal(size=(4, 3))
    np.testing.assert_allclose(
        dhsic(stretched, diagonal=diagonal),
        dhsic(x, diagonal=diagonal),
        rtol=1e-5,
    )


def test_streams_and_rows_agree():
    x = np.random.default_rng(0).normal(size=(6, 7, 3, 2)).astype(np.float32)
    files = np.array([4, 4, 1, 0, 9, 1])
    rows, segments = independence.rows(x, files)
    assert rows.shape == (42, 3, 2)
    np.testing.assert_array_equal(rows[7:14], x[1])
    np.testing.assert_array_equal(segments, np.repeat(files, 7))
    for loss in (dhsic, covariance):
        np.testing.assert_array_equal(loss(x, segments=files), loss(rows, segments=segments))


def test_align_puts_a_decoding_step_in_a_row():
    k, t = np.meshgrid(np.arange(4), np.arange(9))
    streams = jnp.asarray(np.stack([k, t], axis=-1)[None].repeat(2, 0))  # [2, 9, 4, (k, t)]
    aligned = independence.align(streams, independence.delays("delay", 4))
    assert aligned.shape == (2, 6, 4, 2)
    for i in range(6):
        for c in range(4):  # the LM's delay pattern emits frame s - k of codebook k at step s
            assert aligned[1, i, c].tolist() == [c, i + 3 - c]
    np.testing.assert_array_equal(
        independence.align(streams, independence.delays("parallel", 4)), streams
    )
    uneven = independence.align(streams, independence.delays([0, 0, 2, 1], 4))
    assert uneven[0, 0, :, 1].tolist() == [2, 2, 0, 1]


def test_mistakes_are_named():
    x = jnp.ones((5, 4, 3, 2))
    for text, call in {
        "delay pattern 'flat'": lambda: independence.delays("flat", 3),
        "expected 3 integers": lambda: independence.delays([0, 1], 3),
        "expected more than the delay": lambda: independence.align(x, (0, 4, 0)),
        "2 delays for 3": lambda: independence.align(x, (0, 1)),
        "bandwidths 'mean'": lambda: dhsic(x, bandwidths="mean"),
        "segments": lambda: dhsic(x, segments=np.arange(5), diagonal=True),
        "knows no segments": lambda: permutation_mmd(
            jax.random.key(0), x, published=True, segments=np.arange(5)
        ),
        "needs batch": lambda: permutation_mmd(
            jax.random.key(0), x[0], published=True
        ),
        "at least 2": lambda: covariance(x[:, :, :1]),
    }.items():
        with pytest.raises(ValueError, match=text):
            call()


GUARDED = {
    "dhsic": lambda x, s: independence.dhsic(x, segments=s, block=5),
    "mmd": lambda x, s: independence.permutation_mmd(
        jax.random.key(0), x, segments=s, bandwidths="median", block=5
    ),
    "covariance": lambda x, s: independence.covariance(x, segments=s),
}


@pytest.mark.parametrize("name", GUARDED)
def test_degenerate_rows_give_finite_values_and_gradients(name):
    graded = compiled(jax.value_and_grad(GUARDED[name]))
    x = np.random.default_rng(0).normal(size=(12, 3, 2)).astype(np.float32)
    files = np.repeat(np.arange(4), 3)

    value, gradient = graded(x, np.zeros(12, int))  # one file: no pair is left
    assert value == 0 and not gradient.any()

    lonely = np.array([0] * 11 + [1])  # the partners of eleven rows are one row
    value, gradient = graded(x, lonely)
    assert np.isfinite(value) and np.isfinite(gradient).all()

    value, gradient = graded(np.full_like(x, 1.7), files)
    assert np.isfinite(value) and not gradient.any()

    dead = x.copy()
    dead[:, 1] = -0.3
    value, gradient = graded(dead, files)  # nothing to learn from it, and nothing exploding
    assert np.isfinite(value) and not gradient[:, 1].any()
    assert 0 < np.abs(gradient).max() < 10


def test_median_bandwidths():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2, 3)) * np.array([1.0, 10.0])[:, None]
    a = kernels.bandwidths("median", jnp.asarray(x))
    squares = np.sum((x[:, None] - x[None]) ** 2, axis=-1)[np.triu_indices(100, 1)]
    expected = np.array([[0.5], [1], [2]]) * np.median(squares, axis=0)
    np.testing.assert_allclose(a, expected, rtol=1e-3)
    files = np.arange(100) // 50
    x[50:] += 100.0  # pairs of different files are far apart, pairs of one file near
    across = np.sum((x[:50, None] - x[None, 50:]) ** 2, axis=-1).reshape(-1, 2)
    a = kernels.bandwidths("median", jnp.asarray(x), jnp.asarray(files))
    np.testing.assert_allclose(a[1], np.median(across, axis=0), rtol=1e-3)
    assert (kernels.bandwidths("median", jnp.asarray(x), jnp.zeros(100, int)) > 0).all()
    gradient = jax.grad(lambda x: jnp.sum(kernels.bandwidths("median", x)))(jnp.asarray(x))
    assert not gradient.any()


def test_memory_is_not_quadratic():
    def temporary(n):
        x = jax.ShapeDtypeStruct((n, 4, 8), jnp.float32)
        loss = lambda x: independence.dhsic(x, block=128)
        compiled = jax.jit(jax.value_and_grad(loss)).lower(x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, large = temporary(1024), temporary(8192)
    assert large - small < 8192 * 8192  # bytes; one n x n array would be four times that


SHARDED = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from jax.sharding import NamedSharding, PartitionSpec
from indep_jax import independence
x = np.random.default_rng(0).normal(size=(16, 6, 3, 4)).astype(np.float32)
x[:, :, 1] += x[:, :, 0]
files = np.arange(16) // 2
key = jax.random.key(0)
losses = [
    lambda x, s: independence.dhsic(x, segments=s),
    lambda x, s: independence.dhsic(x, bandwidths=(1.0, 9.0), segments=s, block=20),
    lambda x, s: independence.permutation_mmd(key, x, bandwidths=(1.0, 9.0), segments=s),
    lambda x, s: independence.covariance(independence.align(x, (0, 1, 2)), segments=s),
]
assert jax.device_count() == 8
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
split = NamedSharding(mesh, PartitionSpec("data"))
for loss in losses:
    options = {'xla_backend_optimization_level': 0}
    step = jax.jit(jax.value_and_grad(loss), compiler_options=options)
    one, one_gradient = step(x, files)
    many, many_gradient = step(jax.device_put(x, split), jax.device_put(files, split))
    assert len(many_gradient.sharding.device_set) == 8
    np.testing.assert_allclose(many, one, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(many_gradient, one_gradient, rtol=1e-4, atol=1e-6)
print("equal")
"""


def test_eight_devices_equal_one():
    run = subprocess.run(
        [sys.executable, "-c", SHARDED],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip() == "equal"
