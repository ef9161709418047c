"""The T5 encoder as Hugging Face stores it: config.json and model.safetensors.

One table (`name_map`) holds every array of both sides exactly once. The decoder and the output
layer, which a folder of the whole T5 holds besides, have no counterpart here.
"""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.hub import weights
from indep_jax.hub.weights import Entry
from indep_jax.support.errors import UserError
from indep_jax.text.t5 import T5Encoder

_FIELDS = {  # our field of T5Encoder: (Hugging Face's, its default in transformers' T5Config)
    "vocab_size": ("vocab_size", 32_128),
    "dim": ("d_model", 512),
    "layers": ("num_layers", 6),
    "heads": ("num_heads", 8),
    "head_dim": ("d_kv", 64),
    "hidden_dim": ("d_ff", 2_048),
    "buckets": ("relative_attention_num_buckets", 32),
    "max_distance": ("relative_attention_max_distance", 128),
    "epsilon": ("layer_norm_epsilon", 1e-6),
}
_FEED_FORWARD = {"relu": False, "gated-gelu": True}
_EMBEDDING = "shared.weight"
_SAME_EMBEDDING = "encoder.embed_tokens.weight"  # the same table by its other name


def name_map(config: Mapping) -> list[Entry]:
    """The table for a T5Encoder of these fields."""
    table = [
        Entry("params/embedding/embedding", _EMBEDDING, (0, 1)),
        Entry(
            "params/position/embedding",
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            (0, 1),
        ),
        Entry("params/norm/scale", "encoder.final_layer_norm.weight", (0,)),
    ]
    attention = dict(query="q", key="k", value="v", attended="o")
    if config["gated"]:
        feed_forward = dict(gate="wi_0", hidden="wi_1", out="wo")
    else:
        feed_forward = dict(hidden="wi", out="wo")
    for i in range(config["layers"]):
        block = f"encoder.block.{i}.layer"
        for norm, at in (("attention_norm", 0), ("feed_forward_norm", 1)):
            theirs = f"{block}.{at}.layer_norm.weight"
            table.append(Entry(f"params/{norm}_{i}/scale", theirs, (0,)))
        for stem, names in (
            (f"{block}.0.SelfAttention", attention),
            (f"{block}.1.DenseReluDense", feed_forward),
        ):
            for ours, theirs in names.items():
                name = f"params/{ours}_{i}/kernel"
                table.append(Entry(name, f"{stem}.{theirs}.weight", (1, 0)))
    return table


def has_counterpart(name: str) -> bool:
    """Whether a Hugging Face tensor is the encoder's."""
    return not name.startswith(("decoder.", "lm_head."))


def config_from_hub(hub: Mapping, name: str = "config.json") -> dict:
    """The fields of T5Encoder from those of a config.json.

    Raises UserError, one line that names the field, for another architecture.
    """
    if hub.get("model_type") != "t5":
        raise UserError(f"{name}: model_type must be 't5', not {hub.get('model_type')!r}")
    feed_forward = hub.get("feed_forward_proj", "relu")
    if feed_forward not in _FEED_FORWARD:
        raise UserError(
            f"{name}: feed_forward_proj is {feed_forward!r}; only "
            f"{' or '.join(_FEED_FORWARD)} is supported"
        )
    config = {ours: hub.get(theirs, default) for ours, (theirs, default) in _FIELDS.items()}
    return config | dict(gated=_FEED_FORWARD[feed_forward])


def to_variables(config: Mapping, tensors: Mapping, folder: Path) -> dict:
    """Variables of T5Encoder(**config) from the encoder's tensors, by Hugging Face's names.

    Raises UserError, one line that names `folder`, for tensors that do not fit.
    """
    tensors = dict(tensors)
    if _SAME_EMBEDDING in tensors:
        same = tensors.pop(_SAME_EMBEDDING)
        if not np.array_equal(tensors.setdefault(_EMBEDDING, same), same):
            raise UserError(f"{folder}: {_SAME_EMBEDDING} and {_EMBEDDING} differ")
    ids, mask = (jax.ShapeDtypeStruct((1, 1), dtype) for dtype in (jnp.int32, bool))
    module = T5Encoder(**config)
    return weights.to_variables(name_map(config), module, [ids, mask], tensors, folder)


def read(folder: str | Path) -> tuple[dict, dict]:
    """Reads a Hugging Face folder of a T5, of its encoder, or of a MusicGen: (config, variables).

    For `T5Encoder(**config).apply(variables, ids, mask)`. Raises UserError, one line, for another
    architecture, for tensors that are missing, left over or of another shape, and for weights in a
    pickle, which is never opened.
    """
    folder = Path(folder)
    hub, name, prefix = weights.part_of(folder, "text_encoder")
    config = config_from_hub(hub, name)
    tensors = weights.read_tensors(folder, has_counterpart, prefix)
    return config, to_variables(config, tensors, folder)
