"""Jackknife intervals over files."""

import numpy as np
from scipy import stats


def jackknife(estimate, without, confidence: float = 0.95) -> np.ndarray:
    """Return a Student interval [..., 2] around `estimate` [...] from its delete-one values [n, ...].

    The variance is (n - 1) / n times the sum of squared deviations of the delete-one values from
    their mean (Efron & Stein 1981), with n - 1 degrees of freedom.
    """
    estimate, without = np.asarray(estimate), np.asarray(without)
    n = without.shape[0]
    variance = (n - 1) / n * np.sum(np.square(without - without.mean(0)), axis=0)
    half = stats.t.ppf(0.5 + confidence / 2, n - 1) * np.sqrt(variance)
    return np.stack([estimate - half, estimate + half], axis=-1)


def change(before, before_without, after, after_without) -> tuple[np.ndarray, np.ndarray]:
    """Return the change between two measurements of the same files [...], and its interval [..., 2].

    before, after: the estimates [...]. before_without, after_without: their delete-one values
    [n, ...]. What the files have in common cancels, so the interval is narrower than those of the
    two estimates suggest.
    """
    value = np.subtract(after, before)
    return value, jackknife(value, np.subtract(after_without, before_without))
