"""TFDS datasets of audio that were prepared as ArrayRecord, read without TensorFlow.

`tfds:NAME[:SPLIT]` (data/sources.py). TFDS itself decodes its Audio feature by TensorFlow alone, so
this reads what it wrote: dataset_info.json, features.json and the records, tf.train.Example protos.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import threading
import zlib
from typing import Any, NamedTuple

import numpy as np
import soundfile

from indep_jax.data import arrayrecord
from indep_jax.support import progress
from indep_jax.support.errors import UserError
from indep_jax.support.files import replace_file

INDEX = "indep_jax.json"  # in the dataset's folder: saves reading every record when it is opened
CAPTIONS = ("caption", "description", "text")  # features that may hold a caption, best first

_importing = threading.Lock()


class Format(NamedTuple):
    """How the records of a dataset hold their audio.

    feature: its name.
    encoding: "none" (a list of samples), "bytes", "zlib", or "file" (a whole audio file).
    dtype: of the samples.
    channels: of the samples.
    bits: of integer samples, 16 or 32.
    """

    feature: str
    encoding: str
    dtype: str
    channels: int
    bits: int = 16


class Record(NamedTuple):
    """One record of a shard, and what its audio is; `problem` is why it has none."""

    path: str
    number: int
    frames: int = 0
    sample_rate: int = 0
    channels: int = 0
    caption: str = ""
    problem: str = ""


def find(name: str) -> pathlib.Path:
    """Return the folder of a prepared dataset: DATASET, DATASET/CONFIG or DATASET/CONFIG/VERSION.

    Looked for in $TFDS_DATA_DIR, or where TFDS puts datasets, ~/tensorflow_datasets; the highest
    version counts. An absolute path is taken as it is.

    Raises UserError, one line, where there is no such dataset, or several configs of it.
    """
    place = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = pathlib.Path(place).expanduser() / pathlib.Path(name).expanduser()
    found = [path.parent for path in folder.rglob("dataset_info.json")]
    found = [path for path in found if "incomplete" not in path.name]
    if not found:
        more = ""
        if name.split("/")[0] == "indep_scores":
            more = "; python launch/render_scores.py makes it"
        raise UserError(f"{folder}: no prepared TFDS dataset (TFDS_DATA_DIR says where){more}")
    configs = {path.parent if path != folder else path for path in found}
    if len(configs) > 1:
        names = ", ".join(sorted(path.name for path in configs))
        raise UserError(f"{folder}: has several configs, {names}; expected tfds:{name}/CONFIG")
    return max(found, key=_version)


def _version(folder: pathlib.Path) -> list[int]:
    return [int(part) for part in folder.name.split(".") if part.isdigit()]


def read_index(folder: pathlib.Path) -> tuple[Format, dict[str, list[Record]]]:
    """Return how a dataset's records hold audio, and the records of each of its TFDS splits.

    Reads every record once, and keeps the result in INDEX if the folder can be written. Raises
    UserError for a dataset that is not of audio, or not in ArrayRecord.
    """
    info, features = (_read_json(folder / f"{n}.json") for n in ("dataset_info", "features"))
    if info.get("fileFormat") != "array_record":
        raise UserError(
            f"{folder}: its files are {info.get('fileFormat', 'tfrecord')}, expected array_record; "
            "prepare it with file_format='array_record'"
        )
    audio, sample_rate = _audio_feature(folder, features)
    shards = {split["name"]: _shards(folder, info, split) for split in info["splits"]}
    missing = [path for paths in shards.values() for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such file; prepare the dataset again")
    sizes = {path.name: path.stat().st_size for paths in shards.values() for path in paths}

    try:
        index = _read_json(folder / INDEX)
        if index["sizes"] == sizes:
            return Format(*index["format"]), {
                split: [Record(str(folder / r[0]), *r[1:]) for r in index["records"][split]]
                for split in shards
            }
    except (ValueError, KeyError, TypeError):
        pass  # there is none yet
    records, peak = {}, 0.0
    for split, paths in shards.items():
        records[split] = []
        for path in paths:
            try:
                numbers = range(arrayrecord.count(path))
            except OSError as error:
                raise UserError(f"{path}: {error.strerror}") from None
            for number in progress.each(numbers, f"index {path.name}"):
                record, loudest = _look(path, number, audio, sample_rate)
                records[split].append(record)
                peak = max(peak, loudest)
    # Samples wider than 16 bits are read as 16 where none of the dataset needs more: that is how
    # TFDS stores 16-bit files unless told otherwise.
    audio = audio._replace(bits=16 if peak <= 2**15 else 32)
    index = dict(
        sizes=sizes,
        format=audio,
        records={s: [(pathlib.Path(r.path).name, *r[1:]) for r in rs] for s, rs in records.items()},
    )
    try:
        replace_file(folder / INDEX, json.dumps(index))
    except OSError:
        pass  # somebody else's folder: it is read anew each time
    return audio, records


def to_file(content: bytes, audio: Format, sample_rate: int) -> io.BytesIO:
    """Return the audio of a record as a file: the one that it holds, or a wav of its samples.

    Raises OSError for a record without audio.
    """
    try:
        samples = _samples(_parse(content), audio)
    except (ValueError, IndexError, zlib.error) as error:
        raise OSError(" ".join(str(error).split())) from None
    if isinstance(samples, bytes):
        return io.BytesIO(samples)
    if np.issubdtype(samples.dtype, np.integer):
        subtype = f"PCM_{audio.bits}"
        samples = samples.astype(f"int{audio.bits}")
    else:
        subtype, samples = "FLOAT", samples.astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, subtype, format="WAV")
    file.seek(0)
    return file


def _look(path, number, audio: Format, sample_rate: int | None) -> tuple[Record, float]:
    """Return a record's index entry, and the largest of its samples if they are wide integers."""
    try:
        features = _parse(arrayrecord.read(path, number))
        samples = _samples(features, audio)
        if sample_rate is None:
            sample_rate = int(features["sample_rate"].int64_list.value[0])
        if isinstance(samples, bytes):
            about = soundfile.info(io.BytesIO(samples))
            frames, sample_rate, channels = about.frames, about.samplerate, about.channels
        else:
            frames, channels = samples.shape
    except (RuntimeError, ValueError, IndexError, KeyError, zlib.error) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        return Record(str(path), number, problem=problem), 0.0
    caption = ""
    for name in CAPTIONS:
        if name in features and features[name].bytes_list.value:
            caption = features[name].bytes_list.value[0].decode("utf-8", "replace")
            break
    peak = 0.0
    if audio.encoding != "file" and audio.dtype in ("int32", "int64") and frames:
        peak = float(np.abs(samples).max())
    problem = "" if frames else "no frames"
    return Record(str(path), number, frames, sample_rate, channels, caption, problem), peak


