"""Curves of the dependence of codebooks: over lags, and over the size of what was trained on."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from indep_jax.dependence.mutual_information import MutualInformation
from indep_jax.dependence.total_correlation import TotalCorrelation
from indep_jax.report.page import STYLE

COLOURS = ("#2b7a99", "#c8501e", "#6a4f9c", "#4c7a34")
LINES = ("-", "--", ":", "-.")


def lags(measured: Sequence[tuple[str, MutualInformation]]) -> Figure:
    """Mean mutual information of pairs over lags in frames, with bands of its interval.

    measured: (label, estimate); its lags that are numbers are drawn.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 3), layout="constrained")
        panel = figure.subplots()
        for number, (label, estimate) in enumerate(measured):
            numbers = [n for n, lag in enumerate(estimate.lags) if lag != "delay"]
            order = sorted(numbers, key=lambda n: estimate.lags[n])
            places = [estimate.lags[n] for n in order]
            colour = COLOURS[number % len(COLOURS)]
            line = "o" + LINES[number % len(LINES)]
            panel.plot(
                places, estimate.mean_bits[order], line, color=colour, markersize=3, label=label
            )
            panel.fill_between(
                places, *estimate.mean_interval_bits[order].T, color=colour, alpha=0.2, linewidth=0
            )
        panel.axhline(0, color="#8a9097", linewidth=0.7)
        panel.set(xlabel="lag, frames", ylabel="bits")
        panel.legend()
    return figure


def training_sizes(
    measured: Sequence[tuple[str, Sequence[Sequence[TotalCorrelation]]]],
) -> Figure:
    """Conditional total correlation over training frames, a panel for each pattern.

    measured: (label, for each pattern the estimates by training size).
    """
    patterns = [estimates[-1].pattern for estimates in measured[0][1]]
    with rc_context(STYLE):
        figure = Figure(figsize=(4 * len(patterns), 3), layout="constrained")
        panels = figure.subplots(1, len(patterns), sharey=True, squeeze=False)[0]
        for column, (panel, pattern) in enumerate(zip(panels, patterns)):
            for number, (label, by_pattern) in enumerate(measured):
                estimates = by_pattern[column]
                bits = np.array([one.conditional_bits for one in estimates])
                intervals = np.array([one.conditional_interval_bits for one in estimates])
                panel.errorbar(
                    [one.training_frames for one in estimates],
                    bits,
                    np.abs(intervals.T - bits),
                    fmt="o" + LINES[number % len(LINES)],
                    color=COLOURS[number % len(COLOURS)],
                    markersize=4,
                    capsize=2,
                    label=label,
                )
            panel.set_xscale("log")
            panel.set_title(pattern, loc="left", fontweight="bold")
            panel.set_xlabel("training frames")
        panels[0].set_ylabel("bits per frame")
        panels[-1].legend()
    return figure
