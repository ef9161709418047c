"""The training loop on a toy task: runs are exact through kills, refusals name what is wrong."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import types

import grain
import jax
import jax.numpy as jnp
import matplotlib.figure
import ml_collections
import numpy as np
import optax
import pytest
import soundfile
from jax.sharding import PartitionSpec

from indep_jax.training import checkpoints, loop, sharding

ROWS, INPUTS = 8, 5


class Numbers:
    """Batches as a function of the index, like a real data set's."""

    def __len__(self):
        return 10_000

    def __getitem__(self, index):
        rng = np.random.default_rng([17, int(index)])
        x = rng.standard_normal((ROWS, INPUTS)).astype(np.float32)
        return dict(x=x, y=(x @ np.arange(INPUTS) + 1).astype(np.float32))


class Toy:
    """Linear regression with noise, a second program that joins 3 batches, and a host-level hook.

    nan_at: the data of this batch index is spoilt. pause: seconds each step takes on the host.
    """

    seconds_per_batch = 2.0
    memory_remedy = "lower batch_size"
    placement = [("w$", PartitionSpec("fsdp"))]

    def __init__(self, steps, *, nan_at=None, pause=0.0, width=1):
        self.dataset = grain.MapDataset.source(Numbers())
        self.optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps))
        self.programs = dict(single=self.single, joined=self.joined)
        self.traced, self.evaluated, self.steps = [], [], []
        self.nan_at, self.pause, self.width = nan_at, pause, width

    def init(self, rng, batch):
        w = jax.random.uniform(rng, (batch["x"].shape[1] * self.width,))
        params = dict(w=w, b=jnp.zeros(()))
        # ema is the same array as params: a donated state must hold it twice all the same.
        return dict(
            step=jnp.int32(0),
            params=params,
            ema=params,
            opt=self.optimizer.init(params),
            book=dict(code=jnp.zeros(INPUTS), average=jnp.zeros(INPUTS)),
        )

    def plan(self, step):
        return ("joined", 3) if step % 4 == 3 else ("single", 1)

    def before_step(self, step, state, read):
        self.steps.append(step)
        time.sleep(self.pause)
        if step != 5:
            return state
        mean = jnp.mean(read(1)["x"], axis=0) + state["params"]["w"][:INPUTS]
        return state | dict(book=dict(code=mean, average=mean))

    def single(self, state, batch, rng):
        self.traced.append("single")
        return self._update(state, batch["x"], batch["y"], rng)

    def joined(self, state, batch, rng):
        self.traced.append("joined")
        history = batch["history"]
        state, metrics = self._update(
            state, jnp.concatenate(history["x"]), jnp.concatenate(history["y"]), rng
        )
        gap = jnp.abs(history["x"][-1] - batch["current"]["x"]).max()
        return state, metrics | dict(gap=gap, oldest=history["y"][0, 0])

    def _update(self, state, x, y, rng):
        noise = jax.random.uniform(rng, y.shape)  # quicker to compile than normal

        def loss(params):
            guess = x @ params["w"][:INPUTS] + params["b"] + state["book"]["code"].sum()
            return jnp.mean((guess - y + 0.1 * noise) ** 2)

        value, grads = jax.value_and_grad(loss)(state["params"])
        updates, opt = self.optimizer.update(grads, state["opt"])
        params = optax.apply_updates(state["params"], updates)
        if self.nan_at is not None:
            value = jnp.where(state["step"] == self.nan_at, jnp.nan, value)
        ema = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, state["ema"], params)
        book = dict(code=0.9 * state["book"]["code"], average=state["book"]["average"] + 1)
        state = dict(step=state["step"] + 1, params=params, ema=ema, opt=opt, book=book)
        return state, dict(loss=value, size=jnp.abs(params["w"]).sum())

    def evaluate(self, state):
        self.evaluated.append(int(state["step"]))
        time.sleep(3 * self.pause)
        tone = np.sin(np.arange(1600) / 5.0)[:, None].astype(np.float32) / 2
        figure = matplotlib.figure.Figure(figsize=(2, 2))
        figure.text(0.1, 0.5, f"bias {state['ema']['b']:.3f}")
        return loop.Evaluation(
            dict(bias=float(state["ema"]["b"])), {"tone": (tone, 16_000)}, {"weights": figure}
        )


