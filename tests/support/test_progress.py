"""Progress: a bar on a terminal, a line every ten percent in a log, nothing for what is short."""

import os
import pathlib
import pty
import re
import subprocess
import sys
import termios
import types

import pytest

from indep_jax.support import progress

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def clock(monkeypatch):
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def log(capsys):
    out, err = capsys.readouterr()
    assert not out and "\r" not in err
    return err.splitlines()


def test_a_log_gets_a_line_every_ten_percent(clock, capsys):
    for _ in progress.each(range(1_000), "pack", unit="files"):
        clock.seconds += 0.05
    lines = log(capsys)
    assert len(lines) == 10
    assert lines[0] == "pack: 10%, 100 of 1000 files, 0:00:45 to go"
    assert lines[6] == "pack: 70%, 700 of 1000 files, 0:00:15 to go"
    assert lines[9] == "pack: 100%, 1000 of 1000 files"


def test_few_items_get_a_line_each(clock, capsys):
    with progress.bar(3, "generate") as bar:
        for number in range(3):
            clock.seconds += 10
            bar.set_postfix_str(f"piece {number}")
            bar.update()
    assert log(capsys) == [
        "generate: 30%, 1 of 3, piece 0, 0:00:20 to go",
        "generate: 60%, 2 of 3, piece 1, 0:00:10 to go",
        "generate: 100%, 3 of 3, piece 2",
    ]


def test_what_was_done_before_does_not_make_it_look_quick(clock, capsys):
    """A command that goes on skips what is there: half of it in no time, the rest at its pace."""
    with progress.bar(100, "encode", initial=10) as bar:
        bar.update(40)
        for _ in range(50):
            clock.seconds += 1
            bar.update()
    assert log(capsys)[0] == "encode: 60%, 60 of 100, 0:00:40 to go"


def test_sums_of_durations_reach_their_total(clock, capsys):
    with progress.bar(1.0, "decode", unit="s of music") as bar:
        for _ in range(10):
            clock.seconds += 1
            bar.update(0.1)  # ten of these are 0.9999999999999999
    assert bar.n < 1 and log(capsys)[-1] == "decode: 100%, 1 of 1 s of music"


def test_short_hidden_and_endless_work(clock, capsys):
    for seconds, show in ((1.9, True), (90.0, False)):
        for _ in progress.each(range(10), "work", show=show):
            clock.seconds += seconds / 10
    assert log(capsys) == []
    with progress.bar(None, "fit", unit="steps") as bar:
        for _ in range(150):
            clock.seconds += 1
            bar.update(2)
    assert log(capsys) == ["fit: 120 steps", "fit: 240 steps"]


def test_all_progress_is_shown_this_way():
    for path in (ROOT / folder for folder in ("indep_jax", "launch", "studies")):
        for file in path.rglob("*.py"):
            if file != pathlib.Path(progress.__file__):
                assert "tqdm" not in file.read_text(encoding="utf-8"), file


CHILD = """
import sys, time
from indep_jax.support import progress
assert "tqdm" not in sys.modules and "jax" not in sys.modules
progress.QUIET_SECONDS = float(sys.argv[1])
for number in progress.each(range(4), "work"):
    time.sleep(0.15)
    if number == 2:
        progress.write("a line of its own")
"""


@pytest.mark.parametrize("quiet, left", [(0.1, True), (60, False)])
def test_a_terminal_gets_a_bar(quiet, left):
    """The bar stays where the work was long, and is wiped out where it was not."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(quiet)], stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # how Linux tells that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0, said
    # What a terminal shows of each line: what was written after the last return to its start.
    lines = [re.split(r"\r+", line.strip("\r"))[-1] for line in said.decode().split("\n")]
    assert "work:  25%" in said.decode() and "a line of its own" in lines
    assert any("4/4" in line for line in lines) == left, lines
