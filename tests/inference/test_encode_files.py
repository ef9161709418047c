"""What is stored and what is measured are the codes of whole files."""

import functools
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.codec_cases import make_codec, music, near_ties

import indep_jax
from indep_jax import data, inference
from indep_jax.codec import streaming
from indep_jax.data import records, sources
from indep_jax.inference.encode_files import codes_by_origin, encode_files


@pytest.fixture(scope="module")
def codec():
    return make_codec()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "music").mkdir()
    for number, seconds in enumerate([3.0, 7.1, 0.004]):
        path = tmp_path / "music" / f"{number}.wav"
        soundfile.write(path, music(seconds, number), 1_200, "FLOAT")
    return f"folder:{tmp_path}/music"


def test_the_codes_are_those_of_the_whole_file(tmp_path):
    """Of a trained codec, whose LSTM remembers what was seconds ago."""
    codec = inference.load_codec(Path(indep_jax.__file__).parent / "pretrained" / "small_none")
    assert codec.module.lstm_layers
    rate = codec.sample_rate
    file = data.open_source("sample:", "test").files[0]
    wave = data.read_file(file, rate, 1)[: 5 * rate - 5]
    soundfile.write(tmp_path / "0.wav", wave, rate, "FLOAT")
    whole = np.asarray(codec.encode(wave[None]).codes)[0]
    plan = streaming.encoding_plan(codec.module, rate // codec.module.hop)
    codec.encode_long = functools.partial(codec.encode_long, seconds=1.0)
    (item,) = encode_files(codec, data.open_source(f"folder:{tmp_path}", "all"))
    assert item.codes.shape == whole.shape and len(whole) > 4 * plan.frames
    assert item.codes.dtype == np.int32 and item.length == len(wave)
    near_ties(codec, wave, item.codes[: -plan.context], whole[: -plan.context])
    # Windows that know nothing of what was before would not do.
    alone = np.asarray(codec.encode(wave[None, 4 * rate :]).codes)[0]
    assert (alone != whole[-len(alone) :]).any(axis=1).mean() > 0.05


def test_pieces_of_a_file_are_one_item(codec, folder, tmp_path):
    records.pack(folder, tmp_path / "out", sample_rate=1_200, channels=2, seconds=2.0)
    source = data.open_source(f"array_record:{tmp_path}/out/*.array_record", "all")
    pieces = list(encode_files(codec, source))
    assert len(pieces) == len(source.files) == 7
    joined = codes_by_origin(codec, source)
    assert sorted(joined) == ["0.wav", "1.wav", "2.wav"]
    for name, codes in joined.items():
        mine = [item.codes for item, file in zip(pieces, source.files) if file.origin == name]
        np.testing.assert_array_equal(codes, np.concatenate(mine))
    whole = data.open_source(folder, "all")
    assert list(codes_by_origin(codec, whole)) == ["0.wav", "1.wav", "2.wav"]


def test_a_file_that_breaks_is_named_and_left_out(codec, folder, capsys):
    source = data.open_source(folder, "all")
    Path(source.files[0].path).unlink()
    sources._named.clear()
    assert list(codes_by_origin(codec, source)) == ["1.wav", "2.wav"]
    assert "0.wav (" in capsys.readouterr().err
    with pytest.raises(ValueError, match="1 of 3 files are unreadable, more than max_unreadable"):
        codes_by_origin(codec, source, max_unreadable=0.1)
    for file in source.files[1:]:
        Path(file.path).unlink()
    with pytest.raises(ValueError, match=f"source {folder}: no file of split all gave any codes"):
        codes_by_origin(codec, source)
