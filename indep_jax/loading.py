"""Trained codecs by path: a workdir of indep_jax.train or a Hugging Face folder, alike.

    codec = load_codec("runs/small")
    encoded = codec.encode(wave)  # [batch, time, channels] at codec.sample_rate
    wave = codec.decode(encoded)  # as long as what was encoded
"""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.codec import model as codec_model
from indep_jax.codec import quantizer
from indep_jax.codec.model import Encoded
from indep_jax.data import pipeline, sources
from indep_jax.hub import encodec as hub_encodec
from indep_jax.training import checkpoints


class LoadedCodec:
    """A codec with its weights. Its functions are compiled once for each shape of input.

    config: plain data, at least the sections dtype, model and quantizer.
    sample_rate: Hz. channels: of waveforms. frame_rate: frames per second (float).
    codebooks, codebook_size: tokens of a frame and the values each can have.
    """

    def __init__(self, config: Mapping, variables: Mapping, dtype: str | None = None):
        self.config = config
        sizes = {name: config["quantizer"][name] for name in ("codebooks", "codebook_size")}
        self.module = codec_model.from_config(
            config["model"], **sizes, dtype=dtype or config["dtype"]
        )
        self.variables = jax.tree.map(jnp.asarray, variables)
        self.sample_rate: int = self.module.sample_rate
        self.channels: int = self.module.channels
        self.frame_rate: float = self.module.frame_rate
        self.codebooks: int = self.module.codebooks
        self.codebook_size: int = self.module.codebook_size
        self._encode = jax.jit(
            lambda variables, x: self.module.apply(variables, x, method="encode").codes
        )
        self._decode = jax.jit(
            lambda variables, codes: self.module.apply(variables, codes, method="decode")
        )

    @property
    def code_vectors(self) -> jax.Array:
        """[codebooks, codebook_size, dimension]."""
        return self.variables["codebook"]["embed"]

    def encode(self, wave) -> Encoded:
        """Tokens of waveforms [batch, time, channels], or of one mono waveform [time].

        Raises ValueError for another rank, another number of channels, and an empty waveform.
        """
        wave = jnp.asarray(wave, jnp.float32)
        if wave.ndim == 1:
            wave = wave[None, :, None]
        if wave.ndim != 3 or wave.shape[-1] != self.channels or wave.shape[1] == 0:
            raise ValueError(
                f"wave: expected [batch, time, {self.channels}] with time at least 1, "
                f"not {list(wave.shape)}"
            )
        codes = self._encode(self.variables, wave)
        return Encoded(codes=codes, scales=None, length=wave.shape[1])

    def decode(self, encoded, length: int | None = None) -> jax.Array:
        """Waveforms [batch, length, channels] of what `encode` gave, or of a plain codes array.

        Codes are integers [batch, frames, codebooks]; leading codebooks alone are allowed. Without
        `length`, a plain codes array gives whole frames. Raises ValueError for codes of another
        shape or out of range, and for a length that is not within the frames.
        """
        if isinstance(encoded, Encoded):
            codes, length = encoded.codes, encoded.length if length is None else length
        else:
            codes = encoded
        codes = np.asarray(codes)
        if codes.ndim != 3 or not 1 <= codes.shape[2] <= self.codebooks or codes.shape[1] == 0:
            raise ValueError(
                f"codes: expected [batch, frames, up to {self.codebooks}], not {list(codes.shape)}"
            )
        if not np.issubdtype(codes.dtype, np.integer):
            raise ValueError(f"codes: expected integers, not {codes.dtype}")
        if codes.size and not 0 <= codes.min() <= codes.max() < self.codebook_size:
            raise ValueError(
                f"codes: expected 0 to {self.codebook_size - 1}, not {codes.min()} to {codes.max()}"
            )
        whole = codes.shape[1] * self.module.hop
        if length is not None and not 0 <= length <= whole:
            raise ValueError(f"length: expected at most {whole} samples, not {length}")
        return self._decode(self.variables, codes.astype(np.int32))[:, :length]


def load_codec(path: str | Path, *, dtype: str | None = None) -> LoadedCodec:
    """The codec of a workdir of indep_jax.train, or of a Hugging Face EnCodec folder.

    A workdir gives the moving average of the weights at its last checkpoint. `dtype` is that of
    the convolutions, float32 or bfloat16; default what the config says.

    Raises ValueError, one line that names the path and what was expected.
    """
    path = Path(path)
    config = _read_config(path)
    if "model_type" in config:
        config, variables = hub_encodec.read(path)
        return LoadedCodec(config, variables, dtype)
    step, state = checkpoints.restore_latest(path)
    variables = dict(params=state["ema"], codebook=state["collections"]["codebook"])
    if not np.any(variables["codebook"]["count"]):
        raise ValueError(f"{path}: step {step} is within the warm-up: there are no codebooks yet")
    return LoadedCodec(config, variables, dtype)


def untrained(config: Mapping | str | Path, source: str, seed: int = 0) -> LoadedCodec:
    """The codec of a config (or of a workdir's) before training, as a reference for the trained.

    Weights are the random initial ones; codebooks are fitted by k-means to that encoder's latents
    of training segments of `source`, as a run does when quantization begins.
    """
    if not isinstance(config, Mapping):
        config = _read_config(Path(config))
    sizes = {name: config["quantizer"][name] for name in ("codebooks", "codebook_size")}
    module = codec_model.from_config(config["model"], **sizes, dtype=config["dtype"])
    segments = pipeline.segments(
        sources.open_source(source, "train"),
        seed=seed,
        batch_size=config["batch_size"],
        seconds=config["data"]["segment_seconds"],
        sample_rate=module.sample_rate,
        channels=module.channels,
    )
    # This generator compiles several times faster than the default, of which jit(init) holds one
    # instance per parameter.
    init_key = jax.random.key(seed, impl="unsafe_rbg")
    # Music, as in a run: with model.init_std the first weights depend on it.
    params = jax.jit(module.init)(init_key, segments[0]["audio"])["params"]
    empty = quantizer.empty(module.codebooks, module.codebook_size, module.dimension)
    latents = jax.jit(
        lambda x: module.apply(dict(params=params, codebook=empty), x, method="latents")
    )
    rows = jnp.concatenate(
        [
            latents(segments[i]["audio"]).reshape(-1, module.dimension)
            for i in range(config["quantizer"]["kmeans_batches"])
        ]
    )
    codebook = jax.jit(quantizer.initialize, static_argnums=(1, 2, 4))(
        rows,
        module.codebooks,
        module.codebook_size,
        jax.random.key(seed),
        config["quantizer"]["kmeans_iterations"],
        rows.shape[0] / module.codebook_size,
    )
    return LoadedCodec(config, dict(params=params, codebook=codebook))


def _read_config(path: Path) -> dict:
    expected = "expected a workdir of indep_jax.train or a Hugging Face EnCodec folder"
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder; {expected}")
    if not (path / "config.json").is_file():
        raise ValueError(f"{path}: has no config.json; {expected}")
    try:
        config = json.loads((path / "config.json").read_text())
    except ValueError as error:
        raise ValueError(f"{path / 'config.json'}: not JSON ({error})") from None
    known = isinstance(config, dict) and ("model_type" in config or config.get("task") == "codec")
    if not known:
        raise ValueError(f"{path / 'config.json'}: describes no codec; {expected}")
    return config
