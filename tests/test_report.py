"""The page and the commands that write it, with a codec small enough to reason about."""

import functools
import html.parser
import json
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from absl import flags

from indep_jax import evaluate, inference, measure
from indep_jax.codec.model import Encoded as EncodedBlock
from indep_jax.dependence import measure as dependence
from indep_jax.dependence import mutual_information as estimate
from indep_jax.dependence import total_correlation
from indep_jax.evaluation import excerpts, frechet, musicnn
from indep_jax.report import page as report

RATE = 16_000


class Encoded(NamedTuple):
    codes: np.ndarray
    length: int


class ScalarCodec:
    """Residual scalar quantization of the means of 4 samples: a codec in ten lines."""

    sample_rate, channels, codebooks, codebook_size, hop = RATE, 1, 3, 8, 4
    frame_rate = RATE / hop

    def __init__(self, bits=3, config=()):
        self.config = dict(config)
        self.steps = [2 / 8, 2 / 64, 2 / 512]
        self.bits = bits

    def encode(self, wave):
        residual = np.asarray(wave)[..., 0].reshape(len(wave), -1, self.hop).mean(-1)
        codes = []
        for step in self.steps:
            code = np.clip(np.round(residual / step), -4, 3).astype(np.int32)
            residual = residual - step * code
            codes.append(code + 4)
        return Encoded(np.stack(codes, -1), wave.shape[1])

    def encode_long(self, read, length):
        codes, _ = self.encode(read(0, length - length % self.hop)[None])
        yield EncodedBlock(codes[0], None, length)

    def decode(self, encoded):
        value = sum(step * (encoded.codes[..., k] - 4) for k, step in enumerate(self.steps))
        return np.repeat(value, self.hop, axis=1)[:, : encoded.length, None]


class Page(html.parser.HTMLParser):
    """What is in a page: tags with their attributes, and text."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self, content):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(content)
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def check_page(path):
    """A whole, self-contained, accessible page."""
    content = path.read_text()
    page = Page(content)
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "data:").startswith("data:")
    style = content.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("title")) == len(page.all("h1")) == 1
    assert all(image["alt"] for image in page.all("img"))
    assert all(player["aria-label"] for player in page.all("audio"))
    assert not list(path.parent.rglob("*.tmp"))
    return page


def music(seconds, seed, rate=RATE):
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    wave = sum(
        np.sin(2 * np.pi * f * time + rng.uniform(0, 6)) * np.exp(-((time * b) % 1) * 3)
        for f, b in zip(rng.uniform(100, 1500, 5), rng.uniform(1, 4, 5))
    )
    return (0.15 * wave + 0.003 * rng.standard_normal(len(time)))[:, None].astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Six files in a folder with a manifest, one of them with a name to escape."""
    path = tmp_path / "music"
    path.mkdir()
    names = [f"{n}.wav" for n in range(5)] + ["<b>&'\"x.wav"]
    for n, name in enumerate(names):
        soundfile.write(path / name, music(1.2 + 0.1 * n, n), RATE)
    entries = [dict(path=n, split="train" if n == "0.wav" else "test") for n in names]
    (path / "manifest.json").write_text(json.dumps(dict(files=entries)))
    return path


@pytest.fixture
def options(monkeypatch):
    """Sets the flags of a command, as its __main__ defines and parses them."""

    def set_flags(**values):
        monkeypatch.setattr(flags, "FLAGS", type("Options", (), values))

    return set_flags


def codes(seed, files=6, copy=0.3):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(files):
        first, others = rng.integers(0, 8, (200, 1)), rng.integers(0, 8, (200, 2))
        others = np.where(rng.random((200, 2)) < copy, first, others)
        made.append(np.concatenate([first, others], axis=1))
    return made


def test_page_escapes_everything(tmp_path):
    evil = "<script>alert(1)</script>&\"'"
    page = report.Report(evil, evil)
    page.section(evil, evil)
    page.note(evil)
    page.table(evil, [evil, "b"], [[evil, evil]])
    page.figure("name", report.spectrograms([("a", music(0.3, 0), RATE)]), evil, evil)
    page.listen(evil, [(evil, music(0.3, 0), RATE)])
    page.write(tmp_path)
    read = check_page(tmp_path / "report.html")
    assert len(read.all("script")) == 1, "only the page's own"
    assert read.text.count(evil) >= 8
    assert read.all("img")[0]["alt"] == evil


