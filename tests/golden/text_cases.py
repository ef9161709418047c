"""Text encoders whose weights come from the names of their parameters alone.

Shared by make_text.py, which runs them in torch, and the default tests, which do not have it.
"""

import json
import math
import zlib

import numpy as np
import safetensors.numpy

WORDS = "a slow fast hymn waltz in of D minor major played on piano flute violin and two".split()
TEXTS = ["a slow hymn in D minor played on flute and piano", "fast waltz", ""]
CAPTIONS = [  # for the real MiniLM
    "A slow hymn in A flat major played on trumpet, French horn, trombone and tuba",
    "ragtime",
    "A mid-tempo concertino theme in E flat major played on clarinet and piano, 92 beats per "
    "minute; recorded in Ölüdeniz, 1998!",
]

_T5 = dict(
    model_type="t5",
    vocab_size=len(WORDS) + 3,
    d_model=24,
    d_kv=7,
    d_ff=40,
    num_layers=3,
    num_heads=4,
    relative_attention_num_buckets=12,
    relative_attention_max_distance=20,
    layer_norm_epsilon=1e-6,
    feed_forward_proj="relu",
    tie_word_embeddings=True,
)
CASES = {
    "t5": _T5,
    "t5_gated": _T5 | dict(feed_forward_proj="gated-gelu", d_kv=5, num_layers=2),
    "minilm": dict(
        model_type="bert",
        vocab_size=len(WORDS) + 3,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=60,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        hidden_act="gelu",
    ),
}
# (buckets, largest distance) at which relative positions are compared; the first is T5's own.
BUCKETS = [(32, 128), (12, 20), (64, 1000)]
POSITIONS = 600
TOKENS = 40  # of the inputs below: beyond the largest distance of the small cases


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Every tensor of transformers' encoder, independently of the package's name maps."""
    found = {}
    if config["model_type"] == "t5":
        width, inner = config["d_model"], config["num_heads"] * config["d_kv"]
        found["shared.weight"] = (config["vocab_size"], width)
        buckets = config["relative_attention_num_buckets"]
        stem = "encoder.block.0.layer.0.SelfAttention"
        found[f"{stem}.relative_attention_bias.weight"] = (buckets, config["num_heads"])
        for i in range(config["num_layers"]):
            stem = f"encoder.block.{i}.layer"
            for name in "qkv":
                found[f"{stem}.0.SelfAttention.{name}.weight"] = (inner, width)
            found[f"{stem}.0.SelfAttention.o.weight"] = (width, inner)
            found[f"{stem}.0.layer_norm.weight"] = (width,)
            for name in ("wi_0", "wi_1") if "gated" in config["feed_forward_proj"] else ("wi",):
                found[f"{stem}.1.DenseReluDense.{name}.weight"] = (config["d_ff"], width)
            found[f"{stem}.1.DenseReluDense.wo.weight"] = (width, config["d_ff"])
            found[f"{stem}.1.layer_norm.weight"] = (width,)
        found["encoder.final_layer_norm.weight"] = (width,)
        return found

    def linear(name, inputs, outputs):
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs), (outputs,)

    width, inner = config["hidden_size"], config["intermediate_size"]
    rows = dict(
        word=config["vocab_size"],
        position=config["max_position_embeddings"],
        token_type=config["type_vocab_size"],
    )
    for name, count in rows.items():
        found[f"embeddings.{name}_embeddings.weight"] = (count, width)
    norms = ["embeddings.LayerNorm"]
    for i in range(config["num_hidden_layers"]):
        stem = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            linear(f"{stem}.attention.self.{name}", width, width)
        linear(f"{stem}.attention.output.dense", width, width)
        linear(f"{stem}.intermediate.dense", width, inner)
        linear(f"{stem}.output.dense", inner, width)
        norms += [f"{stem}.attention.output.LayerNorm", f"{stem}.output.LayerNorm"]
    for name in norms:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (width,)
    linear("pooler.dense", width, width)
    return found


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The parameter `name`, float32: large enough that no path through the model is negligible."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if "norm" in name.lower() and name.endswith("weight"):
        value = rng.uniform(0.5, 1.5, shape)
    elif name.endswith(".bias"):
        value = rng.normal(0, 0.3, shape)
    elif "relative_attention_bias" in name or "embeddings" in name or "shared" in name:
        value = rng.normal(0, 1, shape)
    else:
        # T5's products are not scaled: a query of unit variance is what its own weights give.
        small = shape[0] ** -0.25 if ".SelfAttention.q." in name else 1.0
        value = rng.normal(0, small * math.prod(shape[1:]) ** -0.5, shape)
    return value.astype(np.float32)


def tensors(config: dict) -> dict[str, np.ndarray]:
    return {name: weight(name, shape) for name, shape in shapes(config).items()}


def inputs(config: dict) -> tuple[np.ndarray, np.ndarray]:
    """ids [3, TOKENS] and mask: a whole row, a padded one, a single token; padding is not zeros."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, config["vocab_size"], (3, TOKENS))
    mask = np.arange(TOKENS) < np.array([TOKENS, 13, 1])[:, None]
    return ids, mask


def tokenizer(config: dict) -> dict:
    """A tokenizer.json over WORDS, ending as the real one: T5's </s>, BERT's [CLS] and [SEP]."""
    if config["model_type"] == "t5":
        special, template = ["<pad>", "</s>", "<unk>"], [("A", 0), ("</s>", 1)]
    else:
        special, template = ["[CLS]", "[SEP]", "[UNK]"], [("[CLS]", 0), ("A", 0), ("[SEP]", 1)]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    pieces = [
        {"Sequence" if name == "A" else "SpecialToken": dict(id=name, type_id=0)}
        for name, _ in template
    ]
    return dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=[],
        normalizer=None,
        pre_tokenizer=dict(type="WhitespaceSplit"),
        post_processor=dict(
            type="TemplateProcessing",
            single=pieces,
            pair=[*pieces, dict(Sequence=dict(id="B", type_id=1))],
            special_tokens={
                name: dict(id=name, ids=[vocabulary[name]], tokens=[name])
                for name, _ in template
                if name != "A"
            },
        ),
        decoder=None,
        model=dict(type="WordLevel", vocab=vocabulary, unk_token=special[2]),
    )


def write(folder, config: dict, values: dict[str, np.ndarray]):
    """A Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(config)))
    safetensors.numpy.save_file(values, folder / "model.safetensors")
