"""Training EnCodec: adversarial reconstruction, and codebooks pushed towards independence."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from indep_jax import data, independence
from indep_jax.codec import balancer, discriminator, model, quantizer
from indep_jax.evaluation import reconstruction
from indep_jax.report.figures import spectrograms
from indep_jax.signal import losses
from indep_jax.support.errors import UserError
from indep_jax.training import sharding
from indep_jax.training.loop import Evaluation

LOSSES = ("none", "permutation", "dhsic", "covariance")


class Generated(NamedTuple):
    """What one pass of the generator gives to the losses."""

    audio: jax.Array  # [batch, time, channels], the reconstruction
    commitment: jax.Array
    streams: jax.Array | None  # [batch, frames, codebooks, dim], for the independence loss


class CodecTask:
    """The codec's training run: see training.loop.Task for what the loop asks of it.

    State: step; params {generator, discriminator}; collections {codebook, balancer}; opt_state
    {generator, discriminator}; ema, the moving average of the generator's params.

    A run has up to four programs. `autoencoder` (quantizer.warmup_steps of them, none in the
    published recipe): reconstruction losses alone, no quantizer, no discriminator. `discriminator`
    (then discriminator.warmup_steps): the codec stays as it is. `codec`: the whole recipe.
    `codec_joined`: the same where the independence loss joins the streams of several training
    batches (Lemercier et al. 2024, the macro-batch).

    pretrained: gives the variables (params, codebook) that a new run starts from in place of random
        ones; called once, before the first step.
    """

    placement = ()
    memory_remedy = "lower batch_size, data.segment_seconds or loss.independence.macro_batch"

    def __init__(self, config, pretrained: Callable[[], Mapping] | None = None):
        _check(config, pretrained is not None)
        self.config = config
        self._pretrained = pretrained
        # The step of the first whole recipe.
        alone = config.discriminator.get("warmup_steps", 0)
        self._begin = config.quantizer.warmup_steps + alone
        self._fixed_decoder = config.optimizer.get("trainable", "all") == "encoder"
        self.codec = model.from_config(
            config.model, config.quantizer.codebooks, config.quantizer.codebook_size, config.dtype
        )
        self.discriminator = discriminator.Discriminator(
            config.discriminator.filters,
            tuple(config.discriminator.n_ffts),
            jnp.dtype(config.dtype),
        )
        self.seconds_per_batch = config.batch_size * config.data.segment_seconds
        # Vectors that one step would assign to each code if all were used evenly.
        frames = -(-round(config.data.segment_seconds * config.model.sample_rate) // self.codec.hop)
        self._even_count = config.batch_size * frames / config.quantizer.codebook_size
        rows = config.quantizer.kmeans_batches * config.batch_size * frames
        if pretrained is None and 0 < rows < config.quantizer.codebook_size:
            raise UserError(
                f"quantizer.codebook_size {config.quantizer.codebook_size} is more than the {rows} "
                "latents of quantizer.kmeans_batches, to which k-means fits the codebooks"
            )
        # Rows of a batch that is split over devices meet where they are.
        self._pairs = None
        if jax.device_count() > 1:
            mesh = sharding.make_mesh(config.get("mesh"))
            self._pairs = independence.ring(mesh, sharding.ROWS)
        self.programs = dict(
            autoencoder=self._autoencoder_step,
            discriminator=self._discriminator_step,
            codec=self._codec_step,
            codec_joined=self._codec_joined_step,
        )

    @property
    def dataset(self):
        """Training batches by index: dict(audio [batch, time, channels], file [batch])."""
        return self._segments

    def open(self) -> "CodecTask":
        """Opens the audio source; apart from the constructor so that a model needs no data."""
        config = self.config
        shape = dict(sample_rate=config.model.sample_rate, channels=config.model.channels)
        number, slices = sharding.slice_of_rows(sharding.make_mesh(config.get("mesh")))
        self._segments = data.segments(
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

    # What the loop calls.

    def init(self, rng, batch) -> dict:
        """The first state, from random weights and empty codebooks."""
        generator_key, discriminator_key = jax.random.split(rng)
        variables = self.codec.init(generator_key, batch["audio"])
        params = dict(
            generator=variables["params"],
            discriminator=self.discriminator.init(discriminator_key, batch["audio"])["params"],
        )
        return dict(
            step=jnp.zeros((), jnp.int32),
            params=params,
            collections=dict(
                codebook=variables["codebook"],
                balancer=balancer.init(("adversarial", "feature", "l1", "mel")),
            ),
            opt_state={name: self._optimizer(name).init(tree) for name, tree in params.items()},
            ema=jax.tree.map(jnp.copy, params["generator"]),
        )

    def plan(self, step: int) -> tuple[str, int]:
        """The program of a step, and how many batches it sees."""
        loss = self.config.loss.independence
        if step < self.config.quantizer.warmup_steps:
            return "autoencoder", 1
        if step < self._begin:
            return "discriminator", 1
        due = loss.kind != "none" and (step - self._begin + 1) % loss.every == 0
        if due and loss.macro_batch > 1 and step + 1 >= loss.macro_batch:
            return "codec_joined", loss.macro_batch
        return "codec", 1

    def before_step(self, step: int, state: dict, read) -> dict:
        """Puts in pretrained weights, or fits the codebooks by k-means where quantization begins."""
        if self._pretrained is not None:
            return state if step else self._put_pretrained(state)
        if step != self.config.quantizer.warmup_steps:
            return state
        settings = self.config.quantizer
        audio = jnp.concatenate([read(step + i)["audio"] for i in range(settings.kmeans_batches)])
        key = jax.random.fold_in(jax.random.key(self.config.seed), step)
        codebook = self.initial_codebook(state["params"]["generator"], audio, key)
        # The balancer's averages belong to other gradients before quantization.
        fresh = jax.tree.map(jnp.zeros_like, state["collections"]["balancer"])
        return {**state, "collections": dict(codebook=codebook, balancer=fresh)}

    def _put_pretrained(self, state: dict) -> dict:
        variables = self._pretrained()
        codebook = quantizer.restart(variables["codebook"], self._even_count)
        return {
            **state,
            "params": {**state["params"], "generator": variables["params"]},
            "collections": {**state["collections"], "codebook": codebook},
            "ema": jax.tree.map(jnp.copy, variables["params"]),
        }

    def evaluate(self, state: dict) -> Evaluation:
        """Reconstructs held-out excerpts with the averaged weights."""
        audio = self._held_out["audio"]
        quantized = int(state["step"]) > self.config.quantizer.warmup_steps
        variables = dict(params=state["ema"], codebook=state["collections"]["codebook"])
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

    # The steps.

    def _autoencoder_step(self, state, batch, rng):
        """Reconstruction without quantizer or discriminator."""
        del rng
        audio, params = batch["audio"], state["params"]["generator"]

        def generate(params):
            latents = self._apply(params, audio, method="latents")
            return self._apply(params, latents, method="synthesize")[:, : audio.shape[1]]

        decoded, backward = jax.vjp(generate, params)
        values, gradients = self._reconstruction_gradients(audio, decoded)
        balanced, joined, metrics = self._balance(state, values, gradients)
        (gradient,) = backward(joined)
        state = self._update_generator(state, gradient)
        return _advance(state, balancer=balanced), metrics

    def _discriminator_step(self, state, batch, rng):
        """The discriminator alone, on what the codec makes of the batch."""
        del rng
        audio, params = batch["audio"], state["params"]["generator"]
        latents = self._apply(params, audio, method="latents")
        q = quantizer.quantize(state["collections"]["codebook"], latents)
        decoded = self._apply(params, q.output, method="synthesize")[:, : audio.shape[1]]
        state, loss = self._update_discriminator(state, audio, decoded)
        return _advance(state), dict(loss=loss, discriminator=loss)

    def _codec_step(self, state, batch, rng):
        return self._quantized_step(state, batch, None, rng)

    def _codec_joined_step(self, state, batch, rng):
        return self._quantized_step(state, batch["current"], batch["history"], rng)

    def _quantized_step(self, state, batch, history, rng):
        """Discriminator, then generator, then codebooks."""
        config, loss = self.config, self.config.loss.independence
        audio, params = batch["audio"], state["params"]["generator"]
        codebook = state["collections"]["codebook"]
        dropout_key, expire_key, loss_key = jax.random.split(rng, 3)
        active = None
        if config.quantizer.dropout:
            active = jax.random.randint(dropout_key, (), 1, config.quantizer.codebooks + 1)

        # The encoder's pass is kept apart from the rest: the independence loss goes through it
        # alone, and its gradient is measured against the others'.
        latents, encoder_backward = jax.vjp(
            lambda encoder: self._apply({**params, "encoder": encoder}, audio, method="latents"),
            params["encoder"],
        )

        def generate(decoder, latents):
            q = quantizer.quantize(codebook, latents, active)
            decoded = self._apply({**params, "decoder": decoder}, q.output, method="synthesize")
            return (decoded[:, : audio.shape[1]], q.commitment), q

        (decoded, commitment), backward, quantized = jax.vjp(
            generate, params["decoder"], latents, has_aux=True
        )

        state, discriminator_loss = self._update_discriminator(state, audio, decoded)
        values, gradients = self._reconstruction_gradients(audio, decoded)
        adversary = self._adversarial_gradients(state, audio, decoded)
        values, gradients = values | adversary[0], gradients | adversary[1]
        balanced, joined, metrics = self._balance(state, values, gradients)

        decoder_gradient, latent_gradient = backward(
            (joined, jnp.full_like(commitment, config.loss.commitment))
        )
        (encoder_gradient,) = encoder_backward(latent_gradient)
        metrics |= dict(
            commitment=commitment,
            discriminator=discriminator_loss,
            perplexity=jnp.mean(
                quantizer.perplexity(quantized.codes, config.quantizer.codebook_size)
            ),
        )

        if loss.kind != "none" and (history is not None or loss.macro_batch == 1):
            if history is None:
                value, stream_backward = jax.vjp(
                    lambda z: self._independence(loss_key, codebook, z, batch["file"], active),
                    latents,
                )
                (term,) = encoder_backward(stream_backward(jnp.ones_like(value))[0])
            else:
                value, term = jax.value_and_grad(self._joined_independence)(
                    params["encoder"], params, codebook, history, loss_key, active
                )
            step = state["step"] - self._begin
            due = (step + 1) % loss.every == 0
            ramp = jnp.minimum(1.0, (step + 1) / max(1, loss.warmup_steps))
            norm, term_norm = optax.tree.norm(encoder_gradient), optax.tree.norm(term)
            weight = loss.share * norm / (term_norm + 1e-12) if loss.share else loss.weight
            weight = jnp.where(due, weight * ramp, 0.0)
            metrics |= dict(
                independence=value, independence_gradient_ratio=weight * term_norm / norm
            )
            encoder_gradient = jax.tree.map(lambda g, t: g + weight * t, encoder_gradient, term)

        state = self._update_generator(
            state, dict(encoder=encoder_gradient, decoder=decoder_gradient)
        )
        codebook = quantizer.update(
            codebook,
            quantized.inputs,
            quantized.codes,
            expire_key,
            decay=config.quantizer.decay,
            expire_below=config.quantizer.expire_below,
            active=active,
        )
        return _advance(state, balancer=balanced, codebook=codebook), metrics

    # The terms of the loss.

    def _reconstruction_gradients(self, audio, decoded):
        """Values and gradients at the decoded waveform of the losses that need no network."""
        config = self.config

        def fold(x):  # channels are items of their own to the mel loss
            return jnp.moveaxis(x, -1, 1).reshape(-1, x.shape[1])

        terms = dict(
            l1=lambda y: losses.l1(audio, y, relative=config.loss.relative_l1),
            mel=lambda y: losses.multi_scale_mel(fold(audio), fold(y), config.model.sample_rate),
        )
        pairs = {name: jax.value_and_grad(term)(decoded) for name, term in terms.items()}
        return (
            {name: value for name, (value, _) in pairs.items()},
            {name: gradient for name, (_, gradient) in pairs.items()},
        )

    def _adversarial_gradients(self, state, audio, decoded):
        """The same for the losses through the discriminator, which is not changed."""
        variables = dict(params=state["params"]["discriminator"])
        real = self.discriminator.apply(variables, audio)

        def both(y):
            fake = self.discriminator.apply(variables, y)
            return discriminator.adversarial_loss(fake), discriminator.feature_loss(real, fake)

        (adversarial, feature), backward = jax.vjp(both, decoded)
        one, zero = jnp.ones_like(adversarial), jnp.zeros_like(adversarial)
        gradients = dict(adversarial=backward((one, zero))[0], feature=backward((zero, one))[0])
        return dict(adversarial=adversarial, feature=feature), gradients

    def _balance(self, state, values, gradients):
        """Joins the gradients by weight; returns (balancer state, gradient, metrics)."""
        config = self.config.loss
        old = state["collections"]["balancer"]
        weights = {name: config[name] for name in values}
        new, joined, norms = balancer.combine(old, gradients, weights, decay=config.balancer_decay)
        new = dict(norms={**old["norms"], **new["norms"]}, weight=new["weight"])
        # Items have gradients of unit norm, which add up over a batch; in the published run over
        # the 8 items of a device. So scaled, the other terms' weights mean the same at any batch.
        batch = next(iter(gradients.values())).shape[0]
        joined = joined * (config.reference_batch / batch)
        total = sum(weights.values())
        metrics = dict(values)
        metrics["loss"] = sum(
            weights[name] / total / (norms[name] + 1e-12) * values[name] for name in values
        )
        metrics |= {f"gradient_norm/{name}": norm for name, norm in norms.items()}
        return new, joined, metrics

    def _streams(self, codebook, latents, active=None):
        """The codebooks' streams [batch, frames, codebooks, dim] that are to be independent."""
        loss = self.config.loss.independence
        q = quantizer.quantize(codebook, latents)
        streams = q.vectors if loss.streams == "codes" else q.inputs
        streams = independence.align(streams, "delay" if loss.delay else "parallel")
        if loss.condition:
            streams = independence.condition(streams, loss.condition, active=active)
        return streams

    def _independence(self, key, codebook, latents, files, active=None):
        """The loss, unweighted, of latents [batch, frames, dim] of the given source files."""
        loss = self.config.loss.independence
        streams = self._streams(codebook, latents, active)
        segments = files if loss.exclude_files else None
        if loss.kind == "covariance":
            return independence.covariance(streams, segments=segments, active=active)
        shared = dict(block=loss.block, active=active, pairs=self._pairs)
        if loss.kind == "permutation" and loss.published:
            return independence.permutation_mmd(
                key, streams, published=True, batch=streams.shape[0], **shared
            )
        shared |= dict(bandwidths=loss.bandwidths, segments=segments)
        if loss.kind == "dhsic":
            return independence.dhsic(streams, **shared)
        return independence.permutation_mmd(key, streams, **shared)

    def _joined_independence(self, encoder, params, codebook, history, key, active=None):
        """The loss of the streams of several batches [m, batch, ...], each encoded anew in the
        backward pass; the codebooks are those of this step and are not updated."""

        @jax.checkpoint
        def encode(audio):
            return self._apply({**params, "encoder": encoder}, audio, method="latents")

        # XLA on CPU takes ten times as long for convolutions within a loop.
        _, latents = jax.lax.scan(
            lambda _, audio: (None, encode(audio)), None, history["audio"],
            unroll=jax.default_backend() == "cpu",
        )  # fmt: skip
        latents = latents.reshape(-1, *latents.shape[2:])
        return self._independence(key, codebook, latents, history["file"].reshape(-1), active)

    # Updates.

    def _optimizer(self, name):
        settings = self.config.optimizer
        if settings.schedule == "cosine":
            rate = optax.warmup_cosine_decay_schedule(
                0.0, settings.learning_rate, settings.warmup_steps, self.config.steps
            )
        else:
            rate = optax.warmup_constant_schedule(
                0.0 if settings.warmup_steps else settings.learning_rate,
                settings.learning_rate,
                settings.warmup_steps,
            )
        if name == "discriminator":
            factor = self.config.discriminator.get("rate_factor", 1.0)
            return optax.adam(lambda count: factor * rate(count), *settings.betas)
        return optax.adam(rate, *settings.betas)

    def _step_optimizer(self, state, name, gradient):
        params, opt_state = state["params"][name], state["opt_state"][name]
        updates, opt_state = self._optimizer(name).update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        return {
            **state,
            "params": {**state["params"], name: params},
            "opt_state": {**state["opt_state"], name: opt_state},
        }

    def _update_generator(self, state, gradient):
        decay, before = self.config.optimizer.ema_decay, state["params"]["generator"]
        state = self._step_optimizer(state, "generator", gradient)
        params = state["params"]["generator"]
        ema = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state["ema"], params)
        if self._fixed_decoder:  # its average too: not even by rounding
            params = {**params, "decoder": before["decoder"]}
            ema = {**ema, "decoder": state["ema"]["decoder"]}
        return {**state, "params": {**state["params"], "generator": params}, "ema": ema}

    def _update_discriminator(self, state, audio, decoded):
        decoded = jax.lax.stop_gradient(decoded)

        def loss(params):
            real = self.discriminator.apply(dict(params=params), audio)
            fake = self.discriminator.apply(dict(params=params), decoded)
            return discriminator.discriminator_loss(real, fake)

        value, gradient = jax.value_and_grad(loss)(state["params"]["discriminator"])
        return self._step_optimizer(state, "discriminator", gradient), value

    # The model.

    def _apply(self, params, x, *, method):
        # The encoder and the decoder alone read no codebook, but the module asks for one.
        codec = self.codec
        codebook = quantizer.empty(codec.codebooks, codec.codebook_size, codec.dimension)
        return codec.apply(dict(params=params, codebook=codebook), x, method=method)

    @partial(jax.jit, static_argnums=0)
    def initial_codebook(self, params, audio, key) -> dict:
        """Codebooks by k-means on the latents of audio [batch, time, channels]."""
        settings = self.config.quantizer
        latents = self._apply(params, audio, method="latents")
        return quantizer.initialize(
            latents.reshape(-1, latents.shape[-1]),
            settings.codebooks,
            settings.codebook_size,
            key,
            settings.kmeans_iterations,
            self._even_count,
        )

    @partial(jax.jit, static_argnums=0, static_argnames="quantized")
    def _reconstruct(self, variables, audio, *, quantized):
        latents = self.codec.apply(variables, audio, method="latents")
        q = self.codec.apply(variables, latents, method="quantize")
        z = q.output if quantized else latents
        return self.codec.apply(variables, z, method="synthesize"), q.codes


