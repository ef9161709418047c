"""Comparisons of sound, and metrics of codecs and language models."""

from indep_jax.evaluation import codec, lm

__all__ = ["codec", "lm"]
