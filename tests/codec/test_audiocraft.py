"""Training's parts give what audiocraft 1.3.0 gives (outputs of golden/make_audiocraft.py)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import audiocraft_cases as cases

from indep_jax.codec import balancer, discriminator, quantizer
from indep_jax.signal import losses


@pytest.fixture(scope="module")
def golden():
    with np.load(pathlib.Path(__file__).parents[1] / "golden/audiocraft.npz") as arrays:
        return dict(arrays)


def assert_close(ours, theirs, tolerance=2e-5):
    """RMS of the difference within the tolerance of the RMS; float32 on both sides."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    error = np.sqrt(np.mean((ours - theirs) ** 2) / np.mean(theirs**2))
    assert error < tolerance, error


def waves(*names, time=1_600):
    return [jnp.asarray(cases.wave(name, time)).swapaxes(1, 2) for name in names]


@pytest.fixture(scope="module")
def adversary():
    params = {}
    for n_fft in cases.N_FFTS:
        layers = cases.discriminator_weights(n_fft)
        names = [f"conv_{i}" for i in range(len(layers) - 1)] + ["conv_out"]
        params[f"stft_{n_fft}"] = dict(zip(names, layers))
    module = discriminator.Discriminator(cases.FILTERS, cases.N_FFTS)
    return jax.jit(lambda x: module.apply(dict(params=params), x))


def test_discriminator_outputs_and_feature_maps(golden, adversary):
    (real,) = waves("real")
    for n_fft, (logits, features) in zip(cases.N_FFTS, adversary(real), strict=True):
        assert_close(logits, golden[f"discriminator/{n_fft}/logits"])
        assert len(features) == cases.DISCRIMINATOR_LAYERS - 1
        for number, feature in enumerate(features):
            assert_close(feature, golden[f"discriminator/{n_fft}/{number}"])


def test_adversarial_losses_and_their_gradients(golden, adversary):
    real, fake = waves("real", "fake")
    hinge = discriminator.discriminator_loss(adversary(real), adversary(fake))
    assert_close(hinge, golden["hinge"])
    terms = dict(
        adversarial=lambda y: discriminator.adversarial_loss(adversary(y)),
        feature=lambda y: discriminator.feature_loss(adversary(real), adversary(y)),
    )
    for name, term in terms.items():
        value, gradient = jax.value_and_grad(term)(fake)
        assert_close(value, golden[name])
        assert_close(gradient.swapaxes(1, 2), golden[f"{name}/gradient"], 1e-4)


def test_balancer_over_several_steps(golden):
    state = balancer.init(cases.BALANCER_WEIGHTS)
    for step in range(cases.BALANCER_STEPS):
        y, x = (jnp.asarray(array) for array in cases.balancer_input(step))
        gradients = jax.jacrev(lambda y, x=x: cases.balancer_losses(y, x, jnp))(y)
        state, joined, _ = balancer.combine(
            state, gradients, cases.BALANCER_WEIGHTS, decay=cases.BALANCER_DECAY
        )
        assert_close(joined, golden[f"balancer/{step}"])


def test_multi_scale_mel_loss_and_its_gradient(golden):
    real, fake = waves("real", "fake", time=4_001)

    def loss(y):
        return losses.multi_scale_mel(real[..., 0], y, cases.SAMPLE_RATE)

    value, gradient = jax.value_and_grad(loss)(fake[..., 0])
    assert_close(value, golden["mel"])
    # Both compute the smallest bins, which the logarithm weighs most, from rounded sums.
    assert_close(gradient[:, None], golden["mel/gradient"], 1e-4)


def test_codebook_update(golden):
    book = {name: jnp.asarray(value)[None] for name, value in cases.codebook().items()}
    for step in range(cases.EMA_STEPS):
        rows = jnp.asarray(cases.code_rows(step))[None]
        quantized = quantizer.quantize(book, rows)
        book = quantizer.update(
            book, quantized.inputs, quantized.codes, jax.random.key(0),
            decay=cases.EMA_DECAY, expire_below=0.0,
        )  # fmt: skip
        for name, value in book.items():
            assert_close(value[0], golden[f"codebook/{step}/{name}"])
