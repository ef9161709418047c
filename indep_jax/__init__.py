"""Music tokenizers with statistically independent codebooks: train, measure and use them."""

__all__ = ["load_codec", "load_lm"]


def __getattr__(name: str):
    # On demand, so that importing one folder does not import the whole package.
    if name in __all__:
        from indep_jax import inference

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
