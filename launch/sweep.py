"""Trains a config at every point of a sweep, one after another.

    python launch/sweep.py --config=encodec_small --sweep=independence --workdir=DIR \
        [--points=NAME,NAME] [--dry_run] [--config.FIELD=VALUE ...] [--max_step=N]

The file of a sweep has get_points(), {name: {field: value}}. Each point is one command of
indep_jax.train, which is printed, with the fields set, in DIR/NAME; the --config flags given here
hold for all. Interrupted, the same command goes on. The first point that fails ends the sweep, with
its exit code.
"""

import shlex
import signal
import subprocess
import sys

from absl import flags
from ml_collections import config_flags

from indep_jax.support import command, configs
from indep_jax.support.errors import UserError


def read_points(path: str, config) -> dict[str, dict]:
    """Return the points of a sweep by name; path: its file, or the name of one that ships.

    Raises UserError for a file that is missing or fails, and for a field that `config` has not.
    """
    try:
        points = configs.call(configs.find(path, configs.SWEEPS), "get_points")
    except UserError as error:
        raise UserError(f"--sweep={path}: {error}") from error
    if not isinstance(points, dict):
        raise UserError(f"--sweep={path}: get_points() gave {type(points).__name__}, expected dict")
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
    options = flags.FLAGS
    if not options["config"].value:
        raise UserError("--config is required; --help says how")
    points = read_points(options.sweep, options.config)
    if unknown := set(options.points) - set(points):
        raise UserError(f"--points: {sorted(unknown)[0]} is none of {', '.join(points)}")
    shared = [f"--config={config_flags.get_config_filename(options['config'])}"]
    shared += [text for text in sys.argv[1:] if text.startswith("--config.")]
    if incomplete := [text for text in shared if "=" not in text]:
        raise UserError(f"{incomplete[0]}: expected {incomplete[0]}=VALUE")
    if options.max_step is not None:
        shared.append(f"--max_step={options.max_step}")
    for name in options.points or points:
        line = [
            sys.executable,
            "-m",
            "indep_jax.train",
            *shared,
            f"--workdir={options.workdir}/{name}",
        ]
        line += [f"--config.{field}={value}" for field, value in points[name].items()]
        print(shlex.join(line), flush=True)
        if not options.dry_run and (code := run(line)):
            sys.exit(code)


if __name__ == "__main__":
    configs.define_flag()
    sweeps = ", ".join(configs.names(configs.SWEEPS))
    flags.DEFINE_string(
        "sweep", None, f"The points: a .py file, or one of {sweeps}.", required=True
    )
    flags.DEFINE_string("workdir", None, "A folder for each point is made here.", required=True)
    flags.DEFINE_list("points", [], "Names of points; default all.")
    flags.DEFINE_bool("dry_run", False, "Print the commands only.")
    flags.DEFINE_integer("max_step", None, "As of indep_jax.train.")
    command.run(main)
