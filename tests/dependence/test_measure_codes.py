"""Measuring all of a tokenizer's dependence."""

import numpy as np
from support.report_cases import codes

from indep_jax.dependence import measure_codes


def test_a_collapsed_codebook_is_no_merit():
    independent = codes(4, files=40, copy=0.0)
    collapsed = [file * np.array([1, 0, 0]) for file in independent]
    assert measure_codes("good", independent, (8, 8, 8)).warnings == ()
    (warning,) = measure_codes("bad", collapsed, (8, 8, 8)).warnings
    assert warning.startswith("bad: perplexity under a quarter of the size of codebook 2, 3.")
