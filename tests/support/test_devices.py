"""What is said of devices: those that run, those that JAX leaves idle, and those that are full."""

import importlib.metadata
import importlib.util
import logging
import types

import jax
import jax.numpy as jnp
import pytest

from indep_jax.support import devices

MISSING = "this machine has {}, and JAX has no plugin for it"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without any accelerator or plugin, its root folder."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "dev").mkdir()
    return tmp_path


def test_nothing_is_said_where_there_is_nothing(machine):
    assert devices.missing_plugin(machine, {}) is None


@pytest.mark.parametrize("device", ["nvidia0", "nvidiactl", "dxg"])
def test_a_gpu_without_its_plugin_is_named(machine, monkeypatch, device):
    (machine / "dev" / device).touch()
    line = devices.missing_plugin(machine, {})
    assert line.startswith(MISSING.format("an NVIDIA GPU")) and "\n" not in line
    assert "pip install 'indep_jax[cuda]'" in line
    # Who chose the CPU, or hid the GPU, knows.
    for name, value in dict(JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="").items():
        assert devices.missing_plugin(machine, {name: value}) is None
    assert devices.missing_plugin(machine, {"CUDA_VISIBLE_DEVICES": "0"}) == line
    plugin = types.SimpleNamespace(name="xla_cuda12")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [plugin])
    assert devices.missing_plugin(machine, {}) is None


@pytest.mark.parametrize("by", ["device", "variable"])
def test_a_tpu_without_its_library_is_named(machine, monkeypatch, by):
    environ = {"TPU_WORKER_ID": "0"} if by == "variable" else {}
    if by == "device":
        (machine / "dev/accel0").touch()
    line = devices.missing_plugin(machine, environ)
    assert line.startswith(MISSING.format("a TPU")) and "pip install 'indep_jax[tpu]'" in line
    assert devices.missing_plugin(machine, environ | {"JAX_PLATFORMS": "cpu"}) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: types.ModuleType(name))
    assert devices.missing_plugin(machine, environ) is None


def test_the_line_takes_the_place_of_that_of_jax(monkeypatch, capsys, caplog):
    """JAX logs when it makes its backends, of this logger, that a GPU "may be present"."""
    jax.devices()
    logger = logging.getLogger(jax._src.xla_bridge.__name__)
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(devices, "missing_plugin", lambda: "there is a GPU")
    devices.warn_of_missing_plugin("indep_jax.train")
    assert capsys.readouterr().err == "indep_jax.train: there is a GPU\n"
    monkeypatch.setattr(jax._src.hardware_utils, "has_visible_nvidia_gpu", lambda: True)
    jax._src.xla_bridge._suggest_missing_backends()
    assert not caplog.records
    logger.warning("CUDA backend failed to initialize")
    assert len(caplog.records) == 1


def test_memory_is_that_of_arguments_results_and_temporaries():
    x = jnp.zeros((500, 500))  # 1 MB

    def needed(program, **options):
        return devices.memory(jax.jit(program, **options).lower(x).compile())

    assert needed(lambda x: x + 1) == "2.0 MB"
    assert needed(lambda x: x + 1, donate_argnums=0) == "1.0 MB"  # written in its place
    # x and its square; some sort in a copy.
    assert 2 <= float(needed(lambda x: jnp.sort(x @ x)[0]).removesuffix(" MB")) <= 4


def test_a_full_device_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as full:
        jnp.zeros(10**14).block_until_ready()
    assert devices.out_of_memory(full.value) == "Out of memory allocating 400000000000000 bytes"
    several = jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: no room.\nHere is a table\nof 9 lines"
    )
    assert devices.out_of_memory(several) == "no room"
    for other in (jax.errors.JaxRuntimeError("INTERNAL: x"), OSError("RESOURCE_EXHAUSTED: x")):
        assert devices.out_of_memory(other) is None
