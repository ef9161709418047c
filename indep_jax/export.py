"""A codec or a language model as a Hugging Face folder, for transformers and whatever reads that.

    python -m indep_jax.export --codec=DIR --output=DIR
    python -m indep_jax.export --lm=DIR --output=DIR

DIR is a workdir of indep_jax.train (its averaged weights), or a Hugging Face folder. The folder that
is made gives the same codes and the same sound in transformers' EncodecModel.from_pretrained, or the
same logits in MusicgenForConditionalGeneration.from_pretrained: with the codec, the text encoder and
its tokenizer, whole for pipeline("text-to-audio"). Its README.md says where the weights come from,
and carries on the licence of those that they started from.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from indep_jax.hub import folders
from indep_jax.support import command
from indep_jax.support.errors import UserError

_CODEC_EXAMPLE = """```python
from transformers import EncodecModel

model = EncodecModel.from_pretrained("PATH")
encoded = model.encode(wave, bandwidth={bandwidth!r})  # [batch, {channels}, time] at {rate} Hz
```"""
_LM_EXAMPLE = """```python
from transformers import pipeline

music = pipeline("text-to-audio", "PATH")("slow piano")  # dict(audio, sampling_rate)
```"""


class Content(NamedTuple):
    """What a Hugging Face folder holds: see hub.folders.write."""

    configs: dict[str, dict]
    tensors: dict[str, np.ndarray]
    card: str
    files: list[Path] = []


def codec_content(path: str) -> Content:
    """A codec's folder. Raises UserError, one line, for what transformers has no form of."""
    from indep_jax import inference
    from indep_jax.hub import encodec

    codec = inference.load_codec(path)
    bandwidth = codec.bandwidths[-1]
    example = _CODEC_EXAMPLE.format(
        bandwidth=bandwidth, channels=codec.channels, rate=codec.sample_rate
    )
    about = f"{_about(codec)}: {bandwidth:g} kbit/s."
    title = f"EnCodec, {codec.sample_rate / 1000:g} kHz"
    card = folders.card(title, [about, example], [_codec_part(codec)])
    return Content(*encodec.to_hub(codec.config, codec.variables), card)


def lm_content(path: str, codec: str | None = None) -> Content:
    """A language model's folder, with its codec and its text encoder.

    codec: see inference.load_lm. Raises UserError, one line, for what transformers has no form of.
    """
    from indep_jax import inference
    from indep_jax.hub import musicgen

    lm = inference.load_lm(path, codec=codec)
    model, text = lm.config["model"], lm.config["text"]["encoder"]
    musicgen.config_to_hub(model)  # says what it has no form of, before a text encoder is missed
    if not text:
        raise UserError(f"{path}: has no text encoder, which transformers' MusicGen needs")
    mono = getattr(lm.codec, "mono", lm.codec)
    frames = round(lm.config["data"]["segment_seconds"] * lm.codec.frame_rate)
    folder = inference.text_folder(text)
    configs, tensors, files = musicgen.to_hub(
        model, lm.variables, (mono.config, mono.variables), folder, frames
    )
    about = (
        f"A language model of {model['layers']} layers of {model['dim']} that writes music to texts, "
        f"as codes of an EnCodec: {_about(lm.codec)}, pattern {model['pattern']}."
    )
    history = f"They were trained for {lm.step} steps." if lm.step else ""
    parts = [
        folders.Part("language model", lm.config.get("origin"), history),
        _codec_part(mono),
        folders.Part("text encoder", folders.origin(text, folder), ""),
    ]
    title = f"MusicGen, {lm.codec.sample_rate / 1000:g} kHz"
    return Content(configs, tensors, folders.card(title, [about, _LM_EXAMPLE], parts), files)


def _codec_part(codec) -> folders.Part:
    history = ""
    if codec.step:
        kind = codec.config["loss"]["independence"]["kind"]
        term = "no independence loss" if kind == "none" else f"the independence loss {kind}"
        history = f"They were trained for {codec.step} steps with {term}."
    return folders.Part("codec", codec.config.get("origin"), history)


def _about(codec) -> str:
    sound = {1: "mono", 2: "stereo"}.get(codec.channels)
    return (
        f"{codec.sample_rate} Hz {sound}, {codec.frame_rate:g} frames a second of {codec.codebooks} "
        f"codes out of {codec.codebook_size}"
    )


def main() -> None:
    options = flags.FLAGS
    if not (options.codec or options.lm):
        raise UserError("expected --codec, or --lm")
    output = Path(options.output)
    folders.check_absent(output)

    import jax.numpy as jnp

    content = lm_content(options.lm, options.codec) if options.lm else codec_content(options.codec)
    dtype = jnp.dtype(options.dtype)
    tensors = {name: x.astype(dtype, copy=False) for name, x in content.tensors.items()}
    folders.write(output, *content._replace(tensors=tensors))
    size = sum(tensor.nbytes for tensor in tensors.values())
    print(f"{output}: {len(tensors)} tensors, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    flags.DEFINE_string(
        "codec",
        None,
        "Workdir of indep_jax.train, Hugging Face folder, hf:NAME, or a model that ships, such as "
        "small; with --lm that of its tokens, where it names none.",
    )
    flags.DEFINE_string("lm", None, "Workdir, Hugging Face folder or hf:NAME of a language model.")
    flags.DEFINE_enum(
        "dtype",
        "float32",
        ["float32", "bfloat16"],
        "Of the weights as they are stored; config.json asks for float32 to compute.",
    )
    flags.DEFINE_string("output", None, "Folder to make.", required=True)
    command.run(main)
