"""Audio in ArrayRecord shards: quick to read at random, few files on a network disk.

A record is a whole wav file (16 bit), a piece of at most `seconds` of a source file. Beside every
shard SHARD there is SHARD.json, its index:
  sample_rate, channels   of all records
  records                 for each: origin (the source file), split, frames, caption
`array_record:GLOB` opens what `pack` wrote (data/sources.py).
"""

from __future__ import annotations

import io
import json
import pathlib
from collections.abc import Iterator

import numpy as np
import soundfile
import tqdm
from array_record.python import array_record_module

from indep_jax.data import sources, transforms


def pack(
    source: str,
    folder: str | pathlib.Path,
    *,
    sample_rate: int,
    channels: int,
    seconds: float = 30.0,
    shards: int = 1,
) -> list[pathlib.Path]:
    """Resamples a source's music into `shards` shards for each split; returns their paths.

    Files are dealt to the shards of their split in turn, their pieces in order. Shards that are
    complete are kept, so an interrupted call goes on. A piece shorter than 10 ms at the end of a
    file is left out.

    Raises ValueError, one line, for sizes that do not fit and what `open_source` refuses.
    """
    for name, value in dict(seconds=seconds, shards=shards, sample_rate=sample_rate).items():
        if value <= 0:
            raise ValueError(f"{name}: expected more than 0, not {value}")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split in sources.SPLITS:
        try:
            files = sources.open_source(source, split).files
        except ValueError:
            if split == "train":
                raise
            continue  # a manifest need not have every split
        with tqdm.tqdm(total=sum(f.seconds for f in files), desc=f"pack {split}", unit="s") as bar:
            for number in range(shards):
                path = folder / f"{split}-{number:05d}-of-{shards:05d}.array_record"
                mine = files[number::shards]
                if mine and not sources.index_path(path).exists():
                    _write_shard(path, mine, split, sample_rate, channels, seconds)
                bar.update(sum(f.seconds for f in mine))
                paths += [path] if mine else []
    return paths


def _write_shard(path, files, split, sample_rate, channels, seconds) -> None:
    beside = path.with_name(path.name + ".tmp")
    writer = array_record_module.ArrayRecordWriter(str(beside), "group_size:1")
    entries = []
    for file in files:
        pieces = _pieces(file, sample_rate, channels, seconds)
        try:
            for wav, frames in pieces:
                writer.write(wav)
                entries.append(
                    dict(origin=file.name, split=split, frames=frames, caption=file.caption)
                )
        except sources.READ_ERRORS as error:
            problem = {file.name: sources.describe_error(error)}
            sources.name_unreadable(f"source {path.name}, packing", problem)
    writer.close()
    beside.replace(path)
    # Written last: a shard without its index is not complete.
    index = dict(sample_rate=sample_rate, channels=channels, records=entries)
    beside.write_text(json.dumps(index, indent=0))
    beside.replace(sources.index_path(path))


def _pieces(file, sample_rate, channels, seconds) -> Iterator[tuple[bytes, int]]:
    """The wav files of one source file, with their frames."""
    total, size = transforms.resampled_frames(file, sample_rate), round(seconds * sample_rate)
    for start in range(0, total, size):
        frames = min(size, total - start)
        if start and frames < sample_rate // 100:
            return
        place = start / sample_rate, frames / sample_rate
        audio = transforms.read_segment(file, *place, sample_rate, channels)
        wav = io.BytesIO()
        soundfile.write(wav, np.clip(audio, -1, 1), sample_rate, "PCM_16", format="WAV")
        yield wav.getvalue(), frames
