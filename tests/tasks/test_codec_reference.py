"""A whole training step against a short reference: `jax.grad` of the whole loss, Adam by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tasks.test_codec_task import music, shipped, shrink, start  # noqa: F401  a fixture

from indep_jax import independence
from indep_jax.codec import discriminator as adversary
from indep_jax.codec import quantizer
from indep_jax.signal import losses
from indep_jax.tasks import codec_steps

CASES = {
    # The loss of the batch, with a fixed weight on its ramp; some codes are replaced.
    "weight": dict(
        kind="dhsic", weight=40.0, share=0.0, condition=1, delay=False, warmup_steps=5,
        streams="codes", bandwidths="median",
    ),
    # The loss of two batches, as a share of the gradient, with quantizer dropout.
    "share": dict(
        kind="permutation", share=0.3, condition=0, delay=True, macro_batch=2,
        streams="inputs", bandwidths="paper",
    ),
}  # fmt: skip


@pytest.fixture(params=CASES)
def config(request, music):  # noqa: F811
    config = shrink(shipped("encodec_small"), music)
    config.steps = 12
    config.dtype = "float64"
    config.quantizer.update(decay=0.9, expire_below=0.9, dropout=request.param == "share")
    config.optimizer.update(warmup_steps=1, ema_decay=0.8)
    config.loss.update(reference_batch=6, balancer_decay=0.7, commitment=0.3)
    config.discriminator.rate_factor = 3.0
    config.loss.independence.update(CASES[request.param], exclude_files=True, block=16)
    return config


# The reference, from the definitions; all its numbers are float64.


def encode(codec, params, audio):
    empty = quantizer.empty(codec.codebooks, codec.codebook_size, codec.dimension)
    return codec.apply(dict(params=params, codebook=empty), audio, method="latents")


def decode(codec, params, z, length):
    empty = quantizer.empty(codec.codebooks, codec.codebook_size, codec.dimension)
    variables = dict(params=params, codebook=empty)
    return codec.apply(variables, z, method="synthesize")[:, :length]


def quantize(embed, z, active):
    """(output, commitment, inputs, code vectors with the gradient of z, codes)."""
    rest, output, commitment = z, 0.0, 0.0
    inputs, vectors, codes = [], [], []
    for k, codebook in enumerate(embed):
        distances = jnp.sum((rest[..., None, :] - codebook) ** 2, -1)
        codes.append(jnp.argmin(distances, -1))
        vector = codebook[codes[-1]]
        inputs.append(rest)
        vectors.append(vector + rest - jax.lax.stop_gradient(rest))
        if k < active:
            output += vector
            commitment += jnp.mean((rest - vector) ** 2) / active
        rest = rest - vector
    output = output + z - jax.lax.stop_gradient(z)
    return output, commitment, jnp.stack(inputs, 2), jnp.stack(vectors, 2), jnp.stack(codes, 2)


def independence_term(config, codec, encoder, params, embed, batch, history, key, active):
    settings = config.loss.independence
    if settings.macro_batch > 1:
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), history)
    z = encode(codec, {**params, "encoder": encoder}, batch["audio"])
    _, _, inputs, vectors, _ = quantize(embed, z, active)
    how = dict(segments=batch["file"], bandwidths=settings.bandwidths, active=active)
    if settings.kind == "permutation":
        return independence.permutation_mmd(key, independence.align(inputs, "delay"), **how)
    return independence.dhsic(independence.condition(vectors, 1, active=active), **how)


def adam(config, params, moments, gradient, factor=1.0):
    """(new params, mu, nu) after one more step."""
    b1, b2 = config.optimizer.betas
    count = float(moments.count)
    peak = config.optimizer.learning_rate
    rate = factor * peak * 0.5 * (1 + np.cos(np.pi * (count - 1) / (config.steps - 1)))
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, moments.mu, gradient)
    nu = jax.tree.map(lambda m, g: b2 * m + (1 - b2) * g**2, moments.nu, gradient)
    params = jax.tree.map(
        lambda p, m, v: (
            p - rate * (m / (1 - b1 ** (count + 1)))
            / (jnp.sqrt(v / (1 - b2 ** (count + 1))) + 1e-8)
        ),
        params, mu, nu,
    )  # fmt: skip
    return params, mu, nu


def update_codebook(config, codebook, inputs, codes, key, active):
    """By loops; the rows that replace dead codes are drawn as quantizer.update says."""
    new = jax.tree.map(lambda x: np.array(x), codebook)
    inputs, codes = np.asarray(inputs), np.asarray(codes)
    rows, decay = inputs[:, :, 0].reshape(-1, inputs.shape[-1]).shape[0], config.quantizer.decay
    size = config.quantizer.codebook_size
    replaced = 0
    for k, one in enumerate(jax.random.split(key, len(new["embed"]))):
        if k >= active:
            continue
        x = inputs[:, :, k].reshape(rows, -1)
        c = codes[:, :, k].ravel()
        for s in range(size):
            new["count"][k, s] = decay * new["count"][k, s] + (1 - decay) * np.sum(c == s)
            summed = x[c == s].sum(0)
            new["average"][k, s] = decay * new["average"][k, s] + (1 - decay) * summed
        total = new["count"][k].sum()
        fresh = x[np.asarray(jax.random.randint(one, (size,), 0, rows))]
        for s in range(size):
            smooth = (new["count"][k, s] + 1e-5) / (total + size * 1e-5) * total
            new["embed"][k, s] = new["average"][k, s] / smooth
            if new["count"][k, s] < config.quantizer.expire_below * rows / size:
                replaced += 1
                new["embed"][k, s] = fresh[s]
                new["average"][k, s] = fresh[s] * rows / size
                new["count"][k, s] = rows / size
    return new, replaced


def active_codebooks(config, key):
    codebooks = config.quantizer.codebooks
    if not config.quantizer.dropout:
        return codebooks
    return int(jax.random.randint(jax.random.split(key, 3)[0], (), 1, codebooks + 1))


def reference(config, state, batch, history, key):
    """Everything a step changes, by name, and its metrics."""
    codec, judge = codec_steps.codec(config), codec_steps.adversary(config)
    audio, params = batch["audio"], state.params["generator"]
    embed = state.collections["codebook"]["embed"]
    _, expire_key, loss_key = jax.random.split(key, 3)
    active = active_codebooks(config, key)
    settings = config.loss.independence

    # The discriminator goes first.
    @jax.jit
    def reconstruct(p):
        output, commitment, inputs, _, codes = quantize(embed, encode(codec, p, audio), active)
        return decode(codec, p, output, audio.shape[1]), commitment, inputs, codes

    decoded, commitment, inputs, codes = reconstruct(params)

    def hinge(p):
        apply = lambda x: judge.apply(dict(params=p), x)
        return adversary.discriminator_loss(apply(audio), apply(decoded))

    hinge_value, gradient = jax.jit(jax.value_and_grad(hinge))(state.params["discriminator"])
    found = {}
    found["discriminator"], mu, _ = adam(
        config, state.params["discriminator"], state.opt_state["discriminator"][0], gradient, 3.0
    )
    found["discriminator mu"] = mu

    # What the balancer makes of the losses at the waveform: a factor for each.
    apply = lambda y: judge.apply(dict(params=found["discriminator"]), y)
    flat = lambda y: jnp.moveaxis(y, -1, 1).reshape(-1, y.shape[1])
    terms = dict(
        adversarial=lambda y: adversary.adversarial_loss(apply(y)),
        feature=lambda y: adversary.feature_loss(apply(audio), apply(y)),
        l1=lambda y: losses.l1(audio, y, relative=config.loss.relative_l1),
        mel=lambda y: losses.multi_scale_mel(flat(audio), flat(y), config.model.sample_rate),
    )
    old = state.collections["balancer"]
    weight = 0.7 * old["weight"] + 1
    norms, factors, metrics = {}, {}, {}
    total = sum(config.loss[name] for name in terms)
    for name, term in terms.items():
        metrics[name], g = jax.jit(jax.value_and_grad(term))(decoded)
        each = np.mean([np.sqrt(np.sum(np.square(item))) for item in np.asarray(g)])
        norms[name] = 0.7 * old["norms"][name] + each
        factors[name] = config.loss[name] / total / (norms[name] / weight + 1e-12)
        metrics[f"gradient_norm/{name}"] = norms[name] / weight
    found["balancer"] = dict(norms=norms, weight=weight)
    metrics["loss"] = sum(factors[name] * metrics[name] for name in terms)

    # The whole loss without the new term, the new term, and their gradients.
    def whole(p):
        y, commitment, *_ = reconstruct(p)
        balanced = sum(factors[name] * term(y) for name, term in terms.items())
        return balanced * 6 / len(audio) + config.loss.commitment * commitment

    def new_term(encoder):
        return independence_term(
            config, codec, encoder, params, embed, batch, history, loss_key, active
        )

    gradient = jax.jit(jax.grad(whole))(params)
    value, term = jax.jit(jax.value_and_grad(new_term))(params["encoder"])
    length = lambda tree: np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree)))
    if settings.share:
        scale = settings.share * length(gradient["encoder"]) / (length(term) + 1e-12)
    else:
        scale = settings.weight
    begin = config.quantizer.warmup_steps
    scale *= min(1, (int(state.step) - begin + 1) / max(1, settings.warmup_steps))
    metrics |= dict(
        independence=value,
        independence_gradient_ratio=scale * length(term) / length(gradient["encoder"]),
        commitment=commitment,
        discriminator=hinge_value,
    )
    gradient["encoder"] = jax.tree.map(lambda g, t: g + scale * t, gradient["encoder"], term)
    found["generator"], found["generator mu"], found["generator nu"] = adam(
        config, params, state.opt_state["generator"][0], gradient
    )
    found["ema"] = jax.tree.map(lambda a, p: 0.8 * a + 0.2 * p, state.ema, found["generator"])
    found["codebook"], replaced = update_codebook(
        config, state.collections["codebook"], inputs, codes, expire_key, active
    )
    return found, metrics, replaced


def test_a_step_is_that_of_the_reference(x64, config):
    task, state, _ = start(config)
    state = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, state)
    read = lambda i: jax.tree.map(
        lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, task.dataset[i]
    )
    history = jax.tree.map(lambda *x: np.stack(x), read(4), read(5))
    joined = config.loss.independence.macro_batch > 1
    batch = dict(current=read(5), history=history) if joined else read(5)
    step = jax.jit(task.programs["codec_independence"])
    # From a state whose averages and moments are not those of the start.
    for number in range(2):
        state, _ = step(state, batch, jax.random.key(number))
    assert int(state.step) == config.quantizer.warmup_steps + 2
    keys = (jax.random.key(seed) for seed in range(11, 99))
    if config.quantizer.dropout:
        key = next(key for key in keys if active_codebooks(config, key) == 2)
    else:
        key = next(keys)
    after, metrics = step(state, batch, key)
    found, expected, replaced = reference(config, state, read(5), history, key)
    assert replaced
    adam_state = {name: after.opt_state[name][0] for name in after.opt_state}
    names = {
        "discriminator": after.params["discriminator"],
        "discriminator mu": adam_state["discriminator"].mu,
        "generator": after.params["generator"],
        "generator mu": adam_state["generator"].mu,
        "generator nu": adam_state["generator"].nu,
        "ema": after.ema,
        "codebook": after.collections["codebook"],
        "balancer": after.collections["balancer"],
    }
    assert names.keys() == found.keys()
    for name, tree in names.items():
        close(found[name], tree, name)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-7, err_msg=name)
    assert int(after.step) == int(state.step) + 1


def close(expected, found, name):
    pairs = zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(found), strict=True)
    for (path, a), b in pairs:
        where = name + jax.tree_util.keystr(path)
        assert np.linalg.norm(np.asarray(a) - b) <= 1e-7 * np.linalg.norm(a) + 1e-14, where
