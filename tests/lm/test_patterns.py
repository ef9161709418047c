import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indep_jax.lm import patterns

sizes = st.tuples(st.integers(1, 9), st.integers(1, 5))  # frames, codebooks


@st.composite
def any_schedule(draw):
    """One of the patterns, or none of them: each codebook's frames in any order, with gaps."""
    frames, codebooks = draw(sizes)
    kind = draw(st.sampled_from(["delays", "scattered", *patterns.PATTERNS]))
    if kind == "delays":
        kind = draw(st.lists(st.integers(0, 6), min_size=codebooks, max_size=codebooks))
    if kind == "scattered":
        places = st.permutations([*range(frames), -1, -1])
        columns = [draw(places) for _ in range(codebooks)]
        return np.array(columns, np.int32).T
    return patterns.schedule(kind, frames, 2 * codebooks if kind == "stereo_delay" else codebooks)


def steps_by_hand(pattern, frames, codebooks):
    """For each step, the set of (frame, codebook) it emits, one code at a time."""
    if pattern == "flattened":
        return [{(t, k)} for t in range(frames) for k in range(codebooks)]
    if pattern == "coarse_first":
        fine = [{(t, k) for k in range(1, codebooks)} for t in range(frames)]
        return [{(t, 0)} for t in range(frames)] + (fine if codebooks > 1 else [])
    delays = dict(
        parallel=[0] * codebooks,
        delay=list(range(codebooks)),
        stereo_delay=[k // 2 for k in range(codebooks)],
    )
    delays = delays[pattern] if isinstance(pattern, str) else pattern
    steps = [set() for _ in range(frames + max(delays))]
    for t in range(frames):
        for k in range(codebooks):
            steps[t + delays[k]].add((t, k))
    return steps


def emitted(schedule):
    return [{(t, k) for k, t in enumerate(row) if t >= 0} for row in schedule.tolist()]


@settings(deadline=None)
@given(sizes, st.data())
def test_schedules_are_what_they_say(size, data):
    frames, codebooks = size
    delays = st.lists(st.integers(0, 6), min_size=codebooks, max_size=codebooks)
    pattern = data.draw(st.sampled_from(sorted(patterns.PATTERNS)) | delays)
    codebooks *= 2 if pattern == "stereo_delay" else 1
    schedule = patterns.schedule(pattern, frames, codebooks)
    assert schedule.dtype == np.int32
    assert emitted(schedule) == steps_by_hand(pattern, frames, codebooks)


def test_delay_is_the_figure_of_the_paper():
    expected = [[0, -1, -1], [1, 0, -1], [2, 1, 0], [3, 2, 1], [-1, 3, 2], [-1, -1, 3]]
    np.testing.assert_array_equal(patterns.delay(4, 3), expected)


@settings(deadline=None)
@given(any_schedule(), st.integers(0, 2**32 - 1))
def test_build_places_each_code_and_revert_undoes_it(schedule, seed):
    frames, codebooks, special = int(schedule.max()) + 1, schedule.shape[1], 77
    codes = np.random.default_rng(seed).integers(0, 50, (2, frames, codebooks))
    tokens, mask = patterns.build(codes, schedule, special)
    for s, row in enumerate(schedule.tolist()):
        for k, t in enumerate(row):
            assert mask[s, k] == (t >= 0)
            np.testing.assert_array_equal(tokens[:, s, k], codes[:, t, k] if t >= 0 else special)
    back, emitted_mask = patterns.revert(tokens, schedule)
    assert emitted_mask.all()
    np.testing.assert_array_equal(back, codes)


@settings(deadline=None)
@given(any_schedule(), st.data())
def test_what_a_cut_schedule_emits_reverts_and_the_rest_is_marked(schedule, data):
    schedule = schedule[: data.draw(st.integers(1, len(schedule)))]
    if schedule.max() < 0:
        return
    frames, codebooks = int(schedule.max()) + 1, schedule.shape[1]
    codes = 1 + np.arange(frames * codebooks).reshape(1, frames, codebooks)
    back, mask = patterns.revert(patterns.build(codes, schedule, 0)[0], schedule)
    kept = set().union(*emitted(schedule))
    for t in range(frames):
        for k in range(codebooks):
            assert mask[t, k] == ((t, k) in kept)
            assert back[0, t, k] == (codes[0, t, k] if (t, k) in kept else 0)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: patterns.schedule("zigzag", 4, 2), "pattern 'zigzag': expected delays, or one of"),
        (lambda: patterns.schedule("delay", 0, 2), "frames: expected at least 1, not 0"),
        (lambda: patterns.schedule([0, -1], 4, 2), r"delays \[0, -1\]: expected 2 integers"),
        (lambda: patterns.schedule([0, 0.5], 4, 2), "expected 2 integers"),
        (lambda: patterns.schedule([0], 4, 2), "expected 2 integers"),
        (lambda: patterns.schedule("stereo_delay", 4, 3), "an even number of codebooks, not 3"),
        (lambda: patterns.inverse(np.array([[0], [0]])), "a code is emitted twice"),
        (
            lambda: patterns.build(np.zeros((1, 3, 2), int), patterns.parallel(4, 2), 9),
            r"codes: expected 4 frames of 2 codebooks, not \[3, 2\]",
        ),
    ],
)
def test_what_does_not_fit_is_said(call, said):
    with pytest.raises(ValueError, match=said):
        call()
