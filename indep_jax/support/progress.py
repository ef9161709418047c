"""Progress of long work on stderr: a bar on a terminal, a line every ten percent in a log.

Work that ends within two seconds leaves nothing behind in either.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar

QUIET_SECONDS = 2.0
LINE_SECONDS = 60.0  # between two lines of a log, where the total is not known

Item = TypeVar("Item")


class Bar(Protocol):
    """What `bar` gives: the part of tqdm's interface that a log can show as well."""

    n: float  # done so far

    def update(self, n: float = 1) -> object:
        """Add `n` to what is done."""

    def set_postfix_str(self, s: str) -> None:
        """Set the text that is shown behind the numbers."""


@contextlib.contextmanager
def bar(
    total: float | None,
    what: str,
    *,
    unit: str = "",
    layout: str | None = None,
    initial: float = 0,
    show: bool = True,
) -> Iterator[Bar]:
    """Show how much of `total` is done while the context is entered.

    Args:
      total: in units; None where it is not known.
      what: the work, in a word or two.
      unit: of the total, as in "seconds of music"; may be empty.
      layout: of the bar on a terminal, see `bar_format` of tqdm.
      initial: what is done already.
      show: False shows nothing.
    """
    if not (show and sys.stderr.isatty()):
        yield _Lines(total, what, unit, initial, show)
        return
    import tqdm  # here, as it would slow down the --help of every command

    begin = time.monotonic()
    with tqdm.tqdm(
        total=total,
        desc=what or None,
        unit=f" {unit}" if unit else "it",
        bar_format=layout,
        initial=initial,
        dynamic_ncols=True,
        smoothing=0.05,
    ) as shown:
        try:
            yield shown
        finally:
            shown.leave = time.monotonic() - begin >= QUIET_SECONDS


def each(items: Sequence[Item], what: str, *, unit: str = "", show: bool = True) -> Iterator[Item]:
    """Yield the items, and show how many are done; see `bar`."""
    with bar(len(items), what, unit=unit, show=show) as done:
        for item in items:
            yield item
            done.update()


def write(text: str) -> None:
    """Print a line on stderr, above the bar where there is one."""
    if sys.stderr.isatty():
        import tqdm

        tqdm.tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)


class _Lines:
    """A Bar in a log."""

    def __init__(self, total: float | None, what: str, unit: str, initial: float, show: bool):
        self.n = initial
        self._total, self._what, self._unit, self._show = total, what, unit, show
        self._postfix = ""
        self._begin = time.monotonic()
        self._mark = self._tenth(), initial, self._begin  # at the last line, shown or not

    def _tenth(self) -> int:
        # Sums of durations may miss their total by a rounding error.
        return int(10 * self.n / self._total + 1e-3) if self._total else 0

    def update(self, n: float = 1) -> None:
        self.n += n
        now, (tenth, before, since) = time.monotonic(), self._mark
        if self._total is None:
            if now - since >= LINE_SECONDS:
                self._mark = 0, self.n, now
                self._write(f"{self.n:.0f}")
        elif (reached := self._tenth()) > tenth:
            self._mark = reached, self.n, now
            if now - self._begin >= QUIET_SECONDS:
                remaining = ""
                if reached < 10:
                    seconds = (now - since) / (self.n - before) * (self._total - self.n)
                    remaining = f", {timedelta(seconds=round(seconds))} to go"
                self._write(f"{10 * reached}%, {self.n:.0f} of {self._total:.0f}", remaining)

    def set_postfix_str(self, s: str) -> None:
        self._postfix = s

    def _write(self, numbers: str, remaining: str = "") -> None:
        if self._show:
            unit = f" {self._unit}" if self._unit else ""
            postfix = f", {self._postfix}" if self._postfix else ""
            print(f"{self._what}: {numbers}{unit}{postfix}{remaining}", file=sys.stderr, flush=True)
