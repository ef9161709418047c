"""A segment of a file as an array: seek, decode, mix channels, resample."""

from __future__ import annotations

import io
import math
import os

import numpy as np
import soundfile
import soxr

from indep_jax.data import arrayrecord, tfds
from indep_jax.data.sources import AudioFile
from indep_jax.support.errors import UserError

# Half-length of what soxr's HQ filter sees, with a margin, in frames of the lower of the two rates.
_CONTEXT_FRAMES = 256
# Full scale is 1; lossy decoders and float files exceed it, but not by 30 dB.
_LOUDEST = 32.0


def resampled_frames(file: AudioFile, sample_rate: int) -> int:
    """Return the frames of the whole file at `sample_rate`, as resampling it at once would give."""
    return (2 * file.frames * sample_rate + file.sample_rate) // (2 * file.sample_rate)


def read_segment(
    file: AudioFile, start_seconds: float, seconds: float, sample_rate: int, channels: int
) -> np.ndarray:
    """Read a segment by seeking.

    The cost does not depend on the file's length, except in an mp3, where libsndfile finds a position
    by reading the headers before it. Equals resampling the whole file and slicing it, to about 1e-6.
    The level is the file's: lossy decoders overshoot full scale, which is not clipped.

    Args:
      file: from `open_source`.
      start_seconds: where to begin, rounded to a frame of `sample_rate`.
      seconds: length, rounded to a frame of `sample_rate`.
      sample_rate: of the result, in Hz; soxr's HQ resampler.
      channels: of the result. Files with another number are averaged to mono, which is copied.

    Returns:
      float32 [time, channels], zeros past the end of the file.

    Raises:
      soundfile.SoundFileError, OSError or EOFError: the file cannot be read there, or holds samples
        that are not finite or more than 30 dB over full scale.
    """
    start, length = round(start_seconds * sample_rate), round(seconds * sample_rate)
    if start < 0 or length <= 0:
        raise UserError(f"segment of {seconds} s at {start_seconds} s: expected start >= 0, > 0 s")
    # One period holds `up` frames of the result and `down` of the file; reading from the beginning
    # of a period keeps the phase of the resampler that of the whole file.
    common = math.gcd(file.sample_rate, sample_rate)
    up, down = sample_rate // common, file.sample_rate // common
    context = math.ceil(_CONTEXT_FRAMES * max(1, file.sample_rate / sample_rate))
    if up == down:
        context = 0
    period = max(0, start * down // up - context) // down
    first = period * down
    last = min(file.frames, -(-(start + length) * down // up) + context)
    audio = _read_frames(file, first, last)
    if audio.shape[1] != channels:
        # As a product, because numpy's mean over two channels costs as much as a resampling.
        audio = audio @ np.full((audio.shape[1], channels), 1 / audio.shape[1], np.float32)
    if up != down and len(audio):
        audio = soxr.resample(audio, file.sample_rate, sample_rate)
    audio = audio[start - period * up :][:length]
    padded = np.zeros((length, channels), np.float32)
    padded[: len(audio)] = audio
    return padded


def read_file(
    file: AudioFile, sample_rate: int, channels: int, max_seconds: float | None = None
) -> np.ndarray:
    """Read a file, or its first `max_seconds`, as float32 [time, channels]; see `read_segment`.

    Decodes in windows, so that memory holds the result and little else.
    """
    frames = resampled_frames(file, sample_rate)
    if max_seconds is not None:
        frames = min(frames, round(max_seconds * sample_rate))
    window = 30 * sample_rate
    windows = [
        read_segment(
            file,
            start / sample_rate,
            min(window, frames - start) / sample_rate,
            sample_rate,
            channels,
        )
        for start in range(0, frames, window)
    ]
    return np.concatenate(windows) if windows else np.zeros((0, channels), np.float32)


def _read_frames(file: AudioFile, first: int, last: int) -> np.ndarray:
    """Read frames [first, last) as float32 [time, channels]; fewer if the file ends early.

    The file is opened for every read: in a Vorbis stream libsndfile's seek lands up to a block off,
    depending on the handle's position before (libsndfile issue 885), and an example must not depend
    on earlier ones. From a fresh handle wav, flac, mp3 and Vorbis are exact (except for the last page
    of some Vorbis files); Opus converges to within about 1e-3.
    """
    if first >= last:
        return np.zeros((0, file.channels), np.float32)
    with soundfile.SoundFile(_where(file)) as handle:
        if handle.channels != file.channels or handle.samplerate != file.sample_rate:
            raise EOFError("not the file it was when the source was opened")
        handle.seek(first)
        audio = handle.read(last - first, dtype="float32", always_2d=True)
    if not len(audio):
        raise EOFError(f"ends before frame {first} of the {file.frames} its header promises")
    if not np.abs(audio).max() <= _LOUDEST:  # so that nan, which compares as false, fails too
        raise OSError("samples that are not finite, or far beyond full scale")
    return audio


def _where(file: AudioFile) -> bytes | io.BytesIO:
    """Return what soundfile opens: the path, or the bytes of a record."""
    if file.record is None:
        return os.fsencode(file.path)
    content = arrayrecord.read(file.path, file.record)
    if file.format is None:
        return io.BytesIO(content)
    return tfds.to_file(content, file.format, file.sample_rate)
