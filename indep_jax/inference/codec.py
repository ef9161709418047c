"""Codecs with their weights, by path."""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax.codec import chunks, model, quantizer, streaming
from indep_jax.codec.model import Encoded
from indep_jax.data import pipeline, sources
from indep_jax.hub import encodec, folders
from indep_jax.support.errors import UserError
from indep_jax.training import checkpoints


class LoadedCodec:
    """A codec with its weights. Its functions are compiled once for each shape of input.

    config: plain data, at least the sections dtype, model and quantizer; `origin`, where its first
        weights come from, if they were not random (see hub.folders.origin).
    sample_rate: Hz. channels: of waveforms. frame_rate: frames per second (float).
    codebooks, codebook_size: tokens of a frame and the values each can have.
    step: of the run that it was trained in; 0 for none.
    """

    def __init__(
        self, config: Mapping, variables: Mapping, dtype: str | None = None, step: int = 0
    ):
        self.config = config
        self.step = step
        sizes = {name: config["quantizer"][name] for name in ("codebooks", "codebook_size")}
        self.module = model.from_config(config["model"], **sizes, dtype=dtype or config["dtype"])
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
        self._encode_window, self._decode_window = (
            jax.jit(
                lambda variables, *args, window, method=method: self.module.apply(
                    variables, *args, window, method=method, mutable=["carry"]
                ),
                static_argnames="window",
            )
            for method in ("encode_window", "decode_window")
        )

    @property
    def bandwidths(self) -> tuple[float, ...]:
        """kbit/s at which it can be loaded, with fewer codebooks; the last is its own."""
        return encodec.bandwidths(self.config)

    @property
    def code_vectors(self) -> jax.Array:
        """[codebooks, codebook_size, dimension]."""
        return self.variables["codebook"]["embed"]

    def encode(self, wave) -> Encoded:
        """Tokens of waveforms [batch, time, channels], or of one mono waveform [time].

        Raises UserError for another rank, another number of channels, and an empty waveform.
        """
        wave = jnp.asarray(wave, jnp.float32)
        if wave.ndim == 1:
            wave = wave[None, :, None]
        if wave.ndim != 3 or wave.shape[-1] != self.channels or wave.shape[1] == 0:
            raise UserError(
                f"wave: expected [batch, time, {self.channels}] with time at least 1, "
                f"not {list(wave.shape)}"
            )
        codes, scales = [], []
        spans = chunks.spans(self.module, wave.shape[1])
        for run in _runs(spans, lambda span: span[1] - span[0]):
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
        """Waveforms [batch, length, channels] of what `encode` gave, or of a plain codes array.

        Codes are integers [batch, frames, codebooks]; leading codebooks alone are allowed. Without
        `length`, a plain codes array gives whole frames. Raises UserError for codes of another
        shape or out of range, for a length that is not within the frames, and for a plain codes
        array where the codec works in chunks or with levels.
        """
        if isinstance(encoded, Encoded):
            codes, length = encoded.codes, encoded.length if length is None else length
        elif not self.module.codes_suffice:
            raise UserError("codes: this codec works in chunks: give decode what encode gave")
        else:
            codes = encoded
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
        plain = self.module.codes_suffice
        whole = codes.shape[1] * self.module.hop if plain else encoded.length
        if length is not None and not 0 <= length <= whole:
            raise UserError(f"length: expected at most {whole} samples, not {length}")
        codes = codes.astype(np.int32)
        if plain:
            return self._decode(self.variables, codes)[:, :length]
        blocks = list(self._decode_chunks(codes, encoded.scales, encoded.length))
        return jnp.concatenate(blocks, axis=1)[:, :length]

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

    @functools.cached_property
    def fingerprint(self) -> str:
        """What tells this codec's tokens from another's: a hash of its shape and its weights."""
        digest = hashlib.sha256(json.dumps(_tokenizer(self.module)).encode())
        leaves = jax.tree_util.tree_leaves_with_path(
            (self.variables["params"], self.variables["codebook"]["embed"])
        )
        for path, leaf in leaves:
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf, np.float32).tobytes())
        return digest.hexdigest()[:16]

    def encode_long(
        self, read: Callable[[int, int], np.ndarray], length: int, seconds: float = 10.0
    ) -> Iterator[Encoded]:
        """Tokens of a waveform of any length, in blocks, in order.

        Blocks are Encoded without the axis of a batch: codes int32 [frames, codebooks].

        Args:
          read: read(start, count) gives samples [count, channels], zeros behind the end.
          length: of the waveform, samples; at least 1.
          seconds: of the windows that are computed at a time.

        The whole is what `encode` gives, but for the last frames (see codec/streaming.py). A codec
        that works in chunks gives a block for each.
        """
        if not self.module.windowed:
            for first, last in chunks.spans(self.module, length):
                x = jnp.asarray(read(first, last - first), jnp.float32)[None]
                codes, scales = jax.tree.map(
                    lambda x: np.asarray(x)[0], self._encode(self.variables, x)
                )
                yield Encoded(codes, scales, last - first)
            return
        hop = self.module.hop
        total = -(-length // hop)
        plan = streaming.encoding_plan(self.module, _window(total, seconds * self.frame_rate))
        carry: dict = {}
        for span in plan.spans(total):
            x = jnp.asarray(read(span.start * hop, plan.frames * hop), jnp.float32)[None]
            codes, carry = self._encode_window({**self.variables, **carry}, x, window=span.window)
            inside = np.asarray(codes)[0, span.first - span.start : span.last - span.start]
            yield Encoded(inside, None, len(inside) * hop)

    def decode_long(self, encoded: Encoded, seconds: float = 10.0) -> Iterator[np.ndarray]:
        """The waveform of tokens of any length, in blocks [samples, channels].

        encoded: without the axis of a batch: codes [frames, codebooks], scales [chunks] or None.
        The whole is what `decode` gives, but for the last frames (see codec/streaming.py).
        """
        codes, scales, left = encoded
        if not self.module.windowed:
            scales = None if scales is None else scales[None]
            for block in self._decode_chunks(codes[None].astype(np.int32), scales, left):
                yield block[0, :left]
                left -= len(block[0, :left])
            return
        hop, total = self.module.hop, len(codes)
        plan = streaming.decoding_plan(self.module, _window(total, seconds * self.frame_rate))
        carry: dict = {}
        for span in plan.spans(total):
            piece = codes[span.start : span.start + plan.frames].astype(np.int32)
            padded = np.pad(piece, ((0, plan.frames - len(piece)), (0, 0)))[None]
            wave, carry = self._decode_window(
                {**self.variables, **carry}, padded, np.int32(len(piece)), window=span.window
            )
            first, last = (hop * (frame - span.start) for frame in (span.first, span.last))
            block = np.asarray(wave)[0, first:last][:left]
            left -= len(block)
            yield block

    def decode_stream(
        self, blocks: Iterable[np.ndarray], seconds: float = 1.0
    ) -> Iterator[np.ndarray]:
        """The waveform of codes that arrive in blocks [frames, codebooks], in blocks as they settle.

        The whole is what `decode` gives of all codes at once, to rounding, the end included. Windows
        are about `seconds` long; a sample is given once streaming.decoding_plan's `context` frames
        behind it, or the end, have arrived.
        """
        if not self.module.windowed:
            yield np.asarray(self.decode(np.concatenate(list(blocks))[None]))[0]
            return
        hop = self.module.hop
        plan = streaming.decoding_plan(self.module, round(seconds * self.frame_rate))
        pending, start, carry = np.zeros((0, self.codebooks), np.int32), 0, {}
        for block in itertools.chain(blocks, [None]):
            if block is not None:
                pending = np.concatenate([pending, block])
            while len(pending) > plan.frames or (block is None and len(pending)):
                total = start + len(pending)
                span = plan.span(start, total)
                piece = pending[: plan.frames]
                window = span.window._replace(keep=min(span.window.keep, len(piece)))
                wave, carry = self._decode_window(
                    {**self.variables, **carry}, piece[None], np.int32(len(piece)), window=window
                )
                yield np.asarray(wave)[0, hop * (span.first - start) : hop * (span.last - start)]
                if span.last == total:
                    return
                pending, start = pending[plan.stride :], start + plan.stride


class PairedCodec:
    """A codec of one channel, for each of two: as stereo MusicGen has it (Copet et al. 2023, 2.3).

    Codes are those of the left and the right channel by turns, [batch, frames, 2 x codebooks]. Its
    attributes and functions are those of LoadedCodec. Raises UserError for a codec of two channels.
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
        self.mono, self.module = mono, mono.module
        self.sample_rate, self.frame_rate = mono.sample_rate, mono.frame_rate
        self.codebooks, self.codebook_size = 2 * mono.codebooks, mono.codebook_size

    @property
    def fingerprint(self) -> str:
        """What tells these tokens from those of one channel, and of another codec."""
        return f"paired {self.mono.fingerprint}"

    def encode(self, wave) -> Encoded:
        """Tokens of waveforms [batch, time, 2]."""
        wave = jnp.asarray(wave, jnp.float32)
        if wave.ndim != 3 or wave.shape[-1] != 2:
            raise UserError(f"wave: expected [batch, time, 2], not {list(wave.shape)}")
        sides = [self.mono.encode(wave[..., side : side + 1]) for side in range(2)]
        codes = jnp.stack([side.codes for side in sides], axis=-1)
        return Encoded(codes.reshape(*codes.shape[:2], -1), None, wave.shape[1])

    def decode(self, encoded, length: int | None = None) -> jax.Array:
        """Waveforms [batch, length, 2] of what `encode` gave, or of a plain codes array."""
        if isinstance(encoded, Encoded):
            encoded, length = encoded.codes, encoded.length if length is None else length
        sides = [self.mono.decode(encoded[..., side::2], length) for side in range(2)]
        return jnp.concatenate(sides, axis=-1)

    def encode_long(
        self, read: Callable[[int, int], np.ndarray], length: int, seconds: float = 10.0
    ) -> Iterator[Encoded]:
        """Tokens of a waveform of any length, read(start, count) [count, 2], in blocks."""
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
        """The waveform of tokens of any length, codes [frames, 2 x codebooks], in blocks."""
        sides = (
            self.mono.decode_long(encoded._replace(codes=encoded.codes[:, side::2]), seconds)
            for side in range(2)
        )
        for pair in zip(*sides, strict=True):
            yield np.concatenate(pair, axis=-1)

    def decode_stream(
        self, blocks: Iterable[np.ndarray], seconds: float = 1.0
    ) -> Iterator[np.ndarray]:
        """The waveform of codes that arrive in blocks [frames, 2 x codebooks], as they settle."""
        sides = itertools.tee(blocks)
        streams = (
            self.mono.decode_stream((block[:, side::2] for block in copy), seconds)
            for side, copy in enumerate(sides)
        )
        for pair in zip(*streams, strict=True):
            yield np.concatenate(pair, axis=-1)


def load_codec(
    path: str | Path, *, bandwidth: float | None = None, dtype: str | None = None
) -> LoadedCodec:
    """The codec of a workdir of indep_jax.train, or of a Hugging Face EnCodec or MusicGen folder.

    A workdir gives the moving average of the weights at its last checkpoint. "hf:NAME" is a model
    of the Hugging Face hub. `bandwidth`, kbit/s, is one of the codec's: with fewer codebooks than
    all. `dtype` is that of the convolutions, float32 or bfloat16; default what the config says.

    Raises UserError, one line that names the path and what was expected.
    """
    folder, step = folders.locate(path), 0
    config = read_config(folder)
    if "model_type" in config:
        config, variables = encodec.read(folder)
        config["origin"] = folders.origin(path, folder)
    else:
        step, state = checkpoints.restore_latest(folder, only=("ema", "collections"))
        variables = dict(params=state["ema"], codebook=state["collections"]["codebook"])
        if not np.any(variables["codebook"]["count"]):
            raise UserError(
                f"{path}: step {step} is within the warm-up: there are no codebooks yet"
            )
    if bandwidth is not None:
        possible = encodec.bandwidths(config)
        lower = [each for each in possible if each <= bandwidth * (1 + 1e-9)]  # as it is printed
        if not lower or not math.isclose(lower[-1], bandwidth):
            raise UserError(f"{path}: bandwidth must be one of {possible}, not {bandwidth}")
        fewer = encodec.codebooks_at(config, lower[-1])
        config["quantizer"] |= dict(codebooks=fewer, bandwidths=lower)
        codebook = jax.tree.map(lambda x: x[:fewer], variables["codebook"])
        variables = dict(params=variables["params"], codebook=codebook)
    return LoadedCodec(config, variables, dtype, step)


def load_codec_of(path: str | Path, codebooks: int) -> LoadedCodec | PairedCodec:
    """The codec of tokens of so many codebooks.

    At the bandwidth that has as many; of one channel's codes, where there are twice as many, it is
    one for each of two. The codec as it is where neither holds. Raises UserError as `load_codec`.
    """
    codec = load_codec(path)
    for bandwidth in codec.bandwidths[:-1]:
        if encodec.codebooks_at(codec.config, bandwidth) == codebooks:
            return load_codec(path, bandwidth=bandwidth)
    if codebooks == 2 * codec.codebooks and codec.channels == 1:
        return PairedCodec(codec)
    return codec


def untrained(config: Mapping | str | Path, source: str, seed: int = 0) -> LoadedCodec:
    """The codec of a config (or of a workdir's) before training, as a reference for the trained.

    Weights are the random initial ones; codebooks are fitted by k-means to that encoder's latents
    of training segments of `source`, as a run does when quantization begins. Of a run that began
    with pretrained weights it is the codec that has those.
    """
    if not isinstance(config, Mapping):
        config = read_config(Path(config))
    if config.get("pretrained"):
        return load_codec(config["pretrained"])
    sizes = {name: config["quantizer"][name] for name in ("codebooks", "codebook_size")}
    module = model.from_config(config["model"], **sizes, dtype=config["dtype"])
    segments = pipeline.segments(
        sources.open_source(source, "train"),
        seed=seed,
        batch_size=config["batch_size"],
        seconds=config["data"]["segment_seconds"],
        sample_rate=module.sample_rate,
        channels=module.channels,
    )
    # This generator compiles several times faster than the default, of which jit(init) holds one
    # instance per parameter.
    init_key = jax.random.key(seed, impl="unsafe_rbg")
    # Music, as in a run: with model.init_std the first weights depend on it.
    params = jax.jit(module.init)(init_key, segments[0]["audio"])["params"]
    empty = quantizer.empty(module.codebooks, module.codebook_size, module.dimension)
    latents = jax.jit(
        lambda x: module.apply(dict(params=params, codebook=empty), x, method="latents")
    )
    rows = jnp.concatenate(
        [
            latents(segments[i]["audio"]).reshape(-1, module.dimension)
            for i in range(config["quantizer"]["kmeans_batches"])
        ]
    )
    codebook = jax.jit(quantizer.initialize, static_argnums=(1, 2, 4))(
        rows,
        module.codebooks,
        module.codebook_size,
        jax.random.key(seed),
        config["quantizer"]["kmeans_iterations"],
        rows.shape[0] / module.codebook_size,
    )
    return LoadedCodec(config, dict(params=params, codebook=codebook))


def read_config(path: Path, task: str = "codec") -> dict:
    """The config of a workdir or Hugging Face folder; UserError where it is not of a `task`."""
    kind = dict(codec="EnCodec", lm="MusicGen")[task]
    expected = f"expected a workdir of indep_jax.train or a Hugging Face {kind} folder"
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; {expected}")
    if not (path / "config.json").is_file():
        raise UserError(f"{path}: has no config.json; {expected}")
    try:
        config = json.loads((path / "config.json").read_text())
    except ValueError as error:
        raise UserError(f"{path / 'config.json'}: not JSON ({error})") from None
    if not isinstance(config, dict) or not (config.get("task") == task or "model_type" in config):
        what = dict(codec="codec", lm="language model")[task]
        raise UserError(f"{path / 'config.json'}: describes no {what}; {expected}")
    return config


def _runs(items: Iterable, size: Callable) -> Iterator[list]:
    """Items that follow each other and have the same `size`, some at a time, to compute in one go."""
    for _, run in itertools.groupby(items, size):
        while some := list(itertools.islice(run, 8)):
            yield some


def _window(total: int, largest: float) -> int:
    """Frames of a window for `total` frames: few sizes, so that few programs are compiled."""
    return min(round(largest), 2 ** max(5, (total - 1).bit_length()))


def _tokenizer(module: model.Codec) -> dict:
    """The fields of a codec that decide what its tokens mean."""
    fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    for name in ("parent", "name", "dtype", "init_std"):
        fields.pop(name)
    for name in ("normalize", "chunk_seconds", "chunk_overlap"):
        if not fields[name]:  # as where a token store was made before there were these
            fields.pop(name)
    return fields
