"""The package from a wheel, an editable install and a checkout, used from another folder."""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
COMMANDS = ("train", "encode", "generate", "measure", "evaluate", "export", "bench")
FIRST_THAT_MAKES_WHEELS = (70, 1)  # of setuptools; pip fetches a newer one for an older

SMOKE = """
import importlib, importlib.util, sys
import numpy as np
import indep_jax
from indep_jax.support import configs
assert "jax" not in sys.modules
assert importlib.util.find_spec("configs") is None  # not a package of the whole environment
for name in configs.names():
    module = importlib.import_module(f"indep_jax.configs.{name}")
    by_path = configs.load(f"{configs.FOLDER}/{name}.py").to_dict()
    assert configs.load(name).to_dict() == module.get_config().to_dict() == by_path
for name in configs.names(configs.SWEEPS):
    importlib.import_module(f"indep_jax.configs.sweeps.{name}").get_points()
from indep_jax.data import open_source, read_file
(file, *_) = open_source("sample:", "all").files
for name in ("small", "small_none"):
    codec = indep_jax.load_codec(name)
wave = read_file(file, codec.sample_rate, codec.channels)[:codec.sample_rate // 2]
decoded = codec.decode(codec.encode(wave[None]))
assert decoded.shape == (1, *wave.shape) and np.isfinite(decoded).all() and np.any(decoded)
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """What the package is built from, in a folder without anything that was built before."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("indep_jax", "configs"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    return folder


@pytest.fixture
def environment(tmp_path):
    """An environment with this one's packages, but for indep_jax: its interpreter and its folder."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    place = dict(base=str(tmp_path / "env"), platbase=str(tmp_path / "env"))
    site = pathlib.Path(sysconfig.get_path("purelib", "venv", vars=place))
    # A folder that a .pth file names is searched, but the .pth files in it, such as that of an
    # editable install of this checkout, are not followed.
    site.joinpath("dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return tmp_path / "env" / "bin" / "python", site


def isolation():
    """What keeps pip from fetching setuptools where this environment has one that will do."""
    try:
        version = importlib.metadata.version("setuptools").split(".")
    except importlib.metadata.PackageNotFoundError:
        return []
    new = tuple(map(int, version[:2])) >= FIRST_THAT_MAKES_WHEELS
    return ["--no-build-isolation"] if new else []


def pip(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def run(folder, python, *arguments, path=None):
    """Run Python in `folder`, without the PYTHONPATH of these tests; return what it prints."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path:
        variables["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [python, *arguments], capture_output=True, text=True, cwd=folder, env=variables
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_configs(folder, python, package, path=None):
    """The package is the one in `package`; its configs are found by name and path from `folder`."""
    script = (
        "from absl import flags\n"
        "from indep_jax.support import command, configs\n"
        "configs.define_flag()\n"
        "command.run(lambda: print(flags.FLAGS.config.model.dim, flags.FLAGS.config.steps))\n"
    )
    where = "from indep_jax.support import configs; print(configs.FOLDER)"
    configs = run(folder, python, "-c", where, path=path).strip()
    assert configs == f"{package}/indep_jax/configs"
    for name in ("musicgen:small", f"{configs}/musicgen.py:small"):
        arguments = [f"--config={name}", "--config.steps=7"]
        assert run(folder, python, "-c", script, *arguments, path=path) == "1024 7\n"
    arguments = ["--config=encodec_small", "--help"]
    assert "--config" in run(folder, python, "-m", "indep_jax.train", *arguments, path=path)


def test_a_wheel_is_whole(sources, environment, tmp_path):
    python, site = environment
    pip("wheel", "--quiet", "--no-deps", *isolation(), f"--wheel-dir={tmp_path}", str(sources))
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"indep_jax"}
    assert not any("__pycache__" in name for name in names)
    pip("install", "--quiet", "--no-deps", "--no-index", f"--target={site}", str(wheel))
    check_configs(tmp_path, python, site)
    run(tmp_path, python, "-c", SMOKE)
    for command in (f"indep_jax.{name}" for name in COMMANDS):
        assert f"python -m {command} " in run(tmp_path, python, "-m", command, "--help")


def test_an_editable_install_finds_the_configs(sources, environment, tmp_path):
    python, site = environment
    pip(
        "install",
        "--quiet",
        "--no-deps",
        *isolation(),
        f"--target={site}",
        "--editable",
        str(sources),
    )
    check_configs(tmp_path, python, sources)


def test_a_checkout_finds_the_configs(sources, environment, tmp_path):
    python, _ = environment
    check_configs(tmp_path, python, sources, path=sources)
