"""Total correlation given the past: a source whose entropies are known, and a model that looks only
where it may."""

import dataclasses

import jax
import numpy as np
import pytest

from indep_jax.dependence import markov, mutual_information, total_correlation

SMALL = dict(shares=(1.0,), width=32, context=4)


def test_the_source_is_what_it_says():
    source = markov.Source(2, 3, copy=0.5, echo=0.3, stay=0.4)
    (codes,) = source.sample(np.random.default_rng(0), 1, 200_000)
    states = codes @ [3, 1]
    pairs = np.zeros((9, 9))
    np.add.at(pairs, (states[:-1], states[1:]), 1)
    np.testing.assert_allclose(pairs / pairs.sum(1, keepdims=True), source.transition, atol=0.015)
    np.testing.assert_allclose(pairs.sum(1) / pairs.sum(), source.stationary, atol=0.01)
    for lag in (-1, 0, 2):
        found = mutual_information.estimate(np.array_split(codes, 40), lags=(lag,)).bits[0, 0]
        assert source.mutual_information_bits(0, 1, lag) == pytest.approx(found, abs=0.01)


def test_what_each_pattern_cannot_know_of_the_source():
    both = markov.Source(3, 3)
    for pattern in ("parallel", "delay"):
        assert both.conditional_bits(pattern) > 0.1
        assert both.joint_bits <= both.factorised_bits(pattern) <= 3 * np.log2(3)
        free = markov.Source(3, 3, copy=0, echo=0)
        assert abs(free.conditional_bits(pattern)) < 1e-9 and abs(free.total_bits(pattern)) < 1e-9
    # The delay pattern emits the code that is copied a step before its copy.
    assert abs(markov.Source(3, 3, echo=0).conditional_bits("delay")) < 1e-9
    assert markov.Source(3, 3, echo=0).conditional_bits("parallel") > 0.1
    # The parallel pattern knows all that came before.
    assert abs(markov.Source(3, 3, copy=0).conditional_bits("parallel")) < 1e-9
    assert markov.Source(3, 3, copy=0).conditional_bits("delay") > 0.1


def test_known_total_correlation_is_found():
    """For the delay pattern; check_estimates.py does it for both, with more seeds."""
    pattern, source = "delay", markov.Source(2, 3)
    codes = source.sample(np.random.default_rng(0), 50, 2000)
    (found,) = total_correlation.estimate(codes, pattern=pattern, **SMALL)
    assert found.held_out_files == 10 and found.pattern == pattern
    assert found.conditional_bits == pytest.approx(source.conditional_bits(pattern), abs=0.02)
    # 20,000 held-out frames have a total correlation of their own, 0.01 bits from the source's.
    assert found.total_bits == pytest.approx(source.total_bits(pattern), abs=0.03)
    assert found.joint_bits == pytest.approx(source.joint_bits, abs=0.05)
    low, high = found.conditional_interval_bits
    assert low < found.conditional_bits < high and high - low < 0.1

    # What two measurements have in common is not in the interval of their change.
    more = dataclasses.replace(
        found, conditional_bits=found.conditional_bits + 0.1, without_bits=found.without_bits + 0.1
    )
    value, interval = total_correlation.change(found, more)
    np.testing.assert_allclose([value, *interval], 0.1, rtol=1e-12)
    other = dataclasses.replace(found, without_bits=found.without_bits[::-1])
    value, (low, high) = total_correlation.change(found, other)
    assert value == 0 and low < 0 < high
    with pytest.raises(ValueError, match="the same files"):
        total_correlation.change(found, dataclasses.replace(found, pattern="parallel"))


def test_independent_but_autocorrelated_codes_read_zero():
    codes = markov.Source(2, 3, copy=0, echo=0, stay=0.9).sample(np.random.default_rng(1), 20, 1000)
    small, whole = total_correlation.estimate(codes, **{**SMALL, "shares": (0.25, 1.0)})
    assert small.training_frames == 4000 and whole.training_frames == 16_000
    assert abs(whole.conditional_bits) < 0.02 and abs(whole.total_bits) < 0.02
    assert abs(whole.conditional_bits) <= abs(small.conditional_bits) + 0.01


def test_each_head_sees_what_it_may():
    model = total_correlation.Predictor(3, 5, 8, 4)
    codes = np.random.default_rng(0).integers(0, 5, (1, 4 + 12, 3))
    params = model.init(jax.random.key(0), codes)
    # At the start a head without the past says the same of any code: give it preferences.
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(1), p.shape), params)
    nats = jax.jit(lambda codes: model.apply(params, codes)[:, 0])
    before = nats(codes)
    at, k = 5, 1  # of the predicted frames
    other = codes.copy()
    other[0, 4 + at, k] = (other[0, 4 + at, k] + 2) % 5
    changed = np.asarray(before != nats(other))
    own = np.zeros((12, 3), bool)
    own[at, k] = True
    later_codebooks = np.zeros((12, 3), bool)
    later_codebooks[at, k + 1 :] = True
    later_frames = np.zeros((12, 3), bool)
    later_frames[at + 1 : at + 1 + 4] = True
    np.testing.assert_array_equal(changed[0], own)
    np.testing.assert_array_equal(changed[1], own | later_codebooks)
    np.testing.assert_array_equal(changed[2], own | later_frames)
    np.testing.assert_array_equal(changed[3], own | later_codebooks | later_frames)


def test_windows_hold_every_frame_with_its_past():
    model = total_correlation.Predictor(2, 100, 8, 4)
    files = [np.stack([np.arange(n) + 10 * n, np.arange(n)], axis=1) for n in (3, 7, 5)]
    windows = total_correlation._Windows(files, model, 3)
    seen = []
    for tile, f in zip(windows.tiles, windows.file_of_tile):
        (codes,), (weights,) = windows.read(np.array([tile]))
        for t in np.flatnonzero(weights):
            frame = codes[4 + t, 1]
            np.testing.assert_array_equal(codes[4 + t], files[f][frame])
            seen.append((f, frame))
            for lag in range(1, 5):
                past = codes[4 + t - lag]
                expected = files[f][frame - lag] if frame >= lag else [100, 100]
                np.testing.assert_array_equal(past, expected)
    assert sorted(seen) == [(f, t) for f, n in enumerate((3, 7, 5)) for t in range(n)]
    _, weights = windows.read(np.arange(windows.starts))
    assert weights.sum() == 3 * (3 + 7 + 5)  # in training every frame comes up as often


@pytest.mark.parametrize(
    "codes, named",
    [
        ([np.zeros((9, 2), int)] * 2, "2 files"),
        ([np.zeros((9, 1), int)] * 5, "1 codebooks"),
        ([np.zeros((2, 3), int)] * 9, "0 files of more than 2 frames"),
    ],
)
def test_mistakes_are_named(codes, named):
    with pytest.raises(ValueError, match=named) as error:
        total_correlation.estimate(codes, pattern="delay")
    assert "\n" not in str(error.value)
