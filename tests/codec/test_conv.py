import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indep_jax.codec import conv, discriminator, model


def _apply(module, x, seed=0):
    variables = jax.jit(module.init)(jax.random.key(seed), x)
    # Biases and gains away from their initial values, so that each has to be used rightly.
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    params = jax.tree.unflatten(
        tree, [leaf + 0.3 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves)]
    )
    return params, jax.jit(module.apply)(dict(params=params), x)


def _kernel(params, gain_axis):
    weight = {name: np.asarray(value, np.float64) for name, value in params["weight"].items()}
    if "kernel" in weight:
        return weight["kernel"]
    other = (0, 3 - gain_axis)
    direction = weight["direction"]
    shape = [1, 1, 1]
    shape[gain_axis] = -1
    length = np.sqrt((direction**2).sum(axis=other, keepdims=True))
    return weight["gain"].reshape(shape) * direction / length


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((2, 23, 3)).astype(np.float32)


@pytest.mark.parametrize("norm", ["weight_norm", "none"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "kernel_size, stride, dilation", [(7, 1, 1), (3, 1, 4), (8, 4, 1), (10, 5, 1)]
)
def test_convolution_is_its_sum(x, kernel_size, stride, dilation, causal, norm):
    params, y = _apply(conv.Conv(5, kernel_size, stride, dilation, causal, norm=norm), x)
    kernel = _kernel(params, 2)
    span = (kernel_size - 1) * dilation + 1 - stride
    left = span if causal else span - span // 2
    frames = -(-x.shape[1] // stride)
    expected = np.zeros((2, frames, 5)) + np.asarray(params["bias"])
    for t in range(frames):
        for i in range(kernel_size):
            source = t * stride + i * dilation - left
            if 0 <= source < x.shape[1]:
                expected[:, t] += x[:, source] @ kernel[i]
    np.testing.assert_allclose(y, expected, atol=2e-5)


@pytest.mark.parametrize("norm", ["weight_norm", "none"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("stride", [2, 5])
def test_transposed_convolution_is_its_sum(x, stride, causal, norm):
    params, y = _apply(conv.ConvTranspose(4, stride, causal, norm=norm), x)
    kernel = _kernel(params, 1)
    full = np.zeros((2, (x.shape[1] + 1) * stride, 4))
    for t in range(x.shape[1]):
        for i in range(2 * stride):
            full[:, t * stride + i] += x[:, t] @ kernel[i]
    right = stride if causal else stride // 2
    expected = full[:, stride - right : full.shape[1] - right] + np.asarray(params["bias"])
    np.testing.assert_allclose(y, expected, atol=2e-5)


def test_single_channel_path_is_the_general_one():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 40, 1)), rng.standard_normal((5, 1, 3))
    doubled = conv.convolve(np.repeat(x, 2, axis=2), np.repeat(kernel, 2, axis=1) / 2, 3)
    np.testing.assert_allclose(conv.convolve(x, kernel, 3), doubled, atol=1e-5)


@pytest.mark.parametrize("time", [1, 2, 5, 40])
def test_reflection_is_numpys_also_when_longer_than_the_signal(time):
    x = np.random.default_rng(0).standard_normal((1, time, 2))
    padded = conv.pad(jnp.asarray(x), 4, 7, "reflect")
    extended = np.pad(x, ((0, 0), (0, max(0, 8 - time)), (0, 0)))
    expected = np.pad(extended, ((0, 0), (4, 7), (0, 0)), mode="reflect")
    np.testing.assert_allclose(padded, expected[:, : time + 11], atol=1e-6)


def test_stride_without_double_kernel_is_refused(x):
    with pytest.raises(ValueError, match="kernel 8, not 7"):
        conv.Conv(4, 7, 4).init(jax.random.key(0), x)


@pytest.mark.parametrize("width", [17, 18])
@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (2, 4)])
def test_discriminator_convolution_is_its_sum(stride, dilation, width):
    x = np.random.default_rng(0).standard_normal((1, 11, width, 2)).astype(np.float32)
    params, y = _apply(discriminator.Conv2D(3, (3, 9), stride, dilation), x)
    direction = np.asarray(params["direction"], np.float64)
    kernel = direction * np.asarray(params["gain"])
    kernel /= np.sqrt((direction**2).sum(axis=(0, 1, 2)))
    bins = -(-width // stride)
    expected = np.zeros((1, 11, bins, 3)) + np.asarray(params["bias"])
    for f in range(11):
        for b in range(bins):
            for i in range(3):
                for j in range(9):
                    row, column = f + (i - 1) * dilation, b * stride + j - 4
                    if 0 <= row < 11 and 0 <= column < width:
                        expected[:, f, b] += x[:, row, column] @ kernel[i, j]
    np.testing.assert_allclose(y, expected, atol=2e-5)


TINY = dict(
    sample_rate=800,
    channels=1,
    causal=False,
    n_filters=2,
    ratios=(4, 2),
    dimension=6,
    residual_layers=1,
    kernel=7,
    residual_kernel=3,
    last_kernel=7,
    dilation_base=2,
    compress=2,
    lstm_layers=1,
    pad_mode="reflect",
    conv_shortcut=True,
    norm="none",
)


@pytest.mark.parametrize("time", [1, 7, 8, 9, 50])
def test_codec_gives_back_the_length(time):
    codec = model.from_config(TINY, 2, 4)
    x = jnp.ones((1, time, 1))

    def both(x):
        variables = codec.init(jax.random.key(0), x)
        return codec.apply(variables, x, method="encode").codes, codec.apply(variables, x)

    codes, decoded = jax.jit(both)(x)
    assert decoded.shape == x.shape
    assert codes.shape == (1, -(-time // 8), 2)


def test_causal_codec_does_not_look_ahead_and_the_other_does():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 80, 1)), jnp.float32)
    for causal in (True, False):
        codec = model.from_config({**TINY, "causal": causal, "pad_mode": "constant"}, 2, 4)
        variables = jax.jit(codec.init)(jax.random.key(0), x)

        def reach(x):
            z = codec.apply(variables, x, method="latents")
            return codec.apply(variables, z, method="synthesize")[0, :40].sum()

        gradient = np.asarray(jax.jit(jax.grad(reach))(x))[0, :, 0]
        assert np.any(gradient[:40] != 0)
        assert np.any(gradient[40:] != 0) != causal


