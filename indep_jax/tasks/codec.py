"""Training EnCodec: adversarial reconstruction, and codebooks pushed towards independence."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from indep_jax import data
from indep_jax.codec import quantizer
from indep_jax.evaluation import reconstruction
from indep_jax.independence import loss as independence
from indep_jax.report.figures import spectrograms
from indep_jax.support.errors import UserError
from indep_jax.tasks import codec_steps as steps
from indep_jax.tasks import losses
from indep_jax.training import sharding
from indep_jax.training.loop import Evaluation
from indep_jax.training.state import State


class CodecTask:
    """The codec's training run: see training.loop.Task for what the loop asks of it.

    The steps and their state are those of tasks/codec_steps.py.

    config: an ml_collections ConfigDict with the fields of configs/encodec_32khz.py.
    pretrained: gives the variables {params, codebook} that a new run starts from in place of random
        ones; called once, before the first step.

    Raises UserError, one line that names the field, for a config that no run can have.
    """

    placement = ()
    memory_remedy = "lower batch_size, data.segment_seconds or loss.independence.macro_batch"
    # Training batches by index: dict(audio [batch, time, channels], file [batch]).
    dataset: grain.MapDataset  # set by `open`

    def __init__(self, config: Any, pretrained: Callable[[], Mapping] | None = None):
        _check(config, pretrained is not None)
        self.config, self.pretrained = config, pretrained
        self.seconds_per_batch = config.batch_size * config.data.segment_seconds
        self.programs = {name: partial(program, config) for name, program in steps.PROGRAMS.items()}
        self._reconstruct = jax.jit(partial(steps.reconstruct, config), static_argnames="quantized")

    def open(self) -> "CodecTask":
        """Open the audio source; apart from the constructor so that a model needs no data."""
        config = self.config
        shape = dict(sample_rate=config.model.sample_rate, channels=config.model.channels)
        number, slices = sharding.slice_of_rows(sharding.make_mesh(config.get("mesh")))
        self.dataset = data.segments(
            data.open_source(config.data.source, "train", config.data.max_unreadable),
            max_unreadable=config.data.max_unreadable,
            seed=config.seed,
            batch_size=config.batch_size,
            seconds=config.data.segment_seconds,
            slice_number=number,
            slices=slices,
            **shape,
        )
        self._held_out = data.excerpts(
            data.open_source(config.data.source, "valid"),
            seconds=config.evaluate_seconds,
            items=config.evaluate_items,
            **shape,
        )
        return self

    def init(self, rng: jax.Array, batch: Mapping[str, jax.Array]) -> State:
        """Return the first state, with random weights and empty codebooks."""
        return steps.init(self.config, rng, batch)

    def plan(self, step: int) -> tuple[str, int]:
        """Return the program of a step, and how many batches it sees."""
        return steps.plan(self.config, step)

    def before_step(self, step: int, state: State, read: Callable[[int], Mapping]) -> State:
        """Put in pretrained weights, or fit the codebooks by k-means where quantization begins."""
        if self.pretrained is not None:
            return state if step else steps.start_from(self.config, state, self.pretrained())
        settings = self.config.quantizer
        if step != settings.warmup_steps:
            return state
        audio = jnp.concatenate([read(step + i)["audio"] for i in range(settings.kmeans_batches)])
        key = jax.random.fold_in(jax.random.key(self.config.seed), step)
        fit = jax.jit(partial(steps.initial_codebook, self.config))
        return steps.begin_quantization(state, fit(state.params["generator"], audio, key))

    def evaluate(self, state: State) -> Evaluation:
        """Reconstruct held-out excerpts with the averaged weights."""
        audio = self._held_out["audio"]
        quantized = int(state.step) > self.config.quantizer.warmup_steps
        variables = dict(params=state.ema, codebook=state.collections["codebook"])
        decoded, codes = zip(
            *(self._reconstruct(variables, item[None], quantized=quantized) for item in audio)
        )
        decoded = np.concatenate(decoded)[:, : audio.shape[1]]
        rate = self.config.model.sample_rate
        first = np.moveaxis(audio, -1, 1).reshape(-1, audio.shape[1])
        second = np.moveaxis(decoded, -1, 1).reshape(first.shape)
        scalars = dict(
            # Silent excerpts have no ratio.
            si_snr_db=float(np.nanmedian(reconstruction.si_snr(first, second))),
            mel_distance=float(np.mean(reconstruction.mel_distance(first, second, rate))),
        )
        if quantized:
            size = self.config.quantizer.codebook_size
            perplexity = quantizer.perplexity(jnp.concatenate(codes), size)
            scalars |= {f"perplexity_{k}": float(p) for k, p in enumerate(perplexity)}
        sounds = {}
        for i in range(min(4, len(audio))):
            sounds[f"{i}_original"] = (audio[i], rate)
            sounds[f"{i}_reconstruction"] = (decoded[i], rate)
        figure = spectrograms([(name, *sound) for name, sound in sounds.items()])
        return Evaluation(scalars, sounds, dict(mel=figure))


def _check(config, pretrained: bool):
    """Raise UserError, one line that names the field, for what no run can have."""
    settings = config.quantizer
    if config.model.get("normalize") or config.model.get("chunk_seconds"):
        raise UserError("model.normalize, model.chunk_seconds: such a codec cannot be trained here")
    trainable = config.optimizer.get("trainable", "all")
    if trainable not in ("all", "encoder"):
        raise UserError(f"optimizer.trainable must be 'all' or 'encoder', not {trainable!r}")
    if pretrained and settings.warmup_steps:
        raise UserError(
            f"quantizer.warmup_steps must be 0 with pretrained weights, not {settings.warmup_steps}"
        )
    judge = config.discriminator
    if judge.filters < 1 or not judge.n_ffts or any(n < 4 or n % 4 for n in judge.n_ffts):
        raise UserError(
            "discriminator.filters must be at least 1, and discriminator.n_ffts some multiples of 4, "
            f"not {judge.filters} and {tuple(judge.n_ffts)}"
        )
    if len(config.optimizer.betas) != 2:
        raise UserError(f"optimizer.betas must be two numbers, not {tuple(config.optimizer.betas)}")
    independence.check(config.loss.independence, losses.KINDS)
    if settings.kmeans_batches < 1:
        raise UserError("quantizer.kmeans_batches must be at least 1")
    if config.optimizer.schedule not in ("constant", "cosine"):
        raise UserError(
            f"optimizer.schedule must be 'constant' or 'cosine', not {config.optimizer.schedule!r}"
        )
    if config.optimizer.schedule == "cosine" and config.optimizer.warmup_steps >= config.steps:
        raise UserError(
            f"optimizer.warmup_steps {config.optimizer.warmup_steps} must be below steps, "
            f"{config.steps}"
        )
    rows = settings.kmeans_batches * steps.even_count(config) * settings.codebook_size
    if not pretrained and 0 < rows < settings.codebook_size:
        raise UserError(
            f"quantizer.codebook_size {settings.codebook_size} is more than the {round(rows)} "
            "latents of quantizer.kmeans_batches, to which k-means fits the codebooks"
        )
