"""Text: states are those of transformers, do not depend on padding or company, stored or not."""

import json
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import text_cases

from indep_jax.hub import minilm as hub_minilm
from indep_jax.hub import t5 as hub_t5
from indep_jax.inference import load_text
from indep_jax.support.errors import UserError
from indep_jax.text import conditioner, dropout
from indep_jax.text.t5 import relative_buckets

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "text.npz"))
each_case = pytest.mark.parametrize("case", text_cases.CASES)
HUBS = dict(t5=hub_t5, t5_gated=hub_t5, minilm=hub_minilm)


def _folder(tmp_path, case="t5", change=lambda tensors: tensors):
    config = text_cases.CASES[case]
    text_cases.write(tmp_path, config, change(text_cases.tensors(config)))
    return tmp_path


@each_case
def test_states_are_those_of_transformers(case, tmp_path):
    model = load_text(_folder(tmp_path, case))
    ids, mask = text_cases.inputs(text_cases.CASES[case])
    with jax.default_matmul_precision("highest"):
        states = np.asarray(jax.jit(model.module.apply)(model.variables, ids, mask))[mask]
    np.testing.assert_allclose(states, GOLDEN[case], atol=1e-5)


@pytest.mark.parametrize("buckets, largest", text_cases.BUCKETS)
def test_buckets_are_those_of_transformers(buckets, largest):
    length = text_cases.POSITIONS + 1
    ours = relative_buckets(length, buckets, largest)
    # Row 0 looks ahead, the last one behind.
    every = np.concatenate([ours[-1], ours[0, 1:]])
    np.testing.assert_array_equal(every, GOLDEN[f"buckets_{buckets}_{largest}"])
    shifted = ours[3:, 3:]
    np.testing.assert_array_equal(shifted, ours[:-3, :-3])


@each_case
def test_each_text_of_a_batch_is_as_it_is_alone(case, tmp_path):
    model = load_text(_folder(tmp_path, case), max_tokens=20)
    states, mask = model(text_cases.TEXTS)
    assert states.shape == (3, 20, 24) and states.dtype == jnp.float32 and mask.dtype == bool
    words = [len(text.split()) for text in text_cases.TEXTS]
    special = 1 if case.startswith("t5") else 2
    assert mask.sum(1).tolist() == [words[0] + special, words[1] + special, 0]
    assert not np.asarray(states)[~mask].any()
    alone = load_text(tmp_path, max_tokens=14)
    for row, text in enumerate(text_cases.TEXTS):
        its_states, its_mask = alone([text])
        np.testing.assert_array_equal(its_mask[0], mask[row, :14])
        np.testing.assert_allclose(its_states[0], states[row, :14], atol=1e-5)
    assert np.abs(states[0, 0] - states[1, 0]).max() > 1e-2


@each_case
def test_padding_is_not_seen(case, tmp_path):
    """The gradient of the states at real tokens is zero at the embedding of the padding's id."""
    model = load_text(_folder(tmp_path, case))
    ids = np.array([[3, 4, 5, 6, 6, 6]])
    mask = np.array([[True, True, True, False, False, False]])

    def total(embedding):
        params = model.variables["params"] | dict(embedding=dict(embedding=embedding))
        states = model.module.apply(dict(params=params), ids, mask)
        return jnp.sum(jnp.sin(states) * mask[..., None])

    slope = np.abs(jax.grad(total)(model.variables["params"]["embedding"]["embedding"])).sum(1)
    assert slope[6] == 0 and (slope[3:6] > 1e-3).all()


def test_long_texts_are_cut_and_keep_their_last_token(tmp_path):
    model = load_text(_folder(tmp_path), max_tokens=4)
    ids, mask = conditioner.tokenize(model.tokenizer, ["a slow hymn in D minor"], 4)
    assert ids.tolist() == [[3, 4, 6, 1]] and mask.all()
    with pytest.raises(ValueError, match="max_tokens 1: expected more than the 1 special"):
        conditioner.tokenize(model.tokenizer, ["a"], 1)


