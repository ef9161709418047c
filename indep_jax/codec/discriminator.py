"""Multi-scale STFT discriminator and adversarial losses (EnCodec, section 3.4)."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from indep_jax.signal import stft


class Conv2D(nn.Module):
    """Weight-normalised 2-D convolution on [batch, frames, bins, channels], zero-padded to keep
    the frames, and the bins divided by `stride`."""

    features: int
    kernel_size: tuple[int, int]
    stride: int = 1
    dilation: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        shape = (*self.kernel_size, x.shape[-1], self.features)
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        direction = self.param("direction", uniform, shape)

        def length(kernel):
            return jnp.sqrt(jnp.sum(jnp.square(kernel), axis=(0, 1, 2)))

        gain = self.param("gain", lambda _: length(direction))
        bound = (shape[0] * shape[1] * shape[2]) ** -0.5
        bias = self.param(
            "bias",
            lambda key, s: jax.random.uniform(key, s, jnp.float32, -bound, bound),
            (self.features,),
        )
        kernel = (direction * (gain / length(direction))).astype(self.dtype)
        x = x.astype(self.dtype)
        frames = (self.kernel_size[0] - 1) * self.dilation // 2
        bins = (self.kernel_size[1] - 1) // 2
        if self.stride > 1:
            x, kernel = _fold_stride(x, kernel, self.stride)
            bins //= self.stride
        # The zeros belong to the convolution: where it has none, XLA on CPU takes eight times as
        # long (jax 0.10.2), and several times for the kernel's gradient.
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(1, 1),
            padding=((frames, frames), (bins, bins)),
            rhs_dilation=(self.dilation, 1),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + bias.astype(self.dtype)


def _fold_stride(x, kernel, stride: int):
    """Return x and kernel of a convolution strided over bins as those of an unstrided one.

    `stride` bins become channels; the kernel is padded with zeros to whole groups. The values are
    the same, but the gradient of a strided convolution is off XLA's fast path on CPU. For kernels of
    2 * n * stride + 1 taps, whose n * stride zeros at either end become n groups.
    """
    bins, taps = -x.shape[2] % stride, -kernel.shape[1] % stride
    x = jnp.pad(x, ((0, 0), (0, 0), (0, bins), (0, 0)))
    kernel = jnp.pad(kernel, ((0, 0), (0, taps), (0, 0), (0, 0)))
    return (
        x.reshape(*x.shape[:2], -1, stride * x.shape[3]),
        kernel.reshape(kernel.shape[0], -1, stride * kernel.shape[2], kernel.shape[3]),
    )


class STFTDiscriminator(nn.Module):
    """One scale: [batch, time, channels] -> (logits [batch, frames, bins, 1], feature maps).

    The real and imaginary parts of the window-normalised STFT (hop n_fft / 4), each a channel per
    audio channel, through a 3 x 9 convolution, three more that halve the bins with dilations
    1, 2, 4 over frames, a 3 x 3, each with LeakyReLU 0.3, and a last 3 x 3.
    """

    filters: int
    n_fft: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxC):
        spectra = [
            stft.stft(x_BxTxC[..., c], self.n_fft, self.n_fft // 4, normalized=True)
            for c in range(x_BxTxC.shape[-1])
        ]
        z = jnp.stack([s.real for s in spectra] + [s.imag for s in spectra], axis=-1)
        features = []
        layers = [((3, 9), 1, 1), ((3, 9), 2, 1), ((3, 9), 2, 2), ((3, 9), 2, 4), ((3, 3), 1, 1)]
        for i, (kernel_size, stride, dilation) in enumerate(layers):
            conv = Conv2D(self.filters, kernel_size, stride, dilation, self.dtype, name=f"conv_{i}")
            z = nn.leaky_relu(conv(z), 0.3)
            features.append(z)
        return Conv2D(1, (3, 3), dtype=self.dtype, name="conv_out")(z), features


class Discriminator(nn.Module):
    """All scales: [batch, time, channels] -> a list of (logits, feature maps)."""

    filters: int
    n_ffts: Sequence[int]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxC):
        return [
            STFTDiscriminator(self.filters, n_fft, self.dtype, name=f"stft_{n_fft}")(x_BxTxC)
            for n_fft in self.n_ffts
        ]


def _mean32(x):
    return jnp.mean(stft.at_least_float32(x))


def discriminator_loss(real, fake):
    """Return the hinge loss of the discriminator, averaged over scales."""
    terms = [
        _mean32(nn.relu(1 - real_logits)) + _mean32(nn.relu(1 + fake_logits))
        for (real_logits, _), (fake_logits, _) in zip(real, fake)
    ]
    return sum(terms) / len(terms)


def adversarial_loss(fake):
    """Return the generator's adversarial loss: minus the mean logit, averaged over scales."""
    return sum(-_mean32(logits) for logits, _ in fake) / len(fake)


def feature_loss(real, fake):
    """Return the mean absolute difference of feature maps, averaged over layers and scales."""
    terms = [
        sum(_mean32(jnp.abs(r - f)) for r, f in zip(real_maps, fake_maps)) / len(real_maps)
        for (_, real_maps), (_, fake_maps) in zip(real, fake)
    ]
    return sum(terms) / len(terms)
