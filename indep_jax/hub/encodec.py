"""EnCodec as Hugging Face stores it: config.json and model.safetensors.

The correspondence of parameters is one table (`name_map`), which holds every array of both sides
exactly once and reads in both directions.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

from indep_jax.codec import model as codec_model
from indep_jax.hub import weights
from indep_jax.hub.weights import Entry

_FIELDS = {  # our field of `model`: (Hugging Face's, its default in transformers' EncodecConfig)
    "sample_rate": ("sampling_rate", 24_000),
    "channels": ("audio_channels", 1),
    "causal": ("use_causal_conv", True),
    "n_filters": ("num_filters", 32),
    "ratios": ("upsampling_ratios", (8, 5, 4, 2)),
    "dimension": ("hidden_size", 128),
    "residual_layers": ("num_residual_layers", 1),
    "kernel": ("kernel_size", 7),
    "residual_kernel": ("residual_kernel_size", 3),
    "last_kernel": ("last_kernel_size", 7),
    "dilation_base": ("dilation_growth_rate", 2),
    "compress": ("compress", 2),
    "lstm_layers": ("num_lstm_layers", 2),
    "pad_mode": ("pad_mode", "reflect"),
    "conv_shortcut": ("use_conv_shortcut", True),
}

_SPELLINGS = {  # weight norm's (gain, direction) in PyTorch's old and new form
    "old": ("weight_g", "weight_v"),
    "new": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
}


def name_map(model: Mapping, codebooks: int, spelling: str) -> list[Entry]:
    """The table for a codec of these `model` fields; `spelling` of weight norm: old, new, folded.

    Folded stands for plain weights, `model.norm` "none".
    """
    table = []

    def conv(ours, theirs, kernel_axes=(2, 1, 0)):
        if spelling == "folded":
            table.append(Entry(f"{ours}/weight/kernel", f"{theirs}.weight", kernel_axes))
        else:
            gain, direction = _SPELLINGS[spelling]
            table.append(Entry(f"{ours}/weight/direction", f"{theirs}.{direction}", kernel_axes))
            table.append(Entry(f"{ours}/weight/gain", f"{theirs}.{gain}", (0,), ones=2))
        table.append(Entry(f"{ours}/bias", f"{theirs}.bias", (0,)))

    def residual(ours, theirs):
        # Position in PyTorch's Sequential: ELU 0, convolution 1, ELU 2, convolution 3.
        conv(f"{ours}/conv_0", f"{theirs}.block.1.conv")
        conv(f"{ours}/conv_1", f"{theirs}.block.3.conv")
        if model["conv_shortcut"]:
            conv(f"{ours}/shortcut", f"{theirs}.shortcut.conv")

    def lstm(ours, theirs):
        for i in range(model["lstm_layers"]):
            for part, letters in (("input", "ih"), ("hidden", "hh")):
                layer = f"{ours}/layer_{i}/{part}"
                table.append(
                    Entry(f"{layer}_kernel", f"{theirs}.lstm.weight_{letters}_l{i}", (1, 0))
                )
                table.append(Entry(f"{layer}_bias", f"{theirs}.lstm.bias_{letters}_l{i}", (0,)))

    stages, blocks = range(len(model["ratios"])), range(model["residual_layers"])
    side, at = "params/encoder", 0  # `at`: position in their ModuleList, which counts ELUs too
    conv(f"{side}/conv_in", f"encoder.layers.{at}.conv")
    for i in stages:
        for j in blocks:
            at += 1
            residual(f"{side}/residual_{i}_{j}", f"encoder.layers.{at}")
        at += 2
        conv(f"{side}/down_{i}", f"encoder.layers.{at}.conv")
    at += 1
    lstm(f"{side}/lstm", f"encoder.layers.{at}")
    at += 2
    conv(f"{side}/conv_out", f"encoder.layers.{at}.conv")

    side, at = "params/decoder", 0
    conv(f"{side}/conv_in", f"decoder.layers.{at}.conv")
    at += 1
    lstm(f"{side}/lstm", f"decoder.layers.{at}")
    for i in stages:
        at += 2
        conv(f"{side}/up_{i}", f"decoder.layers.{at}.conv", (2, 0, 1))
        for j in blocks:
            at += 1
            residual(f"{side}/residual_{i}_{j}", f"decoder.layers.{at}")
    at += 2
    conv(f"{side}/conv_out", f"decoder.layers.{at}.conv")

    for k in range(codebooks):
        theirs = f"quantizer.layers.{k}.codebook"
        table.append(Entry("codebook/embed", f"{theirs}.embed", (0, 1), index=k))
        table.append(Entry("codebook/average", f"{theirs}.embed_avg", (0, 1), index=k))
        table.append(Entry("codebook/count", f"{theirs}.cluster_size", (0,), index=k))
    return table


def is_buffer(name: str) -> bool:
    """Whether a Hugging Face tensor is a flag that has no counterpart here."""
    return name.endswith(".codebook.inited")


def config_from_hub(hub: Mapping, name: str = "config.json") -> dict:
    """Our config (task, dtype, model, quantizer) from the fields of their config.json.

    The number of codebooks is that of the largest target bandwidth. Raises ValueError, one line
    that names the field, for a model outside the 32 kHz family.
    """
    if hub.get("model_type") != "encodec":
        raise ValueError(f"{name}: model_type must be 'encodec', not {hub.get('model_type')!r}")
    model = {ours: hub.get(theirs, default) for ours, (theirs, default) in _FIELDS.items()}
    model["ratios"] = tuple(model["ratios"])
    supported = dict(normalize=(False, None), chunk_length_s=(None,))
    supported["norm_type"] = ("weight_norm",)
    supported["codebook_dim"] = (None, model["dimension"])
    supported["pad_mode"] = ("constant", "reflect")
    if model["causal"]:
        supported["trim_right_ratio"] = (1.0,)
    defaults = dict(norm_type="weight_norm", pad_mode="reflect", trim_right_ratio=1.0)
    for field, allowed in supported.items():
        value = hub.get(field, defaults.get(field))
        if value not in allowed:
            expected = " or ".join(json.dumps(a) for a in allowed)
            raise ValueError(f"{name}: {field} is {value!r}; only {expected} is supported")
    size = hub.get("codebook_size", 1024)
    # As EncodecConfig: whole frames per second, whole bits per code.
    frame_rate = math.ceil(model["sample_rate"] / math.prod(model["ratios"]))
    bits = math.ceil(math.log2(size))
    bandwidths = hub.get("target_bandwidths", (1.5, 3.0, 6.0, 12.0, 24.0))
    codebooks = int(1000 * bandwidths[-1] // (frame_rate * bits))
    model["norm"] = "weight_norm"
    quantizer = dict(codebooks=codebooks, codebook_size=size)
    return dict(task="codec", dtype="float32", model=model, quantizer=quantizer)


def read(folder: str | Path) -> tuple[dict, dict]:
    """Reads a Hugging Face EnCodec folder: (config, variables).

    `config` is plain data with the sections task, dtype, model, quantizer (configs/ says what
    they hold); `variables` are float32 numpy arrays for `codec.model.Codec.apply`. Weight norm
    may be stored in either spelling, or folded into the weights, which gives norm "none".

    Raises ValueError, one line, for a folder that is no EnCodec of the 32 kHz family, for tensors
    that are missing, left over or of another shape, and for weights in a pickle, which is never
    opened.
    """
    folder = Path(folder)
    config = config_from_hub(weights.read_config(folder), str(folder / "config.json"))
    tensors = weights.read_tensors(folder, lambda name: not is_buffer(name))
    spelling = "folded"
    for candidate, (gain, _) in _SPELLINGS.items():
        if any(name.endswith(gain) for name in tensors):
            spelling = candidate
    if spelling == "folded":
        config["model"]["norm"] = "none"
    module = codec_model.from_config(config["model"], **config["quantizer"])
    wave = jax.ShapeDtypeStruct((1, module.hop, module.channels), jnp.float32)
    table = name_map(config["model"], module.codebooks, spelling)
    return config, weights.to_variables(table, module, [wave], tensors, folder)
