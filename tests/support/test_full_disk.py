"""Whoever writes: where a file cannot grow, an OSError names it, and nothing is left beside it."""

import contextlib
import resource

import numpy as np
import pytest
import soundfile

from indep_jax import generate
from indep_jax.data import records, tokens
from indep_jax.hub import folders
from indep_jax.support.files import replace_file

LIMIT = (
    20_000  # bytes of a file; Python ignores the signal, so that a write fails as on a full disk
)


@contextlib.contextmanager
def small_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_bytes(path):
    replace_file(path, bytes(2 * LIMIT))


def write_folder(path):
    folders.write(path, {}, {"x": np.zeros(LIMIT, np.float32)}, "card")


def write_folder_of_json(path):
    folders.write(path, {"a.json": dict(a="x" * 2 * LIMIT)}, {}, "card")


def write_wav(path):
    generate.write_stream(path, [np.zeros((LIMIT, 1))] * 2, 16_000, 1)


def write_tokens(path):
    codes = np.random.default_rng(0).integers(0, 2**16, (LIMIT, 2)).astype(np.uint16)
    tokens.write_shard(path, [tokens.Tokens("a", "train", "", len(codes), codes)])


def pack(path):
    (path.parent / "music").mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, LIMIT // 4)
    soundfile.write(path.parent / "music" / "a.wav", noise, 8_000)
    records.pack(f"folder:{path.parent}/music", path, sample_rate=64_000, channels=1)


@pytest.mark.parametrize(
    "write, what",
    [
        (write_bytes, "out"),
        (write_folder, "out"),
        (write_folder_of_json, "out"),
        (write_wav, "out"),
        (write_tokens, "out"),
        (pack, "out/train-00000-of-00001.array_record"),
    ],
)
def test_where_a_file_cannot_grow_it_is_named(tmp_path, write, what):
    with small_files(), pytest.raises(OSError) as error:
        write(tmp_path / "out")
    assert error.value.filename == str(tmp_path / what) and error.value.strerror
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"a.wav", "packed.json", "out"}
    if "out" in left and (tmp_path / "out").is_file():
        assert write is write_wav  # that is heard while it is written
