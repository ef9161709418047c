"""The codec as one Flax module: encoder, residual quantizer, decoder."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from indep_jax.codec import quantizer
from indep_jax.codec.seanet import Decoder, Encoder, Window
from indep_jax.support.errors import UserError


class Encoded(NamedTuple):
    """A batch of encoded waveforms.

    codes: int32 [batch, frames, codebooks]; of a codec that works in chunks (codec/chunks.py), those
        of all chunks, concatenated.
    scales: [batch, chunks] levels of level-normalised models, else None.
    length: samples of the encoded waveform, to which decoding trims.
    """

    codes: jax.Array
    scales: jax.Array | None
    length: int


class Codec(nn.Module):
    """EnCodec. Variables: `params` (encoder, decoder) and `codebook` (see quantizer.py).

    Waveforms are [batch, time, channels] in [-1, 1] at `sample_rate` Hz, latents
    [batch, frames, dimension] with frames = ceil(time / hop).

    normalize: encoding divides a waveform by its RMS level, decoding multiplies by it.
    chunk_seconds: long waveforms are cut into chunks of this length, which are coded independently
        (codec/chunks.py); 0 for none. chunk_overlap: of neighbours, as a share of a chunk.
    """

    sample_rate: int
    channels: int
    causal: bool
    n_filters: int
    ratios: tuple[int, ...]
    dimension: int
    residual_layers: int
    kernel: int
    residual_kernel: int
    last_kernel: int
    dilation_base: int
    compress: int
    lstm_layers: int
    pad_mode: str
    conv_shortcut: bool
    norm: str
    codebooks: int
    codebook_size: int
    dtype: jnp.dtype = jnp.float32
    init_std: float = 0.0
    normalize: bool = False
    chunk_seconds: float = 0.0
    chunk_overlap: float = 0.0

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.ratios)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop

    @property
    def codes_suffice(self) -> bool:
        """Whether codes alone can be decoded: there are no levels, and no chunk lengths to know."""
        return not (self.normalize or self.chunk_seconds)

    @property
    def windowed(self) -> bool:
        """Whether a frame depends on its neighbourhood only, so that codec/streaming.py applies."""
        return self.codes_suffice and self.norm != "time_group_norm"

    def setup(self):
        shared = dict(
            n_filters=self.n_filters,
            ratios=self.ratios,
            residual_layers=self.residual_layers,
            kernel=self.kernel,
            residual_kernel=self.residual_kernel,
            last_kernel=self.last_kernel,
            dilation_base=self.dilation_base,
            compress=self.compress,
            lstm_layers=self.lstm_layers,
            conv_shortcut=self.conv_shortcut,
            conv=dict(
                causal=self.causal,
                pad_mode=self.pad_mode,
                norm=self.norm,
                dtype=self.dtype,
                init_std=self.init_std,
            ),
        )
        self.encoder = Encoder(dimension=self.dimension, **shared)
        self.decoder = Decoder(channels=self.channels, **shared)
        self.codebook = {
            name: self.variable("codebook", name, lambda value=value: value)
            for name, value in quantizer.empty(
                self.codebooks, self.codebook_size, self.dimension
            ).items()
        }

    def _codebook(self) -> dict:
        return {name: variable.value for name, variable in self.codebook.items()}

    def __call__(self, x_BxTxC):
        """Return the waveform after encoder, quantizer and decoder, in the same shape."""
        if self.is_initializing():  # the codebooks are empty: nothing would reach the decoder
            return self.synthesize(self.latents(x_BxTxC))[:, : x_BxTxC.shape[1]]
        encoded = self.encode(x_BxTxC)
        return self.decode(encoded.codes, encoded.scales)[:, : encoded.length]

    def latents(self, x_BxTxC, window: Window | None = None):
        """Return the encoder's latents of a waveform; `window` as in codec/streaming.py."""
        return self.encoder(x_BxTxC, window).astype(jnp.promote_types(self.dtype, jnp.float32))

    def synthesize(self, z_BxTxD, window: Window | None = None):
        """Return the decoder's waveform [batch, frames * hop, channels] of latents."""
        return self.decoder(z_BxTxD, window).astype(jnp.promote_types(self.dtype, jnp.float32))

    def quantize(self, z_BxTxD, active=None) -> quantizer.Quantized:
        """Return codes, vectors and losses of latents; see quantizer.quantize."""
        return quantizer.quantize(self._codebook(), z_BxTxD, active)

    def encode(self, x_BxTxC) -> Encoded:
        """Encode a waveform, or one chunk of it."""
        scales = None
        if self.normalize:
            mono_BxT = jnp.mean(x_BxTxC, axis=-1)
            scales = jnp.sqrt(jnp.mean(jnp.square(mono_BxT), axis=1, keepdims=True)) + 1e-8
            x_BxTxC = x_BxTxC / scales[..., None]
        codes = self.quantize(self.latents(x_BxTxC)).codes
        return Encoded(codes=codes, scales=scales, length=x_BxTxC.shape[1])

    def decode(self, codes_BxTxK, scales_Bx1=None):
        """Decode codes, or those of one chunk, to a waveform [batch, frames * hop, channels]."""
        wave = self.synthesize(quantizer.decode(self._codebook(), codes_BxTxK))
        return wave if scales_Bx1 is None else wave * scales_Bx1[..., None]

    def encode_window(self, x_BxTxC, window: Window):
        """Return the codes of a window of a long waveform; the collection "carry" must be mutable."""
        return self.quantize(self.latents(x_BxTxC, window)).codes

    def decode_window(self, codes_BxTxK, frames, window: Window):
        """Return the waveform of a window of codes; after the first `frames` it is silence."""
        vectors_BxTxD = quantizer.decode(self._codebook(), codes_BxTxK)
        inside = jnp.arange(codes_BxTxK.shape[1])[:, None] < frames
        return self.synthesize(jnp.where(inside, vectors_BxTxD, 0), window)


