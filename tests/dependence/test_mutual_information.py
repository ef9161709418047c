"""Mutual information from codes: known truths, and brute force for what is computed cleverly."""

import numpy as np
import pytest

from indep_jax.dependence import intervals, mutual_information
from indep_jax.dependence.codes import BLOCKS


def held(rng, shape, size, stay):
    """Codes [frames, codebooks] that stay as they are with probability `stay`."""
    frames = np.arange(shape[0])[:, None]
    changed = rng.random(shape) >= stay
    since = np.maximum.accumulate(np.where(changed, frames, 0), axis=0)
    return np.take_along_axis(rng.integers(0, size, shape), since, axis=0)


def coupled(rng, files, frames, size, copy, stay=0.0):
    """Two codebooks, the second a copy of the first in a share of the frames."""
    made = []
    for _ in range(files):
        codes = held(rng, (frames, 2), size, stay)
        codes[:, 1] = np.where(rng.random(frames) < copy, codes[:, 0], codes[:, 1])
        made.append(codes)
    return made


def coupled_bits(size, copy):
    """Mutual information of two such codes."""
    joint = np.full((size, size), (1 - copy) / size**2) + np.eye(size) * copy / size
    return np.sum(joint * np.log2(joint * size**2))


def plug_in(x, y):
    """Mutual information of a histogram, in bits, as the textbook says it."""
    joint = np.zeros((x.max() + 1, y.max() + 1))
    np.add.at(joint, (x, y), 1)
    joint /= joint.sum()
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    used = joint > 0
    return np.sum(joint[used] * np.log2(joint[used] / product[used]))


@pytest.mark.parametrize("copy, stay", [(0.0, 0.0), (0.2, 0.0), (0.5, 0.0), (0.3, 0.8)])
def test_intervals_cover_the_truth(copy, stay):
    truth = coupled_bits(8, copy)
    covered = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        found = mutual_information.estimate(coupled(rng, 40, 160, 8, copy, stay))
        assert found.warnings == ()
        low, high = found.interval_bits[0, 0]
        covered += low <= truth <= high
    assert covered >= 25  # of 28.5 expected; fewer has probability 0.003


def test_independent_but_autocorrelated_codes_read_zero():
    codes = [held(np.random.default_rng(s), (600, 3), 64, 0.95) for s in range(30)]
    found = mutual_information.estimate(codes, lags=(0, "delay"))
    assert (found.plug_in_bits > 1).all()
    assert (np.abs(found.bits) < 0.1).all()
    assert (found.mean_interval_bits[:, 0] < 0).all() and (found.mean_interval_bits[:, 1] > 0).all()
    # Frame shuffling, the usual correction, is fooled by the same codes.
    rows = np.concatenate(codes)
    shuffled = np.random.default_rng(0).permutation(rows[:, 1])
    assert found.plug_in_bits[0, 0] - plug_in(rows[:, 0], shuffled) > 0.3


@pytest.mark.parametrize("lag", [0, 2, -1])
def test_plug_in_is_the_textbook_value_at_each_lag(lag):
    codes = coupled(np.random.default_rng(1), 6, 50, 5, 0.5)
    x = np.concatenate([c[max(lag, 0) : 50 + min(lag, 0), 0] for c in codes])
    y = np.concatenate([c[max(-lag, 0) : 50 - max(lag, 0), 1] for c in codes])
    found = mutual_information.estimate(codes, lags=(lag,))
    assert found.plug_in_bits[0, 0] == pytest.approx(plug_in(x, y), abs=1e-12)


def test_lags_find_the_shift():
    rng = np.random.default_rng(2)
    codes = []
    for _ in range(12):
        first = rng.integers(0, 6, 302)
        # Codebook k at frame t - k is the first codebook at frame t: what the delay pattern aligns.
        codes.append(np.stack([first[:300], first[1:301], first[2:302]], axis=1))
    found = mutual_information.estimate(codes, lags=(-1, 0, 1, 2, "delay"))
    truth = np.log2(6)
    assert found.pairs == ((0, 1), (0, 2), (1, 2))
    expected = np.zeros((5, 3))
    expected[2] = truth, 0, truth
    expected[3] = 0, truth, 0
    expected[4] = truth
    np.testing.assert_allclose(found.bits, expected, atol=0.03)
    np.testing.assert_allclose(found.share_of_entropy, expected / truth, atol=0.02)
    np.testing.assert_allclose(found.mean_bits, expected.mean(1), atol=0.02)


def test_relabelling_codes_changes_nothing():
    rng = np.random.default_rng(3)
    codes = coupled(rng, 10, 80, 16, 0.4)
    plain = mutual_information.estimate(codes, sizes=(16, 16))
    names = np.stack([rng.permutation(3000)[:16] for _ in range(2)])
    renamed = [np.stack([names[k][c[:, k]] for k in range(2)], axis=1) for c in codes]
    # Large and sparse tables take another path: they must agree.
    other = mutual_information.estimate(renamed, sizes=(3000, 3000))
    for name in ("bits", "interval_bits", "plug_in_bits", "without_bits"):
        np.testing.assert_allclose(getattr(other, name), getattr(plain, name), atol=1e-12)


