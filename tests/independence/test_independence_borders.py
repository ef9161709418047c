"""Independence losses: invariances, streams and bandwidths, and what must not break them."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from support.independence_cases import compiled, covariance, dependent_rows, dhsic, permutation_mmd

from indep_jax import independence
from indep_jax.independence import hsic

SETTINGS = dict(max_examples=10, deadline=None, derandomize=True)  # deadlines count compilation
# dHSIC of rows as they are, a row with itself left out or not.
apart = compiled(lambda x, a: hsic.statistic(x, a, jnp.arange(len(x))))
together = compiled(lambda x, a: hsic.statistic(x, a, None))


@hypothesis.settings(**SETTINGS)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_invariances(seed):
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
        a = np.array([[1.0] * 4, [6.0] * 4])
        for statistic in (apart, together):
            value = statistic(x, a)
            for what, other in changed.items():
                np.testing.assert_allclose(statistic(other, a), value, rtol=1e-8, err_msg=what)
            np.testing.assert_allclose(statistic(2 * x, 4 * a), value, rtol=1e-8)
        stretched = x * np.exp(rng.normal(size=(4, 3))) + rng.normal(size=(4, 3))
        for loss in (dhsic, covariance):
            for what in ("rows", "codebooks"):
                np.testing.assert_allclose(loss(changed[what]), loss(x), rtol=1e-8, err_msg=what)
            np.testing.assert_allclose(loss(stretched), loss(x), rtol=1e-4)


@hypothesis.settings(**SETTINGS)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_files_left_out_do_not_depend_on_their_names_and_order(seed):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        x, files = dependent_rows(seed, n=40, codebooks=4, dim=3), rng.integers(0, 6, 40)
        order, names = rng.permutation(40), rng.permutation(100)[:6]
        for loss in (dhsic, covariance):
            np.testing.assert_allclose(
                loss(x[order], segments=names[files[order]]), loss(x, segments=files), rtol=1e-8
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
        "expected 1 <= past < 4": lambda: independence.condition(x, past=4),
        "knows no segments": lambda: permutation_mmd(
            jax.random.key(0), x, published=True, segments=np.arange(5)
        ),
        "needs batch": lambda: permutation_mmd(jax.random.key(0), x[0], published=True),
        "at least 2": lambda: covariance(x[:, :, :1]),
    }.items():
        with pytest.raises(ValueError, match=text):
            call()


def test_memory_is_not_quadratic():
    def temporary(n):
        x = jax.ShapeDtypeStruct((n, 4, 8), jnp.float32)
        loss = lambda x: independence.dhsic(x, block=128)
        compiled = jax.jit(jax.value_and_grad(loss)).lower(x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, large = temporary(1024), temporary(8192)
    assert large - small < 8192 * 8192  # bytes; one n x n array would be four times that
