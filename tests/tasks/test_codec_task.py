"""The codec's training task: its steps, what they change, and that they are exact."""

import importlib.util
import json
import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from golden import encodec_cases

from indep_jax.codec import quantizer
from indep_jax.hub import encodec
from indep_jax.independence import loss as losses
from indep_jax.tasks import build
from indep_jax.tasks import codec_steps as steps
from indep_jax.tasks.codec import CodecTask
from indep_jax.training import loop

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def shipped(name):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def shrink(config, source):
    """A shipped config at a size that compiles in seconds, every part of it still on."""
    config.model.update(
        sample_rate=2_000, n_filters=2, ratios=(4, 2), dimension=4, kernel=3, lstm_layers=1
    )
    config.quantizer.update(codebooks=3, codebook_size=8, kmeans_iterations=3)
    config.quantizer.warmup_steps = min(1, config.quantizer.warmup_steps)
    if "warmup_steps" in config.discriminator:
        config.discriminator.warmup_steps = 1
    config.quantizer.kmeans_batches = 1
    config.discriminator.update(filters=2, n_ffts=(64,))
    loss = config.loss.independence
    loss.update(macro_batch=min(2, loss.macro_batch), every=min(2, loss.every), warmup_steps=0)
    config.optimizer.warmup_steps = 0
    config.data.update(source=source, segment_seconds=0.5, workers=0)
    config.update(
        batch_size=4,
        steps=4,
        log_every=1,
        evaluate_every=100,
        evaluate_items=2,
        evaluate_seconds=0.6,
        save_every=2,
    )
    return config


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Three short files of tones and noise."""
    folder = tmp_path_factory.mktemp("music")
    rng = np.random.default_rng(0)
    time = np.arange(8_000) / 2_000
    for i in range(3):
        tone = 0.3 * np.sin(2 * np.pi * (100 + 90 * i) * time) + 0.05 * rng.standard_normal(8_000)
        soundfile.write(folder / f"{i}.wav", tone, 2_000)
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    config = encodec_cases.TINY | dict(sampling_rate=2_000)
    config["target_bandwidths"] = [334 * 5 * (encodec_cases.CODEBOOKS + 0.1) / 1000]
    encodec_cases.write(folder, config, encodec_cases.tensors(config))
    return folder


def task_of(config, hub_folder):
    if "pretrained" in config:
        config.pretrained = str(hub_folder)
    return CodecTask(config, build.pretrained_codec(config)).open()


@pytest.fixture
def config(music):
    config = shrink(shipped("encodec_small"), music)
    config.loss.independence.update(kind="dhsic", exclude_files=False, share=0.0, weight=150.0)
    return config


def start(config, quantized=True):
    """A task, its state (after k-means when quantized) and its first batch."""
    task = CodecTask(config).open()
    batch = task.dataset[0]
    state = jax.jit(task.init)(jax.random.key(0), batch)
    if quantized:
        state = task.before_step(config.quantizer.warmup_steps, state, task.dataset.__getitem__)
        state = state.replace(step=jnp.int32(config.quantizer.warmup_steps))
    return task, state, batch


def changed(before, after):
    return not all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after))
    )


NAMES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem[0] != "_")


@pytest.mark.parametrize("name", [name for name in NAMES if shipped(name).task == "codec"])
def test_every_shipped_config_takes_its_steps(name, music, hub_folder, tmp_path):
    config = shrink(shipped(name), music)
    config.steps = config.quantizer.warmup_steps + config.discriminator.get("warmup_steps", 0)
    config.steps += max(1, config.loss.independence.every)
    config.evaluate_every = config.steps
    state = loop.run(task_of(config, hub_folder), config, tmp_path)
    assert int(state.step) == config.steps
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.default_flags
def test_a_step_changes_what_it_should_and_codebooks_only_when_quantizing(config):
    config.model.n_filters = 4  # a direction of one number never changes
    task, state, batch = start(config, quantized=False)
    after, metrics = jax.jit(task.programs["autoencoder"])(state, batch, jax.random.key(1))
    assert changed(state.params["generator"], after.params["generator"])
    assert not changed(state.params["discriminator"], after.params["discriminator"])
    assert not changed(state.collections["codebook"], after.collections["codebook"])
    assert "independence" not in metrics

    task, state, batch = start(config)
    after, metrics = jax.jit(task.programs["codec_independence"])(state, batch, jax.random.key(1))
    assert changed(state.params["discriminator"], after.params["discriminator"])
    generator = [jax.tree.leaves(s.params["generator"]) for s in (state, after)]
    assert not any(np.array_equal(old, new) for old, new in zip(*generator))
    assert changed(state.collections["codebook"], after.collections["codebook"])
    assert metrics["independence_gradient_ratio"] > 0


def test_quantization_begins_with_codebooks_of_its_latents_and_without_old_averages(config):
    config.quantizer.update(kmeans_batches=2, kmeans_iterations=50)
    task, state, batch = start(config, quantized=False)
    state, _ = jax.jit(task.programs["autoencoder"])(state, batch, jax.random.key(1))
    assert state.collections["balancer"]["weight"] == 1
    begun = task.before_step(1, state, task.dataset.__getitem__)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(begun.collections["balancer"]))
    assert not changed(state.params, begun.params) and task.before_step(2, begun, None) is begun
    audio = np.concatenate([task.dataset[i]["audio"] for i in (1, 2)])
    latents = jax.jit(partial(steps.encode, config))(state.params["generator"], audio)
    q = quantizer.quantize(begun.collections["codebook"], latents)
    # Of these very latents they are the means, and their counts those of an average step.
    for code in range(config.quantizer.codebook_size):
        mine = np.asarray(latents)[np.asarray(q.codes[..., 0]) == code]
        embed, count = (begun.collections["codebook"][name][0, code] for name in ("embed", "count"))
        np.testing.assert_allclose(mine.mean(0), embed, rtol=1e-3, atol=1e-4)
        assert float(count) == pytest.approx(len(mine) / 2, rel=1e-5)


def test_weights_mean_the_same_at_any_batch_size(config, monkeypatch):
    """Every item of a batch twice: all gradient terms, and so their ratio, stay what they are."""

    def mean_of_products(config, pairs):  # does not change when rows are repeated
        return lambda key, streams, segments, active: jnp.mean(jnp.prod(streams, axis=2))

    monkeypatch.setitem(losses.KINDS, "toy", mean_of_products)
    config.loss.independence.kind = "toy"
    ratios = []
    task, state, once = start(config)
    twice = {name: np.concatenate([rows, rows]) for name, rows in once.items()}
    for batch in (once, twice):
        _, metrics = jax.jit(task.programs["codec_independence"])(state, batch, jax.random.key(1))
        ratios.append(float(metrics["independence_gradient_ratio"]))
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-4)


@pytest.mark.default_flags
def test_a_share_is_of_the_others_gradient(config):
    config.loss.independence.update(share=0.2, kind="covariance")
    task, state, batch = start(config)
    _, metrics = jax.jit(task.programs["codec_independence"])(state, batch, jax.random.key(1))
    assert metrics["independence_gradient_ratio"] == pytest.approx(0.2, rel=1e-5)


@pytest.mark.default_flags
def test_joined_loss_is_the_loss_of_the_joined_batch_and_spares_the_codebooks(config):
    config.loss.independence.update(kind="permutation", macro_batch=2, every=2, weight=10.0)
    task, state, batch = start(config)
    history = jax.tree.map(lambda *x: np.stack(x), task.dataset[1], task.dataset[2])
    params = state.params["generator"]
    codebook = state.collections["codebook"]
    key = jax.random.key(3)
    joined_loss = partial(steps.joined_independence_loss, config)
    joined = jax.jit(jax.value_and_grad(joined_loss, has_aux=True))(
        params["encoder"], params, codebook, history, key
    )

    def whole(encoder):
        audio = np.concatenate(history["audio"])
        latents = steps.encode(config, {**params, "encoder": encoder}, audio)
        return steps.independence_loss(config, codebook, latents, history["file"].reshape(-1), key)

    expected = jax.jit(jax.value_and_grad(whole))(params["encoder"])
    # A difference of kernel means of up to 1, each rounded in float32.
    np.testing.assert_allclose(joined[0][0], expected[0], rtol=1e-4, atol=1e-6)
    scale = max(np.abs(g).max() for g in jax.tree.leaves(expected[1]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * scale), joined[1], expected[1]
    )

    state = state.replace(step=jnp.int32(config.quantizer.warmup_steps + 1))
    plain, _ = jax.jit(task.programs["codec"])(state, batch, key)
    both, metrics = jax.jit(task.programs["codec_independence"])(
        state, dict(current=batch, history=history), key
    )
    # The same codebook update as without the loss, but for the rounding of another program: the
    # extra pass leaves no trace there.
    for name, expected in plain.collections["codebook"].items():
        np.testing.assert_allclose(
            both.collections["codebook"][name], expected, rtol=1e-5, atol=1e-5, err_msg=name
        )
    assert changed(plain.params["generator"]["encoder"], both.params["generator"]["encoder"])
    assert metrics["independence_gradient_ratio"] > 0


def test_every_kind_of_loss_reaches_the_encoder(config):
    for number, kind in enumerate(losses.KINDS):
        streams, delay = ("codes", True) if number % 2 else ("inputs", False)
        config.loss.independence.update(kind=kind, streams=streams, delay=delay)
        task, state, batch = start(config)
        params, codebook = state.params["generator"], state.collections["codebook"]

        def loss(encoder):
            z = steps.encode(config, {**params, "encoder": encoder}, batch["audio"])
            return steps.independence_loss(config, codebook, z, batch["file"], jax.random.key(0))

        gradient = jax.jit(jax.grad(loss))(params["encoder"])
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["conv_out"]))


def test_fine_tuning_starts_from_the_weights_and_ends_with_the_decoder(music, hub_folder, tmp_path):
    config = shrink(shipped("finetune_encodec_32khz_mmd"), music)
    config.loss.independence.update(kind="covariance", macro_batch=1, every=1)
    config.optimizer.trainable = "encoder"
    _, start = encodec.read(hub_folder)
    task = task_of(config, hub_folder)
    assert config.model.n_filters == 4 and config.quantizer.codebook_size == 32
    assert [task.plan(step)[0] for step in range(3)] == [
        "discriminator",
        *["codec_independence"] * 2,
    ]

    state = loop.run(task, config, tmp_path, max_step=1)
    generator, codebook = state.params["generator"], state.collections["codebook"]
    assert not changed(start["params"], generator) and not changed(start["params"], state.ema)
    assert not changed(start["codebook"]["embed"], codebook["embed"])
    np.testing.assert_allclose(codebook["count"].sum(1), 32 * steps.even_count(config), rtol=1e-5)
    key = jax.random.fold_in(jax.random.key(0), loop.INIT)
    fresh = jax.jit(task.init)(key, task.dataset[0]).params["discriminator"]
    step = jax.tree.map(lambda a, b: np.abs(a - b).max(), fresh, state.params["discriminator"])
    # Adam's first step is the learning rate.
    assert max(jax.tree.leaves(step)) == pytest.approx(3e-4, rel=1e-2)

    # Resumed: by the same command, which reads no weights.
    task = task_of(config, hub_folder)
    task.pretrained = lambda: pytest.fail("read the weights again")
    state = loop.run(task, config, tmp_path, max_step=3)
    for params in (state.params["generator"], state.ema):
        assert not changed(start["params"]["decoder"], params["decoder"])
        encoder = [jax.tree.leaves(tree["encoder"]) for tree in (start["params"], params)]
        assert not any(np.array_equal(old, new) for old, new in zip(*encoder))
    assert changed(start["codebook"]["embed"], state.collections["codebook"]["embed"])
    assert config.origin.to_dict() == dict(name=hub_folder.name, license="")


def test_origin_is_inherited_by_a_run_from_a_run(music, hub_folder, tmp_path):
    config = shrink(shipped("finetune_encodec_32khz_mmd"), music)
    task_of(config, hub_folder)
    (tmp_path / "config.json").write_text(config.to_json())
    other = shrink(shipped("encodec_small"), music)
    other.init_from = str(tmp_path)
    build.build(other)
    assert other.origin == config.origin


class Started(CodecTask):
    """Keeps the state that a run's first step starts from."""

    def before_step(self, step, state, read):
        state = super().before_step(step, state, read)
        if step == self.config.quantizer.warmup_steps:
            self.first = jax.device_get((state.params["generator"], state.collections["codebook"]))
        return state


