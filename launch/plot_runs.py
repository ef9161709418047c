"""Draws the evaluations of some runs over their steps.

    python launch/plot_runs.py --output=curves.png runs/none runs/dhsic

Reads each workdir's metrics.jsonl: SI-SNR, mel distance and perplexity on held-out music, and the
independence loss with its share of the encoder's gradient where a run has them.
"""

import argparse
import json
from pathlib import Path

import matplotlib.figure

PANELS = {
    "SI-SNR, dB": lambda record: record.get("eval/si_snr_db"),
    "mel distance, log10": lambda record: record.get("eval/mel_distance"),
    "perplexity, mean of codebooks": lambda record: _mean(
        [value for name, value in record.items() if name.startswith("eval/perplexity_")]
    ),
    "independence loss": lambda record: record.get("independence"),
    "its gradient over the others'": lambda record: record.get("independence_gradient_ratio"),
}


def _mean(values):
    return sum(values) / len(values) if values else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", type=Path)
    parser.add_argument("--output", required=True, type=Path, help="a .png file")
    options = parser.parse_args()
    figure = matplotlib.figure.Figure(figsize=(3.2 * len(PANELS), 3), layout="constrained")
    for axis, (title, read) in zip(figure.subplots(1, len(PANELS)), PANELS.items()):
        for workdir in options.workdirs:
            lines = (workdir / "metrics.jsonl").read_text().splitlines()
            records = [json.loads(line) for line in lines]
            points = [(r["step"], read(r)) for r in records if read(r) is not None]
            axis.plot(*zip(*points) if points else ((), ()), label=workdir.name)
        axis.set(title=title, xlabel="step")
        axis.title.set_fontsize(10)
    figure.axes[0].legend()
    figure.savefig(options.output, dpi=110)
    print(options.output)


if __name__ == "__main__":
    main()
