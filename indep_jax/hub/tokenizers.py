"""Other people's tokenizers: DAC and Mimi, as transformers runs them in torch (extra `parity`).

For their codes alone, to be measured beside ours.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indep_jax.codec.model import Encoded
from indep_jax.hub import folders, weights
from indep_jax.support.errors import UserError

KINDS = dict(dac="DacModel", mimi="MimiModel")
WINDOW_SECONDS = 30.0


@dataclass(frozen=True)
class ForeignTokenizer:
    """A tokenizer that is a function of one channel of sound; see inference.tokenizer.Tokenizer.

    encode: gives the codes int [frames, codebooks] of a waveform float32 [time, 1], a frame for each
        `hop` samples and for the rest.
    """

    label: str
    sample_rate: int
    hop: int
    codebooks: int
    codebook_size: int
    encode: Callable[[np.ndarray], np.ndarray]

    channels = 1
    code_vectors = None

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.hop

    def encode_long(self, read: Callable[[int, int], np.ndarray], length: int) -> Iterator[Encoded]:
        """Yield the tokens of a waveform of any length, in blocks; see Tokenizer.

        Each window of 30 s is encoded alone, so the frames at its ends do not see beyond it.
        """
        window = max(1, round(WINDOW_SECONDS * self.frame_rate)) * self.hop
        for start in range(0, length, window):
            frames = -(-(length - start) // self.hop)
            wave = read(start, min(window, frames * self.hop))
            yield Encoded(self.encode(wave).astype(np.int32), None, len(wave))


def load(spec: str) -> ForeignTokenizer:
    """Return the tokenizer "transformers:KIND:PATH", KIND dac or mimi; PATH may be hf:NAME.

    Raises UserError, one line, for another kind, a folder that holds none, and where torch or
    transformers are missing.
    """
    scheme, _, rest = spec.partition(":")
    kind, _, path = rest.partition(":")
    if scheme != "transformers" or kind not in KINDS or not path:
        expected = " or ".join(f"transformers:{kind}:PATH" for kind in KINDS)
        raise UserError(f"tokenizer {spec!r}: expected {expected}")
    try:
        import torch
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
    config, model = model.config, model.eval()

    def encode(wave: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            codes = model.encode(torch.from_numpy(np.ascontiguousarray(wave.T))[None]).audio_codes
        return codes[0].numpy().T

    return ForeignTokenizer(
        label=Path(path).resolve().name,
        sample_rate=config.sampling_rate,
        # DAC's frame rate is rounded, Mimi has no hop.
        hop=getattr(config, "hop_length", None) or round(config.sampling_rate / config.frame_rate),
        codebooks=config.n_codebooks if kind == "dac" else config.num_quantizers,
        codebook_size=config.codebook_size,
        encode=encode,
    )
