"""A codec with its weights: arrays and signals of any length to tokens, and back."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.codec import model, streaming
from indep_jax.codec.model import Encoded
from indep_jax.hub import encodec
from indep_jax.support.errors import UserError


class LoadedCodec:
    """A codec with its weights, a Tokenizer. Functions are compiled once for each shape of input.

    config: plain data, at least the sections dtype, model and quantizer; `origin`, where its first
        weights come from, if they were not random (see hub.folders.origin).
    sample_rate: Hz. channels: of waveforms. frame_rate: frames per second (float).
    codebooks, codebook_size: tokens of a frame and the values each can have.
    step: of the run that it was trained in; 0 for none. label: its name in reports.

    For codecs whose frames depend on their surroundings alone; ChunkedCodec is for the others, and
    load.from_config makes whichever a config asks for.
    """

    windowed = True

    def __init__(
        self,
        config: Mapping[str, Any],
        variables: Mapping[str, Any],
        dtype: str | None = None,
        step: int = 0,
        label: str = "",
    ):
        self.config, self.step, self.label = config, step, label
        sizes = {name: config["quantizer"][name] for name in ("codebooks", "codebook_size")}
        self.module = model.from_config(config["model"], **sizes, dtype=dtype or config["dtype"])
        if self.module.windowed != self.windowed:
            raise ValueError(f"{type(self).__name__} is not for such a codec: use load.from_config")
        self.variables = jax.tree.map(jnp.asarray, variables)
        self.sample_rate: int = self.module.sample_rate
        self.channels: int = self.module.channels
        self.frame_rate: float = self.module.frame_rate
        self.codebooks: int = self.module.codebooks
        self.codebook_size: int = self.module.codebook_size
        self._encode = jax.jit(
            lambda variables, x: self.module.apply(variables, x, method="encode")[:2]
        )
        self._decode = jax.jit(
            lambda variables, *args: self.module.apply(variables, *args, method="decode")
        )
        self._encode_window = self._window_program("encode_window")
        self._decode_window = self._window_program("decode_window")

    def _window_program(self, method: str) -> Callable:
        """A method of the module for windows, as codec/streaming.py calls it."""
        program = jax.jit(
            lambda variables, *args, window: self.module.apply(
                variables, *args, window, method=method, mutable=["carry"]
            ),
            static_argnames="window",
        )
        return lambda carry, *args, window: program(
            {**self.variables, **carry}, *args, window=window
        )

    @property
    def bandwidths(self) -> tuple[float, ...]:
        """kbit/s at which it can be loaded, with fewer codebooks; the last is its own."""
        return encodec.bandwidths(self.config)

    @property
    def code_vectors(self) -> jax.Array:
        """[codebooks, codebook_size, dimension]."""
        return self.variables["codebook"]["embed"]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the codec's shape and weights: tokens of equal fingerprints mean the same."""
        fields = {f.name: getattr(self.module, f.name) for f in dataclasses.fields(self.module)}
        for name in ("parent", "name", "dtype", "init_std"):  # do not change what tokens mean
            del fields[name]
        digest = hashlib.sha256(json.dumps(fields).encode())
        leaves = jax.tree_util.tree_leaves_with_path(
            (self.variables["params"], self.variables["codebook"]["embed"])
        )
        for path, leaf in leaves:
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf, np.float32).tobytes())
        return digest.hexdigest()[:16]

    def encode(self, wave) -> Encoded:
        """Return the tokens of waveforms [batch, time, channels], or of one mono waveform [time].

        Raises UserError for another rank, another number of channels, and an empty waveform.
        """
        wave = self._checked_wave(wave)
        return Encoded(self._encode(self.variables, wave)[0], None, wave.shape[1])

    def decode(self, encoded, length: int | None = None) -> jax.Array:
        """Return waveforms [batch, length, channels] of what `encode` gave, or of a plain codes array.

        Codes are integers [batch, frames, codebooks]; leading codebooks alone are allowed. Without
        `length`, a plain codes array gives whole frames. Raises UserError for codes of another
        shape or out of range, and for a length that is not within the frames.
        """
        if isinstance(encoded, Encoded):
            encoded, length = encoded.codes, encoded.length if length is None else length
        codes = self._checked_codes(encoded)
        check_length(length, codes.shape[1] * self.module.hop)
        return self._decode(self.variables, codes)[:, :length]

    def encode_long(
        self, read: Callable[[int, int], np.ndarray], length: int, seconds: float = 10.0
    ) -> Iterator[Encoded]:
        """Yield the tokens of a waveform of any length, in blocks; see Tokenizer.

        seconds: of the windows that are computed at a time. The whole is what `encode` gives, but
        for the last frames (see codec/streaming.py).
        """
        hop, total = self.module.hop, -(-length // self.module.hop)
        plan = streaming.encoding_plan(self.module, _window(total, seconds * self.frame_rate))
        for codes in streaming.encode(plan, self._encode_window, read, total, hop):
            yield Encoded(codes, None, len(codes) * hop)

    def decode_long(self, encoded: Encoded, seconds: float = 10.0) -> Iterator[np.ndarray]:
        """Yield the waveform of tokens of any length, in blocks [samples, channels].

        encoded: without the batch axis: codes [frames, codebooks]. The whole is what `decode`
        gives, but for the last frames (see codec/streaming.py).
        """
        codes, _, left = encoded
        plan = streaming.decoding_plan(self.module, _window(len(codes), seconds * self.frame_rate))
        for wave in streaming.decode(plan, self._decode_window, codes, self.module.hop):
            yield wave[:left]
            left -= len(wave[:left])

    def decode_stream(
        self, blocks: Iterable[np.ndarray], seconds: float = 1.0
    ) -> Iterator[np.ndarray]:
        """Yield the waveform of codes that arrive in blocks [frames, codebooks], as it settles.

        The whole is what `decode` gives of all codes at once, to rounding, the end included.
        seconds: of the windows, about; see streaming.decode_arriving.
        """
        plan = streaming.decoding_plan(self.module, round(seconds * self.frame_rate))
        return streaming.decode_arriving(plan, self._decode_window, blocks, self.module.hop)

    def _checked_wave(self, wave) -> jax.Array:
        wave = jnp.asarray(wave, jnp.float32)
        if wave.ndim == 1:
            wave = wave[None, :, None]
        if wave.ndim != 3 or wave.shape[-1] != self.channels or wave.shape[1] == 0:
            raise UserError(
                f"wave: expected [batch, time, {self.channels}] with time at least 1, "
                f"not {list(wave.shape)}"
            )
        return wave

    def _checked_codes(self, codes) -> np.ndarray:
        codes = np.asarray(codes)
        if codes.ndim != 3 or not 1 <= codes.shape[2] <= self.codebooks or codes.shape[1] == 0:
            raise UserError(
                f"codes: expected [batch, frames, up to {self.codebooks}], not {list(codes.shape)}"
            )
        if not np.issubdtype(codes.dtype, np.integer):
            raise UserError(f"codes: expected integers, not {codes.dtype}")
        if codes.size and not 0 <= codes.min() <= codes.max() < self.codebook_size:
            raise UserError(
                f"codes: expected 0 to {self.codebook_size - 1}, not {codes.min()} to {codes.max()}"
            )
        return codes.astype(np.int32)


def check_length(length: int | None, most: int) -> None:
    """Raise UserError for a `length` to decode to that is not within `most` samples."""
    if length is not None and not 0 <= length <= most:
        raise UserError(f"length: expected at most {most} samples, not {length}")


def _window(total: int, largest: float) -> int:
    """Frames of a window for `total` frames: few sizes, so that few programs are compiled."""
    return min(round(largest), 2 ** max(5, (total - 1).bit_length()))
