"""MusicGen's language model as Hugging Face stores it: config.json and model.safetensors.

Of a MusicgenForConditionalGeneration the decoder and the layer that leads to it from the text, or a
MusicgenForCausalLM. One table (`name_map`) holds every array of both sides exactly once.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from indep_jax.hub import weights
from indep_jax.hub.weights import Entry
from indep_jax.lm import model as lm_model

_FIELDS = {  # our field of `model`: (Hugging Face's, its default in MusicgenDecoderConfig)
    "codebooks": ("num_codebooks", 4),
    "codebook_size": ("vocab_size", 2_048),
    "dim": ("hidden_size", 1_024),
    "layers": ("num_hidden_layers", 24),
    "heads": ("num_attention_heads", 16),
    "ffn_dim": ("ffn_dim", 4_096),
}
_PATTERNS = {1: "delay", 2: "stereo_delay"}  # by audio_channels
PREFIXES = dict(musicgen="decoder.", musicgen_decoder="")  # by model_type


def name_map(model: Mapping, prefix: str) -> list[Entry]:
    """The table for an LM of these fields; their names of it begin with `prefix`."""
    decoder = f"{prefix}model.decoder"
    table = []

    def norm(ours, theirs):
        table.append(Entry(f"params/temporal/{ours}/scale", f"{decoder}.{theirs}.weight", (0,)))
        table.append(Entry(f"params/temporal/{ours}/bias", f"{decoder}.{theirs}.bias", (0,)))

    def linear(ours, theirs):
        table.append(Entry(f"params/temporal/{ours}/kernel", f"{decoder}.{theirs}.weight", (1, 0)))

    for k in range(model["codebooks"]):
        theirs = f"{decoder}.embed_tokens.{k}.weight"
        table.append(Entry("params/embedding", theirs, (0, 1), index=k))
        theirs = f"{prefix}lm_heads.{k}.weight"
        table.append(Entry("params/output", theirs, (1, 0), index=k))
    for i in range(model["layers"]):
        ours, theirs = f"layer_{i}", f"layers.{i}"
        norms = dict(self="self_attn_layer_norm", cross="encoder_attn_layer_norm")
        for part, letters in (("self", "self_attn"), ("cross", "encoder_attn")):
            norm(f"{ours}/{part}_norm", f"{theirs}.{norms[part]}")
            for name, letter in dict(query="q", key="k", value="v", out="out").items():
                linear(f"{ours}/{part}_attention/{name}", f"{theirs}.{letters}.{letter}_proj")
        norm(f"{ours}/ffn_norm", f"{theirs}.final_layer_norm")
        linear(f"{ours}/ffn_in", f"{theirs}.fc1")
        linear(f"{ours}/ffn_out", f"{theirs}.fc2")
    norm("norm", "layer_norm")
    if model["text_dim"] != model["dim"]:
        table.append(Entry("params/text_projection/kernel", "enc_to_dec_proj.weight", (1, 0)))
        table.append(Entry("params/text_projection/bias", "enc_to_dec_proj.bias", (0,)))
    return table


def has_counterpart(name: str) -> bool:
    """Whether a Hugging Face tensor is the language model's, and not a table of sinusoids."""
    others = ("text_encoder.", "audio_encoder.")
    return not name.startswith(others) and not name.endswith(".embed_positions.weights")


def config_from_hub(hub: Mapping, name: str = "config.json") -> dict:
    """Our config (task, dtype, model) from the fields of their config.json.

    Raises ValueError, one line that names the field, for what is not MusicGen's architecture.
    """
    kind = hub.get("model_type")
    if kind not in PREFIXES:
        expected = " or ".join(map(repr, PREFIXES))
        raise ValueError(f"{name}: model_type must be {expected}, not {kind!r}")
    decoder = hub["decoder"] if kind == "musicgen" else hub
    model = {ours: decoder.get(theirs, default) for ours, (theirs, default) in _FIELDS.items()}
    size = model["codebook_size"]
    supported = dict(  # (allowed, MusicgenDecoderConfig's default)
        activation_function=(("gelu",), "gelu"),
        scale_embedding=((False,), False),
        cross_attention_hidden_size=((None,), None),
        audio_channels=(tuple(_PATTERNS), 1),
        pad_token_id=((size,), 2_048),
        bos_token_id=((size,), 2_048),
    )
    for field, (allowed, default) in supported.items():
        value = decoder.get(field, default)
        if value not in allowed:
            expected = " or ".join(json.dumps(a) for a in allowed)
            raise ValueError(f"{name}: {field} is {value!r}; only {expected} is supported")
    model["pattern"] = _PATTERNS[decoder.get("audio_channels", 1)]
    model["text_dim"] = model["dim"]
    if kind == "musicgen":
        encoder = hub["text_encoder"]
        if (kind := encoder.get("model_type")) != "t5":
            raise ValueError(f"{name}: text_encoder.model_type must be 't5', not {kind!r}")
        model["text_dim"] = encoder.get("d_model", 512)
    model |= dict(positions="sinusoidal", head="linear", depth={}, remat=False)
    return dict(task="lm", dtype="float32", model=model)


def read(folder: str | Path) -> tuple[dict, dict]:
    """Reads a Hugging Face MusicGen folder: (config, variables).

    `config` is plain data with the sections task, dtype and model, for
    `lm.model.from_config(config["model"], config["dtype"])`; `variables` are float32 numpy arrays.

    Raises ValueError, one line, for a folder that is no MusicGen, for tensors that are missing,
    left over or of another shape, and for weights in a pickle, which is never opened.
    """
    folder = Path(folder)
    hub = weights.read_config(folder)
    config = config_from_hub(hub, str(folder / "config.json"))
    module = lm_model.from_config(config["model"], config["dtype"])
    table = name_map(config["model"], PREFIXES[hub["model_type"]])
    tensors = weights.read_tensors(folder, has_counterpart)
    return config, weights.to_variables(table, module, lm_model.example(module), tensors, folder)
