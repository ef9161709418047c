"""Evaluations of runs are drawn from their logs."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def plot(folder, *arguments):
    return subprocess.run(
        [sys.executable, f"{ROOT}/launch/plot_runs.py", *arguments],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip


def test_runs_are_drawn_and_a_mistake_is_one_line(tmp_path):
    records = [
        {"step": 5, "time/steps_per_second": 1.0},
        {"step": 10, "time/steps_per_second": 2.0, "eval/si_snr_db": 3.0},
    ]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"log_every": 5, "init_from": ""}')
        lines = "".join(f"{json.dumps(record)}\n" for record in records)
        (tmp_path / name / "metrics.jsonl").write_text(lines + '{"step": 15, "eval/si')
    done = plot(tmp_path, "--output=curves.png", "--minutes", "a", "b")
    assert done.returncode == 0 and done.stdout == "curves.png\n", done.stderr
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    for arguments, said in (
        (["--output=curves.png"], "expected the workdirs of runs, and flags"),
        (["--output=curves.png", "c"], "c/metrics.jsonl: no such file or directory"),
        (["--output=curves.odd", "a"], "--output=curves.odd: expected a .png file"),
    ):
        done = plot(tmp_path, *arguments)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2 and said in line
