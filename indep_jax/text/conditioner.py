"""Texts as states [batch, tokens, dim] and a mask [batch, tokens] for a language model.

An empty text has no tokens: its mask is False throughout and its states are zero. So are the
states of padding, and those of texts that `dropout.drop` removed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

from indep_jax.support.errors import UserError
from indep_jax.support.files import replace_file, replacing

INFO, STATES = "text.json", "text.npy"
_BATCH = 16  # texts that `store` encodes at a time


def load_tokenizer(folder: str | os.PathLike) -> tokenizers.Tokenizer:
    """Return the tokenizer of a folder's tokenizer.json. Raises UserError where there is none."""
    path = pathlib.Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; make it: python -c "
            '"from transformers import AutoTokenizer as A; '
            f"A.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # what the library raises, for any content that it cannot read
        raise UserError(f"{path}: not a tokenizer ({' '.join(str(error).split())})") from None


def tokenize(
    tokenizer: tokenizers.Tokenizer, texts: Sequence[str], max_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids int32 [batch, max_tokens] of texts, and a mask, True at tokens.

    Longer texts are cut; their special tokens are kept. Blank texts have no tokens, not even special
    ones. Raises UserError if `max_tokens` has room for special tokens only.
    """
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if max_tokens <= special:
        raise UserError(f"max_tokens {max_tokens}: expected more than the {special} special ones")
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    ids = np.zeros((len(texts), max_tokens), np.int32)
    mask = np.zeros((len(texts), max_tokens), bool)
    for row, encoding in enumerate(tokenizer.encode_batch(list(texts))):
        if texts[row].strip():
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = True
    return ids, mask


class Conditioner:
    """A frozen text encoder and its tokenizer, compiled once for each batch size.

    module: T5Encoder, MiniLM, or a module that is called like them. variables: its weights.
    max_tokens: per text; longer texts are cut. dim: of the states.
    """

    def __init__(
        self,
        module: nn.Module,
        variables: Mapping,
        tokenizer: tokenizers.Tokenizer,
        max_tokens: int = 64,
    ):
        self.module = module
        self.variables = jax.tree.map(jnp.asarray, variables)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.dim: int = module.dim
        self._encode = jax.jit(
            lambda variables, ids, mask: jnp.where(
                mask[..., None], module.apply(variables, ids, mask), 0.0
            )
        )

    def __call__(self, texts: Sequence[str]) -> tuple[jax.Array, np.ndarray]:
        """Return states float32 [batch, max_tokens, dim] and mask bool [batch, max_tokens]."""
        ids, mask = tokenize(self.tokenizer, texts, self.max_tokens)
        return self._encode(self.variables, ids, mask), mask

    @functools.cached_property
    def fingerprint(self) -> str:
        """The hash that identifies this encoder's states: of everything that determines them."""
        digest = hashlib.sha256(f"{self.module!r} {self.max_tokens}".encode())
        tokenizer = json.loads(self.tokenizer.to_str())
        for setting in ("truncation", "padding"):  # set at every call
            tokenizer.pop(setting, None)
        digest.update(json.dumps(tokenizer, sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()[:16]


def store(folder: str | os.PathLike, texts: Iterable[str], conditioner: Conditioner) -> None:
    """Write the states of a dataset's texts, each once, into a folder: text.npy and text.json.

    text.npy holds the states of all texts, concatenated, float32 [tokens, dim]; text.json the texts,
    how many tokens each has, and the encoder's fingerprint. Texts that this encoder has already
    written to the folder are kept; if all are there, nothing is done.
    """
    folder = pathlib.Path(folder)
    wanted = {text for text in texts if text.strip()}
    try:
        found = Stored(folder)
        if found.fingerprint == conditioner.fingerprint:
            if wanted <= set(found.texts):
                return
            wanted |= set(found.texts)
    except UserError:
        pass  # there are none yet
    texts = sorted(wanted)
    folder.mkdir(parents=True, exist_ok=True)
    _, mask = tokenize(conditioner.tokenizer, texts, conditioner.max_tokens)
    lengths = mask.sum(1).tolist()
    # Without text.json the folder has no states: it goes first and comes last.
    (folder / INFO).unlink(missing_ok=True)
    shape = (sum(lengths), conditioner.dim)
    with replacing(folder / STATES) as temporary, open(temporary, "wb") as file:
        header = dict(descr="<f4", fortran_order=False, shape=shape)
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, len(texts), _BATCH):
            batch = texts[first : first + _BATCH]
            states, mask = conditioner(batch + [""] * (_BATCH - len(batch)))
            file.write(np.asarray(states, "<f4")[mask].tobytes())
    info = dict(
        fingerprint=conditioner.fingerprint,
        max_tokens=conditioner.max_tokens,
        dim=conditioner.dim,
        texts=texts,
        lengths=lengths,
    )
    replace_file(folder / INFO, json.dumps(info, indent=0))


class Stored:
    """The states that `store` wrote, called like the Conditioner that made them.

    fingerprint, max_tokens, dim: the encoder's. texts: those that have states.
    Raises UserError if a folder has no states, or not those that text.json lists.
    """

    def __init__(self, folder: str | os.PathLike):
        self._folder = folder
        path = pathlib.Path(folder) / INFO
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
            self.fingerprint: str = info["fingerprint"]
            self.max_tokens: int = info["max_tokens"]
            self.dim: int = info["dim"]
            self.texts: list[str] = info["texts"]
            ends = np.cumsum([0, *info["lengths"]])
            self._rows = np.load(path.with_name(STATES), mmap_mode="r")
            if self._rows.shape != (ends[-1], self.dim):
                raise ValueError
        except OSError as error:
            raise UserError(f"{error.filename}: {(error.strerror or '').lower()}") from None
        except (ValueError, KeyError, TypeError, EOFError):
            raise UserError(f"{folder}: {INFO} and {STATES} do not belong together") from None
        self._spans = dict(zip(self.texts, zip(ends, ends[1:]), strict=True))

    def __reduce__(self):
        return Stored, (self._folder,)  # not the states, which a worker process maps for itself

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return states float32 [batch, max_tokens, dim] and mask bool [batch, max_tokens].

        Raises UserError for a text that was not stored.
        """
        states = np.zeros((len(texts), self.max_tokens, self.dim), np.float32)
        mask = np.zeros((len(texts), self.max_tokens), bool)
        for row, text in enumerate(texts):
            if not text.strip():
                continue
            if text not in self._spans:
                raise UserError(f"{self._folder}: has no states of the text {text!r}")
            first, last = self._spans[text]
            states[row, : last - first] = self._rows[first:last]
            mask[row, : last - first] = True
        return states, mask
