"""The dependence of codebooks on a page: tables and figures of what dependence.json records.

Tokenizers here are those of the record, plain data; its schema is in indep_jax/measure.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from indep_jax.report.figures import COLOURS, INK, SCALE, STYLE
from indep_jax.report.page import Report, rounded, with_interval

LAGS = {0: "same frame", "delay": "delay pattern"}  # of the matrices and the table of means
LINES = ("-", "--", ":", "-.")


def show(page: Report, record: Mapping) -> None:
    """Add the dependence of tokenizers to a page; the total correlation first, where measured."""
    tokenizers = record["tokenizers"]
    if all("total_correlation" in tokenizer for tokenizer in tokenizers):
        _show_total_correlation(page, record)
    page.section(
        "How dependent the codebooks are",
        "Mutual information between codebooks, in bits per frame: what a model that predicts them "
        "side by side cannot see. Estimated from histograms, minus the estimate for independent "
        "codebooks of the same music; 0 is independent. Intervals are 95% over files (jackknife). "
        "The delay pattern compares what a language model with delayed codebooks predicts in one "
        "step.",
    )
    means = [[_at_lag(tokenizer, lag)["mean"] for lag in LAGS] for tokenizer in tokenizers]
    page.figure(
        "dependence",
        matrices(tokenizers),
        "Matrices of pairwise mutual information: "
        + "; ".join(
            f"{tokenizer['label']}, {name}: mean {mean['bits']:.2f} bits"
            for tokenizer, row in zip(tokenizers, means)
            for name, mean in zip(LAGS.values(), row)
        ),
        "Each cell is one pair of codebooks: bits, and half the width of the interval.",
    )
    page.table(
        "Mean over pairs of codebooks, bits [95% interval]",
        ["", *LAGS.values(), "share of entropy", "files", "frames"],
        [
            [
                tokenizer["label"],
                *(with_interval(mean["bits"], mean["interval_95_bits"]) for mean in row),
                f"{np.mean([pair['share_of_entropy'] for pair in _at_lag(tokenizer, 0)['pairs']]):.1%}",
                tokenizer["files"],
                tokenizer["frames"],
            ]
            for tokenizer, row in zip(tokenizers, means)
        ],
    )
    tested = [tokenizer for tokenizer in tokenizers if "independence_test" in tokenizer]
    if tested:
        _show_lags_and_tests(page, tested)
    if record["changes"]:
        page.table(
            "Change of the mean, file by file, bits [95% interval]",
            ["", "lag", "change"],
            [
                [
                    f"{change['before']} to {change['after']}",
                    LAGS[change["lag"]],
                    with_interval(change["mean_bits"], change["interval_95_bits"], sign="+"),
                ]
                for change in record["changes"]
            ],
        )
    most = max(len(tokenizer["codebooks"]) for tokenizer in tokenizers)
    page.table(
        "Use of each codebook: entropy in bits (perplexity, share of codes used)",
        ["", *(f"codebook {k + 1}" for k in range(most))],
        [
            [
                tokenizer["label"],
                *(
                    f"{codebook['entropy_bits']:.2f} "
                    f"({codebook['perplexity']:.0f}, {codebook['share_used']:.0%})"
                    for codebook in tokenizer["codebooks"]
                ),
            ]
            for tokenizer in tokenizers
        ],
    )
    warnings = [warning for tokenizer in tokenizers for warning in tokenizer["warnings"]]
    for warning in dict.fromkeys(warnings):
        page.note(warning)


def _show_lags_and_tests(page: Report, tokenizers: Sequence[Mapping]) -> None:
    highest = {
        tokenizer["label"]: max(_curve(tokenizer), key=lambda at_lag: at_lag["mean"]["bits"])["lag"]
        for tokenizer in tokenizers
    }
    page.figure(
        "lags",
        lags(tokenizers),
        "Curves of the mean mutual information of pairs over lags of -8 to 8 frames: "
        + "; ".join(f"{label}, highest at lag {lag}" for label, lag in highest.items()),
        "Lag l: the codebook of the lower number at frame t against the other at frame t - l. "
        "Bands are 95% intervals.",
    )
    tests = [(tokenizer["label"], tokenizer["independence_test"]) for tokenizer in tokenizers]
    page.table(
        "Test of independence: dHSIC of the code vectors, files permuted",
        ["", "p-value", "dHSIC", "mean of permutations", "rows"],
        [
            [
                label,
                f"{test['p_value']:.3f}",
                f"{test['dhsic']:.2e}",
                f"{test['permuted_dhsic']:.2e}",
                test["rows"],
            ]
            for label, test in tests
        ],
    )


def _show_total_correlation(page: Report, record: Mapping) -> None:
    tokenizers = record["tokenizers"]
    patterns = [estimate["pattern"] for estimate in tokenizers[0]["total_correlation"]]
    best = [
        [by_size["estimates"][-1] for by_size in tokenizer["total_correlation"]]
        for tokenizer in tokenizers
    ]
    page.section(
        "What predicting codebooks side by side costs",
        "Conditional total correlation given the past, in bits per frame: what a language model "
        "must lose that predicts the codes of a step side by side, however good it is. Estimated "
        "by a small network that reads the past, with heads that predict each codebook alone and "
        "heads that predict one after another, on files it was not trained on. Both would learn "
        "more from more music, the latter most: the estimates are mostly too low.",
    )
    page.table(
        "Conditional total correlation given the past, bits per frame [95% interval]",
        ["", *patterns, "entropy rate at most", "training frames", "held-out files"],
        [
            [
                tokenizer["label"],
                *(
                    with_interval(each["conditional_bits"], each["conditional_interval_95_bits"])
                    for each in row
                ),
                f"{min(each['joint_bits'] for each in row):.2f}",
                row[0]["training_frames"],
                row[0]["held_out_files"],
            ]
            for tokenizer, row in zip(tokenizers, best)
        ],
    )
    if record["total_correlation_changes"]:
        page.table(
            "Change of the conditional total correlation, file by file, bits per frame "
            "[95% interval]",
            ["", "pattern", "change"],
            [
                [
                    f"{change['before']} to {change['after']}",
                    change["pattern"],
                    with_interval(change["conditional_bits"], change["interval_95_bits"], sign="+"),
                ]
                for change in record["total_correlation_changes"]
            ],
        )
    page.figure(
        "total_correlation",
        training_sizes(tokenizers),
        "Conditional total correlation as estimated from a quarter, a half and all of the training "
        "files: "
        + "; ".join(
            f"{tokenizer['label']}, {by_size['pattern']}: "
            + ", ".join(f"{each['conditional_bits']:.2f}" for each in by_size["estimates"])
            for tokenizer in tokenizers
            for by_size in tokenizer["total_correlation"]
        ),
        "If a curve still climbs at its end, the true value is higher.",
    )
    page.table(
        "Total correlation without the past, bits per frame [95% interval]",
        ["", *patterns],
        [
            [
                tokenizer["label"],
                *(
                    with_interval(each["total_bits"], each["total_interval_95_bits"])
                    for each in row
                ),
            ]
            for tokenizer, row in zip(tokenizers, best)
        ],
    )


def matrices(tokenizers: Sequence[Mapping]) -> Figure:
    """Draw pairwise mutual information: a column for each tokenizer, a row for each of LAGS.

    Cells contain bits and half the 95% interval.
    """
    top = max(_pair_bits(tokenizer, lag).max() for tokenizer in tokenizers for lag in LAGS)
    top = max(top, 1e-3)
    codebooks = max(len(tokenizer["codebooks"]) for tokenizer in tokenizers)
    side = max(2.4, 0.72 * codebooks)
    with rc_context(STYLE):
        figure = Figure(
            figsize=(side * len(tokenizers) + 1.4, side * len(LAGS) + 0.5), layout="constrained"
        )
        panels = figure.subplots(len(LAGS), len(tokenizers), squeeze=False)
        for row, (lag, name) in enumerate(LAGS.items()):
            for column, tokenizer in enumerate(tokenizers):
                panel = panels[row, column]
                table = np.full((codebooks, codebooks), np.nan)
                for pair in _at_lag(tokenizer, lag)["pairs"]:
                    i, j = (codebook - 1 for codebook in pair["codebooks"])
                    table[i, j] = pair["bits"]
                    low, high = pair["interval_95_bits"]
                    panel.text(
                        j,
                        i,
                        f"{rounded(pair['bits'], 2):.2f}\n±{(high - low) / 2:.2f}",
                        ha="center",
                        va="center",
                        fontsize=9,
                        color="#ffffff" if pair["bits"] > 0.5 * top else INK,
                    )
                image = panel.imshow(np.clip(table, 0, None), cmap=SCALE, vmin=0, vmax=top)
                panel.set_xticks(range(1, codebooks), [f"{k + 1}" for k in range(1, codebooks)])
                panel.set_yticks(range(codebooks - 1), [f"{k + 1}" for k in range(codebooks - 1)])
                panel.set_xlim(0.5, codebooks - 0.5)
                panel.set_ylim(codebooks - 1.5, -0.5)
                panel.spines[:].set_visible(False)
                panel.tick_params(length=0)
                if row == 0:
                    panel.set_title(tokenizer["label"], loc="left", fontweight="bold")
                if column == 0:
                    panel.set_ylabel(f"{name}\ncodebook")
                if row == len(LAGS) - 1:
                    panel.set_xlabel("codebook")
        figure.colorbar(image, ax=panels, label="bits", shrink=0.6, pad=0.02)
    return figure


def lags(tokenizers: Sequence[Mapping]) -> Figure:
    """Draw the mean mutual information of pairs over lags in frames, with its intervals as bands."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 3), layout="constrained")
        panel = figure.subplots()
        for number, tokenizer in enumerate(tokenizers):
            curve = sorted(_curve(tokenizer), key=lambda at_lag: at_lag["lag"])
            frames = [at_lag["lag"] for at_lag in curve]
            means = [at_lag["mean"] for at_lag in curve]
            colour = COLOURS[number % len(COLOURS)]
            panel.plot(
                frames,
                [mean["bits"] for mean in means],
                "o" + LINES[number % len(LINES)],
                color=colour,
                markersize=3,
                label=tokenizer["label"],
            )
            low, high = np.transpose([mean["interval_95_bits"] for mean in means])
            panel.fill_between(frames, low, high, color=colour, alpha=0.2, linewidth=0)
        panel.axhline(0, color="#8a9097", linewidth=0.7)
        panel.set(xlabel="lag, frames", ylabel="bits")
        panel.legend()
    return figure


