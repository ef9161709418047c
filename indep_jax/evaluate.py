"""Evaluates codecs on held-out music: numbers, and a page to look at and to listen to.

    python -m indep_jax.evaluate --codec=DIR --source=folder:PATH --output=DIR
        [--split=test] [--versus=DIR]... [--dependence]

Writes metrics.json, figures/ and report.html. metrics.json holds for every codec, by name:
si_snr_db and mel_distance_log10 (median, median_interval_95, quartiles, mean over excerpts),
mean_frame_distance_log10 (what the mean log-mel frame would get of the music of
mean_frame_split: train, where the source has that), mel_distance_relative (their ratio),
perplexity by codebook, and the items themselves. --dependence also measures the codebooks, on the
whole files of the split, before and after training: dependence.json (schema: indep_jax/measure.py).
"""

import json
from pathlib import Path

from absl import flags

from indep_jax import command, loading, measure
from indep_jax.metrics import dependence, excerpts, report


def main() -> None:
    options = flags.FLAGS
    paths, folder = [options.codec, *options.versus], Path(options.output)
    labels = [measure.codec_label(path) for path in paths]
    if len(set(labels)) < len(labels):
        raise ValueError(f"--versus: expected folders of different names, not {labels}")
    where = options.source, options.split
    results = [
        excerpts.evaluate(
            loading.load_codec(path), label, *where, options.items, options.seconds
        )
        for path, label in zip(paths, labels)
    ]
    content = dict(source=options.source, split=options.split, seconds=options.seconds)
    content["codecs"] = {result.label: result.metrics for result in results}
    report.replace_file(folder / "metrics.json", json.dumps(content, indent=1).encode())

    held_out = options.split in ("valid", "test")
    page = report.Report(
        " and ".join(labels),
        f"Evaluated on {options.items} excerpts of {options.seconds:g} s of {options.source}, "
        f"{'held-out split' if held_out else 'split'} {options.split}.",
    )
    excerpts.show(page, results)
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
    for result in results:
        print(
            f"{result.label}: SI-SNR {excerpts.median(result.metrics['si_snr_db'], 2)} dB, "
            f"mel distance {result.metrics['mel_distance_relative']:.2f} of the mean spectrum's"
        )
    print(f"report: {path}")


if __name__ == "__main__":
    flags.DEFINE_string("codec", None, "Workdir or Hugging Face folder.", required=True)
    flags.DEFINE_multi_string("versus", [], "Another codec to compare with; may be repeated.")
    flags.DEFINE_string("source", None, "Music: folder:PATH, array_record:GLOB, tfds:NAME or sample:.",
                        required=True)
    flags.DEFINE_enum("split", "test", ["train", "valid", "test", "all"], "Split of the source.")
    flags.DEFINE_integer("items", 24, "Excerpts, spread over the files.", lower_bound=1)
    flags.DEFINE_float("seconds", 10.0, "Length of an excerpt.", lower_bound=1.0)
    flags.DEFINE_bool("dependence", False, "Also measure the codebooks, before and after training.")
    flags.DEFINE_string("output", None, "Folder to write to.", required=True)
    command.run(main)
