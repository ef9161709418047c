"""The command that measures dependence, with a codec small enough to reason about."""

import functools
import json
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile
from absl import flags
from support.report_cases import ScalarCodec, check_page, codes, write_music

from indep_jax import measure
from indep_jax.data import sources
from indep_jax.dependence import mutual_information, permutation_test, total_correlation


@pytest.fixture
def folder(tmp_path):
    write_music(tmp_path / "music")
    return tmp_path / "music"


@pytest.fixture
def small_network(monkeypatch):
    """Total correlation from a network that trains in seconds, and few permutations."""
    small = functools.partial(total_correlation.estimate, width=8, context=2, shares=(0.5, 1.0))
    few = functools.partial(permutation_test.test_independence, permutations=99)
    monkeypatch.setattr(permutation_test, "test_independence", few)
    monkeypatch.setattr(total_correlation, "FRAMES", 64)
    monkeypatch.setattr(total_correlation, "RATES", (1e-2,))
    monkeypatch.setattr(total_correlation, "PATIENCE", 1)
    monkeypatch.setattr(total_correlation, "estimate", small)


@pytest.mark.default_flags
def test_measure_of_stored_codes(tmp_path, monkeypatch, small_network, capsys):
    np.savez(tmp_path / "codes.npz", *codes(3, files=8))
    np.savez(tmp_path / "other.npz", *codes(3, files=8, copy=0.0))
    output = tmp_path / "out"
    options = dict(
        codec=None,
        source=None,
        tokenizer=None,
        untrained=False,
        codes=str(tmp_path / "codes.npz"),
        versus=[str(tmp_path / "other.npz")],
        bandwidth=None,
        output=str(output),
    )
    monkeypatch.setattr(flags, "FLAGS", types.SimpleNamespace(**options))
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
    assert p_values[0] == 1 / 100 and p_values[1] > 0.01
    assert [t["pattern"] for t in tokenizer["total_correlation"]] == ["parallel", "delay"]
    frames = [e["training_frames"] for e in tokenizer["total_correlation"][0]["estimates"]]
    assert frames == [600, 1200]
    expected = mutual_information.estimate(codes(3, files=8), lags=(0, "delay", 8))
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


def test_only_a_run_can_be_compared_with_its_start(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "encodec"}')
    for path in (tmp_path, tmp_path / "nothing", "small"):
        with pytest.raises(ValueError, match=f"^--untrained: {path} is not a workdir of"):
            measure.load_untrained(str(path))


def test_a_tokenizer_is_measured_on_whole_files(folder):
    source, codec = f"folder:{folder}", ScalarCodec("mine")
    found = measure.measure_tokenizer(codec, source, "test")
    codes = []
    for file in sources.open_source(source, "test").files:
        wave = soundfile.read(file.path, dtype="float32", always_2d=True)[0]
        codes.append(codec.encode(wave[None]).codes[0])
    expected = mutual_information.estimate(codes, sizes=(8, 8, 8), lags=(0, "delay"))
    np.testing.assert_array_equal(found.information.bits, expected.bits)
    assert found.label == "mine" and found.sizes == (8, 8, 8)


def test_options_that_do_not_fit_are_named(monkeypatch):
    def refused(message, **options):
        all_of_them = dict.fromkeys(("codec", "tokenizer", "codes", "source", "split", "bandwidth"))
        values = all_of_them | dict(versus=[], untrained=False, output="out") | options
        monkeypatch.setattr(flags, "FLAGS", types.SimpleNamespace(**values))
        with pytest.raises(ValueError, match=message):
            measure.main()

    refused("expected --codec or --tokenizer, with --source, or --codes", source="sample:")
    refused("expected --codec or --tokenizer", codec="a", tokenizer="transformers:dac:b")
    refused("--untrained and --bandwidth are of a --codec", codes="a.npz", bandwidth=3.0)
    refused("--untrained and --bandwidth", tokenizer="transformers:dac:b", untrained=True)
    refused("expected paths of different names", codec="a", source="sample:", versus=["b/a"])
    refused("--source: expected music", tokenizer="transformers:dac:b")
    refused("tokenizer 'transformers:x': expected", tokenizer="transformers:x", source="sample:")


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
