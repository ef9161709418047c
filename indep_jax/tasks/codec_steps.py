"""The codec's training steps: pure functions of (config, state, batch, key).

They need jax, flax, optax and chex alone. `config` is nested mappings with the fields of
configs/encodec_32khz.py: a plain dict or an ml_collections ConfigDict alike.

A batch is dict(audio [batch, time, channels], file [batch]), the file a segment is of. A state's
params are {generator, discriminator}, its ema that of the generator, its collections {codebook,
balancer}. Every step returns the state after it and its metrics, scalars by name.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from indep_jax.codec import balancer, discriminator, model, quantizer
from indep_jax.independence import loss as independence
from indep_jax.independence import ring
from indep_jax.signal import losses
from indep_jax.tasks import losses as learned
from indep_jax.training import sharding
from indep_jax.training.state import State

Config = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
Gradients = dict[str, jax.Array]  # at the decoded waveform, by loss

BALANCED = ("adversarial", "feature", "l1", "mel")


def codec(config: Config) -> model.Codec:
    """Return the model that a config describes."""
    sizes = config["quantizer"]["codebooks"], config["quantizer"]["codebook_size"]
    return model.from_config(config["model"], *sizes, config["dtype"])


def adversary(config: Config) -> discriminator.Discriminator:
    """Return the discriminator that a config describes."""
    settings = config["discriminator"]
    return discriminator.Discriminator(
        settings["filters"], tuple(settings["n_ffts"]), jnp.dtype(config["dtype"])
    )


def first_whole_step(config: Config) -> int:
    """Return the first step of the whole recipe, after those of a part alone (see `plan`)."""
    return config["quantizer"]["warmup_steps"] + config["discriminator"].get("warmup_steps", 0)


def even_count(config: Config) -> float:
    """Return how many vectors a step would assign to each code if all were used evenly."""
    samples = round(config["data"]["segment_seconds"] * config["model"]["sample_rate"])
    frames = -(-samples // codec(config).hop)
    return config["batch_size"] * frames / config["quantizer"]["codebook_size"]


# The state before the first step.


def init(config: Config, key: jax.Array, batch: Batch) -> State:
    """Return the first state: random weights, empty codebooks."""
    generator_key, discriminator_key = jax.random.split(key)
    variables = codec(config).init(generator_key, batch["audio"])
    params = dict(
        generator=variables["params"],
        discriminator=adversary(config).init(discriminator_key, batch["audio"])["params"],
    )
    state = State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params["generator"]),
        opt_state={name: optimizer(config, name).init(tree) for name, tree in params.items()},
        collections=dict(codebook=variables["codebook"], balancer=balancer.init(BALANCED)),
    )
    settings = config["loss"]["independence"]
    if settings["kind"] in learned.KINDS:
        latents = encode(config, params["generator"], batch["audio"])
        streams = independence_streams(config, variables["codebook"], latents)
        # A key of its own: the other weights are those of a run without this network.
        critic = learned.KINDS[settings["kind"]].init(
            settings, jax.random.fold_in(key, 1), independence.prepare(settings, streams)
        )
        opt_state = optimizer(config, "critic").init(critic)
        state = state.replace(critic=dict(params=critic, opt_state=opt_state))
    return state


def initial_codebook(config: Config, params: Any, audio: jax.Array, key: jax.Array) -> dict:
    """Fit codebooks by k-means to the generator's latents of audio [batch, time, channels]."""
    settings = config["quantizer"]
    latents = encode(config, params, audio)
    return quantizer.initialize(
        latents.reshape(-1, latents.shape[-1]),
        settings["codebooks"],
        settings["codebook_size"],
        key,
        settings["kmeans_iterations"],
        even_count(config),
    )


def begin_quantization(state: State, codebook: dict) -> State:
    """Return the state with its first codebooks."""
    # The balancer's averages belong to other gradients before quantization.
    fresh = jax.tree.map(jnp.zeros_like, state.collections["balancer"])
    return state.replace(collections=dict(codebook=codebook, balancer=fresh))


def start_from(config: Config, state: State, variables: Mapping[str, Any]) -> State:
    """Return the state with a trained codec's variables {params, codebook}."""
    params, codebook = variables["params"], variables["codebook"]
    codebook = quantizer.restart(codebook, even_count(config))
    return state.replace(
        params={**state.params, "generator": params},
        ema=jax.tree.map(jnp.copy, params),
        collections={**state.collections, "codebook": codebook},
    )


