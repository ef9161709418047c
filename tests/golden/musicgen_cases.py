"""MusicGen models whose weights come from the names of their parameters alone.

Shared by make_musicgen.py, which runs one in torch, and the default tests, which do not have it.
"""

import json
import zlib

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy

from indep_jax.hub import musicgen
from indep_jax.lm import model as lm
from indep_jax.lm import patterns

FRAMES = 17
DECODER = dict(
    model_type="musicgen_decoder",
    num_codebooks=3,
    vocab_size=23,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    ffn_dim=20,
    pad_token_id=23,
    bos_token_id=23,
)
WHOLE = dict(model_type="musicgen", decoder=DECODER, text_encoder=dict(model_type="t5", d_model=6))


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The parameter `name` of theirs, float32."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("norm.weight"):
        value = rng.uniform(0.5, 1.5, shape)
    elif name.endswith(".bias"):
        value = rng.normal(0, 0.2, shape)
    else:
        value = rng.normal(0, 0.5 if "embed" in name else 1.2 / shape[-1] ** 0.5, shape)
    return value.astype(np.float32)


def write(folder, hub) -> dict[str, np.ndarray]:
    """Writes config.json and model.safetensors; returns the tensors by their names."""
    config = musicgen.config_from_hub(hub)
    module = lm.from_config(config["model"])
    variables = jax.eval_shape(module.init, jax.random.key(0), *lm.example(module))
    shapes = flax.traverse_util.flatten_dict(variables, sep="/")
    tensors = {}
    for entry in musicgen.name_map(config["model"], musicgen.PREFIXES[hub["model_type"]]):
        assert entry.theirs not in tensors
        shape = entry.their_shape(shapes[entry.ours].shape)
        tensors[entry.theirs] = weight(entry.theirs, shape)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hub))
    return tensors


def inputs(module: lm.LM) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens [2, steps, codebooks], text [2, 5, text_dim], its mask), the second text shorter."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, module.codebook_size, (2, FRAMES, module.codebooks), np.int32)
    tokens, _ = patterns.build(codes, module.schedule(FRAMES), module.special)
    text = rng.normal(size=(2, 5, module.text_dim)).astype(np.float32)
    return tokens, text, np.arange(5) < np.array([[5], [3]])
