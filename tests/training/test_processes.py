"""Several processes, as on several machines: the run of one process with as many devices."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest
from golden import text_cases
from tasks.test_lm_task import make_store

ROOT = pathlib.Path(__file__).parents[2]


LM = [
    f"--config={ROOT}/configs/lm_small.py", "--config.data.source=tokens:tokens",
    "--config.data.segment_seconds=1.0", "--config.model.codebooks=3",
    "--config.model.codebook_size=16", "--config.model.dim=16", "--config.model.layers=1",
    "--config.model.heads=2", "--config.model.ffn_dim=16", "--config.evaluate_items=3",
]  # fmt: skip
# Three steps without quantizer, then all that there is: k-means, discriminator, independence.
CODEC = [
    f"--config={ROOT}/configs/encodec_small.py", "--config.data.source=sample:",
    "--config.data.segment_seconds=0.32", "--config.model.n_filters=4", "--config.model.dimension=8",
    "--config.model.ratios=(16,10)", "--config.model.lstm_layers=0",
    "--config.quantizer.warmup_steps=3", "--config.quantizer.codebook_size=32",
    "--config.quantizer.kmeans_batches=2", "--config.discriminator.filters=2",
    "--config.discriminator.n_ffts=(64,)", "--config.loss.independence.kind=dhsic",
    "--config.loss.independence.warmup_steps=2", "--config.loss.independence.macro_batch=2",
    "--config.evaluate_items=2", "--config.evaluate_seconds=0.5",
]  # fmt: skip


def start(folder, workdir, *arguments, **env):
    command = [
        sys.executable, "-m", "indep_jax.train", *arguments, f"--workdir={workdir}",
        "--config.data.workers=0", "--config.batch_size=4", "--config.optimizer.warmup_steps=1",
        "--config.steps=1000000", "--config.log_every=1", "--config.evaluate_every=5",
    ]  # fmt: skip
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | env, cwd=folder
    )


@contextlib.contextmanager
def two(folder, workdir, *arguments):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"--coordinator=localhost:{free.getsockname()[1]}"
    processes = [
        start(folder, workdir, *arguments, coordinator, "--processes=2", f"--process={number}")
        for number in range(2)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stderr.close()


def metrics(workdir):
    """What was logged, but for measurements of the machine."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if not name.startswith("time/")}
        for line in lines
    ]


def check_equal(folder, *arguments):
    """Two processes, from where the workdir is, log what one with two devices does."""
    with two(folder, "two", *arguments) as processes:
        for process in processes:
            said = process.communicate(timeout=300)[1]
            assert process.returncode == 0, said
    alone = start(folder, "one", *arguments, JAX_NUM_CPU_DEVICES="2")
    assert alone.communicate()[1] and alone.returncode == 0
    assert metrics(folder / "two") == metrics(folder / "one")


def test_two_processes_are_one_run(tmp_path):
    """SIGTERM to one of them stops both at the same step, saved; started again they go on; and all
    is what one process with two devices logs."""
    make_store(tmp_path / "tokens", [600] * 4)
    with two(tmp_path, "two", *LM) as processes:
        for line in processes[0].stderr:  # the first alone shows progress
            if line.startswith("step 7/"):
                processes[1].send_signal(signal.SIGTERM)
                break
        said = [process.communicate(timeout=300)[1].splitlines()[-1] for process in processes]
        assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2, said
    (step,) = {re.search(r"stopped by SIGTERM at step (\d+), saved in", line)[1] for line in said}
    assert (tmp_path / "two/checkpoints" / step).is_dir()
    check_equal(tmp_path, *LM, f"--max_step={int(step) + 4}")


@pytest.mark.parametrize("axis", ["fsdp", "tensor"])
def test_parameters_are_split_over_processes(tmp_path, axis):
    """With `tensor` both read all rows of a batch. The captions' states are written by one of them."""
    make_store(tmp_path / "tokens", [600] * 4)
    encoder = text_cases.CASES["t5"]
    text_cases.write(tmp_path / "text", encoder, text_cases.tensors(encoder))
    text = "--config.text.encoder=text"
    check_equal(tmp_path, *LM, text, f"--config.mesh.{axis}=2", "--max_step=6")


def test_a_codec_is_trained_by_two_processes(tmp_path):
    check_equal(tmp_path, *CODEC, "--max_step=6")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--processes=2"], "--processes and --process: expected with --coordinator=HOST:PORT"),
        (["--coordinator=auto"], "--coordinator=auto: JAX finds no cluster here"),
        (["--coordinator=localhost", "--processes=2"], "localhost: expected HOST:PORT or auto"),
        (["--coordinator=localhost:1", "--processes=2"], "expected --processes=N and --process=0"),
        (["--coordinator=localhost:1", "--processes=2", "--process=2"], "--process=0 to N - 1"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, said):
    process = start(tmp_path, "run", *LM, *arguments)
    line = process.communicate()[1].splitlines()[-1]
    assert process.returncode == 2 and said in line and line.startswith("indep_jax.train: ")
