"""The Fréchet distance of two sets of embeddings of music (Kilgour et al. 2019, FAD)."""

import chex
import numpy as np


def distance(first_NxD: np.ndarray, second_MxD: np.ndarray) -> float:
    """Return |mean - mean|^2 + trace(C + C' - 2 (C C')^(1/2)) of embeddings, at least 2 in each set.

    This is the square of the 2-Wasserstein distance between normal distributions with their means
    and covariances (Dowson and Landau 1982). It is too large for sets that do not have many times
    more embeddings than these have dimensions (Chong and Forsyth 2020).
    """
    chex.assert_rank([first_NxD, second_MxD], 2)
    chex.assert_equal_shape_suffix([first_NxD, second_MxD], 1)
    first, second = (np.asarray(x, np.float64) for x in (first_NxD, second_MxD))
    # Of roots C = A'A and C' = B'B the trace of (C C')^(1/2) is the sum of the singular values of
    # A B', which, unlike a matrix's square root, is as exact for covariances without full rank.
    roots = [
        np.linalg.qr((x - x.mean(axis=0)) / np.sqrt(len(x) - 1), mode="r") for x in (first, second)
    ]
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    spread = sum(np.square(root).sum() for root in roots)
    return float(np.square(first.mean(axis=0) - second.mean(axis=0)).sum() + spread - 2 * shared)
