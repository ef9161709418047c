"""`bench device`: with nothing installed but what it asks for, cut short, and with a part that fails."""

import importlib.metadata
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import time
import types

import pytest
from packaging.requirements import Requirement

from indep_jax.bench import device
from indep_jax.configs import encodec_32khz, musicgen
from indep_jax.support.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
NEEDED = ("jax", "flax", "optax", "chex", "numpy", "absl-py")
REFUSED = {"grain", "ml_collections", "soundfile", "tqdm", "matplotlib", "safetensors", "soxr"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _modules(distributions) -> set[str]:
    """Top-level modules of distributions and of all that they require."""
    todo, found = [(name, "") for name in distributions], set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for line in importlib.metadata.requires(name) or ():
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                todo += [(_normal(one.name), asked) for asked in ("", *one.extras)]
    names = {name for name, _ in found}
    return {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if any(_normal(owner) in names for owner in owners)
    }


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> dict[str, str]:
    """The environment of a Python that has NEEDED, what they require, and this checkout."""
    allowed = _modules(NEEDED) | set(sys.stdlib_module_names) | {"indep_jax"}
    assert not allowed & REFUSED
    folder = tmp_path_factory.mktemp("bare")
    # Every Python that starts imports it: those that the command starts, too.
    (folder / "sitecustomize.py").write_text(f"""
import importlib.machinery as machinery, sys

class Allowed(machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if path is None and name not in {allowed} and not name.startswith("_sysconfigdata"):
            return None  # as if it were not installed
        return super().find_spec(name, path, target)

sys.meta_path[:] = [machinery.BuiltinImporter, machinery.FrozenImporter, Allowed]
""")
    return os.environ | dict(PYTHONPATH=f"{folder}{os.pathsep}{ROOT}", JAX_PLATFORMS="cpu")


def _python(code: str, env: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_the_environment_is_bare(bare):
    for name in (*REFUSED, "indep_jax.bench.data"):
        assert "ModuleNotFoundError" in _python(f"import {name}", bare).stderr


def test_models_losses_and_steps_need_no_other_package(bare):
    package = ROOT / "indep_jax"
    files = [package / "tasks/codec_steps.py", package / "tasks/lm_steps.py"]
    for folder in ("codec", "lm", "signal", "independence"):
        files += package.joinpath(folder).glob("*.py")
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    assert len(names) > 20
    assert not _python("\n".join(f"import {name}" for name in names), bare).stderr


def test_programs_are_kept_where_jax_can_limit_them(bare):
    code = """
from indep_jax.support import command
def main():
    import jax
    print(jax.config.jax_compilation_cache_dir)
command.run(main)
"""
    env = {name: value for name, value in bare.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    done = _python(code, env)
    assert done.stdout == "None\n" and not done.stderr


def test_toy_size_runs_without_the_package_s_other_dependencies(bare, tmp_path):
    command = [sys.executable, "-m", "indep_jax.bench", "device", "--size=toy", "--minutes=60"]
    done = subprocess.run(
        [*command, f"--output={tmp_path}"], env=bare, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    files = {f"{part}.json" for part in device.PARTS} | {"report.md"}
    assert {path.name for path in tmp_path.iterdir()} == files
    report = (tmp_path / "report.md").read_text()
    assert done.stdout.endswith(report) and "Not complete" not in report
    rows = {}
    for part in set(device.PARTS) - {"facts"}:
        result = json.loads((tmp_path / f"{part}.json").read_text())
        assert result["complete"] and result["rows"]
        rows |= {row["what"]: row for row in result["rows"]}
    assert all(f"| {what} |" in report for what in rows)
    compared = [row for row in rows.values() if "error_to_cpu" in row]
    assert len(compared) == 6 and all(row["error_to_cpu"] == 0 for row in compared)
    for row in compared:
        bfloat16 = row["what"].endswith("bfloat16")
        assert (1e-3 if bfloat16 else 0) <= row["error_to_cpu_float32"] <= (0.03 if bfloat16 else 0)
    for name in ("codec", "language model"):
        assert rows[f"{name}, codes, float32"]["equal_to_cpu"] == 1
    assert 0.8 < rows["codec, codes, bfloat16"]["equal_to_cpu_float32"] < 1
    timed = [row for row in rows.values() if "seconds" in row]
    assert len(timed) + 10 == len(rows) and all(row["seconds"] > 0 for row in timed)
    steps = [row for row in timed if "training step" in row["what"]]
    assert len(steps) == 2
    for row in steps:
        assert row["last_loss"] != row["first_loss"] and row["planned_bytes"] > 0
        assert row["share_of_peak"] is None  # of a CPU
        assert row["tflops"] == pytest.approx(row["flops"] / row["seconds"] / 1e12)
        assert 0.3 < row["flops"] / row["xla_flops"] < 1  # XLA counts what is no product as well


def _facts(size):
    yield dict(device="a", platform="cpu", memory_bytes=None, jax="1", python="3")


def _crash(size):
    yield dict(what="before", seconds=1.0)
    os._exit(3)


def _not_finite(size):
    yield dict(what="loss", seconds=math.nan)


def _slow(size):
    yield dict(what="begun", seconds=2.0)
    time.sleep(600)


def _fast(size):
    yield dict(what="fast", seconds=3.0)


def test_a_run_that_is_cut_keeps_what_it_has_and_another_goes_on(monkeypatch, tmp_path, capsys):
    parts = dict(facts=_facts, crash=_crash, not_finite=_not_finite, slow=_slow, fast=_fast)
    monkeypatch.setattr(device, "PARTS", parts)
    # The time is up once the slow part has its first row.
    up = tmp_path / "slow.json"
    clock = types.SimpleNamespace(monotonic=lambda: 1000.0 if up.exists() else 0.0)
    monkeypatch.setattr(device, "time", clock)
    failed = device.run(tmp_path, "toy", list(parts), 8)
    assert failed == ["crash", "not_finite"]
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert set(found) == {"facts", "crash", "slow"}
    assert [found[part]["complete"] for part in ("crash", "slow")] == [False, False]
    assert found["slow"]["rows"] == [dict(what="begun", seconds=2.0)]
    out = capsys.readouterr().out
    assert "crash: failed, exit code 3" in out and "Not run: fast" in out
    assert "Not complete: crash, not_finite, slow, fast." in (tmp_path / "report.md").read_text()

    monkeypatch.setattr(clock, "monotonic", time.monotonic)
    assert device.run(tmp_path, "toy", ["fast"], 8) == []
    report = (tmp_path / "report.md").read_text()
    for line in ("| before | 1 |", "| begun | 2 |", "| fast | 3 |"):
        assert line in report
    assert "Not complete: crash, not_finite, slow." in report
    with pytest.raises(UserError, match="holds other results: size: toy -> full"):
        device.run(tmp_path, "full", ["fast"], 8)


def test_unknown_part():
    with pytest.raises(UserError, match="--parts: expected some of facts, parity, .*, not 'all'"):
        device.run(pathlib.Path("nowhere"), "toy", ["all"], 8)


def test_peak_is_known_by_name_alone():
    assert device.peak_tflops("NVIDIA H200") == device.peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert device.peak_tflops("NVIDIA A100-SXM4-40GB") == 312
    assert device.peak_tflops("NVIDIA H200 MIG 1g.18gb") is device.peak_tflops("cpu") is None


@pytest.mark.parametrize(
    "ours, theirs",
    [(device.CODEC, encodec_32khz.get_config()), (device.LM, musicgen.get_config("small"))],
    ids=["codec", "lm"],
)
def test_configs_are_those_of_the_files(ours, theirs):
    ours = ours | dict(dtype=theirs.dtype, batch_size=theirs.batch_size)
    if theirs.task == "lm":  # without text in the file
        ours = device.changed(ours, model=dict(text_dim=0))

    def compare(ours, theirs):
        for name, value in ours.items():
            if isinstance(value, dict):
                compare(value, theirs[name])
            else:
                assert value == theirs[name], name

    compare(ours, theirs.to_dict())
