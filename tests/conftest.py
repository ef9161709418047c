"""Compiled programs are kept between tests, workers and runs: most of the time goes there."""

import os
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parent.parent
_CACHE = _ROOT / ".pytest_cache" / "jax"
# For the processes that tests start, what pytest's `pythonpath` is for these.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(_ROOT), str(_ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Programs this small run no slower unoptimised, and compile in a third of the time.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)


@pytest.fixture
def x64():
    import jax

    with jax.enable_x64(True):
        yield
