"""Mutual information between the codebooks of a tokenizer, estimated from codes.

A plug-in estimate (the mutual information of the histogram) is far too high when there are few
frames for its cells: 3 to 5 bits for INDEPENDENT codebooks of 2048 codes and 1e5 frames. So its mean
under independence is subtracted. That mean keeps what else shapes the histogram, the use of the codes
and their autocorrelation within a file: whole files of one codebook are set against other files of
the other codebook. Everything here runs on the host, in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indep_jax.dependence import intervals
from indep_jax.dependence.codes import check_codes, codebook_usage, files_or_blocks, n_log_n
from indep_jax.support import progress
from indep_jax.support.errors import UserError

FRAMES_PER_CELL = 100  # below this the estimate is known to be low, see `estimate`
# The missing share by frames per cell, for 2048 codes with 0.227 bits in truth (simulated once).
READS_LOW = {0.024: 0.54, 0.24: 0.16, 2.4: 0.01}
FILES = 40  # below this the intervals are known to be too narrow at times


@dataclass(frozen=True)
class MutualInformation:
    """Corrected mutual information of pairs of codebooks, with 95% intervals over files.

    lags: as asked for. pairs: (i, j), i < j. L lags, P pairs, F files below.
    bits [L, P]: plug-in less its mean under independence; about zero, of either sign, for
        independent codebooks.
    interval_bits [L, P, 2]: delete-one-file jackknife interval.
    plug_in_bits, independent_bits [L, P]: the two terms of `bits`.
    share_of_entropy [L, P]: bits over the smaller of the two codebooks' entropies.
    mean_bits [L], mean_interval_bits [L, 2]: of the mean over pairs.
    without_bits [L, F, P]: `bits` without each file in turn, for intervals of other functions.
    frames: used at lag 0. files: that the intervals are over.
    warnings: sentences a reader of the numbers has to know.
    """

    lags: tuple[int | str, ...]
    pairs: tuple[tuple[int, int], ...]
    bits: np.ndarray
    interval_bits: np.ndarray
    plug_in_bits: np.ndarray
    independent_bits: np.ndarray
    share_of_entropy: np.ndarray
    mean_bits: np.ndarray
    mean_interval_bits: np.ndarray
    without_bits: np.ndarray
    frames: int
    files: int
    warnings: tuple[str, ...]


def estimate(
    codes: Sequence[np.ndarray],
    *,
    sizes: Sequence[int] | None = None,
    lags: Sequence[int | str] = (0,),
    permutations: int = 8,
    seed: int = 0,
    show_progress: bool = False,
) -> MutualInformation:
    """Estimate the mutual information in bits between codebooks, corrected for its bias.

    codes: one integer array [frames, codebooks] per source file. sizes: of the codebooks; by
    default the largest code plus one. lags: a lag of l sets codebook i at frame t against codebook
    j > i at frame t - l of the same file; "delay" is l = j - i, what a language model with the
    delay pattern predicts in one step.

    Statistic: the plug-in estimate less its mean over `permutations` random arrangements in which
    no frame meets its own file: files joined end to end in random order on a circle, one codebook
    rotated against the other by at least the longest file. Cost: O(frames log frames) for each
    pair, lag and arrangement, jackknife included; memory O(frames).

    Bias: about zero for independent codebooks, whatever their autocorrelation. For dependent ones
    downwards while frames are few for the cells of the pair's table (2048 codes, 0.227 bits in
    truth: 0.105 with 0.024 frames per cell, 0.191 with 0.24, 0.225 with 2.4); under 100 frames
    per cell `warnings` says how much to expect. With fewer than 40 files it says that too.

    Where one file holds half of the frames or more (a single file, say), equal blocks of the files
    stand in for files and `warnings` says so. Raises UserError for codes or sizes of another form.
    """
    files, sizes = check_codes(codes, sizes)
    codebooks = len(sizes)
    if codebooks < 2:
        raise UserError("codes: expected at least 2 codebooks, found 1")
    pairs = tuple((i, j) for i in range(codebooks) for j in range(i + 1, codebooks))
    shifts = [[_lag(lag, pair) for pair in pairs] for lag in lags]
    longest_lag = max(abs(shift) for row in shifts for shift in row)
    frames = sum(map(len, files))
    files, warnings = files_or_blocks(files)
    kept = [file for file in files if len(file) > longest_lag]
    if len(kept) < len(files):
        warnings.append(
            f"{len(files) - len(kept)} of {len(files)} files or blocks are not longer than the "
            f"largest lag of {longest_lag} frames and were left out."
        )
    if len(kept) < 3 or 2 * max(map(len, kept)) > sum(map(len, kept)):
        raise UserError(
            f"codes: {frames} frames in {len(codes)} files are too few "
            f"for lags up to {longest_lag} frames"
        )
    used = [len(np.unique(np.concatenate([file[:, k] for file in kept]))) for k in range(codebooks)]
    per_cell = frames / max(used[i] * used[j] for i, j in pairs)
    if per_cell < FRAMES_PER_CELL:
        warnings.append(
            f"{per_cell:.2g} frames per cell of the largest pair's table, under "
            f"{FRAMES_PER_CELL}: mutual information is expected to read about "
            f"{_reads_low(per_cell):.0%} low (as 2048 codes with 0.227 bits did in simulation, "
            "down to 0.024 frames per cell). Compare only codecs measured on the same music."
        )
    if len(kept) < FILES:
        warnings.append(
            f"{len(kept)} files or blocks, under {FILES}: intervals over so few may be too narrow."
        )

    shape = (len(lags), len(pairs))
    plug_in, independent = np.zeros(shape), np.zeros(shape)
    without = np.zeros((len(lags), len(kept), len(pairs)))
    cells = progress.each(
        list(np.ndindex(shape)), "mutual information", unit="pairs", show=show_progress
    )
    for index in cells:
        (i, j), shift = pairs[index[1]], shifts[index[0]][index[1]]
        x = [file[max(shift, 0) : len(file) + min(shift, 0), i] for file in kept]
        y = [file[max(-shift, 0) : len(file) - max(shift, 0), j] for file in kept]
        value, value_without = _plug_in(x, y, sizes[j], range(len(kept)), 0)
        nulls = [
            _plug_in(x, y, sizes[j], *_arrangement(x, np.random.default_rng((seed, p))))
            for p in range(permutations)
        ]
        plug_in[index] = value
        independent[index] = np.mean([null for null, _ in nulls])
        null_without = np.mean([null for _, null in nulls], axis=0)
        without[index[0], :, index[1]] = value_without - null_without
    bits = plug_in - independent
    entropy = codebook_usage(kept, sizes).entropy_bits
    smaller = np.array([min(entropy[i], entropy[j]) for i, j in pairs])
    return MutualInformation(
        lags=tuple(lags),
        pairs=pairs,
        bits=bits,
        interval_bits=intervals.jackknife(bits, without.swapaxes(0, 1)),
        plug_in_bits=plug_in,
        independent_bits=independent,
        share_of_entropy=np.divide(bits, smaller, out=np.zeros(shape), where=smaller > 0),
        mean_bits=bits.mean(1),
        mean_interval_bits=intervals.jackknife(bits.mean(1), without.mean(2).T),
        without_bits=without,
        frames=frames,
        files=len(kept),
        warnings=tuple(warnings),
    )


def change(before: MutualInformation, after: MutualInformation) -> tuple[np.ndarray, np.ndarray]:
    """Return the change of the mean over pairs, bits [lags], and its interval [lags, 2].

    Compares two codecs measured on the same files; see `intervals.change`. Raises UserError for
    other files or lags.
    """
    if before.lags != after.lags or before.files != after.files:
        raise UserError("change: expected two measurements of the same files at the same lags")
    return intervals.change(
        before.mean_bits,
        before.without_bits.mean(2).T,
        after.mean_bits,
        after.without_bits.mean(2).T,
    )


def _reads_low(per_cell: float) -> float:
    """Return the share of the true value that is expected to be missing at so many frames per cell."""
    known = np.log(list(READS_LOW))
    return float(np.interp(np.log(per_cell), known, list(READS_LOW.values())))


def _lag(lag: int | str, pair: tuple[int, int]) -> int:
    if lag == "delay":
        return pair[1] - pair[0]
    if isinstance(lag, str) or int(lag) != lag:
        raise UserError(f"lag {lag!r}: expected an integer or 'delay'")
    return int(lag)


def _arrangement(x: list[np.ndarray], rng) -> tuple[np.ndarray, int]:
    """Draw the order of files on the circle, and a rotation after which no frame meets its file."""
    lengths = [len(file) for file in x]
    longest = max(lengths)
    return rng.permutation(len(x)), int(rng.integers(longest, sum(lengths) - longest + 1))


def _plug_in(x, y, size_y: int, order, rotation: int) -> tuple[float, np.ndarray]:
    """Return the plug-in estimate in bits of files on a circle, and [files] without each in turn.

    Without file f, frames of x that met y of f and frames of y that met x of f, equally many, are
    set against each other in their order: the same arrangement of one file less. (Any two that
    belong to one file are left out.) Only the cells that a file touches are visited.
    """
    files = len(x)
    x_file = np.repeat(order, [len(x[f]) for f in order])
    y_file = np.roll(x_file, rotation)
    x = np.concatenate([x[f] for f in order])
    y = np.roll(np.concatenate([y[f] for f in order]), rotation)
    if rotation:
        widowed, orphaned = np.argsort(y_file, kind="stable"), np.argsort(x_file, kind="stable")
        apart = x_file[widowed] != y_file[orphaned]
        widowed, orphaned = widowed[apart], orphaned[apart]
        lost = np.concatenate([x_file, y_file])
        lost_x, lost_y = np.concatenate([x, x]), np.concatenate([y, y])
        gained, gained_x, gained_y = y_file[widowed], x[widowed], y[orphaned]
    else:
        lost, lost_x, lost_y = x_file, x, y
        gained = gained_x = gained_y = np.zeros(0, np.int64)
    frames = len(x)
    frames_without = (
        frames - np.bincount(lost, minlength=files) + np.bincount(gained, minlength=files)
    )

    def entropy(cells, lost_cells, gained_cells):
        total, total_without = _sum_n_log_n(
            cells, (lost, lost_cells), (gained, gained_cells), files
        )
        return (
            np.log2(frames) - total / frames,
            np.log2(frames_without) - total_without / frames_without,
        )

    of_x = entropy(x, lost_x, gained_x)
    of_y = entropy(y, lost_y, gained_y)
    joint = entropy(x * size_y + y, lost_x * size_y + lost_y, gained_x * size_y + gained_y)
    return tuple(a + b - both for a, b, both in zip(of_x, of_y, joint))


def _sum_n_log_n(cells, lost, gained, files: int) -> tuple[float, np.ndarray]:
    """Return the sum of n log2 n over a histogram's counts n, and [files] that without each file.

    lost, gained: (file, cell) of every frame that leaves or joins when that file is left out.
    """
    (lost_file, lost_cell), (gained_file, gained_cell) = lost, gained
    top = 1 + max(cells.max(), gained_cell.max(initial=0))
    if top > 16 * len(cells) + 2**16:
        # Tables too large to hold: number the cells that occur. Order is kept, none is lost.
        seen, cells = np.unique(np.concatenate([cells, gained_cell]), return_inverse=True)
        cells, gained_cell = np.split(cells, [len(cells) - len(gained_cell)])
        lost_cell = np.searchsorted(seen, lost_cell)
        top = len(seen)
    counts = np.bincount(cells, minlength=top)
    # One sort brings together what each file changes in each cell; the lowest bit is the sign.
    changes = np.concatenate(
        [2 * (lost_file * top + lost_cell), 2 * (gained_file * top + gained_cell) + 1]
    )
    changes.sort()
    where = changes >> 1
    starts = np.flatnonzero(np.diff(where, prepend=-1))
    net = np.add.reduceat(2 * (changes & 1) - 1, starts)
    file, cell = np.divmod(where[starts], top)
    difference = n_log_n(counts[cell] + net) - n_log_n(counts[cell])
    total = n_log_n(counts).sum()
    return total, total + np.bincount(file, weights=difference, minlength=files)
