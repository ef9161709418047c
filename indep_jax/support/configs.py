"""Configs and sweeps by name or path, and the flag --config.

The folder `configs` of the repository is `indep_jax.configs` in a wheel, and a link of that name in
a checkout, so that the names work wherever the package does.
"""

import difflib
import os
import re
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from indep_jax.support.errors import UserError

FOLDER = Path(__file__).parents[1] / "configs"
SWEEPS = FOLDER / "sweeps"


def names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the configs that ship, or of the sweeps with folder=SWEEPS."""
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def find(name: str, folder: Path = FOLDER) -> Path:
    """Return the path of a file that is given by its name in `folder` or by its path.

    A word without a dot or a slash is a name. Raises UserError for one that is not there.
    """
    if re.fullmatch(r"\w+", name):
        if name not in names(folder):
            raise UserError(f"expected {', '.join(names(folder))}, or the path of a .py file")
        return folder / f"{name}.py"
    if not os.path.isfile(name):
        raise UserError("no such file")
    return Path(name)


def call(path: Path, function: str, *arguments: str) -> Any:
    """Return what `function` of a Python file returns.

    Raises UserError with the file, the line and the exception where the file raises one.
    """
    try:
        content = runpy.run_path(str(path))
        if function not in content:
            raise UserError(f"expected a function {function}()")
        return content[function](*arguments)
    except UserError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        place = f"line {lines[-1]}: " if lines else ""
        raise UserError(f"{place}{type(error).__name__}: {error}") from error


def load(name: str) -> ml_collections.ConfigDict:
    """Return a config by its name or path, locked, with an argument after a colon if it takes one.

    load("encodec_small"), load("musicgen:small"), load("my/config.py"). Raises UserError.
    """
    name, *arguments = name.split(":", 1)
    config = call(find(name), "get_config", *arguments)
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"get_config() gave {type(config).__name__}, expected a ConfigDict")
    return config.lock()


def define_flag(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flag --config, of a file or a name, and --config.FIELD for every field of it."""
    text = (
        f"Configuration: a .py file, or one of {', '.join(names())}. --config.FIELD sets a field."
    )
    config_flags.DEFINE_config_file("config", None, text, flag_values=flag_values)
    flag_values["config"].parser = _Parser()


class _Parser(flags.ArgumentParser):
    def parse(self, argument: str) -> ml_collections.ConfigDict:
        config = load(argument)
        for flag in sys.argv[1:]:
            if field := re.match(r"--?(?:no)?config\.([\w.]+)", flag):
                _check_field(config, field[1])
        return config


def _check_field(config: Any, field: str) -> None:
    """Raise UserError with the near name for a field that `config` does not have."""
    section = config
    for part in field.split("."):
        if not isinstance(section, ml_collections.ConfigDict) or part not in section:
            near = difflib.get_close_matches(part, getattr(section, "keys", tuple)(), 1)
            hint = f'. Did you mean "{near[0]}"?' if near else ""
            raise UserError(f"has no field {field}{hint}")
        section = section[part]
