"""Trains a codec, from a config, in a folder that holds everything about the run.

  python -m indep_jax.train --config=configs/encodec_small.py \\
      --config.data.source=folder:PATH --workdir=DIR [--config.FIELD=VALUE ...]

The same command again goes on where the run was, to the same numbers; SIGTERM and Ctrl-C save
first, and end with exit code 128 + the signal's number. The workdir gets
config.json, checkpoints/, metrics.jsonl, TensorBoard events, and audio/ and figures/ of every
evaluation. --config.init_from=OTHER_WORKDIR starts from another run's whole state.
"""

import os
import sys

from absl import flags
from ml_collections import config_flags

from indep_jax import command
from indep_jax.tasks.codec import CodecTask
from indep_jax.training import loop

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's configuration, a .py file.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made when it is missing.")

_MAX_STEP = flags.DEFINE_integer(
    "max_step",
    None,
    "Stop after this step, saved, as if interrupted: a common start for the arms of a comparison.",
)


def train(config, workdir: str | os.PathLike, *, max_step: int | None = None):
    """Trains the task of `config` in `workdir`; returns the final state.

    Raises ValueError, one line, for a config or a workdir that cannot be.
    """
    if config.task != "codec":
        raise ValueError(f"task must be 'codec', not {config.task!r}")
    if not config.data.source:
        raise ValueError("data.source is empty: give --config.data.source=folder:PATH, array_record:GLOB or sample:")
    return loop.run(CodecTask(config).open(), config, workdir, max_step=max_step)


def main():
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    for name, value in dict(config=path, workdir=_WORKDIR.value).items():
        if not value:
            raise ValueError(f"--{name} is required; --help says how")
    if not os.path.isfile(path):
        raise ValueError(f"--config={path}: no such file")
    try:
        train(_CONFIG.value, _WORKDIR.value, max_step=_MAX_STEP.value)
    except (loop.Stopped, loop.NonFiniteLoss) as end:
        print(f"indep_jax.train: {end}", file=sys.stderr)
        sys.exit(128 + end.signal if isinstance(end, loop.Stopped) else 1)


if __name__ == "__main__":
    command.run(main)
