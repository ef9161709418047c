"""Music tokenizers with statistically independent codebooks: train, measure and use them."""

import importlib

__all__ = ["evaluate", "load_codec", "load_lm", "measure", "train"]


def __getattr__(name: str):
    # On demand: importing one module must not import JAX and the whole package.
    if name in ("load_codec", "load_lm"):
        return getattr(importlib.import_module("indep_jax.inference"), name)
    if name in __all__:
        return importlib.import_module(f"indep_jax.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
