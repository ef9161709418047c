"""MusicGen's language model as Hugging Face stores it: config.json and model.safetensors.

Of a MusicgenForConditionalGeneration the decoder and the layer that leads to it from the text, or a
MusicgenForCausalLM. One table (`name_map`) holds every array of both sides exactly once, and reads
in both directions.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from indep_jax.hub import encodec, weights
from indep_jax.hub.weights import Entry
from indep_jax.lm import model as lm_model
from indep_jax.support.errors import UserError

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
_TEXTS = dict(t5=("d_model", 512), bert=("hidden_size", 768))  # the field of the width, its default
_MAX_LENGTH = 1_500  # frames, of the published models: 30 s
_TOKENIZER = ("tokenizer.json", "special_tokens_map.json", "spiece.model", "vocab.txt")


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


def _is_encoders(name: str) -> bool:
    """Whether a tensor of a text encoder's folder is in transformers' model of the encoder alone."""
    return not name.startswith(("decoder.", "lm_head.")) and not name.endswith(".position_ids")


def config_from_hub(hub: Mapping, name: str = "config.json") -> dict:
    """Our config (task, dtype, model) from the fields of their config.json.

    Raises UserError, one line that names the field, for what is not MusicGen's architecture.
    """
    kind = hub.get("model_type")
    if kind not in PREFIXES:
        expected = " or ".join(map(repr, PREFIXES))
        raise UserError(f"{name}: model_type must be {expected}, not {kind!r}")
    for part in ("decoder", "text_encoder") if kind == "musicgen" else ():
        if not isinstance(hub.get(part), Mapping):
            raise UserError(f"{name}: {part} is missing")
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
            raise UserError(f"{name}: {field} is {value!r}; only {expected} is supported")
    model["pattern"] = _PATTERNS[decoder.get("audio_channels", 1)]
    model["text_dim"] = model["dim"]
    if kind == "musicgen":
        encoder = hub["text_encoder"]
        if (kind := encoder.get("model_type")) not in _TEXTS:
            expected = " or ".join(map(repr, _TEXTS))
            raise UserError(f"{name}: text_encoder.model_type must be {expected}, not {kind!r}")
        field, default = _TEXTS[kind]
        model["text_dim"] = encoder.get(field, default)
    model |= dict(positions="sinusoidal", head="linear", depth={}, remat=False)
    return dict(task="lm", dtype="float32", model=model)


def config_to_hub(model: Mapping) -> dict:
    """The fields of their decoder from our `model` section, of an LM that they can express.

    Raises UserError, one line that names the field, for one that transformers has no form of.
    """
    patterns = {pattern: channels for channels, pattern in _PATTERNS.items()}
    for field, allowed in dict(
        positions=("sinusoidal",), head=("linear",), pattern=patterns
    ).items():
        if model[field] not in allowed:
            raise UserError(
                f"model.{field} {model[field]!r}: transformers' MusicGen has {' or '.join(allowed)}"
            )
    if not model["text_dim"]:
        raise UserError("model.text_dim 0: transformers' MusicGen reads a text")
    size = model["codebook_size"]
    return dict(
        model_type="musicgen_decoder",
        architectures=["MusicgenForCausalLM"],
        dtype="float32",
        audio_channels=patterns[model["pattern"]],
        bos_token_id=size,
        pad_token_id=size,
        **{theirs: model[ours] for ours, (theirs, _) in _FIELDS.items()},
    )


def read_config(folder: str | Path) -> dict:
    """The config of `read` alone, without reading the weights."""
    return config_from_hub(weights.read_config(Path(folder)), str(Path(folder) / "config.json"))


def read_frames(folder: str | Path) -> int:
    """How many frames a model of the folder is made for, as its generation_config.json says."""
    name = "generation_config.json"
    found = weights.read_config(Path(folder), name) if (Path(folder) / name).is_file() else {}
    return found.get("max_length") or _MAX_LENGTH


def read(folder: str | Path, shardings: Mapping | None = None) -> tuple[dict, dict]:
    """Reads a Hugging Face MusicGen folder: (config, variables).

    `config` is plain data with the sections task, dtype and model, for
    `lm.model.from_config(config["model"], config["dtype"])`; `variables` are float32 arrays, placed
    one by one, as `shardings` says where it is given.

    Raises UserError, one line, for a folder that is no MusicGen, for tensors that are missing,
    left over or of another shape, and for weights in a pickle, which is never opened.
    """
    folder = Path(folder)
    config = read_config(folder)
    module = lm_model.from_config(config["model"], config["dtype"])
    table = name_map(config["model"], PREFIXES[weights.read_config(folder)["model_type"]])
    tensors = weights.read_tensors(folder, has_counterpart)
    inputs = lm_model.example(module)
    return config, weights.to_variables(table, module, inputs, tensors, folder, shardings)


def to_hub(
    model: Mapping, variables: Mapping, codec: tuple[Mapping, Mapping], text: Path, frames: int
) -> tuple[dict[str, dict], dict, list[Path]]:
    """What a folder of a MusicgenForConditionalGeneration holds, for `pipeline("text-to-audio")`.

    Args:
      model, variables: of the language model.
      codec: config and variables of the codec of one channel's tokens.
      text: Hugging Face folder of the text encoder, or of a MusicGen that has it.
      frames: that it generates where nothing else is asked for.

    Returns:
      (JSON files by name, tensors by name, files of the tokenizer).

    Raises UserError, one line, for a model that transformers has no form of.
    """
    decoder = config_to_hub(model)
    encoder, name, prefix = weights.part_of(text, "text_encoder")
    kind = encoder.get("model_type")
    if kind not in _TEXTS:
        raise UserError(
            f"{name}: model_type must be {' or '.join(map(repr, _TEXTS))}, not {kind!r}"
        )
    states = weights.read_tensors(text, _is_encoders, prefix)
    configs, sound = encodec.to_hub(*codec)
    tensors = weights.to_tensors(name_map(model, PREFIXES["musicgen"]), variables)
    tensors |= {f"text_encoder.{name}": np.asarray(tensor) for name, tensor in states.items()}
    tensors |= {f"audio_encoder.{name}": tensor for name, tensor in sound.items()}
    tokenizer = "tokenizer_config.json"
    found = weights.read_config(text, tokenizer) if (text / tokenizer).is_file() else {}
    # What the classes that they replace have without being told, and padding needs.
    unknown, pad = dict(t5=("<unk>", "<pad>"), bert=("[UNK]", "[PAD]"))[kind]
    found = dict(unk_token=unknown, pad_token=pad) | found
    # Their class for Bert would have the language model read which sentence a token is of.
    found |= dict(
        tokenizer_class="PreTrainedTokenizerFast", model_input_names=["input_ids", "attention_mask"]
    )
    special = dict.fromkeys(
        ("bos_token_id", "pad_token_id", "decoder_start_token_id"), model["codebook_size"]
    )
    configs["preprocessor_config.json"] |= dict(
        feature_size=decoder["audio_channels"],
        padding_side="left",  # prompts end together
    )
    configs |= {
        tokenizer: found,
        "config.json": dict(
            model_type="musicgen",
            architectures=["MusicgenForConditionalGeneration"],
            dtype="float32",
            text_encoder=encoder,
            audio_encoder=configs["config.json"],
            decoder=decoder,
        ),
        "generation_config.json": dict(
            special, do_sample=True, guidance_scale=3.0, top_k=250, max_length=frames
        ),
    }
    return configs, tensors, [text / name for name in _TOKENIZER if (text / name).is_file()]
