"""MiniLM as Hugging Face stores it, a BertModel: config.json and model.safetensors.

One table (`name_map`) holds every array of both sides exactly once. The pooler, which makes one
vector of a sentence's first state, has no counterpart here.
"""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

from indep_jax.hub import weights
from indep_jax.hub.weights import Entry
from indep_jax.support.errors import UserError
from indep_jax.text import fetch_minilm
from indep_jax.text.minilm import MiniLM

_FIELDS = {  # our field of MiniLM: (Hugging Face's, its default in transformers' BertConfig)
    "vocab_size": ("vocab_size", 30_522),
    "dim": ("hidden_size", 768),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
    "hidden_dim": ("intermediate_size", 3_072),
    "max_tokens": ("max_position_embeddings", 512),
    "token_types": ("type_vocab_size", 2),
    "epsilon": ("layer_norm_eps", 1e-12),
}


def name_map(config: Mapping) -> list[Entry]:
    """The table for a MiniLM of these fields."""
    table = [
        Entry("params/embedding/embedding", "embeddings.word_embeddings.weight", (0, 1)),
        Entry("params/position/embedding", "embeddings.position_embeddings.weight", (0, 1)),
        Entry("params/token_type/embedding", "embeddings.token_type_embeddings.weight", (0, 1)),
    ]

    def norm(ours, theirs):
        table.append(Entry(f"params/{ours}/scale", f"{theirs}.weight", (0,)))
        table.append(Entry(f"params/{ours}/bias", f"{theirs}.bias", (0,)))

    norm("embedding_norm", "embeddings.LayerNorm")
    dense = dict(
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attended="attention.output.dense",
        hidden="intermediate.dense",
        out="output.dense",
    )
    for i in range(config["layers"]):
        layer = f"encoder.layer.{i}"
        for ours, theirs in dense.items():
            name = f"params/{ours}_{i}"
            table.append(Entry(f"{name}/kernel", f"{layer}.{theirs}.weight", (1, 0)))
            table.append(Entry(f"{name}/bias", f"{layer}.{theirs}.bias", (0,)))
        norm(f"attention_norm_{i}", f"{layer}.attention.output.LayerNorm")
        norm(f"feed_forward_norm_{i}", f"{layer}.output.LayerNorm")
    return table


def has_counterpart(name: str) -> bool:
    """Whether a Hugging Face tensor is a parameter of the encoder, not the pooler or a counter."""
    return not name.startswith("pooler.") and name != "embeddings.position_ids"


def config_from_hub(hub: Mapping, name: str = "config.json") -> dict:
    """The fields of MiniLM from those of a config.json.

    Raises UserError, one line that names the field, for another architecture.
    """
    supported = dict(model_type="bert", hidden_act="gelu", position_embedding_type="absolute")
    defaults = dict(hidden_act="gelu", position_embedding_type="absolute")
    for field, expected in supported.items():
        value = hub.get(field, defaults.get(field))
        if value != expected:
            raise UserError(f"{name}: {field} must be {expected!r}, not {value!r}")
    return {ours: hub.get(theirs, default) for ours, (theirs, default) in _FIELDS.items()}


def read(folder: str | Path) -> tuple[dict, dict]:
    """Reads a Hugging Face folder of a BertModel, or of a MusicGen that has one: (config, variables).

    For `MiniLM(**config).apply(variables, ids, mask)`. Raises UserError, one line, for another
    architecture, for tensors that are missing, left over or of another shape, and for weights in a
    pickle, which is never opened.
    """
    folder = Path(folder)
    hub, name, prefix = weights.part_of(folder, "text_encoder")
    config = config_from_hub(hub, name)
    ids, mask = (jax.ShapeDtypeStruct((1, 1), dtype) for dtype in (jnp.int32, bool))
    tensors = weights.read_tensors(folder, has_counterpart, prefix)
    module = MiniLM(**config)
    return config, weights.to_variables(name_map(config), module, [ids, mask], tensors, folder)


def fetched() -> Path:
    """Return the folder of all-MiniLM-L6-v2 that indep_jax.text.fetch_minilm made.

    Raises UserError, one line with that command, where it was not fetched yet.
    """
    folder = fetch_minilm.minilm_folder()
    if not folder.is_dir():
        raise UserError(
            f"text encoder minilm: no {folder}; fetch it: python -m indep_jax.text.fetch_minilm"
        )
    return folder
