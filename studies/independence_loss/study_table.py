"""The points of the study (studies/independence_loss/study.sh), joined.

    python studies/independence_loss/study_table.py --point runs/steps_4800/none --source=folder:music
        measures a run on the valid and test splits and writes studies/independence_loss/steps_4800/none.json
    python studies/independence_loss/study_table.py --given_past runs/steps_4800/none --source=folder:music
        adds the total correlation given the past, which takes minutes
    python studies/independence_loss/study_table.py
        studies/independence_loss/steps_4800/*.json to a table for each split and a figure, study.png

Points lie beside this script, in a folder with the name of the one that holds the runs.

A point, for each split: SI-SNR and mel distance of 40 excerpts of 10 s; perplexity and mutual
information of the first minute of each file. The share of the gradient is that of the run's log; what a
step takes is studies/speed/step_seconds.py's to tell. Changes from the arm `none`, with 95% intervals, are the
median of the excerpts' and file by file. Total correlation: test split, parallel pattern, first half
minute of each file.
"""

import argparse
import dataclasses
import json
import statistics
from pathlib import Path

import matplotlib.figure
import numpy as np
from scipy import stats

from indep_jax import dependence, evaluate, inference
from indep_jax.data import sources
from indep_jax.dependence import intervals, total_correlation
from indep_jax.independence import loss
from indep_jax.inference.encode_files import codes_by_origin
from indep_jax.report import with_interval
from indep_jax.support.files import replace_file
from indep_jax.training import checkpoints

RESULTS = Path(__file__).resolve().parent
SPLITS = ("test", "valid")
FILE_SECONDS = 60  # of each file, for the mutual information
FIRST_SECONDS = 30  # for the total correlation
MARKERS = "osD^vPX*<>"
COLOURS = {loss.NONE: "k"} | {kind: f"C{i}" for i, kind in enumerate(reversed(loss.KINDS))}


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
    """One JSON of a run: its evaluation and dependence on held-out music, and its training."""
    codec = inference.load_codec(workdir)
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    trained = [record for record in log if "discriminator" in record]
    ratios = [r["independence_gradient_ratio"] for r in trained if "independence" in r]
    path = point_of(workdir)
    point = dict(
        arm=workdir.name,
        independence=checkpoints.read_config(workdir)["loss"]["independence"],
        steps=log[-1]["step"],
        quantized_steps=log[-1]["step"] - codec.config["quantizer"]["warmup_steps"],
        gradient_ratio=statistics.fmean(ratios) if ratios else 0.0,
        splits={split: measured(codec, workdir.name, source, split) for split in SPLITS},
    )
    replace_file(path, json.dumps(point, indent=1) + "\n")
    print(path)


def measured(codec, name: str, source: str, split: str) -> dict:
    """What a point says of a codec on one split."""
    found = evaluate.evaluate_codec(codec, name, source, split, items=40, seconds=10.0).metrics
    files = beginnings(sources.open_source(source, split), FILE_SECONDS)
    codes = list(codes_by_origin(codec, files).values())
    result = dependence.measure_codes(name, codes, [codec.codebook_size] * codec.codebooks)
    information = result.information
    return dict(
        si_snr_db=found["si_snr_db"],
        mel_distance_relative=found["mel_distance_relative"],
        items=found["items"],
        perplexity=result.usage.perplexity.tolist(),
        entropy_bits=result.usage.entropy_bits.tolist(),
        mutual_information={
            str(lag): dict(
                bits=float(information.mean_bits[n]),
                interval_95_bits=information.mean_interval_bits[n].tolist(),
                without_each_file_bits=information.without_bits[n].mean(1).tolist(),
            )
            for n, lag in enumerate(information.lags)
        },
        warnings=list(result.warnings),
    )


def add_total_correlation(workdir: Path, source: str) -> None:
    """Adds to a point what predicting its codes side by side costs."""
    codec = inference.load_codec(workdir)
    files = beginnings(sources.open_source(source, "test"), FIRST_SECONDS)
    codes = codes_by_origin(codec, files)
    (cost,) = total_correlation.estimate(
        list(codes.values()),
        sizes=[codec.codebook_size] * codec.codebooks,
        shares=(1.0,),
        width=64,
        show_progress=True,
    )
    path = point_of(workdir)
    point = json.loads(path.read_text())
    point["total_correlation"] = dict(
        conditional_bits=cost.conditional_bits,
        conditional_interval_95_bits=cost.conditional_interval_bits.tolist(),
        without_each_file_bits=cost.without_bits.tolist(),
        joint_bits=cost.joint_bits,
        total_bits=cost.total_bits,
        training_frames=cost.training_frames,
    )
    replace_file(path, json.dumps(point, indent=1) + "\n")
    print(path)


