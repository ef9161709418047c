"""The test of independence: its statistic, its level on autocorrelated codes, its power."""

import numpy as np
import pytest

from indep_jax.dependence import markov, permutation_test
from indep_jax.independence import hsic


def test_the_statistic_is_dhsic(x64):
    rng = np.random.default_rng(0)
    codes = markov.Source(3, 3).sample(rng, 6, 40)
    vectors = [rng.normal(size=(3, 2)) for _ in range(3)]
    found = permutation_test.test_independence(codes, vectors, rows=30, permutations=5)
    places = (np.arange(5) + 0.5) / 5 * 40
    rows = np.concatenate([file[places.astype(int)] for file in codes])
    x = np.stack([vectors[k][rows[:, k]] for k in range(3)], axis=1)
    files = np.repeat(np.arange(6), 5)
    apart = files[:, None] != files[None, :]
    squares = np.sum((x[:, None] - x[None]) ** 2, axis=-1)[apart]
    expected = hsic.statistic(x, np.median(squares, axis=0)[None], files)
    assert found.rows == 30 and found.files == 6
    assert found.dhsic == pytest.approx(float(expected), rel=1e-9)


def test_dependence_is_found_and_its_absence_too():
    rng = np.random.default_rng(1)
    dependent = permutation_test.test_independence(markov.Source(3, 4).sample(rng, 20, 100))
    assert dependent.p_value == 1 / 500 and dependent.dhsic > 5 * abs(dependent.permuted_dhsic)
    source = markov.Source(3, 4, copy=0, echo=0, stay=0.98)
    p_values = [
        permutation_test.test_independence(
            source.sample(rng, 12, 60), permutations=99, rows=96
        ).p_value
        for _ in range(60)
    ]
    # 3 of 60 expected at 5%; more than 8 have probability 0.004. Shuffled frames reject half.
    assert sum(p <= 0.05 for p in p_values) <= 8
    assert 0.3 < np.mean(p_values) < 0.7


def test_arrangements_that_are_all_alike_are_no_evidence():
    # Each file one code of its own throughout: any pairing of files looks like any other.
    codes = [np.full((3, 2), [a, b]) for a, b in zip(range(5), (3, 1, 4, 0, 2))]
    found = permutation_test.test_independence(codes, permutations=49, rows=15)
    assert found.p_value == 1 and found.dhsic == pytest.approx(found.permuted_dhsic)


def test_a_single_file_falls_back_to_blocks_and_says_so():
    (codes,) = markov.Source(2, 3).sample(np.random.default_rng(2), 1, 2000)
    found = permutation_test.test_independence([codes], permutations=99)
    assert "blocks" in found.warnings[0] and found.p_value == 0.01
    with pytest.raises(ValueError, match="2 files are too few"):
        permutation_test.test_independence([codes, codes])
