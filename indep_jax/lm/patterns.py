"""Decoding patterns: in which step a language model emits which code.

A pattern of T frames of K codebooks is data, a schedule: int32 numpy array [steps, codebooks] of
frame indices, -1 where a codebook emits nothing. Every code is emitted in at most one step. A model
predicts the codes of a step from everything emitted in earlier steps, so one array says how to lay
codes out, how to read them back, what counts in the loss, and what to sample.

The patterns are those of Copet et al. 2023 (MusicGen), section 2.2.
"""

from collections.abc import Sequence

import chex
import numpy as np

from indep_jax.support.errors import UserError


def delay(frames: int, codebooks: int, delays: Sequence[int] | None = None) -> np.ndarray:
    """Delay codebook k by delays[k] steps: frames + max(delays) steps.

    Without `delays`, MusicGen's 0, 1, ..., codebooks - 1. UserError for another number of them
    than codebooks, and for a negative one.
    """
    delays = np.arange(codebooks) if delays is None else np.asarray(delays)
    if delays.shape != (codebooks,) or delays.dtype.kind != "i" or delays.min() < 0:
        raise UserError(f"delays {delays.tolist()}: expected {codebooks} integers of at least 0")
    schedule = np.arange(frames + delays.max())[:, None] - delays
    return np.where((schedule >= 0) & (schedule < frames), schedule, -1).astype(np.int32)


def parallel(frames: int, codebooks: int) -> np.ndarray:
    """Emit all codes of a frame in one step: `frames` steps."""
    return delay(frames, codebooks, [0] * codebooks)


def stereo_delay(frames: int, codebooks: int) -> np.ndarray:
    """Give left and right channel the same delays: 0, 0, 1, 1, ... (MusicGen stereo).

    Codebooks alternate between the channels: left 0, right 0, left 1, right 1, ... UserError for
    an odd number of them.
    """
    if codebooks % 2:
        raise UserError(f"stereo_delay: expected an even number of codebooks, not {codebooks}")
    return delay(frames, codebooks, np.arange(codebooks) // 2)


def flattened(frames: int, codebooks: int) -> np.ndarray:
    """Emit one code per step, frame by frame, codebook by codebook: frames * codebooks steps."""
    steps = np.arange(frames * codebooks)[:, None]
    return np.where(steps % codebooks == np.arange(codebooks), steps // codebooks, -1).astype(
        np.int32
    )


def coarse_first(frames: int, codebooks: int) -> np.ndarray:
    """Emit the first codebook of all frames, then the others frame by frame: 2 * frames steps."""
    coarse = np.arange(codebooks) == 0
    schedule = np.arange(frames)[:, None]
    both = [np.where(coarse, schedule, -1), np.where(coarse, -1, schedule)]
    return np.concatenate(both[: min(codebooks, 2)]).astype(np.int32)


PATTERNS = dict(
    parallel=parallel,
    delay=delay,
    stereo_delay=stereo_delay,
    flattened=flattened,
    coarse_first=coarse_first,
)


def schedule(pattern: str | Sequence[int], frames: int, codebooks: int) -> np.ndarray:
    """Return the schedule of a pattern: a name in PATTERNS, or a delay for each codebook.

    Raises UserError for an unknown name, for delays that do not fit, and for no frames.
    """
    if frames < 1:
        raise UserError(f"frames: expected at least 1, not {frames}")
    if not isinstance(pattern, str):
        return delay(frames, codebooks, pattern)
    if pattern not in PATTERNS:
        raise UserError(f"pattern {pattern!r}: expected delays, or one of {', '.join(PATTERNS)}")
    return PATTERNS[pattern](frames, codebooks)


def inverse(schedule_SxK: np.ndarray) -> np.ndarray:
    """Return the step that emits each code, int32 [frames, codebooks]; -1 where none does.

    frames is the largest that the schedule names, plus one. ValueError where two steps emit the
    same code.
    """
    steps, codebooks = np.nonzero(schedule_SxK >= 0)
    frames = schedule_SxK[steps, codebooks]
    found = np.full((schedule_SxK.max() + 1, schedule_SxK.shape[1]), -1, np.int32)
    found[frames, codebooks] = steps
    if np.count_nonzero(found >= 0) != len(steps):
        raise ValueError("schedule: a code is emitted twice")
    return found


def build(codes_BxTxK, schedule_SxK: np.ndarray, special: int):
    """Lay codes out in steps: (tokens [batch, steps, codebooks], mask [steps, codebooks]).

    codes: integers [batch, frames, codebooks], of numpy or JAX; so are the tokens. special: the
    token of a codebook that emits nothing, where the mask is False. ValueError for codes of fewer
    frames or other codebooks than the schedule's.
    """
    chex.assert_rank(codes_BxTxK, 3)
    if schedule_SxK.max() >= codes_BxTxK.shape[1] or schedule_SxK.shape[1] != codes_BxTxK.shape[2]:
        raise ValueError(
            f"codes: expected {schedule_SxK.max() + 1} frames of {schedule_SxK.shape[1]} "
            f"codebooks, not {list(codes_BxTxK.shape[1:])}"
        )
    mask = schedule_SxK >= 0
    codebooks = np.arange(schedule_SxK.shape[1])
    tokens = codes_BxTxK[:, np.maximum(schedule_SxK, 0), codebooks]
    return codes_BxTxK.__array_namespace__().where(mask, tokens, special), mask


def revert(tokens_BxSxK, schedule_SxK: np.ndarray):
    """Invert `build`: (codes [batch, frames, codebooks], mask [frames, codebooks]).

    Where the mask is False no step emits the code, and it is 0.
    """
    return build(tokens_BxSxK, inverse(schedule_SxK), 0)
