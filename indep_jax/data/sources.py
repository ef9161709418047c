"""Sources of music, as a table of the readable files of one split.

`folder:PATH`, `sample:`, `array_record:GLOB` (data/records.py), or `tfds:NAME[:SPLIT]`
(data/tfds.py).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import glob
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Sequence

import soundfile

from indep_jax.data import captions, tfds
from indep_jax.support.errors import UserError

SPLITS = ("train", "valid", "test")
EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
SAMPLE_FOLDER = pathlib.Path(__file__).parent / "sample"

_VALIDATION = ("validation", "valid", "val", "dev")  # what TFDS datasets call it
_VALID_BELOW, _TEST_BELOW = 0.05, 0.10  # shares of the files held out where no manifest says

# Limits that a damaged header may exceed, but music does not. Silence compresses best, in FLAC: a
# few hundred frames per byte.
_SAMPLE_RATES = range(1_000, 1_000_001)
_MAX_CHANNELS = 64
_MAX_FRAMES_PER_BYTE = 4_096

# Raised by soundfile and the operating system for a file that cannot be read.
READ_ERRORS = (soundfile.SoundFileError, OSError, EOFError)

_named: set[str] = set()  # unreadable files that this process has already named


@dataclasses.dataclass(frozen=True, slots=True)
class AudioFile:
    """One readable file: small, so that a table of them travels to worker processes."""

    name: str  # relative to the source's folder
    path: str
    frames: int  # at sample_rate, as the header says
    sample_rate: int
    channels: int
    split: str = "train"
    caption: str = ""
    record: int | None = None  # path is an ArrayRecord shard, and this the file's record in it
    origin: str = ""  # the file that this is a piece of, where it is one
    format: tfds.Format | None = None  # how a record of a TFDS dataset holds it

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


@dataclasses.dataclass(frozen=True, repr=False)
class AudioSource:
    """The readable files of one split.

    Attributes:
      source: as the user wrote it, for messages.
      split: "train", "valid", "test" or "all".
      files: sorted by name.
      unreadable: names of the files that could not be opened.
    """

    source: str
    split: str
    files: list[AudioFile]
    unreadable: list[str]

    @property
    def seconds(self) -> float:
        return sum(file.seconds for file in self.files)

    @property
    def origins(self) -> list[int]:
        """For each file the index of the first one with the same origin; whole files are their own.

        These are a batch's `file` entries: pieces of one file are not independent draws.
        """
        first: dict[str, int] = {}
        return [
            first.setdefault(file.origin, number) if file.origin else number
            for number, file in enumerate(self.files)
        ]


def open_source(source: str, split: str, max_unreadable: float = 1.0) -> AudioSource:
    """Open a source; read headers only (of a TFDS dataset, once, every record).

    `folder:PATH` is searched recursively for wav, flac, ogg, opus and mp3 (hidden names are left
    out). Where PATH/manifest.json exists, it alone says which files there are and which split each
    belongs to: {"files": [{"path": relative, "split": "train" | "valid" | "test", "caption":
    optional}]}. Otherwise a hash of the relative name holds out about 5% of the files for
    validation and 5% for test, at least one each; if a folder has fewer than three files, splits
    share them, and a line on stderr says so. Captions are the manifest's, or those beside the files
    (data/captions.py).

    `array_record:GLOB` are shards that launch/pack_audio.py wrote; their indices say the splits.

    `tfds:NAME` is a TFDS dataset of audio, prepared as ArrayRecord, with its own train, validation
    and test split; `tfds:NAME:SPLIT` is one of its splits, which a hash splits as it does a folder.

    Files that cannot be opened are counted and named in one line on stderr.

    Raises:
      UserError: one line, for an unknown scheme or split, a missing folder, a folder or split
        without readable audio, a malformed manifest, or a share of unreadable files (of the split,
        or of the folder where a hash splits it) above `max_unreadable`.
    """
    if split not in (*SPLITS, "all"):
        raise UserError(f"split {split!r}: expected one of {', '.join(SPLITS)}, all")
    scheme, _, rest = source.partition(":")
    if scheme == "array_record" and rest:
        return _open_records(source, rest, split, max_unreadable)
    if scheme == "tfds" and rest:
        return _open_tfds(source, rest, split, max_unreadable)
    if scheme == "folder" and rest:
        folder = pathlib.Path(rest).expanduser()
    elif source == "sample:":
        folder = SAMPLE_FOLDER
    else:
        raise UserError(
            f"source {source!r}: expected folder:PATH, array_record:GLOB, tfds:NAME or sample:"
        )
    if not folder.is_dir():
        raise UserError(f"source {source}: {folder} is not a folder")
    manifest = folder / "manifest.json"
    if manifest.exists():
        entries = _read_manifest(manifest)
        listed = [entry for entry in entries if split in (entry["split"], "all")]
        if not listed:
            raise UserError(f"source {source}: {manifest} lists no files of split {split}")
        files, errors = _open_files(folder, listed)
    else:
        names, closed = _find_audio(folder)
        if not names:
            kinds = " ".join(extension[1:] for extension in EXTENSIONS)
            raise UserError(f"source {source}: no audio under {folder}, expected {kinds}")
        texts = captions.read(folder, names)
        entries = [dict(path=name, caption=texts.get(name)) for name in names]
        files, errors = _open_files(folder, entries)
        errors |= closed
    check_unreadable(source, errors, len(files) + len(errors), max_unreadable)
    name_unreadable(f"source {source}", errors)
    if not manifest.exists():
        files = _hash_split(source, files, split)
    if not files:
        raise UserError(
            f"source {source}: no readable file in split {split} ({len(errors)} unreadable)"
        )
    return AudioSource(source, split, files, list(errors))


def open_file(path: str | os.PathLike) -> AudioFile:
    """Open one file by its path. Raises UserError if it cannot be read."""
    files, errors = _open_files(pathlib.Path(), [dict(path=os.fspath(path))])
    if errors:
        raise UserError(f"{path}: {errors[os.fspath(path)]}")
    return files[0]


def index_path(shard: pathlib.Path) -> pathlib.Path:
    """Return the path of a shard's index, which describes its records without reading them."""
    return shard.with_name(shard.name + ".json")


