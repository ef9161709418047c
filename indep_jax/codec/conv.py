"""1-D convolutions of EnCodec: padded to keep whole frames, weight-normalised, polyphase.

Arrays are [batch, time, channels]. Strided and transposed convolutions always have kernel
2 * stride here, as in SEANet, and run as a two-tap convolution on blocks of `stride` frames
folded into channels: the same values, and gradients that stay on the fast path of every backend
(XLA on CPU is tens of times slower with input or kernel dilation).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from indep_jax.signal.stft import at_least_float32

_uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def pad(x_BxTxC, left: int, right: int, mode: str):
    """Pad time; `mode` is constant (zeros) or reflect.

    A reflection longer than the signal first extends the signal with zeros and drops the surplus
    afterwards, as EnCodec does for very short inputs.
    """
    if mode == "constant" or left == right == 0:
        return jnp.pad(x_BxTxC, ((0, 0), (left, right), (0, 0)))
    extra = max(0, max(left, right) - x_BxTxC.shape[1] + 1)
    x_BxTxC = jnp.pad(x_BxTxC, ((0, 0), (0, extra), (0, 0)))
    x_BxTxC = jnp.pad(x_BxTxC, ((0, 0), (left, right), (0, 0)), mode="reflect")
    return x_BxTxC[:, : x_BxTxC.shape[1] - extra]


def convolve(x_BxTxC, kernel_KxCxF, dilation: int = 1):
    """Return the valid cross-correlation over time, [batch, time - dilation * (K - 1), F]."""
    taps, channels, features = kernel_KxCxF.shape
    time = x_BxTxC.shape[1] - dilation * (taps - 1)
    # Two cases in which XLA on CPU is slow with a convolution; accelerators are indifferent.
    if channels == 1 or time < channels:
        shifted = [x_BxTxC[:, i * dilation : i * dilation + time] for i in range(taps)]
        if channels == 1:  # a convolution takes ten times as long as this matrix product
            return jnp.concatenate(shifted, axis=-1) @ kernel_KxCxF.reshape(taps, features)
        # The kernel is larger than the signal, and its gradient would be transposed several times.
        exact = jnp.promote_types(x_BxTxC.dtype, jnp.float32)
        products = [
            jnp.matmul(x, kernel, preferred_element_type=exact)
            for x, kernel in zip(shifted, kernel_KxCxF)
        ]
        return sum(products).astype(x_BxTxC.dtype)
    return jax.lax.conv_general_dilated(
        x_BxTxC,
        kernel_KxCxF,
        window_strides=(1,),
        padding="VALID",
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )


class _Weight(nn.Module):
    """The kernel of a convolution, direct or as weight norm's direction and gain.

    shape [taps, in, out]. The gain has one entry per channel of `gain_axis`: the output for a
    convolution, the input for a transposed one (PyTorch's weight_norm with dim=0 on its
    layouts of both).
    """

    norm: str
    gain_axis: int = 2

    @nn.compact
    def __call__(self, shape):
        # PyTorch's default, uniform in +-1/sqrt(fan_in); its fan-in of a transposed convolution
        # counts output channels.
        def init(key, shape, dtype=jnp.float32):
            if self.gain_axis == 1:
                return _uniform_fan_in(key, (shape[0], shape[2], shape[1]), dtype).swapaxes(1, 2)
            return _uniform_fan_in(key, shape, dtype)

        if self.norm != "weight_norm":
            return self.param("kernel", init, shape)
        direction = self.param("direction", init, shape)
        axes = (0, 3 - self.gain_axis)

        def length(kernel):
            return jnp.sqrt(jnp.sum(jnp.square(kernel), axis=axes, keepdims=True))

        gain = self.param(
            "gain", lambda _: length(direction).reshape(shape[self.gain_axis]).astype(jnp.float32)
        )
        gain = gain[:, None] if self.gain_axis == 1 else gain
        return direction * (gain / length(direction))

    def rescale(self, factor):
        """Multiply the weight by `factor` ([out], or a scalar if transposed)."""
        name = "gain" if self.norm == "weight_norm" else "kernel"
        self.put_variable("params", name, self.get_variable("params", name) * factor)


class TimeGroupNorm(nn.Module):
    """Mean 0 and variance 1 of each item over time and channels, then a gain and bias per channel.

    PyTorch's GroupNorm of one group. [batch, time, channels] -> the same.
    """

    @nn.compact
    def __call__(self, x_BxTxC):
        shape = x_BxTxC.shape[-1:]
        gain = self.param("gain", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        x = at_least_float32(x_BxTxC)
        x = x - jnp.mean(x, axis=(1, 2), keepdims=True)
        variance = jnp.mean(jnp.square(x), axis=(1, 2), keepdims=True)
        return (gain * (x * jax.lax.rsqrt(variance + 1e-5)) + bias).astype(x_BxTxC.dtype)


class Conv(nn.Module):
    """Convolution whose output has ceil(time / stride) frames.

    [batch, time, in] -> [batch, ceil(time / stride), features]. `causal` pads on the left only.
    `norm` is of the weight (weight_norm), of the output (time_group_norm), or none.
    `init_std` above 0 starts from the data: `init` gives every output channel that standard
    deviation, and mean 0, on the batch it sees (Salimans & Kingma 2016, section 3).
    """

    features: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    causal: bool = False
    pad_mode: str = "constant"
    norm: str = "weight_norm"
    dtype: jnp.dtype = jnp.float32
    init_std: float = 0.0

    @nn.compact
    def __call__(self, x_BxTxC):
        channels = x_BxTxC.shape[-1]
        weight = _Weight(self.norm, name="weight")
        kernel = weight((self.kernel_size, channels, self.features))
        bias = self.param("bias", _bias_init(self.kernel_size * channels), (self.features,))
        total = (self.kernel_size - 1) * self.dilation + 1 - self.stride
        right = 0 if self.causal else total // 2
        extra = -x_BxTxC.shape[1] % self.stride
        padding = total - right, right + extra
        x = x_BxTxC.astype(self.dtype)
        kernel = kernel.astype(self.dtype)
        if self.stride > 1 and self.pad_mode == "constant":
            # Not jnp.pad, which XLA on CPU joins with the activation before it, in a loop that has
            # a branch for every sample. (Without a stride it is part of the convolution.)
            before, after = (jnp.zeros((len(x), n, channels), x.dtype) for n in padding)
            x = jnp.concatenate([before, x, after], axis=1)
        else:
            x = pad(x, *padding, self.pad_mode)
        if self.stride > 1:
            _require_double_stride(self.kernel_size, self.stride)
            x = x.reshape(x.shape[0], -1, self.stride * channels)
            kernel = kernel.reshape(2, self.stride * channels, self.features)
        y = convolve(x, kernel, self.dilation)
        if self.init_std and self.is_initializing():
            exact = y.astype(jnp.float32)
            factor = self.init_std / (jnp.std(exact, axis=(0, 1)) + 1e-6)
            bias = -factor * jnp.mean(exact, axis=(0, 1))
            weight.rescale(factor)
            self.put_variable("params", "bias", bias)
            y = factor.astype(self.dtype) * y
        y = y + bias.astype(self.dtype)
        if self.norm == "time_group_norm":
            y = TimeGroupNorm(name="time_group_norm")(y)
        return y


class ConvTranspose(nn.Module):
    """Transposed convolution: [batch, time, in] -> [batch, time * stride, features].

    The full output is `stride` samples longer; they are trimmed on the right when causal, else
    half on each side (the larger half left). `init_std` as in Conv, of all channels together: the
    gains belong to the input's.
    """

    features: int
    stride: int
    causal: bool = False
    norm: str = "weight_norm"
    dtype: jnp.dtype = jnp.float32
    init_std: float = 0.0

    @nn.compact
    def __call__(self, x_BxTxC):
        batch, time, channels = x_BxTxC.shape
        taps = 2 * self.stride
        weight = _Weight(self.norm, gain_axis=1, name="weight")
        kernel = weight((taps, channels, self.features))
        bias = self.param("bias", _bias_init(taps * self.features), (self.features,))
        # Output block m, of `stride` samples, is x[m] through the kernel's first half plus
        # x[m - 1] through its second.
        halves = kernel.astype(self.dtype).reshape(2, self.stride, channels, self.features)
        two_taps = halves[::-1].swapaxes(1, 2).reshape(2, channels, self.stride * self.features)
        x = jnp.pad(x_BxTxC.astype(self.dtype), ((0, 0), (1, 1), (0, 0)))
        y = convolve(x, two_taps).reshape(batch, (time + 1) * self.stride, self.features)
        left = 0 if self.causal else self.stride - self.stride // 2
        kept = slice(left, left + time * self.stride)
        if self.norm == "time_group_norm":  # of the full output
            return TimeGroupNorm(name="time_group_norm")(y + bias.astype(self.dtype))[:, kept]
        y = y[:, kept]
        if self.init_std and self.is_initializing():
            exact = y.astype(jnp.float32)
            mean = jnp.mean(exact, axis=(0, 1))
            factor = self.init_std / (jnp.std(exact - mean) + 1e-6)
            bias = -factor * mean
            weight.rescale(factor)
            self.put_variable("params", "bias", bias)
            y = factor.astype(self.dtype) * y
        return y + bias.astype(self.dtype)


def _bias_init(fan_in: int):
    bound = fan_in**-0.5
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def _require_double_stride(kernel_size: int, stride: int):
    if kernel_size != 2 * stride:
        raise ValueError(
            f"a convolution of stride {stride} needs kernel {2 * stride}, not {kernel_size}"
        )