def test_dropout_takes_whole_texts_at_its_rate():
    states, mask = jnp.ones((4_000, 3, 2)), jnp.tile(jnp.array([True, True, False]), (4_000, 1))
    states, mask = (np.asarray(x) for x in dropout.drop(jax.random.key(0), states, mask, 0.3))
    gone = ~mask.any(1)
    assert (states[gone] == 0).all() and (states[~gone] == 1).all()
    assert (mask[~gone] == [True, True, False]).all()
    assert abs(gone.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 4_000)
    for probability, left in ((0.0, 4_000), (1.0, 0)):
        _, mask = dropout.drop(jax.random.key(1), jnp.ones((4_000, 3, 2)), mask | True,
                                   probability)  # fmt: skip
        assert mask.any(1).sum() == left


def test_stored_states_are_the_encoders(tmp_path, monkeypatch):
    model = load_text(_folder(tmp_path), max_tokens=20)
    texts = text_cases.TEXTS + [f"{a} {b}" for a in text_cases.WORDS for b in ("minor", "major")]
    folder = tmp_path / "new" / "folder"
    conditioner.store(folder, texts[5:], model)
    conditioner.store(folder, [*texts[:9], *texts[:9]], model)
    stored = conditioner.Stored(folder)
    assert (stored.dim, stored.max_tokens, stored.fingerprint) == (24, 20, model.fingerprint)
    assert stored.texts == sorted(set(texts) - {""})
    for reader in (stored, pickle.loads(pickle.dumps(stored))):
        states, mask = reader(texts)
        expected, expected_mask = model(texts)
        np.testing.assert_array_equal(mask, expected_mask)
        np.testing.assert_allclose(states, expected, atol=1e-6)
    assert len(pickle.dumps(stored)) < 500
    with pytest.raises(ValueError, match="has no states of the text 'unheard'"):
        stored(["unheard"])

    def refuse(self, texts):
        raise AssertionError("encoded again")

    monkeypatch.setattr(conditioner.Conditioner, "__call__", refuse)
    conditioner.store(folder, texts[:3], model)  # they are all there
    with pytest.raises(AssertionError, match="encoded again"):
        conditioner.store(folder, ["a new one"], model)


def test_states_of_another_encoder_are_made_anew(tmp_path):
    conditioner.store(tmp_path, text_cases.TEXTS, load_text(_folder(tmp_path / "a")))
    other = load_text(_folder(tmp_path / "b", "t5_gated"))
    conditioner.store(tmp_path, text_cases.TEXTS, other)
    stored = conditioner.Stored(tmp_path)
    assert stored.fingerprint == other.fingerprint
    np.testing.assert_allclose(stored(text_cases.TEXTS)[0], other(text_cases.TEXTS)[0], atol=1e-6)
    assert not list(tmp_path.glob("*.tmp"))


def test_fingerprint_tells_encoders_apart(tmp_path):
    def double(tensors):
        return {name: 2 * value for name, value in tensors.items()}

    base = load_text(_folder(tmp_path / "a"))
    base(["a slow hymn"])
    assert base.fingerprint == load_text(tmp_path / "a").fingerprint
    others = [
        load_text(tmp_path / "a", max_tokens=32),
        load_text(_folder(tmp_path / "b", change=double)),
        load_text(_folder(tmp_path / "c", "t5_gated")),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_broken_store_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"text.json: no such file"):
        conditioner.Stored(tmp_path)
    model = load_text(_folder(tmp_path))
    conditioner.store(tmp_path, ["a hymn"], model)
    content = (tmp_path / "text.npy").read_bytes()
    for damaged in (content[:-8], b""):
        (tmp_path / "text.npy").write_bytes(damaged)
        with pytest.raises(ValueError, match="do not belong together"):
            conditioner.Stored(tmp_path)
    conditioner.store(tmp_path, ["a hymn"], model)
    np.testing.assert_allclose(conditioner.Stored(tmp_path)(["a hymn"])[0], model(["a hymn"])[0],
                               atol=1e-6)  # fmt: skip


@each_case
def test_name_map_is_transformers_own_names_and_shapes(case, tmp_path):
    hub = HUBS[case]
    config, variables = hub.read(_folder(tmp_path, case))
    expected = text_cases.shapes(text_cases.CASES[case])
    table = hub.name_map(config)
    assert len({entry.theirs for entry in table}) == len({entry.ours for entry in table})
    for entry in table:
        value = variables
        for part in entry.ours.split("/"):
            value = value[part]
        assert entry.their_shape(value.shape) == expected.pop(entry.theirs)
    assert not any(map(hub.has_counterpart, expected))


