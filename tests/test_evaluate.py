"""The command that evaluates a codec, with one small enough to reason about."""

import json
import types

import numpy as np
import pytest
from absl import flags
from support.report_cases import RATE, ScalarCodec, check_page, write_music

from indep_jax import evaluate, evaluation, inference, measure
from indep_jax.evaluation import frechet, musicnn
from indep_jax.support import configs


def test_evaluate_writes_the_page(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "music"
    write_music(folder)
    run = tmp_path / "<i>run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n')
    config = dict(data={}, seed=0)
    codec, start = ScalarCodec("<i>run", config), ScalarCodec("untrained")
    monkeypatch.setattr(inference, "load_codec", lambda path, bandwidth: codec)
    monkeypatch.setattr(measure, "load_untrained", lambda path, bandwidth: start)
    output = tmp_path / "out"
    options = dict(
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
    monkeypatch.setattr(flags, "FLAGS", types.SimpleNamespace(**options))
    peak = lambda x, y, rate: np.abs(y).max(-1)
    monkeypatch.setitem(evaluation.codec.METRICS, "peak", peak)
    evaluate.main()
    page = check_page(output / "report.html")
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {output / 'report.html'}"
    assert "<b>&'\"x.wav" in page.text and "<i>run" in page.text
    assert len(page.all("audio")) == 10
    content = json.loads((output / "metrics.json").read_text())
    metrics = content["codecs"]["<i>run"]
    assert metrics["si_snr_db"]["items"] == 5
    assert len(metrics["perplexity"]) == 3
    # One line in METRICS makes a metric known to metrics.json and the page.
    assert "peak" in page.text and metrics["peak"]["items"] == 5
    assert 0 < metrics["mel_distance_relative"] < 1
    found = evaluate.evaluate_codec(ScalarCodec(), "again", f"folder:{folder}", "test", 5, 0.4)
    sets = [
        np.concatenate([musicnn.embed(wave, RATE) for wave in waves])
        for waves in (found.originals, found.reconstructions)
    ]
    assert metrics["frechet_distance"] == pytest.approx(frechet.distance(*sets), rel=1e-6)
    assert "Fréchet distance" in page.text
    # Before and after training are the same codec here: every change is exactly nothing.
    record = json.loads((output / "dependence.json").read_text())
    assert [change["mean_bits"] for change in record["changes"]] == [0, 0]
    assert [item["label"] for item in record["tokenizers"]] == ["untrained", "<i>run"]
    assert len(list((output / "figures").glob("*.png"))) == 5 + 1 + 1


def test_a_run_whose_music_is_gone_is_measured_after_training_alone(tmp_path, capsys):
    config = configs.load("encodec_small")
    config.data.source = f"folder:{tmp_path}/gone"
    (tmp_path / "config.json").write_text(config.to_json())
    options = types.SimpleNamespace(codec=str(tmp_path), bandwidth=None)
    assert evaluate._before_training(ScalarCodec(config=config), options) == []
    error = capsys.readouterr().err
    assert error.startswith(f"{tmp_path}: measured after training alone: source folder:{tmp_path}")
    assert evaluate._before_training(ScalarCodec(), options) == []
    assert capsys.readouterr().err == ""
