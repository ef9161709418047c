"""The command: a mistake is one line, exit code 2, and leaves nothing behind; a signal saves."""

import pathlib
import re
import signal
import subprocess
import sys

import pytest
from tasks.test_lm_task import make_store

ROOT = pathlib.Path(__file__).parent.parent
SMALL = f"--config={ROOT}/configs/encodec_small.py"
MUSIC = ["--config.data.source=sample:"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--config=nope.py"], "--config=nope.py: no such file"),
        ([SMALL], "data.source is empty"),
        ([SMALL, "--config.data.source=folder:nope"], "nope is not a folder"),
        ([SMALL, "--config.optimzer.learning_rate=1"], 'Did you mean "optimizer"'),
        ([SMALL, "--config.steps=abc"], "flag --config.steps=abc"),
        ([SMALL, "--wrokdir=elsewhere"], "Unknown command line flag 'wrokdir'"),
        ([SMALL, *MUSIC, "--config.model.ratios=(8,1)"], "model.ratios must all be at least 2"),
        ([SMALL, *MUSIC, "--config.quantizer.codebooks=0"], "quantizer.codebooks must be at least"),
        ([SMALL, *MUSIC, "--config.batch_size=0"], "batch_size 0"),
        ([SMALL, *MUSIC, "--config.model.compress=32"], "model.compress 32 must be at most"),
        (
            [SMALL, *MUSIC, "--config.discriminator.n_ffts=(101,)"],
            "multiples of 4, not 8 and (101,)",
        ),
        ([SMALL, *MUSIC, "--config.save_every=0"], "save_every must be at least 1, not 0"),
        ([SMALL, *MUSIC, "--config.dtype=float33"], "dtype must be float32 or bfloat16"),
        (
            [SMALL, *MUSIC, "--config.quantizer.codebook_size=99999"],
            "quantizer.codebook_size 99999",
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, said):
    done = subprocess.run(
        [sys.executable, "-m", "indep_jax.train", f"--workdir={tmp_path}/run", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    line = done.stderr.splitlines()[-1]
    assert line.startswith("indep_jax.train: ") and said in line
    assert "Traceback" not in done.stderr


def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
    """As a cluster stops a run: the command, with data workers of its own."""
    make_store(tmp_path / "tokens", [600] * 4)
    command = [
        sys.executable, "-m", "indep_jax.train", f"--config={ROOT}/configs/lm_small.py",
        f"--config.data.source=tokens:{tmp_path}/tokens", f"--workdir={tmp_path}/run",
        "--config.data.workers=2", "--config.data.segment_seconds=1.0", "--config.batch_size=2",
        "--config.model.codebooks=3", "--config.model.codebook_size=16", "--config.model.dim=16",
        "--config.model.layers=1", "--config.model.heads=2", "--config.model.ffn_dim=16",
        "--config.optimizer.warmup_steps=1", "--config.steps=1000000", "--config.log_every=5",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("step 20/"):
            process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM, lines
    said = re.fullmatch(
        r"indep_jax.train: stopped by SIGTERM at step (\d+), saved in .*\n", lines[-1]
    )
    assert said and (tmp_path / "run/checkpoints" / said[1]).is_dir(), lines
    assert not any("Traceback" in line for line in lines)
    done = subprocess.run(
        [*command, f"--max_step={int(said[1]) + 5}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/checkpoints" / str(int(said[1]) + 5)).is_dir()
