"""Trained models in use, by path: a workdir of indep_jax.train or a Hugging Face folder, alike.

    codec = load_codec("runs/small")
    encoded = codec.encode(wave)  # [batch, time, channels] at codec.sample_rate
    wave = codec.decode(encoded)  # as long as what was encoded

And language models, `load_lm("runs/lm")`, and text encoders, `load_text("minilm")`.
"""

from indep_jax.inference.chunked import ChunkedCodec
from indep_jax.inference.codec import LoadedCodec
from indep_jax.inference.lm import LoadedLM
from indep_jax.inference.load import (
    load_codec,
    load_codec_of,
    load_lm,
    load_tokenizer,
)
from indep_jax.inference.stereo import PairedCodec
from indep_jax.inference.text import load_text, text_folder
from indep_jax.inference.tokenizer import Tokenizer

__all__ = [
    "ChunkedCodec",
    "LoadedCodec",
    "LoadedLM",
    "PairedCodec",
    "Tokenizer",
    "load_codec",
    "load_codec_of",
    "load_lm",
    "load_text",
    "load_tokenizer",
    "text_folder",
]
