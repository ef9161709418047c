"""ArrayRecord shards, read by number."""

from __future__ import annotations

import errno
import functools
import os

from array_record.python import array_record_module


def read(path: str | os.PathLike, number: int) -> bytes:
    """Return a record of a shard. Raises OSError, with the path, where it cannot be read."""
    try:
        return bytes(_open(path).read([number])[0])
    except (RuntimeError, ValueError, IndexError) as error:
        reason = f"record {number} cannot be read: {' '.join(str(error).split())}"
        raise OSError(errno.EIO, reason, os.fspath(path)) from None


def count(path: str | os.PathLike) -> int:
    """Return how many records a shard has. Raises OSError for an incomplete file."""
    try:
        reader = _open(path)
    except RuntimeError:
        reader = None
    if reader is None or not reader.ok():
        raise OSError(errno.EIO, "not a whole ArrayRecord file", os.fspath(path))
    return reader.num_records()


def _open(path: str | os.PathLike) -> array_record_module.ArrayRecordReader:
    about = os.stat(path)  # the library would end the process where nothing is there
    return _reader(os.fspath(path), about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=256)
def _reader(path: str, modified: int, size: int) -> array_record_module.ArrayRecordReader:
    """Keep one reader per shard and process, as long as the shard does not change."""
    del modified, size
    return array_record_module.ArrayRecordReader(path)
