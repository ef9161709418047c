"""Rows sharded over devices: the ring's values and gradients are those of one device."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from indep_jax import independence

# 192 rows split evenly over 1, 2, 4 and 8 devices; 37 do not, and are padded with up to 3.
STREAMS = dict(even=(8, 24, 3, 4), uneven=(37, 1, 3, 4))
DEVICES = (1, 2, 4, 8)


def cases(pairs, block):
    """Losses by name, of (weights [dim, dim], streams, files)."""
    shared = dict(pairs=pairs, block=block)

    def dhsic(w, x, files):
        return independence.dhsic(x @ w, segments=files, **shared)

    def two_codebooks(w, x, files):
        return independence.dhsic(x @ w, bandwidths="paper", active=2, **shared)

    def permutation(w, x, files):
        x = independence.align(x @ w, "parallel")
        return independence.permutation_mmd(jax.random.key(3), x, segments=files, **shared)

    return dict(dhsic=dhsic, two_codebooks=two_codebooks, permutation=permutation)


def inputs(name):
    rng = np.random.default_rng(1)
    x = rng.normal(size=STREAMS[name])
    x[:, :, 1:] += x[:, :, :1]
    return np.eye(4) + 0.1 * rng.normal(size=(4, 4)), x, np.arange(len(x)) // 2


def results(pairs, block, place, compiled=lambda name, program: None):
    """Values and gradients, by the weights and by the streams, of all cases and inputs."""
    found = {}
    for shape in STREAMS:
        w, x, files = inputs(shape)
        for name, loss in cases(pairs, block).items():
            program = (
                jax.jit(
                    jax.value_and_grad(loss, argnums=(0, 1)),
                    compiler_options={"xla_backend_optimization_level": 0},
                )
                .lower(jnp.asarray(w), *place(x, files))
                .compile()
            )
            compiled(f"{shape}/{name}", program)
            value, (dw, dx) = program(jnp.asarray(w), *place(x, files))
            found |= {
                f"{shape}/{name}/{part}": np.asarray(array)
                for part, array in dict(value=value, dw=dw, dx=dx).items()
            }
    return found


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """{what: arrays} of a process each: dense, in blocks, and the ring on some devices."""
    folder = tmp_path_factory.mktemp("ring")
    for devices in DEVICES:
        subprocess.run(
            [sys.executable, __file__, str(folder), str(devices)],
            check=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
    found = {}
    for path in folder.glob("*.npz"):
        with np.load(path) as arrays:
            found[path.stem] = dict(arrays)
    return found, json.loads((folder / "collectives.json").read_text())


@pytest.mark.parametrize("what", ["blocks", *(f"ring{devices}" for devices in DEVICES)])
def test_ring_blocks_and_dense_are_one_number(computed, what):
    arrays, _ = computed
    assert len(arrays["dense"]) == 2 * 3 * 3
    for name, expected in arrays["dense"].items():
        assert np.abs(expected).max() > 1e-4, name
        np.testing.assert_allclose(
            arrays[what][name], expected, rtol=1e-9, atol=1e-13, err_msg=f"{what} {name}"
        )


def test_rows_visit_and_are_not_gathered(computed):
    _, collectives = computed
    assert len(collectives) == 3
    for name, (permutes, gathered) in collectives.items():
        assert permutes >= 4, name  # forward, home, backward, home
        # All rows would be 192 * 3 * 4 numbers. The median of the bandwidths is that of 128 rows.
        assert max(gathered, default=0) <= 128 * 3 * 4, (name, gathered)


def _child():
    folder, devices = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_enable_x64", True)
    assert jax.device_count() == devices
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    collectives = {}

    def place(*arrays):
        even = len(arrays[0]) % devices == 0
        return [jax.device_put(x, split) if even else jnp.asarray(x) for x in arrays]

    def look(name, program):
        text = program.as_text()
        if name.startswith("even"):
            collectives[name] = text.count(" collective-permute("), _gathered(text)

    if devices == 1:
        local = lambda *arrays: [jnp.asarray(x) for x in arrays]
        np.savez(folder / "dense.npz", **results(None, 1024, local))
        np.savez(folder / "blocks.npz", **results(None, 31, local))
    found = results(independence.ring(mesh, "data"), 10, place, look)
    np.savez(folder / f"ring{devices}.npz", **found)
    (folder / "collectives.json").write_text(json.dumps(collectives))  # the last: of 8 devices


def _gathered(text):
    """How many numbers each all-gather of a compiled program brings together."""
    shapes = re.findall(r"= \w+\[([\d,]*)\][^=]* all-gather(?:-start)?\(", text)
    return [int(np.prod([int(size) for size in shape.split(",") if size])) for shape in shapes]


if __name__ == "__main__":
    _child()
