"""Several processes as one run, and the signals that stop it."""

import os
import re
import signal
import sys
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

from indep_jax.support.errors import UserError


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Make the devices of several processes one set; call it before anything is computed.

    Args:
      coordinator: HOST:PORT of the first process; "auto" where JAX can ask the cluster; None for a
        single process.
      processes: the number of processes, with HOST:PORT.
      process: the number of this one, from 0, with HOST:PORT.
    Raises:
      UserError: a coordinator without the numbers, or the numbers without it; an address that is
        none; "auto" where JAX finds no cluster.
    """
    numbers = processes, process
    if coordinator in (None, "auto"):
        if numbers != (None, None):
            raise UserError("--processes and --process: expected with --coordinator=HOST:PORT")
        if coordinator:
            try:
                jax.distributed.initialize()
            except ValueError as error:
                raise UserError(
                    f"--coordinator=auto: JAX finds no cluster here ({error}); expected HOST:PORT"
                ) from error
        return
    if not re.fullmatch(r".+:\d+", coordinator):
        raise UserError(f"--coordinator={coordinator}: expected HOST:PORT or auto")
    if None in numbers or process >= processes:
        raise UserError(
            f"--coordinator={coordinator}: expected --processes=N and --process=0 to N - 1"
        )
    jax.distributed.initialize(coordinator, processes, process)


class Stopped(RuntimeError):
    """A signal ended the run after a save. The message has one line."""

    def __init__(self, number: int, step: int, workdir: str | os.PathLike):
        name = signal.Signals(number).name
        super().__init__(
            f"stopped by {name} at step {step}, saved in {workdir}; the same command continues "
            "from there"
            if step
            else f"stopped by {name} before the first step"
        )
        self.signal = number


class Signals:
    """Record the first SIGTERM or SIGINT while entered; a second one acts as usual.

    Only in the main thread. With several processes, JAX reports a SIGTERM to any of them to all.
    """

    def __init__(self):
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.received = number
        self.__exit__()
        print(
            f"\n{signal.Signals(number).name}: saving, then stopping; again to stop at once",
            file=sys.stderr,
            flush=True,
        )

    def stop(self, step: int) -> bool:
        """Return whether a signal has arrived; several processes agree on the step."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.received = signal.SIGTERM
        return self.received is not None

    def __exit__(self, *error: Any) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
