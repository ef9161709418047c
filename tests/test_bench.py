"""The benchmarks run, at tiny sizes: that they time what they say is seen where they are quoted."""

import subprocess
import sys

import pytest

from indep_jax import bench


def test_medians_take_turns_and_leave_out_the_first():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = bench.medians(functions, 3)
    assert calls == list("ab") * 4 and set(found) == {"a", "b"}
    assert all(0 <= seconds < 0.1 for seconds in found.values())


def test_codec_rows(monkeypatch):
    monkeypatch.setattr(bench, "MODEL", bench.MODEL | dict(n_filters=2, ratios=(40, 16), lstm_layers=1))
    rows = bench.bench_codec(1, "")
    assert [row["what"].split()[0] for row in rows] == ["encode", "decode", "forward"]
    assert all(row["seconds"] > 0 for row in rows)


def test_data_rows(monkeypatch, capsys):
    monkeypatch.setattr(bench, "COPIED_SECONDS", 5.0)
    rows = bench.bench_data("sample:", 1, 16_000)
    assert [row["what"].split()[0] for row in rows] == ["sample:", "wav", "ArrayRecord"]
    assert all(row["times real time, one core"] > 1 for row in rows)
    bench.show(rows)
    assert capsys.readouterr().out.startswith("what ")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected one of codec, data, and flags"),
        (["lm"], "expected one of codec, data, and flags"),
        (["codec", "data"], "expected one of codec, data, and flags"),
        (["codec", "--repeats=0"], "--repeats: expected 1 or more, not 0"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message):
    command = [sys.executable, "-m", "indep_jax.bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert message in done.stderr
