"""Trained models by path: a workdir of indep_jax.train or a Hugging Face folder, alike.

    codec = load_codec("runs/small")
    encoded = codec.encode(wave)  # [batch, time, channels] at codec.sample_rate
    wave = codec.decode(encoded)  # as long as what was encoded

And language models, `load_lm("runs/lm")`, and text encoders, `load_text("minilm")`.
"""

from indep_jax.inference.codec import (
    LoadedCodec,
    PairedCodec,
    load_codec,
    load_codec_of,
    untrained,
)
from indep_jax.inference.lm import LoadedLM, load_lm
from indep_jax.inference.text import load_text, text_folder

__all__ = [
    "LoadedCodec",
    "LoadedLM",
    "PairedCodec",
    "load_codec",
    "load_codec_of",
    "load_lm",
    "load_text",
    "text_folder",
    "untrained",
]