def make_config(**changes):
    config = ml_collections.ConfigDict(
        dict(
            seed=3,
            steps=22,
            dtype="float32",
            init_from="",
            log_every=4,
            evaluate_every=9,
            save_every=5,
            keep=2,
            data=dict(workers=0),
            ratios=(2, 4),
            optimizer=dict(schedule="cosine", learning_rate=0.1),
        )
    )
    config.update(changes)
    return config


def leaves(state):
    # By name: a state restored without its task has lists where it had tuples.
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def assert_same(a, b, **tolerance):
    a, b = leaves(a), leaves(b)
    assert a.keys() == b.keys()
    for name in a:
        if tolerance:
            np.testing.assert_allclose(a[name], b[name], err_msg=name, **tolerance)
        else:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def read_metrics(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if not k.startswith("time/")} for record in records]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    task = Toy(22)
    compiled = []

    def count(event, seconds, **kwargs):
        if event.endswith("backend_compile_duration") and "with_key" in str(kwargs):
            compiled.append(kwargs)

    jax.monitoring.register_event_duration_secs_listener(count)
    state = loop.run(task, make_config(), workdir)
    task.compiled = len(compiled)
    return workdir, task, state


def test_each_program_is_compiled_once(undisturbed):
    _, task, _ = undisturbed
    assert sorted(set(task.traced)) == ["joined", "single"]
    assert len(task.traced) == 2 and task.compiled == 2


def test_metrics_are_means_and_history_joins_the_batches_before(undisturbed):
    workdir, task, state = undisturbed
    assert task.steps == list(range(22)) and int(state["step"]) == 22
    records = read_metrics(workdir)
    assert [r["step"] for r in records] == [4, 8, 9, 12, 16, 18, 20, 22, 22]
    assert [r["step"] for r in records if "eval/bias" in r] == task.evaluated == [9, 18, 22]
    log = next(r for r in records if r["step"] == 8)
    assert log["gap"] == 0 and log["oldest"] == pytest.approx(float(Numbers()[5]["y"][0]), rel=1e-6)
    # The mean over a window, against a run that logs every step.
    every = workdir.parent / "every_step"
    loop.run(Toy(22), make_config(log_every=1), every, max_step=8)
    single = [r["size"] for r in read_metrics(every)]
    assert len(single) == 8
    assert log["size"] == pytest.approx(np.mean(single[4:]), rel=1e-6)
    raw = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    timed = raw[1]
    assert 0 <= timed["time/data_wait"] <= 1
    assert timed["time/audio_seconds_per_second"] == pytest.approx(
        2 * timed["time/steps_per_second"]
    )


def test_evaluation_leaves_its_files(undisturbed):
    workdir, _, state = undisturbed
    for step in (9, 18, 22):
        audio, rate = soundfile.read(workdir / f"audio/step_{step:08d}/tone.wav")
        assert rate == 16_000 and audio.shape == (1600,) and abs(audio[8] - np.sin(1.6) / 2) < 1e-3
        png = (workdir / f"figures/step_{step:08d}/weights.png").read_bytes()
        assert png.startswith(b"\x89PNG") and len(png) > 500
    assert list((workdir / "tensorboard").glob("events.*"))
    assert read_metrics(workdir)[-1]["eval/bias"] == float(state["ema"]["b"])
    assert not list(workdir.rglob("*.tmp"))


