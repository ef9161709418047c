"""A language model with its weights, codec and text encoder: texts to music."""

from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.inference.codec import LoadedCodec
from indep_jax.inference.stereo import PairedCodec
from indep_jax.lm import model, sampling
from indep_jax.support.errors import UserError


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
        """Return waveforms [batch, time, channels] of texts; see `stream` for the options."""
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
        """Yield codes of music to texts, in blocks int32 [batch, frames, codebooks], as they come.

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