def _open_records(source: str, pattern: str, split: str, max_unreadable: float) -> AudioSource:
    """Open the records of a split in the shards that match a pattern."""
    paths = glob.glob(os.path.expanduser(pattern), recursive=True)
    shards = sorted(pathlib.Path(path) for path in paths if not path.endswith(".json"))
    if not shards:
        raise UserError(f"source {source}: no file matches {pattern}")
    top = os.path.commonpath([shard.parent for shard in shards])
    files, errors = [], {}
    for shard in shards:
        place = os.path.relpath(shard, top)
        try:
            index = json.loads(index_path(shard).read_text(encoding="utf-8"))
            for entry in index["records"]:
                if split not in (entry["split"], "all"):
                    continue
                files.append(
                    AudioFile(
                        name=f"{place}#{entry['record']}",
                        path=str(shard),
                        frames=entry["frames"],
                        sample_rate=index["sample_rate"],
                        channels=index["channels"],
                        split=entry["split"],
                        caption=entry["caption"],
                        record=entry["record"],
                        # Two folders may have packed different files of one name.
                        origin=os.path.join(os.path.dirname(place), entry["origin"]),
                    )
                )
        except OSError as error:
            errors[place] = f"{index_path(shard).name}: {describe_error(error)}"
        except (ValueError, KeyError, TypeError):
            errors[place] = f"{index_path(shard).name} is no index of launch/pack_audio.py"
    check_unreadable(source, errors, len(shards), max_unreadable)
    name_unreadable(f"source {source}", errors)
    if not files:
        raise UserError(f"source {source}: no readable record in split {split}")
    return AudioSource(source, split, files, list(errors))


