"""A codec of one channel for stereo music."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.codec.model import Encoded
from indep_jax.inference.codec import LoadedCodec
from indep_jax.support.errors import UserError


class PairedCodec:
    """A codec of one channel, for each of two: as stereo MusicGen has it (Copet et al. 2023, 2.3).

    A Tokenizer whose codes are those of the left and the right channel by turns, [batch, frames,
    2 x codebooks]; its functions are those of LoadedCodec. Raises UserError for a codec of two
    channels, and for one that works in chunks or with levels.
    """

    channels = 2

    def __init__(self, mono: LoadedCodec):
        if mono.channels != 1:
            raise UserError(
                f"stereo tokens: expected a codec of 1 channel, this one has {mono.channels}"
            )
        if not mono.module.codes_suffice:
            raise UserError(
                "stereo tokens: expected a codec that works neither in chunks nor with levels"
            )
        self.mono, self.module, self.label = mono, mono.module, mono.label
        self.sample_rate, self.frame_rate = mono.sample_rate, mono.frame_rate
        self.codebooks, self.codebook_size = 2 * mono.codebooks, mono.codebook_size

    @property
    def code_vectors(self) -> jax.Array:
        """[2 x codebooks, codebook_size, dimension], in the order of the codes."""
        return jnp.repeat(self.mono.code_vectors, 2, axis=0)

    @property
    def fingerprint(self) -> str:
        """That of the codec, marked as one of a pair."""
        return f"paired {self.mono.fingerprint}"

    def encode(self, wave) -> Encoded:
        """Return the tokens of waveforms [batch, time, 2]."""
        wave = jnp.asarray(wave, jnp.float32)
        if wave.ndim != 3 or wave.shape[-1] != 2:
            raise UserError(f"wave: expected [batch, time, 2], not {list(wave.shape)}")
        sides = [self.mono.encode(wave[..., side : side + 1]) for side in range(2)]
        codes = jnp.stack([side.codes for side in sides], axis=-1)
        return Encoded(codes.reshape(*codes.shape[:2], -1), None, wave.shape[1])

    def decode(self, encoded, length: int | None = None) -> jax.Array:
        """Return waveforms [batch, length, 2] of what `encode` gave, or of a plain codes array."""
        if isinstance(encoded, Encoded):
            encoded, length = encoded.codes, encoded.length if length is None else length
        sides = [self.mono.decode(encoded[..., side::2], length) for side in range(2)]
        return jnp.concatenate(sides, axis=-1)

    def encode_long(
        self, read: Callable[[int, int], np.ndarray], length: int, seconds: float = 10.0
    ) -> Iterator[Encoded]:
        """Yield the tokens of a waveform of any length, in blocks; see Tokenizer."""
        once = functools.lru_cache(maxsize=1)(read)  # both sides ask for the same in turn
        sides = (
            self.mono.encode_long(
                lambda start, count, side=side: once(start, count)[:, side : side + 1],
                length,
                seconds,
            )
            for side in range(2)
        )
        for left, right in zip(*sides, strict=True):
            codes = np.stack([left.codes, right.codes], axis=-1)
            yield left._replace(codes=codes.reshape(len(codes), -1))

    def decode_long(self, encoded: Encoded, seconds: float = 10.0) -> Iterator[np.ndarray]:
        """Yield the waveform of tokens of any length, codes [frames, 2 x codebooks], in blocks."""
        sides = (
            self.mono.decode_long(encoded._replace(codes=encoded.codes[:, side::2]), seconds)
            for side in range(2)
        )
        for pair in zip(*sides, strict=True):
            yield np.concatenate(pair, axis=-1)

    def decode_stream(
        self, blocks: Iterable[np.ndarray], seconds: float = 1.0
    ) -> Iterator[np.ndarray]:
        """Yield the waveform of codes that arrive in blocks [frames, 2 x codebooks], as it settles."""
        sides = itertools.tee(blocks)
        streams = (
            self.mono.decode_stream((block[:, side::2] for block in copy), seconds)
            for side, copy in enumerate(sides)
        )
        for pair in zip(*streams, strict=True):
            yield np.concatenate(pair, axis=-1)
