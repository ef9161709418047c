"""Measure how dependent a tokenizer's codebooks are, and record it as plain data."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indep_jax.dependence import mutual_information, permutation_test, total_correlation
from indep_jax.dependence.codes import Usage, check_codes, codebook_usage

LAGS = (0, "delay")
CURVE = tuple(lag for lag in range(-8, 9) if lag)
PATTERNS = ("parallel", "delay")


@dataclass(frozen=True)
class Dependence:
    """Dependence of one tokenizer's codebooks on some music.

    test: None, and total_correlations: empty, where they were not asked for; otherwise for each of
    PATTERNS the estimates, by training size.
    """

    label: str
    sizes: tuple[int, ...]
    usage: Usage
    information: mutual_information.MutualInformation
    test: permutation_test.PermutationTest | None = None
    total_correlations: tuple[tuple[total_correlation.TotalCorrelation, ...], ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that a reader of the numbers must know."""
        idle = [
            str(k + 1)
            for k, (perplexity, size) in enumerate(zip(self.usage.perplexity, self.sizes))
            if perplexity < size / 4
        ]
        if not idle:
            return self.information.warnings
        return self.information.warnings + (
            f"{self.label}: perplexity under a quarter of the size of codebook "
            f"{', '.join(idle)}. Codebooks that carry little have little to share: low dependence "
            "is no merit here.",
        )


def measure_codes(
    label: str,
    codes: Sequence[np.ndarray],
    sizes: Sequence[int] | None = None,
    vectors: Sequence[np.ndarray] | None = None,
    *,
    whole: bool = False,
    seed: int = 0,
) -> Dependence:
    """Measure the dependence of codes, one integer array [frames, codebooks] per source file.

    label: the tokenizer's name. sizes: of the codebooks; by default the largest code plus one.
    vectors: [size, dim] of each codebook, for the test of independence. whole: also what takes
    minutes: the curve over lags, the test, and total correlation given the past; with progress on
    stderr.
    """
    _, sizes = check_codes(codes, sizes)
    usage = codebook_usage(codes, sizes)
    information = mutual_information.estimate(
        codes,
        sizes=sizes,
        lags=LAGS + CURVE if whole else LAGS,
        seed=seed,
        show_progress=whole,
    )
    if not whole:
        return Dependence(label, tuple(sizes), usage, information)
    return Dependence(
        label,
        tuple(sizes),
        usage,
        information,
        permutation_test.test_independence(codes, vectors, seed=seed),
        tuple(
            total_correlation.estimate(
                codes, sizes=sizes, pattern=pattern, seed=seed, show_progress=True
            )
            for pattern in PATTERNS
        ),
    )


def record(measured: Sequence[Dependence]) -> dict:
    """Return the content of dependence.json, plain data; its schema is in indep_jax/measure.py."""
    return dict(
        tokenizers=[_tokenizer(item) for item in measured],
        changes=_changes(measured),
        total_correlation_changes=_total_correlation_changes(measured),
    )


def _tokenizer(item: Dependence) -> dict:
    usage, information = item.usage, item.information
    codebooks = [
        dict(
            codebook=k + 1,
            size=size,
            entropy_bits=float(usage.entropy_bits[k]),
            perplexity=float(usage.perplexity[k]),
            share_used=float(usage.share_used[k]),
        )
        for k, size in enumerate(item.sizes)
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
    result = dict(
        label=item.label,
        files=information.files,
        frames=information.frames,
        codebooks=codebooks,
        mutual_information=lags,
    )
    if item.test is not None:
        test = dataclasses.asdict(item.test)
        del test["warnings"]  # those of the mutual information
        result["independence_test"] = test
        result["total_correlation"] = [
            dict(
                pattern=estimates[-1].pattern, estimates=[_total_correlation(e) for e in estimates]
            )
            for estimates in item.total_correlations
        ]
    return result | dict(warnings=list(item.warnings))


def _total_correlation(estimate: total_correlation.TotalCorrelation) -> dict:
    return dict(
        training_frames=estimate.training_frames,
        held_out_frames=estimate.held_out_frames,
        held_out_files=estimate.held_out_files,
        conditional_bits=estimate.conditional_bits,
        conditional_interval_95_bits=estimate.conditional_interval_bits.tolist(),
        factorised_bits=estimate.factorised_bits,
        joint_bits=estimate.joint_bits,
        total_bits=estimate.total_bits,
        total_interval_95_bits=estimate.total_interval_bits.tolist(),
    )


def _comparable(measured: Sequence[Dependence]) -> list[tuple[Dependence, Dependence]]:
    """Return every two tokenizers that can be compared file by file."""
    return [
        (before, after)
        for before, after in itertools.combinations(measured, 2)
        if before.information.files == after.information.files
    ]


def _changes(measured: Sequence[Dependence]) -> list[dict]:
    return [
        dict(
            before=before.label,
            after=after.label,
            lag=lag,
            mean_bits=float(value),
            interval_95_bits=interval.tolist(),
        )
        for before, after in _comparable(measured)
        for lag, value, interval in zip(
            LAGS, *mutual_information.change(before.information, after.information)
        )
    ]


def _total_correlation_changes(measured: Sequence[Dependence]) -> list[dict]:
    changes = []
    for before, after in _comparable(measured):
        # The last estimates are the best.
        for (*_, first), (*_, second) in zip(before.total_correlations, after.total_correlations):
            if first.held_out_files == second.held_out_files:
                value, interval = total_correlation.change(first, second)
                changes.append(
                    dict(
                        before=before.label,
                        after=after.label,
                        pattern=first.pattern,
                        conditional_bits=float(value),
                        interval_95_bits=interval.tolist(),
                    )
                )
    return changes
