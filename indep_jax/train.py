"""Trains a codec or a language model, from a config, in a folder that holds all about the run.

  python -m indep_jax.train --config=encodec_small \\
      --config.data.source=folder:PATH --workdir=DIR [--config.FIELD=VALUE ...]
  python -m indep_jax.train --config=lm_small --config.codec=CODEC \\
      --config.data.source=tokens:TOKENS --workdir=DIR [--config.FIELD=VALUE ...]

The same command again goes on where the run was, to the same numbers; SIGTERM and Ctrl-C save
first, and end with exit code 128 + the signal's number. The workdir gets
config.json, checkpoints/, metrics.jsonl, TensorBoard events, and audio/ and figures/ of every
evaluation. --config.init_from=OTHER_WORKDIR starts from another run's whole state.

On several machines the same command runs on each, with a workdir that all of them see and
--coordinator=auto where the cluster tells who is who (TPU pods, SLURM, Open MPI), else
--coordinator=HOST:PORT of the first with --processes=N --process=0 to N - 1.
"""

import os
import sys
from pathlib import Path

from absl import flags

from indep_jax import inference
from indep_jax.data import tokens
from indep_jax.hub import encodec, folders, musicgen
from indep_jax.support import command, configs
from indep_jax.support.errors import UserError
from indep_jax.tasks.codec import CodecTask
from indep_jax.tasks.lm import LMTask
from indep_jax.training import checkpoints, loop, processes


def train(config, workdir: str | os.PathLike, *, max_step: int | None = None):
    """Trains the task of `config` in `workdir`; returns the final state.

    Raises UserError, one line, for a config or a workdir that cannot be.
    """
    return loop.run(build(config), config, workdir, max_step=max_step)


def build(config) -> loop.Task:
    """The task of a config, its data open; completes an LM's config by what its files say."""
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


def pretrained_codec(config):
    """What reads the weights that a codec's config starts from; None for random ones.

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


def pretrained_lm(config):
    """The same for a language model, whose weights are placed as an argument says, and whose text
    encoder is that of the folder where the config names none."""
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


def main():
    options = flags.FLAGS
    for name in ("config", "workdir"):
        if not options[name].value:
            raise UserError(f"--{name} is required; --help says how")
    processes.join(options.coordinator, options.processes, options.process)
    try:
        train(options.config, options.workdir, max_step=options.max_step)
    except (processes.Stopped, loop.NonFiniteLoss, loop.OutOfMemory) as end:
        print(f"indep_jax.train: {end}", file=sys.stderr)
        sys.exit(128 + end.signal if isinstance(end, processes.Stopped) else 1)


if __name__ == "__main__":
    configs.define_flag()
    flags.DEFINE_string("workdir", None, "Folder of the run; made when it is missing.")
    flags.DEFINE_integer(
        "max_step",
        None,
        "Stop after this step, saved, as if interrupted: a common start for the arms of a "
        "comparison.",
    )
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of the first of several processes, or auto."
    )
    flags.DEFINE_integer("processes", None, "How many there are, unless auto.", lower_bound=1)
    flags.DEFINE_integer("process", None, "Which this one is, from 0.", lower_bound=0)
    command.run(main)
