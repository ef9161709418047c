"""The codec's compiled step: the same on any number of devices, for every backend, compiled once."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from indep_jax.codec import discriminator
from indep_jax.tasks import codec_steps
from indep_jax.tasks.codec import CodecTask
from indep_jax.training import loop, sharding

if __name__ != "__main__":
    from tasks.test_codec_task import changed, music, shipped, shrink, start  # noqa: F401  a fixture


@pytest.fixture
def config(music):  # noqa: F811
    config = shrink(shipped("encodec_small"), music)
    config.loss.independence.update(kind="dhsic", exclude_files=True, share=0.0, weight=30.0)
    return config


def step_on(devices, dtype, folder):
    """A state after one whole step from folder/start.npz, by name, computed in a process."""
    subprocess.run(
        [sys.executable, __file__, str(folder), str(devices), dtype],
        check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    with np.load(folder / f"{devices}_{dtype}.npz") as arrays:
        return dict(arrays)


def discriminator_gradients_of_music(task, state, batch):
    """What the music's half of the hinge loss adds to the first moments, by name."""
    adversary = codec_steps.adversary(task.config)

    def loss(params):
        real = adversary.apply(dict(params=params), batch["audio"])
        silent = [(-jnp.ones(()), [])] * len(real)  # whose hinge is closed
        return discriminator.discriminator_loss(real, silent)

    gradients = jax.jit(jax.grad(loss))(state.params["discriminator"])
    share = 1 - task.config.optimizer.betas[0]
    return {
        "opt_state/discriminator/0/mu/" + jax.tree_util.keystr(path, simple=True, separator="/"):
            share * np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
    }  # fmt: skip


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 1e-5)])
def test_a_step_on_eight_devices_is_the_step_on_one(config, tmp_path, dtype, tolerance):
    config.batch_size = 8
    config.model.n_filters = 4  # a direction of one number has no gradient to compare
    task, state, batch = start(config)
    config.dtype = dtype
    np.savez(tmp_path / "start.npz", *(np.asarray(leaf) for leaf in jax.tree.leaves(state)))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    one, eight = (step_on(devices, dtype, tmp_path) for devices in (1, 8))
    # In float32 a step of Adam turns the rounding of a small gradient into a large one of the
    # weight; the gradients are what its first moment holds.
    names = [name for name in one if dtype == "float64" or "/mu/" in name]
    assert len(names) > 20
    parts = {}
    if dtype == "float32":
        # Before the discriminator has learned, what it gets of music and of reconstruction all but
        # cancels: the rounding of its gradient is that of either, not of what is left.
        parts = discriminator_gradients_of_music(task, state, batch)
        assert parts.keys() <= set(names)
    for name in names:
        size = np.linalg.norm(parts.get(name, one[name]))
        assert one[name].dtype != np.float32 or dtype == "float32", name
        limit = 1e-6 if name in parts else tolerance
        assert np.linalg.norm(eight[name] - one[name]) <= limit * size, name
    # All have a gradient but one: while both hinges are open the discriminator's last bias has none.
    still = [name for name in names if "/mu/" in name and not np.any(one[name])]
    assert len(still) <= 1, still


def test_the_step_lowers_for_every_backend(config):
    task, state, batch = start(config)

    def step(state, batch):
        return task.programs["codec_independence"](
            state, batch, jax.random.fold_in(jax.random.key(0), 1)
        )

    platforms = ["cpu", "cuda", "tpu"]
    exported = jax.export.export(jax.jit(step), platforms=platforms)(state, batch)
    assert exported.platforms == tuple(platforms)
    after, metrics = exported.call(state, batch)
    assert changed(state.params, after.params) and np.isfinite(metrics["loss"])


def test_each_program_is_compiled_once_in_a_run_with_evaluations(config, tmp_path):
    config.update(steps=50, evaluate_every=10, save_every=20)
    config.quantizer.warmup_steps = 15
    compiled = []

    def count(event, seconds, **about):
        if event.endswith("backend_compile_duration"):
            compiled.append(about.get("fun_name", "?"))

    class Watched(CodecTask):
        def before_step(self, step, state, read):
            if step == 21:  # every program has run, and both kinds of evaluation
                seen.append(len(compiled))
            return super().before_step(step, state, read)

    seen = []
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        loop.run(Watched(config).open(), config, tmp_path)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert len(compiled) == seen[0], compiled[seen[0] :]
    assert sum("with_key" in name for name in compiled) == 2
    assert sum("reconstruct" in name for name in compiled) == 2  # latents, or quantized


def _child():
    folder, devices, dtype = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_enable_x64", dtype == "float64")
    config = ml_collections.ConfigDict(json.loads((folder / "config.json").read_text()))
    task = CodecTask(config).open()
    mesh = sharding.make_mesh()
    assert mesh.size == devices

    def widen(x):
        return jnp.asarray(x, dtype) if np.issubdtype(x.dtype, np.floating) else jnp.asarray(x)

    batch = jax.tree.map(np.asarray, task.dataset[0])
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    with np.load(folder / "start.npz") as arrays:
        leaves = [widen(arrays[name]) for name in arrays.files]
    state = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    shardings = sharding.placement(state, task.placement, mesh)
    batch = sharding.shard_batch(jax.tree.map(lambda x: np.asarray(widen(x)), batch), mesh)
    step = jax.jit(
        task.programs["codec_independence"], out_shardings=(shardings, sharding.replicated(mesh))
    )
    after, _ = step(sharding.put(state, shardings), batch, jax.random.key(1))
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(after)
        if np.issubdtype(leaf.dtype, np.floating)
    }
    np.savez(folder / f"{devices}_{dtype}.npz", **named)


if __name__ == "__main__":
    _child()