# The steps.


def autoencoder_step(
    config: Config, state: State, batch: Batch, key: jax.Array
) -> tuple[State, Metrics]:
    """Train reconstruction, without quantizer or discriminator."""
    del key
    audio = batch["audio"]

    def generate(params):
        latents = encode(config, params, audio)
        return synthesize(config, params, latents)[:, : audio.shape[1]]

    decoded, backward = jax.vjp(generate, state.params["generator"])
    values, gradients = _reconstruction(config, audio, decoded)
    balanced, joined, metrics = _balance(config, state, values, gradients)
    (gradient,) = backward(joined)
    state = _update_generator(config, state, gradient)
    return _advance(state, balancer=balanced), metrics


def discriminator_step(
    config: Config, state: State, batch: Batch, key: jax.Array
) -> tuple[State, Metrics]:
    """Train the discriminator alone, on what the codec makes of the batch."""
    del key
    audio, params = batch["audio"], state.params["generator"]
    latents = encode(config, params, audio)
    q = quantizer.quantize(state.collections["codebook"], latents)
    decoded = synthesize(config, params, q.output)[:, : audio.shape[1]]
    state, loss = _update_discriminator(config, state, audio, decoded)
    return _advance(state), dict(loss=loss, discriminator=loss)


def codec_step(config: Config, state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
    """Train discriminator, generator, codebooks, in this order, without the independence loss."""
    return _quantized_step(config, state, batch, key)


def independence_step(
    config: Config, state: State, batch: Mapping[str, Any], key: jax.Array
) -> tuple[State, Metrics]:
    """Train as `codec_step` does, with the independence loss of the batch's streams.

    Or with that of the streams of several batches, the macro-batch of Lemercier et al. 2024:
    `batch` is then dict(current=the batch, history=the batches that are joined, stacked).
    """
    if "history" in batch:
        return _quantized_step(config, state, batch["current"], key, batch["history"], term=True)
    return _quantized_step(config, state, batch, key, term=True)


def _quantized_step(config, state, batch, key, history=None, term=False):
    settings = config["quantizer"]
    audio, params = batch["audio"], state.params["generator"]
    codebook = state.collections["codebook"]
    dropout_key, expire_key, loss_key = jax.random.split(key, 3)
    active = None
    if settings["dropout"]:
        active = jax.random.randint(dropout_key, (), 1, settings["codebooks"] + 1)

    # The encoder's pass is kept apart from the rest: the independence loss goes through it
    # alone, and its gradient is measured against the others'.
    latents, encoder_backward = jax.vjp(
        lambda encoder: encode(config, {**params, "encoder": encoder}, audio),
        params["encoder"],
    )

    def generate(decoder, latents):
        q = quantizer.quantize(codebook, latents, active)
        decoded = synthesize(config, {**params, "decoder": decoder}, q.output)
        return (decoded[:, : audio.shape[1]], q.commitment), q

    (decoded, commitment), backward, quantized = jax.vjp(
        generate, params["decoder"], latents, has_aux=True
    )

    state, discriminator_loss = _update_discriminator(config, state, audio, decoded)
    values, gradients = _reconstruction(config, audio, decoded)
    adversarial_values, adversarial_gradients = _adversarial(config, state, audio, decoded)
    balanced, joined, metrics = _balance(
        config, state, values | adversarial_values, gradients | adversarial_gradients
    )
    decoder_gradient, latent_gradient = backward(
        (joined, jnp.full_like(commitment, config["loss"]["commitment"]))
    )
    (encoder_gradient,) = encoder_backward(latent_gradient)
    metrics |= dict(
        commitment=commitment,
        discriminator=discriminator_loss,
        perplexity=jnp.mean(quantizer.perplexity(quantized.codes, settings["codebook_size"])),
    )

    if term:
        value, more, rows = _independence_gradient(
            config, state, batch, history, latents, encoder_backward, loss_key, active
        )
        encoder_gradient, ratio = _add_term(config, state.step, encoder_gradient, more)
        metrics |= dict(independence=value, independence_gradient_ratio=ratio)
        if state.critic is not None:
            state, metrics["critic"] = _update_critic(config, state, *rows, loss_key, active)

    state = _update_generator(
        config, state, dict(encoder=encoder_gradient, decoder=decoder_gradient)
    )
    codebook = quantizer.update(
        codebook,
        quantized.inputs,
        quantized.codes,
        expire_key,
        decay=settings["decay"],
        expire_below=settings["expire_below"],
        active=active,
    )
    return _advance(state, balancer=balanced, codebook=codebook), metrics


# The terms of the loss. Each gives values, and gradients at the decoded waveform, by name.


def _reconstruction(config, audio, decoded) -> tuple[Metrics, Gradients]:
    """The losses that need no network."""

    def fold(x):  # channels are items of their own to the mel loss
        return jnp.moveaxis(x, -1, 1).reshape(-1, x.shape[1])

    rate, relative = config["model"]["sample_rate"], config["loss"]["relative_l1"]
    terms = dict(
        l1=lambda y: losses.l1(audio, y, relative=relative),
        mel=lambda y: losses.multi_scale_mel(fold(audio), fold(y), rate),
    )
    pairs = {name: jax.value_and_grad(term)(decoded) for name, term in terms.items()}
    return (
        {name: value for name, (value, _) in pairs.items()},
        {name: gradient for name, (_, gradient) in pairs.items()},
    )


def _adversarial(config, state, audio, decoded) -> tuple[Metrics, Gradients]:
    """The losses through the discriminator, which is not changed."""
    module, variables = adversary(config), dict(params=state.params["discriminator"])
    real = module.apply(variables, audio)

    def both(y):
        fake = module.apply(variables, y)
        return discriminator.adversarial_loss(fake), discriminator.feature_loss(real, fake)

    (adversarial, feature), backward = jax.vjp(both, decoded)
    one, zero = jnp.ones_like(adversarial), jnp.zeros_like(adversarial)
    gradients = dict(adversarial=backward((one, zero))[0], feature=backward((zero, one))[0])
    return dict(adversarial=adversarial, feature=feature), gradients


def _balance(config, state, values: Metrics, gradients: Gradients):
    """Joins the gradients by weight: (balancer's new state, joined gradient, metrics)."""
    loss, old = config["loss"], state.collections["balancer"]
    weights = {name: loss[name] for name in values}
    new, joined, norms = balancer.combine(old, gradients, weights, decay=loss["balancer_decay"])
    new = dict(norms={**old["norms"], **new["norms"]}, weight=new["weight"])
    # Items have gradients of unit norm, which add up over a batch; in the published run over
    # the 8 items of a device. So scaled, the other terms' weights mean the same at any batch.
    batch = next(iter(gradients.values())).shape[0]
    joined = joined * (loss["reference_batch"] / batch)
    total = sum(weights.values())
    metrics = dict(values)
    metrics["loss"] = sum(
        weights[name] / total / (norms[name] + 1e-12) * values[name] for name in values
    )
    metrics |= {f"gradient_norm/{name}": norm for name, norm in norms.items()}
    return new, joined, metrics


def _independence_gradient(config, state, batch, history, latents, encoder_backward, key, active):
    """(value, gradient of the encoder, (latents, files) of the rows) of the independence loss."""
    codebook, params = state.collections["codebook"], state.params["generator"]
    if history is None:
        value, backward = jax.vjp(
            lambda z: independence_loss(
                config, codebook, z, batch["file"], key, active, state.critic
            ),
            latents,
        )
        (gradient,) = encoder_backward(backward(jnp.ones_like(value))[0])
        return value, gradient, (latents, batch["file"])
    joined = jax.value_and_grad(joined_independence_loss, argnums=1, has_aux=True)
    (value, latents), gradient = joined(
        config, params["encoder"], params, codebook, history, key, active, state.critic
    )
    return value, gradient, (latents, history["file"].reshape(-1))


def independence_loss(
    config: Config,
    codebook: dict,
    latents_BxTxD: jax.Array,
    files_B: jax.Array,
    key: jax.Array,
    active: jax.Array | int | None = None,
    critic: Any = None,
) -> jax.Array:
    """Return the independence loss, unweighted, of latents of the given source files; a scalar.

    `active`: how many leading codebooks take part, default all. `critic`: the state's, which a loss
    with a network of its own needs.
    """
    settings = config["loss"]["independence"]
    if settings["kind"] in learned.KINDS:
        return _learned_losses(
            config, critic["params"], codebook, latents_BxTxD, files_B, key, active
        )[0]
    # Rows of a batch that is split over devices meet where they are.
    pairs = None
    if jax.device_count() > 1:
        pairs = ring(sharding.make_mesh(config.get("mesh")), sharding.ROWS)
    loss = independence.from_config(settings, pairs)
    return loss(key, independence_streams(config, codebook, latents_BxTxD), files_B, active)


def independence_streams(config: Config, codebook: dict, latents_BxTxD: jax.Array) -> jax.Array:
    """Return the codebooks' streams [batch, frames, codebooks, dim] that are to be independent."""
    q = quantizer.quantize(codebook, latents_BxTxD)
    return q.vectors if config["loss"]["independence"]["streams"] == "codes" else q.inputs


def _learned_losses(config, params, codebook, latents, files, key, active):
    """Of a loss with a network of its own: (the codec's loss, the network's)."""
    settings = config["loss"]["independence"]
    streams = independence_streams(config, codebook, latents)
    return learned.KINDS[settings["kind"]].apply(
        settings,
        params,
        key,
        independence.prepare(settings, streams, active),
        files if settings["exclude_files"] else None,
        active,
    )


def joined_independence_loss(
    config: Config,
    encoder: Any,
    params: Any,
    codebook: dict,
    history: Batch,
    key: jax.Array,
    active: jax.Array | int | None = None,
    critic: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Return the loss of several batches' streams, and their latents [m * batch, frames, dim].

    history: dict(audio [m, batch, time, channels], file [m, batch]). Every batch is encoded anew in
    the backward pass; the codebooks are those of this step and are not updated.
    """

    @jax.checkpoint
    def once_more(audio):
        return encode(config, {**params, "encoder": encoder}, audio)

    # XLA on CPU takes ten times as long for convolutions within a loop.
    _, latents = jax.lax.scan(
        lambda _, audio: (None, once_more(audio)), None, history["audio"],
        unroll=jax.default_backend() == "cpu",
    )  # fmt: skip
    latents = latents.reshape(-1, *latents.shape[2:])
    files = history["file"].reshape(-1)
    return independence_loss(config, codebook, latents, files, key, active, critic), latents


def _add_term(config, step, gradient, term):
    """The encoder's gradient with the independence loss's added, and the ratio of their norms."""
    loss = config["loss"]["independence"]
    done = step - first_whole_step(config) + 1
    ramp = jnp.minimum(1.0, done / max(1, loss["warmup_steps"]))
    norm, term_norm = optax.tree.norm(gradient), optax.tree.norm(term)
    weight = loss["share"] * norm / (term_norm + 1e-12) if loss["share"] else loss["weight"]
    weight = weight * ramp
    return jax.tree.map(lambda g, t: g + weight * t, gradient, term), weight * term_norm / norm


# Updates.


def optimizer(config: Config, name: str) -> optax.GradientTransformation:
    """Return Adam for the params `name`: generator, discriminator or critic.

    The last two, which judge the first, learn at discriminator.rate_factor times its rate.
    """
    settings = config["optimizer"]
    peak, warmup = settings["learning_rate"], settings["warmup_steps"]
    if settings["schedule"] == "cosine":
        rate = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, config["steps"])
    else:
        rate = optax.warmup_constant_schedule(0.0 if warmup else peak, peak, warmup)
    if name != "generator":
        factor = config["discriminator"].get("rate_factor", 1.0)
        return optax.adam(lambda count: factor * rate(count), *settings["betas"])
    adam = optax.adam(rate, *settings["betas"])
    if _decoder_is_fixed(config):
        parts = dict(encoder="trained", decoder="fixed")
        return optax.multi_transform(dict(trained=adam, fixed=optax.set_to_zero()), parts)
    return adam


def _decoder_is_fixed(config) -> bool:
    return config["optimizer"].get("trainable", "all") == "encoder"


def _step_optimizer(config, state: State, name: str, gradient) -> State:
    params = state.params[name]
    updates, opt_state = optimizer(config, name).update(gradient, state.opt_state[name], params)
    return state.replace(
        params={**state.params, name: optax.apply_updates(params, updates)},
        opt_state={**state.opt_state, name: opt_state},
    )


def _update_generator(config, state: State, gradient) -> State:
    state = _step_optimizer(config, state, "generator", gradient)
    rate = 1 - config["optimizer"]["ema_decay"]
    ema = optax.incremental_update(state.params["generator"], state.ema, rate)
    if _decoder_is_fixed(config):  # its average too: not even by rounding
        ema = {**ema, "decoder": state.ema["decoder"]}
    return state.replace(ema=ema)


def _update_discriminator(config, state: State, audio, decoded) -> tuple[State, jax.Array]:
    module, decoded = adversary(config), jax.lax.stop_gradient(decoded)

    def loss(params):
        real = module.apply(dict(params=params), audio)
        fake = module.apply(dict(params=params), decoded)
        return discriminator.discriminator_loss(real, fake)

    value, gradient = jax.value_and_grad(loss)(state.params["discriminator"])
    return _step_optimizer(config, state, "discriminator", gradient), value


def _update_critic(config, state, latents, files, key, active):
    """(state, loss) after a step of the independence loss's own network."""
    critic, codebook = state.critic, state.collections["codebook"]
    latents = jax.lax.stop_gradient(latents)

    def loss(params):
        return _learned_losses(config, params, codebook, latents, files, key, active)[1]

    value, gradient = jax.value_and_grad(loss)(critic["params"])
    updates, opt_state = optimizer(config, "critic").update(gradient, critic["opt_state"])
    params = optax.apply_updates(critic["params"], updates)
    return state.replace(critic=dict(params=params, opt_state=opt_state)), value


def _advance(state: State, **collections) -> State:
    """The state one step on, with some of its collections replaced."""
    return state.replace(step=state.step + 1, collections={**state.collections, **collections})


# The model.


def encode(config: Config, params: Any, audio_BxTxC: jax.Array) -> jax.Array:
    """Return latents [batch, frames, dim] of audio, by the generator's params."""
    return _apply(config, params, audio_BxTxC, "latents")


def synthesize(config: Config, params: Any, z_BxTxD: jax.Array) -> jax.Array:
    """Return the waveform [batch, frames * hop, channels] of latents, by the generator's params."""
    return _apply(config, params, z_BxTxD, "synthesize")


def _apply(config, params, x, method):
    # The encoder and the decoder alone read no codebook, but the module asks for one.
    module = codec(config)
    codebook = quantizer.empty(module.codebooks, module.codebook_size, module.dimension)
    return module.apply(dict(params=params, codebook=codebook), x, method=method)


def reconstruct(
    config: Config, variables: Mapping[str, Any], audio: jax.Array, *, quantized: bool
) -> tuple[jax.Array, jax.Array]:
    """Return audio [batch, time, channels] after the codec: (waveform, codes).

    Not quantized: straight from the latents, as the autoencoder is trained.
    """
    module = codec(config)
    latents = module.apply(variables, audio, method="latents")
    q = module.apply(variables, latents, method="quantize")
    z = q.output if quantized else latents
    return module.apply(variables, z, method="synthesize"), q.codes


PROGRAMS: dict[str, Callable[[Config, State, Any, jax.Array], tuple[State, Metrics]]] = dict(
    autoencoder=autoencoder_step,
    discriminator=discriminator_step,
    codec=codec_step,
    codec_independence=independence_step,
)


def plan(config: Config, step: int) -> tuple[str, int]:
    """Return the name in PROGRAMS of a step, and how many batches it sees.

    `autoencoder` (quantizer.warmup_steps of them, none in the published recipe): reconstruction
    losses alone. `discriminator` (then discriminator.warmup_steps): the codec stays as it is. Then
    `codec`, the whole recipe, and every loss.independence.every-th time `codec_independence`.
    """
    loss, begin = config["loss"]["independence"], first_whole_step(config)
    if step < config["quantizer"]["warmup_steps"]:
        return "autoencoder", 1
    if step < begin:
        return "discriminator", 1
    due = loss["kind"] != independence.NONE and (step - begin + 1) % loss["every"] == 0
    if due and step + 1 >= loss["macro_batch"]:
        return "codec_independence", loss["macro_batch"]
    return "codec", 1
