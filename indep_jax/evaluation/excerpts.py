"""A codec on excerpts of held-out music: numbers, and what there is to hear."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indep_jax.data import pipeline, sources
from indep_jax.dependence import mutual_information as estimate
from indep_jax.evaluation import frechet, musicnn, reconstruction
from indep_jax.report import page as report
from indep_jax.support import progress
from indep_jax.support.errors import UserError

BATCH = 4
LISTEN = 6  # excerpts on the page
TRAIN_ITEMS = 32  # training excerpts whose mean log-mel frame is the baseline


@dataclass(frozen=True)
class Evaluated:
    """What `evaluate` found of one codec.

    metrics: as in metrics.json, see indep_jax/evaluate.py. names: of the excerpts' files.
    originals, reconstructions: [items, time, channels] at sample_rate.
    """

    label: str
    metrics: dict
    names: list[str]
    originals: np.ndarray
    reconstructions: np.ndarray
    sample_rate: int


def reconstruct(codec, audio_NxTxC: np.ndarray, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Waveforms [items, time, channels] through the codec, and their codes."""
    waves, codes = [], []
    for start in progress.each(range(0, len(audio_NxTxC), BATCH), f"reconstruct {label}"):
        batch = audio_NxTxC[start : start + BATCH]
        filled = np.concatenate([batch, np.repeat(batch[-1:], BATCH - len(batch), axis=0)])
        encoded = codec.encode(filled)
        waves.append(np.asarray(codec.decode(encoded))[: len(batch)])
        codes.append(np.asarray(encoded.codes)[: len(batch)])
    return np.concatenate(waves), np.concatenate(codes)


def mean_frames(source: str, split: str, codec, seconds: float) -> tuple[str, list[np.ndarray]]:
    """The mean log-mel frames of a source's training split, or where it has none of `split`."""
    try:
        files = sources.open_source(source, "train")
    except UserError:
        files = sources.open_source(source, split)
    train = pipeline.excerpts(
        files,
        seconds=seconds,
        sample_rate=codec.sample_rate,
        channels=codec.channels,
        items=TRAIN_ITEMS,
    )
    mono = train["audio"].mean(axis=-1)
    frames = [reconstruction.mean_log_mel(wave[None], codec.sample_rate) for wave in mono]
    return files.split, [np.mean(scale, axis=0) for scale in zip(*frames)]


def evaluate(codec, label: str, source: str, split: str, items: int, seconds: float) -> Evaluated:
    """A codec on `items` excerpts of `seconds`, spread over the files of a split."""
    excerpts = pipeline.excerpts(
        sources.open_source(source, split),
        seconds=seconds,
        sample_rate=codec.sample_rate,
        channels=codec.channels,
        items=items,
    )
    waves, codes = reconstruct(codec, excerpts["audio"], label)
    mean_split, frames = mean_frames(source, split, codec, seconds)
    metrics = reconstruction.evaluate_reconstruction(
        excerpts["audio"], waves, codec.sample_rate, frames
    )
    metrics["mean_frame_split"] = mean_split
    for name, item in zip(excerpts["names"], metrics["items"], strict=True):
        item["file"] = name
    music, ours = (
        musicnn.embed_all(x, codec.sample_rate, what)
        for x, what in ((excerpts["audio"], "the music"), (waves, label))
    )
    metrics["frechet_distance"] = frechet.distance(music, ours) if len(music) > 1 else None
    flat = list(codes.reshape(len(codes), -1, codec.codebooks))
    metrics["perplexity"] = estimate.usage(
        flat, [codec.codebook_size] * codec.codebooks
    ).perplexity.tolist()
    return Evaluated(label, metrics, excerpts["names"], excerpts["audio"], waves, codec.sample_rate)


def show(page: report.Report, results: Sequence[Evaluated]) -> None:
    """Adds tables and music of evaluated codecs to a page."""
    first = results[0]
    page.section("Reconstruction", "Medians over excerpts, with 95% intervals in brackets.")
    rows = []
    for result in results:
        snr, distance = result.metrics["si_snr_db"], result.metrics["frechet_distance"]
        rows.append(
            [
                result.label,
                median(snr, 2),
                " to ".join(f"{value:.2f}" for value in snr.get("quartiles", [])),
                median(result.metrics["mel_distance_log10"], 3),
                f"{result.metrics['mel_distance_relative']:.2f}",
                "" if distance is None else f"{distance:.2f}",
            ]
        )
    page.table(
        "Closeness to the original. Mel distance is in log10 of power: 0.1 is 1 dB. Relative: its "
        f"mean over that of the mean spectrum of {first.metrics['mean_frame_split']} music. Fréchet "
        "distance: of musicnn's embeddings, all the music's and all the reconstructions'.",
        ["codec", "SI-SNR, dB", "quartiles", "mel distance", "relative", "Fréchet distance"],
        rows,
    )
    codebooks = max(len(result.metrics["perplexity"]) for result in results)
    page.table(
        "Perplexity of each codebook: codes in effective use",
        ["codec", *(f"codebook {k + 1}" for k in range(codebooks))],
        [[r.label, *(f"{value:.0f}" for value in r.metrics["perplexity"])] for r in results],
    )
    page.section("Listen", "The music, and what is left of it after the codec.")
    for n in range(min(LISTEN, len(first.names))):
        versions = [("Original", first.originals[n], first.sample_rate)]
        for result in results:
            label = result.label if len(results) > 1 else "Reconstruction"
            versions.append((label, result.reconstructions[n], result.sample_rate))
        page.listen(first.names[n], versions)


def median(summary: dict, digits: int) -> str:
    """The median of a summary with its interval, as text."""
    if "median" not in summary:
        return "silence only"
    return report.with_interval(summary["median"], summary["median_interval_95"], digits)
