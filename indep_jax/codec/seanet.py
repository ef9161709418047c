"""SEANet encoder and decoder (Tagliasacchi et al. 2020; EnCodec, Défossez et al. 2022)."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from indep_jax.codec.conv import Conv, ConvTranspose


class Window(NamedTuple):
    """The frames of a window that the LSTMs compute; both count latent frames from its start.

    skip: the first frames, which earlier windows have fed to the LSTM, are left out (its output
    there is 0). keep: the next window starts from the state after this many frames.
    """

    skip: int
    keep: int


class LSTM(nn.Module):
    """One LSTM layer over time, [batch, time, features] -> the same shape, zero initial state.

    PyTorch's arrangement: gates in the order input, forget, cell, output and two biases.

    With `window` (see codec/streaming.py) it goes on from the state in the collection "carry", which
    must be mutable, and leaves there the state for the next window.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxH, window: Window | None = None):
        batch, _, features = x_BxTxH.shape
        bound = features**-0.5

        def uniform(key, shape):
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        input_kernel = self.param("input_kernel", uniform, (features, 4 * features))
        hidden_kernel = self.param("hidden_kernel", uniform, (features, 4 * features))
        input_bias = self.param("input_bias", uniform, (4 * features,))
        hidden_bias = self.param("hidden_bias", uniform, (4 * features,))
        x = x_BxTxH.astype(self.dtype)
        # The input's part of the gates has no recurrence: one matrix product for all steps.
        gates_BxTx4H = x @ input_kernel.astype(self.dtype)
        gates_BxTx4H += (input_bias + hidden_bias).astype(self.dtype)
        recurrent = hidden_kernel.astype(self.dtype)

        gates_TxBx4H = gates_BxTx4H.swapaxes(0, 1)
        zero = jnp.zeros((batch, features), self.dtype)
        if window is None:
            hidden_TxBxH, _ = _recurrence(recurrent, (zero, zero), gates_TxBx4H)
            return hidden_TxBxH.swapaxes(0, 1)
        carried = [self.variable("carry", name, lambda: zero) for name in ("hidden", "cell")]
        start = tuple(variable.value for variable in carried)
        states = _recurrence(recurrent, start, gates_TxBx4H[window.skip :])
        for variable, state_TxBxH in zip(carried, states, strict=True):
            variable.value = state_TxBxH[window.keep - window.skip - 1]
        return jnp.pad(states[0].swapaxes(0, 1), ((0, 0), (window.skip, 0), (0, 0)))


def _cell(gates_Bx4H, cell):
    """An LSTM's new (hidden, cell) from its gates (input, forget, cell, output) and the old cell."""
    i, f, g, o = jnp.split(gates_Bx4H, 4, axis=-1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


@jax.custom_vjp
def _recurrence(kernel_Hx4H, start, gates_TxBx4H):
    """All states, (hidden, cell) [time, batch, features] each, from `start` on.

    The gradient is its own: scan's would add up the kernel's in every step, which takes most of the
    time of a small model. Here each step gives the gates' gradient, and one matrix product at the
    end the kernel's.
    """

    def step(state, gates_Bx4H):
        hidden, cell = state
        state = _cell(gates_Bx4H + hidden @ kernel_Hx4H, cell)
        return state, state

    return jax.lax.scan(step, start, gates_TxBx4H)[1]


def _recurrence_forward(kernel_Hx4H, start, gates_TxBx4H):
    states = _recurrence(kernel_Hx4H, start, gates_TxBx4H)
    return states, (kernel_Hx4H, start, gates_TxBx4H, states)


def _recurrence_backward(residuals, cotangents):
    kernel_Hx4H, start, gates_TxBx4H, states = residuals
    before = jax.tree.map(lambda s, x: jnp.concatenate([s[None], x[:-1]]), start, states)
    # The gates as each step had them, all in one product.
    gates_TxBx4H = gates_TxBx4H + before[0] @ kernel_Hx4H
    transposed = kernel_Hx4H.T

    def step(gradient, inputs):
        gates_Bx4H, cell, outside = inputs
        _, backward = jax.vjp(_cell, gates_Bx4H, cell)
        to_gates, to_cell = backward(jax.tree.map(jnp.add, gradient, outside))
        return (to_gates @ transposed, to_cell), to_gates

    zero = jax.tree.map(jnp.zeros_like, start)
    to_start, to_gates = jax.lax.scan(
        step, zero, (gates_TxBx4H, before[1], cotangents), reverse=True
    )
    to_kernel = jnp.einsum("tbh,tbg->hg", before[0], to_gates)
    return to_kernel, to_start, to_gates


_recurrence.defvjp(_recurrence_forward, _recurrence_backward)


class ResidualLSTM(nn.Module):
    """A stack of LSTM layers with one skip connection around it."""

    layers: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxH, window: Window | None = None):
        y = x_BxTxH
        for i in range(self.layers):
            y = LSTM(self.dtype, name=f"layer_{i}")(y, window)
        return x_BxTxH + y


