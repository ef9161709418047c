"""A test of independence of a tokenizer's codebooks: dHSIC, files permuted.

The codebooks of a file are autocorrelated over its frames, so frames are not independent draws, and
a test that shuffles them rejects nearly always. Files are independent draws: if the codebooks are
independent, setting one codebook's files against other files of the others changes nothing in
distribution, and the share of such arrangements with a dHSIC as large as the real one is an exact
p-value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indep_jax.dependence.codes import check_codes, files_or_blocks
from indep_jax.support.errors import UserError


@dataclass(frozen=True)
class PermutationTest:
    """Result of a test of independence.

    p_value: of independence of all codebooks; at least 1 / (1 + permutations).

    dhsic: of the codes as they are; permuted_dhsic: its mean over permutations.
    files, rows: that were used. warnings: sentences a reader of the numbers has to know.
    """

    p_value: float
    dhsic: float
    permuted_dhsic: float
    permutations: int
    files: int
    rows: int
    warnings: tuple[str, ...]


def test_independence(
    codes: Sequence[np.ndarray],
    vectors: Sequence[np.ndarray] | None = None,
    *,
    permutations: int = 499,
    rows: int = 512,
    seed: int = 0,
) -> PermutationTest:
    """Test whether the codebooks are independent, by dHSIC of their vectors.

    codes: one integer array [frames, codebooks] per source file. vectors: [size, dim] of each
    codebook; by default any two codes are equally far apart, which asks nothing of the tokenizer.

    At most `rows` frames, equally many of each file and evenly spaced in it. Gaussian kernels of
    the median squared distance, pairs of one file left out. Exact: rejects at level a in a share of
    at most a of the cases where the codebooks are independent and files are alike. Where one file
    holds most frames, blocks stand in for files, and `warnings` says so: neighbouring blocks
    resemble each other, and small p-values are then too small. Cost: O(permutations codebooks
    rows^2). Raises UserError for codes of another form, or too few.
    """
    files, sizes = check_codes(codes)
    if len(sizes) < 2:
        raise UserError("codes: expected at least 2 codebooks, found 1")
    files, warnings = files_or_blocks(files)
    if len(files) < 3:
        raise UserError(f"codes: {len(files)} files are too few to permute")
    rng = np.random.default_rng(seed)
    files = [files[f] for f in rng.permutation(len(files))[:rows]]
    each = max(1, rows // len(files))
    places = (np.arange(each) + 0.5) / each  # shares of a file's length
    codes_NxK = np.concatenate([file[(places * len(file)).astype(int)] for file in files])
    ids = np.repeat(np.arange(len(files)), each)
    apart = ids[:, None] != ids[None, :]
    kernels = [
        _kernel(codes_NxK[:, k], None if vectors is None else vectors[k], apart)
        for k in range(len(sizes))
    ]
    row_means = [kernel.sum(1) / apart.sum(1) for kernel in kernels]
    product_of_means = np.prod([row.mean() for row in row_means])

    def statistic(orders):
        """Return dHSIC with the files of each codebook in an order of their own."""
        joint, crossed = 1.0, 1.0
        for kernel, row_mean, order in zip(kernels, row_means, orders):
            at = (order[:, None] * each + np.arange(each)).ravel()
            joint, crossed = joint * kernel[np.ix_(at, at)], crossed * row_mean[at]
        return joint.sum() / apart.sum() + product_of_means - 2 * crossed.mean()

    same = np.arange(len(files))
    value = statistic([same] * len(sizes))
    null = np.array(
        [
            statistic([same] + [rng.permutation(same) for _ in sizes[1:]])
            for _ in range(permutations)
        ]
    )
    reached = np.sum(null >= value - 1e-12)  # an arrangement like the real one ties with it
    return PermutationTest(
        p_value=float((1 + reached) / (1 + permutations)),
        dhsic=float(value),
        permuted_dhsic=float(null.mean()),
        permutations=permutations,
        files=len(files),
        rows=len(codes_NxK),
        warnings=tuple(warnings),
    )


def _kernel(codes_N, vectors_SxD, apart):
    """Return the Gaussian kernel [n, n] of the codes' vectors, 0 for pairs that are left out."""
    if vectors_SxD is None:
        squares = (codes_N[:, None] != codes_N[None, :]).astype(np.float64)
    else:
        x = np.asarray(vectors_SxD, np.float64)[codes_N]
        x = x - x.mean(0)
        norms = np.sum(x**2, axis=1)
        squares = np.maximum(norms[:, None] + norms[None, :] - 2 * x @ x.T, 0)
    median, mean = np.median(squares[apart]), squares[apart].mean()
    scale = median if median > 1e-3 * mean else mean
    return np.where(apart, np.exp(-squares / (2 * max(scale, 1e-12))), 0)
