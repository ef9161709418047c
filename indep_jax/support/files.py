"""Files of results: whole or not there, and beside them what they are made with.

A command that is run again keeps the files that are complete; from this it knows they are its own.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from indep_jax.support.errors import UserError


def cache_folder() -> pathlib.Path:
    """Return this package's folder in the user's cache, $XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "indep_jax"


def replace_file(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file, and its folder, so that nobody ever sees half of it: beside, then renamed."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def begin_output(path: pathlib.Path, made_with: dict[str, Any]) -> None:
    """Writes `made_with` to the JSON file at `path`, and makes its folder.

    Raises UserError, one line, where a file is there that says something else.
    """
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        changes = [key for key in made_with if there.get(key) != made_with[key]]
        if changes:
            shown = "; ".join(f"{key}: {there.get(key)} -> {made_with[key]}" for key in changes)
            raise UserError(f"{path.parent} holds other results: {shown}")
        return
    replace_file(path, f"{json.dumps(made_with, indent=1)}\n".encode())
