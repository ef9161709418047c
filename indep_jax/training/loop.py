"""The training loop: state, batch, step, save, evaluate, log, for any task.

A run is exact: every batch is a function of (seed, index) and every random number of (seed, step),
so a run that is killed at any moment and started again gives the numbers of the undisturbed one.
Steps are counted from 0 where they are trained (`plan`, `before_step`, the batch index, the
random key) and named by the number of steps done where they are shown or saved.
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

State = Any  # nested dict of arrays with at least {"step", "params"}
Batch = Any  # tree of arrays whose first axis is the rows of the global batch
Metrics = Mapping[str, jax.Array]
INIT = np.uint32(2**32 - 1)  # folded into the seed for `init`: a number that no step has


class Evaluation(NamedTuple):
    """What an evaluation found: numbers, sounds and pictures by name."""

    scalars: Mapping[str, float] = {}
    audio: Mapping[str, tuple[np.ndarray, int]] = {}  # ([time, channels], sample rate in Hz)
    figures: Mapping[str, matplotlib.figure.Figure] = {}


class Task(Protocol):
    """What a task provides. `seconds_per_batch` (audio in a global batch) is optional."""

    memory_remedy: str  # which fields to change when the devices' memory runs out: "lower X or Y"
    dataset: grain.MapDataset  # batches by index: trees of numpy arrays, this process's rows
    placement: Sequence[tuple[str, PartitionSpec]]  # see sharding.placement; [] replicates all
    # Each jitted here, the state donated. Every metric is a scalar; "loss" is shown while training.
    programs: Mapping[str, Callable[[State, Batch, jax.Array], tuple[State, Metrics]]]

    def init(self, rng: jax.Array, batch: Batch) -> State:
        """The first state; pure and jittable."""

    def plan(self, step: int) -> tuple[str, int]:
        """The program of a step and its history: how many batches it sees.

        With a history n > 1 the program gets {"current": batch, "history": the batches of indices
        step - n + 1 .. step, stacked on a leading axis}.
        """

    def before_step(self, step: int, state: State, read: Callable[[int], Batch]) -> State:
        """A hook on the host before each step; `read(index)` gives any training batch.

        Returns `state` itself when there is nothing to do. What it returns must depend on
        (step, state, batches) alone, or a resumed run would differ.
        """

    def evaluate(self, state: State) -> Evaluation:
        """Evaluates on held-out data."""


class NonFiniteLoss(RuntimeError):
    """A metric of a step was NaN or infinite; the message is one line."""


class OutOfMemory(RuntimeError):
    """The devices' memory ran out; the message is one line that says what to lower."""