def test_checkpoints_hold_the_state_and_are_readable_without_the_task(undisturbed):
    workdir, _, state = undisturbed
    step, restored = checkpoints.restore_latest(workdir)
    assert step == 22
    assert_same(restored, state)
    assert sorted(int(p.name) for p in (workdir / "checkpoints").iterdir()) == [20, 22]
    assert checkpoints.read_config(workdir)["ratios"] == [2, 4]
    with pytest.raises(ValueError, match="nowhere: no checkpoints here"):
        checkpoints.restore_latest(workdir / "nowhere")


def test_finished_run_does_nothing_and_says_so(undisturbed, capsys):
    workdir, _, state = undisturbed
    before = (workdir / "metrics.jsonl").read_text()
    task = Toy(22)
    assert_same(loop.run(task, make_config(log_every=7), workdir), state)
    assert "already at step 22 of 22" in capsys.readouterr().err
    assert task.steps == task.evaluated == [] and (workdir / "metrics.jsonl").read_text() == before


def start(workdir, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, __file__, str(workdir), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
    )


def test_killed_and_resumed_is_the_undisturbed_run(undisturbed, tmp_path):
    reference, task, state = undisturbed
    seed = time.time_ns()
    print("seed", seed)
    rng = random.Random(seed)
    # The second kill falls on the moment after save 10 was started; the others anywhere.
    kills = [(rng.randint(2, 8), rng.random() / 10), (10, 0.0), (rng.randint(14, 20), 0.05)]
    for step, delay in kills:
        process = start(tmp_path, "--pause=0.05")
        begun = [int(line.split()[1]) for line in iter(process.stdout.readline, f"step {step}\n")]
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        print("steps", begun, "killed at", step)
    # What a cut save leaves behind must not be taken for a checkpoint.
    (tmp_path / "checkpoints/21.orbax-checkpoint-tmp/state").mkdir(parents=True, exist_ok=True)
    resumed = Toy(22)
    final = loop.run(resumed, make_config(), tmp_path)
    # Lost: at most an interval of 5 steps, and what ran while a save was being written.
    assert 5 <= resumed.steps[0] <= 20
    assert_same(final, state)
    assert read_metrics(tmp_path) == read_metrics(reference)
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [20, 22]


@pytest.mark.parametrize("cut", [3, 10])
def test_stopped_at_a_step_and_resumed(undisturbed, tmp_path, cut):
    """On either side of the hook (5), inside a history (9 to 11), with a part of a log window."""
    reference, _, state = undisturbed
    loop.run(Toy(22), make_config(), tmp_path, max_step=cut)
    resumed = Toy(22)
    final = loop.run(resumed, make_config(log_every=4, keep=1), tmp_path)
    assert resumed.steps == list(range(cut, 22))
    assert_same(final, state)
    assert read_metrics(tmp_path) == read_metrics(reference)


def test_kill_during_evaluation_evaluates_again(undisturbed, tmp_path):
    class Cut(Toy):
        def evaluate(self, state):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(Cut(22), make_config(), tmp_path)
    task = Toy(22)
    loop.run(task, make_config(), tmp_path)
    assert task.steps[0] == 9 and task.evaluated == [9, 18, 22]
    assert read_metrics(tmp_path) == read_metrics(undisturbed[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_resumed_run_is_the_undisturbed_one(undisturbed, tmp_path, number):
    process = start(tmp_path, "--pause=0.1")
    assert "step 12\n" in iter(process.stdout.readline, "")
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 1
    message = f"stopped by {signal.Signals(number).name} at step (.*), saved in {tmp_path};"
    step = int(re.search(message, errors)[1])
    assert 13 <= step < 20  # the step that ran, or one that began meanwhile
    resumed = Toy(22)
    final = loop.run(resumed, make_config(), tmp_path)
    assert resumed.steps == list(range(step, 22))
    assert_same(final, undisturbed[2])
    assert read_metrics(tmp_path) == read_metrics(undisturbed[0])


def test_a_second_run_on_a_workdir_is_refused(tmp_path):
    process = start(tmp_path, "--pause=0.1")
    assert "step 1\n" in iter(process.stdout.readline, "")
    with pytest.raises(ValueError, match=f"in use by another run, process {process.pid} on"):
        loop.run(Toy(22), make_config(), tmp_path)
    process.kill()
    process.communicate()
    checkpoints.Lock(tmp_path).release()  # a killed run holds nothing


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "no manifest"])
def test_a_damaged_checkpoint_is_passed_over(undisturbed, tmp_path, harm, capsys):
    reference, _, state = undisturbed
    loop.run(Toy(22), make_config(), tmp_path, max_step=12)
    assert checkpoints.latest(tmp_path).name == "12" and not capsys.readouterr().err.count(
        "damaged"
    )
    newest = tmp_path / "checkpoints/12"
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
    elif harm == "cut":
        largest.write_bytes(content[:-1])
    elif harm == "remove":
        largest.unlink()
    else:
        (newest / checkpoints.MANIFEST).unlink()
    resumed = Toy(22)
    final = loop.run(resumed, make_config(), tmp_path)
    assert f"{newest} is damaged and passed over: " in capsys.readouterr().err
    assert resumed.steps[0] == 10
    assert_same(final, state)
    assert read_metrics(tmp_path) == read_metrics(reference)


