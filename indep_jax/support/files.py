"""Atomic file writes, and a record beside the results of a command of what they were made with."""

import contextlib
import errno
import json
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Iterator
from typing import Any

from indep_jax.support.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a write, which names no file


def cache_folder() -> pathlib.Path:
    """Return this package's folder in the user's cache, $XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "indep_jax"


def model_name(path: str | os.PathLike) -> str:
    """Return the name of a model in reports and logs: that of its folder."""
    return pathlib.Path(path).resolve().name


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield a temporary path, and rename what the caller writes there to `path` at the end.

    The caller writes a file, or makes a folder, under the temporary path, which lies beside `path`
    and has a name that no other process or thread uses. The parent folder is made. After an
    exception what was written is removed, and `path` is as it was; an OSError names `path`.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that nobody takes it for a result, and short, whatever the length of path's name.
    name = f".{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    temporary = path.with_name(name)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError) and (
            error.filename == str(temporary) or (error.filename is None and error.errno in _FULL)
        ):
            error.filename = str(path)  # the name that the user knows
        raise


@contextlib.contextmanager
def naming(path: str | os.PathLike, *failures: type[Exception]) -> Iterator[None]:
    """Raise an OSError that names `path` for the `failures` of a library that writes there.

    failures: what the library raises, without the path, where the disk is full or gone.
    """
    try:
        yield
    except failures as error:
        reason = f"could not be written: {' '.join(str(error).split())}"
        raise OSError(errno.EIO, reason, os.fspath(path)) from error


def replace_file(path: str | os.PathLike, content: bytes | str) -> None:
    """Write a file, text as UTF-8, as a whole or not at all; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def begin_output(path: pathlib.Path, made_with: dict[str, Any]) -> None:
    """Write `made_with` to the JSON file `path`, or check that it says the same already.

    So a command that is run again keeps its own complete files, and no other command's. Whatever
    killed processes left half-written in the folder is removed.

    Raises UserError where the file says something else.
    """
    if path.exists():
        try:
            recorded = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        changes = [key for key in made_with if recorded.get(key) != made_with[key]]
        if changes:
            shown = "; ".join(f"{key}: {recorded.get(key)} -> {made_with[key]}" for key in changes)
            raise UserError(f"{path.parent} holds other results: {shown}")
        _remove_leftovers(path.parent)
        return
    replace_file(path, f"{json.dumps(made_with, indent=1)}\n")


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Remove the temporary files of processes that ran on this machine and have ended."""
    ours = re.compile(rf"\.{re.escape(os.uname().nodename)}-(\d+)-[0-9a-f]{{8}}\.tmp")
    for path in list(folder.rglob(".*.tmp")):
        match = ours.fullmatch(path.name)
        if match and not _runs(int(match[1])):
            _remove(path)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
