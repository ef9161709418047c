"""One HTML file that carries its sounds and pictures.

    page = Report("Codec", "How it reconstructs held-out music.")
    page.section("Listen")
    page.listen("song.ogg", [("Original", wave, 32_000), ("Reconstruction", other, 32_000)])
    page.write("runs/small")

The page blends the figures' white into its own background, and inverts them where the reader's
system is dark.
"""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from matplotlib.figure import Figure

from indep_jax.report import figures
from indep_jax.support.files import replace_file


class Report:
    """A page that is built part by part, in order; `write` writes it to a folder.

    All texts are plain text; HTML in them is escaped.
    """

    def __init__(self, title: str, introduction: str = ""):
        self._title = title
        self._figures: dict[str, bytes] = {}
        self._parts = [f"<header><h1>{html.escape(title)}</h1>"]
        self._parts.append(f'<p class="lead">{html.escape(introduction)}</p></header>')

    def section(self, title: str, text: str = "") -> None:
        """Add a heading, and a paragraph under it."""
        self._parts.append(f"<h2>{html.escape(title)}</h2>")
        if text:
            self.text(text)

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def note(self, text: str) -> None:
        """Add a paragraph that stands out, for what a reader of the numbers must not miss."""
        self._parts.append(f'<p class="note" role="note">{html.escape(text)}</p>')

    def table(self, caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table; the first cell of a row is its name, and str() of the others is shown."""
        head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
        body = "".join(
            f'<tr><th scope="row">{html.escape(str(first))}</th>'
            + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in rest)
            + "</tr>"
            for first, *rest in rows
        )
        table = (
            f"<table><caption><span>{html.escape(caption)}</span></caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
        self._parts.append(_scrolling(table, caption))

    def figure(self, name: str, figure: Figure, alt: str, caption: str = "") -> None:
        """Add a figure. name: of its file. alt: text alternative for screen readers."""
        note = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        image = _scrolling(self._image(name, figure, alt), caption or alt)
        self._parts.append(f"<figure>{image}{note}</figure>")

    def listen(self, name: str, versions: Sequence[tuple[str, np.ndarray, int]]) -> None:
        """Add versions of one piece of music side by side, and their spectrograms.

        versions: (label, float [time, channels], sample rate in Hz), as 16-bit WAV.
        """
        players = "".join(
            f'<div><span class="label">{html.escape(label)}</span>'
            f'<audio controls preload="metadata" aria-label="{html.escape(f"{label}: {name}")}" '
            f'src="data:audio/wav;base64,{_wav(wave, rate)}"></audio></div>'
            for label, wave, rate in versions
        )
        alt = f"Mel spectrograms of {name}: {', '.join(label.lower() for label, *_ in versions)}"
        number = 1 + sum(file.startswith("spectrogram_") for file in self._figures)
        image = self._image(f"spectrogram_{number}", figures.spectrograms(versions), alt)
        self._parts.append(
            f'<article><h3>{html.escape(name)}</h3><div class="players">{players}</div>'
            f"{_scrolling(image, alt)}</article>"
        )

    def write(self, folder: str | Path) -> Path:
        """Write report.html and figures/NAME.png; return the page's path."""
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
        self._figures[name] = png = figures.png(figure)
        width, height = figure.get_size_inches() * 96
        return (
            f'<img class="plot" src="data:image/png;base64,{base64.b64encode(png).decode()}" '
            f'width="{width:.0f}" height="{height:.0f}" alt="{html.escape(alt)}">'
        )


def with_interval(value: float, interval: Sequence[float], digits: int = 3, sign: str = "") -> str:
    """Return a number and its interval as text."""
    value, low, high = (f"{rounded(x, digits):{sign}.{digits}f}" for x in (value, *interval))
    return f"{value} [{low}, {high}]"


def rounded(value: float, digits: int) -> float:
    """Return a number rounded for display, where -0.00 would be odd."""
    return round(value, digits) + 0.0


def _scrolling(content: str, label: str) -> str:
    """Wrap what is too wide for narrow screens in a box that scrolls, also by keyboard.

    Shrinking would make text in figures unreadable.
    """
    name = html.escape(label)
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{name}">{content}</div>'


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
caption span { display: block; position: sticky; left: 0;
  max-width: min(44rem, calc(100vw - 2.5rem)); }
th, td { padding: 0.4rem 0 0.4rem 1.25rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; font-weight: 500; padding-left: 0; }
thead th { color: var(--soft); font-weight: 500; font-size: 0.9rem;
  border-bottom: 1px solid var(--ink); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
figure { margin: 1.5rem 0; }
figure .scroll, article .scroll { margin: 0; }
.plot { min-width: 34rem; }
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
