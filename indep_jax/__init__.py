"""Music tokenizers with statistically independent codebooks: train, measure and use them."""

__all__ = ["load_codec"]


def __getattr__(name: str):
    # On demand, so that importing one folder does not import the whole package.
    if name == "load_codec":
        from indep_jax.loading import load_codec

        return load_codec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
