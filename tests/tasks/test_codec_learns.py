"""The independence loss does what it is for: trained with it, the codebooks depend less."""

import pathlib
from functools import partial

import jax
import numpy as np
from tasks.test_codec_task import shipped

from indep_jax.tasks import build, codec_steps

CODEC = pathlib.Path(build.__file__).parents[1] / "pretrained/small_none"
STEPS = 60


def config_of(kind):
    """The study's fine-tuning of the small codec, on short segments."""
    config = shipped("finetune_encodec_small")
    config.pretrained = str(CODEC)
    config.data.update(source="sample:", segment_seconds=0.5, workers=0)
    config.steps = STEPS
    config.optimizer.update(warmup_steps=10, learning_rate=1e-3)
    config.loss.independence.update(
        kind=kind, share=1.0, warmup_steps=0, delay=False, condition=0, exclude_files=True
    )
    config.evaluate_items = 1
    return config


def test_dhsic_falls_against_training_without_it():
    found = {}
    task = build.build(config_of("dhsic"))
    programs = {
        name: jax.jit(task.programs[name], donate_argnums=0)
        for name in ("codec", "codec_independence")
    }
    first = jax.jit(task.init)(jax.random.key(0), task.dataset[0])
    first = task.before_step(0, first, task.dataset.__getitem__)
    loss = jax.jit(partial(measure, task.config))
    held_out = [task.dataset[i] for i in range(STEPS, STEPS + 8)]
    for kind in ("none", "dhsic"):
        config = config_of(kind)
        state = jax.tree.map(lambda x: x.copy(), first)
        for step in range(STEPS):
            name, _ = codec_steps.plan(config, step)
            key = jax.random.fold_in(jax.random.key(0), step)
            state, metrics = programs[name](state, task.dataset[step], key)
        codebook = state.collections["codebook"]
        found[kind] = [float(loss(state.ema, codebook, batch)) for batch in held_out]
        assert np.isfinite(metrics["loss"])
    before = [float(loss(first.ema, first.collections["codebook"], batch)) for batch in held_out]
    print(np.mean(before), {k: np.mean(v) for k, v in found.items()})
    # On batches that neither has seen, each of them.
    assert np.all(np.less(found["dhsic"], found["none"]))
    assert np.mean(found["dhsic"]) < 0.8 * np.mean(found["none"])


def measure(config, params, codebook, batch):
    latents = codec_steps.encode(config, params, batch["audio"])
    return codec_steps.independence_loss(
        config, codebook, latents, batch["file"], jax.random.key(0)
    )
