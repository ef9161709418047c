"""What folders of music really hold: every file is either used as it is or left out and named."""

import contextlib
import io
import os
import struct
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from indep_jax import data
from indep_jax.data import sources

RATE = 16_000


def tone(seconds, rate=RATE, channels=1):
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * 440 * time)[:, None].repeat(channels, 1)


def write(path, audio=None, rate=RATE, **options):
    soundfile.write(path, tone(2, rate) if audio is None else audio, rate, **options)


def write_long(path, hours):
    """A wav of silence that is mostly a hole on the disk."""
    rate = 8_000
    size = int(hours * 3600 * rate) * 2
    with open(path, "wb") as file:
        file.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt ")
        file.write(struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16))
        file.write(b"data" + struct.pack("<I", size))
        file.truncate(44 + size)


def bad_sample(value):
    audio = tone(2)
    audio[RATE] = value
    return audio


GOOD = {
    "8 bit.wav": lambda path: write(path, subtype="PCM_U8"),
    "24 bit.wav": lambda path: write(path, subtype="PCM_24"),
    "float.wav": lambda path: write(path, subtype="FLOAT"),
    "8 kHz.flac": lambda path: write(path, rate=8_000),
    "192 kHz.flac": lambda path: write(path, rate=192_000),
    "44.101 kHz.wav": lambda path: write(path, rate=44_101),
    "8 channels.wav": lambda path: write(path, tone(2, channels=8)),
    "10 ms.wav": lambda path: write(path, tone(0.01)),
    "flac inside.wav": lambda path: write(path, format="FLAC"),
    "Ænima 音楽.ogg": lambda path: write(path),
    "line\nbreak.wav": lambda path: write(path),
    os.fsdecode(b"latin-1 \xe9.mp3"): lambda path: write(os.fsencode(path), format="MP3"),
}
BAD = {
    "empty.wav": lambda path: path.write_bytes(b""),
    "no frames.wav": lambda path: write(path, tone(0)),
    "header alone.flac": lambda path: path.write_bytes(b"fLaC\0\0\0\x22"),
    "text.mp3": lambda path: path.write_text("a list of songs\n"),
    "bad\nname.ogg": lambda path: path.write_bytes(b"OggS"),
    os.fsdecode(b"\xff.wav"): lambda path: open(os.fsencode(path), "wb").close(),
    "too high.wav": lambda path: write(path, rate=2_000_000),
}
BAD_INSIDE = {
    "nan.wav": lambda path: write(path, bad_sample(np.nan), subtype="FLOAT"),
    "infinite.wav": lambda path: write(path, bad_sample(np.inf), subtype="FLOAT"),
    "absurd.wav": lambda path: write(path, bad_sample(1e20), subtype="FLOAT"),
}


@pytest.fixture
def folder(tmp_path):
    sources._named.clear()
    for name, make in {**GOOD, **BAD, **BAD_INSIDE}.items():
        make(tmp_path / name)
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.wav")
    return tmp_path


def batches(source, **options):
    return data.segments(
        source, **dict(seed=0, batch_size=8, seconds=1.0, sample_rate=RATE, channels=1) | options
    )


def test_a_real_folder(folder, capsys):
    source = data.open_source(f"folder:{folder}", "all")
    assert {file.name for file in source.files} == {*GOOD, *BAD_INSIDE}
    assert set(source.unreadable) == {*BAD, "loop.wav"}
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{len(BAD) + 1} unreadable" in line and "bad\\nname.ogg" in line and "\\udcff" in line
    for file in source.files:
        if file.name in GOOD and file.seconds > 1:
            audio = data.read_file(file, RATE, 1)
            assert 0.45 < np.abs(audio[2_000:-2_000]).max() < 0.55, file.name
            peak = np.abs(np.fft.rfft(audio[2_000:18_000, 0])).argmax()
            assert abs(peak - 440) <= 1, file.name
        elif file.name in BAD_INSIDE:
            with pytest.raises(sources.READ_ERRORS, match="not finite, or far beyond"):
                data.read_file(file, RATE, 1)
    # Files that are bad inside are named when they are met, once, and the batches are whole.
    dataset = batches(source)
    for index in range(12):
        batch = dataset[index]
        assert np.isfinite(batch["audio"]).all() and np.abs(batch["audio"]).max() < 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(BAD_INSIDE) == sum(name in "".join(lines) for name in BAD_INSIDE)


