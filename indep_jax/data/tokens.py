"""Token stores: what `indep_jax.encode` writes, codes and where they come from.

A store is a folder: tokens.json, which says what made it, and its shards, ArrayRecord files of one
record per source file, each a msgpack map (flax.serialization) of

    name      of the source file, relative to its folder; bytes, as the file system has it
    caption   text, may be empty
    length    samples of the waveform, at the store's sample rate
    codes     [frames, codebooks], uint16 or int32
"""

from __future__ import annotations

import bisect
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from array_record.python import array_record_module
from flax import serialization

INFO = "tokens.json"


class Tokens(NamedTuple):
    """The tokens of one file; see the module."""

    name: str
    caption: str
    length: int
    codes: np.ndarray


def shard_path(folder: pathlib.Path, number: int, shards: int) -> pathlib.Path:
    return folder / f"tokens-{number:05d}-of-{shards:05d}.array_record"


def write_shard(path: pathlib.Path, items: Iterable[Tokens]) -> int:
    """Writes one shard, beside and then renamed; returns the number of its records."""
    beside = path.with_name(path.name + ".tmp")
    count = 0
    try:
        # Groups of one record: a reader that wants one reads no other.
        writer = array_record_module.ArrayRecordWriter(str(beside), "group_size:1")
        for item in items:
            record = item._asdict() | dict(name=os.fsencode(item.name))
            writer.write(serialization.msgpack_serialize(record))
            count += 1
        writer.close()
        beside.replace(path)
    except RuntimeError as error:  # array_record's, for a disk that is full or gone
        raise OSError(f"{path} could not be written: {' '.join(str(error).split())}") from error
    finally:
        beside.unlink(missing_ok=True)
    return count


def read_info(folder: str | os.PathLike) -> dict[str, Any]:
    """What tokens.json says. Raises ValueError, one line, where there is no store."""
    path = pathlib.Path(folder) / INFO
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{folder}: no {INFO} here, expected what indep_jax.encode wrote") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None


class Store:
    """A complete token store: `len`, and `store[i]` gives Tokens.

    info: the content of tokens.json. Raises ValueError, one line, for a folder that is no store,
    or whose shards are not all there.
    """

    def __init__(self, folder: str | os.PathLike):
        self.info = read_info(folder)
        shards = self.info["shards"]
        paths = [shard_path(pathlib.Path(folder), number, shards) for number in range(shards)]
        missing = [path.name for path in paths if not path.exists()]
        if missing:
            raise ValueError(
                f"{folder}: {len(missing)} of {shards} shards are missing, the first is "
                f"{missing[0]}; the same indep_jax.encode command again makes them"
            )
        self._readers = [array_record_module.ArrayRecordReader(str(path)) for path in paths]
        broken = [p.name for p, r in zip(paths, self._readers) if not r.ok()]
        if broken:
            raise ValueError(f"{folder}: {broken[0]} is not a whole ArrayRecord file; remove it, and "
                             "the same indep_jax.encode command makes it again")
        self._ends = np.cumsum([reader.num_records() for reader in self._readers]).tolist()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Tokens:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = bisect.bisect_right(self._ends, index)
        first = self._ends[shard - 1] if shard else 0
        (record,) = self._readers[shard].read([index - first])
        fields = serialization.msgpack_restore(record)
        return Tokens(**fields | dict(name=os.fsdecode(fields["name"])))
