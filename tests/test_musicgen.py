"""The name map of MusicGen, without torch; tests/parity compares with transformers."""

import json

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy

from indep_jax.hub import musicgen
from indep_jax.lm import model as lm

DECODER = dict(
    model_type="musicgen_decoder",
    num_codebooks=3,
    vocab_size=7,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    ffn_dim=12,
    pad_token_id=7,
    bos_token_id=7,
)
WHOLE = dict(
    model_type="musicgen", decoder=DECODER, text_encoder=dict(model_type="t5", d_model=6)
)


def write(folder, hub):
    """A folder of random weights; returns our variables by name."""
    config = musicgen.config_from_hub(hub)
    module = lm.from_config(config["model"])
    variables = jax.tree.map(np.asarray, lm.init(module, jax.random.key(0)))
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    tensors = {"decoder.model.decoder.embed_positions.weights": np.zeros((4, 8), np.float32)}
    if hub is WHOLE:
        tensors["text_encoder.shared.weight"] = np.zeros((2, 6), np.float32)
    for entry in musicgen.name_map(config["model"], musicgen._PREFIXES[hub["model_type"]]):
        value = flat[entry.ours] if entry.index is None else flat[entry.ours][entry.index]
        assert entry.theirs not in tensors
        tensors[entry.theirs] = np.ascontiguousarray(value.transpose(np.argsort(entry.axes)))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hub))
    return flat


@pytest.mark.parametrize("hub", [WHOLE, DECODER], ids=["whole", "decoder"])
def test_a_folder_is_read_to_the_weights_it_was_written_from(hub, tmp_path):
    written = write(tmp_path, hub)
    config, variables = musicgen.read(tmp_path)
    found = flax.traverse_util.flatten_dict(variables, sep="/")
    assert found.keys() == written.keys()
    for name, value in written.items():
        np.testing.assert_array_equal(found[name], value)
    assert config["model"]["pattern"] == "delay"
    assert config["model"]["text_dim"] == (6 if hub is WHOLE else 8)


@pytest.mark.parametrize(
    "hub, said",
    [
        (WHOLE | dict(model_type="encodec"), "model_type must be 'musicgen' or"),
        (WHOLE | dict(text_encoder=dict(model_type="bert")), "text_encoder.model_type must be"),
        (DECODER | dict(activation_function="relu"), "activation_function is 'relu'; only \"gelu"),
        (DECODER | dict(scale_embedding=True), "scale_embedding is True"),
        (DECODER | dict(audio_channels=5), "audio_channels is 5; only 1 or 2 is supported"),
        (DECODER | dict(bos_token_id=0), "bos_token_id is 0; only 7 is supported"),
    ],
)
def test_another_architecture_is_refused(hub, said):
    with pytest.raises(ValueError, match=said):
        musicgen.config_from_hub(hub)
