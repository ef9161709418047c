"""EnCodec as Hugging Face stores it, both ways: config.json and model.safetensors.

The correspondence of parameters is one table (`name_map`), which holds every array of both sides
exactly once and reads in both directions.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.codec import model as codec_model
from indep_jax.hub import weights
from indep_jax.hub.weights import Entry
from indep_jax.support.errors import UserError

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

    Folded stands for plain weights, `model.norm` "none". Time group norm has plain weights too.
    """
    table = []
    plain = spelling == "folded" or model["norm"] == "time_group_norm"

    def conv(ours, theirs, kernel_axes=(2, 1, 0)):
        if plain:
            table.append(Entry(f"{ours}/weight/kernel", f"{theirs}.conv.weight", kernel_axes))
        else:
            gain, direction = (f"{theirs}.conv.{part}" for part in _SPELLINGS[spelling])
            table.append(Entry(f"{ours}/weight/direction", direction, kernel_axes))
            table.append(Entry(f"{ours}/weight/gain", gain, (0,), ones=2))
        table.append(Entry(f"{ours}/bias", f"{theirs}.conv.bias", (0,)))
        if model["norm"] == "time_group_norm":
            table.append(Entry(f"{ours}/time_group_norm/gain", f"{theirs}.norm.weight", (0,)))
            table.append(Entry(f"{ours}/time_group_norm/bias", f"{theirs}.norm.bias", (0,)))

    def residual(ours, theirs):
        # Position in PyTorch's Sequential: ELU 0, convolution 1, ELU 2, convolution 3.
        conv(f"{ours}/conv_0", f"{theirs}.block.1")
        conv(f"{ours}/conv_1", f"{theirs}.block.3")
        if model["conv_shortcut"]:
            conv(f"{ours}/shortcut", f"{theirs}.shortcut")

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
    conv(f"{side}/conv_in", f"encoder.layers.{at}")
    for i in stages:
        for j in blocks:
            at += 1
            residual(f"{side}/residual_{i}_{j}", f"encoder.layers.{at}")
        at += 2
        conv(f"{side}/down_{i}", f"encoder.layers.{at}")
    at += 1
    lstm(f"{side}/lstm", f"encoder.layers.{at}")
    at += 2
    conv(f"{side}/conv_out", f"encoder.layers.{at}")

    side, at = "params/decoder", 0
    conv(f"{side}/conv_in", f"decoder.layers.{at}")
    at += 1
    lstm(f"{side}/lstm", f"decoder.layers.{at}")
    for i in stages:
        at += 2
        conv(f"{side}/up_{i}", f"decoder.layers.{at}", (2, 0, 1))
        for j in blocks:
            at += 1
            residual(f"{side}/residual_{i}_{j}", f"decoder.layers.{at}")
    at += 2
    conv(f"{side}/conv_out", f"decoder.layers.{at}")

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

    The number of codebooks is that of the largest target bandwidth. Raises UserError, one line
    that names the field, for what is no EnCodec.
    """
    if hub.get("model_type") != "encodec":
        raise UserError(f"{name}: model_type must be 'encodec', not {hub.get('model_type')!r}")
    model = {ours: hub.get(theirs, default) for ours, (theirs, default) in _FIELDS.items()}
    model["ratios"] = tuple(model["ratios"])
    supported = dict(
        codebook_dim=(None, model["dimension"]),
        pad_mode=("constant", "reflect"),
        norm_type=("weight_norm", "time_group_norm"),
    )
    if model["causal"]:
        supported["trim_right_ratio"] = (1.0,)
    defaults = dict(norm_type="weight_norm", pad_mode="reflect", trim_right_ratio=1.0)
    for field, allowed in supported.items():
        value = hub.get(field, defaults.get(field))
        if value not in allowed:
            expected = " or ".join(json.dumps(a) for a in allowed)
            raise UserError(f"{name}: {field} is {value!r}; only {expected} is supported")
    model["norm"] = hub.get("norm_type", "weight_norm")
    if hub.get("normalize"):
        model["normalize"] = True
    if hub.get("chunk_length_s"):
        if hub.get("overlap") is None:
            raise UserError(f"{name}: overlap is missing, which chunk_length_s needs")
        model |= dict(chunk_seconds=hub["chunk_length_s"], chunk_overlap=hub["overlap"])
    quantizer = dict(codebook_size=hub.get("codebook_size", 1024))
    quantizer["bandwidths"] = tuple(hub.get("target_bandwidths", (1.5, 3.0, 6.0, 12.0, 24.0)))
    config = dict(task="codec", dtype="float32", model=model, quantizer=quantizer)
    quantizer["codebooks"] = codebooks_at(config, quantizer["bandwidths"][-1])
    return config


def config_to_hub(config: Mapping) -> dict:
    """The fields of their config.json from our config, of a codec that they can express.

    Raises UserError, one line that names the field, for one that transformers has no form of.
    """
    model, quantizer = config["model"], config["quantizer"]
    if model["channels"] > 2:
        raise UserError(f"model.channels {model['channels']}: transformers' EnCodec has 1 or 2")
    if model["lstm_layers"] < 1:
        raise UserError("model.lstm_layers 0: transformers' EnCodec has 1 or more")
    size = quantizer["codebook_size"]
    if size < 2 or size & (size - 1):
        raise UserError(f"quantizer.codebook_size {size}: transformers' is a power of 2")
    hub = dict(model_type="encodec", architectures=["EncodecModel"], dtype="float32")
    hub |= {theirs: model[ours] for ours, (theirs, _) in _FIELDS.items()}
    chunked = model.get("chunk_seconds", 0)
    return hub | dict(
        norm_type="time_group_norm" if model["norm"] == "time_group_norm" else "weight_norm",
        trim_right_ratio=1.0,
        normalize=model.get("normalize", False),
        chunk_length_s=model["chunk_seconds"] if chunked else None,
        overlap=model["chunk_overlap"] if chunked else None,
        codebook_size=size,
        codebook_dim=model["dimension"],
        target_bandwidths=bandwidths(config),
    )


def bandwidths(config: Mapping) -> tuple[float, ...]:
    """The bandwidths of a codec, kbit/s, each of so many leading codebooks.

    What a Hugging Face folder says, else that of all codebooks, or of any number of them where the
    codec was trained with quantizer dropout.
    """
    quantizer = config["quantizer"]
    if "bandwidths" in quantizer:
        return tuple(quantizer["bandwidths"])
    rate, codebooks = _bits_per_second(config), quantizer["codebooks"]
    found = []
    for count in range(1 if quantizer.get("dropout") else codebooks, codebooks + 1):
        found.append(count * rate / 1000)
        while codebooks_at(config, found[-1]) < count:  # their rule rounds down
            found[-1] = math.nextafter(found[-1], math.inf)
    return tuple(found)


def codebooks_at(config: Mapping, bandwidth: float) -> int:
    """How many codebooks a bandwidth, kbit/s, is; at least 1."""
    return max(1, int(1000 * bandwidth // _bits_per_second(config)))


def _bits_per_second(config: Mapping) -> int:
    """Of one codebook, as transformers counts: whole frames per second, whole bits per code."""
    model = config["model"]
    frames = math.ceil(model["sample_rate"] / math.prod(model["ratios"]))
    return frames * math.ceil(math.log2(config["quantizer"]["codebook_size"]))


def read(folder: str | Path) -> tuple[dict, dict]:
    """Reads a Hugging Face EnCodec folder, or the EnCodec of a MusicGen folder: (config, variables).

    `config` is plain data with the sections task, dtype, model, quantizer (configs/ says what
    they hold); `variables` are float32 arrays for `codec.model.Codec.apply`. Weight norm may be
    stored in either spelling, or folded into the weights, which gives norm "none".

    Raises UserError, one line, for a folder that is no EnCodec, for tensors that are missing, left
    over or of another shape, and for weights in a pickle, which is never opened.
    """
    config, tensors, spelling = _open(Path(folder))
    sizes = {name: config["quantizer"][name] for name in ("codebooks", "codebook_size")}
    module = codec_model.from_config(config["model"], **sizes)
    wave = jax.ShapeDtypeStruct((1, module.hop, module.channels), jnp.float32)
    table = name_map(config["model"], module.codebooks, spelling)
    return config, weights.to_variables(table, module, [wave], tensors, Path(folder))


def read_config(folder: str | Path) -> dict:
    """The config of `read` alone, without reading the weights."""
    return _open(Path(folder))[0]


def _open(folder: Path) -> tuple[dict, dict, str]:
    """(config, tensors by name, spelling of weight norm) of a folder."""
    hub, name, prefix = weights.part_of(folder, "audio_encoder")
    config = config_from_hub(hub, name)
    tensors = weights.read_tensors(folder, lambda name: not is_buffer(name), prefix)
    spelling = "folded"
    for candidate, (gain, _) in _SPELLINGS.items():
        if any(name.endswith(gain) for name in tensors):
            spelling = candidate
    if spelling == "folded" and config["model"]["norm"] == "weight_norm":
        config["model"]["norm"] = "none"
    return config, tensors, spelling


def to_hub(config: Mapping, variables: Mapping) -> tuple[dict[str, dict], dict[str, np.ndarray]]:
    """What a Hugging Face folder of a codec holds: (JSON files by name, tensors by name).

    The inverse of `read`, bit for bit, in the new spelling of weight norm; plain convolutions, which
    transformers has no form of, as weight norm of the same product, to rounding. Raises UserError, one line that names
    the field, for a codec that transformers has no form of.
    """
    hub = config_to_hub(config)
    spelling = "folded" if config["model"]["norm"] == "none" else "new"
    codebooks = config["quantizer"]["codebooks"]
    table = name_map(config["model"], codebooks, spelling)
    tensors = weights.to_tensors(table, variables)
    if config["model"]["norm"] == "none":
        tensors = _unfold(tensors)
    for k in range(codebooks):
        tensors[f"quantizer.layers.{k}.codebook.inited"] = np.ones(1, np.float32)
    extractor = dict(
        feature_extractor_type="EncodecFeatureExtractor",
        feature_size=hub["audio_channels"],
        padding_side="right",
        padding_value=0.0,
        return_attention_mask=True,
        **{name: hub[name] for name in ("sampling_rate", "chunk_length_s", "overlap")},
    )
    return {"config.json": hub, "preprocessor_config.json": extractor}, tensors


def _unfold(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Plain convolutions as weight norm of the same product, to rounding: there is no other form."""
    unfolded = {}
    for name, tensor in tensors.items():
        if not name.endswith(".conv.weight"):
            unfolded[name] = tensor
            continue
        gain, direction = (name.removesuffix("weight") + part for part in _SPELLINGS["new"])
        length = np.linalg.norm(tensor.astype(np.float64), axis=(1, 2), keepdims=True)
        unfolded[gain] = length.astype(np.float32)
        unfolded[direction] = np.where(length > 0, tensor, np.float32(1))
    return unfolded