def _parse(content: bytes) -> Any:
    """Parse a tf.train.Example; return its features by name."""
    with _importing:  # threads that import this package at once lock each other out for ever
        # It takes seconds, which other sources do without.
        from tensorflow_datasets.proto import tf_example_pb2
    try:
        return tf_example_pb2.Example.FromString(content).features.feature
    except Exception as error:  # protobuf's DecodeError, whose module depends on its version
        raise ValueError(f"not a tf.train.Example ({error})") from None


def _samples(features: Any, audio: Format) -> np.ndarray | bytes:
    """Return the samples [time, channels] of a record, or the audio file that it holds."""
    if audio.feature not in features:
        raise ValueError(f"has no feature {audio.feature!r}")
    feature = features[audio.feature]
    if audio.encoding == "none":
        kind = "float_list" if feature.HasField("float_list") else "int64_list"
        return np.array(getattr(feature, kind).value, audio.dtype).reshape(-1, audio.channels)
    content = feature.bytes_list.value[0]
    if audio.encoding == "file":
        return content
    if audio.encoding == "zlib":
        content = zlib.decompress(content)
    return np.frombuffer(content, audio.dtype).reshape(-1, audio.channels)


def _audio_feature(folder: pathlib.Path, features: dict) -> tuple[Format, int | None]:
    """Return the feature that holds audio, and its sample rate if that is not in the records."""
    named = features.get("featuresDict", {}).get("features", {})
    for name, feature in named.items():  # noqa: B007  (read after the loop)
        if feature.get("pythonClassName", "").endswith(".Audio") and "audio" in feature:
            about = feature["audio"]
            sample_rate = int(about.get("sampleRate", 0)) or None
            break
    else:
        name, sample_rate = "audio", None
        about = named.get(name, {}).get("tensor")
        if about is None:
            raise UserError(f"{folder}: expected an Audio feature, or a Tensor named audio")
    if about.get("lazyDecode"):
        return Format(name, "file", "", 0), sample_rate or 0
    if sample_rate is None and "sample_rate" not in named:
        raise UserError(f"{folder}: neither its feature {name} nor its records say a sample rate")
    shape = [int(n) for n in about.get("shape", {}).get("dimensions", [])]
    dtype = about.get("dtype", "int64")
    known = dtype in ("int16", "int32", "int64", "float32", "float64")
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] < 1) or not known:
        raise UserError(f"{folder}: feature {name} is {dtype} {shape}, expected [time, channels]")
    channels = shape[1] if len(shape) == 2 else 1
    return Format(name, about.get("encoding", "none").lower(), dtype, channels), sample_rate


def _shards(folder: pathlib.Path, info: dict, split: dict) -> list[pathlib.Path]:
    count = len(split.get("shardLengths", []))
    template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    return [
        folder
        / template.format(
            DATASET=info["name"],
            SPLIT=split["name"],
            FILEFORMAT=info["fileFormat"],
            SHARD_X_OF_Y=f"{number:05d}-of-{count:05d}",
            SHARD_INDEX=f"{number:05d}",
            NUM_SHARDS=f"{count:05d}",
        )
        for number in range(count)
    ]


def _read_json(path: pathlib.Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected JSON ({error})") from None