def test_players_hold_the_sound(tmp_path):
    import base64
    import io

    wave = music(0.4, 1)
    page = report.Report("t")
    page.listen("song", [("Original", wave, RATE), ("Loud", 100 * wave, RATE)])
    page.write(tmp_path)
    first, loud = check_page(tmp_path / "report.html").all("audio")
    data = base64.b64decode(first["src"].removeprefix("data:audio/wav;base64,"))
    decoded, rate = soundfile.read(io.BytesIO(data))
    assert rate == RATE
    np.testing.assert_allclose(decoded, wave[:, 0], atol=2**-15)
    data = base64.b64decode(loud["src"].removeprefix("data:audio/wav;base64,"))
    assert np.abs(soundfile.read(io.BytesIO(data))[0]).max() <= 1, "clipped, not wrapped"


def test_spectrogram_axis_is_at_its_frequencies():
    time = np.arange(RATE) / RATE
    for hertz in (300, 1000, 3000):
        level = np.asarray(report._mel(np.sin(2 * np.pi * hertz * time)[:, None], RATE, 1024))
        loudest = level.mean(0).argmax()
        # Bands are drawn from their index to the next: centre at + 0.5.
        assert abs(report._mel_position(hertz, RATE, 96) - (loudest + 0.5)) <= 1


def test_spectrograms_share_their_scale():
    wave = music(0.5, 2)
    figure = report.spectrograms([("a", wave, RATE), ("b", 0.1 * wave, RATE)])
    a, b = (panel.images[0] for panel in figure.axes[:2])
    assert a.get_clim() == b.get_clim()
    loud = a.get_array() > -50
    np.testing.assert_allclose((a.get_array() - b.get_array())[loud], 20, atol=0.1)


def test_loss_curves(tmp_path):
    path = tmp_path / "metrics.jsonl"
    constant = {"g/norm": 1.0, "l1": 1.0, "time/x": 1.0, "bad": None}
    lines = [{"step": n, "loss": 2.0 / n, **constant} for n in range(1, 60)]
    lines.insert(30, {"step": 30, "eval/loss": 0.2, "eval/si_snr": -1.0})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 60, "lo')
    figure = report.loss_curves(path)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles[:3] == ["loss", "si_snr", "l1"], "group/norm has the last panel"
    raw, smooth, held_out = figure.axes[0].lines[:3]
    np.testing.assert_allclose(raw.get_ydata(), [2.0 / n for n in range(1, 60)])
    assert held_out.get_ydata() == [0.2]
    assert figure.axes[0].get_yscale() == "log"
    path.write_text("")
    assert report.loss_curves(path) is None


def test_dependence_figure_says_the_numbers():
    estimates = [estimate.mutual_information(codes(s), lags=(0, "delay")) for s in (0, 1)]
    figure = report.dependence([("before", estimates[0]), ("after", estimates[1])])
    texts = [text.get_text() for panel in figure.axes[:4] for text in panel.texts]
    assert len(texts) == 2 * 2 * 3
    assert texts[0].startswith(f"{estimates[0].bits[0, 0]:.2f}")
    assert len({panel.images[0].get_clim() for panel in figure.axes[:4]}) == 1


def test_evaluate_writes_the_page(folder, tmp_path, monkeypatch, options, capsys):
    run = tmp_path / "<i>run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n')
    config = dict(data={}, seed=0)
    monkeypatch.setattr(inference, "load_codec", lambda path, **_: ScalarCodec(config=config))
    monkeypatch.setattr(inference, "untrained", lambda *_: ScalarCodec(config=config))
    output = tmp_path / "out"
    options(
        codec=str(run),
        lm=None,
        versus=[],
        source=f"folder:{folder}",
        split="test",
        items=5,
        seconds=0.4,
        dependence=True,
        bandwidth=None,
        pieces=0,
        output=str(output),
    )
    evaluate.main()
    page = check_page(output / "report.html")
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {output / 'report.html'}"
    assert "<b>&'\"x.wav" in page.text and "<i>run" in page.text
    assert len(page.all("audio")) == 10
    content = json.loads((output / "metrics.json").read_text())
    metrics = content["codecs"]["<i>run"]
    assert metrics["si_snr_db"]["items"] == 5
    assert len(metrics["perplexity"]) == 3
    assert 0 < metrics["mel_distance_relative"] < 1
    found = excerpts.evaluate(ScalarCodec(), "again", f"folder:{folder}", "test", 5, 0.4)
    sets = [
        np.concatenate([musicnn.embed(wave, RATE) for wave in waves])
        for waves in (found.originals, found.reconstructions)
    ]
    assert metrics["frechet_distance"] == pytest.approx(frechet.distance(*sets), rel=1e-6)
    assert "Fréchet distance" in page.text
    # Before and after training are the same codec here: every change is exactly nothing.
    record = json.loads((output / "dependence.json").read_text())
    assert [change["mean_bits"] for change in record["changes"]] == [0, 0]
    assert len(list((output / "figures").glob("*.png"))) == 5 + 1 + 1


