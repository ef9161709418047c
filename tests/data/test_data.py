"""Data: a segment is what whole-file resampling would give, an example a function of its index."""

import json
import math
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import soxr

from indep_jax import data
from indep_jax.data import pipeline, sources, transforms


def _music(frames: int, channels: int, seed: int = 0) -> np.ndarray:
    """Band-limited noise with a slow swell: no two places alike, mild for lossy coders."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((frames + 63, channels))
    window = np.hanning(64) / 12
    smooth = np.stack([np.convolve(noise[:, c], window, "valid") for c in range(channels)], axis=1)
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * np.arange(frames) / 30_011)
    return (0.5 * swell[:, None] * smooth).astype(np.float32)


def _write(path, audio: np.ndarray, rate: int, **kwargs) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", rate, audio.shape[1], **kwargs) as handle:
        for start in range(0, len(audio), rate):  # libsndfile's Vorbis coder dislikes long blocks
            handle.write(audio[start : start + rate])


def _folder(tmp_path, lengths, rate=8_000, channels=1):
    """A folder of wav files of these lengths in seconds, all in train, and its source."""
    names = [f"{position}.wav" for position in range(len(lengths))]
    for position, seconds in enumerate(lengths):
        audio = _music(round(seconds * rate), channels, seed=position)
        _write(tmp_path / names[position], audio, rate)
    _manifest(tmp_path, {name: "train" for name in names})
    return data.open_source(f"folder:{tmp_path}", "train")


def _manifest(folder, splits, **more):
    entries = [dict(path=name, split=split, **more) for name, split in splits.items()]
    (folder / "manifest.json").write_text(json.dumps(dict(licence="CC0-1.0", files=entries)))


FORMATS = {
    "wav": ("a.wav", 44_100, dict(subtype="PCM_16")),
    "flac": ("a.flac", 22_050, {}),
    "vorbis": ("a.ogg", 44_100, dict(format="OGG", subtype="VORBIS")),
    "opus": ("a.opus", 48_000, dict(format="OGG", subtype="OPUS")),
    "mp3": ("a.mp3", 44_100, {}),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_segment_equals_a_slice_of_the_whole_file_resampled(tmp_path, kind):
    name, rate, kwargs = FORMATS[kind]
    _write(tmp_path / name, _music(7 * rate + 123, 2), rate, **kwargs)
    (file,) = data.open_source(f"folder:{tmp_path}", "all").files
    whole, _ = soundfile.read(file.path, dtype="float32")
    assert (file.frames, file.sample_rate, file.channels) == (len(whole), rate, 2)
    rng = np.random.default_rng(1)
    for target in (16_000, 32_000, rate):
        expected = whole if target == rate else soxr.resample(whole, rate, target)
        assert transforms.resampled_frames(file, target) == len(expected)
        starts = [0, 1, len(expected) - target, *rng.integers(0, len(expected) - target, 12)]
        for start in starts:
            segment = data.read_segment(file, start / target, 1.0, target, 2)
            assert segment.shape == (target, 2) and segment.dtype == np.float32
            # Opus has a recursive state, which a seek only approaches.
            tolerance = 2e-3 if kind == "opus" else 2e-6
            np.testing.assert_allclose(segment, expected[start : start + target], atol=tolerance)


def test_segment_does_not_depend_on_what_was_read_before(tmp_path):
    name, rate, kwargs = FORMATS["vorbis"]
    _write(tmp_path / name, _music(20 * rate, 1), rate, **kwargs)
    (file,) = data.open_source(f"folder:{tmp_path}", "all").files
    starts = np.random.default_rng(0).uniform(0, 19, 60)
    forward = [data.read_segment(file, start, 0.1, rate, 1) for start in starts]
    backward = [data.read_segment(file, start, 0.1, rate, 1) for start in starts[::-1]][::-1]
    np.testing.assert_array_equal(forward, backward)


def test_segment_of_a_long_file_reads_little(tmp_path, monkeypatch):
    source = _folder(tmp_path, [60.0], rate=44_100)
    read, asked = soundfile.SoundFile.read, []
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, frames, **kwargs: asked.append(frames) or read(self, frames, **kwargs),
    )
    data.read_segment(source.files[0], 30.0, 1.0, 16_000, 1)
    assert asked and sum(asked) < 1.1 * 44_100


def test_channels_are_averaged_or_copied(tmp_path):
    audio = _music(8_000, 3)
    _write(tmp_path / "three.wav", audio, 8_000, subtype="FLOAT")
    (file,) = data.open_source(f"folder:{tmp_path}", "all").files
    mean = audio.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(data.read_file(file, 8_000, 1), mean, atol=1e-7)
    np.testing.assert_allclose(data.read_file(file, 8_000, 2), mean.repeat(2, 1), atol=1e-7)
    np.testing.assert_array_equal(data.read_file(file, 8_000, 3), audio)


def test_level_beyond_full_scale_is_kept(tmp_path):
    audio = 3 * _music(8_000, 1)
    assert np.abs(audio).max() > 1
    _write(tmp_path / "loud.wav", audio, 8_000, subtype="FLOAT")
    (file,) = data.open_source(f"folder:{tmp_path}", "all").files
    np.testing.assert_array_equal(data.read_file(file, 8_000, 1), audio)


def test_end_of_file_is_padded_with_zeros(tmp_path):
    (file,) = _folder(tmp_path, [0.5]).files
    whole = data.read_file(file, 16_000, 1)
    assert len(whole) == 8_000
    segment = data.read_segment(file, 0.25, 1.0, 16_000, 1)
    np.testing.assert_allclose(segment[:4_000], whole[4_000:], atol=1e-6)
    np.testing.assert_array_equal(segment[4_000:], 0)
    np.testing.assert_array_equal(data.read_segment(file, 2.0, 1.0, 16_000, 1), 0)


def test_read_file_joins_windows_seamlessly(tmp_path):
    (file,) = _folder(tmp_path, [65.3], rate=22_050).files
    whole, _ = soundfile.read(file.path, dtype="float32", always_2d=True)
    expected = soxr.resample(whole, 22_050, 16_000)
    np.testing.assert_allclose(data.read_file(file, 16_000, 1), expected, atol=2e-6)
    beginning = data.read_file(file, 16_000, 1, max_seconds=31.0)
    np.testing.assert_allclose(beginning, expected[: 31 * 16_000], atol=2e-6)


def _batches(source, **changes):
    settings = dict(seed=3, batch_size=8, seconds=0.25, sample_rate=16_000, channels=1) | changes
    return data.segments(source, **settings)


def test_example_is_a_function_of_seed_and_global_index(tmp_path):
    source = _folder(tmp_path, [2.0, 3.0, 5.0])
    eights, twos = _batches(source), _batches(source, batch_size=2)
    batch = eights[5]
    assert batch["audio"].shape == (8, 4_000, 1) and batch["audio"].dtype == np.float32
    assert batch["file"].shape == (8,) and batch["file"].dtype == np.int32
    for key in ("audio", "file"):
        joined = np.concatenate([twos[index][key] for index in range(20, 24)])
        np.testing.assert_array_equal(batch[key], joined)
        np.testing.assert_array_equal(batch[key], _batches(source)[5][key])
    assert not np.array_equal(batch["audio"], eights[6]["audio"])
    assert not np.array_equal(batch["audio"], _batches(source, seed=4)[5]["audio"])
    assert len(np.unique(np.concatenate([eights[i]["audio"][:, 0, 0] for i in range(50)]))) > 390
    late = 10**12
    np.testing.assert_array_equal(eights[late]["audio"], _batches(source)[late]["audio"])


def test_segment_is_where_its_file_says(tmp_path):
    source = _folder(tmp_path, [2.0, 3.0, 5.0], rate=16_000)
    whole = [data.read_file(file, 16_000, 1)[:, 0] for file in source.files]
    batch = _batches(source)[0]
    for audio, number in zip(batch["audio"][..., 0], batch["file"], strict=True):
        starts = np.flatnonzero(whole[number][: -len(audio) + 1] == audio[0])
        assert any(np.array_equal(whole[number][s : s + len(audio)], audio) for s in starts)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_slice_the_global_batch(tmp_path, count):
    source = _folder(tmp_path, [2.0, 3.0])
    parts = [_batches(source, slice_number=p, slices=count) for p in range(count)]
    for index in (0, 7):
        for key in ("audio", "file"):
            joined = np.concatenate([part[index][key] for part in parts])
            np.testing.assert_array_equal(joined, _batches(source)[index][key])


@pytest.mark.parametrize("workers", [0, 2])
def test_iteration_starts_anywhere(tmp_path, workers):
    source = _folder(tmp_path, [2.0, 3.0])
    dataset = _batches(source)
    iterator = data.iterate(dataset, 3, workers)
    for index in range(3, 9):
        batch = next(iterator)
        for key in ("audio", "file"):
            np.testing.assert_array_equal(batch[key], dataset[index][key])
    iterator.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_the_process_that_reads(tmp_path):
    _folder(tmp_path, [2.0])
    script = tmp_path / "read.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from indep_jax import data\n"
        "if __name__ == '__main__':\n"
        f"    source = data.open_source('folder:{tmp_path}', 'train')\n"
        "    dataset = data.segments(source, seed=0, batch_size=2, seconds=0.5,\n"
        "                            sample_rate=8_000, channels=1)\n"
        "    batches = data.iterate(dataset, 0, 2)\n"
        "    next(batches)\n"
        "    print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "    time.sleep(600)\n"
    )
    reader = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in reader.stdout.readline().split()]
    assert len(workers) == 2 and all(map(_alive, workers))
    reader.kill()
    reader.wait()
    deadline = time.monotonic() + 30
    while any(map(_alive, workers)):
        assert time.monotonic() < deadline, "workers outlive their reader"
        time.sleep(0.1)


def _alive(pid):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return (
        stat.rpartition(")")[2].split()[0] != "Z"
    )  # the first process of a container may reap none


def test_files_are_drawn_by_duration_and_starts_uniformly(tmp_path):
    lengths = np.array([1.0, 2.0, 7.0])
    source = _folder(tmp_path, lengths)
    examples = pipeline._Examples(
        source=source, ends=np.cumsum(lengths), origins=source.origins, seed=0, batch_size=1, frames=4_000, sample_rate=8_000,
        channels=1, max_unreadable=1.0, slice_number=0, slices=1,
    )  # fmt: skip
    draws = np.array([examples._draw(index, 0) for index in range(20_000)])
    share = lengths / lengths.sum()
    counts = np.bincount(draws[:, 0], minlength=3)
    deviation = np.sqrt(len(draws) * share * (1 - share))
    assert (np.abs(counts - len(draws) * share) < 5 * deviation).all()
    starts = draws[draws[:, 0] == 2, 1]
    last = 7 * 8_000 - 4_000
    assert starts.min() >= 0 and starts.max() <= last
    tenths = np.histogram(starts, bins=10, range=(0, last))[0]
    expected = len(starts) / 10
    assert (np.abs(tenths - expected) < 5 * math.sqrt(expected)).all()


def test_file_shorter_than_a_segment_is_padded(tmp_path):
    source = _folder(tmp_path, [0.1])
    batch = _batches(source)[0]
    whole = data.read_file(source.files[0], 16_000, 1)
    np.testing.assert_allclose(batch["audio"][3, :1_600], whole, atol=1e-6)
    np.testing.assert_array_equal(batch["audio"][:, 1_600:], 0)


def test_unreadable_files_are_counted_and_named_once(tmp_path, capsys):
    _folder(tmp_path, [1.0, 1.0])
    (tmp_path / "broken.flac").write_bytes(b"fLaC is all there is")
    (tmp_path / "empty.wav").write_bytes(b"")
    names = ["0.wav", "1.wav", "broken.flac", "empty.wav", "missing.ogg"]
    _manifest(tmp_path, {name: "train" for name in names})
    sources._named.clear()
    for _ in range(2):
        source = data.open_source(f"folder:{tmp_path}", "train")
        assert [file.name for file in source.files] == ["0.wav", "1.wav"]
        assert source.unreadable == ["broken.flac", "empty.wav", "missing.ogg"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "3 unreadable" in line and all(name in line for name in source.unreadable)


def test_run_goes_on_when_a_file_turns_unreadable(tmp_path, capsys):
    source = _folder(tmp_path, [4.0, 4.0])
    before = [_batches(source)[index] for index in range(4)]
    (tmp_path / "1.wav").unlink()
    sources._named.clear()
    after = [_batches(source)[index] for index in range(4)]
    again = [_batches(source)[index] for index in range(4)]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "1 unreadable" in lines[0] and "1.wav" in lines[0]
    replaced = 0
    for was, now, then in zip(before, after, again, strict=True):
        np.testing.assert_array_equal(now["audio"], then["audio"])
        assert (now["file"] == 0).all()
        kept = was["file"] == 0  # examples of the good file do not move
        np.testing.assert_array_equal(now["audio"][kept], was["audio"][kept])
        replaced += int((~kept).sum())
    assert replaced > 5
    (tmp_path / "0.wav").unlink()
    with pytest.raises(ValueError, match="in a row were unreadable") as error:
        _batches(source)[0]
    assert "\n" not in str(error.value)


def test_file_cut_short_behind_its_header(tmp_path):
    _write(tmp_path / "cut.flac", _music(80_000, 1), 8_000)
    source = data.open_source(f"folder:{tmp_path}", "all")
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:20_000])
    with pytest.raises(sources.READ_ERRORS):
        data.read_segment(source.files[0], 9.0, 0.5, 8_000, 1)
    assert np.isfinite(_batches(source)[0]["audio"]).all()


def test_manifest_decides_splits_and_captions(tmp_path):
    splits = {"a/0.wav": "train", "b/0.wav": "valid", "b/1.wav": "valid", "c.wav": "test"}
    for name in (*splits, "unlisted.wav"):
        _write(tmp_path / name, _music(4_000, 1), 8_000)
    _manifest(tmp_path, splits, caption="solo lute")
    for split in ("train", "valid", "test", "all"):
        source = data.open_source(f"folder:{tmp_path}", split)
        expected = [name for name, its in splits.items() if split in (its, "all")]
        assert [file.name for file in source.files] == expected
        assert {file.caption for file in source.files} == {"solo lute"}
        assert source.seconds == pytest.approx(0.5 * len(expected))


def test_hash_split_partitions_and_does_not_move_files():
    def table(names):
        return [data.AudioFile(name, f"/{name}", 1, 1, 1) for name in names]

    def split(files):
        return [
            {file.name for file in sources._hash_split("folder:x", files, name)}
            for name in sources.SPLITS
        ]

    names = [f"song {number}.ogg" for number in range(4_000)]
    train, valid, test = split(table(names))
    assert train | valid | test == set(names) and len(train) + len(valid) + len(test) == 4_000
    for held_out in (valid, test):  # 5%: binomial, deviation 13.8
        assert abs(len(held_out) - 200) < 70
    more = split(table([*names, *(f"later {number}.ogg" for number in range(500))]))
    for before, after in zip((train, valid, test), more, strict=True):
        assert before == after & set(names)
    for count in range(3, 12):
        small = split(table(names[:count]))
        assert all(small) and sum(map(len, small)) == count


def test_small_folders_share_files_and_say_so(tmp_path, capsys):
    _write(tmp_path / "only.wav", _music(4_000, 1), 8_000)
    for split in sources.SPLITS:
        assert len(data.open_source(f"folder:{tmp_path}", split).files) == 1
    assert "1 files, fewer than the 3 splits" in capsys.readouterr().err


def test_folder_is_searched_without_hidden_files(tmp_path):
    for name in ("x.WAV", "deep/er/y.flac", ".partial/z.wav", "._x.wav"):
        kind = "FLAC" if name.endswith("flac") else "WAV"
        _write(tmp_path / name, _music(4_000, 1), 8_000, format=kind)
    (tmp_path / "notes.txt").write_text("no audio")
    files = data.open_source(f"folder:{tmp_path}", "all").files
    assert [file.name for file in files] == ["deep/er/y.flac", "x.WAV"]


def test_excerpts_cover_files_first_and_are_fixed(tmp_path):
    source = _folder(tmp_path, [4.0, 0.2, 6.0, 5.0], rate=16_000)
    settings = dict(seconds=1.0, sample_rate=16_000, channels=1)
    chosen = data.excerpts(source, **settings, items=9)
    assert chosen["audio"].shape == (9, 16_000, 1) and chosen["audio"].dtype == np.float32
    assert sorted(chosen["file"][:4]) == [0, 1, 2, 3] and (chosen["file"][4:] != 1).all()
    assert chosen["names"] == [source.files[number].name for number in chosen["file"]]
    assert len({row.tobytes() for row in chosen["audio"]}) == 9
    first = list(chosen["file"]).index(0)
    whole = data.read_file(source.files[0], 16_000, 1)
    np.testing.assert_array_equal(chosen["audio"][first], whole[24_000:40_000])
    few = data.excerpts(source, **settings, items=2)
    np.testing.assert_array_equal(few["audio"], chosen["audio"][:2])
    assert abs(few["file"][0] - few["file"][1]) == 2


def test_excerpts_pass_over_unreadable_files(tmp_path, capsys):
    source = _folder(tmp_path, [2.0, 2.0, 2.0])
    (tmp_path / "0.wav").unlink()
    sources._named.clear()
    chosen = data.excerpts(source, seconds=0.5, sample_rate=8_000, channels=1, items=4)
    assert set(chosen["file"]) == {1, 2}
    assert "0.wav" in capsys.readouterr().err


@pytest.mark.parametrize(
    "source, split, message",
    [
        ("", "train", "expected folder:PATH, array_record:GLOB, tfds:NAME or sample:"),
        ("folder:", "train", "expected folder:PATH, array_record:GLOB, tfds:NAME or sample:"),
        ("s3:bucket", "train", "expected folder:PATH, array_record:GLOB, tfds:NAME or sample:"),
        ("folder:/no/such/place", "train", "/no/such/place is not a folder"),
        ("array_record:{tmp}/*.array_record", "train", "no file matches"),
        ("folder:{tmp}/empty", "train", "no audio under"),
        ("folder:{tmp}/broken", "train", "no readable file"),
        ("folder:{tmp}/listed", "valid", "lists no files of split valid"),
        ("folder:{tmp}/listed", "dev", "split 'dev'"),
        ("folder:{tmp}/not_json", "train", "expected JSON"),
        ("folder:{tmp}/no_list", "train", 'expected {"files"'),
        ("folder:{tmp}/no_split", "train", "a.wav has split None"),
    ],
)
def test_mistakes_get_one_line(tmp_path, source, split, message):
    for name in ("empty", "broken", "listed", "not_json", "no_list", "no_split"):
        (tmp_path / name).mkdir()
    for number in range(3):
        (tmp_path / "broken" / f"{number}.mp3").write_bytes(b"not music")
    _manifest(tmp_path / "listed", {"a.wav": "train"})
    (tmp_path / "not_json" / "manifest.json").write_text("{")
    (tmp_path / "no_list" / "manifest.json").write_text("[]")
    (tmp_path / "no_split" / "manifest.json").write_text('{"files": [{"path": "a.wav"}]}')
    with pytest.raises(ValueError) as error:
        data.open_source(source.format(tmp=tmp_path), split)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_sizes_that_do_not_fit(tmp_path):
    source = _folder(tmp_path, [1.0])
    for changes, message in [
        (dict(batch_size=6, slices=4), "batch_size 6"),
        (dict(batch_size=0), "batch_size 0"),
        (dict(seconds=0.0), "segment_seconds 0.0"),
        (dict(seed=-1), "seed -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            _batches(source, **changes)
    with pytest.raises(ValueError, match="workers -1"):
        data.iterate(_batches(source), 0, -1)
