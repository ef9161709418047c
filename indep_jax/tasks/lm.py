"""Training a language model of codes, text-conditioned or not."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import PartitionSpec
from orbax.checkpoint import multihost

from indep_jax import data
from indep_jax.data import tokens
from indep_jax.lm import model as lm
from indep_jax.lm import sampling
from indep_jax.report.figures import spectrograms
from indep_jax.support.errors import UserError
from indep_jax.tasks import lm_steps as steps
from indep_jax.text import conditioner
from indep_jax.training import sharding
from indep_jax.training.loop import Evaluation
from indep_jax.training.state import State

_DAY_MS = 24 * 3600 * 1000


class LMTask:
    """The language model's training run: see training.loop.Task for what the loop asks of it.

    The step and its state are those of tasks/lm_steps.py.

    config: an ml_collections ConfigDict with the fields of configs/musicgen.py.
    pretrained: of shardings as the variables {params}, the variables that a new run starts from in
        place of random ones.

    Raises UserError, one line that names the field, for a config that no run can have.
    """

    memory_remedy = (
        "set model.remat, raise optimizer.accumulate, or lower batch_size or data.segment_seconds"
    )
    # Training batches by index: dict(codes [batch, frames, codebooks], record [batch]), and with
    # text its states [batch, tokens, dim] and mask [batch, tokens].
    dataset: grain.MapDataset  # set by `open`

    def __init__(self, config: Any, pretrained: Callable[[Mapping], Mapping] | None = None):
        _check(config)
        self.config, self.pretrained = config, pretrained
        self.model = lm.from_config(config.model, config.dtype)
        self.placement = [(pattern, PartitionSpec(*axes)) for pattern, axes in config.placement]
        self.seconds_per_batch = config.batch_size * config.data.segment_seconds
        self.programs = {name: partial(program, config) for name, program in steps.PROGRAMS.items()}
        self._nats = jax.jit(partial(steps.nats, config))

    def open(self, codec=None, encoder: conditioner.Conditioner | None = None) -> "LMTask":
        """Open the token store.

        Args:
          codec: made the tokens; with it, evaluations write what the model generates as audio.
          encoder: of the captions; config.text.encoder says which, so that a run is complete.

        Raises UserError, one line, for tokens of another codec, or of other sizes than the model's.
        """
        config = self.config
        path = config.data.source.removeprefix("tokens:")
        store = tokens.Store(path)
        for name in ("codebooks", "codebook_size"):
            if store.info[name] != config.model[name]:
                raise UserError(
                    f"model.{name} is {config.model[name]}, and the tokens in {path} "
                    f"have {store.info[name]}"
                )
        fingerprint = config.data.codec if codec is None else codec.fingerprint
        if fingerprint and store.info["codec"] != fingerprint:
            raise UserError(
                f"the tokens in {path} are of codec {store.info['codec']}, and codec "
                f"{config.codec} is {fingerprint}"
            )
        if codec is not None and not codec.module.codes_suffice:
            raise UserError(
                f"codec {config.codec} works in chunks or with levels, which no language "
                "model of codes predicts: expected one that does not, or none"
            )
        self._codec, self._frame_rate = codec, store.info["frame_rate"]
        self._frames = round(config.data.segment_seconds * self._frame_rate)
        number, slices = sharding.slice_of_rows(sharding.make_mesh(config.get("mesh")))
        self.dataset = data.token_segments(
            store,
            "train",
            seed=config.seed,
            batch_size=config.batch_size,
            frames=self._frames,
            slice_number=number,
            slices=slices,
        )
        # The same segments at every evaluation, whatever the training's seed, and in every process.
        self._held_out = data.token_segments(
            store, "valid", seed=0, batch_size=config.evaluate_items, frames=self._frames
        )
        self._texts = None
        if encoder is not None:
            captions = [entry["caption"] for entry in store.entries]
            folder = f"{path}/text-{encoder.fingerprint}"
            if jax.process_index() == 0:
                conditioner.store(folder, captions, encoder)
            if jax.process_count() > 1:
                # Not sync_global_devices: on CPU the others' collective gives up after 30 s.
                wait = multihost.get_barrier_sync_fn()
                wait(key=f"captions stored in {folder}", timeout_ms=_DAY_MS)
            self._texts = conditioner.Stored(folder)
            add = partial(_add_text, captions, self._texts)
            self.dataset, self._held_out = self.dataset.map(add), self._held_out.map(add)
        return self

    def init(self, rng: jax.Array, batch: Mapping[str, jax.Array]) -> State:
        """Return the first state, with random weights."""
        del batch
        return steps.init(self.config, rng)

    def plan(self, step: int) -> tuple[str, int]:
        """Return the program of a step, and how many batches it sees."""
        del step
        return "lm", 1

    def before_step(self, step: int, state: State, read: Callable[[int], Mapping]) -> State:
        """Put in pretrained weights."""
        del read
        if step or self.pretrained is None:
            return state
        shardings = jax.tree.map(lambda x: x.sharding, dict(params=state.params))
        return steps.start_from(state, self.pretrained(shardings)["params"])

    def evaluate(self, state: State) -> Evaluation:
        """Measure held-out cross-entropy with the averaged weights, and sample audio."""
        batch = self._held_out[0]
        rows = range(0, self.config.evaluate_items, self.config.batch_size)
        parts = [jax.tree.map(lambda x: x[i : i + self.config.batch_size], batch) for i in rows]
        counts = steps.counts(batch["codes"])
        nats = sum(np.asarray(self._nats(state.ema, part)) for part in parts) / counts
        scalars = {f"cross_entropy_{k}_bits": float(n / np.log(2)) for k, n in enumerate(nats)}
        scalars["bits_per_frame"] = float(lm.bits_per_frame(nats))
        if self._codec is None or not self.config.samples:
            return Evaluation(scalars)
        return Evaluation(scalars, *self._samples(state.ema, batch))

    def _samples(self, params, batch):
        """Sounds and a figure of generated music, of the captions of held-out segments."""
        config = self.config
        count = min(config.samples, config.evaluate_items)
        text = {}
        if self._texts is not None:
            text = dict(
                text=batch["text"][:count],
                text_mask=batch["text_mask"][:count],
                guidance=config.guidance,
            )
        codes = sampling.generate(
            self.model, dict(params=params), round(config.sample_seconds * self._frame_rate),
            seed=config.seed, examples=np.arange(count), window=self._frames,
            overlap=self._frames // 2, **text,
        )  # fmt: skip
        waves = [np.asarray(self._codec.decode(item[None]))[0] for item in codes]
        rate = self._codec.sample_rate
        sounds = {f"{i}_generated": (wave, rate) for i, wave in enumerate(waves)}
        return sounds, dict(mel=spectrograms([(name, *sound) for name, sound in sounds.items()]))


def _add_text(captions, texts, batch):
    states, mask = texts([captions[record] for record in batch["record"]])
    return batch | dict(text=states, text_mask=mask)


def _check(config):
    """Raise UserError, one line that names the field, for what no run can have."""
    settings = config.optimizer
    if not config.data.source.startswith("tokens:"):
        raise UserError(
            f"data.source must be tokens:PATH, what indep_jax.encode wrote, not "
            f"{config.data.source!r}"
        )
    if settings.accumulate < 1 or config.batch_size % settings.accumulate:
        raise UserError(
            f"optimizer.accumulate {settings.accumulate} must divide batch_size {config.batch_size}"
        )
    if not 0 <= settings.warmup_steps < config.steps:
        raise UserError(
            f"optimizer.warmup_steps {settings.warmup_steps} must be below steps, {config.steps}"
        )
    if not 0 <= config.text.dropout <= 1:
        raise UserError(f"text.dropout must be between 0 and 1, not {config.text.dropout}")
    if bool(config.text.encoder) != bool(config.model.get("text_dim")):
        raise UserError("model.text_dim and text.encoder go together; train.py sets the first")