@pytest.mark.parametrize("norm", ["weight_norm", "none"])
def test_starting_from_data_gives_outputs_the_wanted_scale(norm):
    x = 0.01 * jnp.asarray(np.random.default_rng(0).standard_normal((2, 400, 3)), jnp.float32) + 1
    for stride in (1, 4):
        module = conv.Conv(5, 2 * stride, stride, norm=norm, init_std=0.5)
        variables = module.init(jax.random.key(0), x)
        y = module.apply(variables, x)
        np.testing.assert_allclose(y.mean((0, 1)), 0, atol=1e-4)
        np.testing.assert_allclose(y.std((0, 1)), 0.5, rtol=1e-3)
    module = conv.ConvTranspose(5, 4, norm=norm, init_std=0.5)
    y = module.apply(module.init(jax.random.key(0), x), x)
    np.testing.assert_allclose(y.mean((0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(jnp.sqrt(y.var((0, 1)).mean()), 0.5, rtol=1e-3)


def test_a_codec_started_from_data_begins_at_the_scale_of_music():
    x = 0.02 * jnp.asarray(np.random.default_rng(0).standard_normal((2, 800, 1)), jnp.float32)
    codec = model.from_config({**TINY, "norm": "weight_norm", "init_std": 1.0}, 2, 4)
    variables = jax.jit(codec.init)(jax.random.key(0), x)

    @jax.jit
    def run(variables):
        z = codec.apply(variables, x, method="latents")
        return z, codec.apply(variables, z, method="synthesize")

    z, y = run(variables)
    np.testing.assert_allclose(z.std((0, 1)), 1, rtol=1e-3)
    np.testing.assert_allclose(y.std(), 0.1, rtol=1e-3)


@pytest.mark.parametrize(
    "field, value",
    [
        ("init_std", -1.0),
        ("ratios", (4, 1)),
        ("pad_mode", "same"),
        ("norm", "batch"),
        ("channels", 0),
    ],
)
def test_impossible_models_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"model.{field}"):
        model.from_config({**TINY, field: value}, 2, 4)
