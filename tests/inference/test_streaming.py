"""Windows give what the whole signal gives, and the encode command keeps what it finished."""

import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from golden import encodec_cases
from support.codec_cases import make_codec, music, near_ties, reader

from indep_jax import data, encode, inference
from indep_jax.codec import streaming
from indep_jax.codec.model import Encoded
from indep_jax.data import tokens


@pytest.mark.parametrize(
    "changes", [{}, dict(causal=True), dict(pad_mode="reflect"), dict(lstm_layers=0)]
)
def test_windows_are_the_whole(changes):
    codec = make_codec(**changes)
    wave = music(20.3, seed=1)
    whole = np.asarray(codec.encode(wave[None]).codes)[0]
    plan = streaming.encoding_plan(codec.module, 64)
    blocks = list(codec.encode_long(reader(wave, plan.frames * 12), len(wave), 0.64))
    codes = np.concatenate([block.codes for block in blocks])
    assert len(blocks) > 20 and codes.shape == whole.shape
    assert all(len(block.codes) * 12 == block.length for block in blocks)
    assert len(np.unique(whole[:, 0])) > 20
    inside = len(whole) - plan.context
    near_ties(codec, wave, codes[:inside], whole[:inside])

    expected = np.asarray(codec.decode(whole[None], len(wave)))[0]
    plan = streaming.decoding_plan(codec.module, 64)
    blocks = list(codec.decode_long(Encoded(whole, None, len(wave)), 0.64))
    decoded = np.concatenate(blocks)
    assert len(blocks) > 20 and decoded.shape == expected.shape
    inside = len(expected) - 12 * plan.context
    error = np.abs(decoded - expected)[:inside].max()
    assert error < 1e-5 * np.sqrt(np.mean(expected**2)) * 10  # the largest of 48,000 samples

    # As a stream, in blocks of any size, the end is exact as well.
    cuts = np.sort(np.random.default_rng(0).integers(0, len(whole), 40))
    for seconds in (0.64, 100.0):
        stream = np.concatenate(list(codec.decode_stream(np.split(whole, cuts), seconds)))
        full = np.asarray(codec.decode(whole[None]))[0]
        assert stream.shape == full.shape
        error = np.abs(stream - full).max()
        assert error < 1e-5 * np.sqrt(np.mean(full**2)) * 10


def test_the_contexts_are_enough_and_not_wasteful():
    """What a plan calls context covers the reach of the layers, and at most twice that."""
    module = make_codec(lstm_layers=0).module
    variables = jax.jit(module.init)(jax.random.key(0), music(2.0)[None])
    size, middle = 61, 30

    def reach(gradient):
        touched = np.flatnonzero(np.abs(gradient).sum((0, 2)))
        return max(touched[-1] // 12 - middle, middle - touched[0] // 12)

    def encoded(x):
        return module.apply(variables, x, method="latents")[0, middle].sum()

    def decoded(z):
        wave = module.apply(variables, z, method="synthesize")
        return wave[0, middle * 12 : middle * 12 + 12].sum()

    x = jnp.asarray(music(size * 12 / 1_200, seed=3))[None]
    far = reach(np.asarray(jax.jit(jax.grad(encoded))(x)))
    assert far <= streaming.encoding_plan(module, 64).context <= 2 * far + 1
    z = jnp.asarray(np.random.default_rng(0).standard_normal((1, size, 6)), jnp.float32)
    far = reach(np.asarray(jax.jit(jax.grad(decoded))(z)).repeat(12, 1))
    assert far <= streaming.decoding_plan(module, 64).context <= 2 * far + 1


@pytest.fixture(scope="module")
def codec():
    return make_codec()


def decode(codec, item):
    encoded = Encoded(item.codes, item.scales, item.length)
    return np.concatenate(list(codec.decode_long(encoded)))


@pytest.fixture
def folder(tmp_path):
    for number, seconds in enumerate([3.0, 0.004, 26.0, 5.1]):
        path = tmp_path / "music" / f"disc {number % 2}" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, music(seconds, number), 1_200, "FLOAT")
    return tmp_path / "music"