def test_too_many_bad_files_stop_the_run_with_their_names(folder):
    bad = len(BAD) + 1  # loop.wav
    total = len(GOOD) + bad + len(BAD_INSIDE)
    with pytest.raises(ValueError) as error:
        data.open_source(f"folder:{folder}", "train", max_unreadable=0.2)
    message = str(error.value)
    assert f"{bad} of {total} files are unreadable, more than max_unreadable" in message
    assert "\n" not in message and "empty.wav" in message and "text.mp3" in message
    source = data.open_source(f"folder:{folder}", "all", max_unreadable=0.5)
    dataset = batches(source, max_unreadable=0.15)  # 2 of the 15 that opened
    with pytest.raises(ValueError, match="3 of 15 files are unreadable.*absurd.wav"):
        for index in range(12):
            dataset[index]


@contextlib.contextmanager
def without_privileges():
    """Root reads every file, so it acts as nobody meanwhile."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_files_without_permission_are_named(capsys):
    # Not tmp_path: nobody but its owner may enter that.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write(folder / "mine.wav")
        write(folder / "yours.wav")
        (folder / "yours.wav").chmod(0)
        data.open_source(f"folder:{folder}", "all")  # what is imported late is imported now
        capsys.readouterr()
        with without_privileges():
            source = data.open_source(f"folder:{folder}", "all")
    assert [file.name for file in source.files] == ["mine.wav"]
    assert "yours.wav" in capsys.readouterr().err


def test_ten_hours_are_read_in_little_memory(tmp_path):
    write_long(tmp_path / "long.wav", 10)
    (file,) = data.open_source(f"folder:{tmp_path}", "all").files
    assert file.seconds == 36_000
    tracemalloc.start()
    try:
        assert data.read_segment(file, 35_999, 1.0, RATE, 1).shape == (RATE, 1)
        batches(data.open_source(f"folder:{tmp_path}", "all"))[3]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_fuzzed_files(tmp_path, kind, capfd):
    """Flipped bytes: refused by name, or read as finite audio of a level that music can have."""
    rng = np.random.default_rng(7)
    whole = io.BytesIO()
    music = tone(3) * rng.uniform(0.5, 1, (3 * RATE, 1))
    options = dict(subtype="FLOAT") if kind == "wav" else {}
    soundfile.write(whole, music, RATE, format=kind.upper(), **options)
    for number in range(50):
        content = bytearray(whole.getvalue())
        # Half of them near the header, where a flip does most.
        reach = len(content) if number % 2 else 200
        for position in rng.integers(0, reach, rng.integers(1, 12)):
            content[position] ^= rng.integers(1, 256)
        (tmp_path / f"{number}.{kind}").write_bytes(content)
    (tmp_path / f"whole.{kind}").write_bytes(whole.getvalue())
    sources._named.clear()
    source = data.open_source(f"folder:{tmp_path}", "all")
    assert len(source.files) + len(source.unreadable) == 51
    refused = []
    for file in source.files:
        try:
            audio = data.read_segment(file, 1.0, 1.0, RATE, 1)
        except sources.READ_ERRORS:
            refused.append(file.name)
            continue
        assert audio.shape == (RATE, 1) and np.isfinite(audio).all()
        assert (
            np.abs(audio).max() <= 64
        )  # the limit of a file's samples, and the resampler's ripple
    # Else the flips prove nothing; mp3 has no checksum, and its decoder looks for the next frame.
    assert kind == "mp3" or source.unreadable or refused
    assert f"whole.{kind}" not in [*refused, *source.unreadable]
    # mpg123 and others write to stderr themselves; this package names each file once.
    printed = capfd.readouterr().err
    for name in source.unreadable:
        assert printed.count(f" {name} (") == 1


if sys.platform == "darwin":  # its file systems refuse names that are not Unicode
    for table in (GOOD, BAD):
        for name in [name for name in table if "\udce9" in name or "\udcff" in name]:
            del table[name]
