"""Timing side by side: what `python -m indep_jax.bench` is made of."""

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from indep_jax.support import progress
from indep_jax.support.errors import UserError

# Before each call: the threads of OpenMP, which torch's calls are made of, keep a core busy for
# 0.2 s after their work, and would slow what comes next.
PAUSE_SECONDS = 0.3


class Seconds(NamedTuple):
    """first: of the first call, compilation included; median: of the others."""

    first: float
    median: float


def medians(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Seconds]:
    """How long each function takes; they take turns."""
    import jax  # here, so that the command's --help does without

    times: dict[str, list[float]] = {name: [] for name in functions}
    rounds = list(itertools.product(range(repeats + 1), functions))
    with progress.bar(len(rounds), "measure", unit="calls") as bar:
        for _, name in rounds:
            bar.set_postfix_str(name)
            time.sleep(PAUSE_SECONDS)
            begin = time.perf_counter()
            jax.block_until_ready(functions[name]())
            times[name].append(time.perf_counter() - begin)
            bar.update()
    return {name: Seconds(first, statistics.median(rest)) for name, (first, *rest) in times.items()}


def compare(
    functions: Mapping[str, Callable[[], object]],
    repeats: int,
    against: str,
    more: Callable[[str, float], dict] | None = None,
) -> list[dict]:
    """Rows from functions named "what/ours" and, where there is something to compare, "what/theirs",
    or "theirs" for what all are compared with.

    Each has what, ours (seconds), first call, and, with `against`, its name (seconds) and ratio, ours
    by theirs. more: (what, seconds of ours) -> further columns.
    """
    found = medians(functions, repeats)
    rows = []
    for what in [name.removesuffix("/ours") for name in found if name.endswith("/ours")]:
        ours, theirs = found[f"{what}/ours"], found.get(f"{what}/theirs", found.get("theirs"))
        row = {"what": what, "ours": f"{ours.median:.3f} s", "first call": f"{ours.first:.1f} s"}
        if against:
            row[against] = "" if theirs is None else f"{theirs.median:.3f} s"
            row["ratio"] = "" if theirs is None else f"{ours.median / theirs.median:.3f}"
        rows.append(row | (more(what, ours.median) if more else {}))
    return rows


def missing(error: ImportError) -> UserError:
    """Return what to raise where --against=torch lacks a package."""
    return UserError(
        f"--against=torch: {error.name} is not installed; pip install 'indep_jax[parity]'"
    )


def show(rows: list[dict]) -> None:
    """Rows as a table of aligned columns."""
    columns = list(rows[0])
    cells = [columns] + [[str(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
