"""Jackknife intervals: known cases."""

import numpy as np

from indep_jax.dependence import intervals


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(5).normal(size=25)
    without = (values.sum() - values) / 24
    low, high = intervals.jackknife(values.mean(), without)
    half = 2.0639 * values.std(ddof=1) / 5  # Student's 97.5% point, 24 degrees of freedom
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], rtol=1e-4)
