"""Generates music with a language model of codes.

    python -m indep_jax.generate --lm=DIR --text="slow piano" --seconds=10 --seed=0 --output=out.wav

Several --text, or --texts=FILE (one a line), make a batch, and files out-1.wav, out-2.wav, ...; what
a text gives depends on it, its place and the seed, not on the others. Without a text the model is unconditional.
--prompt=FILE goes on from the end of that music, which the output begins with. More seconds than
the model was trained on are generated window by window, each going on from half of the one before.

--stream writes the music while it is generated, as it comes from the codec; else it is written
once, at --loudness. What it lags behind: a chunk, the steps by which the pattern delays the last
codebook, and the frames that the codec's decoder looks ahead (9, 0.18 s, at 32 kHz).
"""

import io
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
from absl import flags

from indep_jax.support import command, progress
from indep_jax.support.errors import UserError
from indep_jax.support.files import naming, replace_file

WINDOW_SECONDS = 10.0  # that the codec decodes at a time
SHORTEST_SECONDS = 0.4  # that a loudness can be told of (ITU-R BS.1770)


def normalise(wave: np.ndarray, sample_rate: int, loudness: float) -> np.ndarray:
    """A waveform [time, channels] at `loudness`, LUFS (ITU-R BS.1770), its peak at most 1.

    Silence, and what is shorter than 0.4 s, is left as it is.
    """
    if len(wave) < SHORTEST_SECONDS * sample_rate:
        return wave
    import pyloudnorm

    found = pyloudnorm.Meter(sample_rate).integrated_loudness(wave.astype(np.float64))
    if not np.isfinite(found):
        return wave
    gain = min(10 ** ((loudness - found) / 20), 1 / np.abs(wave).max())
    return (gain * wave).astype(np.float32)


def read_texts(path: str) -> list[str]:
    """Return the lines of a text file that are not blank. Raises UserError unless it is UTF-8."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected UTF-8 text") from None
    return [line.strip() for line in lines if line.strip()]


def read_prompt(path: str, codec) -> np.ndarray:
    """Return the codes [1, frames, codebooks] of a sound file. Raises UserError where it breaks."""
    from indep_jax.data import sources, transforms

    try:
        wave = transforms.read_file(sources.open_file(path), codec.sample_rate, codec.channels)
    except sources.READ_ERRORS as error:
        raise UserError(f"{path}: {sources.describe_error(error)}") from None
    return np.asarray(codec.encode(wave[None]).codes)


def output_paths(output: str, count: int) -> list[Path]:
    """OUTPUT for one piece of music, else OUTPUT with -1, -2, ... before its .wav."""
    path = Path(output)
    if path.suffix.lower() != ".wav":
        raise UserError(f"--output={output}: expected a .wav file")
    if not path.parent.is_dir():
        raise UserError(f"--output={output}: {path.parent} is not a folder")
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, count + 1)]


def with_progress(
    blocks: Iterator[np.ndarray], seconds: float, rate: float
) -> Iterator[np.ndarray]:
    """The blocks [batch, time, ...] of `rate` a second, with a bar of seconds of music."""
    layout = "{l_bar}{bar}| {n:.1f}/{total:.1f} s of music [{elapsed}<{remaining}]{postfix}"
    begin = time.perf_counter()
    with progress.bar(seconds, "generate", unit="s of music", layout=layout) as bar:
        for block in blocks:
            bar.set_postfix_str(
                f"{(time.perf_counter() - begin) * rate / (bar.n * rate + block.shape[1]):.2f} s a s"
            )
            bar.update(block.shape[1] / rate)
            yield block


def write_stream(path: Path, waves: Iterable[np.ndarray], rate: int, channels: int) -> None:
    """Write waveforms [time, channels] to a wav file as they come.

    Raises OSError, with the path, where it cannot be written.
    """
    with (
        naming(path, soundfile.LibsndfileError),
        soundfile.SoundFile(os.fsencode(path), "w", rate, channels, "PCM_16", format="WAV") as file,
    ):
        for wave in waves:
            file.write(np.clip(wave, -1, 1))
            file.flush()


def main() -> None:
    options = flags.FLAGS
    if options.seconds <= 0:
        raise UserError(f"--seconds: expected more than 0, not {options.seconds}")
    texts = [*options.text, *(read_texts(options.texts) if options.texts else ())]
    paths = output_paths(options.output, len(texts) or 1)
    if options.stream and len(paths) > 1:
        raise UserError("--stream: expected one --text")

    from indep_jax import inference

    lm = inference.load_lm(options.lm, codec=options.codec, dtype=options.dtype)
    codec = lm.codec
    prompt = None
    if options.prompt:
        prompt = np.repeat(read_prompt(options.prompt, codec), len(paths), axis=0)
    blocks = lm.stream(
        texts or None,
        options.seconds,
        seed=options.seed,
        prompt=prompt,
        guidance=options.guidance,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        chunk_seconds=options.chunk_seconds,
    )
    blocks = with_progress(blocks, options.seconds, codec.frame_rate)
    # What cannot be is said at the first block: before a file is begun.
    blocks = itertools.chain([next(blocks)], blocks)
    if options.stream:
        waves = codec.decode_stream((block[0] for block in blocks), options.chunk_seconds)
        write_stream(paths[0], waves, codec.sample_rate, codec.channels)
    else:
        codes = np.concatenate(list(blocks), axis=1)
        for path, item in zip(paths, codes):
            wave = np.concatenate(list(codec.decode_stream([item], WINDOW_SECONDS)))
            wave = normalise(wave, codec.sample_rate, options.loudness)
            file = io.BytesIO()
            soundfile.write(file, np.clip(wave, -1, 1), codec.sample_rate, "PCM_16", format="WAV")
            replace_file(path, file.getvalue())
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    flags.DEFINE_string(
        "lm",
        None,
        "Workdir of indep_jax.train, Hugging Face folder or hf:NAME.",
        required=True,
    )
    flags.DEFINE_string("codec", None, "Codec of its tokens, where the workdir's config has none.")
    flags.DEFINE_enum(
        "dtype",
        None,
        ["float32", "bfloat16"],
        "Of its weights and computation; by default as they are stored.",
    )
    flags.DEFINE_multi_string("text", [], "What to generate; may be repeated.")
    flags.DEFINE_string("texts", None, "File of texts, one a line.")
    flags.DEFINE_float("seconds", 10.0, "Length of the music, the prompt included.")
    flags.DEFINE_integer("seed", 0, "Of the random choices.", lower_bound=0)
    flags.DEFINE_string("prompt", None, "Sound file to go on from.")
    flags.DEFINE_string("output", None, "A .wav file.", required=True)
    flags.DEFINE_bool("stream", False, "Write while generating, at the codec's own level.")
    flags.DEFINE_float("chunk_seconds", 1.0, "Music between two looks at the result.")
    flags.DEFINE_float("loudness", -14.0, "Of the result, LUFS, peaks permitting.")
    flags.DEFINE_float("guidance", 3.0, "Of classifier-free guidance by the text; 1 is none.")
    flags.DEFINE_float("temperature", 1.0, "Of the softmax that codes are drawn from.")
    flags.DEFINE_integer("top_k", 250, "Codes to choose from, the likeliest; 1 is greedy, 0 all.")
    flags.DEFINE_float("top_p", 1.0, "Their largest total probability.")
    command.run(main, memory_remedy="give fewer --text at once, use --dtype=bfloat16")
