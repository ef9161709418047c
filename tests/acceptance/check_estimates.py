"""Statistical checks too long for unit tests: how often intervals cover, and the test rejects.

    python tests/acceptance/check_estimates.py [--seeds=100] [--draws=200] [--estimates=20] [--output=FILE]

Codes of a coupled Markov source (indep_jax/dependence/markov.py), whose truths are computed:
  coverage    of the 95% intervals of mutual information, by pair and lag, with 40 files and more
              than 100 frames for each cell; 90 of 100 seeds are asked for
  rejections  of the test of independence at 5%, of independent, strongly autocorrelated codes;
              2.3 to 8.9% of 200 draws (95% of what an exact test gives) are asked for
  errors      of the conditional total correlation, in bits per frame; 0.02 is asked for
"""

import argparse
import json
from pathlib import Path

import numpy as np

from indep_jax.dependence import markov, mutual_information, permutation_test, total_correlation
from indep_jax.support import progress


def coverage(seeds: int) -> list[dict]:
    """Of pairs and lags of a source: truth, mean estimate, and how many intervals cover it."""
    source, lags = markov.Source(3, 4), (0, "delay", -2)
    found = []
    for seed in progress.each(range(seeds), "coverage"):
        codes = source.sample(np.random.default_rng(seed), 40, 50)
        measured = mutual_information.estimate(codes, lags=lags, seed=seed)
        assert not measured.warnings, measured.warnings
        found.append(measured)
    rows = []
    for n, lag in enumerate(lags):
        for p, (i, j) in enumerate(found[0].pairs if found else ()):
            shift = j - i if lag == "delay" else lag
            truth = source.mutual_information_bits(i, j, shift)
            intervals = np.array([one.interval_bits[n, p] for one in found])
            covered = np.sum((intervals[:, 0] <= truth) & (truth <= intervals[:, 1]))
            mean = np.mean([one.bits[n, p] for one in found])
            rows.append(
                dict(
                    codebooks=[i + 1, j + 1],
                    lag=lag,
                    truth_bits=truth,
                    mean_bits=float(mean),
                    covered=int(covered),
                    of=seeds,
                )  # fmt: skip
            )
    return rows


def rejections(draws: int) -> dict:
    """Of the test at 5%, of independent codebooks that keep each code for 50 frames on average."""
    source = markov.Source(3, 4, copy=0, echo=0, stay=0.98)
    rejected = 0
    for seed in progress.each(range(draws), "rejections"):
        codes = source.sample(np.random.default_rng(seed), 20, 100)
        found = permutation_test.test_independence(codes, permutations=199, rows=200, seed=seed)
        rejected += found.p_value <= 0.05
    return dict(rejected=int(rejected), of=draws)


def errors(estimates: int) -> list[dict]:
    """Estimates of sources of growing dependence, and their truths."""
    rows = []
    for seed in progress.each(range(estimates), "total correlation"):
        strength = 0.6 * seed / max(estimates - 1, 1)
        source = markov.Source(3, 3, copy=strength, echo=strength)
        codes = source.sample(np.random.default_rng(seed), 50, 4000)
        for pattern in ("parallel", "delay"):
            (found,) = total_correlation.estimate(
                codes, pattern=pattern, shares=(1.0,), width=32, context=4, seed=seed
            )
            truth = source.conditional_bits(pattern)
            low, high = found.conditional_interval_bits
            rows.append(
                dict(
                    copy=strength,
                    pattern=pattern,
                    truth_bits=truth,
                    estimate_bits=found.conditional_bits,
                    error_bits=found.conditional_bits - truth,
                    covered=bool(low <= truth <= high),
                )  # fmt: skip
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--estimates", type=int, default=20)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found = dict(
        coverage=coverage(options.seeds),
        rejections=rejections(options.draws),
        errors=errors(options.estimates),
    )
    print(json.dumps(found, indent=1))
    if options.output:
        options.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