def test_the_manifest_is_what_sha256sum_reads(undisturbed):
    newest = checkpoints.latest(undisturbed[0])
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", checkpoints.MANIFEST],
        cwd=newest,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.count(": OK") > 3, done.stderr


@pytest.mark.parametrize("largest_file", [100, 1_500])  # the log fills the disk, or a checkpoint
def test_a_full_disk_ends_in_one_line_and_keeps_the_checkpoint_before(
    undisturbed, tmp_path, largest_file
):
    loop.run(Toy(22), make_config(), tmp_path, max_step=10)
    before = checkpoints.damage(tmp_path / "checkpoints/10")
    process = start(tmp_path, f"--largest_file={largest_file}")
    _, errors = process.communicate()
    assert process.returncode == 1
    devices, *progress, last = errors.strip().splitlines()
    assert devices == "training on 1 x CPU (1 process), in float32"
    assert last.startswith("OSError: ") and str(tmp_path) in last, last
    shown = re.compile("(step |(single|joined): a step takes )")
    assert all(map(shown.match, progress)), errors
    assert before == checkpoints.damage(tmp_path / "checkpoints/10") == ""
    assert checkpoints.latest(tmp_path).name == "10"
    assert_same(loop.run(Toy(22), make_config(), tmp_path), undisturbed[2])


def test_a_workdir_that_cannot_be_written_is_named():
    with pytest.raises(OSError) as error:  # /proc lets nobody, root included, make a folder
        loop.run(Toy(22), make_config(), "/proc/run")
    assert error.value.filename == "/proc/run"


def test_a_disk_that_is_too_full_is_told_before_the_save(tmp_path, monkeypatch):
    usage = checkpoints.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="the checkpoint of step 5 could not be written.* are free"):
        loop.run(Toy(22), make_config(), tmp_path)


def test_to_begin_over_damaged_checkpoints_is_refused(undisturbed, tmp_path):
    loop.run(Toy(22), make_config(), tmp_path, max_step=3)
    before = (tmp_path / "checkpoints/3" / checkpoints.MANIFEST).read_bytes()
    (tmp_path / "checkpoints/3" / checkpoints.MANIFEST).write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 1 checkpoints verifies"):
        loop.run(Toy(22), make_config(), tmp_path)
    (tmp_path / "checkpoints/3" / checkpoints.MANIFEST).write_bytes(before)
    assert_same(loop.run(Toy(22), make_config(), tmp_path), undisturbed[2])


