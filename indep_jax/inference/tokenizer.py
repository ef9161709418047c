"""What a tokenizer is: all that encoding and measuring ask of one."""

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import jax
import numpy as np

from indep_jax.codec.model import Encoded


@runtime_checkable
class Tokenizer(Protocol):
    """Anything that turns music into codes: `encode_files`, and so `measure`, take any of them.

    Our codecs (LoadedCodec, ChunkedCodec), the stereo pair (PairedCodec) and other people's
    (hub.tokenizers.ForeignTokenizer) have these attributes; so can your own.

    label: its name in reports.
    sample_rate: Hz, of the waveforms that it reads; channels: how many they have.
    frame_rate: frames per second, as a float.
    codebooks: codes of a frame; codebook_size: the number of values that each can have.
    code_vectors: [codebooks, codebook_size, dimension], what the codes stand for; None where only
        the codes are known.
    """

    label: str
    sample_rate: int
    channels: int
    frame_rate: float
    codebooks: int
    codebook_size: int

    @property
    def code_vectors(self) -> jax.Array | None: ...

    def encode_long(self, read: Callable[[int, int], np.ndarray], length: int) -> Iterator[Encoded]:
        """Yield the tokens of a waveform of any length, block by block.

        read: read(start, count) returns samples [count, channels], zeros behind the end.
        length: of the waveform, in samples; at least 1.

        Blocks have no batch axis: codes int32 [frames, codebooks], scales [chunks] or None, and
        length, about the samples that they stand for.
        """
        ...
