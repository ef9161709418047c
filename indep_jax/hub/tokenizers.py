"""Other people's tokenizers, as transformers runs them in torch (extra `parity`): DAC and Mimi.

For their codes alone, to be measured beside ours.
"""

from collections.abc import Callable, Iterator

import numpy as np

from indep_jax.codec.model import Encoded
from indep_jax.hub import folders, weights
from indep_jax.support.errors import UserError

KINDS = dict(dac="DacModel", mimi="MimiModel")


class Tokenizer:
    """A tokenizer of transformers.

    sample_rate: Hz. channels: of waveforms, always 1. frame_rate: frames per second (float).
    codebook_size: the values a code can have.
    """

    channels = 1

    def __init__(self, model):
        self._model = model
        self.sample_rate: int = model.config.sampling_rate
        hop = getattr(model.config, "hop_length", None)  # of DAC; Mimi says its frame rate
        self.hop: int = hop or round(self.sample_rate / model.config.frame_rate)
        self.frame_rate: float = self.sample_rate / self.hop
        self.codebook_size: int = model.config.codebook_size

    def encode(self, wave: np.ndarray) -> np.ndarray:
        """Codes int32 [frames, codebooks] of a waveform [time, 1]."""
        import torch

        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(wave.T))[None]
            codes = self._model.encode(x).audio_codes
        return codes[0].numpy().T.astype(np.int32)

    def encode_long(
        self, read: Callable[[int, int], np.ndarray], length: int, seconds: float = 30.0
    ) -> Iterator[Encoded]:
        """Tokens of a waveform of any length, in blocks without the axis of a batch, in order.

        read(start, count) gives samples [count, 1], zeros behind the end. Each window of `seconds`
        is encoded alone, so the frames at its ends do not see beyond it.
        """
        window = max(1, round(seconds * self.frame_rate)) * self.hop
        for start in range(0, length, window):
            frames = -(-(length - start) // self.hop)
            wave = read(start, min(window, frames * self.hop))
            yield Encoded(self.encode(wave), None, len(wave))


def load(spec: str) -> Tokenizer:
    """The tokenizer "transformers:KIND:PATH", KIND dac or mimi; PATH may be hf:NAME.

    Raises UserError, one line, for another kind, a folder that holds none, and where torch or
    transformers are missing.
    """
    scheme, _, rest = spec.partition(":")
    kind, _, path = rest.partition(":")
    if scheme != "transformers" or kind not in KINDS or not path:
        expected = " or ".join(f"transformers:{kind}:PATH" for kind in KINDS)
        raise UserError(f"tokenizer {spec!r}: expected {expected}")
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise UserError(
            f"tokenizer {spec}: {error.name} is missing: pip install 'indep_jax[parity]'"
        ) from None
    folder = folders.locate(path)
    found = weights.read_config(folder).get("model_type")
    if found != kind:
        raise UserError(f"{folder / 'config.json'}: model_type must be {kind!r}, not {found!r}")
    try:
        model, info = getattr(transformers, KINDS[kind]).from_pretrained(
            folder, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # of many kinds, over several lines
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{folder}: transformers cannot load it: {reason[0]}") from None
    if info["missing_keys"]:
        raise UserError(f"{folder}: weights are missing, such as {sorted(info['missing_keys'])[0]}")
    return Tokenizer(model.eval())
