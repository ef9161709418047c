"""A page to look at and to listen to: one HTML file that carries its sounds and pictures.

    report = Report("Codec", "What it did to held-out music.")
    report.section("Listen")
    report.listen("song.ogg", [("Original", wave, 32_000), ("Reconstruction", other, 32_000)])
    report.write("runs/small")

Figures are Matplotlib Figure objects, never pyplot's global state. They are drawn in dark ink on
white, which the page blends into its own paper, inverted where the reader's system is dark.
"""

import base64
import html
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from indep_jax.dependence.mutual_information import MutualInformation
from indep_jax.signal import mel
from indep_jax.support.files import replace_file

INK = "#22262b"
TRAINED, HELD_OUT = "#2b7a99", "#c8501e"
# Lightness falls all the way, so the order of values survives grey, and inversion in the dark.
SCALE = LinearSegmentedColormap.from_list(
    "report", ["#f7f8f6", "#cfe3e1", "#76b5b8", "#2b7a99", "#1f4373", "#0d1730"]
)
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#8a9097",
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": False,
    "legend.frameon": False,
}
MAX_PANELS = 18  # of loss curves


class Report:
    """Builds the page part by part, in order; `write` puts it in a folder.

    All texts are plain text; what they hold of HTML is escaped.
    """

    def __init__(self, title: str, introduction: str = ""):
        self._title = title
        self._figures: dict[str, bytes] = {}
        self._parts = [f"<header><h1>{html.escape(title)}</h1>"]
        self._parts.append(f'<p class="lead">{html.escape(introduction)}</p></header>')

    def section(self, title: str, text: str = "") -> None:
        """A heading, and a paragraph under it."""
        self._parts.append(f"<h2>{html.escape(title)}</h2>")
        if text:
            self.text(text)

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def note(self, text: str) -> None:
        """A paragraph that a reader of the numbers must not miss."""
        self._parts.append(f'<p class="note" role="note">{html.escape(text)}</p>')

    def table(self, caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """The first column names the row; str() of the others is shown."""
        head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
        body = "".join(
            f'<tr><th scope="row">{html.escape(str(first))}</th>'
            + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in rest)
            + "</tr>"
            for first, *rest in rows
        )
        name = html.escape(caption)
        # Wide tables scroll in a box of their own, which the keyboard must reach.
        self._parts.append(
            f'<div class="scroll" role="region" tabindex="0" aria-label="{name}"><table>'
            f"<caption>{name}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
            "</table></div>"
        )

    def figure(self, name: str, figure: Figure, alt: str, caption: str = "") -> None:
        """`name` is that of its file; `alt` tells what it shows to who cannot see it."""
        note = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        # On narrow screens it scrolls in place of shrinking until its text is lost.
        self._parts.append(
            '<figure><div class="scroll" role="region" tabindex="0" '
            f'aria-label="{html.escape(caption or alt)}">{self._image(name, figure, alt)}</div>'
            f"{note}</figure>"
        )

    def listen(self, name: str, versions: Sequence[tuple[str, np.ndarray, int]]) -> None:
        """One piece of music, its versions side by side, and their spectrograms.

        versions: (label, float [time, channels], sample rate in Hz), as 16-bit WAV.
        """
        players = "".join(
            f'<div><span class="label">{html.escape(label)}</span>'
            f'<audio controls preload="metadata" aria-label="{html.escape(f"{label}: {name}")}" '
            f'src="data:audio/wav;base64,{_wav(wave, rate)}"></audio></div>'
            for label, wave, rate in versions
        )
        labels = ", ".join(label.lower() for label, *_ in versions)
        number = 1 + sum(file.startswith("spectrogram_") for file in self._figures)
        picture = self._image(
            f"spectrogram_{number}", spectrograms(versions), f"Mel spectrograms of {name}: {labels}"
        )
        self._parts.append(
            f'<article><h3>{html.escape(name)}</h3><div class="players">{players}</div>'
            f"{picture}</article>"
        )

    def write(self, folder: str | Path) -> Path:
        """Writes report.html and figures/NAME.png; returns the page's path."""
        for name, png in self._figures.items():
            replace_file(Path(folder) / "figures" / f"{name}.png", png)
        page = (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>{html.escape(self._title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
            "<main>\n" + "\n".join(self._parts) + f"\n</main>\n<script>{_SCRIPT}</script>\n"
            "</body>\n</html>\n"
        )
        replace_file(Path(folder) / "report.html", page)
        return Path(folder) / "report.html"

    def _image(self, name: str, figure: Figure, alt: str) -> str:
        self._figures[name] = png = _png(figure)
        width, height = figure.get_size_inches() * 96
        return (
            f'<img class="plot" src="data:image/png;base64,{base64.b64encode(png).decode()}" '
            f'width="{width:.0f}" height="{height:.0f}" alt="{html.escape(alt)}">'
        )


def with_interval(value: float, interval: Sequence[float], digits: int = 3, sign: str = "") -> str:
    """A number and its interval as text."""
    low, high = interval
    return f"{value:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def spectrograms(versions: Sequence[tuple[str, np.ndarray, int]]) -> Figure:
    """Mel spectrograms of versions of one piece, one under the other on one colour scale.

    versions: (label, float [time, channels], sample rate in Hz). Channels are averaged; levels
    are dB under the first version's loudest point.
    """
    rate = versions[0][2]
    n_fft = 2048 if rate > 24_000 else 1024
    levels = [
        10 * np.log10(1e-10 + np.asarray(_mel(wave, rate_of_version, n_fft)))
        for _, wave, rate_of_version in versions
    ]
    top = levels[0].max()
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 0.75 + 1.75 * len(versions)), layout="constrained")
        panels = figure.subplots(len(versions), 1, sharex=True, squeeze=False)[:, 0]
        for panel, level, (label, wave, rate) in zip(panels, levels, versions, strict=True):
            image = panel.imshow(
                level.T - top,
                origin="lower",
                aspect="auto",
                cmap=SCALE,
                vmin=-80,
                vmax=0,
                extent=(0, len(wave) / rate, 0, level.shape[1]),
                interpolation="antialiased",
            )
            panel.set_title(label, loc="left", fontweight="bold")
            hertz = [hz for hz in (300, 1000, 3000, 10_000) if hz < rate / 2]
            panel.set_yticks([_mel_position(hz, rate, level.shape[1]) for hz in hertz])
            panel.set_yticklabels([f"{hz / 1000:g}" for hz in hertz])
            panel.set_ylabel("kHz")
        panels[-1].set_xlabel("seconds")
        figure.colorbar(image, ax=panels, label="dB", pad=0.01, aspect=30)
    return figure


