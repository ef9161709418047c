"""Hugging Face folders as a whole: where one is, where its weights come from, writing one."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy

from indep_jax.support.errors import UserError
from indep_jax.support.files import naming, replacing

PRETRAINED = Path(__file__).parents[1] / "pretrained"  # the models that ship
WEIGHTS = "model.safetensors"
FILES = ["*.json", "*.safetensors", "README.md"]
# Of the folders that people keep without the card that says so.
_PUBLISHED = re.compile(r"facebook/(encodec|musicgen)[-_].*")
_PUBLISHED_LICENCE = "cc-by-nc-4.0"


def shipped() -> list[str]:
    """Return the names of the models that ship with the package."""
    return sorted(path.name for path in PRETRAINED.iterdir() if path.is_dir())


def locate(path: str | Path) -> Path:
    """Return the local folder of a path, a shipped model's name, or "hf:NAME" of the Hugging Face hub.

    A string that names a folder of indep_jax/pretrained means the model that ships with the package.
    Where the current folder has an entry of that name too, neither is guessed: "./NAME", or a Path,
    is the entry. A model of the hub is downloaded, or found in the cache where the hub cannot be
    reached.

    Raises UserError for a name with two meanings, and for a hub's model that cannot be had.
    """
    if isinstance(path, str) and path in shipped():
        if os.path.lexists(path):
            raise UserError(
                f"{path}: is here, and also the name of a model that ships with indep_jax: expected "
                f"./{path} or {PRETRAINED / path}"
            )
        return PRETRAINED / path
    name = _hub_name(path)
    if name is None:
        return Path(path)
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(
            f"{path}: huggingface_hub is not installed: pip install huggingface_hub, or give the "
            "folder of a model that you have"
        ) from None
    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=FILES))
    except Exception as error:  # of many kinds: network, proxy, name, access
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path}: cannot be downloaded and is not in the cache either ({reason[0]})"
        ) from None
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{path}: has no weights in safetensors, and a pickle is never opened; if you trust it, "
            "convert it once: transformers' Model.from_pretrained(NAME).save_pretrained(DIR)"
        )
    return folder


def origin(path: str | Path, folder: Path) -> dict[str, str]:
    """Where the weights of a folder come from: dict(name, license), as its README.md says.

    name: its base model, if it has one, else that of the hub, or the folder's. license: an
    identifier of the hub's, empty where nothing says it.
    """
    card = folder / "README.md"
    head = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = head.split("\n---", 1)[0] if head.startswith("---") else ""

    def field(name):  # a value, or the first of a list
        found = re.search(rf"^{name}:[ \t]*(?:\n\s*-[ \t]*)?['\"]?([\w./-]+)", head, re.MULTILINE)
        return found[1] if found else ""

    cached = re.search(r"models--([^/]+)/snapshots/[^/]+$", folder.as_posix())
    known = _hub_name(path) or (cached and cached[1].replace("--", "/"))
    name = field("base_model") or known or folder.resolve().name
    published = _PUBLISHED_LICENCE if _PUBLISHED.fullmatch(name) else ""
    return dict(name=name, license=field("license_name") or field("license") or published)


def check_absent(folder: Path) -> None:
    """Raises UserError, one line, where there is something already."""
    if folder.exists():
        raise UserError(f"{folder}: is there already; expected the name of a folder to make")


def write(
    folder: Path, configs: Mapping[str, dict], tensors: Mapping[str, np.ndarray], card: str,
    files: Iterable[Path] = (),
) -> None:  # fmt: skip
    """Writes a folder: JSON files by name, model.safetensors, README.md and copies of `files`.

    The folder is there as a whole or not at all.

    Raises UserError, one line, where there is something already.
    """
    check_absent(folder)
    with replacing(folder) as temporary:
        temporary.mkdir()
        for name, content in configs.items():
            (temporary / name).write_text(json.dumps(content, indent=2) + "\n")
        (temporary / "README.md").write_text(card, encoding="utf-8")
        for path in files:
            shutil.copyfile(path, temporary / path.name)
        # PyTorch's programs read nothing without being told that it is theirs.
        weights = temporary / WEIGHTS
        with naming(folder, safetensors.SafetensorError):
            safetensors.numpy.save_file(dict(tensors), weights, metadata=dict(format="pt"))
        weights.chmod(0o644)  # safetensors lets nobody else read it


class Part(NamedTuple):
    """A part of a model: its name, where its first weights come from (see `origin`; None for random
    ones), and for how many steps they were trained here."""

    name: str
    origin: Mapping[str, str] | None
    history: str


def card(title: str, about: Sequence[str], parts: Sequence[Part]) -> str:
    """The text of a README.md, with the head that the hub reads, and the licence of every part.

    about: paragraphs.
    """
    origins = [part.origin for part in parts if part.origin]
    head = ["library_name: transformers"]
    if origins:
        names = list(dict.fromkeys(source["name"] for source in origins))
        head += ["base_model:", *(f"- {name}" for name in names)]
    licences = sorted({source["license"] for source in origins if source["license"]})
    if len(licences) == 1:
        head.append(f"license: {licences[0]}")
    elif licences:
        head += ["license: other", f"license_name: {'-and-'.join(licences)}"]
    start = [f"{_start(part)} {part.history}".strip() for part in parts]
    end = " ".join([*start, "Written by indep_jax."])
    return "\n\n".join(["\n".join(["---", *head, "---"]), f"# {title}", *about, end]) + "\n"


def _start(part: Part) -> str:
    first = f"The first weights of the {part.name} were"
    if part.origin is None:
        return f"{first} random."
    source, licence = part.origin["name"], part.origin["license"]
    if licence:
        return f"{first} those of {source}, whose licence, {licence}, holds for these as well."
    return (
        f"{first} those of {source}, which do not say their licence; find it out before you pass "
        f"these on (the EnCodec and MusicGen weights that Meta published are {_PUBLISHED_LICENCE})."
    )


def _hub_name(path: str | Path) -> str | None:
    text = str(path)
    return text.removeprefix("hf:") if text.startswith("hf:") else None
