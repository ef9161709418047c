"""Commands end with 0, with one line and 2 for what a user can mend, with a traceback and 1 for a bug."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
MODULES = ("train", "encode", "generate", "measure", "evaluate", "export", "bench")
SCRIPTS = ("sweep", "pack_audio", "plot_runs", "render_scores")

SCRIPT = """
import errno
from absl import flags
from indep_jax.support import command
from indep_jax.support.errors import UserError

def numpy():
    import numpy as np
    np.zeros((2, 3)) @ np.zeros((2, 3))

def jax():
    import jax.numpy as jnp
    jnp.zeros((2, 3)) + jnp.zeros((2, 4))

def memory():
    import jax.numpy as jnp
    jnp.zeros(10**14).block_until_ready()

def fail(error):
    raise error

def rename():
    open("beside.tmp", "w").close()
    import os
    os.replace("beside.tmp", ".")

def tell():
    import jax
    import jax.numpy
    print(jax.config.jax_compilation_cache_dir)

CASES = dict(
    tell=tell,
    user=lambda: fail(UserError("field 3: expected  another")),
    missing=lambda: open("no such.txt"),
    folder=lambda: open("/"),
    long=lambda: open("x" * 300),
    full=lambda: open("/dev/full", "wb", buffering=0).write(b"x"),
    rename=rename,
    interrupt=lambda: fail(KeyboardInterrupt()),
    value=lambda: fail(ValueError("one line of a library")),
    key=lambda: {}["name"],
    unnamed=lambda: fail(OSError("an odd state of a socket")),
    numpy=numpy,
    jax=jax,
    memory=memory,
)
def main():
    CASES[flags.FLAGS.case]()

if __name__ == "__main__":
    flags.DEFINE_enum("case", "tell", list(CASES), "What.")
    command.run(main, memory_remedy="lower --seconds")
"""


@pytest.fixture
def run(tmp_path):
    script = tmp_path / "tool.py"
    script.write_text(SCRIPT)

    def start(*arguments):
        done = subprocess.run(
            [sys.executable, script, *arguments], capture_output=True, text=True, cwd=tmp_path
        )
        return done.returncode, done.stdout, done.stderr.replace(f"{script}: ", "tool: ")

    return start


@pytest.mark.parametrize(
    "case, line",
    [
        ("user", "field 3: expected  another"),
        ("missing", "no such.txt: no such file or directory"),
        ("folder", "/: is a directory"),
        ("long", f"{'x' * 300}: file name too long"),
        ("full", "no space left on device"),
        ("rename", ".: device or resource busy"),
    ],
)
def test_what_a_user_can_mend_is_one_line(run, case, line):
    assert run(f"--case={case}") == (2, "", f"tool: {line}\n")


@pytest.mark.parametrize(
    "case, error",
    [
        ("value", "ValueError: one line of a library"),
        ("key", "KeyError: 'name'"),
        ("unnamed", "OSError: an odd state of a socket"),
        ("numpy", "ValueError: matmul: "),
        ("jax", "TypeError: add got incompatible shapes"),
    ],
)
def test_a_bug_keeps_its_traceback_and_says_so(run, case, error):
    code, _, said = run(f"--case={case}")
    *traceback, last = said.splitlines()
    assert code == 1 and last.startswith("tool: this is a bug of indep_jax")
    assert traceback[0].startswith("Traceback") and any(x.startswith(error) for x in traceback)


def test_a_full_device_is_one_line_that_says_what_to_lower(run):
    code, _, said = run("--case=memory")
    assert code == 1 and said == (
        "tool: out of device memory (Out of memory allocating 400000000000000 bytes): "
        "lower --seconds, or end other programs that use the device\n"
    )


@pytest.mark.parametrize("platforms, lines", [("", 2), ("cpu", 1)])
def test_a_command_says_that_a_plugin_is_missing(run, tmp_path, platforms, lines):
    done = subprocess.run(
        [sys.executable, "-m", "tool", "--case=user"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | dict(JAX_PLATFORMS=platforms, TPU_WORKER_ID="0", CUDA_VISIBLE_DEVICES=""),
    )
    said = done.stderr.splitlines()
    assert done.returncode == 2 and len(said) == lines
    assert lines == 1 or said[0].startswith("tool: this machine has a TPU, and JAX has no plugin")


@pytest.mark.parametrize("wrong", ["--nonsense=1", "--case=odd", "stray"])
def test_a_bad_flag_is_one_line(run, wrong):
    code, _, said = run(wrong)
    (line,) = said.splitlines()
    assert code == 2 and wrong.strip("-").split("=")[0] in line


def test_help_succeeds_and_an_interrupt_has_its_code(run):
    code, said, errors = run("--help")
    assert code == 0 and "--case" in said and errors == ""
    assert run("--case=interrupt") == (130, "", "tool: interrupted\n")


def test_programs_are_kept_in_the_cache_of_the_user(run, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run() == (0, f"{tmp_path}/indep_jax\n", "")


@pytest.mark.parametrize(
    "command",
    [("-m", f"indep_jax.{name}") for name in MODULES]
    + [(f"{ROOT}/launch/{name}.py",) for name in SCRIPTS],
    ids=[*MODULES, *SCRIPTS],
)
def test_help_comes_before_anything_heavy_is_imported(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "\nflags:\n" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "absl.flags" in imported
    assert not imported & {"jax", "flax", "matplotlib", "tensorflow_datasets", "torch"}