def _open_tfds(source: str, rest: str, split: str, max_unreadable: float) -> AudioSource:
    """Open the records of a split of a TFDS dataset."""
    name, _, only = rest.partition(":")
    audio, splits = tfds.read_index(tfds.find(name))
    names = dict(valid=_VALIDATION).get(split, (split,))
    if only:
        chosen = [only] if only in splits else []
    elif split == "all":
        chosen = list(splits)
    else:
        chosen = [candidate for candidate in names if candidate in splits][:1]
    if not chosen:
        raise UserError(
            f"source {source}: {only or split} is none of its splits, {', '.join(splits)}; "
            f"tfds:{name}:SPLIT takes one of them and holds out a share of it"
        )
    records = [(its_split, record) for its_split in chosen for record in splits[its_split]]
    files, errors = [], {}
    for its_split, record in records:
        its_name = f"{pathlib.Path(record.path).name}#{record.number}"
        if record.problem:
            errors[its_name] = record.problem
            continue
        files.append(
            AudioFile(
                name=its_name,
                path=record.path,
                frames=record.frames,
                sample_rate=record.sample_rate,
                channels=record.channels,
                split="valid" if its_split in _VALIDATION else its_split,
                caption=record.caption,
                record=record.number,
                format=audio,
            )
        )
    check_unreadable(source, errors, len(records), max_unreadable)
    name_unreadable(f"source {source}", errors)
    if only:
        files = _hash_split(source, files, split)
    if not files:
        raise UserError(f"source {source}: no readable record in split {split}")
    return AudioSource(source, split, files, list(errors))


def name_unreadable(where: str, errors: dict[str, str]) -> None:
    """Print one line that counts and names the files that this process has not named before.

    Args:
      where: the beginning of the line: what was being done.
      errors: what went wrong, by file name.
    """
    new = {name: error for name, error in errors.items() if name not in _named}
    if not new:
        return
    _named.update(new)
    print(f"{where}: {len(new)} unreadable, left out: {_list(new)}", file=sys.stderr, flush=True)


def check_unreadable(source: str, errors: dict[str, str], files: int, limit: float) -> None:
    """Raise UserError, naming the files, if `errors` are more than the share `limit` of `files`."""
    if errors and len(errors) > limit * files:
        raise UserError(
            f"source {source}: {len(errors)} of {files} files are unreadable, more than "
            f"max_unreadable, {limit:g}: {_list(errors)}"
        )


def _list(errors: dict[str, str]) -> str:
    return ", ".join(f"{printable(name)} ({error})" for name, error in errors.items())