def test_init_from_shares_the_start(undisturbed, tmp_path):
    reference, _, state = undisturbed
    parent = tmp_path / "parent"
    loop.run(Toy(22), make_config(), parent, max_step=10)
    arm = make_config(init_from=str(parent))
    arm_task = Toy(22)
    loop.run(arm_task, arm, tmp_path / "arm", max_step=12)
    parent.rename(tmp_path / "gone")  # the arm has its own copy of the start
    resumed = loop.run(Toy(22), arm, tmp_path / "arm")
    assert arm_task.steps == [10, 11]
    assert_same(resumed, state)  # same config, same data, same random numbers: the same run
    assert [r for r in read_metrics(tmp_path / "arm") if r["step"] > 12] == [
        r for r in read_metrics(reference) if r["step"] > 12
    ]
    arm.init_from = str(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"ema/w is float32\[5\] there and float32\[10\] here"):
        loop.run(Toy(22, width=2), arm, tmp_path / "wide")
    with pytest.raises(ValueError, match="no checkpoints here"):
        loop.run(Toy(22), make_config(init_from=str(tmp_path / "none")), tmp_path / "missing")
    assert not (tmp_path / "wide/config.json").exists()  # so that a corrected command may run


def test_another_config_is_refused_with_the_fields_named(undisturbed, tmp_path):
    workdir, _, _ = undisturbed
    other = make_config(seed=4, steps=30, ratios=(2, 5), save_every=7)
    other.optimizer.learning_rate = 0.2
    with pytest.raises(ValueError) as error:
        loop.run(Toy(22), other, workdir)
    message = str(error.value)
    assert "seed: 3 -> 4" in message and "ratios: [2, 4] -> [2, 5]" in message
    assert "optimizer.learning_rate: 0.1 -> 0.2" in message and "steps: 22 -> 30" in message
    assert "save_every" not in message and "\n" not in message
    assert checkpoints.read_config(workdir)["seed"] == 3
    constant = make_config()
    constant.optimizer.schedule = "constant"
    checkpoints.store_config(tmp_path, constant)
    constant.steps = 40
    checkpoints.check_config(tmp_path, constant)  # nothing depends on steps: the run goes on
    constant.extra = 1
    with pytest.raises(ValueError, match=r"extra: \(absent\) -> 1"):
        checkpoints.check_config(tmp_path, constant)


@pytest.mark.parametrize("nan_at, good", [(2, None), (9, 5)])
def test_non_finite_loss_stops_before_it_is_saved(tmp_path, nan_at, good):
    # Step index 9 makes step 10 and is the last before a save.
    with pytest.raises(loop.NonFiniteLoss) as error:
        loop.run(Toy(22, nan_at=nan_at), make_config(evaluate_every=100), tmp_path)
    message = str(error.value)
    assert f"step {nan_at + 1} " in message and "loss = nan" in message and "size" not in message
    assert "\n" not in message
    assert message.endswith(f"checkpoints/{good}" if good else "there is none")
    path = checkpoints.latest(tmp_path)
    assert (path and int(path.name)) == good


def test_the_devices_and_the_memory_of_a_step_are_said(tmp_path, capsys):
    loop.run(Toy(22), make_config(), tmp_path, max_step=1)
    first, memory = capsys.readouterr().err.splitlines()[:2]
    assert first == "training on 1 x CPU (1 process), in float32"
    assert re.fullmatch(r"single: a step takes 0\.\d MB", memory)


class Huge(Toy):
    """Whose joined program asks for more than any machine has."""

    def joined(self, state, batch, rng):
        x = jnp.zeros((10**7, 10**7)).at[0, 0].set(batch["current"]["x"][0, 0])
        return state | dict(step=state["step"] + 1), dict(loss=jnp.sort(x, axis=0)[-1, 0])


