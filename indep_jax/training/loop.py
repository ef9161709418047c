"""The training loop of every task: batch, step, log, save, evaluate.

Runs are exact: every batch is a function of (seed, index) and every random number of (seed, step),
so a run that is killed at any moment and restarted gives the same numbers as one that was not.
Training counts steps from 0 (`plan`, `before_step`, the batch index, the random key); logs and
checkpoints name a step by the number of steps done.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import grain
import jax
import matplotlib.figure
import numpy as np
from jax.sharding import PartitionSpec

from indep_jax.support import devices
from indep_jax.support.errors import UserError
from indep_jax.training import batches, checkpoints, processes, sharding, writers

State = Any  # tree of arrays; the package's tasks have training.state.State
Batch = Any  # tree of arrays whose first axis is the rows of the global batch
Metrics = Mapping[str, jax.Array]
INIT = np.uint32(2**32 - 1)  # folded into the seed for `init`: a number that no step has


class Evaluation(NamedTuple):
    """The result of an evaluation: numbers, sounds and figures by name."""

    scalars: Mapping[str, float] = {}
    audio: Mapping[str, tuple[np.ndarray, int]] = {}  # ([time, channels], sample rate in Hz)
    figures: Mapping[str, matplotlib.figure.Figure] = {}


class Task(Protocol):
    """The interface of a task to the loop.

    `seconds_per_batch`, the seconds of audio in a global batch, is optional.
    """

    memory_remedy: str  # the advice when device memory runs out, such as "lower X or Y"
    dataset: grain.MapDataset  # batches by index: trees of numpy arrays, this process's rows
    placement: Sequence[tuple[str, PartitionSpec]]  # see sharding.placement; [] replicates all
    # The loop jits each and donates the state. Metrics are scalars; "loss" is shown as progress.
    programs: Mapping[str, Callable[[State, Batch, jax.Array], tuple[State, Metrics]]]

    def init(self, rng: jax.Array, batch: Batch) -> State:
        """Return the initial state; pure and jittable."""

    def plan(self, step: int) -> tuple[str, int]:
        """Return the name of a step's program and its history, the number of batches it sees.

        With a history n > 1 the program gets {"current": batch, "history": the batches with indices
        step - n + 1 to step, stacked on a leading axis}.
        """

    def before_step(self, step: int, state: State, read: Callable[[int], Batch]) -> State:
        """Change the state on the host before a step; `read(index)` returns any training batch.

        Return `state` itself to change nothing. The result must depend on (step, state, batches)
        alone, or a resumed run would differ.
        """

    def evaluate(self, state: State) -> Evaluation:
        """Evaluate on held-out data."""


class NonFiniteLoss(RuntimeError):
    """A metric of a step was NaN or infinite. The message has one line."""


class OutOfMemory(RuntimeError):
    """A device's memory ran out. The message has one line and says what to change."""


def run(
    task: Task, config: Any, workdir: str | os.PathLike, *, max_step: int | None = None
) -> State:
    """Train until config.steps, resuming the run in `workdir`, and return the final state.

    Args:
      task: see Task.
      config: seed, steps, init_from, log_every, evaluate_every, save_every, keep, dtype and, where
        wanted, mesh (see sharding.make_mesh). Stored in the workdir.
      workdir: gets checkpoints/, config.json and the files of writers.Writers.
      max_step: save and stop after this step, as if interrupted; evaluate only if it is due.
    Raises:
      UserError: the workdir holds a run with another config or is in use by another run,
        init_from does not fit, or the batch does not divide over the devices.
      OSError: the workdir cannot be written.
      processes.Stopped: SIGTERM or SIGINT arrived; the running step was finished and saved. Only
        in the main thread: in others, signals act as usual. With several processes, SIGTERM to any
        stops all.
      NonFiniteLoss: a metric was not finite; the state that produced it is not saved.
      OutOfMemory: the run needs more memory than a device has.
    """
    for name in ("steps", "log_every", "evaluate_every", "save_every", "keep"):
        if config[name] < 1:
            raise UserError(f"{name} must be at least 1, not {config[name]}")
    lock = checkpoints.Lock(workdir)
    try:
        checkpoints.check_config(workdir, config)
        saved = checkpoints.Checkpoints(workdir, keep=config.keep)
        if jax.process_index() == 0:
            print(
                f"training on {devices.describe()}, in {config.dtype}", file=sys.stderr, flush=True
            )
        with processes.Signals() as signals:
            try:
                running = _Run(task, config, workdir, saved, signals)
                state = running.train(max_step)
            finally:
                saved.close()
    except RuntimeError as error:
        if (reason := devices.out_of_memory(error)) is None:
            raise
        raise OutOfMemory(
            f"out of device memory ({reason}): {task.memory_remedy}, {_how_to_resume(workdir)}"
        ) from error
    except OSError as error:
        if error.strerror and not error.filename:  # failed writes do not name the file
            raise OSError(error.errno, error.strerror, os.fspath(workdir)) from error
        raise
    finally:
        lock.release()
    if signals.received:
        raise processes.Stopped(signals.received, running.step, workdir)
    return state


