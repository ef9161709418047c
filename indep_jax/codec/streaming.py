"""Signals of any length through the codec, in the memory of one window.

Neighbouring windows overlap by as many frames as a convolution can see, and the overlap is dropped;
the LSTMs, which see everything before, hand their state from window to window. So the result is that
of the whole signal at once, to rounding, but for its last frames: there the whole computation pads
every layer, and this one hears silence (`Plan.context` frames; tests/inference/test_streaming.py).
"""

from collections.abc import Iterator
from typing import NamedTuple

from indep_jax.codec.model import Codec
from indep_jax.codec.seanet import Window


class Span(NamedTuple):
    """One window of a plan, in frames of the signal: it covers start to start + plan.frames, and
    its results from first to last are used. `window` is for the LSTMs."""

    start: int
    first: int
    last: int
    window: Window


class Plan(NamedTuple):
    """How a signal is cut, all in latent frames.

    frames: of a window. unsettled: at its start, which convolutions before the LSTM have computed
    from a cut signal. context: on both sides, which all layers together have.
    """

    frames: int
    unsettled: int
    context: int

    @property
    def stride(self) -> int:
        return self.frames - 2 * self.context

    def span(self, start: int, total: int) -> Span:
        """The window that begins at `start`, of a signal of `total` frames, or of more to come."""
        end = start + self.frames
        return Span(
            start,
            first=start + self.context if start else 0,
            last=total if end >= total else end - self.context,
            window=Window(self.unsettled if start else 0, self.stride + self.unsettled),
        )

    def spans(self, total: int) -> Iterator[Span]:
        """The windows of a signal of `total` frames, in order."""
        start = 0
        while True:
            span = self.span(start, total)
            yield span
            if span.last == total:
                return
            start += self.stride


def encoding_plan(codec: Codec, frames: int) -> Plan:
    """A plan for `encode_window` in windows of about `frames` frames, at least enough to advance."""
    samples, rate = codec.kernel - 1, 1
    for ratio in reversed(codec.ratios):
        samples += rate * (_residual_reach(codec) + 2 * ratio)
        rate *= ratio
    unsettled = -(-samples // codec.hop)
    return _plan(frames, unsettled, unsettled + codec.last_kernel - 1)


def decoding_plan(codec: Codec, frames: int) -> Plan:
    """A plan for `decode_window`; see encoding_plan."""
    unsettled = codec.kernel - 1
    samples, rate = codec.last_kernel - 1, codec.hop
    for ratio in codec.ratios:
        samples += 2 * rate  # a transposed convolution reads one frame to either side
        rate //= ratio
        samples += rate * _residual_reach(codec)
    return _plan(frames, unsettled, unsettled + -(-samples // codec.hop))


def _residual_reach(codec: Codec) -> int:
    """Samples, at their own rate, that the residual blocks of one stage see."""
    dilations = (codec.dilation_base**j for j in range(codec.residual_layers))
    return sum((codec.residual_kernel - 1) * dilation for dilation in dilations)


def _plan(frames: int, unsettled: int, context: int) -> Plan:
    return Plan(max(frames, 3 * context), unsettled, context)
