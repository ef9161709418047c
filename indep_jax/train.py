"""Trains a codec or a language model, from a config, in a folder that holds all about the run.

  python -m indep_jax.train --config=encodec_small \\
      --config.data.source=folder:PATH --workdir=DIR [--config.FIELD=VALUE ...]
  python -m indep_jax.train --config=lm_small --config.codec=CODEC \\
      --config.data.source=tokens:TOKENS --workdir=DIR [--config.FIELD=VALUE ...]

The same command again goes on where the run was, to the same numbers; SIGTERM and Ctrl-C save
first, and end with exit code 128 + the signal's number. The workdir gets
config.json, checkpoints/, metrics.jsonl, TensorBoard events, and audio/ and figures/ of every
evaluation. --config.init_from=OTHER_WORKDIR starts from another run's whole state.

On several machines the same command runs on each, with a workdir that all of them see and
--coordinator=auto where the cluster tells who is who (TPU pods, SLURM, Open MPI), else
--coordinator=HOST:PORT of the first with --processes=N --process=0 to N - 1.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import ml_collections
from absl import flags

from indep_jax.support import command, configs
from indep_jax.support.errors import UserError

if TYPE_CHECKING:
    from indep_jax.training.state import State


def train(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike, *, max_step: int | None = None
) -> State:
    """Train the task of `config` in `workdir`, and return the final state.

    Raises what `training.loop.run` raises: UserError for a config or a workdir that cannot be.
    """
    from indep_jax.tasks.build import build
    from indep_jax.training import loop

    return loop.run(build(config), config, workdir, max_step=max_step)


def main():
    options = flags.FLAGS
    for name in ("config", "workdir"):
        if not options[name].value:
            raise UserError(f"--{name} is required; --help says how")

    from indep_jax.training import loop, processes

    processes.join(options.coordinator, options.processes, options.process)
    try:
        train(options.config, options.workdir, max_step=options.max_step)
    except (processes.Stopped, loop.NonFiniteLoss, loop.OutOfMemory) as end:
        print(f"indep_jax.train: {end}", file=sys.stderr)
        sys.exit(128 + end.signal if isinstance(end, processes.Stopped) else 1)


if __name__ == "__main__":
    configs.define_flag()
    flags.DEFINE_string("workdir", None, "Folder of the run; made when it is missing.")
    flags.DEFINE_integer(
        "max_step",
        None,
        "Stop after this step, saved, as if interrupted: a common start for the arms of a "
        "comparison.",
    )
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of the first of several processes, or auto."
    )
    flags.DEFINE_integer("processes", None, "How many there are, unless auto.", lower_bound=1)
    flags.DEFINE_integer("process", None, "Which this one is, from 0.", lower_bound=0)
    command.run(main)
