"""The language model's training task: exact in parts, over devices, after a resume."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.export
import ml_collections
import numpy as np
import pytest

from indep_jax.data import tokens
from indep_jax.lm import model as lm
from indep_jax.support.files import begin_output
from indep_jax.tasks.lm import LMTask
from indep_jax.training import loop, sharding

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
FRAME_RATE, DIM = 10.0, 6  # of the fake encoder's states


def shipped(name, *arguments):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*arguments)


def shrink(config, store):
    config.model.update(codebooks=3, codebook_size=16, dim=16, layers=2, heads=4, ffn_dim=32)
    config.model.depth.update(dim=8, layers=1, heads=2, ffn_dim=16)
    config.data.update(source=f"tokens:{store}", segment_seconds=1.2, workers=0)
    config.optimizer.warmup_steps = 1
    config.update(
        batch_size=8, steps=4, log_every=1, evaluate_every=4, evaluate_items=3, save_every=2
    )
    return config


def make_store(folder, train, size=16):
    """Records of codes that follow each other, each with a coin's choice; one of them valid."""
    rng = np.random.default_rng(0)
    info = dict(
        codec="0123",
        sample_rate=2_000,
        frame_rate=FRAME_RATE,
        codebooks=3,
        codebook_size=size,
        shards=1,
    )
    begin_output(folder / tokens.INFO, info)
    items = []
    for number, frames in enumerate([*train, 60]):
        codes = (np.arange(frames)[:, None] + rng.integers(0, 2, (frames, 3))) % size
        caption = "" if number == 1 else f"caption {number}"
        split = "train" if number < len(train) else "valid"
        items.append(
            tokens.Tokens(f"{number}.wav", split, caption, 200 * frames, codes.astype(np.uint16))
        )
    tokens.write_shard(tokens.shard_path(folder, 0, 1), items)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The second of two records is shorter than a segment."""
    return make_store(tmp_path_factory.mktemp("tokens"), [60, 7])


@pytest.fixture
def config(store):
    return shrink(shipped("lm_small"), store)


class Encoder:
    """States that depend on the text, called as text.conditioner.Conditioner is."""

    fingerprint, max_tokens, dim = "fake", 4, DIM

    class tokenizer:
        num_special_tokens_to_add = staticmethod(lambda is_pair: 0)

    def __call__(self, texts):
        states = [np.random.default_rng(len(text)).standard_normal((4, DIM)) for text in texts]
        mask = np.array([[bool(text.strip())] * 2 + [False] * 2 for text in texts])
        return np.where(mask[..., None], np.array(states, np.float32), 0), mask


def with_text(config, monkeypatch):
    """The config with text, and tokenization that knows the fake encoder's two tokens a text."""
    from indep_jax.text import conditioner

    def tokenize(tokenizer, texts, max_tokens):
        return None, np.array([[bool(text.strip())] * 2 + [False] * 2 for text in texts])

    monkeypatch.setattr(conditioner, "tokenize", tokenize)
    config.text.encoder = "fake"
    config.model.text_dim = DIM
    return LMTask(config).open(encoder=Encoder())


def start(task):
    batch = task.dataset[0]
    return jax.jit(task.init)(jax.random.key(0), batch), batch


def close(one, other, tolerance):
    for number, (a, b) in enumerate(
        zip(*map(jax.tree.leaves, jax.device_get((one, other))), strict=True)
    ):
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(a), number


@pytest.mark.parametrize(
    "name, arguments",
    [("lm_small", ()), *[("musicgen", (size,)) for size in ("debug", "small", "medium", "large")]],
)
def test_every_shipped_config_takes_its_steps(name, arguments, store, tmp_path):
    config = shrink(shipped(name, *arguments), store)
    state = loop.run(LMTask(config).open(), config, tmp_path)
    assert int(state.step) == config.steps
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (found,) = [line for line in lines if "eval/bits_per_frame" in line]
    each = sum(found[f"eval/cross_entropy_{k}_bits"] for k in range(3))
    assert found["eval/bits_per_frame"] == pytest.approx(each, rel=1e-5)


@pytest.mark.default_flags
def test_it_learns(config, tmp_path):
    """A code takes the bit of its coin, not four."""
    store = make_store(tmp_path, [4_000])
    config.update(steps=300, evaluate_every=300, save_every=300, log_every=100)
    config.optimizer.learning_rate = 1e-2
    config.data.source = f"tokens:{store}"
    loop.run(LMTask(config).open(), config, tmp_path / "run")
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert 3 < last["eval/bits_per_frame"] < 6