def run(
    task: Task, config: Any, workdir: str | os.PathLike, *, max_step: int | None = None
) -> State:
    """Trains until config.steps, continuing what `workdir` holds. Returns the final state.

    Args:
      task: see Task.
      config: seed, steps, init_from, log_every, evaluate_every, save_every, keep, dtype; optionally mesh
        (see sharding.make_mesh). Stored in the workdir.
      workdir: checkpoints/, config.json and what writers.Writers writes.
      max_step: stop there as if interrupted: saved, and not evaluated unless it was due.
    Raises:
      UserError: the workdir holds a run with another config or is in use by another run,
        init_from does not fit, or the batch does not divide over the devices.
      OSError: the workdir cannot be written.
      processes.Stopped: SIGTERM or SIGINT came; the step that ran was finished and saved. (In the main thread;
        elsewhere signals do what they always do. Of several processes, SIGTERM to one stops all.)
      NonFiniteLoss: a metric was not finite. The state that gave it is not saved.
      OutOfMemory: a step, or what comes before it, needs more memory than a device has.
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
                state = _Run(task, config, workdir, saved, signals).train(max_step)
            finally:
                saved.close()
    except RuntimeError as error:
        if (reason := devices.out_of_memory(error)) is None:
            raise
        raise OutOfMemory(
            f"out of device memory ({reason}): {task.memory_remedy}, {_where_to_go_on(workdir)}"
        ) from error
    except OSError as error:
        if error.strerror and not error.filename:  # a write, which does not say where
            raise OSError(error.errno, error.strerror, os.fspath(workdir)) from error
        raise
    finally:
        lock.release()
    if signals.received:
        raise processes.Stopped(signals.received, int(state["step"]), workdir)
    return state


def _where_to_go_on(workdir: str | os.PathLike) -> str:
    """How a run goes on that ran out of memory; without a checkpoint its config is free again."""
    last = checkpoints.latest(workdir)
    if last is None:
        checkpoints.forget_config(workdir)
        return "in the same workdir, where nothing was saved yet"
    return (
        f"in a new workdir with init_from={workdir}, to go on from step {last.name}; where there is "
        "more memory, the same command goes on"
    )


class _Run:
    """One call of `run`: the state, its step, and what was measured since the last log."""

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
        self.pending: Metrics | None = None  # of the step that was dispatched last
        self._start()
        self.seconds = self.waited = 0.0  # since the last log: training, and waiting for data
        self.steps_timed = 0

    def _start(self) -> None:
        """Sets step and state: from this workdir, from init_from, or new."""
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
            # Saved at once: the other run may go on, and this one must keep its start.
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
                self._evaluate()  # the run was killed between the save and the end of evaluation
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
        """Dispatches one step, then handles the metrics of the one before while it runs."""
        name, history = self.task.plan(self.step)
        state = self.task.before_step(self.step, self.state, self.batches.read)
        if state is not self.state:
            self.state = sharding.put(state, self.shardings)
        begin = time.perf_counter()
        batch = self.batches.next(self.step, history)
        waited = time.perf_counter() - begin
        if self.pending and not next(iter(self.pending.values())).is_ready():
            waited = 0.0  # the step before is still running: only reading waited
        step = np.int32(self.step)
        if name not in self.compiled:
            self.compiled[name] = self._compile(name, batch, step)
            if memory := devices.memory(self.compiled[name]):
                self.out.message(f"{name}: a step takes {memory}")
            begin, waited = time.perf_counter(), 0.0  # starting up is no speed
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
        """One executable for a program: a batch of another shape is an error, no second compile."""
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
        """Checks and averages the metrics of the step that made `step` steps done."""
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
        scalars["time/data_wait"] = self.waited / self.seconds  # the share, at most
        if seconds := getattr(self.task, "seconds_per_batch", None):
            scalars["time/audio_seconds_per_second"] = speed * seconds
        self.seconds, self.waited, self.steps_timed = 0.0, 0.0, 0
        self.out.scalars(step, scalars)
        self.out.show(step, scalars)

    def _save(self) -> None:
        if self.pending is not None:
            self._handle(self.step, self.pending)  # nothing unchecked is ever saved
            self.pending = None
        # A copy: the save is written while the means go on.
        means = {name: list(pair) for name, pair in self.means.sums.items()}
        position = {"data_index": self.step, "means": means}
        self.saved.save(self.step, self.state, position)
        self.saved_step = self.step

    def _evaluate(self) -> None:
        begin = time.perf_counter()
        found = self.task.evaluate(self.state)
        self.out.audio(self.step, found.audio)
        self.out.figures(self.step, found.figures)
        # Written last: this line says that the evaluation is complete.
        self.out.scalars(
            self.step,
            {
                **{f"eval/{name}": value for name, value in found.scalars.items()},
                "time/evaluation": time.perf_counter() - begin,
            },
        )


class _Means:
    """Running means of metrics, each over the steps that had it."""

    def __init__(self, sums: Mapping[str, Sequence[float]] | None = None):
        self.sums = {name: list(pair) for name, pair in (sums or {}).items()}

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            pair = self.sums.setdefault(name, [0.0, 0])
            pair[0] += value
            pair[1] += 1

    def take(self) -> dict[str, float]:
        """The means, and begins anew."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means