def test_a_store_holds_the_codes_of_every_file(codec, folder, tmp_path):
    source = data.open_source(f"folder:{folder}", "all")
    encode.encode(codec, source, tmp_path / "out", shard_seconds=2)
    store = tokens.Store(tmp_path / "out")
    assert [item.name for item in store] == [file.name for file in source.files]
    assert store.info["shards"] == 3 and store.info["codec"] == codec.fingerprint
    for item, file in zip(store, source.files, strict=True):
        wave = data.read_file(file, 1_200, 2)
        whole = np.asarray(codec.encode(wave[None]).codes)[0]
        assert item.length == len(wave) and item.codes.dtype == np.uint16
        inside = max(0, len(whole) - 12)
        assert item.codes.shape == whole.shape
        near_ties(codec, wave, item.codes[:inside], whole[:inside])
    encode.decode(codec, store, tmp_path / "wav")
    for item in store:
        info = soundfile.info(tmp_path / "wav" / (item.name + ".wav"))
        assert (info.frames, info.samplerate, info.channels) == (item.length, 1_200, 2)
        wave, _ = soundfile.read(tmp_path / "wav" / (item.name + ".wav"), always_2d=True)
        assert item.scales is None
        expected = np.clip(decode(codec, item), -1, 1)
        np.testing.assert_allclose(wave, expected, atol=1 / 2**15)


def test_a_stereo_store_holds_the_codes_of_each_channel(folder, tmp_path):
    mono = make_codec(channels=1)
    codec = inference.PairedCodec(mono)
    source = data.open_source(f"folder:{folder}", "all")
    encode.encode(codec, source, tmp_path / "out", shard_seconds=100)
    store = tokens.Store(tmp_path / "out")
    assert store.info["codebooks"] == 4 and store.info["codec"] == f"paired {mono.fingerprint}"
    waves = []
    for item, file in zip(store, source.files, strict=True):
        wave = data.read_file(file, 1_200, 2)
        for side in range(2):
            one = wave[:, side : side + 1]
            reader = lambda start, count: np.pad(one, ((0, start + count), (0, 0)))[start:][:count]
            codes = np.concatenate([block.codes for block in mono.encode_long(reader, len(wave))])
            np.testing.assert_array_equal(item.codes[:, side::2], codes)
        waves.append(decode(codec, item))
        assert waves[-1].shape == wave.shape
    assert np.abs(np.diff(waves[-1])).max() > 0.01  # the channels differ
    encode.decode(codec, store, tmp_path / "wav")
    for item, expected in zip(store, waves):
        wave, _ = soundfile.read(tmp_path / "wav" / (item.name + ".wav"), always_2d=True)
        np.testing.assert_allclose(wave, np.clip(expected, -1, 1), atol=1 / 2**15)
    with pytest.raises(ValueError, match="expected a codec of 1 channel, this one has 2"):
        inference.PairedCodec(make_codec())


def test_a_store_of_a_codec_in_chunks_holds_their_levels(folder, tmp_path):
    config = encodec_cases.CASES["chunks"]
    encodec_cases.write(tmp_path / "codec", config, encodec_cases.tensors(config))
    codec = inference.load_codec(tmp_path / "codec")
    source = data.open_source(f"folder:{folder}", "all")
    encode.encode(codec, source, tmp_path / "out", shard_seconds=100)
    store = tokens.Store(tmp_path / "out")
    encode.decode(codec, store, tmp_path / "wav")
    for item, file in zip(store, source.files, strict=True):
        whole = codec.encode(data.read_file(file, 2_000, 2)[None])
        np.testing.assert_array_equal(item.codes, whole.codes[0])
        np.testing.assert_allclose(
            item.scales, whole.scales[0], rtol=1e-6
        )  # of several chunks at once
        wave, _ = soundfile.read(tmp_path / "wav" / (item.name + ".wav"), always_2d=True)
        expected = np.clip(codec.decode(whole)[0], -1, 1)
        # 16 bits are written as rounded 32,767ths and read as 32,768ths.
        np.testing.assert_allclose(wave, expected, rtol=1e-5, atol=1.5 / 2**15)
    assert max(len(item.scales) for item in store) > 100
    with pytest.raises(ValueError, match="neither in chunks nor with levels"):
        mono = tmp_path / "mono"
        config = config | dict(audio_channels=1)
        encodec_cases.write(mono, config, encodec_cases.tensors(config))
        inference.PairedCodec(inference.load_codec(mono))


