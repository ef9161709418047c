"""Measures how dependent a tokenizer's codebooks are on each other.

    python -m indep_jax.measure --codec=DIR --source=folder:PATH --output=DIR [--untrained]
    python -m indep_jax.measure --codes=FILE.npz --output=DIR

--codes works for any tokenizer: one integer array [frames, codebooks] for each source file.

Writes report.html, figures/dependence.png and dependence.json:
  source, split        what was measured
  tokenizers           for each tokenizer
    label, files, frames
    codebooks          for each codebook, counted from 1
      codebook, size, entropy_bits, perplexity, share_used
    mutual_information for each lag: 0 (same frame) and "delay" (the delay pattern's own lags)
      lag
      mean             over pairs of codebooks: bits, interval_95_bits [low, high]
      pairs            codebooks [i, j], bits, interval_95_bits, plug_in_bits (not corrected),
                       independent_bits (what the correction takes off), share_of_entropy
    warnings           sentences
  changes              from the first tokenizer to each other one, file by file:
    before, after (labels), lag, mean_bits, interval_95_bits
What the numbers are is said in indep_jax/independence/estimate.py.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
from absl import flags

from indep_jax import command, loading
from indep_jax.data import sources
from indep_jax.metrics import dependence, report


def measure_codec(
    codec_path: str, source: str, split: str, untrained: bool = False
) -> list[dependence.Dependence]:
    """The codec on a split of a source; before it, with `untrained`, the same codec untrained.

    Raises ValueError, one line, for `untrained` with a codec that was not trained here.
    """
    codec = loading.load_codec(codec_path)
    files = sources.open_source(source, split)
    codecs = {codec_label(codec_path): codec}
    if untrained:
        if not trained_here(codec):
            raise ValueError(f"--untrained: {codec_path} is not a workdir of indep_jax.train")
        start = loading.untrained(codec.config, source, codec.config["seed"])
        codecs = {"untrained": start, **codecs}
    return [
        dependence.measure(
            label,
            dependence.encode_files(codec, files, label),
            [codec.codebook_size] * codec.codebooks,
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
        raise ValueError(f"{path}: expected an .npz or .npy file of integer arrays") from None


def write(measured: list[dependence.Dependence], source: str, split: str, output: str) -> Path:
    """Writes dependence.json, the figure and the page; returns the page's path."""
    folder = Path(output)
    content = dict(source=source, split=split, **dependence.record(measured))
    report.replace_file(folder / "dependence.json", json.dumps(content, indent=1).encode())
    names = " and ".join(item.label for item in measured)
    page = report.Report("Dependence of codebooks", f"{names} on {source} {split}".strip())
    dependence.show(page, measured)
    return page.write(folder)


def main() -> None:
    options = flags.FLAGS
    if bool(options.codec) == bool(options.codes):
        raise ValueError("expected --codec with --source, or --codes")
    if options.codes:
        codes = read_codes(options.codes)
        measured = [dependence.measure(Path(options.codes).name, codes, None)]
        page = write(measured, options.codes, "", options.output)
    else:
        if not options.source:
            raise ValueError("--source: expected folder:PATH or sample: with --codec")
        measured = measure_codec(options.codec, options.source, options.split, options.untrained)
        page = write(measured, options.source, options.split, options.output)
    for item in measured:
        for text in item.warnings:
            print(text)
        bits, interval = item.information.mean_bits[0], item.information.mean_interval_bits[0]
        print(f"{item.label}: mean over pairs {report.with_interval(bits, interval)} bits")
    print(f"report: {page}")


if __name__ == "__main__":
    flags.DEFINE_string("codec", None, "Workdir of indep_jax.train or Hugging Face folder.")
    flags.DEFINE_string("source", None, "Music: folder:PATH or sample:.")
    flags.DEFINE_enum("split", "test", ["train", "valid", "test", "all"], "Split of the source.")
    flags.DEFINE_string("codes", None, ".npz of one [frames, codebooks] array per source file.")
    flags.DEFINE_bool("untrained", False, "Compare with the same codec before training.")
    flags.DEFINE_string("output", None, "Folder to write to.", required=True)
    command.run(main)