@pytest.mark.parametrize("pattern", ["delay", "flattened"])
def test_parts_add_up_to_the_whole(config, pattern):
    config.model.pattern = pattern
    states = []
    for parts in (1, 4):
        config.optimizer.accumulate = parts
        task = LMTask(config).open()
        state, batch = start(task)
        assert (batch["codes"] < 0).any()  # rows do not weigh the same
        states.append(jax.jit(task.programs["lm"])(state, batch, jax.random.key(1)))
    (one, metrics), (four, metrics_four) = states
    close(one.opt_state, four.opt_state, 1e-5)
    for name in metrics:
        assert float(metrics[name]) == pytest.approx(float(metrics_four[name]), rel=1e-5)


def test_a_step_is_adam_of_the_clipped_gradient(config):
    """The mean over codebooks of the cross-entropy, each over its own codes; AdamW by hand."""
    config.optimizer.update(accumulate=2, clip=0.1, ema_decay=0.8, weight_decay=0.3)
    config.optimizer.warmup_steps = 1
    task = LMTask(config).open()
    state, batch = start(task)
    step = jax.jit(task.programs["lm"])
    state, _ = step(state, batch, jax.random.key(1))  # the rate of the first is 0
    after, metrics = step(state, batch, jax.random.key(2))
    counts = (batch["codes"] >= 0).sum((0, 1))

    def loss(params):
        nats = lm.nats(task.model, dict(params=params), batch["codes"])
        return (nats / counts).sum() / 3

    value, gradient = jax.jit(jax.value_and_grad(loss))(state.params)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
    assert norm > 0.1 and float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    b1, b2 = config.optimizer.betas
    old, new = state.opt_state[1][0], after.opt_state[1][0]
    expected = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g * 0.1 / norm, old.mu, gradient)
    close(expected, new.mu, 1e-5)
    expected = jax.tree.map(
        lambda v, g: b2 * v + (1 - b2) * np.square(g * 0.1 / norm), old.nu, gradient
    )
    close(expected, new.nu, 1e-5)
    rate = config.optimizer.learning_rate  # at the end of the warm-up
    expected = jax.tree.map(
        lambda p, m, v: (
            p - rate * (m / (1 - b1**2) / (np.sqrt(v / (1 - b2**2)) + 1e-8) + 0.3 * p)
        ),
        state.params, new.mu, new.nu,
    )  # fmt: skip
    close(expected, after.params, 1e-6)
    close(jax.tree.map(lambda a, p: 0.8 * a + 0.2 * p, state.ema, after.params), after.ema, 1e-6)


@pytest.mark.parametrize("pattern", ["parallel", "delay", "coarse_first"])
def test_what_is_behind_the_end_does_not_count(config, pattern):
    """A record's loss is the same whatever stands behind its end."""
    config.model.pattern = pattern
    task = LMTask(config).open()
    state, _ = start(task)
    codes = np.random.default_rng(0).integers(0, 16, (1, 12, 3)).astype(np.int32)
    codes[:, 7:] = -1
    nats = task._nats(state.params, dict(codes=codes))
    short = task._nats(state.params, dict(codes=codes[:, :7]))
    if pattern != "coarse_first":  # there the other codebooks see more steps before them
        np.testing.assert_allclose(nats, short, rtol=1e-5)
    assert np.all(nats > 0) and np.all(nats < 7 * 16)


def test_text_is_read_and_dropped(config, monkeypatch):
    config.text.dropout = 0.0
    task = with_text(config, monkeypatch)
    state, batch = start(task)
    assert batch["text"].shape == (8, 4, DIM)
    assert np.array_equal(batch["text_mask"].any(1), batch["record"] == 0)  # 1 has no caption
    params = state.params
    nats = task._nats(params, batch)
    other = task._nats(params, batch | dict(text=batch["text"][:, ::-1]))
    assert not np.allclose(nats, other, rtol=1e-4)
    config.text.dropout = 1.0
    step = jax.jit(LMTask(config).programs["lm"])
    after = [
        step(state, dict(batch, text=text), jax.random.key(1))[0]
        for text in (batch["text"], 2 * batch["text"])
    ]
    for a, b in zip(*(jax.tree.leaves(x.params) for x in after), strict=True):
        assert np.array_equal(a, b)


def test_an_interrupted_run_equals_the_undisturbed_one(config, tmp_path):
    expected = loop.run(LMTask(config).open(), config, tmp_path / "whole")
    for stop in (1, 3, 4):
        state = loop.run(LMTask(config).open(), config, tmp_path / "parts", max_step=stop)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(state), strict=True):
        assert np.array_equal(a, b)


