"""Signals of any length through the codec, in the memory of one window.

Neighbouring windows overlap by as many frames as a convolution can see, and the overlap is dropped;
the LSTMs, which see everything before, hand their state from window to window. So the result is that
of the whole signal at once, to rounding, but for its last frames: there the whole computation pads
every layer, and this one hears silence (`Plan.context` frames; tests/inference/test_streaming.py).
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from indep_jax.codec.model import Codec
from indep_jax.codec.seanet import Window

# One window through the module: (carry, input, ..., window=) to (result with a batch of 1, carry). The
# first window's carry is empty.
Program = Callable[..., tuple[jax.Array, Any]]


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


def encode(
    plan: Plan,
    program: Program,
    read: Callable[[int, int], np.ndarray],
    frames: int,
    hop: int,
) -> Iterator[np.ndarray]:
    """Yield the codes [frames, codebooks] of a signal, window by window.

    program: Codec.encode_window, called as program(carry, [1, samples, channels], window=).
    read: read(start, count) returns samples [count, channels], zeros behind the end.
    frames: of the signal, each of `hop` samples.
    """
    carry: Any = {}
    for span in plan.spans(frames):
        x_TxC = np.asarray(read(span.start * hop, plan.frames * hop), np.float32)
        codes, carry = program(carry, x_TxC[None], window=span.window)
        yield np.asarray(codes)[0, span.first - span.start : span.last - span.start]


def decode(plan: Plan, program: Program, codes_TxK: np.ndarray, hop: int) -> Iterator[np.ndarray]:
    """Yield the waveform [samples, channels] of codes, window by window.

    program: Codec.decode_window, called as program(carry, [1, frames, codebooks], frames of these
        that are codes, window=). All windows have one shape, so one program serves all lengths.
    """
    carry: Any = {}
    for span in plan.spans(len(codes_TxK)):
        piece = codes_TxK[span.start : span.start + plan.frames].astype(np.int32)
        padded = np.pad(piece, ((0, plan.frames - len(piece)), (0, 0)))[None]
        wave, carry = program(carry, padded, np.int32(len(piece)), window=span.window)
        yield np.asarray(wave)[0, hop * (span.first - span.start) : hop * (span.last - span.start)]


def decode_arriving(
    plan: Plan, program: Program, blocks: Iterable[np.ndarray], hop: int
) -> Iterator[np.ndarray]:
    """Yield the waveform [samples, channels] of codes that arrive in blocks [frames, codebooks].

    A sample is given once `plan.context` frames behind it, or the end, have arrived. The last window
    is as short as what is left, so that the end is that of the whole computation.
    """
    pending, start, carry = None, 0, {}
    for block in itertools.chain(blocks, [None]):
        ended = block is None
        if not ended:
            block = np.asarray(block, np.int32)
            pending = block if pending is None else np.concatenate([pending, block])
        elif pending is None:
            return
        while len(pending) > plan.frames or (ended and len(pending)):
            total = start + len(pending)
            span = plan.span(start, total)
            piece = pending[: plan.frames]
            window = span.window._replace(keep=min(span.window.keep, len(piece)))
            wave, carry = program(carry, piece[None], np.int32(len(piece)), window=window)
            yield np.asarray(wave)[0, hop * (span.first - start) : hop * (span.last - start)]
            if span.last == total:
                return
            pending, start = pending[plan.stride :], start + plan.stride


def _residual_reach(codec: Codec) -> int:
    """Samples, at their own rate, that the residual blocks of one stage see."""
    dilations = (codec.dilation_base**j for j in range(codec.residual_layers))
    return sum((codec.residual_kernel - 1) * dilation for dilation in dilations)


def _plan(frames: int, unsettled: int, context: int) -> Plan:
    return Plan(max(frames, 3 * context), unsettled, context)
