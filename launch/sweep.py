"""Trains a config at every point of a sweep, one after another.

    python launch/sweep.py --config=configs/encodec_small.py --sweep=configs/sweeps/independence.py \
        --workdir=DIR [--points=NAME,NAME] [--dry_run] [--config.FIELD=VALUE ...] [--max_step=N]

The file of a sweep has get_points(), {name: {field: value}}. Each point is one command of
indep_jax.train, which is printed, with the fields set, in DIR/NAME; the --config flags given here
hold for all. Interrupted, the same command goes on. The first point that fails ends the sweep, with
its exit code.
"""

import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from indep_jax.support import command
from indep_jax.support.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config, a .py file.")
_SWEEP = flags.DEFINE_string("sweep", None, "The points, a .py file.", required=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "A folder for each point is made here.", required=True
)
_POINTS = flags.DEFINE_list("points", [], "Names of points; default all.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the commands only.")
_MAX_STEP = flags.DEFINE_integer("max_step", None, "As of indep_jax.train.")


def read_points(path: str, config) -> dict[str, dict]:
    """The points of a sweep's file, by name.

    Raises UserError, one line, for a file without any, and for a field that `config` has not.
    """
    if not Path(path).is_file():
        raise UserError(f"--sweep={path}: no such file")
    found = runpy.run_path(path)
    if "get_points" not in found:
        raise UserError(f"--sweep={path}: expected a function get_points()")
    points = found["get_points"]()
    fields = config.to_dict()
    for name, point in points.items():
        for field in point:
            section = fields
            for part in field.split("."):
                if not isinstance(section, dict) or part not in section:
                    raise UserError(
                        f"--sweep={path}: point {name} sets {field}, which the config has not"
                    )
                section = section[part]
    return points


def run(line: list[str]) -> int:
    """Runs a command to its end and returns its exit code; a signal is passed on, once."""
    # In a session of its own: Ctrl-C reaches it through here alone.
    process = subprocess.Popen(line, start_new_session=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: process.send_signal(number))
    return process.wait()


def main() -> None:
    if not flags.FLAGS["config"].value:
        raise UserError("--config is required; --help says how")
    points = read_points(_SWEEP.value, _CONFIG.value)
    if unknown := set(_POINTS.value) - set(points):
        raise UserError(f"--points: {sorted(unknown)[0]} is none of {', '.join(points)}")
    shared = [f"--config={config_flags.get_config_filename(flags.FLAGS['config'])}"]
    shared += [text for text in sys.argv[1:] if text.startswith("--config.")]
    if incomplete := [text for text in shared if "=" not in text]:
        raise UserError(f"{incomplete[0]}: expected {incomplete[0]}=VALUE")
    if _MAX_STEP.value is not None:
        shared.append(f"--max_step={_MAX_STEP.value}")
    for name in _POINTS.value or points:
        line = [
            sys.executable,
            "-m",
            "indep_jax.train",
            *shared,
            f"--workdir={_WORKDIR.value}/{name}",
        ]
        line += [f"--config.{field}={value}" for field, value in points[name].items()]
        print(shlex.join(line), flush=True)
        if not _DRY_RUN.value and (code := run(line)):
            sys.exit(code)


if __name__ == "__main__":
    command.run(main)