def printable(name: str) -> str:
    """Return a file's name on one line, with unprintable characters and broken UTF-8 escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _find_audio(folder: pathlib.Path) -> tuple[list[str], dict[str, str]]:
    """Return the names of audio files at any depth, and the errors of unreadable folders.

    Links are followed, but no folder is entered twice: they may form a cycle, or lead to music that
    is there already. Broken links are listed, so that opening them reports them.
    """
    found, errors, entered = [], {}, set()

    def closed(error: OSError) -> None:
        errors[os.path.relpath(error.filename, folder)] = error.strerror.lower()

    def enter(path: str) -> bool:
        try:
            status = os.stat(path)
        except OSError as error:
            closed(error)
            return False
        identity = status.st_dev, status.st_ino
        if identity in entered:
            return False
        entered.add(identity)
        return True

    enter(str(folder))
    for parent, folders, names in os.walk(folder, onerror=closed, followlinks=True):
        # Filtered in place, as os.walk continues with this list. Links last, so that their targets
        # keep the names that they have without them.
        order = sorted(folders, key=lambda name: (os.path.islink(os.path.join(parent, name)), name))
        folders[:] = [
            name for name in order if not name.startswith(".") and enter(os.path.join(parent, name))
        ]
        for name in names:
            path = os.path.join(parent, name)
            # No other kind of file: reading a pipe would block forever.
            readable = os.path.isfile(path) or not os.path.exists(path)
            if not name.startswith(".") and path.lower().endswith(EXTENSIONS) and readable:
                found.append(pathlib.Path(os.path.relpath(path, folder)).as_posix())
    return sorted(found), errors


def _read_manifest(manifest: pathlib.Path) -> list[dict[str, str]]:
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{manifest}: expected JSON ({error})") from None
    entries = content.get("files") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(f'{manifest}: expected {{"files": [...]}}')
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise UserError(f"{manifest}: files[{position}] has no path")
        if entry.get("split") not in SPLITS:
            raise UserError(
                f"{manifest}: {entry['path']} has split {entry.get('split')!r}, "
                f"expected one of {', '.join(SPLITS)}"
            )
    return sorted(entries, key=lambda entry: entry["path"])


def _open_files(
    folder: pathlib.Path, entries: Sequence[dict[str, str]]
) -> tuple[list[AudioFile], dict[str, str]]:
    """Return the readable files, and the errors of the others by name."""

    def open_one(entry: dict[str, str]) -> AudioFile | str:
        path = folder / entry["path"]
        try:
            with soundfile.SoundFile(os.fsencode(path)) as audio:
                if audio.frames <= 0:
                    return "no frames"
                if audio.samplerate not in _SAMPLE_RATES:
                    return f"a sample rate of {audio.samplerate} Hz"
                if audio.channels > _MAX_CHANNELS:
                    return f"{audio.channels} channels"
                if audio.frames > _MAX_FRAMES_PER_BYTE * path.stat().st_size:
                    return f"its header promises {audio.frames} frames, more than it can hold"
                return AudioFile(
                    name=entry["path"],
                    path=str(path),
                    frames=audio.frames,
                    sample_rate=audio.samplerate,
                    channels=audio.channels,
                    split=entry.get("split", "train"),
                    caption=entry.get("caption") or "",
                )
        except READ_ERRORS as error:
            return describe_error(error)

    # Opening waits for the disk, or for the network behind it.
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
        opened = list(pool.map(open_one, entries))
    files = [result for result in opened if isinstance(result, AudioFile)]
    errors = {
        entry["path"]: result
        for entry, result in zip(entries, opened, strict=True)
        if isinstance(result, str)
    }
    return files, errors


def describe_error(error: Exception) -> str:
    """Return the error in one line, without the path that soundfile puts before the cause."""
    if isinstance(error, soundfile.LibsndfileError):
        return error.error_string.rstrip(".")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _hash_split(source: str, files: list[AudioFile], split: str) -> list[AudioFile]:
    """Return the files of a split, by a hash of the name: the same if other files are added.

    (Except that a folder too small for the shares holds out the files with the lowest hashes.)
    """
    if not files:
        return files
    share = {file.name: _uniform_hash(file.name) for file in files}
    ranked = sorted(files, key=lambda file: share[file.name])
    if len(ranked) < 3:
        if split == "all":
            return files
        print(
            f"source {source}: {len(ranked)} files, fewer than the 3 splits, which share them",
            file=sys.stderr,
            flush=True,
        )
        shared = ranked[-1] if split == "train" else ranked[0]
        return [dataclasses.replace(shared, split=split)]
    valid = max(1, sum(share[file.name] < _VALID_BELOW for file in ranked))
    valid = min(valid, len(ranked) - 2)
    held_out = max(valid + 1, sum(share[file.name] < _TEST_BELOW for file in ranked))
    held_out = min(held_out, len(ranked) - 1)
    names = ["valid"] * valid + ["test"] * (held_out - valid) + ["train"] * (len(ranked) - held_out)
    placed = [dataclasses.replace(file, split=name) for file, name in zip(ranked, names)]
    placed = [file for file in placed if split in (file.split, "all")]
    return sorted(placed, key=lambda file: file.name)


def _uniform_hash(name: str) -> float:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
