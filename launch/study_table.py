"""The points of the study (launch/study.sh), joined.

    python launch/study_table.py --point runs/study/none   writes results/study/none.json
    python launch/study_table.py                           results/study/*.json to a table and a figure
"""

import argparse
import json
import statistics
from pathlib import Path

import matplotlib.figure

RESULTS = Path(__file__).resolve().parent.parent / "results" / "study"


def write_point(workdir: Path) -> None:
    """One JSON of a run: its evaluation and dependence on the test split, and its training."""
    (codec,) = json.loads((workdir / "test/metrics.json").read_text())["codecs"].values()
    measured = json.loads((workdir / "test/dependence.json").read_text())
    (tokenizer,) = measured["tokenizers"]
    config = json.loads((workdir / "config.json").read_text())
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    speeds = [r["time/steps_per_second"] for r in log if "discriminator" in r]
    ratios = [r["independence_gradient_ratio"] for r in log if "independence_gradient_ratio" in r]
    information = {
        str(entry["lag"]): dict(
            bits=entry["mean"]["bits"], interval_95_bits=entry["mean"]["interval_95_bits"]
        )
        for entry in tokenizer["mutual_information"]
    }
    point = dict(
        arm=workdir.name,
        independence=config["loss"]["independence"],
        steps=log[-1]["step"],
        seconds_per_step=1 / statistics.median(speeds),
        gradient_ratio=statistics.fmean(ratios) if ratios else 0.0,
        si_snr_db=codec["si_snr_db"],
        mel_distance_relative=codec["mel_distance_relative"],
        perplexity=[entry["perplexity"] for entry in tokenizer["codebooks"]],
        mutual_information=information,
        warnings=tokenizer["warnings"],
    )
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{workdir.name}.json"
    path.write_text(json.dumps(point, indent=1) + "\n")
    print(path)


def show() -> None:
    """Prints the table (Markdown) and draws dependence against reconstruction."""
    points = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    print("| arm | s/step | SI-SNR, dB | mel distance | perplexity | MI at lag 0, bits | MI, delay |")
    print("|---|---|---|---|---|---|---|")
    for point in points:
        cells = [
            point["arm"],
            f"{point['seconds_per_step']:.2f}",
            f"{point['si_snr_db']['median']:.2f}",
            f"{point['mel_distance_relative']:.3f}",
            ", ".join(f"{value:.0f}" for value in point["perplexity"]),
            *(_interval(point["mutual_information"][lag]) for lag in ("0", "delay")),
        ]
        print("| " + " | ".join(cells) + " |")
    figure = matplotlib.figure.Figure(figsize=(9, 4), layout="constrained")
    for axis, lag in zip(figure.subplots(1, 2), ("0", "delay")):
        for point in points:
            found = point["mutual_information"][lag]
            low, high = found["interval_95_bits"]
            x, y = point["mel_distance_relative"], found["bits"]
            axis.errorbar(x, y, [[y - low], [high - y]], fmt="o", capsize=3)
            axis.annotate(point["arm"], (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
        where = "same frame" if lag == "0" else "delay pattern's lags"
        axis.set(xlabel="mel distance, share of the mean spectrum's", ylabel=f"bits a pair, {where}")
    path = RESULTS / "study.png"
    figure.savefig(path, dpi=110)
    print(path)


def _interval(found: dict) -> str:
    low, high = found["interval_95_bits"]
    return f"{found['bits']:.3f} [{low:.3f}, {high:.3f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--point", type=Path, help="the workdir of an arm")
    options = parser.parse_args()
    if options.point:
        write_point(options.point)
    else:
        show()


if __name__ == "__main__":
    main()
