"""The command: a user's mistake is one line, exit code 2, and leaves nothing behind."""

import os
import pathlib
import subprocess
import sys

import pytest

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
        ([SMALL, *MUSIC, "--config.discriminator.n_ffts=(101,)"], "multiples of 4, not 8 and (101,)"),
        ([SMALL, *MUSIC, "--config.save_every=0"], "save_every must be at least 1, not 0"),
        ([SMALL, *MUSIC, "--config.dtype=float33"], "dtype must be float32 or bfloat16"),
        ([SMALL, *MUSIC, "--config.quantizer.codebook_size=99999"], "quantizer.codebook_size 99999"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, said):
    done = subprocess.run(
        [sys.executable, "-m", "indep_jax.train", f"--workdir={tmp_path}/run", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    line = done.stderr.splitlines()[-1]
    assert line.startswith("indep_jax.train: ") and said in line
    assert "Traceback" not in done.stderr
