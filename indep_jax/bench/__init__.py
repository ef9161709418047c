"""Timing side by side: what `python -m indep_jax.bench` is made of."""

import itertools
import statistics
import time
from collections.abc import Callable, Mapping

import jax
import tqdm


def medians(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each function, the median of runs that take turns; the first of each is left out.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    rounds = tqdm.tqdm(list(itertools.product(range(repeats + 1), functions)), leave=False)
    for turn, name in rounds:
        rounds.set_description(name)
        begin = time.perf_counter()
        jax.block_until_ready(functions[name]())
        if turn:
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def compare(functions: Mapping[str, Callable[[], object]], repeats: int, against: str) -> list[dict]:
    """Rows from functions named "what/ours" and, where there is something to compare, "what/theirs".

    Each has what, ours (seconds), and, with `against`, its name (seconds) and ratio, ours by theirs.
    """
    found = medians(functions, repeats)
    rows = []
    for what in [name.removesuffix("/ours") for name in found if name.endswith("/ours")]:
        ours, theirs = found[f"{what}/ours"], found.get(f"{what}/theirs")
        row = dict(what=what, ours=f"{ours:.3f} s")
        if against:
            row[against] = "" if theirs is None else f"{theirs:.3f} s"
            row["ratio"] = "" if theirs is None else f"{ours / theirs:.3f}"
        rows.append(row)
    return rows


def missing(error: ImportError) -> ValueError:
    """What to raise where --against=torch lacks a package."""
    return ValueError(
        f"--against=torch: {error.name} is not installed; pip install 'indep_jax[parity]'"
    )


def show(rows: list[dict]) -> None:
    """Rows as a table of aligned columns."""
    columns = list(rows[0])
    cells = [columns] + [[str(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
