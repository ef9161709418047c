"""A sweep is one command line of indep_jax.train a point."""

import functools
import operator
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest
from tasks.test_lm_task import make_store, shipped

from indep_jax.configs.sweeps import independence
from indep_jax.tasks import build

ROOT = pathlib.Path(__file__).parents[2]
SWEEP = f"--sweep={ROOT}/configs/sweeps/independence.py"
SMALL = f"--config={ROOT}/configs/encodec_small.py"


def sweep(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, f"{ROOT}/launch/sweep.py", f"--workdir={folder}/runs", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip


def test_points_are_command_lines(tmp_path):
    process = sweep(tmp_path, SMALL, SWEEP, "--dry_run", "--config.data.source=sample:")
    lines = process.communicate()[0].splitlines()
    points = independence.get_points()
    assert process.returncode == 0 and len(lines) == len(points) == 28
    for line, (name, fields) in zip(lines, points.items()):
        words = shlex.split(line)
        assert words[1:5] == ["-m", "indep_jax.train", SMALL, "--config.data.source=sample:"]
        assert words[5] == f"--workdir={tmp_path}/runs/{name}"
        assert words[6:] == [f"--config.{field}={value}" for field, value in fields.items()]
    assert not list(tmp_path.iterdir())


def test_the_points_are_configs():
    for fields in independence.get_points().values():
        config = shipped("finetune_encodec_small")
        config.update_from_flattened_dict(fields)  # names and types are the config's
        for field, value in fields.items():
            assert functools.reduce(operator.getitem, field.split("."), config) == value


def test_the_study_begins_with_a_codec_that_ships_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = shipped("finetune_encodec_small")
    variables = build.pretrained_codec(config)()
    assert config.model.sample_rate == 16_000
    assert variables["codebook"]["embed"].shape == (4, 256, config.model.dimension)


def test_a_sweep_trains_stops_and_goes_on(tmp_path):
    make_store(tmp_path / "tokens", [600] * 4)
    (tmp_path / "seeds.py").write_text(
        "def get_points():\n    return dict(one={'seed': 1}, endless={'steps': 10**6}, never={})\n"
    )
    arguments = [
        f"--config={ROOT}/configs/lm_small.py", "--sweep=seeds.py",
        f"--config.data.source=tokens:{tmp_path}/tokens", "--config.data.segment_seconds=1.0",
        "--config.batch_size=2", "--config.model.codebooks=3", "--config.model.codebook_size=16",
        "--config.model.dim=16", "--config.model.layers=1", "--config.model.heads=2",
        "--config.model.ffn_dim=16", "--config.optimizer.warmup_steps=1", "--config.steps=3",
        "--config.log_every=1",
    ]  # fmt: skip
    process = sweep(tmp_path, *arguments)
    for line in process.stderr:
        if line.startswith("step 5/1000000"):
            process.send_signal(signal.SIGTERM)
            break
    said = process.communicate(timeout=300)[1].splitlines()[-1]
    assert process.returncode == 128 + signal.SIGTERM and "stopped by SIGTERM at step" in said
    runs = tmp_path / "runs"
    assert (runs / "one/checkpoints/3").is_dir() and not (runs / "never").exists()
    process = sweep(tmp_path, *arguments, "--points=one")
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0 and "already at step 3 of 3" in said


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([SWEEP], "--config is required"),
        ([SMALL, SWEEP, "--points=nine"], "--points: nine is none of none, covariance-0.1"),
        ([f"--config={ROOT}/configs/lm_small.py", SWEEP], "which the config has not"),
        ([SMALL, "--sweep=nope.py"], "--sweep=nope.py: no such file"),
        ([SMALL, f"--sweep={ROOT}/configs/lm_small.py"], "expected a function get_points()"),
        ([SMALL, SWEEP, "--config.steps", "5"], "--config.steps: expected --config.steps=VALUE"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, said):
    process = sweep(tmp_path, *arguments)
    line = process.communicate()[1].splitlines()[-1]
    assert process.returncode == 2 and said in line, line