def loss_curves(metrics_path: str | Path) -> Figure | None:
    """Curves of a run's metrics.jsonl, lines of {"step": n, name: value}, a panel for each name.

    A value logged in training and its "eval/" namesake share a panel; "time/" values are left
    out. Evaluated names come first, then "loss", names of no group, and groups ("group/name"); at
    most MAX_PANELS panels. None when there is nothing to draw.
    """
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in Path(metrics_path).read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the last line of a run that is being written
        for name, value in record.items():
            if name == "step" or name.startswith("time/") or not _finite(value):
                continue
            kind, name = ("eval", name[5:]) if name.startswith("eval/") else ("train", name)
            curves.setdefault(name, {}).setdefault(kind, []).append((record["step"], value))
    order = sorted(
        curves, key=lambda name: ("eval" not in curves[name], name != "loss", "/" in name)
    )
    curves = {name: curves[name] for name in order[:MAX_PANELS]}
    if not curves:
        return None
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(3.2 * columns, 2.1 * rows + 0.3), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel in panels[len(curves) :]:
            panel.set_axis_off()
        for panel, (name, kinds) in zip(panels, curves.items()):
            for kind, points in kinds.items():
                steps, values = np.array(sorted(points), np.float64).T
                if kind == "eval":
                    panel.plot(steps, values, "o-", color=HELD_OUT, markersize=3, linewidth=1.2)
                    continue
                long = len(values) > 40
                panel.plot(steps, values, color=TRAINED, linewidth=0.7, alpha=0.35 if long else 1)
                if long:
                    panel.plot(steps, _smooth(values), color=TRAINED, linewidth=1.6)
            values = np.array([value for points in kinds.values() for _, value in points])
            if values.min() > 0 and values.max() > 30 * values.min():
                panel.set_yscale("log")
            panel.set_title(name, loc="left")
            panel.ticklabel_format(axis="x", scilimits=(-3, 5))
            panel.locator_params(axis="x", nbins=4)
            panel.grid(axis="y", color="#d5d9dd", linewidth=0.5)
        figure.supxlabel("step", fontsize=10)
        lines = [
            panels[0].plot([], [], color=color, label=label)[0]
            for color, label in ((TRAINED, "training"), (HELD_OUT, "held out"))
        ]
        figure.legend(handles=lines, loc="outside upper right", ncols=2)
    return figure


def dependence(measured: Sequence[tuple[str, MutualInformation]]) -> Figure:
    """Matrices of pairwise mutual information: a column for each codec, a row for each lag.

    measured: (label, estimate), of lag 0 first, then of "delay"; lags after these are not shown.
    Cells say bits and half the 95% interval.
    """
    lags = measured[0][1].lags[:2]
    top = max(max(estimate.bits[: len(lags)].max() for _, estimate in measured), 1e-3)
    codebooks = 1 + max(j for _, estimate in measured for _, j in estimate.pairs)
    side = max(2.4, 0.72 * codebooks)
    with rc_context(STYLE):
        figure = Figure(
            figsize=(side * len(measured) + 1.4, side * len(lags) + 0.5), layout="constrained"
        )
        panels = figure.subplots(len(lags), len(measured), squeeze=False)
        for (row, column), panel in np.ndenumerate(panels):
            label, estimate = measured[column]
            table = np.full((codebooks, codebooks), np.nan)
            for pair, bits, interval in zip(
                estimate.pairs, estimate.bits[row], estimate.interval_bits[row], strict=True
            ):
                table[pair] = bits
                half = (interval[1] - interval[0]) / 2
                panel.text(
                    pair[1],
                    pair[0],
                    f"{bits:.2f}\n±{half:.2f}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="#ffffff" if bits > 0.5 * top else INK,
                )
            image = panel.imshow(np.clip(table, 0, None), cmap=SCALE, vmin=0, vmax=top)
            panel.set_xticks(range(1, codebooks), [f"{k + 1}" for k in range(1, codebooks)])
            panel.set_yticks(range(codebooks - 1), [f"{k + 1}" for k in range(codebooks - 1)])
            panel.set_xlim(0.5, codebooks - 0.5)
            panel.set_ylim(codebooks - 1.5, -0.5)
            panel.spines[:].set_visible(False)
            panel.tick_params(length=0)
            if row == 0:
                panel.set_title(label, loc="left", fontweight="bold")
            if column == 0:
                panel.set_ylabel(f"{lag_name(lags[row])}\ncodebook")
            if row == len(lags) - 1:
                panel.set_xlabel("codebook")
        figure.colorbar(image, ax=panels, label="bits", shrink=0.6, pad=0.02)
    return figure


