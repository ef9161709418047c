"""Make the tests' compilations quick: fewer of XLA's passes, and programs kept between runs."""

import json
import os
import pathlib
import subprocess
import sys
from importlib import metadata

import pytest

_ROOT = pathlib.Path(__file__).parent.parent
_KEPT = _ROOT / ".pytest_cache"
# Programs this small run no slower unoptimised, and compile in a third of the time. Tests marked
# `default_flags` also run as users' programs are compiled: see launch/test.sh.
_FAST = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")


def _known(flag: str) -> bool:
    """Try a flag in a process of its own: XLA aborts on one that a release has removed."""
    child = [sys.executable, "-c", "import jax; jax.devices()"]
    env = {**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(child, env=env, capture_output=True).returncode == 0


def _known_flags() -> str:
    """Return the fast flags that the installed jaxlib knows; tried once for each version."""
    kept = _KEPT / f"xla_flags_{metadata.version('jaxlib')}.json"
    try:
        answers = json.loads(kept.read_text())
    except (OSError, ValueError):
        answers = {}
    if set(answers) != set(_FAST):
        answers = {flag: _known(flag) for flag in _FAST}
        kept.parent.mkdir(exist_ok=True)
        beside = kept.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(answers))
        beside.replace(kept)
    return " ".join(flag for flag in _FAST if answers[flag])


os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_KEPT / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = _known_flags()
# For the processes that tests start, what pytest's `pythonpath` is for these.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(_ROOT), str(_ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
)


@pytest.fixture
def x64():
    import jax

    with jax.enable_x64(True):
        yield
