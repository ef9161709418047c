"""Text encoders with their weights and tokenizer, by path."""

from pathlib import Path

from indep_jax.hub import folders, minilm, t5, weights
from indep_jax.support.errors import UserError
from indep_jax.text.conditioner import Conditioner, load_tokenizer
from indep_jax.text.minilm import MiniLM
from indep_jax.text.t5 import T5Encoder


def load_text(path: str | Path, max_tokens: int = 64) -> Conditioner:
    """A text encoder with its tokenizer: call it with texts for (states, mask).

    `path` is a Hugging Face folder of T5, of a BertModel or of a MusicGen that has one of them
    (config.json, model.safetensors, tokenizer.json), or "minilm", all-MiniLM-L6-v2 as
    indep_jax.text.fetch_minilm fetches it. "hf:NAME" is a model of the Hugging Face hub. Texts are
    cut to `max_tokens`.

    Raises UserError, one line that names the path or command and what was expected.
    """
    folder = text_folder(path)
    hub, name, _ = weights.part_of(folder, "text_encoder")
    kind = hub.get("model_type")
    kinds = dict(t5=(T5Encoder, t5), bert=(MiniLM, minilm))
    if kind not in kinds:
        raise UserError(f"{name}: model_type is {kind!r}, expected 't5' or 'bert'")
    module, hub = kinds[kind]
    tokenizer = load_tokenizer(folder)
    config, variables = hub.read(folder)
    return Conditioner(module(**config), variables, tokenizer, max_tokens)


def text_folder(path: str | Path) -> Path:
    """The folder of a text encoder: see `load_text`."""
    folder = minilm.fetched() if path == "minilm" else folders.locate(path)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected minilm, or a Hugging Face T5 folder")
    return folder