@pytest.fixture
def small_network(monkeypatch):
    """Total correlation from a network of seconds."""
    small = functools.partial(total_correlation.total_correlation, width=8, context=2)
    monkeypatch.setattr(total_correlation, "FRAMES", 64)
    monkeypatch.setattr(total_correlation, "RATES", (1e-2,))
    monkeypatch.setattr(total_correlation, "PATIENCE", 1)
    monkeypatch.setattr(dependence.total_correlation_lib, "total_correlation", small)


def test_measure_of_stored_codes(tmp_path, options, small_network, capsys):
    np.savez(tmp_path / "codes.npz", *codes(3, files=8))
    np.savez(tmp_path / "other.npz", *codes(3, files=8, copy=0.0))
    output = tmp_path / "out"
    options(
        codec=None,
        source=None,
        codes=str(tmp_path / "codes.npz"),
        versus=[str(tmp_path / "other.npz")],
        bandwidth=None,
        output=str(output),
    )
    measure.main()
    page = check_page(output / "report.html")
    names = {path.stem for path in (output / "figures").glob("*.png")}
    assert names == {"dependence", "lags", "total_correlation"} and len(page.all("img")) == 3
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == f"report: {output / 'report.html'}"
    record = json.loads((output / "dependence.json").read_text())
    tokenizer, other = record["tokenizers"]
    headline = tokenizer["total_correlation"][0]["estimates"][-1]["conditional_bits"]
    first = f"codes.npz: total correlation given the past {headline:.3f} bits per frame (parallel)"
    assert any(line.startswith(first) for line in told)
    assert tokenizer["files"] == 8 and tokenizer["frames"] == 1600
    lags = [lag["lag"] for lag in tokenizer["mutual_information"]]
    assert lags[:2] == [0, "delay"] and sorted([0, *lags[2:]]) == list(range(-8, 9))
    assert [change["lag"] for change in record["changes"]] == [0, "delay"]
    assert all(change["mean_bits"] < 0 for change in record["changes"][:1])
    changes = record["total_correlation_changes"]
    assert [change["pattern"] for change in changes] == ["parallel", "delay"]
    before, after = (
        t["total_correlation"][0]["estimates"][-1]["conditional_bits"] for t in (tokenizer, other)
    )
    assert changes[0]["conditional_bits"] == pytest.approx(after - before) and after < before
    low, high = changes[0]["interval_95_bits"]
    assert low < after - before < high
    p_values = [t["independence_test"]["p_value"] for t in (tokenizer, other)]
    assert p_values[0] == 1 / 500 and p_values[1] > 0.01
    assert [t["pattern"] for t in tokenizer["total_correlation"]] == ["parallel", "delay"]
    frames = [e["training_frames"] for e in tokenizer["total_correlation"][0]["estimates"]]
    assert frames == [400, 600, 1200]
    expected = estimate.mutual_information(codes(3, files=8), lags=(0, "delay", 8))
    pairs = tokenizer["mutual_information"][0]["pairs"]
    np.testing.assert_allclose([pair["bits"] for pair in pairs], expected.bits[0])
    assert [pair["codebooks"] for pair in pairs] == [[1, 2], [1, 3], [2, 3]]


def test_files_that_hold_no_codes_are_named(tmp_path):
    path = tmp_path / "codes.npz"
    for content in (b"not an archive", b"", b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="codes.npz: expected"):
            measure.read_codes(str(path))
    np.save(tmp_path / "codes.npy", codes(0)[0])
    (read,) = measure.read_codes(str(tmp_path / "codes.npy"))
    np.testing.assert_array_equal(read, codes(0)[0])


def test_only_a_run_can_be_compared_with_its_start(monkeypatch, folder):
    monkeypatch.setattr(inference, "load_codec", lambda path, bandwidth: ScalarCodec())
    with pytest.raises(ValueError, match="--untrained"):
        measure.measure_codec("hub", f"folder:{folder}", "test", untrained=True)


def test_the_command_starts_and_tells_a_mistake(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "indep_jax.measure", "--codec=none", "--source=sample:"]
        + ["--output=x"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and done.stdout == "" and not list(tmp_path.iterdir())
    (line,) = done.stderr.splitlines()
    assert line.startswith("indep_jax.measure: none: no such folder")


def test_a_collapsed_codebook_is_no_merit():
    independent = codes(4, files=40, copy=0.0)
    collapsed = [file * np.array([1, 0, 0]) for file in independent]
    assert dependence.measure("good", independent, (8, 8, 8)).warnings == ()
    (warning,) = dependence.measure("bad", collapsed, (8, 8, 8)).warnings
    assert warning.startswith("bad: perplexity under a quarter of the size of codebook 2, 3.")
