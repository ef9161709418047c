"""What every independence loss must hold, of all kinds that a config can name."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.independence_cases import BANDWIDTHS, SEGMENTS, compiled, dependent_rows, section

from indep_jax import independence
from indep_jax.independence import hsic, loss, permutation
from indep_jax.support.errors import UserError

KINDS = list(loss.KINDS)


def estimator(kind, **changes):
    """A loss of (rows, segments, active), by its kind; fixed bandwidths and small blocks.

    The median bandwidths are constants to the gradient but not to a difference.
    """
    config = section(kind=kind, **(dict(bandwidths=BANDWIDTHS, block=8) | changes))
    made = loss.KINDS[kind](config, None)
    return lambda x, segments=None, active=None: made(jax.random.key(1), x, segments, active)


def graded(function):
    return compiled(jax.value_and_grad(function))


# Beside the kinds: pairs left out in all ways, and none left out.
FORMS = {
    **{kind: estimator(kind) for kind in KINDS},
    **{
        f"{kind}, files left out": lambda x, kind=kind: estimator(kind)(x, SEGMENTS)
        for kind in KINDS
    },
    "dhsic, no pair left out": lambda x: hsic.statistic(x, jnp.asarray(BANDWIDTHS), None, block=8),
    "permutation, published": lambda x: independence.permutation_mmd(
        jax.random.key(1), x, published=True, batch=6, bandwidths=BANDWIDTHS, block=8
    ),
}


@pytest.mark.default_flags
@pytest.mark.parametrize("name", FORMS)
def test_gradient_equals_finite_differences(x64, name):
    x = dependent_rows()
    both = graded(FORMS[name])
    gradient = both(x)[1]
    rng = np.random.default_rng(5)
    for _ in range(6):
        direction = rng.normal(size=x.shape)
        step = 1e-5 * direction
        numeric = (both(x + step)[0] - both(x - step)[0]) / 2e-5
        np.testing.assert_allclose(np.vdot(gradient, direction), numeric, rtol=2e-6, atol=1e-9)
    assert (np.abs(gradient).max(axis=(0, 2)) > 1e-6).all()  # every codebook


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_do_not_change_value_or_gradient(x64, kind):
    x = dependent_rows()
    for segments in (None, SEGMENTS):
        dense, tiled = (
            graded(lambda x: estimator(kind, block=block)(x, segments))(x) for block in (1024, 7)
        )
        np.testing.assert_allclose(tiled[0], dense[0], rtol=1e-11)
        np.testing.assert_allclose(tiled[1], dense[1], rtol=1e-8, atol=1e-12)


@pytest.mark.default_flags
@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_close_to_float64_and_bfloat16_is_promoted(kind):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 3, 8)).astype(np.float32)
    x[:, 1] += x[:, 0]
    x = x + 10.0
    both = graded(estimator(kind, bandwidths="median", block=512))
    value, gradient = both(jnp.asarray(x))
    assert value.dtype == gradient.dtype == jnp.float32
    with jax.enable_x64(True):
        exact, exact_gradient = map(np.asarray, both(x.astype(np.float64)))
        assert exact.dtype == jnp.float64
    np.testing.assert_allclose(value, exact, rtol=1e-3, atol=2e-6)
    error = np.linalg.norm(gradient - exact_gradient) / np.linalg.norm(exact_gradient)
    assert error < 1e-3
    low = jnp.asarray(x, jnp.bfloat16)
    value, gradient = both(low)
    assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, both(low.astype(jnp.float32))[0], rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_rows_give_finite_values_and_gradients(kind):
    both = graded(estimator(kind, bandwidths="median", block=5))
    x = np.random.default_rng(0).normal(size=(12, 3, 2)).astype(np.float32)
    files = np.repeat(np.arange(4), 3)

    value, gradient = both(x, np.zeros(12, int))  # one file: no pair is left
    assert value == 0 and not gradient.any()

    lonely = np.array([0] * 11 + [1])  # the partners of eleven rows are one row
    value, gradient = both(x, lonely)
    assert np.isfinite(value) and np.isfinite(gradient).all()

    value, gradient = both(np.full_like(x, 1.7), files)
    assert np.isfinite(value) and not gradient.any()

    dead = x.copy()
    dead[:, 1] = -0.3
    value, gradient = both(dead, files)  # nothing to learn from it, and nothing exploding
    assert np.isfinite(value) and not gradient[:, 1].any()
    assert 0 < np.abs(gradient).max() < 10


@pytest.mark.parametrize("kind", KINDS)
def test_dropped_codebooks_take_no_part_and_get_no_gradient(x64, monkeypatch, kind):
    x, files = dependent_rows(5, n=24, codebooks=4), np.arange(24) // 3
    order = np.stack([np.random.default_rng(s).permutation(24) for s in range(4)], axis=1)
    # Of fewer codebooks the same ones.
    monkeypatch.setattr(permutation, "permutations", lambda key, n, codebooks: order[:, :codebooks])
    estimate = estimator(kind, bandwidths="median", block=5)
    dropped = graded(lambda x, active: estimate(x, files, active))
    alone = graded(lambda x: estimate(x, files))
    for active in (2, 3, 4):
        expected, gradient = alone(x[:, :active])
        assert abs(expected) > 1e-4
        strange = x.copy()
        strange[:, active:] = np.nan  # what is dropped may be anything
        for rows in (x, strange):
            value, whole = dropped(rows, active)
            np.testing.assert_allclose(value, expected, rtol=1e-10)
            np.testing.assert_allclose(whole[:, :active], gradient, rtol=1e-8, atol=1e-12)
            assert not np.any(whole[:, active:])
    for active in (0, 1):
        value, gradient = dropped(x, active)
        assert value == 0 and not np.any(gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_out_files_removes_what_autocorrelation_feigns(kind):
    rng = np.random.default_rng(4)
    draws = autoregressive(rng, 12 * 32, 20, 3, 4, 0.98).reshape(12, 640, 3, 4)
    files, alone = np.arange(640) // 20, np.arange(640)
    estimate = estimator(kind, bandwidths="median", block=512)
    measure = jax.jit(lambda x, s: jax.lax.map(lambda x: estimate(x, s), x))
    apart, together = np.array(measure(draws, files)), np.array(measure(draws, alone))
    error = apart.std(ddof=1) / np.sqrt(12)
    assert abs(apart.mean()) < 4 * error
    assert together.mean() > 8 * error


def autoregressive(rng, files, frames, codebooks, dim, correlation):
    x = rng.normal(size=(files, frames, codebooks, dim))
    for t in range(1, frames):
        innovation = np.sqrt(1 - correlation**2) * x[:, t]
        x[:, t] = correlation * x[:, t - 1] + innovation
    return x.astype(np.float32)


# What the config asks for.


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_names_streams_and_files(kind):
    """Alignment, then the past, then pairs of one file: as the section says, and in this order."""
    rng = np.random.default_rng(6)
    streams = jnp.asarray(rng.normal(size=(6, 9, 3, 2)), jnp.float32)
    streams = streams + streams[:, :, :1]
    files, key = np.array([0, 0, 1, 1, 2, 2]), jax.random.key(1)
    plain = estimator(kind, bandwidths="median")
    aligned = independence.align(streams, "delay")
    given_past = independence.condition(independence.align(streams, "parallel"), 2)
    off = dict(delay=False, condition=0, exclude_files=False)
    for changes, expected in (
        (off, plain(streams)),
        (off | dict(exclude_files=True), plain(streams, files)),
        (off | dict(delay=True), plain(aligned)),
        (off | dict(condition=2), plain(given_past)),
        (off | dict(delay=True, condition=1), plain(independence.condition(aligned, 1))),
    ):
        config = section(kind=kind, bandwidths="median", block=8, **changes)
        found = loss.from_config(config)(key, streams, files)
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=str(changes))


def test_published_is_of_the_clips_and_leaves_no_file_out():
    streams = jnp.asarray(np.random.default_rng(0).normal(size=(6, 8, 3, 2)), jnp.float32)
    config = section(kind="permutation", published=True, delay=False, exclude_files=True)
    key = jax.random.key(1)
    found = loss.from_config(config)(key, streams, np.zeros(6, int))
    expected = independence.permutation_mmd(key, streams, published=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found > 1


@pytest.mark.parametrize(
    "field, value",
    [
        ("kind", "mmd"),
        ("streams", "residuals"),
        ("every", 0),
        ("macro_batch", 0),
        ("share", -0.1),
        ("condition", -1),
    ],
)
def test_impossible_losses_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=f"^loss.independence.{field} must be [^\n]*, not "):
        loss.check(section(**{field: value}))


def test_functions_are_not_hidden_by_files():
    """Whatever is imported, the names of the package stay the functions."""
    program = "\n".join(
        [
            "import pkgutil, importlib",
            "from indep_jax import independence",
            "for found in pkgutil.iter_modules(independence.__path__):",
            "    importlib.import_module('indep_jax.independence.' + found.name)",
            "print(*[name for name in independence.__all__ "
            "if not callable(getattr(independence, name))])",
        ]
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0 and not run.stdout.split(), run.stdout + run.stderr


SHARDED = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from jax.sharding import NamedSharding, PartitionSpec
from support.independence_cases import section
from indep_jax.independence import loss
x = np.random.default_rng(0).normal(size=(16, 6, 3, 4)).astype(np.float32)
x[:, :, 1] += x[:, :, 0]
files = np.arange(16) // 2
assert jax.device_count() == 8
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
split = NamedSharding(mesh, PartitionSpec("data"))
options = {'xla_backend_optimization_level': 0}
sections = [
    section(kind=kind, bandwidths=(1.0, 9.0), exclude_files=True, delay=not number, block=20)
    for number, kind in enumerate(loss.KINDS)
] + [section(kind="dhsic", bandwidths="median", exclude_files=True, delay=False)]
for config in sections:
    estimate = loss.from_config(config)
    graded = jax.value_and_grad(lambda x, s: estimate(jax.random.key(0), x, s))
    step = jax.jit(graded, compiler_options=options)
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
