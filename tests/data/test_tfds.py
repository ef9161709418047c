"""`tfds:`: what was written as a TFDS dataset is what is read, without TensorFlow."""

import io
import json
import sys

import numpy as np
import pytest
import soundfile
import tensorflow_datasets
from google.protobuf import json_format
from tensorflow_datasets.core.proto import feature_pb2

from indep_jax import data
from indep_jax.data import sources, tfds

RATE = 8_000
LENGTHS = {"train": (8_000, 12_345, 400), "validation": (5_000,), "test": (6_000, 7_000)}


def _samples(split, number, channels=1):
    rng = np.random.default_rng([len(split), number])
    return rng.integers(-(2**15), 2**15, (LENGTHS[split][number], channels)).astype(np.int16)


def _prepare(folder, audio, encode=lambda samples: samples, caption="caption", **features):
    """Writes a dataset tiny_audio whose feature `audio` holds `encode(samples)`."""

    class TinyAudio(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tensorflow_datasets.core.Version("1.2.0")

        def _info(self):
            fields = dict(audio=audio, **{caption: tensorflow_datasets.features.Text()}, **features)
            return tensorflow_datasets.core.DatasetInfo(
                builder=self, features=tensorflow_datasets.features.FeaturesDict(fields)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in LENGTHS}

        def _generate_examples(self, split):
            for number in range(len(LENGTHS[split])):
                example = {"audio": encode(_samples(split, number)), caption: f"{split} {number}"}
                yield number, example | dict.fromkeys(features, RATE)

    builder = TinyAudio(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return folder / "tiny_audio" / "1.2.0"


def _as_audio(folder, **fields):
    """Says in features.json that `audio` is an Audio, as TFDS with TensorFlow would have said."""
    path = folder / "features.json"
    features = json.loads(path.read_text())
    about = json_format.MessageToDict(feature_pb2.AudioFeature(**fields))
    name = "tensorflow_datasets.core.features.audio_feature.Audio"
    features["featuresDict"]["features"]["audio"] = dict(pythonClassName=name, audio=about)
    path.write_text(json.dumps(features))


def _tensor(dtype, encoding="none"):
    return tensorflow_datasets.features.Tensor(shape=(None, 1), dtype=dtype, encoding=encoding)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


def _check(source):
    """Every record's audio is what was written, to the scale that float32 has of 16 bits."""
    for split in ("train", "valid", "test"):
        its_split = "validation" if split == "valid" else split
        opened = data.open_source(source, split)
        assert sorted(file.frames for file in opened.files) == sorted(LENGTHS[its_split])
        for file in opened.files:
            number = LENGTHS[its_split].index(file.frames)
            assert file.caption == f"{its_split} {number}"
            expected = _samples(its_split, number) / np.float32(2**15)
            np.testing.assert_array_equal(data.read_file(file, RATE, 1), expected)
            part = data.read_segment(file, 0.025, 0.02, RATE, 1)
            np.testing.assert_array_equal(part, expected[200:360])
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("encoding", ["none", "bytes", "zlib"])
def test_samples_are_what_was_written(place, encoding):
    folder = _prepare(place, _tensor(np.int16, encoding), sample_rate=np.int32)
    _check("tfds:tiny_audio")
    assert (folder / tfds.INDEX).is_file()
    _check(f"tfds:{folder}")  # now by the index, and by its path
    everything = data.open_source("tfds:tiny_audio/1.2.0", "all")
    assert len(everything.files) == 6 and len({file.name for file in everything.files}) == 6


def test_batches_are_drawn_from_records(place):
    _prepare(place, _tensor(np.int16, "bytes"), sample_rate=np.int32)
    source = data.open_source("tfds:tiny_audio", "train")
    settings = dict(seed=1, batch_size=4, seconds=0.05, sample_rate=RATE, channels=1)
    batches = data.segments(source, **settings)
    whole = [data.read_file(file, RATE, 1)[:, 0] for file in source.files]
    for audio, number in zip(batches[0]["audio"][..., 0], batches[0]["file"], strict=True):
        starts = np.flatnonzero(whole[number][: -len(audio) + 1] == audio[0])
        assert any(np.array_equal(whole[number][s : s + len(audio)], audio) for s in starts)
    iterator = data.iterate(batches, 2, 1)
    np.testing.assert_array_equal(next(iterator)["audio"], batches[2]["audio"])
    iterator.close()


def test_audio_feature_of_integers(place):
    folder = _prepare(place, _tensor(np.int64), lambda x: x.astype(np.int64))
    shape = dict(dimensions=[-1, 1])
    _as_audio(folder, shape=shape, dtype="int64", sample_rate=RATE, encoding="none")
    _check("tfds:tiny_audio")


def test_audio_feature_of_wide_integers(place):
    folder = _prepare(place, _tensor(np.int64), lambda x: x.astype(np.int64) * 2**16)
    shape = dict(dimensions=[-1, 1])
    _as_audio(folder, shape=shape, dtype="int64", sample_rate=RATE, encoding="none")
    _check("tfds:tiny_audio")


def test_audio_feature_of_floats(place):
    folder = _prepare(place, _tensor(np.float32), lambda x: x / np.float32(2**15))
    shape = dict(dimensions=[-1, 1])
    _as_audio(folder, shape=shape, dtype="float32", sample_rate=RATE, encoding="none")
    _check("tfds:tiny_audio")


def test_audio_feature_of_whole_files(place):
    def flac(samples):
        file = io.BytesIO()
        soundfile.write(file, samples, RATE, format="FLAC")
        return file.getvalue()

    folder = _prepare(place, tensorflow_datasets.features.Text(), flac)
    _as_audio(folder, shape=dict(dimensions=[-1]), dtype="int64", lazy_decode=True)
    _check("tfds:tiny_audio")


def test_one_split_is_split_by_a_hash(place):
    _prepare(place, _tensor(np.int16, "bytes"), sample_rate=np.int32)
    parts = [data.open_source("tfds:tiny_audio:train", split).files for split in sources.SPLITS]
    names = [file.name for part in parts for file in part]
    assert len(names) == len(set(names)) == 3 and all(parts)
    assert all("-train." in name for name in names)


def test_other_caption_and_damaged_records(place, capsys):
    def maybe_empty(samples):
        return samples if len(samples) != 400 else samples[:0]

    _prepare(place, _tensor(np.int16, "bytes"), maybe_empty, "text", sample_rate=np.int32)
    sources._named.clear()
    source = data.open_source("tfds:tiny_audio", "train")
    assert {file.caption for file in source.files} == {"train 0", "train 1"}
    assert len(source.unreadable) == 1
    assert "1 unreadable" in capsys.readouterr().err
    with pytest.raises(ValueError, match="1 of 3 files are unreadable, more than max_unreadable"):
        data.open_source("tfds:tiny_audio", "train", max_unreadable=0.1)


def test_index_follows_its_shards(place):
    folder = _prepare(place, _tensor(np.int16, "bytes"), sample_rate=np.int32)
    data.open_source("tfds:tiny_audio", "train")
    index = json.loads((folder / tfds.INDEX).read_text())
    index["records"]["train"] = []
    (folder / tfds.INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match="no readable record in split train"):
        data.open_source("tfds:tiny_audio", "train")  # it is the index that is read
    index["sizes"] = dict.fromkeys(index["sizes"], 1)
    (folder / tfds.INDEX).write_text(json.dumps(index))
    _check("tfds:tiny_audio")
    (folder / tfds.INDEX).write_text("{")
    _check("tfds:tiny_audio")


def _edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_mistakes_get_one_line(place):
    def fails(source, split, message):
        with pytest.raises(ValueError) as error:
            data.open_source(source, split)
        assert message in str(error.value) and "\n" not in str(error.value)

    fails("tfds:tiny_audio", "train", "no prepared TFDS dataset (")
    fails("tfds:indep_scores/2h", "train", "launch/render_scores.py makes it")
    folder = _prepare(place, _tensor(np.int16, "bytes"), sample_rate=np.int32)
    fails("tfds:tiny_audio:dev", "train", "dev is none of its splits, train, validation, test")
    for config in ("a", "b"):
        (place / "several" / config / "1.0.0").mkdir(parents=True)
        (place / "several" / config / "1.0.0" / "dataset_info.json").write_text("{}")
    fails("tfds:several", "train", "has several configs, a, b; expected tfds:several/CONFIG")
    shard = next(folder.glob("*train*"))
    content = shard.read_bytes()
    shard.write_bytes(content[:100])
    fails("tfds:tiny_audio", "train", f"{shard.name}: not a whole ArrayRecord file")
    shard.unlink()
    fails("tfds:tiny_audio", "train", f"{shard.name}: no such file; prepare the dataset again")
    shard.write_bytes(content)
    features = (folder / "features.json").read_text()
    (folder / "features.json").write_text(features.replace('"audio"', '"sound"'))
    fails("tfds:tiny_audio", "train", "expected an Audio feature, or a Tensor named audio")
    (folder / "features.json").write_text(features.replace('"sample_rate"', '"rate"'))
    fails("tfds:tiny_audio", "train", "neither its feature audio nor its records say a sample rate")
    (folder / "features.json").write_text(features)
    _edit(folder / "dataset_info.json", fileFormat="tfrecord")
    fails("tfds:tiny_audio", "train", "its files are tfrecord, expected array_record")


def test_record_that_is_gone_or_no_example(place):
    folder = _prepare(place, _tensor(np.int16, "bytes"), sample_rate=np.int32)
    (file,) = data.open_source("tfds:tiny_audio", "valid").files
    with pytest.raises(OSError, match="not a tf.train.Example|has no feature"):
        tfds.to_file(b"\x0a\x05wrong", file.format, RATE)
    with pytest.raises(OSError, match="has no feature 'audio'"):
        tfds.to_file(b"", file.format, RATE)
    next(folder.glob("*validation*")).unlink()
    with pytest.raises(FileNotFoundError):
        data.read_file(file, RATE, 1)