def training_sizes(tokenizers: Sequence[Mapping]) -> Figure:
    """Draw the conditional total correlation over training frames, a panel for each pattern."""
    patterns = [by_size["pattern"] for by_size in tokenizers[0]["total_correlation"]]
    with rc_context(STYLE):
        figure = Figure(figsize=(4 * len(patterns), 3), layout="constrained")
        panels = figure.subplots(1, len(patterns), sharey=True, squeeze=False)[0]
        for column, (panel, pattern) in enumerate(zip(panels, patterns)):
            for number, tokenizer in enumerate(tokenizers):
                estimates = tokenizer["total_correlation"][column]["estimates"]
                sizes = [each["training_frames"] for each in estimates]
                bits = np.array([each["conditional_bits"] for each in estimates])
                intervals = np.array([each["conditional_interval_95_bits"] for each in estimates])
                panel.errorbar(
                    sizes,
                    bits,
                    np.abs(intervals.T - bits),
                    fmt="o" + LINES[number % len(LINES)],
                    color=COLOURS[number % len(COLOURS)],
                    markersize=4,
                    capsize=2,
                    label=tokenizer["label"],
                )
            panel.set_xscale("log")
            panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
            panel.minorticks_off()
            panel.set_title(pattern, loc="left", fontweight="bold")
            panel.set_xlabel("training frames")
        panels[0].set_ylabel("bits per frame")
        panels[-1].legend()
    return figure


def _at_lag(tokenizer: Mapping, lag: int | str) -> Mapping:
    return next(each for each in tokenizer["mutual_information"] if each["lag"] == lag)


def _curve(tokenizer: Mapping) -> list[Mapping]:
    """Return what was measured at lags that are numbers."""
    return [each for each in tokenizer["mutual_information"] if each["lag"] != "delay"]


def _pair_bits(tokenizer: Mapping, lag: int | str) -> np.ndarray:
    return np.array([pair["bits"] for pair in _at_lag(tokenizer, lag)["pairs"]])
