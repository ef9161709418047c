"""ArrayRecord shards hold the music they were packed from, piece by piece."""

import json

import numpy as np
import pytest
import soundfile

from indep_jax import data
from indep_jax.data import records, sources

RATE = 8_000


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    entries = []
    for number, (seconds, split) in enumerate([(5.0, "train"), (2.3, "train"), (1.5, "valid")]):
        audio = 0.2 * rng.standard_normal((round(seconds * RATE), 2))
        soundfile.write(tmp_path / f"{number}.wav", audio, RATE)
        entries.append(dict(path=f"{number}.wav", split=split, caption=f"noise {number}"))
    (tmp_path / "manifest.json").write_text(json.dumps(dict(files=entries)))
    return f"folder:{tmp_path}"


def pack(folder, out, **changes):
    return records.pack(folder, out, **dict(sample_rate=RATE, channels=1, seconds=2.0) | changes)


def test_pieces_are_the_files(folder, tmp_path):
    paths = pack(folder, tmp_path / "out", shards=2)
    assert [path.name for path in paths] == [
        "train-00000-of-00002.array_record",
        "train-00001-of-00002.array_record",
        "valid-00000-of-00002.array_record",
    ]
    glob = f"array_record:{tmp_path}/out/*.array_record"
    packed, whole = (data.open_source(source, "train") for source in (glob, folder))
    assert [file.origin for file in packed.files] == ["0.wav"] * 3 + ["1.wav"] * 2
    assert packed.origins == [0, 0, 0, 3, 3] and whole.origins == [0, 1]
    assert packed.files[3].caption == "noise 1"
    assert packed.seconds == pytest.approx(whole.seconds)
    for file in whole.files:
        mine = [piece for piece in packed.files if piece.origin == file.name]
        audio = np.concatenate([data.read_file(piece, RATE, 1) for piece in mine])
        np.testing.assert_allclose(audio, data.read_file(file, RATE, 1), atol=1 / 2**15)
    assert len(data.open_source(glob, "valid").files) == 1
    with pytest.raises(ValueError, match="no readable record in split test"):
        data.open_source(glob, "test")


def test_batches_come_from_records_with_their_origin(folder, tmp_path):
    pack(folder, tmp_path / "out")
    source = data.open_source(f"array_record:{tmp_path}/out/train*.array_record", "train")
    sizes = dict(seed=0, batch_size=16, seconds=0.25, sample_rate=RATE, channels=1)
    batch = data.segments(source, **sizes)[0]
    assert set(batch["file"]) == {0, 3}
    wholes = {
        file.name: data.read_file(file, RATE, 1)[:, 0]
        for file in data.open_source(folder, "train").files
    }
    for audio, number in zip(batch["audio"][..., 0], batch["file"]):
        whole = wholes[source.files[number].origin]
        found = np.lib.stride_tricks.sliding_window_view(whole, len(audio))
        assert np.abs(found - audio).max(1).min() < 1 / 2**15 + 1e-6


def test_an_interrupted_packing_goes_on(folder, tmp_path, monkeypatch):
    read, out, calls = data.transforms.read_segment, tmp_path / "out", []

    def interrupted(file, *place):
        calls.append(file.name)
        if file.name == "1.wav":
            raise KeyboardInterrupt
        return read(file, *place)

    with monkeypatch.context() as patch:
        patch.setattr(data.transforms, "read_segment", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack(folder, out, shards=2)
    assert [path.name for path in out.glob("*.array_record")] == [
        "train-00000-of-00002.array_record"
    ]
    assert not list(out.glob("*.tmp"))
    first = calls.count("0.wav")
    calls.clear()
    monkeypatch.setattr(
        data.transforms,
        "read_segment",
        lambda file, *place: calls.append(file.name) or read(file, *place),
    )
    pack(folder, out, shards=2)
    assert first and "0.wav" not in calls and "1.wav" in calls
    written = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    pack(folder, out, shards=2)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == written
    for changes in (dict(sample_rate=RATE // 2), dict(seconds=1.0), dict(channels=2)):
        with pytest.raises(ValueError, match=f"holds other results: {next(iter(changes))}: "):
            pack(folder, out, shards=2, **changes)
    with pytest.raises(ValueError, match="channels: expected more than 0, not 0"):
        pack(folder, out, channels=0)


def test_a_file_that_breaks_is_left_out_whole(folder, tmp_path, monkeypatch, capsys):
    read = data.transforms.read_segment

    def broken(file, start, *rest):
        if file.name == "0.wav" and start > 3:
            raise OSError("gone")
        return read(file, start, *rest)

    monkeypatch.setattr(data.transforms, "read_segment", broken)
    sources._named.clear()
    pack(folder, tmp_path / "out")
    assert "0.wav (gone)" in capsys.readouterr().err
    monkeypatch.undo()
    packed = data.open_source(f"array_record:{tmp_path}/out/*", "train")
    assert [file.origin for file in packed.files] == ["1.wav"] * 2
    (whole,) = [f for f in data.open_source(folder, "train").files if f.name == "1.wav"]
    audio = np.concatenate([data.read_file(piece, RATE, 1) for piece in packed.files])
    np.testing.assert_allclose(audio, data.read_file(whole, RATE, 1), atol=1 / 2**15)


def test_files_of_one_name_in_two_folders_are_two(folder, tmp_path):
    for out in ("a", "b"):
        pack(folder, tmp_path / out)
    source = data.open_source(f"array_record:{tmp_path}/?/train*", "train")
    assert sorted({file.origin for file in source.files}) == [
        "a/0.wav",
        "a/1.wav",
        "b/0.wav",
        "b/1.wav",
    ]
    assert len(set(file.name for file in source.files)) == len(source.files) == 10


def test_damaged_shards_are_named(folder, tmp_path, capsys):
    train, valid = pack(folder, tmp_path / "out")
    sources._named.clear()
    sources.index_path(valid).write_text("{}")
    source = data.open_source(f"array_record:{tmp_path}/out/*", "train")
    error = capsys.readouterr().err
    assert "valid-00000-of-00001.array_record" in error and "no index of" in error
    train.write_bytes(train.read_bytes()[:1_000])
    with pytest.raises(sources.READ_ERRORS):
        data.read_file(source.files[0], RATE, 1)
