"""From a config to the task that it describes, its data open and its weights found."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from indep_jax import inference
from indep_jax.data import tokens
from indep_jax.hub import encodec, folders, musicgen
from indep_jax.inference import load
from indep_jax.support.errors import UserError
from indep_jax.tasks.codec import CodecTask
from indep_jax.tasks.lm import LMTask
from indep_jax.training import checkpoints, loop, sharding


def build(config: ml_collections.ConfigDict) -> loop.Task:
    """Return the task of a config, its data open; complete the config by what its files say.

    Raises UserError, one line that names the field or the file, for a config that cannot be.
    """
    if not config.data.source:
        raise UserError(
            "data.source is empty: give --config.data.source=folder:PATH, "
            "array_record:GLOB or sample:, or tokens:PATH for a language model"
        )
    _inherit_origin(config)
    if config.task == "codec":
        return CodecTask(config, pretrained_codec(config)).open()
    if config.task != "lm":
        raise UserError(f"task must be 'codec' or 'lm', not {config.task!r}")
    begin = pretrained_lm(config)
    text, encoder, codec = config.text, None, None
    if text.encoder:
        encoder = inference.load_text(text.encoder, text.max_tokens)
    store = tokens.read_info(config.data.source.removeprefix("tokens:"))
    start = checkpoints.read_config(config.init_from) if config.init_from else None
    for made_by in (config.data.codec, start and start["data"]["codec"]):
        if made_by and made_by != store["codec"]:
            raise UserError(
                f"{config.data.source}: made by codec {store['codec']}, and this model "
                f"reads the tokens of {made_by}"
            )
    if config.codec:
        codec = inference.load_codec_of(config.codec, store["codebooks"])
    width = encoder.dim if encoder else 0
    if begin and width != config.model.text_dim:
        raise UserError(
            f"text.encoder {text.encoder}: has states of {width} numbers, and "
            f"{config.pretrained} reads {config.model.text_dim}"
        )
    config.model.text_dim = width
    task = LMTask(config, begin)
    config.data.codec = store["codec"]
    return task.open(codec, encoder)


def untrained(config: Mapping[str, Any]) -> inference.LoadedCodec:
    """Return the codec of a run as it was before training: the run's own weights, keys and batches.

    Its codebooks are fitted, as the run does where quantization begins, to the latents that these
    weights give. Of a run that began with pretrained weights it is the codec that has those.

    config: of the run, what its config.json holds; its music must be where data.source says.
    Raises UserError, one line, where it is not.
    """
    config = ml_collections.ConfigDict(config)
    task = build(config)
    mesh = sharding.make_mesh(config.get("mesh"))

    def read(index: int):
        return sharding.shard_batch(task.dataset[index], mesh)

    key = jax.random.fold_in(jax.random.key(config.seed), loop.INIT)
    state = jax.jit(task.init)(key, read(0))
    state = task.before_step(config.quantizer.warmup_steps, state, read)
    variables = dict(params=state.ema, codebook=state.collections["codebook"])
    return load.from_config(config.to_dict(), variables, label="untrained")


def pretrained_codec(config: ml_collections.ConfigDict) -> Callable[[], Mapping] | None:
    """Return what reads the weights that a codec's config starts from; None for random ones.

    Completes the config by what their folder says: the model, and the origin of the weights.
    """
    if "pretrained" not in config:
        return None
    folder = _start_from(config, "an EnCodec")
    found = encodec.read_config(folder)
    with config.unlocked():
        config.model.update(found["model"])
        config.quantizer.update(found["quantizer"])
    return lambda: encodec.read(folder)[1]


def pretrained_lm(config: ml_collections.ConfigDict) -> Callable[[Mapping], Mapping] | None:
    """Return the same for a language model, whose weights are placed as an argument says.

    Its text encoder is that of the folder where the config names none.
    """
    if "pretrained" not in config:
        return None
    folder = _start_from(config, "a MusicGen")
    found = musicgen.read_config(folder)["model"]
    with config.unlocked():
        config.model.update({name: found[name] for name in found if name not in ("depth", "remat")})
    config.text.encoder = config.text.encoder or config.pretrained
    return lambda shardings: musicgen.read(folder, shardings)[1]


def _start_from(config, what: str) -> Path:
    """The folder of config.pretrained; the config gets its origin."""
    if not config.pretrained:
        raise UserError(
            f"pretrained is empty: give --config.pretrained=PATH, the Hugging Face folder of {what}, "
            "or hf:NAME"
        )
    folder = folders.locate(config.pretrained)
    with config.unlocked():
        config.origin = folders.origin(config.pretrained, folder)
    return folder


def _inherit_origin(config) -> None:
    """A run that starts from another has weights of the same origin."""
    stored = checkpoints.read_config(config.init_from) if config.init_from else None
    if stored and "origin" in stored:
        with config.unlocked():
            config.origin = stored["origin"]
