"""Streams less their prediction from the past."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.independence_cases import compiled, jitted

from indep_jax import independence
from indep_jax.independence import streams

condition = jitted(independence.condition)


def driven(rng, files, frames, codebooks=3, dim=2):
    """Codebooks with nothing in common but one past: each follows the last frame's mean."""
    x = rng.normal(size=(files, frames, codebooks, dim))
    for t in range(1, frames):
        x[:, t] = 0.9 * x[:, t - 1].mean(axis=1, keepdims=True) + 0.3 * x[:, t]
    return x


@pytest.mark.parametrize("past", [1, 2])
def test_condition_is_ridge_regression(x64, past):
    x = driven(np.random.default_rng(0), 5, 9)
    flat = x.reshape(5, 9, 6)
    target = np.concatenate([file[past:] for file in flat])
    before = np.array([file[t - past : t][::-1].ravel() for file in flat for t in range(past, 9)])
    target, before = target - target.mean(0), before - before.mean(0)
    penalty = streams.RIDGE * np.sum(before**2) / before.shape[1]
    # The textbook's other form: rows of the root of the penalty, with targets of zero.
    width = before.shape[1]
    rows = np.concatenate([before, np.sqrt(penalty) * np.eye(width)])
    weights = np.linalg.lstsq(rows, np.concatenate([target, np.zeros((width, 6))]))[0]
    expected = (target - before @ weights).reshape(5, 9 - past, 3, 2)
    found = condition(x, past=past)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_what_only_the_past_explains_is_gone():
    x = jnp.asarray(driven(np.random.default_rng(1), 32, 17), jnp.float32)
    loss = compiled(lambda x: independence.dhsic(x, bandwidths="paper"))
    raw, conditioned = loss(x[:, 1:]), loss(condition(x))
    assert raw > 0.02
    assert abs(conditioned) < 0.1 * raw  # what 512 rows leave of sampling noise


def test_after_alignment_the_past_is_what_was_emitted_before(x64, monkeypatch):
    monkeypatch.setattr(streams, "RIDGE", 1e-6)  # so that a prediction is all but exact
    # Codebook 1 at frame t repeats codebook 0 at frame t: emitted a step before it, with delay.
    rng = np.random.default_rng(2)
    x = rng.normal(size=(6, 12, 2, 1))
    x[:, :, 1] = x[:, :, 0]
    left = {
        pattern: independence.condition(independence.align(x, pattern))
        for pattern in ("parallel", "delay")
    }
    assert np.abs(left["delay"][:, :, 1]).max() < 1e-4
    np.testing.assert_allclose(left["parallel"][:, :, 0], left["parallel"][:, :, 1], atol=1e-6)
    assert np.std(left["parallel"]) > 0.5


def test_gradient_through_the_fit_equals_finite_differences(x64):
    x = driven(np.random.default_rng(3), 3, 8)
    loss = lambda x: independence.dhsic(independence.condition(x), bandwidths=(1.0, 4.0))
    graded = compiled(jax.value_and_grad(loss))
    gradient = graded(x)[1]
    rng = np.random.default_rng(4)
    for _ in range(4):
        step = 1e-5 * rng.normal(size=x.shape)
        numeric = graded(x + step)[0] - graded(x - step)[0]
        np.testing.assert_allclose(2 * np.vdot(gradient, step), numeric, rtol=1e-5)


def test_constant_streams_leave_nothing():
    loss = compiled(jax.value_and_grad(lambda x: jnp.sum(independence.condition(x) ** 2)))
    value, gradient = loss(jnp.full((3, 5, 2, 2), 1.7))
    assert value < 1e-12 and np.abs(gradient).max() < 1e-6  # the rounding of a mean
