"""Evaluate codecs, or language models, on held-out music: numbers, and a page with players.

    python -m indep_jax.evaluate --codec=DIR --source=folder:PATH --output=DIR
        [--split=test] [--versus=DIR]... [--dependence] [--bandwidth=KBPS]
    python -m indep_jax.evaluate --lm=DIR --source=tokens:PATH --output=DIR
        [--split=valid] [--versus=DIR]... [--codec=DIR] [--pieces=N]

Writes metrics.json, figures/ and report.html. metrics.json holds for every codec, by name:
si_snr_db and mel_distance_log10 (median, median_interval_95, quartiles, mean over excerpts),
mean_frame_distance_log10 (the mel distance of the mean log-mel frame of the music of
mean_frame_split, which is train where the source has that), mel_distance_relative (their ratio),
frechet_distance between musicnn's embeddings, 3 s each, of the music and of the reconstructions
(null for one embedding), perplexity by codebook, and the items themselves. --dependence also
measures the codebooks on the whole files of the split, before and after training where the codec
is a run whose music is there, and writes
dependence.json (schema: indep_jax/measure.py).

For language models metrics.json holds, by name: pattern, head, parameters, segments, frames,
bits_per_frame with bits_per_frame_interval_95, and cross_entropy_bits by codebook; for one that
reads texts also bits_per_frame_other_texts, given those of other music, and bits_per_frame_no_text;
with --pieces=N frechet_distance, between N pieces that it generates and N pieces of the split
through the codec.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from absl import flags

from indep_jax import measure
from indep_jax.support import command
from indep_jax.support.errors import UserError
from indep_jax.support.files import model_name, replace_file

if TYPE_CHECKING:
    from indep_jax import report
    from indep_jax.data import tokens
    from indep_jax.inference import LoadedCodec

TRAIN_ITEMS = 32  # training excerpts whose mean log-mel frame is the baseline
LISTEN = 6  # pieces of generated music on the page


class CodecEvaluation(NamedTuple):
    """Metrics of a codec as in metrics.json, and the excerpts that they are of.

    originals, reconstructions: [excerpts, time, channels] at the codec's sample rate.
    """

    metrics: dict
    names: list[str]
    originals: np.ndarray
    reconstructions: np.ndarray


class LMEvaluation(NamedTuple):
    """Metrics of a language model as in metrics.json, and music that it generates.

    texts: that it was generated from, "" for none. originals: the music with these texts, through
    the codec. Waveforms [time, channels] at the codec's sample rate.
    """

    metrics: dict
    texts: list[str]
    originals: list[np.ndarray]
    generated: list[np.ndarray]


def evaluate_codec(
    codec, label: str, source: str, split: str, items: int, seconds: float
) -> CodecEvaluation:
    """Evaluate a codec on `items` excerpts of `seconds`, spread over the files of a split."""
    from indep_jax import evaluation
    from indep_jax.data import pipeline, sources

    def read(files, count):
        return pipeline.excerpts(
            files,
            seconds=seconds,
            sample_rate=codec.sample_rate,
            channels=codec.channels,
            items=count,
        )

    excerpts = read(sources.open_source(source, split), items)
    try:
        training = sources.open_source(source, "train")
    except UserError:  # a source need not have that split
        training = sources.open_source(source, split)
    frames = evaluation.codec.mean_frames_of(
        read(training, TRAIN_ITEMS)["audio"], codec.sample_rate
    )
    names, audio = excerpts["names"], excerpts["audio"]
    metrics, waves = evaluation.codec.evaluate(codec, label, names, audio, frames)
    return CodecEvaluation(metrics | dict(mean_frame_split=training.split), names, audio, waves)


def evaluate_lm(
    lm,
    label: str,
    store: tokens.Store,
    split: str,
    items: int,
    seconds: float,
    pieces: int = 0,
    seed: int = 0,
) -> LMEvaluation:
    """Evaluate a language model on `items` segments of a split of a token store.

    The segments are as long as those that it was trained on, and the same for every model of that
    length. seconds: of the music that it generates, from the captions of the split where it reads
    texts. pieces: of that music for the Fréchet distance; 0 leaves it out. Raises UserError for
    tokens of another codec.
    """
    from indep_jax import evaluation
    from indep_jax.data import pipeline

    if store.info["codec"] != lm.codec.fingerprint:
        raise UserError(
            f"the tokens in {store.folder} are of codec {store.info['codec']}, and that "
            f"of {label} is {lm.codec.fingerprint}"
        )

    def read(count, length, seed):
        frames = round(length * lm.codec.frame_rate)
        segments = pipeline.token_segments(store, split, seed=seed, batch_size=count, frames=frames)
        captions = [store.entries[record]["caption"] for record in segments[0]["record"]]
        return segments[0]["codes"], captions

    segments = read(items, lm.config["data"]["segment_seconds"], 0)
    metrics = evaluation.lm.evaluate(lm, label, *segments)
    if pieces:
        metrics["frechet_distance"] = evaluation.lm.frechet_distance(
            lm, label, *read(pieces, seconds, 1), seconds, seed
        )
    records = store.select(split)[: LISTEN if lm.encoder else 2]
    texts = [store.entries[record]["caption"] if lm.encoder else "" for record in records]
    length = round(seconds * lm.codec.frame_rate)
    generated, originals = [], []
    for number, (record, text) in enumerate(zip(records, texts)):
        heard = [text] if lm.encoder else None
        generated.append(np.asarray(lm.generate(heard, seconds, seed=seed + number))[0])
        codes = store[record].codes[None, :length].astype(np.int32)
        originals.append(np.asarray(lm.codec.decode(codes))[0])
    return LMEvaluation(metrics, texts, originals, generated)


def main() -> None:
    options = flags.FLAGS
    if not (options.codec or options.lm):
        raise UserError("expected --codec, or --lm")
    paths = [options.lm or options.codec, *options.versus]
    labels = [model_name(path) for path in paths]
    if len(set(labels)) < len(labels):
        raise UserError(f"--versus: expected folders of different names, not {labels}")
    lines = (_language_models if options.lm else _codecs)(paths, labels, options)
    print("\n".join(lines))


def _codecs(paths: Sequence[str], labels: Sequence[str], options) -> list[str]:
    """Evaluate codecs, and return the lines to print."""
    if options.pieces:
        raise UserError("--pieces is of a language model: expected --lm")

    from indep_jax import dependence, inference, report

    folder, where = Path(options.output), (options.source, options.split)
    codecs = [inference.load_codec(path, bandwidth=options.bandwidth) for path in paths]
    results, rates = {}, {}
    for label, codec in zip(labels, codecs):
        results[label] = evaluate_codec(codec, label, *where, options.items, options.seconds)
        rates[label] = codec.sample_rate
    metrics = {label: result.metrics for label, result in results.items()}
    content = dict(source=options.source, split=options.split, seconds=options.seconds)
    replace_file(folder / "metrics.json", json.dumps(content | dict(codecs=metrics), indent=1))

    held_out = options.split in ("valid", "test")
    page = report.Report(
        " and ".join(labels),
        f"Evaluated on {options.items} excerpts of {options.seconds:g} s of {options.source}, "
        f"{'held-out split' if held_out else 'split'} {options.split}.",
    )
    report.codec.show(page, metrics)
    first = results[labels[0]]
    report.codec.listen(
        page,
        first.names,
        (first.originals, rates[labels[0]]),
        {label: (result.reconstructions, rates[label]) for label, result in results.items()},
    )
    if options.dependence:
        tokenizers = [*_before_training(codecs[0], options), *codecs]
        measured = [measure.measure_tokenizer(each, *where) for each in tokenizers]
        record = dict(source=options.source, split=options.split, **dependence.record(measured))
        replace_file(folder / "dependence.json", json.dumps(record, indent=1))
        report.dependence.show(page, record)
    _show_training(page, paths, labels)
    path = page.write(folder)
    lines = [
        f"{label}: SI-SNR {report.codec.median(each['si_snr_db'], 2)} dB, "
        f"mel distance {each['mel_distance_relative']:.2f} of the mean spectrum's"
        for label, each in metrics.items()
    ]
    return [*lines, f"report: {path}"]


def _before_training(codec: LoadedCodec, options) -> list[LoadedCodec]:
    """The codec of --codec as its run began; none, and why on stderr, where that cannot be made."""
    if "data" not in codec.config:  # not trained here
        return []
    try:
        return [measure.load_untrained(options.codec, options.bandwidth)]
    except UserError as error:
        print(f"{options.codec}: measured after training alone: {error}", file=sys.stderr)
        return []


def _language_models(paths: Sequence[str], labels: Sequence[str], options) -> list[str]:
    """Evaluate language models, and return the lines to print."""
    if not options.source.startswith("tokens:"):
        raise UserError(
            f"--source={options.source}: expected tokens:PATH, what indep_jax.encode wrote"
        )
    if options.dependence or options.bandwidth is not None:
        raise UserError("--dependence and --bandwidth are of a codec: expected --codec alone")
    if options.items < 2:
        raise UserError(f"--items={options.items}: expected at least 2")
    if options.pieces == 1:
        raise UserError("--pieces=1: expected none, or at least 2")

    from indep_jax import inference, report
    from indep_jax.data import tokens

    folder, store = Path(options.output), tokens.Store(options.source.removeprefix("tokens:"))
    results, rates = {}, {}
    for path, label in zip(paths, labels):
        lm = inference.load_lm(path, codec=options.codec)
        results[label] = evaluate_lm(
            lm, label, store, options.split, options.items, options.seconds, options.pieces
        )
        rates[label] = lm.codec.sample_rate
    metrics = {label: result.metrics for label, result in results.items()}
    content = dict(source=options.source, split=options.split, models=metrics)
    replace_file(folder / "metrics.json", json.dumps(content, indent=1))
    page = report.Report(
        " and ".join(labels),
        f"Evaluated on {options.items} segments of {options.source}, split {options.split}.",
    )
    report.lm.show(page, metrics)
    first = results[labels[0]]
    report.lm.listen(
        page,
        first.texts,
        (first.originals, rates[labels[0]]),
        {label: (result.generated, rates[label]) for label, result in results.items()},
    )
    _show_training(page, paths, labels)
    path = page.write(folder)
    lines = [
        f"{label}: {each['bits_per_frame']:.3f} bits per frame" for label, each in metrics.items()
    ]
    return [*lines, f"report: {path}"]


def _show_training(page: report.Report, paths: Sequence[str], labels: Sequence[str]) -> None:
    from indep_jax import report

    for label, path in zip(labels, paths):
        log = Path(path) / "metrics.jsonl"
        figure = report.figures.loss_curves(log) if log.is_file() else None
        if figure is not None:
            page.section(f"Training of {label}" if len(paths) > 1 else "Training")
            alt = f"Curves of the training metrics of {label} over steps"
            page.figure(f"training_{label}", figure, alt)


if __name__ == "__main__":
    flags.DEFINE_string(
        "codec",
        None,
        "Workdir of indep_jax.train, Hugging Face folder, hf:NAME, or a model that ships, such as "
        "small. With --lm, the codec of its tokens where it has moved.",
    )
    flags.DEFINE_string("lm", None, "Workdir, Hugging Face folder or hf:NAME of a language model.")
    flags.DEFINE_float(
        "bandwidth", None, "kbit/s of codecs that have several; default the largest."
    )
    flags.DEFINE_multi_string("versus", [], "Another one to compare with; may be repeated.")
    flags.DEFINE_string(
        "source",
        None,
        "Music: folder:PATH, array_record:GLOB, tfds:NAME or sample:; "
        "for a language model tokens:PATH.",
        required=True,
    )
    flags.DEFINE_enum("split", "test", ["train", "valid", "test", "all"], "Split of the source.")
    flags.DEFINE_integer(
        "items", 24, "Excerpts, spread over the files; segments of tokens.", lower_bound=1
    )
    flags.DEFINE_float(
        "seconds",
        10.0,
        "Length of an excerpt, or of what a language model writes.",
        lower_bound=1.0,
    )
    flags.DEFINE_integer(
        "pieces",
        0,
        "Pieces that a language model writes for its Fréchet distance; some "
        "hundreds tell models apart.",
        lower_bound=0,
    )
    flags.DEFINE_bool("dependence", False, "Also measure the codebooks, before and after training.")
    flags.DEFINE_string("output", None, "Folder to write to.", required=True)
    command.run(main, memory_remedy="lower --seconds")
