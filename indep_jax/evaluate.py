"""Evaluates codecs, or language models, on held-out music: numbers, and a page to look at and hear.

    python -m indep_jax.evaluate --codec=DIR --source=folder:PATH --output=DIR
        [--split=test] [--versus=DIR]... [--dependence] [--bandwidth=KBPS]
    python -m indep_jax.evaluate --lm=DIR --source=tokens:PATH --output=DIR
        [--split=valid] [--versus=DIR]... [--codec=DIR] [--pieces=N]

Writes metrics.json, figures/ and report.html. metrics.json holds for every codec, by name:
si_snr_db and mel_distance_log10 (median, median_interval_95, quartiles, mean over excerpts),
mean_frame_distance_log10 (what the mean log-mel frame would get of the music of
mean_frame_split: train, where the source has that), mel_distance_relative (their ratio),
frechet_distance of the music and its reconstructions (of musicnn's embeddings of 3 s, null of one
alone), perplexity by codebook, and the items themselves. --dependence also measures the codebooks, on the
whole files of the split, before and after training: dependence.json (schema: indep_jax/measure.py).

For language models metrics.json holds, by name: pattern, head, parameters, segments, frames,
bits_per_frame with bits_per_frame_interval_95, and cross_entropy_bits by codebook; of one that
reads texts also bits_per_frame_other_texts, given those of other music, and bits_per_frame_no_text;
with --pieces=N frechet_distance, of N pieces that it writes to N pieces of the split through the codec.
"""

import json
from pathlib import Path

from absl import flags

from indep_jax import inference, measure
from indep_jax.data import tokens
from indep_jax.dependence import measure as dependence
from indep_jax.evaluation import excerpts, language
from indep_jax.report import page as report
from indep_jax.support import command
from indep_jax.support.errors import UserError
from indep_jax.support.files import replace_file


def main() -> None:
    options = flags.FLAGS
    if not (options.codec or options.lm):
        raise UserError("expected --codec, or --lm")
    paths = [options.lm or options.codec, *options.versus]
    labels = [measure.codec_label(path) for path in paths]
    if len(set(labels)) < len(labels):
        raise UserError(f"--versus: expected folders of different names, not {labels}")
    lines = (_language_models if options.lm else _codecs)(paths, labels, options)
    print("\n".join(lines))


def _codecs(paths, labels, options) -> list[str]:
    """Evaluates codecs; returns what to print."""
    if options.pieces:
        raise UserError("--pieces is of a language model: expected --lm")
    folder, where = Path(options.output), (options.source, options.split)
    results = [
        excerpts.evaluate(
            inference.load_codec(path, bandwidth=options.bandwidth),
            label,
            *where,
            options.items,
            options.seconds,
        )
        for path, label in zip(paths, labels)
    ]
    content = dict(source=options.source, split=options.split, seconds=options.seconds)
    content["codecs"] = {result.label: result.metrics for result in results}
    replace_file(folder / "metrics.json", json.dumps(content, indent=1))

    held_out = options.split in ("valid", "test")
    page = report.Report(
        " and ".join(labels),
        f"Evaluated on {options.items} excerpts of {options.seconds:g} s of {options.source}, "
        f"{'held-out split' if held_out else 'split'} {options.split}.",
    )
    excerpts.show(page, results)
    if options.dependence:
        start = measure.trained_here(inference.load_codec(options.codec))
        measured = []
        for path in paths:
            untrained = start and path == options.codec
            measured += measure.measure_codec(path, *where, untrained, bandwidth=options.bandwidth)
        content = dict(source=options.source, split=options.split, **dependence.record(measured))
        replace_file(folder / "dependence.json", json.dumps(content, indent=1))
        dependence.show(page, measured)
    _show_training(page, paths, labels)
    path = page.write(folder)
    lines = [
        f"{result.label}: SI-SNR {excerpts.median(result.metrics['si_snr_db'], 2)} dB, "
        f"mel distance {result.metrics['mel_distance_relative']:.2f} of the mean spectrum's"
        for result in results
    ]
    return [*lines, f"report: {path}"]


def _language_models(paths, labels, options) -> list[str]:
    """Evaluates language models; returns what to print."""
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
    folder, store = Path(options.output), tokens.Store(options.source.removeprefix("tokens:"))
    results = [
        language.evaluate(
            inference.load_lm(path, codec=options.codec),
            label,
            store,
            options.split,
            options.items,
            options.seconds,
            options.pieces,
        )  # fmt: skip
        for path, label in zip(paths, labels)
    ]
    content = dict(source=options.source, split=options.split)
    content["models"] = {result.label: result.metrics for result in results}
    replace_file(folder / "metrics.json", json.dumps(content, indent=1))
    page = report.Report(
        " and ".join(labels),
        f"Evaluated on {options.items} segments of {options.source}, split {options.split}.",
    )
    language.show(page, results)
    _show_training(page, paths, labels)
    path = page.write(folder)
    lines = [
        f"{result.label}: {result.metrics['bits_per_frame']:.3f} bits per frame"
        for result in results
    ]
    return [*lines, f"report: {path}"]


def _show_training(page: report.Report, paths, labels) -> None:
    for label, path in zip(labels, paths):
        log = Path(path) / "metrics.jsonl"
        figure = report.loss_curves(log) if log.is_file() else None
        if figure is not None:
            page.section(f"Training of {label}" if len(paths) > 1 else "Training")
            alt = f"Curves of the training metrics of {label} over steps"
            page.figure(f"training_{label}", figure, alt)


if __name__ == "__main__":
    flags.DEFINE_string(
        "codec",
        None,
        "Workdir of indep_jax.train, Hugging Face folder or hf:NAME. "
        "With --lm, the codec of its tokens where it has moved.",
    )
    flags.DEFINE_string("lm", None, "The same of a language model.")
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
