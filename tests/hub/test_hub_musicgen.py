"""MusicGen's name map and arithmetic, without torch; tests/parity compares with transformers."""

from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy
from golden import musicgen_cases
from golden.musicgen_cases import DECODER, WHOLE

from indep_jax.hub import musicgen
from indep_jax.lm import model as lm
from indep_jax.lm import sampling

GOLDEN = Path(__file__).parents[1] / "golden" / "musicgen.npz"


def test_logits_are_those_of_transformers(tmp_path):
    musicgen_cases.write(tmp_path, DECODER)
    config, variables = musicgen.read(tmp_path)
    module = lm.from_config(config["model"], config["dtype"])
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(module.apply)(variables, *musicgen_cases.inputs(module))
    theirs = np.load(GOLDEN)["logits"]
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-5 * np.sqrt(np.mean(theirs**2))


@pytest.mark.parametrize("guidance", [1, 3])
@pytest.mark.parametrize("name", musicgen_cases.GREEDY)
def test_greedy_codes_are_those_of_transformers(name, guidance, tmp_path):
    musicgen_cases.write(tmp_path, musicgen_cases.GREEDY[name])
    config, variables = musicgen.read(tmp_path)
    module = lm.from_config(config["model"], config["dtype"])
    _, text, mask = musicgen_cases.inputs(module)
    with jax.default_matmul_precision("highest"):
        ours = sampling.generate(
            module, variables, musicgen_cases.GREEDY_FRAMES, seed=0, examples=[0, 1], text=text,
            text_mask=mask, guidance=float(guidance), top_k=1,
        )  # fmt: skip
    np.testing.assert_array_equal(ours, np.load(GOLDEN)[f"greedy/{name}/{guidance}"])


@pytest.mark.parametrize("hub", [WHOLE, DECODER], ids=["whole", "decoder"])
def test_every_tensor_of_a_folder_finds_its_place(hub, tmp_path):
    tensors = musicgen_cases.write(tmp_path, hub)
    others = {"decoder.model.decoder.embed_positions.weights": np.zeros((4, 16), np.float32)}
    if hub is WHOLE:
        others["text_encoder.shared.weight"] = np.zeros((2, 6), np.float32)
    safetensors.numpy.save_file(tensors | others, tmp_path / "model.safetensors")
    config, variables = musicgen.read(tmp_path)
    assert config["model"]["pattern"] == "delay"
    assert config["model"]["text_dim"] == (6 if hub is WHOLE else 16)
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    for entry in musicgen.name_map(config["model"], musicgen.PREFIXES[hub["model_type"]]):
        found = flat[entry.ours] if entry.index is None else flat[entry.ours][entry.index]
        np.testing.assert_array_equal(found, entry.to_ours(tensors[entry.theirs]))
    assert sum(value.size for value in flat.values()) == sum(t.size for t in tensors.values())


@pytest.mark.parametrize(
    "hub, said",
    [
        (WHOLE | dict(model_type="encodec"), "model_type must be 'musicgen' or"),
        (WHOLE | dict(text_encoder=dict(model_type="clip")), "text_encoder.model_type must be"),
        (DECODER | dict(activation_function="relu"), "activation_function is 'relu'; only \"gelu"),
        (DECODER | dict(scale_embedding=True), "scale_embedding is True"),
        (DECODER | dict(audio_channels=5), "audio_channels is 5; only 1 or 2 is supported"),
        (DECODER | dict(bos_token_id=0), "bos_token_id is 0; only 23 is supported"),
    ],
)
def test_another_architecture_is_refused(hub, said):
    with pytest.raises(ValueError, match=said):
        musicgen.config_from_hub(hub)