def test_the_untrained_codec_is_what_its_run_started_from(config, tmp_path):
    config.quantizer.warmup_steps = 0
    config.model.init_std = 1.0  # the first weights depend on the first batch
    task = Started(config).open()
    loop.run(task, config, tmp_path, max_step=1)
    codec = build.untrained(json.loads((tmp_path / "config.json").read_text()))
    params, codebook = task.first
    assert not changed(params, codec.variables["params"])
    assert not changed(codebook, codec.variables["codebook"])


def test_the_untrained_codec_of_a_fine_tuned_one_is_the_pretrained_one(music, hub_folder):
    config = shrink(shipped("finetune_encodec_32khz_mmd"), music)
    config.pretrained = str(hub_folder)
    codec = build.untrained(json.loads(config.to_json()))
    _, start = encodec.read(hub_folder)
    assert not changed(start["params"], codec.variables["params"])
    assert not changed(start["codebook"]["embed"], codec.code_vectors)


def test_what_cannot_be_fine_tuned_is_named(music, hub_folder, tmp_path):
    config = shrink(shipped("finetune_encodec_32khz_mmd"), music)
    with pytest.raises(ValueError, match="^pretrained is empty: give --config.pretrained=PATH"):
        build.pretrained_codec(config)
    config.quantizer.warmup_steps = 1
    with pytest.raises(ValueError, match="^quantizer.warmup_steps must be 0 with pretrained"):
        task_of(config, hub_folder)
    config.optimizer.trainable = "decoder"
    with pytest.raises(ValueError, match="^optimizer.trainable must be 'all' or 'encoder'"):
        task_of(config, hub_folder)
    chunks = encodec_cases.CASES["chunks"]
    encodec_cases.write(tmp_path, chunks, encodec_cases.tensors(chunks))
    with pytest.raises(ValueError, match="^model.normalize, model.chunk_seconds: [^\n]*$"):
        task_of(config, tmp_path)


