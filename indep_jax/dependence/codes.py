"""Codes of a tokenizer, one integer array [frames, codebooks] per source file: checks, and their use."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indep_jax.support.errors import UserError

BLOCKS = 20  # that stand in for files where there are not enough of them


@dataclass(frozen=True)
class Usage:
    """Use of each codebook, float [codebooks].

    entropy_bits: of the histogram. perplexity: two to that, the codebook's size if used evenly.
    share_used: codes that occur at all, as a share of the codebook's size.
    """

    entropy_bits: np.ndarray
    perplexity: np.ndarray
    share_used: np.ndarray


def check_codes(
    codes: Sequence[np.ndarray], sizes: Sequence[int] | None = None
) -> tuple[list[np.ndarray], list[int]]:
    """Return the files that have a frame, int64 [frames, codebooks], and the codebooks' sizes.

    sizes: of the codebooks; by default the largest code plus one. Raises UserError for codes of
    another form and for sizes that they do not fit.
    """
    files = [np.asarray(file) for file in codes]
    if not files:
        raise UserError("codes: expected at least one array [frames, codebooks], found none")
    for n, file in enumerate(files):
        if file.ndim != 2 or not np.issubdtype(file.dtype, np.integer):
            raise UserError(
                f"codes[{n}]: expected integers [frames, codebooks], not {file.dtype} "
                f"{list(file.shape)}"
            )
        if file.shape[1] != files[0].shape[1] or file.shape[1] == 0:
            raise UserError(
                f"codes[{n}]: expected {files[0].shape[1] or 'some'} codebooks "
                f"as in the first file, not {file.shape[1]}"
            )
    files = [file.astype(np.int64) for file in files if len(file)]
    if not files:
        raise UserError("codes: all files are empty")
    top = np.max([file.max(0) for file in files], axis=0)
    if min(file.min() for file in files) < 0:
        raise UserError("codes: expected values of at least 0, found a negative one")
    sizes = list(top + 1) if sizes is None else list(sizes)
    if len(sizes) != len(top) or any(top >= sizes):
        raise UserError(f"codes up to {top.tolist()} do not fit codebooks of sizes {sizes}")
    return files, [int(size) for size in sizes]


def files_or_blocks(files: list[np.ndarray]) -> tuple[list[np.ndarray], list[str]]:
    """Return the files and no warning; blocks instead, and a warning, where one file is most of all."""
    if 2 * max(map(len, files)) <= sum(map(len, files)):
        return files, []
    return np.array_split(np.concatenate(files), BLOCKS), [
        f"One of {len(files)} files holds more than half of the frames: {BLOCKS} blocks of "
        "consecutive frames stand in for files. Neighbouring blocks resemble each other, so "
        "intervals are too narrow and dependence may read low."
    ]


def codebook_usage(codes: Sequence[np.ndarray], sizes: Sequence[int] | None = None) -> Usage:
    """Return entropy, perplexity and share of codes used of every codebook; see `check_codes`."""
    files, sizes = check_codes(codes, sizes)
    rows = np.concatenate(files)
    counts = [np.bincount(rows[:, k], minlength=size) for k, size in enumerate(sizes)]
    values = np.array([perplexity(count) for count in counts])
    used = np.array([np.mean(count > 0) for count in counts])
    return Usage(entropy_bits=np.log2(values), perplexity=values, share_used=used)


def perplexity(counts) -> np.ndarray:
    """Return two to the entropy in bits of histograms [..., codes]; 1 for an empty histogram."""
    counts = np.asarray(counts, np.float64)
    totals = counts.sum(-1)
    safe = np.maximum(totals, 1)
    return np.exp2(np.where(totals > 0, np.log2(safe) - n_log_n(counts).sum(-1) / safe, 0))


def n_log_n(counts) -> np.ndarray:
    """Return n log2 n of counts, 0 for 0."""
    return counts * np.log2(np.maximum(counts, 1))
