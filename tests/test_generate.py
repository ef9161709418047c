"""Music from a trained model by the command and in Python: the same, whole or streamed."""

import json
import shutil
import types

import jax
import ml_collections
import numpy as np
import pytest
import soundfile
from support.codec_cases import make_codec, music
from tasks.test_lm_task import shipped

from indep_jax import encode, evaluate, generate, inference, report, train
from indep_jax.data import pipeline, sources, tokens
from indep_jax.evaluation import frechet, musicnn
from indep_jax.lm import model as lm_model
from indep_jax.tasks import build


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """A workdir of a tiny model on tokens of a tiny codec, which loading is made to find."""
    folder = tmp_path_factory.mktemp("lm")
    codec = make_codec()
    (folder / "music").mkdir()
    for number in range(3):
        soundfile.write(folder / f"music/{number}.wav", music(4.0, number), 1_200, "FLOAT")
    source = sources.open_source(f"folder:{folder}/music", "all")
    encode.encode(codec, source, folder / "tokens", shard_seconds=100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference.load, "load_codec", lambda path: codec)
        config = shipped("lm_small")
        config.model.update(codebooks=2, codebook_size=64, dim=16, layers=1, heads=2, ffn_dim=16)
        config.data.update(source=f"tokens:{folder}/tokens", segment_seconds=0.4, workers=0)
        config.update(steps=2, batch_size=2, codec="there", samples=2, sample_seconds=0.6)
        config.update(evaluate_items=2, evaluate_every=2, save_every=2)
        config.optimizer.warmup_steps = 1
        train.train(config, folder / "run")
        yield folder


def run(lm, output, **options):
    """The command's main, with the flags of its own run."""
    values = dict(
        lm=str(lm / "run"), codec=None, dtype=None, text=[], texts=None, seconds=0.9, seed=0, prompt=None,
        output=str(output), stream=False, chunk_seconds=0.1, loudness=-14.0, guidance=3.0,
        temperature=1.0, top_k=0, top_p=1.0,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate.flags, "FLAGS", type("Options", (), values | options))
        generate.main()


def test_an_evaluation_writes_what_it_generates(lm):
    lines = (lm / "run/metrics.jsonl").read_text().splitlines()
    assert any("eval/bits_per_frame" in json.loads(line) for line in lines)
    wavs = sorted((lm / "run/audio").rglob("*generated*.wav"))
    assert len(wavs) == 2 and soundfile.info(wavs[0]).frames == pytest.approx(0.6 * 1_200, abs=12)


def test_the_command_writes_what_python_gives(lm, tmp_path):
    out = tmp_path / "out.wav"
    run(lm, out)
    wave, rate = soundfile.read(out, always_2d=True)
    assert rate == 1_200 and wave.shape == (1_080, 2)
    loaded = inference.load_lm(lm / "run")
    expected = np.asarray(loaded.generate(None, 0.9, seed=0, top_k=0))[0]
    gain = np.sum(wave * expected) / np.sum(expected**2)
    np.testing.assert_allclose(wave, gain * expected, atol=2 / 2**15)
    run(lm, tmp_path / "again.wav")
    assert (tmp_path / "again.wav").read_bytes() == out.read_bytes()
    run(lm, tmp_path / "short.wav", seconds=0.1)  # less than half of what it was trained on
    assert soundfile.info(tmp_path / "short.wav").frames == 120
    run(lm, tmp_path / "other.wav", seed=1)
    assert (tmp_path / "other.wav").read_bytes() != out.read_bytes()


def test_a_stream_is_the_whole(lm, tmp_path):
    run(lm, tmp_path / "stream.wav", stream=True)
    stream, _ = soundfile.read(tmp_path / "stream.wav", always_2d=True)
    whole = np.asarray(inference.load_lm(lm / "run").generate(None, 0.9, seed=0, top_k=0))[0]
    np.testing.assert_allclose(stream, np.clip(whole, -1, 1), atol=2 / 2**15)


def test_a_prompt_is_what_the_music_begins_with(lm, tmp_path):
    prompt = tmp_path / "prompt.wav"
    soundfile.write(prompt, music(0.5, 7), 1_200, "FLOAT")
    codec = inference.load_lm(lm / "run").codec
    codes = generate.read_prompt(str(prompt), codec)
    found = np.concatenate(
        list(inference.load_lm(lm / "run").stream(None, 0.9, prompt=codes, chunk_seconds=0.05)), 1
    )
    assert np.array_equal(found[:, : codes.shape[1]], codes) and found.shape[1] == 90
    run(lm, tmp_path / "out.wav", prompt=str(prompt))
    assert soundfile.info(tmp_path / "out.wav").frames == 1_080


