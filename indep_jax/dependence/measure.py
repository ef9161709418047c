"""Measures how dependent a codec's codebooks are on the music of a split, and shows it."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indep_jax.dependence import mutual_information as estimate
from indep_jax.dependence import permutation_test as significance
from indep_jax.dependence import total_correlation as total_correlation_lib
from indep_jax.report import dependence as dependence_figures
from indep_jax.report import page as report_lib

LAGS = (0, "delay")
CURVE = tuple(lag for lag in range(-8, 9) if lag)
PATTERNS = ("parallel", "delay")


@dataclass(frozen=True)
class Dependence:
    """One tokenizer's codebooks on some music; see indep_jax/independence for the numbers.

    test: None, and total_correlations: empty, where they were not asked for; otherwise for each of
    PATTERNS the estimates, by training size.
    """

    label: str
    sizes: tuple[int, ...]
    usage: estimate.Usage
    information: estimate.MutualInformation
    test: significance.Significance | None = None
    total_correlations: tuple[tuple[total_correlation_lib.TotalCorrelation, ...], ...] = ()

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


def measure(
    label: str,
    codes: Sequence[np.ndarray],
    sizes: Sequence[int] | None,
    vectors: Sequence[np.ndarray] | None = None,
    *,
    whole: bool = False,
    seed: int = 0,
) -> Dependence:
    """Of codes, one integer array [frames, codebooks] per source file; with progress on stderr.

    vectors: [size, dim] of each codebook, for the test of independence. whole: also what takes
    minutes: the curve over lags, the test, and total correlation given the past.
    """
    usage, (_, sizes) = estimate.usage(codes, sizes), estimate.checked(codes, sizes)
    lags = LAGS + CURVE if whole else LAGS
    information = estimate.mutual_information(
        codes, sizes=sizes, lags=lags, seed=seed, show_progress=whole
    )
    if not whole:
        return Dependence(label, tuple(sizes), usage, information)
    return Dependence(
        label,
        tuple(sizes),
        usage,
        information,
        significance.permutation_test(codes, vectors, seed=seed),
        tuple(
            total_correlation_lib.total_correlation(
                codes, sizes=sizes, pattern=pattern, seed=seed, show_progress=True
            )
            for pattern in PATTERNS
        ),
    )


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
            **_record_of_the_whole(item),
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
        total_correlation_changes=[
            dict(
                before=before.label,
                after=after.label,
                pattern=pattern,
                conditional_bits=value,
                interval_95_bits=interval,
            )
            for before, after, pattern, value, interval in _total_correlation_changes(measured)
        ],
    )


def _record_of_the_whole(item: Dependence) -> dict:
    if item.test is None:
        return {}
    test = dataclasses.asdict(item.test)
    del test["warnings"]
    by_pattern = [
        dict(
            pattern=estimates[-1].pattern,
            estimates=[
                dict(
                    training_frames=one.training_frames,
                    held_out_frames=one.held_out_frames,
                    held_out_files=one.held_out_files,
                    conditional_bits=one.conditional_bits,
                    conditional_interval_95_bits=one.conditional_interval_bits.tolist(),
                    factorised_bits=one.factorised_bits,
                    joint_bits=one.joint_bits,
                    total_bits=one.total_bits,
                    total_interval_95_bits=one.total_interval_bits.tolist(),
                )
                for one in estimates
            ],
        )
        for estimates in item.total_correlations
    ]
    return dict(independence_test=test, total_correlation=by_pattern)


def show(report: report_lib.Report, measured: Sequence[Dependence]) -> None:
    """Adds the dependence section to a report; the total correlation first, where measured."""
    if all(item.total_correlations for item in measured):
        _show_total_correlation(report, measured)
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
            for lag, value in zip(LAGS, item.information.mean_bits)
        ),
        "Each cell is one pair of codebooks: bits, and half the width of the interval.",
    )
    report.table(
        "Mean over pairs of codebooks, bits [95% interval]",
        ["", *(report_lib.lag_name(lag) for lag in LAGS), "share of entropy", "files", "frames"],
        [
            [
                item.label,
                *(
                    report_lib.with_interval(value, interval)
                    for value, interval in zip(
                        item.information.mean_bits[: len(LAGS)],
                        item.information.mean_interval_bits,
                    )
                ),
                f"{item.information.share_of_entropy[0].mean():.1%}",
                item.information.files,
                item.information.frames,
            ]
            for item in measured
        ],
    )
    if any(item.test for item in measured):
        report.figure(
            "lags",
            dependence_figures.lags([(item.label, item.information) for item in measured]),
            "Curves of the mean mutual information of pairs over lags of -8 to 8 frames: "
            + "; ".join(
                f"{item.label}, highest at lag {_highest_lag(item.information)}"
                for item in measured
            ),
            "Lag l: the codebook of the lower number at frame t against the other at frame t - l. "
            "Bands are 95% intervals.",
        )
        report.table(
            "Test of independence: dHSIC of the code vectors, files permuted",
            ["", "p-value", "dHSIC", "mean of permutations", "rows"],
            [
                [
                    item.label,
                    f"{item.test.p_value:.3f}",
                    f"{item.test.dhsic:.2e}",
                    f"{item.test.permuted_dhsic:.2e}",
                    item.test.rows,
                ]
                for item in measured
                if item.test
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


def _show_total_correlation(report: report_lib.Report, measured: Sequence[Dependence]) -> None:
    report.section(
        "What predicting codebooks side by side costs",
        "Conditional total correlation given the past, in bits per frame: what a language model "
        "must lose that predicts the codes of a step side by side, however good it is. Estimated "
        "by a small network that reads the past, with heads that predict each codebook alone and "
        "heads that predict one after another, on files it was not trained on. Both have more to "
        "learn from more music, the latter most: the estimates mostly read low.",
    )
    report.table(
        "Conditional total correlation given the past, bits per frame [95% interval]",
        ["", *PATTERNS, "entropy rate at most", "training frames", "held-out files"],
        [
            [
                item.label,
                *(
                    report_lib.with_interval(
                        estimates[-1].conditional_bits, estimates[-1].conditional_interval_bits
                    )
                    for estimates in item.total_correlations
                ),
                f"{min(estimates[-1].joint_bits for estimates in item.total_correlations):.2f}",
                item.total_correlations[0][-1].training_frames,
                item.total_correlations[0][-1].held_out_files,
            ]
            for item in measured
        ],
    )
    if changes := _total_correlation_changes(measured):
        report.table(
            "Change of it, file by file, bits per frame [95% interval]",
            ["", "pattern", "change"],
            [
                [
                    f"{before.label} to {after.label}",
                    pattern,
                    report_lib.with_interval(value, interval, sign="+"),
                ]
                for before, after, pattern, value, interval in changes
            ],
        )
    report.figure(
        "total_correlation",
        dependence_figures.training_sizes(
            [(item.label, item.total_correlations) for item in measured]
        ),
        "Conditional total correlation as estimated from a quarter, a half and all of the training "
        "files: "
        + "; ".join(
            f"{item.label}, {estimates[-1].pattern}: "
            + ", ".join(f"{one.conditional_bits:.2f}" for one in estimates)
            for item in measured
            for estimates in item.total_correlations
        ),
        "A curve that still climbs at its end says that the truth is higher.",
    )
    report.table(
        "Total correlation without the past, bits per frame [95% interval]",
        ["", *PATTERNS],
        [
            [
                item.label,
                *(
                    report_lib.with_interval(
                        estimates[-1].total_bits, estimates[-1].total_interval_bits
                    )
                    for estimates in item.total_correlations
                ),
            ]
            for item in measured
        ],
    )


def _highest_lag(information: estimate.MutualInformation) -> int:
    curve = [(bits, lag) for lag, bits in zip(information.lags, information.mean_bits)]
    return max((bits, lag) for bits, lag in curve if lag != "delay")[1]


def _comparable(measured: Sequence[Dependence]) -> list[tuple[Dependence, Dependence]]:
    """Every two tokenizers that can be compared file by file."""
    return [
        (before, after)
        for before, after in itertools.combinations(measured, 2)
        if before.information.files == after.information.files
    ]


def _changes(measured: Sequence[Dependence]) -> list[tuple]:
    """(before, after, lag, bits, interval) of every two comparable tokenizers."""
    changes = []
    for before, after in _comparable(measured):
        values, intervals = estimate.change(before.information, after.information)
        for lag, value, interval in zip(LAGS, values, intervals):
            changes.append((before, after, lag, float(value), interval.tolist()))
    return changes


def _total_correlation_changes(measured: Sequence[Dependence]) -> list[tuple]:
    """(before, after, pattern, bits, interval) of the best estimates of the same."""
    changes = []
    for before, after in _comparable(measured):
        for (*_, first), (*_, second) in zip(before.total_correlations, after.total_correlations):
            if first.held_out_files == second.held_out_files:
                value, interval = total_correlation_lib.change(first, second)
                changes.append((before, after, first.pattern, value, interval.tolist()))
    return changes