class ResidualBlock(nn.Module):
    """ELU, convolution to dim / compress, ELU, 1 x 1 convolution back, plus the skip."""

    kernel_size: int
    dilation: int
    compress: int
    conv_shortcut: bool
    conv: dict  # what every convolution of the network shares: see Conv

    @nn.compact
    def __call__(self, x_BxTxC):
        features = x_BxTxC.shape[-1]
        y = Conv(
            features // self.compress,
            self.kernel_size,
            dilation=self.dilation,
            name="conv_0",
            **self.conv,
        )(nn.elu(x_BxTxC))
        y = Conv(features, 1, name="conv_1", **self.conv)(nn.elu(y))
        if self.conv_shortcut:
            x_BxTxC = Conv(features, 1, name="shortcut", **self.conv)(x_BxTxC)
        return x_BxTxC + y


class Encoder(nn.Module):
    """[batch, time, channels] waveform -> [batch, ceil(time / hop), dimension] latents.

    `ratios` are in the decoder's order; the encoder applies them reversed.
    """

    n_filters: int
    ratios: Sequence[int]
    dimension: int
    residual_layers: int
    kernel: int
    residual_kernel: int
    last_kernel: int
    dilation_base: int
    compress: int
    lstm_layers: int
    conv_shortcut: bool
    conv: dict

    @nn.compact
    def __call__(self, x_BxTxC, window: Window | None = None):
        features = self.n_filters
        x = Conv(features, self.kernel, name="conv_in", **self.conv)(x_BxTxC)
        for i, ratio in enumerate(reversed(self.ratios)):
            for j in range(self.residual_layers):
                x = ResidualBlock(
                    self.residual_kernel,
                    self.dilation_base**j,
                    self.compress,
                    self.conv_shortcut,
                    self.conv,
                    name=f"residual_{i}_{j}",
                )(x)
            features *= 2
            x = Conv(features, 2 * ratio, ratio, name=f"down_{i}", **self.conv)(nn.elu(x))
        if self.lstm_layers:
            x = ResidualLSTM(self.lstm_layers, self.conv["dtype"], name="lstm")(x, window)
        return Conv(self.dimension, self.last_kernel, name="conv_out", **self.conv)(nn.elu(x))


class Decoder(nn.Module):
    """[batch, frames, dimension] latents -> [batch, frames * hop, channels] waveform."""

    channels: int
    n_filters: int
    ratios: Sequence[int]
    residual_layers: int
    kernel: int
    residual_kernel: int
    last_kernel: int
    dilation_base: int
    compress: int
    lstm_layers: int
    conv_shortcut: bool
    conv: dict

    @nn.compact
    def __call__(self, z_BxTxD, window: Window | None = None):
        features = self.n_filters * 2 ** len(self.ratios)
        x = Conv(features, self.kernel, name="conv_in", **self.conv)(z_BxTxD)
        if self.lstm_layers:
            x = ResidualLSTM(self.lstm_layers, self.conv["dtype"], name="lstm")(x, window)
        for i, ratio in enumerate(self.ratios):
            features //= 2
            x = ConvTranspose(
                features,
                ratio,
                self.conv["causal"],
                self.conv["norm"],
                self.conv["dtype"],
                self.conv["init_std"],
                name=f"up_{i}",
            )(nn.elu(x))
            for j in range(self.residual_layers):
                x = ResidualBlock(
                    self.residual_kernel,
                    self.dilation_base**j,
                    self.compress,
                    self.conv_shortcut,
                    self.conv,
                    name=f"residual_{i}_{j}",
                )(x)
        # Music in [-1, 1] has a standard deviation near 0.1.
        conv = {**self.conv, "init_std": 0.1 * self.conv["init_std"]}
        return Conv(self.channels, self.last_kernel, name="conv_out", **conv)(nn.elu(x))
