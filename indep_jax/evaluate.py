"""Evaluates codecs on held-out music: numbers, and a page to look at and to listen to.

    python -m indep_jax.evaluate --codec=DIR --source=folder:PATH --output=DIR
        [--split=test] [--versus=DIR]... [--dependence]

Writes metrics.json, figures/ and report.html. metrics.json holds for every codec, by name:
si_snr_db and mel_distance_log10 (median, median_interval_95, quartiles, mean over excerpts),
mean_frame_distance_log10 (what the training music's mean log-mel frame would get),
mel_distance_relative (their ratio), perplexity by codebook, and the items themselves. With
--dependence it also measures the codebooks, on the whole files of the split, before and after
training, into dependence.json (schema in indep_jax/measure.py).
"""

import json
from pathlib import Path

import numpy as np
import tqdm
from absl import flags

from indep_jax import command, loading, measure
from indep_jax.data import pipeline, sources
from indep_jax.independence import estimate
from indep_jax.metrics import dependence, reconstruction, report

BATCH = 4
LISTEN = 6  # excerpts on the page
TRAIN_ITEMS = 32  # training excerpts whose mean log-mel frame is the baseline


def reconstruct(codec, audio_NxTxC: np.ndarray, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Waveforms [items, time, channels] through the codec, and their codes."""
    waves, codes = [], []
    for start in tqdm.trange(0, len(audio_NxTxC), BATCH, desc=f"reconstruct {label}"):
        batch = audio_NxTxC[start : start + BATCH]
        filled = np.concatenate([batch, np.repeat(batch[-1:], BATCH - len(batch), axis=0)])
        encoded = codec.encode(filled)
        waves.append(np.asarray(codec.decode(encoded))[: len(batch)])
        codes.append(np.asarray(encoded.codes)[: len(batch)])
    return np.concatenate(waves), np.concatenate(codes)


def mean_frames(source: str, codec, seconds: float) -> list[np.ndarray]:
    """The mean log-mel frames of the source's training split."""
    train = pipeline.excerpts(
        sources.open_source(source, "train"),
        seconds=seconds,
        sample_rate=codec.sample_rate,
        channels=codec.channels,
        items=TRAIN_ITEMS,
    )
    mono = train["audio"].mean(axis=-1)
    frames = [reconstruction.mean_log_mel(wave[None], codec.sample_rate) for wave in mono]
    return [np.mean(scale, axis=0) for scale in zip(*frames)]


def evaluate(path: str, source: str, split: str, items: int, seconds: float) -> dict:
    """One codec on excerpts of a split: its metrics and, for the page, excerpts and outputs."""
    codec = loading.load_codec(path)
    label = measure.codec_label(path)
    excerpts = pipeline.excerpts(
        sources.open_source(source, split),
        seconds=seconds,
        sample_rate=codec.sample_rate,
        channels=codec.channels,
        items=items,
    )
    waves, codes = reconstruct(codec, excerpts["audio"], label)
    metrics = reconstruction.evaluate_reconstruction(
        excerpts["audio"], waves, codec.sample_rate, mean_frames(source, codec, seconds)
    )
    for name, item in zip(excerpts["names"], metrics["items"], strict=True):
        item["file"] = name
    flat = list(codes.reshape(len(codes), -1, codec.codebooks))
    metrics["perplexity"] = estimate.usage(
        flat, [codec.codebook_size] * codec.codebooks
    ).perplexity.tolist()
    rate = codec.sample_rate
    return dict(label=label, metrics=metrics, excerpts=excerpts, waves=waves, rate=rate)


def show(page: report.Report, results: list[dict]) -> None:
    """Tables and music of evaluated codecs."""
    page.section("Reconstruction", "Medians over excerpts, with 95% intervals in brackets.")
    rows = []
    for result in results:
        metrics = result["metrics"]
        snr = metrics["si_snr_db"]
        rows.append(
            [
                result["label"],
                _median(snr, 2),
                " to ".join(f"{value:.2f}" for value in snr.get("quartiles", [])),
                _median(metrics["mel_distance_log10"], 3),
                f"{metrics['mel_distance_relative']:.2f}",
            ]
        )
    page.table(
        "Closeness to the original. Mel distance is in log10 of power: 0.1 is 1 dB. Relative: "
        "mean mel distance over that of the training music's mean spectrum.",
        ["codec", "SI-SNR, dB", "quartiles", "mel distance", "relative"],
        rows,
    )
    codebooks = max(len(result["metrics"]["perplexity"]) for result in results)
    page.table(
        "Perplexity of each codebook: codes in effective use",
        ["codec", *(f"codebook {k + 1}" for k in range(codebooks))],
        [[r["label"], *(f"{value:.0f}" for value in r["metrics"]["perplexity"])] for r in results],
    )
    page.section("Listen", "Held-out music, and what is left of it after the codec.")
    first = results[0]
    for n in range(min(LISTEN, len(first["waves"]))):
        versions = [("Original", first["excerpts"]["audio"][n], first["rate"])]
        labels = [r["label"] if len(results) > 1 else "Reconstruction" for r in results]
        versions += [(lab, r["waves"][n], r["rate"]) for lab, r in zip(labels, results)]
        page.listen(first["excerpts"]["names"][n], versions)


def _median(summary: dict, digits: int) -> str:
    if "median" not in summary:
        return "silence only"
    return dependence.with_interval(summary["median"], summary["median_interval_95"], digits)


def main() -> None:
    options = flags.FLAGS
    paths, folder = [options.codec, *options.versus], Path(options.output)
    labels = [measure.codec_label(path) for path in paths]
    if len(set(labels)) < len(labels):
        raise ValueError(f"--versus: expected folders of different names, not {labels}")
    where = options.source, options.split
    results = [evaluate(path, *where, options.items, options.seconds) for path in paths]
    content = dict(source=options.source, split=options.split, seconds=options.seconds)
    content["codecs"] = {result["label"]: result["metrics"] for result in results}
    report.replace_file(folder / "metrics.json", json.dumps(content, indent=1).encode())

    page = report.Report(
        " and ".join(labels),
        f"Evaluated on {options.items} excerpts of {options.seconds:g} s of held-out music "
        f"({options.source}, {options.split}).",
    )
    show(page, results)
    if options.dependence:
        start = measure.trained_here(loading.load_codec(options.codec))
        measured = measure.measure_codec(options.codec, *where, untrained=start)
        for path in options.versus:
            measured += measure.measure_codec(path, *where)
        content = dict(source=options.source, split=options.split, **dependence.record(measured))
        report.replace_file(folder / "dependence.json", json.dumps(content, indent=1).encode())
        dependence.show(page, measured)
    for label, path in zip(labels, paths):
        log = Path(path) / "metrics.jsonl"
        figure = report.loss_curves(log) if log.is_file() else None
        if figure is not None:
            page.section(f"Training of {label}" if len(paths) > 1 else "Training")
            alt = f"Curves of the training metrics of {label} over steps"
            page.figure(f"training_{label}", figure, alt)
    path = page.write(folder)
    for label, result in zip(labels, results):
        metrics = result["metrics"]
        print(
            f"{label}: SI-SNR {_median(metrics['si_snr_db'], 2)} dB, mel distance "
            f"{metrics['mel_distance_relative']:.2f} of the mean spectrum's"
        )
    print(f"report: {path}")


if __name__ == "__main__":
    flags.DEFINE_string("codec", None, "Workdir or Hugging Face folder.", required=True)
    flags.DEFINE_multi_string("versus", [], "Another codec to compare with; may be repeated.")
    flags.DEFINE_string("source", None, "Music: folder:PATH or sample:.", required=True)
    flags.DEFINE_enum("split", "test", ["train", "valid", "test", "all"], "Split of the source.")
    flags.DEFINE_integer("items", 24, "Excerpts, spread over the files.", lower_bound=1)
    flags.DEFINE_float("seconds", 10.0, "Length of an excerpt.", lower_bound=1.0)
    flags.DEFINE_bool("dependence", False, "Also measure the codebooks, before and after training.")
    flags.DEFINE_string("output", None, "Folder to write to.", required=True)
    command.run(main)
