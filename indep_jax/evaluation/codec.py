"""Metrics of a codec on excerpts of music."""

from collections.abc import Callable, Sequence

import chex
import numpy as np

from indep_jax.dependence.codes import codebook_usage
from indep_jax.evaluation import frechet, musicnn, reconstruction
from indep_jax.support import progress

BATCH = 4
# By name in metrics.json: functions of originals and reconstructions [batch, time] and their sample
# rate, which give a value [batch] each.
METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = dict(
    si_snr_db=lambda x, y, rate: reconstruction.si_snr(x, y),
    mel_distance_log10=reconstruction.mel_distance,
)


def evaluate(
    codec,
    label: str,
    names: Sequence[str],
    audio_NxTxC: np.ndarray,
    mean_frames: Sequence[np.ndarray],
) -> tuple[dict, np.ndarray]:
    """Evaluate a codec on excerpts of one length.

    Args:
      codec: has encode, decode, sample_rate, codebooks and codebook_size, as LoadedCodec.
      label: for the progress on stderr.
      names: of the excerpts' files.
      audio_NxTxC: the excerpts, at the codec's sample rate and with its channels.
      mean_frames: of training music, see `mean_frames_of`.

    Returns:
      Its metrics as in metrics.json (see indep_jax/evaluate.py), and the reconstructions
      [excerpts, time, channels].
    """
    waves, codes = reconstruct(codec, audio_NxTxC, label)
    metrics = compare(audio_NxTxC, waves, codec.sample_rate, mean_frames)
    for name, item in zip(names, metrics["items"], strict=True):
        item["file"] = name
    music, ours = (
        musicnn.embed_all(x, codec.sample_rate, what)
        for x, what in ((audio_NxTxC, "the music"), (waves, label))
    )
    metrics["frechet_distance"] = frechet.distance(music, ours) if len(music) > 1 else None
    flat = list(codes.reshape(len(codes), -1, codec.codebooks))
    usage = codebook_usage(flat, [codec.codebook_size] * codec.codebooks)
    metrics["perplexity"] = usage.perplexity.tolist()
    return metrics, waves


def reconstruct(codec, audio_NxTxC: np.ndarray, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return waveforms [items, time, channels] through the codec, and their codes."""
    waves, codes = [], []
    for start in progress.each(range(0, len(audio_NxTxC), BATCH), f"reconstruct {label}"):
        batch = audio_NxTxC[start : start + BATCH]
        filled = np.concatenate([batch, np.repeat(batch[-1:], BATCH - len(batch), axis=0)])
        encoded = codec.encode(filled)
        waves.append(np.asarray(codec.decode(encoded))[: len(batch)])
        codes.append(np.asarray(encoded.codes)[: len(batch)])
    return np.concatenate(waves), np.concatenate(codes)


def mean_frames_of(audio_NxTxC: np.ndarray, sample_rate: int) -> list[np.ndarray]:
    """Return the mean log-mel frame of excerpts at each scale of `reconstruction.mel_distance`."""
    mono = audio_NxTxC.mean(axis=-1)
    frames = [reconstruction.mean_log_mel(wave[None], sample_rate) for wave in mono]
    return [np.mean(scale, axis=0) for scale in zip(*frames)]


def compare(
    reference_NxTxC: np.ndarray,
    estimate_NxTxC: np.ndarray,
    sample_rate: int,
    mean_frames: Sequence[np.ndarray],
) -> dict:
    """Return summaries of METRICS over items of waveforms, and the items' own values.

    mean_frame_distance_log10: the mel distance of `mean_frames`, repeated, from the reference.
    mel_distance_relative: the mean mel distance over the mean of that; 1 is no better than the
    average spectrum. items: the values of every item, None for undefined ones. Channels of an item
    are averaged. See `reconstruction.summary`.
    """
    chex.assert_rank([reference_NxTxC, estimate_NxTxC], 3)
    chex.assert_equal_shape([reference_NxTxC, estimate_NxTxC])
    metrics = METRICS | dict(
        mean_frame_distance_log10=lambda x, y, rate: reconstruction.mean_frame_distance(
            x, mean_frames, rate
        )
    )
    # One item at a time: spectrograms of the finest scale are 8 times the waveform.
    values = {
        name: np.array(
            [
                np.mean([metric(x[None], y[None], sample_rate)[0] for x, y in zip(a.T, b.T)])
                for a, b in zip(reference_NxTxC, estimate_NxTxC, strict=True)
            ]
        )
        for name, metric in metrics.items()
    }
    result = {name: reconstruction.summary(value) for name, value in values.items()}
    result["mel_distance_relative"] = float(
        np.mean(values["mel_distance_log10"]) / np.mean(values["mean_frame_distance_log10"])
    )
    result["items"] = [
        {name: float(value[n]) if np.isfinite(value[n]) else None for name, value in values.items()}
        for n in range(len(reference_NxTxC))
    ]
    return result
