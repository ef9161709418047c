"""Measures how dependent a tokenizer's codebooks are on each other.

    python -m indep_jax.measure --codec=DIR --source=folder:PATH --output=DIR
        [--versus=DIR2]... [--untrained] [--bandwidth=KBPS]
    python -m indep_jax.measure --codes=FILE.npz --output=DIR [--versus=FILE2.npz]...

--codes works for any tokenizer: one integer array [frames, codebooks] for each source file. A
single array (.npy) will do, with blocks of it in place of files, and a warning: intervals are too
narrow.

Writes report.html, figures/*.png and dependence.json:
  source, split        what was measured
  tokenizers           for each tokenizer
    label, files, frames
    codebooks          for each codebook, counted from 1
      codebook, size, entropy_bits, perplexity, share_used
    mutual_information for each lag: 0 (same frame), "delay" (the delay pattern's own lags), and
                       -8 to 8 frames, codebook i against codebook j > i so many frames before
      lag
      mean             over pairs of codebooks: bits, interval_95_bits [low, high]
      pairs            codebooks [i, j], bits, interval_95_bits, plug_in_bits (not corrected),
                       independent_bits (what the correction takes off), share_of_entropy
    independence_test  p_value, dhsic, permuted_dhsic (mean over permutations), permutations,
                       files, rows
    total_correlation  for each pattern, "parallel" and "delay": what predicting the codes of a
                       step side by side costs
      pattern
      estimates        by training size, the last the best; all bits are per frame
        training_frames, held_out_frames, held_out_files
        conditional_bits, conditional_interval_95_bits   given the past: the headline
        factorised_bits, joint_bits                      its two terms; joint is the entropy rate
        total_bits, total_interval_95_bits               without the past
    warnings           sentences
  changes              from each tokenizer to each later one, file by file:
    before, after (labels), lag (0 and "delay"), mean_bits, interval_95_bits
  total_correlation_changes   the same for each pattern, of the best estimates' conditional_bits
    before, after, pattern, conditional_bits, interval_95_bits
(`evaluate --dependence` writes the same, but of lags only 0 and "delay", and neither test nor
total_correlation; there are no changes of it.)
The estimators, their bias and their intervals are described in indep_jax/dependence/:
mutual_information.py, permutation_test.py, total_correlation.py.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from indep_jax.support import command
from indep_jax.support.errors import UserError
from indep_jax.support.files import replace_file

if TYPE_CHECKING:
    from indep_jax import dependence


def measure_codec(
    codec_path: str,
    source: str,
    split: str,
    untrained: bool = False,
    whole: bool = False,
    bandwidth: float | None = None,
) -> list[dependence.Dependence]:
    """The codec on a split of a source; before it, with `untrained`, the same codec untrained.

    whole: also what takes minutes, see `dependence.measure_codes`. bandwidth: see `inference.load_codec`.
    Raises UserError, one line, for `untrained` with a codec that was not trained here.
    """
    from indep_jax import dependence, inference
    from indep_jax.data import sources
    from indep_jax.inference.encode_files import codes_by_origin

    codec = inference.load_codec(codec_path, bandwidth=bandwidth)
    files = sources.open_source(source, split)
    codecs = {codec_label(codec_path): codec}
    if untrained:
        if not trained_here(codec):
            raise UserError(f"--untrained: {codec_path} is not a workdir of indep_jax.train")
        start = inference.untrained(codec.config, source, codec.config["seed"])
        codecs = {"untrained": start, **codecs}
    return [
        dependence.measure_codes(
            label,
            list(codes_by_origin(codec, files, label).values()),
            [codec.codebook_size] * codec.codebooks,
            codec.code_vectors if whole else None,
            whole=whole,
        )
        for label, codec in codecs.items()
    ]


def trained_here(codec) -> bool:
    """Whether the codec's config is that of a run, so that its start can be made again."""
    return "data" in codec.config


def codec_label(path: str) -> str:
    """How reports call the codec of a folder."""
    return Path(path).resolve().name


def read_codes(path: str) -> list[np.ndarray]:
    """Arrays [frames, codebooks] of an .npz file, one per source file; or of one .npy file."""
    try:
        content = np.load(path, allow_pickle=False)
        return list(content.values()) if hasattr(content, "values") else [content]
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise UserError(f"{path}: expected an .npz or .npy file of integer arrays") from None


def write(measured: list[dependence.Dependence], source: str, split: str, output: str) -> Path:
    """Write dependence.json, the figures and the page; return the page's path."""
    from indep_jax import dependence, report

    folder = Path(output)
    record = dict(source=source, split=split, **dependence.record(measured))
    replace_file(folder / "dependence.json", json.dumps(record, indent=1))
    names = " and ".join(item.label for item in measured)
    page = report.Report("Dependence of codebooks", f"{names} on {source} {split}".strip())
    report.dependence.show(page, record)
    return page.write(folder)


def main() -> None:
    options = flags.FLAGS
    if bool(options.codec) == bool(options.codes):
        raise UserError("expected --codec with --source, or --codes")
    if options.codes and options.bandwidth is not None:
        raise UserError("--bandwidth is of a --codec")
    paths = [options.codec or options.codes, *options.versus]
    labels = [codec_label(path) for path in paths]
    if len(set(labels)) < len(labels):
        raise UserError(f"--versus: expected paths of different names, not {labels}")
    if not (options.codes or options.source):
        raise UserError("--source: expected music, such as folder:PATH, with --codec")

    from indep_jax import dependence, report

    measured = []
    if options.codes:
        contents = [read_codes(path) for path in paths]
        for label, codes in zip(labels, contents):
            measured.append(dependence.measure_codes(label, codes, whole=True))
        page = write(measured, options.codes, "", options.output)
    else:
        where = options.source, options.split
        for path in paths:
            untrained = options.untrained and path == options.codec
            measured += measure_codec(
                path, *where, untrained, whole=True, bandwidth=options.bandwidth
            )
        page = write(measured, *where, options.output)
    for text in dict.fromkeys(text for item in measured for text in item.warnings):
        print(text)
    for item in measured:
        costs = [
            f"{estimates[-1].conditional_bits:.3f} bits per frame ({estimates[-1].pattern})"
            for estimates in item.total_correlations
        ]
        print(f"{item.label}: total correlation given the past {', '.join(costs)}")
        bits, interval = item.information.mean_bits[0], item.information.mean_interval_bits[0]
        text = report.with_interval(bits, interval)
        print(f"{item.label}: mutual information, mean over pairs {text} bits")
    print(f"report: {page}")


if __name__ == "__main__":
    flags.DEFINE_string(
        "codec",
        None,
        "Workdir of indep_jax.train, Hugging Face folder, hf:NAME, or a model that ships, such as "
        "small.",
    )
    flags.DEFINE_float(
        "bandwidth", None, "kbit/s of codecs that have several; default the largest."
    )
    flags.DEFINE_string(
        "source", None, "Music: folder:PATH, array_record:GLOB, tfds:NAME or sample:."
    )
    flags.DEFINE_enum("split", "test", ["train", "valid", "test", "all"], "Split of the source.")
    flags.DEFINE_string("codes", None, ".npz of one [frames, codebooks] array per source file.")
    flags.DEFINE_multi_string("versus", [], "Another of the same kind; may be repeated.")
    flags.DEFINE_bool("untrained", False, "Compare with the same codec before training.")
    flags.DEFINE_string("output", None, "Folder to write to.", required=True)
    command.run(main)