def _advance(state, **collections):
    """The state one step on, with some of its collections replaced."""
    return {
        **state,
        "step": state["step"] + 1,
        "collections": {**state["collections"], **collections},
    }


def _check(config, pretrained: bool):
    """Raises UserError, one line that names the field, for what no run can have."""
    loss = config.loss.independence
    if config.model.get("normalize") or config.model.get("chunk_seconds"):
        raise UserError("model.normalize, model.chunk_seconds: such a codec cannot be trained here")
    trainable = config.optimizer.get("trainable", "all")
    if trainable not in ("all", "encoder"):
        raise UserError(f"optimizer.trainable must be 'all' or 'encoder', not {trainable!r}")
    if pretrained and config.quantizer.warmup_steps:
        raise UserError(
            f"quantizer.warmup_steps must be 0 with pretrained weights, not "
            f"{config.quantizer.warmup_steps}"
        )
    settings = config.discriminator
    if settings.filters < 1 or not settings.n_ffts or any(n < 4 or n % 4 for n in settings.n_ffts):
        raise UserError(
            "discriminator.filters must be at least 1, and discriminator.n_ffts some multiples of 4, "
            f"not {settings.filters} and {tuple(settings.n_ffts)}"
        )
    if len(config.optimizer.betas) != 2:
        raise UserError(f"optimizer.betas must be two numbers, not {tuple(config.optimizer.betas)}")
    if loss.kind not in LOSSES:
        raise UserError(f"loss.independence.kind must be one of {LOSSES}, not {loss.kind!r}")
    if loss.streams not in ("codes", "inputs"):
        raise UserError(
            f"loss.independence.streams must be 'codes' or 'inputs', not {loss.streams!r}"
        )
    if loss.condition < 0 or loss.share < 0:
        field = "condition" if loss.condition < 0 else "share"
        raise UserError(f"loss.independence.{field} must be at least 0, not {loss[field]}")
    if config.quantizer.kmeans_batches < 1:
        raise UserError("quantizer.kmeans_batches must be at least 1")
    if loss.every < 1 or loss.macro_batch < 1:
        raise UserError("loss.independence.every and .macro_batch must be at least 1")
    if config.optimizer.schedule not in ("constant", "cosine"):
        raise UserError(
            f"optimizer.schedule must be 'constant' or 'cosine', not {config.optimizer.schedule!r}"
        )
    if config.optimizer.schedule == "cosine" and config.optimizer.warmup_steps >= config.steps:
        raise UserError(
            f"optimizer.warmup_steps {config.optimizer.warmup_steps} must be below steps, "
            f"{config.steps}"
        )
