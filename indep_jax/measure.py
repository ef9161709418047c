"""Measures how dependent a tokenizer's codebooks are on each other.

    python -m indep_jax.measure --codec=DIR --source=folder:PATH --output=DIR
        [--versus=DIR2]... [--untrained] [--bandwidth=KBPS]
    python -m indep_jax.measure --tokenizer=transformers:mimi:PATH --source=folder:PATH --output=DIR
    python -m indep_jax.measure --codes=FILE.npz --output=DIR [--versus=FILE2.npz]...

Files are encoded whole, as `indep_jax.encode` stores them. --tokenizer is DAC or Mimi in
transformers (extra `parity`); --versus takes either kind. --codes works for any tokenizer: one
integer array [frames, codebooks] for each source file. A single array (.npy) will do, with blocks
of it in place of files, and a warning: intervals are too narrow. --untrained compares with the
codec as its run began: its own first weights and, for the codebooks, its own music.

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
from indep_jax.support.files import model_name, replace_file

if TYPE_CHECKING:
    from indep_jax import dependence
    from indep_jax.inference import LoadedCodec, Tokenizer


def measure_tokenizer(
    tokenizer: Tokenizer, source: str, split: str, *, whole: bool = False
) -> dependence.Dependence:
    """Measure the codebooks of a tokenizer on the files of a split of a source.

    whole: also what takes minutes, see `dependence.measure_codes`.
    """
    from indep_jax import dependence
    from indep_jax.data import sources
    from indep_jax.inference.encode_files import codes_by_origin

    codes = list(codes_by_origin(tokenizer, sources.open_source(source, split)).values())
    sizes = [tokenizer.codebook_size] * tokenizer.codebooks
    vectors = tokenizer.code_vectors if whole else None
    return dependence.measure_codes(tokenizer.label, codes, sizes, vectors, whole=whole)


def load_untrained(path: str, bandwidth: float | None = None) -> LoadedCodec:
    """Return the codec of a run as it was before training, labelled "untrained".

    path: the run's workdir; its music must be where its config says.
    Raises UserError where `path` is no workdir, or the music is not there.
    """
    from indep_jax.inference import load
    from indep_jax.tasks import build
    from indep_jax.training import checkpoints

    config = checkpoints.read_config(path)
    if config is None or "data" not in config:
        raise UserError(f"--untrained: {path} is not a workdir of indep_jax.train")
    codec = build.untrained(config)
    return codec if bandwidth is None else load.at_bandwidth(codec, bandwidth)


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
    given = [path for path in (options.codec, options.tokenizer, options.codes) if path]
    if len(given) != 1:
        raise UserError("expected --codec or --tokenizer, with --source, or --codes")
    if not options.codec and (options.untrained or options.bandwidth is not None):
        raise UserError("--untrained and --bandwidth are of a --codec")
    paths = [*given, *options.versus]
    labels = [model_name(path) for path in paths]
    if len(set(labels)) < len(labels):
        raise UserError(f"--versus: expected paths of different names, not {labels}")
    if not (options.codes or options.source):
        raise UserError("--source: expected music, such as folder:PATH")

    from indep_jax import dependence, inference, report

    measured = []
    if options.codes:
        contents = [read_codes(path) for path in paths]
        for label, codes in zip(labels, contents):
            measured.append(dependence.measure_codes(label, codes, whole=True))
        page = write(measured, options.codes, "", options.output)
    else:
        where = options.source, options.split
        tokenizers = [inference.load_tokenizer(path, bandwidth=options.bandwidth) for path in paths]
        if options.untrained:
            tokenizers.insert(0, load_untrained(options.codec, options.bandwidth))
        measured = [measure_tokenizer(each, *where, whole=True) for each in tokenizers]
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
    flags.DEFINE_string("tokenizer", None, "transformers:dac:PATH or transformers:mimi:PATH.")
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