@pytest.mark.parametrize("saved", [False, True])
def test_out_of_memory_is_one_line_and_the_run_goes_on(undisturbed, tmp_path, saved):
    reference, _, state = undisturbed
    if saved:
        loop.run(Toy(22), make_config(), tmp_path, max_step=2)
    with pytest.raises(loop.OutOfMemory) as error:
        loop.run(Huge(22), make_config(), tmp_path)
    message = str(error.value)
    assert message.startswith("out of device memory (Out of memory allocating 400000000000")
    assert "lower batch_size" in message and "\n" not in message
    assert (f"init_from={tmp_path}, which continues from step 2" in message) == saved
    if not saved:  # another config may begin in its place
        loop.run(Toy(22), make_config(seed=4), tmp_path, max_step=2)
        return
    with pytest.raises(ValueError, match="seed: 3 -> 4"):
        loop.run(Toy(22), make_config(seed=4), tmp_path)
    assert_same(loop.run(Toy(22), make_config(), tmp_path), state)
    assert read_metrics(tmp_path) == read_metrics(reference)


def test_eight_devices_give_the_numbers_of_one(undisturbed, tmp_path):
    reference, _, state = undisturbed
    process = start(tmp_path, "--devices=8")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    _, split = checkpoints.restore_latest(tmp_path)
    assert_same(split, state, rtol=1e-6, atol=1e-6)
    for one, eight in zip(read_metrics(reference), read_metrics(tmp_path), strict=True):
        assert one == pytest.approx(eight, rel=1e-5, abs=1e-6)


def test_placement_and_batches():
    mesh = sharding.make_mesh()
    tree = dict(a=dict(kernel=jnp.zeros((4, 2))), b=[jnp.zeros(3)])
    placed = sharding.placement(tree, [("kernel$", PartitionSpec(None, "tensor"))], mesh)
    assert placed["a"]["kernel"].spec == PartitionSpec(None, "tensor")
    assert placed["b"][0].spec == PartitionSpec()
    with pytest.raises(ValueError, match=r"does not fit b/0 of shape \(3,\)"):
        sharding.placement(tree, [("b/0", PartitionSpec(None, "data"))], mesh)
    with pytest.raises(ValueError, match="is not the number of devices"):
        sharding.make_mesh(dict(fsdp=16))
    with pytest.raises(ValueError, match="unknown axis 'dta'"):
        sharding.make_mesh(dict(dta=1))


def test_processes_that_hold_the_same_rows_read_one_slice():
    def slice_of_rows(processes, devices, tensor):
        """Of the first process."""
        number = processes * devices
        grid = np.empty(number, object)
        grid[:] = [types.SimpleNamespace(process_index=n // devices) for n in range(number)]
        shape = dict(data=number // tensor, fsdp=1, tensor=tensor)
        mesh = types.SimpleNamespace(devices=grid.reshape(tuple(shape.values())), shape=shape)
        return sharding.slice_of_rows(mesh)

    assert slice_of_rows(4, 2, tensor=1) == slice_of_rows(4, 2, tensor=2) == (0, 4)
    assert slice_of_rows(4, 2, tensor=4) == (0, 2)
    assert slice_of_rows(4, 2, tensor=8) == (0, 1)
    with pytest.raises(ValueError, match="tensor 2 must divide the devices of a process"):
        slice_of_rows(2, 3, tensor=2)


def _child():
    workdir, options = sys.argv[1], dict(a[2:].split("=") for a in sys.argv[2:])
    devices = int(options.get("devices", 1))
    jax.config.update("jax_num_cpu_devices", devices)

    class Talking(Toy):
        def before_step(self, step, state, read):
            print("step", step, flush=True)
            return super().before_step(step, state, read)

    if limit := options.get("largest_file"):  # in bytes: what a full disk does, to any user
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    if devices > 1:
        try:
            sharding.shard_batch(np.zeros((6, 2)), sharding.make_mesh())
        except ValueError as error:
            assert "batch_size: 6 rows do not split over 8 devices" in str(error)
        else:
            raise AssertionError("6 rows over 8 devices")
    try:
        loop.run(Talking(22, pause=float(options.get("pause", 0))), make_config(), workdir)
    except OSError as error:  # as the commands do
        sys.exit(f"OSError: {error}")


if __name__ == "__main__":
    _child()
