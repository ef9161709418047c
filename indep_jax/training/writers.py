"""The output of a run: metrics.jsonl, TensorBoard, audio, figures, progress on stderr."""

import contextlib
import io
import json
import math
import os
import pathlib
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import jax
import matplotlib.figure
import matplotlib.image
import numpy as np
import soundfile
import tensorboardX

from indep_jax.support import progress
from indep_jax.support.files import replace_file


class Writers:
    """Write a run's output under `workdir`, in the first of several processes alone.

      metrics.jsonl             {"step": n, name: value, ...}, one line per log, flushed
      tensorboard/              scalars, audio, figures
      audio/step_00000400/NAME.wav, figures/step_00000400/NAME.png
      stderr                    a progress bar on a terminal, otherwise one line per log

    `step` is the number of steps done. Scalars named "time/..." measure the machine; all others are
    the same in a run that was killed and resumed.

    Args:
      workdir: the run's folder.
      step: the step at which the run begins or resumes; output of later steps is dropped.
      steps: the step at which the run ends.
    """

    def __init__(self, workdir: str | os.PathLike, *, step: int, steps: int):
        self._workdir = pathlib.Path(workdir)
        self._steps = steps
        self._active = jax.process_index() == 0
        self._bar: progress.Bar | None = None
        self._shown = contextlib.ExitStack()
        if not self._active:
            return
        self._workdir.mkdir(parents=True, exist_ok=True)
        path = self._workdir / "metrics.jsonl"
        _drop_later(path, step)
        self._lines = open(path, "a", encoding="utf-8")
        # purge_step hides the events of steps that this run writes again.
        self._board = tensorboardX.SummaryWriter(
            str(self._workdir / "tensorboard"), purge_step=step + 1, flush_secs=10
        )
        if sys.stderr.isatty():
            bar = progress.bar(steps, "train", unit="steps", initial=step)
            self._bar = self._shown.enter_context(bar)

    def progress(self, step: int) -> None:
        """Move the bar on the terminal to `step`."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add a line to metrics.jsonl (null for non-finite values), and the scalars to TensorBoard."""
        if not self._active:
            return
        values = {name: float(value) for name, value in scalars.items()}
        line = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **line}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()

    def show(self, step: int, scalars: Mapping[str, float]) -> None:
        """Show loss and speed on stderr."""
        if not self._active:
            return
        parts = {"loss": f"{scalars['loss']:.4g}"} if "loss" in scalars else {}
        if "time/audio_seconds_per_second" in scalars:
            parts["audio-s/s"] = f"{scalars['time/audio_seconds_per_second']:.1f}"
        text = "  ".join(f"{name} {value}" for name, value in parts.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text)
            return
        remaining = (self._steps - step) / scalars["time/steps_per_second"]
        print(
            f"step {step}/{self._steps}  {text}  ETA {timedelta(seconds=round(remaining))}",
            file=sys.stderr,
            flush=True,
        )

    def message(self, text: str) -> None:
        """Print a line on stderr, above the bar."""
        if self._active:
            progress.write(text)

    def audio(self, step: int, clips: Mapping[str, tuple[np.ndarray, int]]) -> None:
        """Write clips, name -> (samples [time, channels], sample rate in Hz), as wav and events."""
        if not self._active:
            return
        for name, (samples, rate) in clips.items():
            samples = np.asarray(samples, np.float32)
            wav = io.BytesIO()
            soundfile.write(wav, samples, rate, format="WAV")
            self._file("audio", step, name, ".wav", wav.getvalue())
            self._board.add_audio(name, np.clip(samples, -1, 1), step, sample_rate=rate)

    def figures(self, step: int, figures: Mapping[str, matplotlib.figure.Figure]) -> None:
        """Write figures as PNG and events."""
        if not self._active:
            return
        for name, figure in figures.items():
            png = io.BytesIO()
            figure.savefig(png, format="png", dpi=100)
            self._file("figures", step, name, ".png", png.getvalue())
            pixels = matplotlib.image.imread(io.BytesIO(png.getvalue()))[..., :3]
            self._board.add_image(name, pixels, step, dataformats="HWC")

    def evaluated(self, step: int) -> bool:
        """Return whether metrics.jsonl holds the evaluation of `step`."""
        path = self._workdir / "metrics.jsonl"
        return path.exists() and any(
            record["step"] == step and "time/evaluation" in record for record in _records(path)
        )

    def close(self) -> None:
        """Close the files and the bar."""
        if not self._active:
            return
        self._lines.close()
        self._board.close()
        self._shown.close()

    def _file(self, kind: str, step: int, name: str, suffix: str, content: bytes) -> None:
        folder = self._workdir / kind / f"step_{step:08d}"
        replace_file(folder / (name.replace(os.sep, "_") + suffix), content)


def _records(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the complete records of a JSON lines file, without a last line that a kill cut."""
    complete, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in complete.splitlines()]


def _drop_later(path: pathlib.Path, step: int) -> None:
    """Drop the records of steps after `step` from a JSON lines file."""
    if not path.exists():
        return
    kept = [record for record in _records(path) if record["step"] <= step]
    replace_file(path, "".join(json.dumps(record) + "\n" for record in kept))
