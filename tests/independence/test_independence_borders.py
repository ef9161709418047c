"""Independence losses: invariances, streams and bandwidths, and what must not break them."""

import os
import subprocess
import sys

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from support.independence_cases import compiled, covariance, dependent_rows, dhsic, permutation_mmd

from indep_jax import independence
from indep_jax.independence import mmd

SETTINGS = dict(max_examples=10, deadline=None, derandomize=True)  # deadlines count compilation


@hypothesis.settings(**SETTINGS)
@hypothesis.given(seed=st.integers(0, 2**32 - 1), diagonal=st.booleans())
def test_invariances(seed, diagonal):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        x = dependent_rows(seed, n=40, codebooks=4, dim=3)
        order = rng.permutation(40)
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        changed = dict(
            rows=x[order],
            codebooks=x[:, rng.permutation(4)],
            rotated=np.concatenate([x[:, :1] @ rotation + 5, x[:, 1:]], axis=1),
        )
        losses = dict(
            dhsic=lambda x: dhsic(x, bandwidths=(1.0, 6.0), standardize=False, diagonal=diagonal),
            covariance=lambda x: covariance(x, standardize=False, diagonal=diagonal),
        )
        for name, loss in losses.items():
            for what, other in changed.items():
                np.testing.assert_allclose(loss(other), loss(x), rtol=1e-8, err_msg=name + what)
        doubled = dhsic(2 * x, bandwidths=(4.0, 24.0), standardize=False, diagonal=diagonal)
        np.testing.assert_allclose(doubled, losses["dhsic"](x), rtol=1e-8)
        stretched = x * np.exp(rng.normal(size=(4, 3))) + rng.normal(size=(4, 3))
        np.testing.assert_allclose(
            dhsic(stretched, diagonal=diagonal), dhsic(x, diagonal=diagonal), rtol=1e-4
        )


@hypothesis.settings(**SETTINGS)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_files_left_out_do_not_depend_on_their_names_and_order(seed):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        x, files = dependent_rows(seed, n=40, codebooks=4, dim=3), rng.integers(0, 6, 40)
        order, names = rng.permutation(40), rng.permutation(100)[:6]
        for loss in (dhsic, covariance):
            off = dict(standardize=False)
            if loss is dhsic:
                off["bandwidths"] = (1.0, 6.0)
            value = loss(x, segments=files, **off)
            np.testing.assert_allclose(
                loss(x[order], segments=names[files[order]], **off), value, rtol=1e-8
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
    aligned = independence.align(streams, "delay")
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
        r"delays \(0, 1\): expected 3": lambda: independence.align(x, (0, 1)),
        "delay pattern 'late'": lambda: independence.align(x, "late"),
        "bandwidths 'mean'": lambda: dhsic(x, bandwidths="mean"),
        "segments": lambda: dhsic(x, segments=np.arange(5), diagonal=True),
        "mmd: the V-statistic": lambda: permutation_mmd(
            jax.random.key(0), x, segments=np.arange(5), diagonal=True
        ),
        "covariance: the V-statistic": lambda: covariance(x, segments=np.arange(5), diagonal=True),
        "expected 1 <= past < 4": lambda: independence.condition(x, past=4),
        "knows no segments": lambda: permutation_mmd(
            jax.random.key(0), x, published=True, segments=np.arange(5)
        ),
        "needs batch": lambda: permutation_mmd(jax.random.key(0), x[0], published=True),
        "at least 2": lambda: covariance(x[:, :, :1]),
    }.items():
        with pytest.raises(ValueError, match=text):
            call()


GUARDED = {
    "dhsic": lambda x, s, **kw: independence.dhsic(x, segments=s, block=5, **kw),
    "mmd": lambda x, s, **kw: independence.permutation_mmd(
        jax.random.key(0), x, segments=s, bandwidths="median", block=5, **kw
    ),
    "covariance": lambda x, s, **kw: independence.covariance(x, segments=s, **kw),
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


@pytest.mark.parametrize("name", ["dhsic", "mmd", "covariance"])
def test_dropped_codebooks_take_no_part_and_get_no_gradient(x64, monkeypatch, name):
    x, files = dependent_rows(5, n=24, codebooks=4), np.arange(24) // 3
    order = np.stack([np.random.default_rng(s).permutation(24) for s in range(4)], axis=1)
    monkeypatch.setattr(mmd, "permutations", lambda key, n, codebooks: order[:, :codebooks])
    graded = compiled(jax.value_and_grad(lambda x, active: GUARDED[name](x, files, active=active)))
    for active in (2, 3, 4):
        alone = compiled(jax.value_and_grad(lambda x: GUARDED[name](x, files)))
        expected, gradient = alone(x[:, :active])
        assert abs(expected) > 1e-4
        strange = x.copy()
        strange[:, active:] = np.nan  # what is dropped may be anything
        for rows in (x, strange):
            value, whole = graded(rows, active)
            np.testing.assert_allclose(value, expected, rtol=1e-10)
            np.testing.assert_allclose(whole[:, :active], gradient, rtol=1e-8, atol=1e-12)
            assert not np.any(whole[:, active:])
    for active in (0, 1):
        value, gradient = graded(x, active)
        assert value == 0 and not np.any(gradient)


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
