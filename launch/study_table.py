"""The points of the study (launch/study.sh), joined.

    python launch/study_table.py --point runs/study/none --source=folder:music
        measures a run on the test split and writes results/study/none.json
    python launch/study_table.py --given_past runs/study/none --source=folder:music
        adds the total correlation given the past, which takes minutes
    python launch/study_table.py
        results/study/*.json to a table and a figure, study.png

Points lie in results/, in a folder with the name of the one that holds the runs.

A point: SI-SNR and mel distance of 40 excerpts; perplexity and mutual information of the first minute
of each file; speed and share of the gradient from the run's log. Changes from the arm `none` are
file by file. Total correlation: parallel pattern, first half minute of each file.
"""

import argparse
import dataclasses
import json
import statistics
from pathlib import Path

import matplotlib.figure
import numpy as np

from indep_jax import loading
from indep_jax.data import sources
from indep_jax.independence import estimate, total_correlation
from indep_jax.metrics import dependence, excerpts, report
from indep_jax.training import checkpoints

RESULTS = Path(__file__).resolve().parent.parent / "results"
SPLIT = "test"
FILE_SECONDS = 60  # of each file, for the mutual information
FIRST_SECONDS = 30  # for the total correlation
COLOURS = dict(none="k", dhsic="C0", permutation="C1", covariance="C2")


def beginnings(source: sources.AudioSource, seconds: float) -> sources.AudioSource:
    """The first seconds of every file of a source, also where it holds them in pieces."""
    left: dict[int, float] = {}
    files = []
    for file, origin in zip(source.files, source.origins):
        taken = min(file.seconds, left.setdefault(origin, seconds))
        if taken > 0:
            files.append(dataclasses.replace(file, frames=round(taken * file.sample_rate)))
            left[origin] -= taken
    return dataclasses.replace(source, files=files)


def point_of(workdir: Path) -> Path:
    return RESULTS / workdir.resolve().parent.name / f"{workdir.name}.json"


def write_point(workdir: Path, source: str) -> None:
    """One JSON of a run: its evaluation and dependence on the test split, and its training."""
    codec = loading.load_codec(workdir)
    found = excerpts.evaluate(codec, workdir.name, source, SPLIT, items=40, seconds=10.0).metrics
    files = beginnings(sources.open_source(source, SPLIT), FILE_SECONDS)
    codes = dependence.encode_files(codec, files, workdir.name)
    sizes = [codec.codebook_size] * codec.codebooks
    measured = dependence.measure(workdir.name, codes, sizes)
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    trained = [record for record in log if "discriminator" in record]
    ratios = [r["independence_gradient_ratio"] for r in trained if "independence" in r]
    information = measured.information
    point = dict(
        arm=workdir.name,
        independence=checkpoints.read_config(workdir)["loss"]["independence"],
        steps=log[-1]["step"],
        quantized_steps=log[-1]["step"] - codec.config["quantizer"]["warmup_steps"],
        seconds_per_step=1 / statistics.median(r["time/steps_per_second"] for r in trained),
        gradient_ratio=statistics.fmean(ratios) if ratios else 0.0,
        si_snr_db=found["si_snr_db"],
        mel_distance_relative=found["mel_distance_relative"],
        items=found["items"],
        perplexity=measured.usage.perplexity.tolist(),
        entropy_bits=measured.usage.entropy_bits.tolist(),
        mutual_information={
            str(lag): dict(
                bits=float(information.mean_bits[n]),
                interval_95_bits=information.mean_interval_bits[n].tolist(),
                without_each_file_bits=information.without_bits[n].mean(1).tolist(),
            )
            for n, lag in enumerate(information.lags)
        },
        warnings=list(measured.warnings),
    )
    path = point_of(workdir)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(point, indent=1) + "\n")
    print(path)