def show(study: str) -> None:
    """Prints the tables (Markdown) and draws dependence against reconstruction."""
    points = [json.loads(path.read_text()) for path in sorted((RESULTS / study).glob("*.json"))]
    start = next((point for point in points if point["arm"] == "none"), None)
    if start is None:
        raise SystemExit(f"{RESULTS / study}: has no point of the arm none")
    print("| arm | gradient share | total correlation given the past, bits a frame |")
    print("|" + "---|" * 3)
    for point in points:
        base = None if point is start else start.get("total_correlation")
        cells = [
            f"`{point['arm']}`",
            f"{point['gradient_ratio']:.2f}",
            _total_correlation(base, point.get("total_correlation")),
        ]
        print("| " + " | ".join(cells) + " |")
    for split in SPLITS:
        print(
            f"\n| arm, {split} | SI-SNR, dB | mel distance | perplexity | mutual information a pair, "
            "bits | at the delay lags |"
        )
        print("|" + "---|" * 6)
        for point in points:
            found = point["splits"][split]
            base = None if point is start else start["splits"][split]
            cells = [
                f"`{point['arm']}`",
                _reconstruction(base, found),
                f"{found['mel_distance_relative']:.3f}",
                ", ".join(f"{value:.0f}" for value in found["perplexity"]),
                *(_information(base, found, lag) for lag in ("0", "delay")),
            ]
            print("| " + " | ".join(cells) + " |")
    path = RESULTS / study / "study.png"
    _figure(points, start).savefig(path, dpi=110)
    print(path)


def _snr_change(before: dict, found: dict) -> tuple[float, np.ndarray]:
    """Median change of SI-SNR over excerpts, and its 95% interval from the sign test. Not the mean: one
    excerpt near silence can move by 25 dB."""
    pairs = zip(before["items"], found["items"], strict=True)
    change = np.array([b["si_snr_db"] - a["si_snr_db"] for a, b in pairs], np.float64)
    change = change[np.isfinite(change)]  # silent excerpts have none
    return np.median(change), np.array(stats.quantile_test(change).confidence_interval(0.95))


def _reconstruction(before: dict | None, found: dict) -> str:
    """Median SI-SNR, and the median of its changes."""
    text = f"{found['si_snr_db']['median']:.2f}"
    if before is None:
        return text
    return f"{text}, {with_interval(*_snr_change(before, found), 2, '+')}"


def _information_change(before: dict, found: dict, lag: str) -> tuple[float, np.ndarray]:
    """Change of the mutual information, and its interval over the files that both measured."""
    old, new = (point["mutual_information"][lag] for point in (before, found))
    return intervals.change(
        old["bits"],
        old["without_each_file_bits"],
        new["bits"],
        new["without_each_file_bits"],
    )


def _information(before: dict | None, found: dict, lag: str) -> str:
    """Mutual information, and its change."""
    new = found["mutual_information"][lag]
    if before is None:
        return with_interval(new["bits"], new["interval_95_bits"])
    change, interval = _information_change(before, found, lag)
    return (
        f"{new['bits']:.3f}, {change / (new['bits'] - change):+.0%} "
        f"({with_interval(change, interval, 3, '+')})"
    )


def _total_correlation(before: dict | None, found: dict | None) -> str:
    """Given the past, and its change; the first points hold nothing to take the change from."""
    if found is None:
        return "not measured"
    bits, interval = found["conditional_bits"], found["conditional_interval_95_bits"]
    if before is None or "without_each_file_bits" not in found:
        return with_interval(bits, interval)
    change = intervals.change(
        before["conditional_bits"],
        before["without_each_file_bits"],
        bits,
        found["without_each_file_bits"],
    )
    return f"{bits:.3f}, {with_interval(*change, 3, '+')}"


def _figure(points: list[dict], start: dict) -> matplotlib.figure.Figure:
    """Mutual information over the change of SI-SNR: a row for each split, at lag 0 and the delay's.
    Bars are the intervals of the changes from `none`."""
    figure = matplotlib.figure.Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(len(SPLITS), 2, squeeze=False)
    titles = {"0": "same frame", "delay": "delay pattern's lags"}
    for row, split in zip(axes, SPLITS):
        base = start["splits"][split]
        for axis, (lag, title) in zip(row, titles.items()):
            for n, point in enumerate(points):
                found = point["splits"][split]
                snr, snr_interval = _snr_change(base, found)
                change, interval = _information_change(base, found, lag)
                axis.errorbar(
                    snr,
                    found["mutual_information"][lag]["bits"],
                    xerr=np.abs(snr_interval - snr)[:, None],
                    yerr=np.abs(interval - change)[:, None],
                    fmt=MARKERS[n % len(MARKERS)],
                    elinewidth=0.5,
                    color=COLOURS[point["independence"]["kind"]],
                    label=point["arm"],
                )
            axis.set(xlabel="change of SI-SNR, dB", ylabel="bits a pair", title=f"{split}, {title}")
            axis.locator_params(axis="x", nbins=5)
    figure.suptitle("mutual information of two codebooks against reconstruction")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--point", type=Path, help="the workdir of an arm")
    parser.add_argument("--given_past", type=Path, help="the workdir of an arm that has a point")
    parser.add_argument("--source", help="the music that it was trained on")
    parser.add_argument(
        "--study", default="steps_4800", help="the folder beside this script to show"
    )
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
