"""Captions beside audio files: metadata.csv, or a .txt or .json for each file.

If several describe a file, the first of these counts:
  metadata.csv in the source's folder, with a header: file_name (or path), relative to the folder,
      caption (or description, or text), and optionally tags (or keywords)
  NAME.json beside NAME.wav: an object with the same fields; tags may be a list
  NAME.txt: the caption
Tags follow the caption, separated by commas: a language model is given one text.
"""

from __future__ import annotations

import csv
import io
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from indep_jax.support.errors import UserError

_CAPTION, _TAGS = ("caption", "description", "text"), ("tags", "keywords")


def read(folder: pathlib.Path, names: Iterable[str]) -> dict[str, str]:
    """Return the caption of each named file that has one; names are relative to the folder.

    Raises UserError for a caption file that cannot be read.
    """
    table = folder / "metadata.csv"
    captions = _read_table(table) if table.is_file() else {}
    beside: dict[pathlib.Path, set[str]] = {}  # one listing of each folder, not two stats a file
    for name in names:
        if name in captions:
            continue
        path = folder / name
        if path.parent not in beside:
            beside[path.parent] = {p.name for p in path.parent.iterdir()}
        if path.with_suffix(".json").name in beside[path.parent]:
            captions[name] = _join(_read_json(path.with_suffix(".json")))
        elif path.with_suffix(".txt").name in beside[path.parent]:
            captions[name] = " ".join(_read_text(path.with_suffix(".txt")).split())
    return {name: caption for name, caption in captions.items() if caption}


def _read_table(path: pathlib.Path) -> dict[str, str]:
    rows = csv.DictReader(io.StringIO(_read_text(path), newline=""))
    key = next((k for k in ("file_name", "path") if k in (rows.fieldnames or ())), None)
    if key is None:
        raise UserError(f"{path}: expected a header with file_name and caption")
    return {row[key]: " ".join(_join(row).split()) for row in rows if row[key]}


def _read_json(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        content = json.loads(_read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: expected JSON ({error})") from None
    return content if isinstance(content, dict) else {}


def _read_text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected UTF-8 text") from None


def _join(fields: Mapping[str, Any]) -> str:
    caption = next((fields[key] for key in _CAPTION if fields.get(key)), "")
    tags = next((fields[key] for key in _TAGS if fields.get(key)), ())
    tags = [tags] if isinstance(tags, str) else tags
    return ", ".join(" ".join(str(part).split()) for part in [caption, *tags] if part)