@pytest.mark.parametrize("size", [4, 3000])
def test_values_without_a_file_equal_brute_force(size):
    rng = np.random.default_rng(4)
    lengths = [30, 12, 25, 40, 7, 33]
    codes = [coupled(rng, 1, n, size, 0.5)[0] for n in lengths]
    x, y = [c[:, 0] for c in codes], [c[:, 1] for c in codes]
    value, without = mutual_information._plug_in(x, y, size, range(6), 0)
    assert value == pytest.approx(plug_in(np.concatenate(x), np.concatenate(y)), abs=1e-12)
    for f in range(6):
        rest = np.concatenate([c for g, c in enumerate(codes) if g != f])
        assert without[f] == pytest.approx(plug_in(rest[:, 0], rest[:, 1]), abs=1e-12)

    order, rotation = mutual_information._arrangement(x, rng)
    value, without = mutual_information._plug_in(x, y, size, order, rotation)
    # Frame by frame: (file, code) of x on the circle, and of y where rotation brings it.
    left = [(f, code) for f in order for code in x[f]]
    right = [(f, code) for f in order for code in y[f]]
    right = right[-rotation:] + right[:-rotation]
    assert all(a[0] != b[0] for a, b in zip(left, right)), "no frame meets its own file"
    value_of = lambda met: plug_in(*np.array([(a[1], b[1]) for a, b in met]).T)
    assert value == pytest.approx(value_of(list(zip(left, right))), abs=1e-12)
    for f in range(6):
        met = [(a, b) for a, b in zip(left, right) if f not in (a[0], b[0])]
        widowed = [a for a, b in zip(left, right) if b[0] == f]
        orphaned = [b for a, b in zip(left, right) if a[0] == f]
        assert len(widowed) == len(orphaned) == lengths[f]
        met += [(a, b) for a, b in zip(widowed, orphaned) if a[0] != b[0]]
        assert without[f] == pytest.approx(value_of(met), abs=1e-12)


def test_mean_interval_is_that_of_the_mean_of_pairs():
    codes = [held(np.random.default_rng(s), (200, 3), 8, 0.3) for s in range(8)]
    found = mutual_information.estimate(codes)
    expected = intervals.jackknife(found.bits[0].mean(), found.without_bits[0].mean(1))
    np.testing.assert_allclose(found.mean_interval_bits[0], expected)


def test_change_cancels_what_files_share():
    rng = np.random.default_rng(6)
    # Files differ a lot in how dependent they are; the second codec is a little less so in each.
    shares = rng.uniform(0.1, 0.9, 20)
    before = [coupled(rng, 1, 600, 6, share)[0] for share in shares]
    after = [c.copy() for c in before]
    for c in after:
        c[::10, 1] = rng.integers(0, 6, 60)
    first, second = (mutual_information.estimate(codes) for codes in (before, after))
    value, interval = mutual_information.change(first, second)
    assert value[0] == pytest.approx(second.mean_bits[0] - first.mean_bits[0])
    assert interval[0, 1] < 0
    assert np.ptp(interval[0]) < 0.5 * np.ptp(first.mean_interval_bits[0])


def test_a_single_file_falls_back_to_blocks_and_says_so():
    independent = held(np.random.default_rng(7), (20_000, 2), 6, 0.5)
    found = mutual_information.estimate([independent])
    assert "blocks" in found.warnings[0] and found.files == BLOCKS
    assert found.interval_bits[0, 0, 0] < 0 < found.interval_bits[0, 0, 1]
    assert found.frames == 20_000


def test_too_few_frames_for_the_cells_are_told():
    rng = np.random.default_rng(8)
    # 0.24 frames for each of 200 x 200 cells, where 16% are missing in simulation.
    codes = [rng.permuted(np.tile(np.arange(200), (2, 1)), axis=1).T for _ in range(48)]
    found = mutual_information.estimate(codes)
    assert "0.24 frames per cell" in found.warnings[0] and "16% low" in found.warnings[0]
    assert len(found.warnings) == 1
    # Cells count where codes are used: a collapsed codebook has few.
    collapsed = [rng.integers(0, 2, (500, 2)) for _ in range(40)]
    assert mutual_information.estimate(collapsed, sizes=(2048, 2048)).warnings == ()
    found = mutual_information.estimate(collapsed[:39], sizes=(2048, 2048))
    assert found.warnings == (
        "39 files or blocks, under 40: intervals over so few may be too narrow.",
    )


@pytest.mark.parametrize(
    "codes, sizes, named",
    [
        ([], None, "none"),
        ([np.zeros((4, 2))], None, "float64"),
        ([np.zeros(4, int)], None, r"\[4\]"),
        ([np.zeros((4, 2), int), np.zeros((4, 3), int)], None, r"codes\[1\].*3"),
        ([np.zeros((40, 1), int)], None, "at least 2 codebooks"),
        ([np.full((40, 2), -1)], None, "negative"),
        ([np.full((40, 2), 7)], (7, 8), "do not fit"),
        ([np.zeros((0, 2), int)], None, "empty"),
        ([np.zeros((2, 2), int)], None, "too few"),
    ],
)
def test_mistakes_are_named(codes, sizes, named):
    with pytest.raises(ValueError, match=named) as error:
        mutual_information.estimate(codes, sizes=sizes)
    assert "\n" not in str(error.value)