def test_dropped_codebooks_are_not_in_the_loss(config):
    config.quantizer.dropout = True
    config.loss.independence.update(bandwidths="median", delay=True, condition=1)
    task, state, batch = start(config)
    codebook = state.collections["codebook"]
    latents = steps.encode(config, state.params["generator"], batch["audio"])
    fewer = jax.tree.map(lambda x: x[:2], codebook)
    loss = jax.jit(
        lambda codebook, active: steps.independence_loss(
            config, codebook, latents, batch["file"], jax.random.key(0), active
        )
    )
    assert loss(codebook, 1) == 0
    # The delay of three codebooks would crop one frame more than that of two.
    config.loss.independence.delay = False
    loss = jax.jit(partial(steps.independence_loss, config))
    arguments = latents, batch["file"], jax.random.key(0)
    np.testing.assert_allclose(
        loss(codebook, *arguments, 2),
        loss(fewer, *arguments),
        rtol=1e-5,
        atol=1e-6,  # a difference of kernel means of up to 1, each rounded in float32
    )


def test_a_step_computes_the_loss_only_where_it_is_due(config, monkeypatch):
    config.quantizer.warmup_steps = 1
    config.loss.independence.update(macro_batch=1, every=3)
    task = CodecTask(config).open()
    names = [task.plan(step) for step in range(1, 8)]
    assert names == ([("codec", 1)] * 2 + [("codec_independence", 1)]) * 2 + [("codec", 1)]
    calls = []
    loss = steps.independence_loss
    monkeypatch.setattr(steps, "independence_loss", lambda *a: calls.append(a) or loss(*a))
    state = jax.eval_shape(task.init, jax.random.key(0), task.dataset[0])
    for name, expected in (("codec", 0), ("codec_independence", 1)):
        calls.clear()
        jax.eval_shape(task.programs[name], state, task.dataset[0], jax.random.key(0))
        assert len(calls) == expected


