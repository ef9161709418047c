"""MusicGen models whose weights come from the names of their parameters alone.

Shared by make_musicgen.py, which runs one in torch, and the default tests, which do not have it.
"""

import json
import zlib

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy
from golden import encodec_cases, text_cases

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
# Whose greedy output varies.
GREEDY_FRAMES = 200
_VARIED = DECODER | dict(vocab_size=256, pad_token_id=256, bos_token_id=256, hidden_size=48)
GREEDY = dict(mono=_VARIED, stereo=_VARIED | dict(audio_channels=2, num_codebooks=4))
WHOLE = dict(model_type="musicgen", decoder=DECODER, text_encoder=dict(model_type="t5", d_model=6))


# With its codec and its text encoder, as encodec_cases and text_cases have them.
COMPLETE = dict(
    model_type="musicgen",
    text_encoder=text_cases.CASES["t5"],
    audio_encoder=encodec_cases.TINY,
    decoder=DECODER | dict(vocab_size=32, pad_token_id=32, bos_token_id=32, audio_channels=1),
)
assert COMPLETE["audio_encoder"]["codebook_size"] == 32 and encodec_cases.CODEBOOKS == 3


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


def write_complete(folder, stereo=False, frames=40) -> tuple[dict, dict[str, np.ndarray]]:
    """A folder with all that generating takes; returns its config.json and its tensors."""
    hub = COMPLETE
    if stereo:
        hub = hub | dict(decoder=hub["decoder"] | dict(audio_channels=2, num_codebooks=6))
    text_cases.write(folder, hub["text_encoder"], {})
    tensors = write(folder, hub)
    parts = dict(
        text_encoder=text_cases.tensors(hub["text_encoder"]),
        audio_encoder=encodec_cases.tensors(hub["audio_encoder"]),
    )
    for part, found in parts.items():
        tensors |= {f"{part}.{name}": tensor for name, tensor in found.items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "generation_config.json").write_text(json.dumps(dict(max_length=frames)))
    return hub, tensors