def test_an_interrupted_encoding_goes_on(codec, folder, tmp_path, monkeypatch):
    source = data.open_source(f"folder:{folder}", "all")
    encode.encode(codec, source, tmp_path / "whole", shard_seconds=2)
    read, calls = data.transforms.read_segment, []

    def interrupted(file, *args):
        calls.append(file.name)
        if file.name.endswith("2.wav") and len(calls) < 5:
            raise KeyboardInterrupt
        return read(file, *args)

    monkeypatch.setattr(data.transforms, "read_segment", interrupted)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        encode.encode(codec, source, out, shard_seconds=2)
    done = sorted(path.name for path in out.glob("*.array_record"))
    assert 0 < len(done) < 3 and not list(out.glob("*.tmp"))
    with pytest.raises(ValueError, match="of 3 shards are missing"):
        tokens.Store(out)
    before, calls[:] = set(calls), ["", "", "", "", ""]
    encode.encode(codec, source, out, shard_seconds=2)
    assert not any(name in calls for name in before if not name.endswith("2.wav"))
    for one, other in zip(tokens.Store(out), tokens.Store(tmp_path / "whole"), strict=True):
        assert one.name == other.name and (one.codes == other.codes).all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_command_goes_on(number, tmp_path):
    """The command, stopped between shards: what it wrote is whole, and it goes on."""
    config = encodec_cases.CASES["causal"]
    encodec_cases.write(tmp_path / "codec", config, encodec_cases.tensors(config))
    (tmp_path / "music").mkdir()
    for name in range(40):
        wave = music(20.0, name)
        soundfile.write(tmp_path / f"music/{name}.wav", wave, config["sampling_rate"])
    command = [
        sys.executable, "-m", "indep_jax.encode", f"--codec={tmp_path}/codec",
        f"--source=folder:{tmp_path}/music", "--shard_seconds=5", f"--output={tmp_path}/out",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "out").glob("*.array_record.json")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate()[1].splitlines()
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        word = dict(SIGINT="interrupted", SIGTERM="terminated")[number.name]
        assert process.returncode == 128 + number and said[-1] == f"indep_jax.encode: {word}"
        assert not list((tmp_path / "out").glob("*.tmp"))
    done = len(list((tmp_path / "out").glob("*.array_record.json")))
    assert 0 < done < 40
    with pytest.raises(ValueError, match="of 40 shards are missing"):
        tokens.Store(tmp_path / "out")
    for output in ("out", "whole"):
        command[-1] = f"--output={tmp_path}/{output}"
        again = subprocess.run(command, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
    assert not list((tmp_path / "out").glob("*.tmp"))
    for one, other in zip(*(tokens.Store(tmp_path / x) for x in ("out", "whole")), strict=True):
        assert one.name == other.name and (one.codes == other.codes).all()


def test_another_codecs_store_is_refused(codec, folder, tmp_path):
    source = data.open_source(f"folder:{folder}", "all")
    encode.encode(codec, source, tmp_path / "out", shard_seconds=100)
    other = make_codec(causal=True)
    with pytest.raises(ValueError, match=f"codec: {codec.fingerprint} -> {other.fingerprint}"):
        encode.encode(other, source, tmp_path / "out", shard_seconds=100)
    with pytest.raises(ValueError, match=f"of codec {codec.fingerprint}, and this one is"):
        encode.decode(other, tokens.Store(tmp_path / "out"), tmp_path / "wav")
    with pytest.raises(ValueError, match="no tokens.json here"):
        tokens.Store(tmp_path / "wav")
    encode.decode(codec, tokens.Store(tmp_path / "out"), tmp_path / "wav")
    encode.encode(other, source, tmp_path / "other", shard_seconds=100)
    with pytest.raises(ValueError, match=f"wav holds other results: codec: {codec.fingerprint} ->"):
        encode.decode(other, tokens.Store(tmp_path / "other"), tmp_path / "wav")


def test_names_are_kept_as_the_file_system_has_them(codec, tmp_path):
    name = os.fsdecode(b"latin-1 \xe9.wav")
    soundfile.write(os.fsencode(tmp_path / name), music(1.0), 1_200)
    source = data.open_source(f"folder:{tmp_path}", "all")
    encode.encode(codec, source, tmp_path / "out", shard_seconds=2)
    store = tokens.Store(tmp_path / "out")
    assert store[0].name == name
    encode.decode(codec, store, tmp_path / "wav")
    assert [path.name for path in (tmp_path / "wav").glob("*.wav")] == [name + ".wav"]


def test_a_cut_shard_is_refused(codec, folder, tmp_path):
    source = data.open_source(f"folder:{folder}", "all")
    encode.encode(codec, source, tmp_path / "out", shard_seconds=100)
    (shard,) = (tmp_path / "out").glob("*.array_record")
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{shard.name} is not a whole ArrayRecord file"):
        tokens.Store(tmp_path / "out")


def test_a_file_that_breaks_is_named_and_left_out(codec, folder, tmp_path, capsys):
    source = data.open_source(f"folder:{folder}", "all")
    (folder / "disc 0" / "2.wav").unlink()
    with pytest.raises(ValueError, match="1 of 4 files are unreadable, more than max_unreadable"):
        encode.encode(codec, source, tmp_path / "out", shard_seconds=2)
    with pytest.raises(ValueError, match="shards are missing"):
        tokens.Store(tmp_path / "out")
    encode.encode(codec, source, tmp_path / "out", shard_seconds=2, max_unreadable=0.5)
    assert "2.wav (" in capsys.readouterr().err
    names = [item.name for item in tokens.Store(tmp_path / "out")]
    assert names == [file.name for file in source.files if "2.wav" not in file.name]
