"""Evaluated codecs on a page: tables of their metrics, and excerpts to listen to.

Metrics here are those of metrics.json by label, plain data; see indep_jax/evaluate.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from indep_jax.report.page import Report, with_interval

LISTEN = 6  # excerpts on the page
_KNOWN = ("si_snr_db", "mel_distance_log10", "mean_frame_distance_log10")  # have their own columns


def show(page: Report, codecs: Mapping[str, Mapping]) -> None:
    """Add tables of the metrics of codecs, by label, to a page."""
    page.section("Reconstruction", "Medians over excerpts, with 95% intervals in brackets.")
    first = next(iter(codecs.values()))
    others = [
        name for name, value in first.items() if isinstance(value, Mapping) and name not in _KNOWN
    ]
    rows = []
    for label, metrics in codecs.items():
        snr, distance = metrics["si_snr_db"], metrics["frechet_distance"]
        rows.append(
            [
                label,
                median(snr, 2),
                " to ".join(f"{value:.2f}" for value in snr.get("quartiles", [])),
                median(metrics["mel_distance_log10"], 3),
                f"{metrics['mel_distance_relative']:.2f}",
                "" if distance is None else f"{distance:.2f}",
                *(median(metrics[name], 3) for name in others),
            ]
        )
    page.table(
        "Closeness to the original. Mel distance is in log10 of power: 0.1 is 1 dB. Relative: its "
        f"mean over that of the mean spectrum of {first['mean_frame_split']} music. Fréchet distance: between musicnn's "
        "embeddings of the music and of the reconstructions.",
        [
            "codec",
            "SI-SNR, dB",
            "quartiles",
            "mel distance",
            "relative",
            "Fréchet distance",
            *others,
        ],
        rows,
    )
    codebooks = max(len(metrics["perplexity"]) for metrics in codecs.values())
    page.table(
        "Perplexity of each codebook: codes in effective use",
        ["codec", *(f"codebook {k + 1}" for k in range(codebooks))],
        [
            [label, *(f"{value:.0f}" for value in metrics["perplexity"])]
            for label, metrics in codecs.items()
        ],
    )


def listen(
    page: Report,
    names: Sequence[str],
    originals: tuple[np.ndarray, int],
    reconstructions: Mapping[str, tuple[np.ndarray, int]],
) -> None:
    """Add the first LISTEN excerpts to a page, originals beside reconstructions.

    names: of the excerpts. originals, reconstructions by the codec's label: waveforms
    [items, time, channels] and their sample rate in Hz.
    """
    page.section("Listen", "The music, and its reconstruction by the codec.")
    for n in range(min(LISTEN, len(names))):
        versions = [("Original", originals[0][n], originals[1])]
        for label, (waves, rate) in reconstructions.items():
            versions.append(
                (label if len(reconstructions) > 1 else "Reconstruction", waves[n], rate)
            )
        page.listen(names[n], versions)


def median(summary: Mapping, digits: int) -> str:
    """Return the median of a summary with its interval, as text."""
    if "median" not in summary:
        return "silence only"
    return with_interval(summary["median"], summary["median_interval_95"], digits)
