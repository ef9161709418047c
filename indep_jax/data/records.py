"""Audio in ArrayRecord shards: quick to read at random, few files on a network disk.

A record is a whole wav file (16 bit), a piece of at most `seconds` of a source file. Beside every
shard SHARD there is SHARD.json, its index:
  sample_rate, channels   of all records
  records                 for each: record (its number), origin (the source file), split, frames,
                          caption; a record that is not listed is of a file that broke
packed.json says what the shards of the folder were made from, and how.
`array_record:GLOB` opens what `pack` wrote (data/sources.py).
"""

from __future__ import annotations

import io
import json
import pathlib
from collections.abc import Iterator

import numpy as np
import soundfile
from array_record.python import array_record_module

from indep_jax.data import sources, transforms
from indep_jax.support import progress
from indep_jax.support.errors import UserError
from indep_jax.support.files import begin_output, naming, replace_file, replacing


def pack(
    source: str,
    folder: str | pathlib.Path,
    *,
    sample_rate: int,
    channels: int,
    seconds: float = 30.0,
    shards: int = 1,
) -> list[pathlib.Path]:
    """Resample a source's music into `shards` shards for each split; return their paths.

    Files are dealt to the shards of their split in turn, their pieces in order. Shards that are
    complete are kept, so an interrupted call goes on. A piece shorter than 10 ms at the end of a
    file is left out, and so is a file that breaks while it is read, which is named.

    Raises UserError, one line, for sizes that do not fit, what `open_source` refuses, and a folder
    that holds other shards.
    """
    sizes = dict(sample_rate=sample_rate, channels=channels, seconds=seconds, shards=shards)
    for name, value in sizes.items():
        if value <= 0:
            raise UserError(f"{name}: expected more than 0, not {value}")
    folder = pathlib.Path(folder)
    splits = {"train": sources.open_source(source, "train").files}
    for split in sources.SPLITS[1:]:
        try:
            splits[split] = sources.open_source(source, split).files
        except UserError:
            continue  # a manifest need not have every split
    counts = {f"{split}_files": len(files) for split, files in splits.items()}
    begin_output(folder / "packed.json", dict(source=source) | sizes | counts)
    paths = []
    for split, files in splits.items():
        with progress.bar(sum(f.seconds for f in files), f"pack {split}", unit="s") as bar:
            for number in range(shards):
                path = folder / f"{split}-{number:05d}-of-{shards:05d}.array_record"
                mine = files[number::shards]
                if mine and not sources.index_path(path).exists():
                    _write_shard(path, mine, split, sample_rate, channels, seconds)
                bar.update(sum(f.seconds for f in mine))
                paths += [path] if mine else []
    return paths


def _write_shard(path, files, split, sample_rate, channels, seconds) -> None:
    entries, count = [], 0
    with naming(path, RuntimeError), replacing(path) as temporary:
        writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
        for file in files:
            about = dict(origin=file.name, split=split, caption=file.caption)
            try:
                for wav, frames in _pieces(file, sample_rate, channels, seconds):
                    writer.write(wav)
                    entries.append(dict(record=count, frames=frames) | about)
                    count += 1
            except sources.READ_ERRORS as error:
                entries = [entry for entry in entries if entry["origin"] != file.name]
                problem = {file.name: sources.describe_error(error)}
                sources.name_unreadable(f"source {path.name}, packing", problem)
        writer.close()
    # Written last: a shard without its index is not complete.
    index = dict(sample_rate=sample_rate, channels=channels, records=entries)
    replace_file(sources.index_path(path), json.dumps(index, indent=0))


def _pieces(file, sample_rate, channels, seconds) -> Iterator[tuple[bytes, int]]:
    """Yield the wav files of one source file, with their frames."""
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
