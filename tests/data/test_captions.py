"""Captions that lie beside audio find their way to files and tokens."""

import json

import numpy as np
import pytest
import soundfile

from indep_jax import data


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "b.wav", "sub/c.wav", "sub/d.wav", "e.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(800), 8_000)
    return tmp_path


def found(folder):
    files = data.open_source(f"folder:{folder}", "all").files
    return {file.name: file.caption for file in files}


def test_each_kind_is_read_and_the_first_counts(folder):
    (folder / "metadata.csv").write_text(
        'file_name,caption,tags\na.wav,"a piano,\n slow",calm\nsub/d.wav,,\n', encoding="utf-8"
    )
    (folder / "a.txt").write_text("not this one")
    (folder / "b.txt").write_text("zwei  Geigen,\nlaut – schnell\n", encoding="utf-8")
    (folder / "sub/c.json").write_text(
        json.dumps(dict(description="drums", keywords=["rock", "fast"]))
    )
    (folder / "sub/c.txt").write_text("not this one")
    (folder / "sub/d.txt").write_text("nor this: the table has it, empty")
    assert found(folder) == {
        "a.wav": "a piano, slow, calm",
        "b.wav": "zwei Geigen, laut – schnell",
        "e.wav": "",
        "sub/c.wav": "drums, rock, fast",
        "sub/d.wav": "",
    }


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("metadata.csv", b"a,b\n1,2\n", "expected a header with file_name and caption"),
        ("b.json", b"{", "expected JSON"),
        ("b.txt", b"\xff\xfe\xe9", "expected UTF-8"),
    ],
)
def test_a_text_that_cannot_be_read_is_named(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        found(folder)
