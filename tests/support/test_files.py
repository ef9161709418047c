"""Atomic writes: whole or absent, by any number of writers."""

import json
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from indep_jax.support.files import begin_output, replace_file, replacing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, "old"])
def test_an_exception_leaves_the_target_as_it_was_and_nothing_beside_it(tmp_path, error, before):
    path = tmp_path / "result"
    if before:
        path.write_text(before)
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == path.parent and (path.read_text() if before else None) == before
        raise error
    assert names(tmp_path) == (["result"] if before else [])
    assert not before or path.read_text() == before


def test_errors_of_the_disk_name_the_target(tmp_path):
    path = tmp_path / "result"
    with pytest.raises(FileNotFoundError) as error, replacing(path) as temporary:
        open(temporary).close()
    assert error.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as error, replacing(path):
        pass  # nothing is there to rename
    assert error.value.filename == str(path)


def test_a_rename_that_fails_leaves_nothing_beside_the_target(tmp_path):
    (tmp_path / "result").mkdir()
    (tmp_path / "result/inside").touch()
    with pytest.raises(OSError), replacing(tmp_path / "result") as temporary:
        temporary.write_text("a file cannot replace a folder")
    assert names(tmp_path) == ["result"]


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError), replacing(tmp_path / "made") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("a")
        raise ValueError
    assert names(tmp_path) == []
    with replacing(tmp_path / "new/made") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("a")
        assert not (tmp_path / "new/made").exists()
    assert names(tmp_path / "new") == ["made"] and names(tmp_path / "new/made") == ["a"]


def test_writers_of_one_target_at_a_time_leave_one_whole_file(tmp_path):
    path, threads = tmp_path / "result", 8
    barrier, used = threading.Barrier(threads), []

    def write(number):
        for _ in range(5):
            with replacing(path) as temporary:
                used.append(temporary)
                barrier.wait(60)  # all are open at once
                with open(temporary, "w") as file:
                    for _ in range(100):
                        file.write(f"{number}\n")

    writers = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = path.read_text().splitlines()
    assert len(lines) == 100 and len(set(lines)) == 1
    assert names(tmp_path) == ["result"] and len(set(used)) == 5 * threads


def test_names_as_long_as_the_file_system_has_them(tmp_path):
    path = tmp_path / ("音" * 85)  # 255 bytes
    replace_file(path, "long")
    assert path.read_text() == "long"


def test_the_mode_is_that_of_any_new_file(tmp_path):
    replace_file(tmp_path / "ours", b"")
    (tmp_path / "plain").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


WRITER = """
import sys, time
from indep_jax.support.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    time.sleep(600)
"""


def test_leftovers_of_killed_processes_go_and_those_of_running_ones_stay(tmp_path):
    begin_output(tmp_path / "made_with.json", dict(codec="a"))
    command = [sys.executable, "-c", WRITER, tmp_path / "sub/result"]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    killed, running = (pathlib.Path(writer.stdout.readline().strip()) for writer in writers)
    try:
        writers[0].send_signal(signal.SIGKILL)
        writers[0].communicate()
        (tmp_path / ".hidden.tmp").touch()  # not ours
        assert killed.exists()
        begin_output(tmp_path / "made_with.json", dict(codec="a"))
        assert not killed.exists() and running.exists()
    finally:
        writers[1].send_signal(signal.SIGKILL)
        writers[1].communicate()
    begin_output(tmp_path / "made_with.json", dict(codec="a"))
    assert names(tmp_path) == [".hidden.tmp", "made_with.json", "sub"]
    assert names(tmp_path / "sub") == []


def test_other_results_are_refused(tmp_path):
    path = tmp_path / "made_with.json"
    begin_output(path, dict(codec="a", seconds=1))
    begin_output(path, dict(codec="a", seconds=1))
    with pytest.raises(ValueError, match=r"holds other results: codec: a -> b$"):
        begin_output(path, dict(codec="b", seconds=1))
    assert json.loads(path.read_text()) == dict(codec="a", seconds=1)
    path.write_text("{")
    with pytest.raises(ValueError, match="made_with.json: not JSON"):
        begin_output(path, dict(codec="a"))
