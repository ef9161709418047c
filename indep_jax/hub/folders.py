"""Hugging Face folders as a whole: where one is, where its weights come from, writing one."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

WEIGHTS = "model.safetensors"
FILES = ["*.json", "*.safetensors", "README.md"]
# Of the folders that people keep without the card that says so.
_PUBLISHED = re.compile(r"facebook/(encodec|musicgen)[-_].*")
_PUBLISHED_LICENCE = "cc-by-nc-4.0"


def locate(path: str | Path) -> Path:
    """The local folder of a path, or of "hf:NAME", a model of the Hugging Face hub.

    A model of the hub is downloaded, or found in the cache where the hub cannot be reached. Raises
    ValueError, one line, where neither is possible.
    """
    name = _hub_name(path)
    if name is None:
        return Path(path)
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            f"{path}: huggingface_hub is not installed: pip install huggingface_hub, or give the "
            "folder of a model that you have"
        ) from None
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=FILES))
    except Exception as error:  # of many kinds: network, proxy, name, access
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
    try:
        return Path(
            huggingface_hub.snapshot_download(name, allow_patterns=FILES, local_files_only=True)
        )
    except Exception:
        raise ValueError(
            f"{path}: cannot be downloaded and is not in the cache either ({reason[0]})"
        ) from None


def origin(path: str | Path, folder: Path) -> dict[str, str]:
    """Where the weights of a folder come from: dict(name, license), as its README.md says.

    name: its base model, if it has one, else that of the hub, or the folder's. license: an
    identifier of the hub's, empty where nothing says it.
    """
    card = folder / "README.md"
    head = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = head.split("\n---", 1)[0] if head.startswith("---") else ""

    def field(name):  # a value, or the first of a list
        found = re.search(rf"^{name}:\s*(?:-\s*)?['\"]?([\w./-]+)", head, re.MULTILINE)
        return found[1] if found else ""

    cached = re.search(r"models--([^/]+)/snapshots/[^/]+$", folder.as_posix())
    known = _hub_name(path) or (cached and cached[1].replace("--", "/"))
    name = field("base_model") or known or folder.resolve().name
    published = _PUBLISHED_LICENCE if _PUBLISHED.fullmatch(name) else ""
    return dict(name=name, license=field("license") or published)


def check_absent(folder: Path) -> None:
    """Raises ValueError, one line, where there is something already."""
    if folder.exists():
        raise ValueError(f"{folder}: is there already; expected the name of a folder to make")


def write(
    folder: Path, configs: Mapping[str, dict], tensors: Mapping[str, np.ndarray], card: str,
    files: Iterable[Path] = (),
) -> None:  # fmt: skip
    """Writes a folder: JSON files by name, model.safetensors, README.md and copies of `files`.

    Written beside, then renamed: it is there as a whole or not at all.

    Raises ValueError, one line, where there is something already.
    """
    check_absent(folder)
    beside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        for name, content in configs.items():
            (beside / name).write_text(json.dumps(content, indent=2) + "\n")
        (beside / "README.md").write_text(card, encoding="utf-8")
        for path in files:
            shutil.copyfile(path, beside / path.name)
        # PyTorch's programs read nothing without being told that it is theirs.
        safetensors.numpy.save_file(dict(tensors), beside / WEIGHTS, metadata=dict(format="pt"))
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def card(
    title: str, about: list[str], source: Mapping[str, str] | None, history: str, of: str = ""
) -> str:
    """The text of a README.md, with the head that the hub reads.

    about: paragraphs. source: where the first weights come from (see `origin`), None for random
    ones. history: what became of them, a sentence or nothing. of: whose weights these are.
    """
    head = ["library_name: transformers"]
    if source is None:
        start = f"The first weights{of} were random."
    else:
        head.append(f"base_model: {source['name']}")
        if source["license"]:
            head.append(f"license: {source['license']}")
            terms = f"whose licence, {source['license']}, holds for these as well"
        else:
            terms = (
                "which do not say their licence; find it out before you pass these on (the EnCodec "
                f"and MusicGen weights that Meta published are {_PUBLISHED_LICENCE})"
            )
        start = f"The first weights{of} were those of {source['name']}, {terms}."
    start = f"{start} {history}".strip() + " Written by indep_jax."
    return "\n\n".join(["\n".join(["---", *head, "---"]), f"# {title}", *about, start]) + "\n"


def _hub_name(path: str | Path) -> str | None:
    text = str(path)
    return text.removeprefix("hf:") if text.startswith("hf:") else None