def from_config(model, codebooks: int, codebook_size: int, dtype="float32") -> Codec:
    """Return the module of a config's `model` section; see configs/encodec_32khz.py for the fields.

    Raises UserError, which names the field, for an invalid value.
    """
    fields = dict(model)
    fields["ratios"] = tuple(fields["ratios"])
    if not fields["ratios"] or any(r < 2 for r in fields["ratios"]):
        raise UserError(f"model.ratios must all be at least 2, not {fields['ratios']}")
    norms = ("weight_norm", "time_group_norm", "none")
    choices = dict(pad_mode=("constant", "reflect"), norm=norms)
    for name, allowed in choices.items():
        if fields[name] not in allowed:
            raise UserError(f"model.{name} must be one of {allowed}, not {fields[name]!r}")
    positive = ("sample_rate", "channels", "n_filters", "dimension", "kernel", "residual_kernel",
                "last_kernel", "dilation_base", "compress")  # fmt: skip
    for least, names in {1: positive, 0: ("residual_layers", "lstm_layers")}.items():
        for name in names:
            if fields[name] < least:
                raise UserError(f"model.{name} must be at least {least}, not {fields[name]}")
    if fields["compress"] > fields["n_filters"]:
        raise UserError(
            f"model.compress {fields['compress']} must be at most model.n_filters, "
            f"{fields['n_filters']}"
        )
    if dtype not in ("float32", "bfloat16", "float64"):
        raise UserError(f"dtype must be float32 or bfloat16, not {dtype!r}")
    if fields.get("init_std", 0.0) < 0:
        raise UserError(f"model.init_std must be at least 0, not {fields['init_std']}")
    if fields.get("init_std", 0.0) and fields["norm"] == "time_group_norm":
        raise UserError("model.init_std must be 0 with model.norm time_group_norm")
    if fields.get("chunk_seconds", 0.0) < 0 or not 0 <= fields.get("chunk_overlap", 0.0) < 1:
        raise UserError("model.chunk_seconds must be at least 0, chunk_overlap from 0 to below 1")
    for name, value in dict(codebooks=codebooks, codebook_size=codebook_size).items():
        if value < 1:
            raise UserError(f"quantizer.{name} must be at least 1, not {value}")
    return Codec(**fields, codebooks=codebooks, codebook_size=codebook_size, dtype=jnp.dtype(dtype))