def test_a_whole_t5_is_its_encoder(tmp_path):
    more = {"decoder.block.0.layer.0.layer_norm.weight": np.ones(24, np.float32)}
    more["lm_head.weight"] = np.ones((5, 24), np.float32)
    _, alone = hub_t5.read(_folder(tmp_path / "a"))
    _, whole = hub_t5.read(_folder(tmp_path / "b", change=lambda tensors: tensors | more))
    jax.tree.map(np.testing.assert_array_equal, alone, whole)


def test_embedding_goes_by_either_name(tmp_path):
    ours, theirs = "shared.weight", "encoder.embed_tokens.weight"

    def rename(tensors):
        return {theirs if name == ours else name: value for name, value in tensors.items()}

    _, alone = hub_t5.read(_folder(tmp_path / "a"))
    for change in (rename, lambda tensors: tensors | rename(tensors)):
        _, other = hub_t5.read(_folder(tmp_path / "b", change=change))
        jax.tree.map(np.testing.assert_array_equal, alone, other)
    with pytest.raises(ValueError, match=f"{theirs} and {ours} differ"):
        hub_t5.read(_folder(tmp_path / "c", change=lambda t: t | {theirs: t[ours] + 1}))


def test_weights_in_several_files(tmp_path):
    tensors = text_cases.tensors(text_cases.CASES["t5"])
    _, whole = hub_t5.read(_folder(tmp_path / "a"))
    folder, names = tmp_path / "b", sorted(tensors)
    for number in range(2):
        part = {name: tensors[name] for name in names[number::2]}
        text_cases.write(folder, text_cases.CASES["t5"], part)
        (folder / "model.safetensors").rename(folder / f"{number}.safetensors")
    listed = {name: f"{number % 2}.safetensors" for number, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(dict(weight_map=listed)))
    _, parts = hub_t5.read(folder)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    (folder / "1.safetensors").unlink()
    with pytest.raises(ValueError, match="1.safetensors: no such file"):
        hub_t5.read(folder)


NORM = "encoder.final_layer_norm.weight"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: {k: v for k, v in t.items() if k != NORM}, f"missing {NORM}"),
        (lambda t: t | {"encoder.extra": np.ones(3, np.float32)}, "left over encoder.extra"),
        (lambda t: t | {NORM: np.ones(5, np.float32)}, rf"{NORM} has shape \(5,\), not \(24,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(change, message, tmp_path):
    with pytest.raises(ValueError, match=f"^[^\n]*model.safetensors: [^\n]*{message}[^\n]*$"):
        load_text(_folder(tmp_path, change=change))


@pytest.mark.parametrize(
    "case, field, value, message",
    [
        ("t5", "model_type", "mt5", "model_type is 'mt5', expected 't5' or 'bert'"),
        ("t5", "feed_forward_proj", "gated-silu", "feed_forward_proj is 'gated-silu'"),
        ("minilm", "hidden_act", "relu", "hidden_act must be 'gelu', not 'relu'"),
        ("minilm", "position_embedding_type", "relative_key", "position_embedding_type must be"),
    ],
)
def test_another_architecture_is_named(case, field, value, message, tmp_path):
    config = json.loads((_folder(tmp_path, case) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(ValueError, match=f"^[^\n]*config.json: {message}[^\n]*$"):
        load_text(tmp_path)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no such folder; expected minilm, or a Hugging Face T5"):
        load_text(tmp_path / "nowhere")
    _folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^[^\n]*tokenizer.json: not a tokenizer[^\n]*$"):
        load_text(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"^[^\n]*tokenizer.json: no such file; make it: python"):
        load_text(tmp_path)
    _folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    message = r"^[^\n]*pickle \(.bin\), which is never opened; [^\n]*save_pretrained"
    with pytest.raises(ValueError, match=message):
        load_text(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    message = rf"^text encoder minilm: no {tmp_path}/indep_jax/minilm-[^\n]*fetch_minilm$"
    with pytest.raises(UserError, match=message):
        load_text("minilm")
