"""Trained models by path: the workdir of a run, a Hugging Face folder, or the name of one that ships."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from indep_jax.codec import model
from indep_jax.hub import encodec, folders, musicgen, tokenizers
from indep_jax.inference.chunked import ChunkedCodec
from indep_jax.inference.codec import LoadedCodec
from indep_jax.inference.lm import LoadedLM
from indep_jax.inference.stereo import PairedCodec
from indep_jax.inference.text import load_text
from indep_jax.inference.tokenizer import Tokenizer
from indep_jax.support.errors import UserError
from indep_jax.support.files import model_name
from indep_jax.training import checkpoints


def from_config(
    config: Mapping[str, Any],
    variables: Mapping[str, Any],
    dtype: str | None = None,
    step: int = 0,
    label: str = "",
) -> LoadedCodec:
    """Return a codec of a config and its weights: a ChunkedCodec where its frames do not depend on
    their surroundings alone; see LoadedCodec for the arguments."""
    sizes = {name: config["quantizer"][name] for name in ("codebooks", "codebook_size")}
    windowed = model.from_config(config["model"], **sizes).windowed
    kind = LoadedCodec if windowed else ChunkedCodec
    return kind(config, variables, dtype, step, label)


def load_codec(
    path: str | Path, *, bandwidth: float | None = None, dtype: str | None = None
) -> LoadedCodec:
    """Return the codec of a workdir of indep_jax.train, or of a Hugging Face EnCodec or MusicGen folder.

    A workdir gives the moving average of the weights at its last checkpoint. "small" and
    "small_none" are the codecs that ship; "hf:NAME" is a model of the Hugging Face hub.

    bandwidth: kbit/s, one of the codec's: with fewer codebooks than all. dtype: of the
    convolutions, float32 or bfloat16; default what the config says.

    Raises UserError, one line that names the path and what was expected.
    """
    folder, step = folders.locate(path), 0
    config = read_config(folder)
    if "model_type" in config:
        config, variables = encodec.read(folder)
        config["origin"] = folders.origin(path, folder)
    else:
        step, state = checkpoints.restore_latest(folder, only=("ema", "collections"))
        variables = dict(params=state["ema"], codebook=state["collections"]["codebook"])
        if not np.any(variables["codebook"]["count"]):
            raise UserError(
                f"{path}: step {step} is within the warm-up: there are no codebooks yet"
            )
    codec = from_config(config, variables, dtype, step, model_name(path))
    return codec if bandwidth is None else at_bandwidth(codec, bandwidth)


def at_bandwidth(codec: LoadedCodec, bandwidth: float) -> LoadedCodec:
    """Return a codec with the leading codebooks alone that make `bandwidth` kbit/s.

    Raises UserError where the codec has no such bandwidth.
    """
    possible = codec.bandwidths
    lower = [each for each in possible if each <= bandwidth * (1 + 1e-9)]  # as it is printed
    if not lower or not math.isclose(lower[-1], bandwidth):
        raise UserError(f"{codec.label}: bandwidth must be one of {possible}, not {bandwidth}")
    fewer = encodec.codebooks_at(codec.config, lower[-1])
    quantizer = codec.config["quantizer"] | dict(codebooks=fewer, bandwidths=lower)
    codebook = jax.tree.map(lambda x: x[:fewer], codec.variables["codebook"])
    return from_config(
        {**codec.config, "quantizer": quantizer},
        {**codec.variables, "codebook": codebook},
        str(codec.module.dtype),
        codec.step,
        codec.label,
    )


def load_codec_of(path: str | Path, codebooks: int) -> LoadedCodec | PairedCodec:
    """Return the codec of tokens of so many codebooks.

    At the bandwidth that has as many; of one channel's codes, where there are twice as many, it is
    one for each of two. The codec as it is where neither holds. Raises UserError as `load_codec`.
    """
    codec = load_codec(path)
    for bandwidth in codec.bandwidths[:-1]:
        if encodec.codebooks_at(codec.config, bandwidth) == codebooks:
            return at_bandwidth(codec, bandwidth)
    if codebooks == 2 * codec.codebooks and codec.channels == 1:
        return PairedCodec(codec)
    return codec


def load_tokenizer(spec: str, *, bandwidth: float | None = None) -> Tokenizer:
    """Return the tokenizer of "transformers:KIND:PATH" (hub/tokenizers.py), else `load_codec(spec)`.

    Raises UserError as they do, and for a bandwidth of the former.
    """
    if not spec.startswith("transformers:"):
        return load_codec(spec, bandwidth=bandwidth)
    if bandwidth is not None:
        raise UserError(f"{spec}: expected no bandwidth, which is of a codec of ours")
    return tokenizers.load(spec)


def load_lm(
    path: str | Path, *, codec: str | Path | None = None, dtype: str | None = None
) -> LoadedLM:
    """Return the language model of a workdir of indep_jax.train, or of a Hugging Face MusicGen folder, with
    its codec and its text encoder.

    A workdir gives the moving average of the weights at its last checkpoint. "hf:NAME" is a model of
    the Hugging Face hub. codec: a path, where the run's config names none or one that has moved, or
    in place of the folder's own. dtype: float32 or bfloat16, of weights and computation; by default
    the weights are as stored, and the computation is what the config says.

    Raises UserError, one line that names the path and what was expected.
    """
    folder, step = folders.locate(path), 0
    config = read_config(folder, "lm")
    if "model_type" in config:
        whole = config["model_type"] == "musicgen"
        codec = codec or (folder if whole else None)
        text = dict(encoder=str(folder) if whole else "", max_tokens=64)
        config, variables = musicgen.read(folder)
        config |= dict(text=text, origin=folders.origin(path, folder))
        params = variables["params"]
    else:
        codec, text = codec or config["codec"], config["text"]
        step, state = checkpoints.restore_latest(folder, only=("ema",))
        params = state["ema"]
    if not codec:
        raise UserError(f"{path}: names no codec: say which one made its tokens")
    loaded = load_codec_of(codec, config["model"]["codebooks"])
    for name in ("codebooks", "codebook_size"):
        if getattr(loaded, name) != config["model"][name]:
            raise UserError(
                f"{codec}: has {getattr(loaded, name)} {name}, and {path} was trained "
                f"on {config['model'][name]}"
            )
    if not loaded.module.codes_suffice:
        raise UserError(f"{codec}: works in chunks or with levels, which {path} does not predict")
    made_by = config.get("data", {}).get("codec")
    if made_by and made_by != loaded.fingerprint:
        raise UserError(
            f"{codec}: is codec {loaded.fingerprint}, and {path} was trained on the tokens "
            f"of {made_by}"
        )
    if "data" not in config:
        seconds = musicgen.read_frames(folder) / loaded.frame_rate
        config["data"] = dict(segment_seconds=seconds)
    encoder = load_text(text["encoder"], text["max_tokens"]) if text["encoder"] else None
    return LoadedLM(config, params, loaded, encoder, step, dtype)


def read_config(path: Path, task: str = "codec") -> dict:
    """Return the config of a workdir or Hugging Face folder.

    Raises UserError where there is none of a `task`, "codec" or "lm".
    """
    kind = dict(codec="EnCodec", lm="MusicGen")[task]
    expected = f"expected a workdir of indep_jax.train or a Hugging Face {kind} folder"
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; {expected}")
    if not (path / "config.json").is_file():
        raise UserError(f"{path}: has no config.json; {expected}")
    try:
        config = json.loads((path / "config.json").read_text())
    except ValueError as error:
        raise UserError(f"{path / 'config.json'}: not JSON ({error})") from None
    if not isinstance(config, dict) or not (config.get("task") == task or "model_type" in config):
        what = dict(codec="codec", lm="language model")[task]
        raise UserError(f"{path / 'config.json'}: describes no {what}; {expected}")
    return config