def _how_to_resume(workdir: str | os.PathLike) -> str:
    """Return how to resume after an OutOfMemory; without a checkpoint, drop the stored config."""
    last = checkpoints.latest(workdir)
    if last is None:
        checkpoints.forget_config(workdir)
        return "in the same workdir (nothing was saved yet)"
    return (
        f"in a new workdir with init_from={workdir}, which continues from step {last.name}; with "
        "more memory, the same command continues"
    )


class _Run:
    """One call of `run`: the state, its step, and the metrics since the last log."""

    def __init__(
        self,
        task: Task,
        config: Any,
        workdir: str | os.PathLike,
        saved: checkpoints.Checkpoints,
        signals: processes.Signals,
    ):
        self.task, self.config, self.workdir, self.saved = task, config, workdir, saved
        self.signals = signals
        self.saved_step = 0
        self.mesh = sharding.make_mesh(config.get("mesh"))
        self.batches = batches.Batches(task.dataset, self.mesh, config.data.workers)
        self.compiled: dict[str, Callable] = {}
        self.means = _Means()
        self.pending: Metrics | None = None  # metrics of the step dispatched last
        self._start()
        self.seconds = self.waited = 0.0  # since the last log: in training, in waiting for data
        self.steps_timed = 0

    def _start(self) -> None:
        """Set step and state: from this workdir, from init_from, or new."""
        first = self.batches.read(0)

        def init(batch: Batch) -> State:
            rng = jax.random.fold_in(jax.random.key(self.config.seed), INIT)
            return self.task.init(rng, batch)

        shapes = jax.eval_shape(init, first)
        self.shardings = sharding.placement(shapes, self.task.placement, self.mesh)
        template = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, self.shardings
        )
        if path := checkpoints.latest(self.workdir):
            self.step, self.state, position = checkpoints.restore(path, template)
            self.means = _Means(position["means"])
            self.saved_step = self.step
            self.saved.drop_after(self.step)
            checkpoints.store_config(self.workdir, self.config)
        elif self.config.get("init_from"):
            self.step, self.state = checkpoints.restore_latest(self.config.init_from, template)
            checkpoints.store_config(self.workdir, self.config)
            # Save at once: the other run may delete the checkpoint, and this one must keep it.
            self._save()
            self.saved.wait()
        else:
            self.step = 0
            self.state = jax.jit(init, out_shardings=self.shardings)(first)
            checkpoints.store_config(self.workdir, self.config)

    def train(self, max_step: int | None) -> State:
        config = self.config
        stop = config.steps if max_step is None else min(max_step, config.steps)
        self.out = writers.Writers(self.workdir, step=self.step, steps=config.steps)
        try:
            if self.step and self._due(config.evaluate_every) and not self.out.evaluated(self.step):
                self._evaluate()  # the run was killed after the save, before the evaluation ended
            if self.step >= config.steps:
                self.out.message(f"{self.workdir}: already at step {self.step} of {config.steps}")
            while self.step < stop and not self.signals.stop(self.step):
                self._step()
                evaluate = self._due(config.evaluate_every)
                if evaluate or self._due(config.save_every):
                    self._save()
                if evaluate and not self.signals.received:
                    self._evaluate()
            if self.saved_step != self.step:
                self._save()
        finally:
            self.batches.close()
            self.out.close()
        return self.state

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _step(self) -> None:
        """Dispatch one step, and handle the metrics of the step before while it runs."""
        name, history = self.task.plan(self.step)
        state = self.task.before_step(self.step, self.state, self.batches.read)
        if state is not self.state:
            self.state = sharding.put(state, self.shardings)
        begin = time.perf_counter()
        batch = self.batches.next(self.step, history)
        waited = time.perf_counter() - begin
        if self.pending and not next(iter(self.pending.values())).is_ready():
            waited = 0.0  # the step before is still running, so the device did not wait
        step = np.int32(self.step)
        if name not in self.compiled:
            self.compiled[name] = self._compile(name, batch, step)
            if memory := devices.memory(self.compiled[name]):
                self.out.message(f"{name}: a step takes {memory}")
            begin, waited = time.perf_counter(), 0.0  # exclude compilation from the timing
        self.state, metrics = self.compiled[name](self.state, batch, step)
        previous, self.pending = self.pending, metrics
        if previous is not None:
            self._handle(self.step, previous)
        self.seconds += time.perf_counter() - begin
        self.waited += waited
        self.steps_timed += 1
        self.step += 1
        self.out.progress(self.step)

    def _compile(self, name: str, batch: Batch, step: np.int32) -> Callable:
        """Compile a program once: a batch of another shape is an error, not a second compilation."""
        program, seed = self.task.programs[name], self.config.seed

        def with_key(state: State, batch: Batch, step: jax.Array) -> tuple[State, Metrics]:
            return program(state, batch, jax.random.fold_in(jax.random.key(seed), step))

        everywhere = sharding.replicated(self.mesh)
        jitted = jax.jit(
            with_key,
            donate_argnums=0,
            in_shardings=(self.shardings, jax.tree.map(lambda x: x.sharding, batch), everywhere),
            out_shardings=(self.shardings, everywhere),
        )
        return jitted.lower(self.state, batch, step).compile()

    def _handle(self, step: int, metrics: Metrics) -> None:
        """Check the metrics of the step that completed `step` steps, and add them to the means."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        culprits = [
            f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)
        ]
        if culprits:
            self.saved.wait()
            raise NonFiniteLoss(
                f"step {step} is not finite: {', '.join(culprits)}; "
                f"last good checkpoint: {checkpoints.latest(self.workdir) or 'there is none'}"
            )
        self.means.add(values)
        if step % self.config.log_every == 0 or step == self.config.steps:
            self._log(step)

    def _log(self, step: int) -> None:
        scalars = self.means.take()
        speed = self.steps_timed / self.seconds
        scalars["time/steps_per_second"] = speed
        scalars["time/data_wait"] = self.waited / self.seconds  # an upper bound of the share
        if seconds := getattr(self.task, "seconds_per_batch", None):
            scalars["time/audio_seconds_per_second"] = speed * seconds
        self.seconds, self.waited, self.steps_timed = 0.0, 0.0, 0
        self.out.scalars(step, scalars)
        self.out.show(step, scalars)

    def _save(self) -> None:
        if self.pending is not None:
            self._handle(self.step, self.pending)  # never save an unchecked state
            self.pending = None
        # A copy, as the save is written while the means change.
        means = {name: list(pair) for name, pair in self.means.sums.items()}
        position = {"data_index": self.step, "means": means}
        self.saved.save(self.step, self.state, position)
        self.saved_step = self.step

    def _evaluate(self) -> None:
        begin = time.perf_counter()
        result = self.task.evaluate(self.state)
        self.out.audio(self.step, result.audio)
        self.out.figures(self.step, result.figures)
        # Written last: this record marks the evaluation as complete.
        self.out.scalars(
            self.step,
            {
                **{f"eval/{name}": value for name, value in result.scalars.items()},
                "time/evaluation": time.perf_counter() - begin,
            },
        )


class _Means:
    """Running means of metrics, each over the steps that reported it."""

    def __init__(self, sums: Mapping[str, Sequence[float]] | None = None):
        self.sums = {name: list(pair) for name, pair in (sums or {}).items()}

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            pair = self.sums.setdefault(name, [0.0, 0])
            pair[0] += value
            pair[1] += 1

    def take(self) -> dict[str, float]:
        """Return the means and reset them."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means
