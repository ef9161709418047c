"""Music files to tokens: the one way in which stores are written and codebooks are measured.

Every file is encoded from its beginning to its end as one stream (`encode_long`): the codes are those
of the whole file at once, whatever its length, but for the last frames that codec/streaming.py
names.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np

from indep_jax.data import sources, tokens, transforms
from indep_jax.inference.tokenizer import Tokenizer
from indep_jax.support import progress
from indep_jax.support.errors import UserError


def encode_files(
    tokenizer: Tokenizer,
    source: sources.AudioSource,
    files: Sequence[sources.AudioFile] | None = None,
    *,
    errors: dict[str, str] | None = None,
    max_unreadable: float = 1.0,
    advance: Callable[[float], object] = lambda seconds: None,
) -> Iterator[tokens.Tokens]:
    """Yield the tokens of each file, codes int32 [frames, codebooks], in order.

    A file that turns out to be unreadable is named on stderr and left out, as is an empty one.

    Args:
      files: those of the source to encode; all by default.
      errors: what went wrong with files of the source before, by name; new ones are added.
      max_unreadable: share of the source's files that may be unreadable.
      advance: called with the seconds of music that are done.

    Raises UserError where more than `max_unreadable` of the source's files are unreadable.
    """
    errors = {} if errors is None else errors
    rate = tokenizer.sample_rate
    for file in source.files if files is None else files:

        def read(start, count, file=file):
            return transforms.read_segment(
                file, start / rate, count / rate, rate, tokenizer.channels
            )

        length = transforms.resampled_frames(file, rate)
        blocks, done = [], 0.0
        try:
            for block in tokenizer.encode_long(read, length) if length else ():
                blocks.append(block)
                step = min(block.length / rate, file.seconds - done)
                advance(step)
                done += step
        except sources.READ_ERRORS as error:
            errors[file.name] = sources.describe_error(error)
            sources.check_unreadable(source.source, errors, len(source.files), max_unreadable)
            sources.name_unreadable(f"source {source.source}, reading", errors)
            blocks = []
        advance(file.seconds - done)
        if blocks:
            codes = np.concatenate([block.codes for block in blocks])
            levels = [block.scales for block in blocks if block.scales is not None]
            scales = np.concatenate(levels) if levels else None
            yield tokens.Tokens(file.name, file.split, file.caption, length, codes, scales)


def codes_by_origin(
    tokenizer: Tokenizer, source: sources.AudioSource, max_unreadable: float = 1.0
) -> dict[str, np.ndarray]:
    """Return the codes int32 [frames, codebooks] of every file, by its name, in order.

    Pieces of one file, each encoded alone, are joined under the file's name: they are no independent
    draws. Shows progress on stderr.

    Raises UserError where no file gives codes, and as `encode_files`.
    """
    origins = {file.name: file.origin or file.name for file in source.files}
    pieces: dict[str, list[np.ndarray]] = {}
    with music_bar(source.seconds, f"encode {tokenizer.label}".strip()) as bar:
        items = encode_files(tokenizer, source, max_unreadable=max_unreadable, advance=bar.update)
        for item in items:
            pieces.setdefault(origins[item.name], []).append(item.codes)
    if not pieces:
        raise UserError(f"source {source.source}: no file of split {source.split} gave any codes")
    return {name: np.concatenate(some) for name, some in pieces.items()}


def music_bar(seconds: float, what: str) -> AbstractContextManager[progress.Bar]:
    """Show progress in seconds of music; the rate is how many times faster than real time it goes."""
    layout = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}, {rate_noinv_fmt}]"
    return progress.bar(seconds, what, unit="s of music", layout=layout)