def test_plan_joins_every_so_many_steps_after_the_warm_up(config):
    config.quantizer.warmup_steps = 3
    config.loss.independence.update(macro_batch=4, every=2)
    task = CodecTask(config)
    names = [task.plan(step) for step in range(8)]
    assert names == [("autoencoder", 1)] * 3 + [("codec", 1), ("codec_independence", 4)] * 2 + [
        ("codec", 1)
    ]
    config.quantizer.warmup_steps = 0
    config.loss.independence.every = 1  # not before there are four batches
    assert [steps.plan(config, step)[1] for step in range(5)] == [1, 1, 1, 4, 4]


def test_interrupted_run_equals_the_undisturbed_one(config, tmp_path):
    """Across the end of the warm-up and within a macro-batch, bit for bit."""
    config.update(steps=5, save_every=100)
    config.quantizer.warmup_steps = 1
    config.loss.independence.update(kind="permutation", macro_batch=2, every=2)
    expected = loop.run(CodecTask(config).open(), config, tmp_path / "whole")
    for stop in (1, 4, 5):
        state = loop.run(CodecTask(config).open(), config, tmp_path / "parts", max_step=stop)
    assert not changed(expected, state)


def test_an_impossible_loss_is_refused_by_name(config):
    config.loss.independence.kind = "mmd"
    with pytest.raises(ValueError, match="^loss.independence.kind must be one of none, "):
        CodecTask(config)
