"""The devices that JAX computes on: which they are, which it leaves idle, and when they are full."""

from __future__ import annotations

import importlib.util
import logging
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jax

# Where JAX itself looks for an NVIDIA GPU; the last is Windows' Linux.
_NVIDIA = ("dev/nvidia0", "dev/nvidiactl", "dev/dxg")
_TPU = "dev/accel0"
_TPU_VARIABLES = ("TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID")  # set by Google's clusters


def missing_plugin(
    root: str | os.PathLike = "/", environ: Mapping[str, str] = os.environ
) -> str | None:
    """Return the line to show where there is an accelerator that JAX cannot use, or None.

    None as well where JAX_PLATFORMS chooses, or CUDA_VISIBLE_DEVICES hides every GPU. Does not
    import JAX.

    Args:
      root: the folder of dev/, for tests.
      environ: the environment variables.
    """
    if environ.get("JAX_PLATFORMS"):
        return None
    root = pathlib.Path(root)
    hidden = environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if not hidden and any((root / path).exists() for path in _NVIDIA) and not _has_cuda():
        found, extra = "an NVIDIA GPU", "cuda"
    elif ((root / _TPU).exists() or any(name in environ for name in _TPU_VARIABLES)) and (
        importlib.util.find_spec("libtpu") is None
    ):
        found, extra = "a TPU", "tpu"
    else:
        return None
    return (
        f"this machine has {found}, and JAX has no plugin for it: everything runs on the CPU. "
        f"Install the plugin with: pip install 'indep_jax[{extra}]' "
        "(JAX_PLATFORMS=cpu hides this line)"
    )


def warn_of_missing_plugin(command: str) -> None:
    """Print the line of `missing_plugin` on stderr, in place of JAX's own, which names no remedy."""
    if line := missing_plugin():
        print(f"{command}: {line}", file=sys.stderr)
        logging.getLogger("jax._src.xla_bridge").addFilter(
            lambda record: "may be present on this machine" not in record.getMessage()
        )


def _has_cuda() -> bool:
    import importlib.metadata  # here: most commands do not need it, and it takes its time

    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return any("cuda" in plugin.name for plugin in plugins)


def describe() -> str:
    """Return the devices and processes of this run in words: "8 x NVIDIA H200 (2 processes)"."""
    import jax

    devices, processes = jax.devices(), jax.process_count()
    kind = "CPU" if devices[0].platform == "cpu" else devices[0].device_kind
    return f"{len(devices)} x {kind} ({processes} process{'es' if processes > 1 else ''})"


def memory(compiled: jax.stages.Compiled) -> str | None:
    """Return how much memory a compiled program takes on each device, and of how much, in words.

    Its arguments, results and temporary arrays, what is donated counted once. None where the
    backend does not say; the device's own size is left out where it is not known, as on CPU.
    """
    import jax

    stats = compiled.memory_analysis()
    if stats is None:
        return None
    needed = (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        + stats.temp_size_in_bytes
        - stats.alias_size_in_bytes
    )
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    where = " on each device" if jax.device_count() > 1 else ""
    return _size(needed) + where + (f", of {_size(limit)} that JAX has there" if limit else "")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def out_of_memory(error: BaseException) -> str | None:
    """Return JAX's reason in one line where `error` says that a device's memory ran out, or None."""
    text = str(error)
    if type(error).__name__ != "JaxRuntimeError" or "RESOURCE_EXHAUSTED" not in text:
        return None
    reason = text.partition("RESOURCE_EXHAUSTED")[2].lstrip(": ").partition("\n")[0].strip()
    return reason[:200].rstrip(". ") or "no memory left"
