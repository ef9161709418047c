"""Token stores: the folders that `indep_jax.encode` writes, with codes and where they come from.

A store holds tokens.json, which says what made it, and shards. A shard is an ArrayRecord file SHARD
with one record per source file, and its index SHARD.json, written last, which has everything but
codes and scales, and the number of frames. A record is a msgpack map (flax.serialization) of

    name      of the source file, relative to its folder; bytes, as the file system has it
    split     of the source: train, valid or test
    caption   text, may be empty
    length    samples of the waveform, at the store's sample rate
    codes     [frames, codebooks], uint16 or int32
    scales    float32 [chunks], levels of a codec that divides by them, or None
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from array_record.python import array_record_module
from flax import serialization

from indep_jax.data import arrayrecord
from indep_jax.support.errors import UserError
from indep_jax.support.files import naming, replace_file, replacing

INFO = "tokens.json"


class Tokens(NamedTuple):
    """The tokens of one file; see the module."""

    name: str
    split: str
    caption: str
    length: int
    codes: np.ndarray
    scales: np.ndarray | None = None


def shard_path(folder: pathlib.Path, number: int, shards: int) -> pathlib.Path:
    return folder / f"tokens-{number:05d}-of-{shards:05d}.array_record"


def index_path(shard: pathlib.Path) -> pathlib.Path:
    return shard.with_name(shard.name + ".json")


def write_shard(path: pathlib.Path, items: Iterable[Tokens]) -> None:
    """Write one shard and, once it is complete, its index."""
    entries = []
    with replacing(path) as temporary:
        # Groups of one record: a reader that wants one reads no other.
        with naming(path, RuntimeError):
            writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
        for item in items:
            record = item._asdict() | dict(name=os.fsencode(item.name))
            with naming(path, RuntimeError):
                writer.write(serialization.msgpack_serialize(record))
            about = item._asdict() | dict(frames=len(item.codes))
            entries.append({k: v for k, v in about.items() if k not in ("codes", "scales")})
        with naming(path, RuntimeError):
            writer.close()
    replace_file(index_path(path), json.dumps(dict(records=entries), indent=0))


def read_info(folder: str | os.PathLike) -> dict[str, Any]:
    """Return the content of tokens.json. Raises UserError if there is no store."""
    path = pathlib.Path(folder) / INFO
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{folder}: no {INFO} here, expected what indep_jax.encode wrote") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None


class Store:
    """A complete token store: `len`, and `store[i]` gives Tokens.

    info: the content of tokens.json; entries: the index entry of each record.
    Raises UserError for a folder that is not a store, or lacks some of its shards.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder, self.info = os.fspath(folder), read_info(folder)
        shards = self.info["shards"]
        paths = [shard_path(pathlib.Path(folder), number, shards) for number in range(shards)]
        missing = [path.name for path in paths if not index_path(path).exists()]
        if missing:
            raise UserError(
                f"{folder}: {len(missing)} of {shards} shards are missing, the first is "
                f"{missing[0]}; the same indep_jax.encode command again makes them"
            )
        self.entries, self._places = [], []
        for path in paths:
            try:
                records = json.loads(index_path(path).read_text(encoding="utf-8"))["records"]
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{folder}: {index_path(path).name} is not an index; remove it and {path.name}, "
                    "and the same indep_jax.encode command makes them again"
                ) from None
            self.entries += records
            self._places += [(path, record) for record in range(len(records))]
            try:
                whole = arrayrecord.count(path) == len(records)
            except OSError:
                whole = False
            if not whole:
                raise UserError(
                    f"{folder}: {path.name} is not a whole ArrayRecord file; remove it, "
                    "and the same indep_jax.encode command makes it again"
                )

    def select(self, split: str) -> list[int]:
        """Return the records of a split, in order. Raises UserError if there are none."""
        found = [i for i, entry in enumerate(self.entries) if split in (entry["split"], "all")]
        if not found:
            raise UserError(f"{self.folder}: no tokens of split {split}")
        return found

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Tokens:
        if not 0 <= index < len(self):
            raise IndexError(index)
        fields = serialization.msgpack_restore(arrayrecord.read(*self._places[index]))
        return Tokens(**fields | dict(name=os.fsdecode(fields["name"])))
