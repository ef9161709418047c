"""Measures how dependent a codec's codebooks are on the music of a split, and shows it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tqdm

from indep_jax.data import sources, transforms
from indep_jax.independence import estimate
from indep_jax.metrics import report as report_lib

WINDOW_SECONDS = 10
BATCH = 4
LAGS = (0, "delay")


@dataclass(frozen=True)
class Dependence:
    """One tokenizer's codebooks on some music; see independence.estimate for the numbers."""

    label: str
    sizes: tuple[int, ...]
    usage: estimate.Usage
    information: estimate.MutualInformation

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences a reader of the numbers has to know."""
        idle = [
            str(k + 1)
            for k, (perplexity, size) in enumerate(zip(self.usage.perplexity, self.sizes))
            if perplexity < size / 4
        ]
        if not idle:
            return self.information.warnings
        return self.information.warnings + (
            f"{self.label}: perplexity under a quarter of the size of codebook "
            f"{', '.join(idle)}. What carries little has little to share: low dependence is no "
            "merit here.",
        )


def measure(label: str, codes: Sequence[np.ndarray], sizes: Sequence[int] | None) -> Dependence:
    """Of codes, one integer array [frames, codebooks] per source file."""
    usage = estimate.usage(codes, sizes)
    if sizes is None:
        sizes = [int(max(file[:, k].max() for file in codes)) + 1 for k in range(codes[0].shape[1])]
    information = estimate.mutual_information(codes, sizes=sizes, lags=LAGS)
    return Dependence(label, tuple(sizes), usage, information)


def encode_files(codec, source: sources.AudioSource, label: str = "") -> list[np.ndarray]:
    """int32 codes [frames, codebooks] of every file of a source, whole, in its order (of every
    origin, where the source holds pieces).

    Files are encoded in windows of 10 s, so that one compiled program and a bounded memory serve
    all lengths: the frames next to a window's ends do not see beyond it. A file that turns out to
    be unreadable is named on stderr and left out, as is one shorter than a frame.
    """
    window = round(WINDOW_SECONDS * codec.frame_rate)
    frames = [int(file.seconds * codec.frame_rate) for file in source.files]
    codes: list[list[np.ndarray]] = [[] for _ in source.files]
    broken = set()

    def windows() -> Iterator[tuple[int, np.ndarray]]:
        for number, file in enumerate(source.files):
            for start in range(0, frames[number], window):
                place = start / codec.frame_rate, window / codec.frame_rate
                try:
                    yield number, transforms.read_segment(
                        file, *place, codec.sample_rate, codec.channels
                    )
                except sources.READ_ERRORS as error:
                    problem = {file.name: sources.describe_error(error)}
                    sources.name_unreadable(f"source {source.source}, reading", problem)
                    broken.add(number)
                    break

    def encode(batch: list[tuple[int, np.ndarray]]) -> None:
        waves = [wave for _, wave in batch]
        waves += waves[-1:] * (BATCH - len(waves))  # one shape, one compilation
        encoded = np.asarray(codec.encode(np.stack(waves)).codes)
        for (number, _), item in zip(batch, encoded):
            codes[number].append(item)

    total = sum(-(-count // window) for count in frames)
    batch = []
    with tqdm.tqdm(total=total, desc=f"encode {label}".strip(), unit="window") as bar:
        for item in windows():
            batch.append(item)
            bar.update()
            if len(batch) == BATCH:
                encode(batch)
                batch = []
        if batch:
            encode(batch)
    whole: dict[int, list[np.ndarray]] = {}
    for number, origin in enumerate(source.origins):
        if codes[number] and number not in broken:
            piece = np.concatenate(codes[number])[: frames[number]]
            whole.setdefault(origin, []).append(piece)
    if not whole:
        raise ValueError(f"source {source.source}: no file of split {source.split} has a frame")
    return [np.concatenate(pieces) for pieces in whole.values()]


def record(measured: Sequence[Dependence]) -> dict:
    """The content of dependence.json; its schema is in indep_jax/measure.py."""

    def one(item: Dependence) -> dict:
        usage, information = item.usage, item.information
        codebooks = [
            dict(
                codebook=k + 1,
                size=item.sizes[k],
                entropy_bits=float(usage.entropy_bits[k]),
                perplexity=float(usage.perplexity[k]),
                share_used=float(usage.share_used[k]),
            )
            for k in range(len(item.sizes))
        ]
        lags = []
        for n, lag in enumerate(information.lags):
            pairs = [
                dict(
                    codebooks=[i + 1, j + 1],
                    bits=float(information.bits[n, p]),
                    interval_95_bits=information.interval_bits[n, p].tolist(),
                    plug_in_bits=float(information.plug_in_bits[n, p]),
                    independent_bits=float(information.independent_bits[n, p]),
                    share_of_entropy=float(information.share_of_entropy[n, p]),
                )
                for p, (i, j) in enumerate(information.pairs)
            ]
            mean = dict(
                bits=float(information.mean_bits[n]),
                interval_95_bits=information.mean_interval_bits[n].tolist(),
            )
            lags.append(dict(lag=lag, mean=mean, pairs=pairs))
        return dict(
            label=item.label,
            files=information.files,
            frames=information.frames,
            codebooks=codebooks,
            mutual_information=lags,
            warnings=list(item.warnings),
        )

    return dict(
        tokenizers=[one(item) for item in measured],
        changes=[
            dict(
                before=before.label,
                after=after.label,
                lag=lag,
                mean_bits=value,
                interval_95_bits=interval,
            )
            for before, after, lag, value, interval in _changes(measured)
        ],
    )


def show(report: report_lib.Report, measured: Sequence[Dependence]) -> None:
    """Adds the dependence section to a report."""
    information = measured[0].information
    report.section(
        "How dependent the codebooks are",
        "Mutual information between codebooks, in bits per frame: what a model that predicts them "
        "side by side cannot see. Estimated from histograms, less what independent codebooks of "
        "the same music would read; 0 is independent. Intervals are 95% over files (jackknife). "
        "The delay pattern compares what a language model with delayed codebooks predicts in one "
        "step.",
    )
    report.figure(
        "dependence",
        report_lib.dependence([(item.label, item.information) for item in measured]),
        "Matrices of pairwise mutual information: "
        + "; ".join(
            f"{item.label}, {report_lib.lag_name(lag)}: mean {value:.2f} bits"
            for item in measured
            for lag, value in zip(item.information.lags, item.information.mean_bits)
        ),
        "Each cell is one pair of codebooks: bits, and half the width of the interval.",
    )
    report.table(
        "Mean over pairs of codebooks, bits [95% interval]",
        ["", *(report_lib.lag_name(lag) for lag in information.lags), "files", "frames"],
        [
            [
                item.label,
                *(
                    report_lib.with_interval(value, interval)
                    for value, interval in zip(
                        item.information.mean_bits, item.information.mean_interval_bits
                    )
                ),
                item.information.files,
                item.information.frames,
            ]
            for item in measured
        ],
    )
    changes = _changes(measured)
    if changes:
        report.table(
            "Change of the mean, file by file, bits [95% interval]",
            ["", "where", "change"],
            [
                [
                    f"{before.label} to {after.label}",
                    report_lib.lag_name(lag),
                    report_lib.with_interval(value, interval, sign="+"),
                ]
                for before, after, lag, value, interval in changes
            ],
        )
    report.table(
        "Use of each codebook: entropy in bits (perplexity, share of codes used)",
        ["", *(f"codebook {k + 1}" for k in range(len(measured[0].sizes)))],
        [
            [
                item.label,
                *(
                    f"{bits:.2f} ({perplexity:.0f}, {used:.0%})"
                    for bits, perplexity, used in zip(
                        item.usage.entropy_bits, item.usage.perplexity, item.usage.share_used
                    )
                ),
            ]
            for item in measured
        ],
    )
    for text in dict.fromkeys(text for item in measured for text in item.warnings):
        report.note(text)


def _changes(measured: Sequence[Dependence]) -> list[tuple]:
    """(before, after, lag, bits, interval) from the first tokenizer to each other, where they can
    be compared file by file."""
    changes = []
    before = measured[0]
    for after in measured[1:]:
        if before.information.files != after.information.files:
            continue
        values, intervals = estimate.change(before.information, after.information)
        for lag, value, interval in zip(before.information.lags, values, intervals):
            changes.append((before, after, lag, float(value), interval.tolist()))
    return changes