def test_evaluate_tells_the_bits_and_writes_the_page(lm, tmp_path, monkeypatch, capsys):
    values = dict(
        lm=str(lm / "run"), codec=None, versus=[], source=f"tokens:{lm}/tokens", split="train",
        items=3, seconds=1.0, output=str(tmp_path), dependence=False,
        bandwidth=None, pieces=9,
    )  # fmt: skip
    flags = types.SimpleNamespace(FLAGS=types.SimpleNamespace(**values))
    monkeypatch.setattr(evaluate, "flags", flags)  # not absl's own, which grain reads too
    evaluate.main()
    (found,) = json.loads((tmp_path / "metrics.json").read_text())["models"].values()
    assert found["frames"] == 3 * 40 and found["pattern"] == "delay"
    # Two steps of training teach nothing: 64 codes cost 6 bits, and what the first guess is off.
    assert all(6 < bits < 8 for bits in found["cross_entropy_bits"])
    assert found["bits_per_frame"] == pytest.approx(sum(found["cross_entropy_bits"]))
    low, high = found["bits_per_frame_interval_95"]
    assert low < found["bits_per_frame"] < high
    page = (tmp_path / "report.html").read_text()
    heard = min(2, len(tokens.Store(lm / "tokens").select("train")))  # and as much beside it
    assert page.count("<audio") == 2 * heard and "Training" in page and "Without a text, 1" in page
    trained = inference.load_lm(lm / "run")
    store = tokens.Store(lm / "tokens")
    segments = pipeline.token_segments(store, "train", seed=1, batch_size=9, frames=100)[0]
    waves = (
        trained.codec.decode(segments["codes"]),
        trained.generate(None, 1.0, examples=np.arange(9)),
    )
    sets = [np.concatenate([musicnn.embed(wave, 1_200) for wave in each]) for each in waves]
    assert found["frechet_distance"] == pytest.approx(frechet.distance(*sets), rel=1e-3)
    assert "Fréchet distance" in page
    assert "bits per frame\nreport: " in capsys.readouterr().out
    flags.FLAGS.source = f"folder:{lm}/music"
    with pytest.raises(ValueError, match="expected tokens:PATH"):
        evaluate.main()


def test_what_a_text_is_worth(lm, tmp_path, monkeypatch):
    trained, store = inference.load_lm(lm / "run"), tokens.Store(lm / "tokens")
    config = trained.config | dict(model=trained.config["model"] | dict(text_dim=4))
    model = lm_model.from_config(config["model"])
    params = lm_model.init(model, jax.random.key(0))["params"]

    def encoder(texts):  # of one token, which is the text's number
        states = [np.full((1, 4), float(text), np.float32) * np.arange(1, 5) for text in texts]
        return np.stack(states), np.ones((len(texts), 1), bool)

    reading = inference.LoadedLM(config, params, trained.codec, encoder)
    segments = pipeline.token_segments(store, "all", seed=0, batch_size=6, frames=40)[0]
    for record, entry in enumerate(store.entries):
        monkeypatch.setitem(entry, "caption", str(record % 2))
    own = [store.entries[record]["caption"] for record in segments["record"]]
    assert len(set(own)) == 2  # so that of the others is the other one
    evaluated = evaluate.evaluate_lm(reading, "reading", store, "all", 6, 0.5)
    other = [next(text for text in own if text != this) for this in own]
    for name, texts in {"": own, "_other_texts": other, "_no_text": None}.items():
        text = () if texts is None else encoder(texts)
        nats = lm_model.nats(model, dict(params=params), segments["codes"], *text)
        found = evaluated.metrics[f"bits_per_frame{name}"]
        assert found == pytest.approx(float(nats.sum()) / np.log(2) / 240, rel=1e-5), name
    page = report.Report("Texts")
    report.lm.show(page, dict(reading=evaluated.metrics))
    assert "What the text is worth" in page.write(tmp_path).read_text()


def test_loudness():
    time = np.arange(48_000 * 3) / 48_000
    # ITU-R BS.1770-4: a 997 Hz sine of full scale in one channel reads -3.01 LUFS.
    sine = np.sin(2 * np.pi * 997 * time)[:, None].astype(np.float32)
    quiet = generate.normalise(0.01 * sine, 48_000, -23.0)
    assert np.abs(quiet).max() == pytest.approx(10 ** ((-23 + 3.01) / 20), rel=0.01)
    assert np.abs(generate.normalise(sine, 48_000, 0.0)).max() == pytest.approx(1.0)
    silence = np.zeros((48_000, 1), np.float32)
    assert np.array_equal(generate.normalise(silence, 48_000, -14.0), silence)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(output="out.mp3"), "expected a .wav file"),
        (dict(output="/no/such/folder/out.wav"), "/no/such/folder is not a folder"),
        (dict(seconds=0.0), "--seconds: expected more than 0"),
        (dict(text=["piano"]), "trained without"),
        (dict(prompt="/no/such.wav"), "/no/such.wav: "),
        (dict(text=["a", "b"], stream=True), "--stream: expected one --text"),
        (dict(temperature=0.0), "temperature: expected more than 0"),
        (dict(temperature=0.0, stream=True), "temperature: expected more than 0"),
    ],
)
def test_mistakes_are_told_in_one_line(lm, tmp_path, options, message):
    (tmp_path / "out.wav").write_bytes(b"of an earlier command")
    with pytest.raises(ValueError, match=message) as error:
        run(lm, **dict(output=tmp_path / "out.wav") | options)
    assert "\n" not in str(error.value)
    assert (tmp_path / "out.wav").read_bytes() == b"of an earlier command"


def test_another_codec_is_refused(lm, tmp_path):
    shutil.copytree(lm / "run", tmp_path / "run")
    config = json.loads((lm / "run/config.json").read_text())
    config["data"]["codec"] = "of another training"
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="^[^\n]*on the tokens of of another training$"):
        inference.load_lm(tmp_path / "run")
    with pytest.raises(ValueError, match="^tokens:[^\n]* reads the tokens of of another training$"):
        build.build(ml_collections.ConfigDict(config))


def test_other_workdirs_are_refused(lm, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(dict(task="codec")))
    with pytest.raises(ValueError, match="describes no language model"):
        inference.load_lm(tmp_path)
