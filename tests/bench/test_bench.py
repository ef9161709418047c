"""The benchmarks run, at tiny sizes: that they time what they say is seen where they are quoted."""

import subprocess
import sys
import time

import jax
import pytest

from indep_jax import bench
from indep_jax.bench import codec, cost, data, lm, mmd


def test_medians_take_turns_and_leave_out_the_first(monkeypatch):
    monkeypatch.setattr(bench, "PAUSE_SECONDS", 0.0)
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = bench.medians(functions, 3)
    assert calls == list("ab") * 4 and set(found) == {"a", "b"}
    assert all(0 <= seconds < 0.1 for pair in found.values() for seconds in pair)


def test_the_first_call_is_apart():
    pauses = iter([0.05, 0.0, 0.0, 0.02])
    found = bench.medians({"a": lambda: time.sleep(next(pauses))}, 3)["a"]
    assert found.first >= 0.05 and found.median < 0.01


def test_codec_rows(monkeypatch):
    small = codec.MODEL | dict(n_filters=2, ratios=(40, 16), lstm_layers=1)
    monkeypatch.setattr(codec, "CONFIG", codec.CONFIG | dict(model=small))
    monkeypatch.setattr(cost, "speeds", lambda: (1e9, None))
    rows = bench.compare(codec.functions(), 1, "", codec.against_bound())
    assert [row["what"].split()[0] for row in rows] == ["encode", "decode", "forward"]
    columns = {"what", "ours", "first call", "bound", "times the bound"}
    assert all(set(row) == columns for row in rows)


def test_work_of_the_codec():
    """The true size's multiplications, by hand: of every convolution, two matrices for each of
    the LSTM's layers, and distances to the codes."""

    def conv(frames, taps, inputs, outputs):
        return 2 * frames * taps * inputs * outputs

    frames, features = 320_000, 64
    expected = conv(frames, 7, 1, 64)
    for ratio in (4, 4, 5, 8):
        expected += conv(frames, 3, features, features // 2) + conv(
            frames, 1, features // 2, features
        )
        frames //= ratio
        expected += conv(frames, 2 * ratio, features, 2 * features)
        features *= 2
    expected += 2 * 2 * conv(frames, 1, features, 4 * features) + conv(frames, 7, features, 128)
    distances = 4 * conv(frames, 1, 128, 2_048)
    found = cost.count(*codec.programs(codec._module())["encode 10 s"])
    assert expected + distances <= found.flops < 1.01 * (expected + distances)


def test_rows_compare_what_has_a_counterpart():
    functions = {"a/ours": lambda: 0, "b/ours": lambda: 0, "a/theirs": lambda: time.sleep(0.01)}
    a, b = bench.compare(functions, 1, "torch")
    assert float(a["ratio"]) < 0.5 and a["torch"].endswith(" s")
    assert b["torch"] == b["ratio"] == ""
    (row,) = bench.compare(
        {"a/ours": lambda: 0, "theirs": lambda: 0}, 1, "torch", lambda what, s: {what: s}
    )
    assert row["torch"] == "0.000 s" and 0 <= row["a"] < 0.01


def test_lm_functions(monkeypatch):
    monkeypatch.setattr(lm, "MODEL", lm.MODEL | dict(dim=16, layers=1, heads=2, ffn_dim=16))
    depth = dict(dim=8, layers=1, heads=2, ffn_dim=8)
    monkeypatch.setitem(lm.WAYS["depth head"][0], "depth", depth)
    monkeypatch.setattr(lm, "FRAMES", 3)
    monkeypatch.setattr(lm, "_bandwidth", lambda: 1e6)
    found = lm.functions()
    assert len(found) == 10
    assert found["delay, 3 frames, guidance 3/ours"]().shape == (1, 3, 4)
    assert found["delay in bfloat16, 3 frames/ours"]().shape == (1, 3, 4)
    # Of 16 x 16: queries and outputs of both attentions, keys and values of one, two of the
    # feed-forward; norms; an output of 2,048 codes for each of 4 codebooks. 4 bytes each.
    once = 4 * (8 * 16**2 + 4 * 2 * 16 + 4 * 16 * 2_048)
    assert lm.step_bytes("delay") == once == 2 * lm.step_bytes("delay in bfloat16")
    depth = 4 * (16 * 8 + 6 * 8**2 + 3 * 2 * 8)  # read for each of the 4 codebooks
    assert lm.step_bytes("depth head") == once - 4 * 4 * 8 * 2_048 + 4 * depth
    assert lm.logits_error("delay") == 0 and 1e-3 < lm.logits_error("delay in bfloat16") < 0.1
    more = lm.against_bandwidth()("flattened, 3 frames, guidance 3", 2.0)
    assert more["steps/s"] == "6.00" and float(more["s a second of music"]) == pytest.approx(
        33.33, abs=0.01
    )
    assert more["of the bandwidth"] == f"{6 * once / 1e6:.0%}"


def test_the_bound_of_the_losses(monkeypatch):
    monkeypatch.setattr(cost, "speeds", lambda: (1e9, 1e8))
    name = "dhsic, median"
    work = cost.count(jax.value_and_grad(mmd.losses()[name]), mmd.rows(64))
    found = mmd.against_bound(64)(name, 1.0)
    assert float(found["bound"].split()[0]) == pytest.approx(
        work.flops / 1e9 + work.exps / 1e8, abs=1e-3
    )


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
        ([], "expected one of codec, data, device, lm, mmd, and flags"),
        (["loss"], "expected one of codec, data, device, lm, mmd, and flags"),
        (["codec", "data"], "expected one of codec, data, device, lm, mmd, and flags"),
        (["codec", "--repeats=0"], "--repeats: expected 1 or more, not 0"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message):
    command = [sys.executable, "-m", "indep_jax.bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert message in done.stderr