def add_total_correlation(workdir: Path, source: str) -> None:
    """Adds to a point what predicting its codes side by side costs."""
    codec = loading.load_codec(workdir)
    files = beginnings(sources.open_source(source, SPLIT), FIRST_SECONDS)
    (cost,) = total_correlation.total_correlation(
        dependence.encode_files(codec, files, workdir.name),
        sizes=[codec.codebook_size] * codec.codebooks,
        shares=(1.0,),
        width=64,
        progress=True,
    )
    path = point_of(workdir)
    point = json.loads(path.read_text())
    point["total_correlation"] = dict(
        conditional_bits=cost.conditional_bits,
        conditional_interval_95_bits=cost.conditional_interval_bits.tolist(),
        joint_bits=cost.joint_bits,
        total_bits=cost.total_bits,
        training_frames=cost.training_frames,
    )
    path.write_text(json.dumps(point, indent=1) + "\n")
    print(path)


def show(study: str) -> None:
    """Prints the table (Markdown) and draws dependence against reconstruction."""
    points = [json.loads(path.read_text()) for path in sorted((RESULTS / study).glob("*.json"))]
    start = next((point for point in points if point["arm"] == "none"), None)
    print(
        "| arm | gradient share | s/step | SI-SNR, dB | mel distance | perplexity | mutual information "
        "a pair, bits | at the delay lags | total correlation given the past, bits a frame |"
    )
    print("|" + "---|" * 9)
    for point in points:
        cost = point.get("total_correlation")
        cells = [
            f"`{point['arm']}`",
            f"{point['gradient_ratio']:.2f}",
            f"{point['seconds_per_step']:.2f}",
            f"{point['si_snr_db']['median']:.2f}",
            f"{point['mel_distance_relative']:.3f}",
            ", ".join(f"{value:.0f}" for value in point["perplexity"]),
            *(_change(start, point, lag) for lag in ("0", "delay")),
            report.with_interval(cost["conditional_bits"], cost["conditional_interval_95_bits"])
            if cost
            else "",
        ]
        print("| " + " | ".join(cells) + " |")
    figure = matplotlib.figure.Figure(figsize=(10, 4.2), layout="constrained")
    panels = {
        "mutual information a pair, same frame": lambda p: p["mutual_information"]["0"]["bits"],
        "the same, delay pattern's lags": lambda p: p["mutual_information"]["delay"]["bits"],
    }
    for axis, (title, value) in zip(figure.subplots(1, len(panels)), panels.items()):
        for point in points:
            x, y = point["si_snr_db"]["median"], value(point)
            colour = COLOURS[point["independence"]["kind"]]
            axis.plot(x, y, "o", color=colour)
            axis.annotate(point["arm"], (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
        axis.set(xlabel="SI-SNR, dB", ylabel="bits", title=title)
        axis.margins(0.3, 0.15)
        axis.set_ylim(bottom=0)
    path = RESULTS / study / "study.png"
    figure.savefig(path, dpi=110)
    print(path)


def _change(start: dict | None, point: dict, lag: str) -> str:
    """Mutual information, and its change from the arm `none` with a paired interval."""
    found = point["mutual_information"][lag]
    if start is None or start is point:
        return f"{found['bits']:.3f}"
    before = start["mutual_information"][lag]
    change = found["bits"] - before["bits"]
    without = np.subtract(found["without_each_file_bits"], before["without_each_file_bits"])
    low, high = estimate.jackknife_interval(change, without)
    return f"{found['bits']:.3f}, {change / before['bits']:+.0%} ({change:+.3f} [{low:+.3f}, {high:+.3f}])"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--point", type=Path, help="the workdir of an arm")
    parser.add_argument("--given_past", type=Path, help="the workdir of an arm that has a point")
    parser.add_argument("--source", help="the music that it was trained on")
    parser.add_argument("--study", default="study", help="the folder under results/ to show")
    options = parser.parse_args()
    if (options.point or options.given_past) and not options.source:
        parser.error("--source is required with --point and --given_past")
    if options.point:
        write_point(options.point, options.source)
    elif options.given_past:
        add_total_correlation(options.given_past, options.source)
    else:
        show(options.study)


if __name__ == "__main__":
    main()
