"""Configs by name and by path, their bases beside them, and flags that no config has."""

import shutil

import pytest
from absl import flags

from indep_jax.support import configs
from indep_jax.support.errors import UserError


def test_a_name_is_a_config_that_ships_and_a_path_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encodec_small").write_text("not what the name means")
    by_name = configs.load("encodec_small")
    assert by_name.is_locked and by_name.model.sample_rate == 16_000
    assert configs.load(str(configs.FOLDER / "encodec_small.py")).to_dict() == by_name.to_dict()
    assert configs.load("musicgen:medium").model.dim == 1_536
    assert configs.load("musicgen").model.dim == configs.load("musicgen:small").model.dim == 1_024
    (tmp_path / "own.py").write_text(
        "import ml_collections\ndef get_config(n='1'): return ml_collections.ConfigDict(dict(n=n))"
    )
    assert configs.load("own.py").n == "1" and configs.load("./own.py:2").n == "2"


@pytest.mark.parametrize("name", configs.names())
def test_every_config_ships_and_loads(name):
    assert configs.load(name).task in ("codec", "lm")


def test_a_config_finds_its_base_beside_itself(tmp_path):
    folder = shutil.copytree(configs.FOLDER, tmp_path / "mine")
    base = folder / "encodec_32khz.py"
    base.write_text(base.read_text().replace("keep=3", "keep=7"))
    assert configs.load(f"{folder}/quickstart.py").keep == 7
    assert configs.load("quickstart").keep == 3


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("nine", "", "expected encodec_32khz, encodec_32khz_mmd, .*, or the path of a .py file"),
        ("nine.py", "", "no such file"),
        ("musicgen:tiny", "", "size tiny: expected one of debug, small, medium, large"),
        ("encodec_small:tiny", "", r"TypeError: get_config\(\) takes 0 positional arguments"),
        ("./own.py", "x = 1", r"expected a function get_config\(\)"),
        ("./own.py", "def get_config(): return 3", r"get_config\(\) gave int, expected a Config"),
        ("./own.py", "def get_config():\n  return nine", "line 2: NameError: name 'nine' is not"),
        ("./own.py", "def get_config(:", r"SyntaxError: invalid syntax \(own.py, line 1\)"),
        ("./own.py", "import nine", "line 1: ModuleNotFoundError: No module named 'nine'"),
    ],
)
def test_what_is_no_config_is_one_line(tmp_path, monkeypatch, name, content, said):
    monkeypatch.chdir(tmp_path)
    if content:
        (tmp_path / "own.py").write_text(content)
    with pytest.raises(UserError, match=f"^{said}"):
        configs.load(name)


@pytest.mark.parametrize(
    "argument, said",
    [
        ("--config.stps=3", 'has no field stps. Did you mean "steps"?'),
        ("--config.model.n_filter=8", 'has no field model.n_filter. Did you mean "n_filters"?'),
        ("--config.optimzer.warmup_steps=1", 'optimzer.warmup_steps. Did you mean "optimizer"?'),
        ("--noconfig.model.causl", 'has no field model.causl. Did you mean "causal"?'),
        ("--config.steps.more=3", "has no field steps.more"),
    ],
)
def test_a_field_that_is_not_there_is_named_with_its_neighbour(monkeypatch, argument, said):
    argv = ["train", "--config=encodec_small", argument]
    monkeypatch.setattr("sys.argv", argv)
    values = flags.FlagValues()
    configs.define_flag(values)
    with pytest.raises(flags.IllegalFlagValueError) as error:
        values(argv)
    assert str(error.value).startswith("flag --config=encodec_small: has no field ")
    assert str(error.value).endswith(said)