def lag_name(lag: int | str) -> str:
    """A lag of `mutual_information` in words."""
    if lag == "delay":
        return "delay pattern"
    return "same frame" if lag == 0 else f"lag {lag}"


def _mel(wave, rate: int, n_fft: int):
    mono = np.asarray(wave, np.float32).mean(axis=-1)[None]
    return mel.mel_spectrogram(mono, rate, n_fft, n_mels=96)[0]


def _mel_position(hertz: float, rate: int, n_mels: int, f_min: float = 64.0) -> float:
    """Place of a frequency on an axis of mel bands."""
    low, high, here = (2595 * np.log10(1 + f / 700) for f in (f_min, rate / 2, hertz))
    return float((here - low) / (high - low) * (n_mels + 1) - 0.5)


def _finite(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Moving average over about a twentieth of the curve, shorter at its ends."""
    width = max(3, len(values) // 20)
    weights = np.ones(width)
    weight = np.convolve(np.ones(len(values)), weights, mode="same")
    return np.convolve(values, weights, mode="same") / weight


def _png(figure: Figure) -> bytes:
    buffer, small = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure)
    with rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=120)
    # A palette of 256 colours makes a third of the size, and the eye sees no difference.
    Image.open(buffer).convert("RGB").quantize(256).save(small, "PNG", optimize=True)
    return small.getvalue()


def _wav(wave: np.ndarray, rate: int) -> str:
    buffer = io.BytesIO()
    samples = np.clip(np.asarray(wave, np.float32), -1, 1)
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()


_CSS = """
:root { --paper: #fdfdfb; --ink: #22262b; --soft: #5c646d; --line: #d9dde0; --card: #f4f5f2;
  --accent: #2b7a99; --alarm: #c8501e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e4e6e8; --soft: #9aa3ab; --line: #343a40; --card: #1c2024;
    --accent: #7cc0d8; --alarm: #f0946a; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 3rem 1.25rem 5rem; }
h1, h2, h3 { line-height: 1.2; text-wrap: balance; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.8rem, 5vw, 2.6rem); letter-spacing: -0.02em; margin: 0 0 0.5rem; }
h2 { font-size: 1.5rem; letter-spacing: -0.01em; margin: 3.5rem 0 0.75rem; padding-top: 1.25rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 0.75rem; }
p { max-width: 44rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
.lead { font-size: 1.2rem; color: var(--soft); }
.note { border-left: 3px solid var(--alarm); padding: 0.1rem 0 0.1rem 0.9rem; color: var(--soft);
  font-size: 0.95rem; }
.scroll { overflow-x: auto; margin: 1.25rem 0 1.75rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  min-width: min(100%, 30rem); }
caption { text-align: left; color: var(--soft); font-size: 0.95rem; padding-bottom: 0.5rem; }
th, td { padding: 0.4rem 0 0.4rem 1.5rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; font-weight: 500; padding-left: 0; }
thead th { color: var(--soft); font-weight: 500; font-size: 0.9rem;
  border-bottom: 1px solid var(--ink); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
figure { margin: 1.5rem 0; }
figure .scroll { margin: 0; }
figure .plot { min-width: 34rem; }
figcaption { color: var(--soft); font-size: 0.95rem; max-width: 44rem; margin-top: 0.5rem; }
.plot { display: block; max-width: 100%; height: auto; mix-blend-mode: multiply; }
@media (prefers-color-scheme: dark) {
  .plot { filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen; }
}
article { background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem;
  padding: 1.1rem 1.1rem 0.6rem; margin: 0 0 1.5rem; }
.players { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr));
  gap: 0.75rem 1.25rem; margin-bottom: 0.9rem; }
.label { display: block; font-size: 0.9rem; color: var(--soft); margin-bottom: 0.25rem; }
audio { width: 100%; height: 2.5rem; display: block; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
@media print { article, figure { break-inside: avoid; } audio { display: none; } }
"""

# Starting one player stops the others: versions are compared one after the other.
_SCRIPT = """
document.addEventListener("play", event => {
  for (const player of document.querySelectorAll("audio"))
    if (player !== event.target) player.pause();
}, true);
"""
