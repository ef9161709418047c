"""Use of codebooks."""

import numpy as np

from indep_jax.dependence.codes import codebook_usage, perplexity


def test_usage():
    codes = [np.array([[0, 0], [1, 0]]), np.array([[2, 0], [3, 0]])]
    found = codebook_usage(codes, (8, 2))
    np.testing.assert_allclose(found.entropy_bits, [2, 0])
    np.testing.assert_allclose(found.perplexity, [4, 1])
    np.testing.assert_allclose(found.share_used, [0.5, 0.5])
    np.testing.assert_allclose(perplexity([[1, 1, 0], [5, 0, 0], [0, 0, 0]]), [2, 1, 1])
