"""Matplotlib figures in one style: spectrograms and the curves of a training run.

Figures are Figure objects, never pyplot's global state, in dark ink on white.
"""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from indep_jax.signal import mel

INK = "#22262b"
COLOURS = ("#2b7a99", "#c8501e", "#6a4f9c", "#4c7a34")
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


def spectrograms(versions: Sequence[tuple[str, np.ndarray, int]]) -> Figure:
    """Draw mel spectrograms, one under the other on one colour scale.

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
    """Draw curves of a run's metrics.jsonl, a panel for each name.

    A value logged in training and its "eval/" namesake share a panel; "time/" values are left
    out. Evaluated names come first, then "loss", names without a group, and groups ("group/name");
    at most MAX_PANELS panels. Returns None when there is nothing to draw.
    """
    trained, held_out = COLOURS[:2]
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
                    panel.plot(steps, values, "o-", color=held_out, markersize=3, linewidth=1.2)
                    continue
                long = len(values) > 40
                panel.plot(steps, values, color=trained, linewidth=0.7, alpha=0.35 if long else 1)
                if long:
                    panel.plot(steps, _smooth(values), color=trained, linewidth=1.6)
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
            for color, label in ((trained, "training"), (held_out, "held out"))
        ]
        figure.legend(handles=lines, loc="outside upper right", ncols=2)
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    buffer, small = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure)
    with rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=120)
    # A palette of 256 colours takes a third of the size, without a visible difference.
    Image.open(buffer).convert("RGB").quantize(256).save(small, "PNG", optimize=True)
    return small.getvalue()


def _mel(wave, rate: int, n_fft: int):
    mono = np.asarray(wave, np.float32).mean(axis=-1)[None]
    return mel.mel_spectrogram(mono, rate, n_fft, n_mels=96)[0]


def _mel_position(hertz: float, rate: int, n_mels: int, f_min: float = 64.0) -> float:
    """Return the position of a frequency on an axis of mel bands."""
    low, high, here = (2595 * np.log10(1 + f / 700) for f in (f_min, rate / 2, hertz))
    return float((here - low) / (high - low) * (n_mels + 1) - 0.5)


def _finite(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return the moving average over about a twentieth of the curve, shorter at its ends."""
    width = max(3, len(values) // 20)
    weights = np.ones(width)
    weight = np.convolve(np.ones(len(values)), weights, mode="same")
    return np.convolve(values, weights, mode="same") / weight
