"""ArrayRecord shards, read by number."""

from __future__ import annotations

import functools
import os

from array_record.python import array_record_module


def read(path: str | os.PathLike, number: int) -> bytes:
    """A record of a shard. Raises OSError, one line, where it cannot be read."""
    try:
        return bytes(_open(path).read([number])[0])
    except (RuntimeError, ValueError, IndexError) as error:
        text = " ".join(str(error).split())
        raise OSError(f"record {number} cannot be read: {text}") from None


def count(path: str | os.PathLike) -> int:
    """Records of a shard. Raises OSError, one line, for what is not a whole ArrayRecord file."""
    try:
        reader = _open(path)
    except RuntimeError:
        reader = None
    if reader is None or not reader.ok():
        raise OSError("not a whole ArrayRecord file")
    return reader.num_records()


def _open(path: str | os.PathLike) -> array_record_module.ArrayRecordReader:
    about = os.stat(path)  # the library would end the process where nothing is there
    return _reader(os.fspath(path), about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=256)
def _reader(path: str, modified: int, size: int) -> array_record_module.ArrayRecordReader:
    """One reader a shard and process, as long as the shard is the same."""
    del modified, size
    return array_record_module.ArrayRecordReader(path)
