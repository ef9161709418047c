"""Draws the evaluations of some runs over their steps, or minutes of training.

    python launch/plot_runs.py --output=curves.png [--minutes] runs/none runs/dhsic

Reads each workdir's metrics.jsonl. Of codecs: SI-SNR, mel distance and perplexity on held-out music,
and the independence loss with its share of the encoder's gradient where a run has them. Of language
models: the bits of a frame, in training and on held-out music. A run that starts from one named before
it (init_from) is drawn from that one's last minute on.
"""

import json
from pathlib import Path

from absl import flags

from indep_jax.support import command
from indep_jax.support.errors import UserError

PANELS = {
    "SI-SNR, dB": lambda record: record.get("eval/si_snr_db"),
    "mel distance, log10": lambda record: record.get("eval/mel_distance"),
    "perplexity, mean of codebooks": lambda record: _mean(
        [value for name, value in record.items() if name.startswith("eval/perplexity_")]
    ),
    "independence loss": lambda record: record.get("independence"),
    "its gradient over the others'": lambda record: record.get("independence_gradient_ratio"),
    "bits a frame, training": lambda record: record.get("bits_per_frame"),
    "bits a frame, held out": lambda record: record.get("eval/bits_per_frame"),
}


def _mean(values):
    return sum(values) / len(values) if values else None


def _records(path):
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # the last line of a run that is being written


def _points(workdir, minutes, ends):
    """By panel the (x, y) of a run, x in steps or in minutes that its steps took.

    ends: the last minute of each run that was drawn, by its workdir; this one's is added.
    """
    records = list(_records(workdir / "metrics.jsonl"))
    # A run that starts from another one's end begins about a log before its first.
    config = json.loads((workdir / "config.json").read_text())
    every = config["log_every"]
    step = max(0, next((r["step"] for r in records if "time/steps_per_second" in r), 0) - every)
    spent = ends.get(Path(config["init_from"]).resolve(), 0.0) if config["init_from"] else 0.0
    found = {title: [] for title in PANELS}
    for record in records:
        if "time/steps_per_second" in record:
            spent += (record["step"] - step) / record["time/steps_per_second"] / 60
            step = record["step"]
        for title, read in PANELS.items():
            if (value := read(record)) is not None:
                found[title].append((spent if minutes else record["step"], value))
    ends[workdir.resolve()] = spent
    return found


def main(*workdirs: str) -> None:
    options, ends = flags.FLAGS, {}
    if not options.output.endswith(".png"):
        raise UserError(f"--output={options.output}: expected a .png file")
    runs = {Path(path).name: _points(Path(path), options.minutes, ends) for path in workdirs}
    titles = [title for title in PANELS if any(points[title] for points in runs.values())]
    if not titles:
        raise UserError(f"nothing to draw in {', '.join(workdirs)}")

    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(3.6 * len(titles), 3.6), layout="constrained")
    for axis, title in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles):
        for name, points in runs.items():
            axis.plot(*zip(*points[title]) if points[title] else ((), ()), label=name)
        axis.set(title=title, xlabel="minutes" if options.minutes else "step")
        axis.title.set_fontsize(10)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(options.output, dpi=110)
    print(options.output)


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "A .png file.", required=True)
    flags.DEFINE_bool("minutes", False, "Over minutes of training, in place of steps.")
    command.run(main, operands="the workdirs of runs")
