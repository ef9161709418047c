"""Batches of audio segments, every example a function of (seed, global index) alone."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from indep_jax.data import sources, tokens, transforms
from indep_jax.support.errors import UserError

# Random access wants a length; nothing trains for this many examples.
_ENDLESS = 2**48
# Draws that may fail in a row before the source counts as unreadable.
_MAX_ATTEMPTS = 32


def segments(
    source: sources.AudioSource,
    *,
    seed: int,
    batch_size: int,
    seconds: float,
    sample_rate: int,
    channels: int,
    max_unreadable: float = 1.0,
    slice_number: int = 0,
    slices: int = 1,
) -> grain.MapDataset:
    """Return an endless dataset of batches of random segments, with random access: `dataset[i]`.

    Example batch_index * batch_size + row is drawn from (seed, that index) alone: a file with
    probability proportional to its duration, then a start uniform over the frames at which a whole
    segment fits. Files shorter than a segment are read from their beginning and padded with zeros.
    If a file turns out to be unreadable, it is named once on stderr (by each process that reads),
    and the example is drawn again from (seed, index, attempt).

    Args:
      source: from `open_source`.
      seed: not negative.
      batch_size: of the global batch, over all processes.
      seconds: length of a segment.
      sample_rate: in Hz.
      channels: of the audio.
      max_unreadable: share of the files, above which those that turn out to be unreadable end the
        run with a UserError that names them (each process that reads counts its own).
      slice_number, slices: which contiguous slice of the batch's rows is read, of how many (see
        `sharding.slice_of_rows`); `slices` must divide `batch_size`.

    Returns:
      dataset of dict(audio=float32 [batch_size / slices, time, channels], file=int32
      [batch_size / slices], index into `source.files`; of a piece, that of the file it belongs to,
      see AudioSource.origins).

    Raises:
      UserError: sizes that do not fit each other.
    """
    if batch_size < 1 or batch_size % slices:
        raise UserError(
            f"batch_size {batch_size}: expected a positive multiple of {slices}, its slices"
        )
    if round(seconds * sample_rate) < 1:
        raise UserError(f"segment_seconds {seconds}: expected a frame or more at {sample_rate} Hz")
    if seed < 0:
        raise UserError(f"seed {seed}: expected 0 or more")
    examples = _Examples(
        source=source,
        ends=np.cumsum([file.seconds for file in source.files]),
        origins=source.origins,
        seed=seed,
        batch_size=batch_size,
        frames=round(seconds * sample_rate),
        sample_rate=sample_rate,
        channels=channels,
        max_unreadable=max_unreadable,
        slice_number=slice_number,
        slices=slices,
    )
    return grain.MapDataset.source(examples).batch(batch_size // slices)


@dataclasses.dataclass(frozen=True, repr=False)
class _Sliced:
    """The examples of one process, in the order in which it batches them."""

    batch_size: int
    slice_number: int
    slices: int

    def __len__(self) -> int:
        return _ENDLESS // self.batch_size * (self.batch_size // self.slices)

    def __getitem__(self, local: int) -> dict[str, Any]:
        rows = self.batch_size // self.slices
        batch, row = divmod(int(local), rows)
        return self.example(batch * self.batch_size + self.slice_number * rows + row)


@dataclasses.dataclass(frozen=True, repr=False)
class _Examples(_Sliced):
    """Segments of audio by their global index."""

    source: sources.AudioSource
    ends: np.ndarray  # cumulative seconds of the files
    origins: list[int]
    seed: int
    frames: int  # of a segment, at sample_rate
    sample_rate: int
    channels: int
    max_unreadable: float
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)  # found so far, by name

    def example(self, index: int) -> dict[str, Any]:
        for attempt in range(_MAX_ATTEMPTS):
            number, start = self._draw(index, attempt)
            file = self.source.files[number]
            try:
                audio = transforms.read_segment(
                    file,
                    start / self.sample_rate,
                    self.frames / self.sample_rate,
                    self.sample_rate,
                    self.channels,
                )
            except sources.READ_ERRORS as error:
                self.unreadable[file.name] = sources.describe_error(error)
                found = dict(self.unreadable)  # several threads read
                name, files = self.source.source, len(self.source.files)
                sources.check_unreadable(name, found, files, self.max_unreadable)
                sources.name_unreadable(f"source {name}, reading", found)
                continue
            return dict(audio=audio, file=np.int32(self.origins[number]))
        raise UserError(
            f"source {self.source.source}: {_MAX_ATTEMPTS} draws in a row were unreadable, "
            f"the last from {sources.printable(file.name)}"
        )

    def _draw(self, index: int, attempt: int) -> tuple[int, int]:
        """Return (file, first frame) of a global index."""

        def room(number):
            file = self.source.files[number]
            return transforms.resampled_frames(file, self.sample_rate) - self.frames

        return _draw(self.seed, index, attempt, self.ends, room)


def token_segments(
    store: tokens.Store,
    split: str,
    *,
    seed: int,
    batch_size: int,
    frames: int,
    slice_number: int = 0,
    slices: int = 1,
) -> grain.MapDataset:
    """Return an endless dataset of batches of random segments of a token store's records.

    Records are drawn by their length, as files are by `segments`.

    Returns:
      dataset of dict(codes=int32 [batch_size / slices, frames, codebooks], -1 past the end of a
      record; record=int32 [batch_size / slices], index into the store).

    Raises UserError for sizes that do not fit each other, and a split without records.
    """
    if batch_size < 1 or batch_size % slices:
        raise UserError(
            f"batch_size {batch_size}: expected a positive multiple of {slices}, its slices"
        )
    if frames < 1:
        raise UserError(f"segments of {frames} frames: expected 1 or more")
    records = store.select(split)
    examples = _TokenExamples(
        batch_size=batch_size,
        slice_number=slice_number,
        slices=slices,
        store=store,
        records=records,
        ends=np.cumsum([store.entries[record]["frames"] for record in records]),
        seed=seed,
        frames=frames,
    )
    return grain.MapDataset.source(examples).batch(batch_size // slices)


@dataclasses.dataclass(frozen=True, repr=False)
class _TokenExamples(_Sliced):
    """Segments of tokens by their global index."""

    store: tokens.Store
    records: list[int]
    ends: np.ndarray  # cumulative frames of the records
    seed: int
    frames: int

    def example(self, index: int) -> dict[str, Any]:
        def room(number):
            return self.store.entries[self.records[number]]["frames"] - self.frames

        number, start = _draw(self.seed, index, 0, self.ends, room)
        record = self.records[number]
        found = self.store[record].codes[start : start + self.frames]
        codes = np.full((self.frames, found.shape[1]), -1, np.int32)
        codes[: len(found)] = found
        return dict(codes=codes, record=np.int32(record))


def _draw(seed: int, index: int, attempt: int, ends, room) -> tuple[int, int]:
    """Draw (item, first frame) of a global index: items by length, starts uniform in `room(item)`."""
    # Philox is counter-based: each (index, attempt) is a stream of its own, of 2^64 draws.
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, attempt, index, 0]))
    number = int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))
    number = min(number, len(ends) - 1)
    return number, int(rng.integers(max(room(number), 0) + 1))


def iterate(
    dataset: grain.MapDataset, start: int, workers: int
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
    """Iterate over `dataset[start]`, `dataset[start + 1]`, ..., read ahead of time.

    Args:
      dataset: from `segments`.
      start: index of the first batch; a resume needs nothing else.
      workers: processes that read and resample; 0 uses threads of this process. The batches are the
        same. With workers, the script that calls this needs `if __name__ == "__main__":`.
    """
    if workers < 0:
        raise UserError(f"workers {workers}: expected 0 or more")
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    batches = dataset[start:].to_iter_dataset(options)
    if workers:
        # grain hands absl's flags to its workers, and refuses outside of absl.app.run otherwise.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=_begin_worker
        )
    return iter(batches)


def _begin_worker(worker: int, workers: int) -> None:
    """Tie a worker's life to that of the process that reads from it.

    Ctrl-C, and a SIGTERM to the whole group, reach workers too, before that process has saved; and
    one that is killed cannot end its workers, which would hold their memory for ever.
    """
    del worker, workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()


def excerpts(
    source: sources.AudioSource, *, seconds: float, sample_rate: int, channels: int, items: int
) -> dict[str, Any]:
    """Read a fixed set of excerpts for evaluation, spread over the files and within them.

    First one from the middle of each file (of evenly spread files if `items` are fewer), then one
    more from each file that is longer than an excerpt, at a quarter, three quarters, an eighth and so
    on. Unreadable files are named on stderr and skipped.

    Returns:
      dict(audio=float32 [items, time, channels], file=int32 [items], names=list of `items` names).

    Raises:
      UserError: fewer readable excerpts than `items`, or `items` is not positive.
    """
    if items < 1:
        raise UserError(f"items {items}: expected 1 or more")
    frames = round(seconds * sample_rate)
    audio, numbers = [], []
    for number, start in _spread(source, frames, sample_rate):
        file = source.files[number]
        try:
            audio.append(
                transforms.read_segment(
                    file, start / sample_rate, frames / sample_rate, sample_rate, channels
                )
            )
        except sources.READ_ERRORS as error:
            problem = {file.name: sources.describe_error(error)}
            sources.name_unreadable(f"source {source.source}, reading", problem)
            continue
        numbers.append(number)
        if len(numbers) == items:
            break
    if len(numbers) < items:
        raise UserError(
            f"source {source.source}: {len(numbers)} readable excerpts in split {source.split}, "
            f"expected {items}"
        )
    return dict(
        audio=np.stack(audio),
        file=np.asarray(numbers, np.int32),
        names=[source.files[number].name for number in numbers],
    )


def _spread(
    source: sources.AudioSource, frames: int, sample_rate: int
) -> Iterator[tuple[int, int]]:
    """Yield (file, first frame) of excerpts of `frames` frames, the best spread ones first."""
    room = [transforms.resampled_frames(file, sample_rate) - frames for file in source.files]
    order = sorted(range(len(room)), key=_radical_inverse)
    longer = [number for number in order if room[number] > 0] or order
    for turn in range(1024):
        for number in longer if turn else order:
            yield number, int(max(room[number], 0) * _radical_inverse(turn + 1))


def _radical_inverse(number: int) -> float:
    """Return van der Corput's sequence, 0, 1/2, 1/4, 3/4, 1/8, ...: every prefix is well spread."""
    return int(f"{number:b}"[::-1], 2) / 2 ** number.bit_length() if number else 0.0
