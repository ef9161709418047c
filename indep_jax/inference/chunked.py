"""Codecs that work in chunks, or need a whole signal at once, as EnCodec 48 kHz."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.codec import chunks
from indep_jax.codec.model import Encoded
from indep_jax.inference.codec import LoadedCodec, check_length
from indep_jax.support.errors import UserError

AT_ONCE = 8  # chunks of one size that are computed in one go


class ChunkedCodec(LoadedCodec):
    """A codec whose chunks are encoded apart, each divided by its level (codec/chunks.py).

    Its codes alone do not decode: that takes the levels and the length as well, which Encoded holds.
    Where the config has no chunks (normalize or time_group_norm alone), a signal is one chunk.
    """

    windowed = False

    def encode(self, wave) -> Encoded:
        """Return the tokens of waveforms [batch, time, channels]; see LoadedCodec.encode."""
        wave = self._checked_wave(wave)
        codes, scales = [], []
        for run in _runs(chunks.spans(self.module, wave.shape[1]), lambda span: span[1] - span[0]):
            same = [wave[:, first:last] for first, last in run]
            found = self._encode(self.variables, jnp.concatenate(same))
            codes += jnp.split(found[0], len(same))
            if self.module.normalize:
                scales += jnp.split(found[1], len(same))
        return Encoded(
            codes=jnp.concatenate(codes, axis=1),
            scales=jnp.concatenate(scales, axis=1) if scales else None,
            length=wave.shape[1],
        )

    def decode(self, encoded, length: int | None = None) -> jax.Array:
        """Return waveforms [batch, length, channels] of what `encode` gave; see LoadedCodec.decode.

        Raises UserError also for a plain codes array, where the codec has chunks or levels, and for
        codes or scales that are not those of so long a waveform.
        """
        if self.module.codes_suffice:
            return super().decode(encoded, length)
        if not isinstance(encoded, Encoded):
            raise UserError("codes: this codec works in chunks: give decode what encode gave")
        codes = self._checked_codes(encoded.codes)
        length = encoded.length if length is None else length
        check_length(length, encoded.length)
        blocks = list(self._decode_chunks(codes, encoded.scales, encoded.length))
        return jnp.concatenate(blocks, axis=1)[:, :length]

    def encode_long(self, read: Callable[[int, int], np.ndarray], length: int) -> Iterator[Encoded]:
        """Yield the tokens of a waveform of any length, a block for each chunk; see Tokenizer."""
        for first, last in chunks.spans(self.module, length):
            x = jnp.asarray(read(first, last - first), jnp.float32)[None]
            codes, scales = jax.tree.map(
                lambda x: np.asarray(x)[0], self._encode(self.variables, x)
            )
            yield Encoded(codes, scales, last - first)

    def decode_long(self, encoded: Encoded) -> Iterator[np.ndarray]:
        """Yield the waveform of tokens of any length, in blocks [samples, channels].

        encoded: without the batch axis: codes [frames, codebooks], scales [chunks] or None.
        """
        codes, scales, left = encoded
        scales = None if scales is None else scales[None]
        for block in self._decode_chunks(codes[None].astype(np.int32), scales, left):
            yield block[0, :left]
            left -= len(block[0, :left])

    def decode_stream(
        self, blocks: Iterable[np.ndarray], seconds: float = 1.0
    ) -> Iterator[np.ndarray]:
        """Yield the waveform of codes that arrive in blocks, once all of them are there."""
        yield np.asarray(self.decode(np.concatenate(list(blocks))[None]))[0]

    def _decode_chunks(self, codes: np.ndarray, scales, length: int) -> Iterator[np.ndarray]:
        """The chunks of a waveform of `length` samples, each with its level, joined, in blocks."""
        starts = [first for first, _ in chunks.spans(self.module, length)]
        frames = chunks.frames(self.module, length)
        if sum(frames) != codes.shape[1]:
            raise UserError(
                f"codes: expected {sum(frames)} frames for {length} samples, not {codes.shape[1]}"
            )
        if not self.module.normalize:
            scales = np.ones((len(codes), len(frames)), np.float32)
        if np.shape(scales) != (len(codes), len(frames)):
            raise UserError(
                f"scales: expected those that encode gave, {[len(codes), len(frames)]}, "
                f"not {list(np.shape(scales))}"
            )
        pieces = np.split(codes, np.cumsum(frames)[:-1], axis=1)
        levels = np.split(np.asarray(scales), len(frames), axis=1)

        def waves():
            for run in _runs(zip(pieces, levels), lambda pair: pair[0].shape[1]):
                same = [np.concatenate(parts) for parts in zip(*run)]
                yield from np.split(np.asarray(self._decode(self.variables, *same)), len(run))

        return chunks.join(waves(), starts)


def _runs(items: Iterable, size: Callable) -> Iterator[list]:
    """Items that follow each other and have the same `size`, some at a time, to compute in one go."""
    for _, run in itertools.groupby(items, size):
        while some := list(itertools.islice(run, AT_ONCE)):
            yield some