def open_task(config, monkeypatch):
    return with_text(config, monkeypatch) if config.text.encoder else LMTask(config).open()


MESHES = [(fsdp, tensor) for fsdp in (1, 2, 4, 8) for tensor in (1, 2, 4, 8) if fsdp * tensor <= 8]


@pytest.mark.parametrize(
    "head, text, meshes", [("linear", "", MESHES), ("depth", "fake", [(2, 2)])]
)
def test_every_mesh_of_eight_devices_equals_one(config, head, text, meshes, tmp_path, monkeypatch):
    config.model.update(layers=1, head=head)
    config.text.encoder = text
    task = open_task(config, monkeypatch)
    saved = config.to_dict() | dict(meshes=meshes)
    (tmp_path / "config.json").write_text(json.dumps(saved))
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, env=env)
    state, batch = start(task)
    state, _ = jax.jit(task.programs["lm"])(state, batch, jax.random.key(1))
    found = sorted(tmp_path.glob("*.npz"))
    assert len(found) == len(meshes)
    for path in found:
        with np.load(path) as arrays:
            for number, leaf in enumerate(jax.tree.leaves(jax.device_get(state.opt_state))):
                error = np.linalg.norm(arrays[f"arr_{number}"] - leaf)
                assert error <= 1e-5 * np.linalg.norm(leaf), (path.stem, number)


def test_the_step_lowers_for_every_backend(config):
    task = LMTask(config).open()
    state, batch = start(task)
    platforms = ["cpu", "cuda", "tpu"]
    exported = jax.export.export(jax.jit(task.programs["lm"]), platforms=platforms)(
        state, batch, jax.random.key(0)
    )
    assert exported.platforms == tuple(platforms)


@pytest.mark.parametrize(
    "section, field, value, message",
    [
        ("model", "codebooks", 4, "model.codebooks is 4, and the tokens in .* have 3"),
        ("model", "codebook_size", 8, "model.codebook_size is 8, and the tokens in .* have 16"),
        ("data", "source", "folder:x", "data.source must be tokens:PATH"),
        ("optimizer", "accumulate", 3, "optimizer.accumulate 3 must divide batch_size 8"),
        ("optimizer", "warmup_steps", 4, "optimizer.warmup_steps 4 must be below steps, 4"),
        ("text", "dropout", 2.0, "text.dropout must be between 0 and 1"),
        ("text", "encoder", "minilm", "text_dim and text.encoder go together"),
    ],
)
def test_impossible_runs_are_refused_by_name(config, section, field, value, message):
    config[section][field] = value
    with pytest.raises(ValueError, match=message):
        LMTask(config).open()


def test_tokens_of_another_codec_are_refused(config):
    codec = types.SimpleNamespace(fingerprint="4567")
    with pytest.raises(ValueError, match="are of codec 0123, and codec .* is 4567"):
        LMTask(config).open(codec)


def test_a_codec_with_levels_is_refused(config):
    codec = types.SimpleNamespace(
        fingerprint="0123", module=types.SimpleNamespace(codes_suffice=False)
    )
    with pytest.raises(ValueError, match="works in chunks or with levels"):
        LMTask(config).open(codec)


def _child():
    folder = pathlib.Path(sys.argv[1])
    jax.config.update("jax_num_cpu_devices", 8)
    saved = json.loads((folder / "config.json").read_text())
    for fsdp, tensor in saved.pop("meshes"):
        task = open_task(ml_collections.ConfigDict(saved), pytest.MonkeyPatch())
        mesh = sharding.make_mesh(dict(fsdp=fsdp, tensor=tensor))
        batch = jax.tree.map(np.asarray, task.dataset[0])
        shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
        shardings = sharding.placement(shapes, task.placement, mesh)
        batch = sharding.shard_batch(batch, mesh)
        state = jax.jit(task.init, out_shardings=shardings)(jax.random.key(0), batch)
        split = [
            leaf for leaf in jax.tree.leaves(state.params)
            if leaf.addressable_shards[0].data.size < leaf.size
        ]  # fmt: skip
        assert split or fsdp * tensor == 1
        everywhere = sharding.replicated(mesh)
        step = jax.jit(task.programs["lm"], out_shardings=(shardings, everywhere))
        state, _ = step(state, batch, jax.random.key(1))
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state.opt_state)]
        np.savez(folder / f"{fsdp}x{tensor}.npz", *leaves)


if __name__ == "__main__":
    _child()
