"""The benchmarks run, at tiny sizes: that they time what they say is seen where they are quoted."""

import subprocess
import sys
import time

import pytest

from indep_jax import bench
from indep_jax.bench import codec, data, lm


def test_medians_take_turns_and_leave_out_the_first():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = bench.medians(functions, 3)
    assert calls == list("ab") * 4 and set(found) == {"a", "b"}
    assert all(0 <= seconds < 0.1 for seconds in found.values())


def test_codec_rows(monkeypatch):
    small = codec.MODEL | dict(n_filters=2, ratios=(40, 16), lstm_layers=1)
    monkeypatch.setattr(codec, "MODEL", small)
    rows = bench.compare(codec.functions(), 1, "")
    assert [row["what"].split()[0] for row in rows] == ["encode", "decode", "forward"]
    assert all(set(row) == {"what", "ours"} for row in rows)


def test_rows_compare_what_has_a_counterpart():
    functions = {"a/ours": lambda: 0, "b/ours": lambda: 0, "a/theirs": lambda: time.sleep(0.01)}
    a, b = bench.compare(functions, 1, "torch")
    assert float(a["ratio"]) < 0.5 and a["torch"].endswith(" s")
    assert b["torch"] == b["ratio"] == ""


def test_lm_functions(monkeypatch):
    monkeypatch.setattr(lm, "MODEL", lm.MODEL | dict(dim=16, layers=1, heads=2, ffn_dim=16))
    monkeypatch.setattr(lm, "DEPTH", dict(dim=8, layers=1, heads=2, ffn_dim=8))
    monkeypatch.setattr(lm, "FRAMES", 3)
    found = lm.functions()
    assert len(found) == 8
    assert found["delay, 3 frames, guidance 3/ours"]().shape == (1, 3, 4)


def test_data_rows(monkeypatch, capsys):
    monkeypatch.setattr(data, "COPIED_SECONDS", 5.0)
    rows = data.rows("sample:", 1, 16_000)
    assert [row["what"].split()[0] for row in rows] == ["sample:", "wav", "ArrayRecord"]
    assert all(row["times real time, one core"] > 1 for row in rows)
    bench.show(rows)
    assert capsys.readouterr().out.startswith("what ")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected one of codec, data, lm, mmd, and flags"),
        (["loss"], "expected one of codec, data, lm, mmd, and flags"),
        (["codec", "data"], "expected one of codec, data, lm, mmd, and flags"),
        (["codec", "--repeats=0"], "--repeats: expected 1 or more, not 0"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message):
    command = [sys.executable, "-m", "indep_jax.bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert message in done.stderr
