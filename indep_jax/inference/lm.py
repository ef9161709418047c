"""Language models with their weights, codec and text encoder, by path."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.hub import folders, musicgen
from indep_jax.inference.codec import LoadedCodec, PairedCodec, load_codec_of, read_config
from indep_jax.inference.text import load_text
from indep_jax.lm import model, sampling
from indep_jax.support.errors import UserError
from indep_jax.training import checkpoints


class LoadedLM:
    """A language model with its weights, its codec, and the encoder of its texts.

    config: plain data, that of its run; `origin`, where its first weights come from, if they were
        not random. codec: a LoadedCodec or PairedCodec. encoder: a Conditioner, or None for a model
        without text. step: of the run that it was trained in; 0 for none.
    """

    def __init__(
        self, config: Mapping, params, codec: LoadedCodec | PairedCodec, encoder, step=0,
        dtype: str | None = None,
    ):  # fmt: skip
        self.config, self.codec, self.encoder, self.step = config, codec, encoder, step
        self.model = model.from_config(config["model"], dtype or config["dtype"])
        self.variables = dict(params=jax.tree.map(lambda x: jnp.asarray(x, dtype), params))

    def generate(self, texts: Sequence[str] | None, seconds: float, **options) -> jax.Array:
        """Waveforms [batch, time, channels] of texts; see `stream` for the options."""
        codes = np.concatenate(list(self.stream(texts, seconds, **options)), axis=1)
        return self.codec.decode(codes)

    def stream(
        self,
        texts: Sequence[str] | None,
        seconds: float,
        *,
        seed: int = 0,
        examples: Sequence[int] | None = None,
        prompt=None,
        guidance: float = 3.0,
        chunk_seconds: float | None = None,
        **options,
    ) -> Iterator[np.ndarray]:
        """Codes of music to texts, in blocks int32 [batch, frames, codebooks], as they come.

        texts: one for each item; None for one item without text.
        examples: a number for each item, 0, 1, ... by default: what an item becomes is a function of
            (seed, its number, its text and prompt), whatever else is in the batch.
        prompt: codes [batch, frames, codebooks] that the result begins with.
        guidance: by the texts; without any there is none. chunk_seconds: between blocks; None for as
            long as the model sees at once. options: temperature, top_k, top_p (lm/sampling.py).

        More than the model was trained on is generated in windows that overlap by half. Raises
        UserError, one line, for texts where the model has none, and for what does not fit.
        """
        rate = self.codec.frame_rate
        text = {}
        if texts is not None:
            if self.encoder is None:
                raise UserError("texts: this model was trained without")
            states, mask = self.encoder(texts)
            text = dict(text=states, text_mask=mask, guidance=guidance)
        frames = max(1, round(seconds * rate))
        window = min(frames, round(self.config["data"]["segment_seconds"] * rate))
        return sampling.stream(
            self.model,
            self.variables,
            frames,
            seed=seed,
            examples=np.arange(1 if texts is None else len(texts))
            if examples is None
            else examples,
            prompt=prompt,
            window=window,
            overlap=window // 2,
            chunk=None if chunk_seconds is None else max(1, round(chunk_seconds * rate)),
            **text,
            **options,
        )


def load_lm(
    path: str | Path, *, codec: str | Path | None = None, dtype: str | None = None
) -> LoadedLM:
    """The language model of a workdir of indep_jax.train, or of a Hugging Face MusicGen folder, with
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
