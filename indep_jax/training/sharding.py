"""The placement of arrays: one mesh with axes (data, fsdp, tensor), and rules for parameters.

All arrays are global arrays under `jax.jit`: batches are split over their rows, states are
replicated unless a rule splits them, and every mean over a batch is a global mean.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from indep_jax.support.errors import UserError

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")  # a batch's rows are split over both


def make_mesh(sizes: Mapping[str, int] | None = None) -> Mesh:
    """Return the mesh over all devices of all processes.

    Args:
      sizes: of the axes; 1 by default for fsdp and tensor, and for data the devices that they leave.
    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    sizes = dict(sizes or {})
    devices = jax.device_count()
    if unknown := set(sizes) - set(AXES):
        raise UserError(f"mesh: unknown axis {sorted(unknown)[0]!r}, expected {', '.join(AXES)}")
    others = sizes.get("fsdp", 1) * sizes.get("tensor", 1)
    shape = (sizes.get("data", devices // others), sizes.get("fsdp", 1), sizes.get("tensor", 1))
    if math.prod(shape) != devices:
        raise UserError(
            f"mesh: {' x '.join(map(str, shape))} (data x fsdp x tensor) "
            f"is not the number of devices, {devices}"
        )
    # The default axis types are Explicit, which would ask every operation for its sharding.
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def slice_of_rows(mesh: Mesh) -> tuple[int, int]:
    """Return the number of the slice of a batch's rows that this process reads, and their count.

    Processes whose devices hold the same rows, split along `tensor`, read the same slice. Raises
    UserError where two processes share only some of their rows.
    """
    held: dict[int, set[int]] = {}
    for row, devices in enumerate(mesh.devices.reshape(-1, mesh.shape["tensor"])):
        for device in devices:
            held.setdefault(device.process_index, set()).add(row)
    slices = sorted(set(map(frozenset, held.values())), key=min)
    if sum(map(len, slices)) != math.prod(mesh.shape[axis] for axis in ROWS):
        raise UserError(
            f"mesh: tensor {mesh.shape['tensor']} must divide the devices of a process, "
            "or be a multiple of them"
        )
    return slices.index(held[jax.process_index()]), len(slices)


def shard_batch(batch: Any, mesh: Mesh, *, axis: int = 0) -> Any:
    """Return global arrays made of each process's rows, split over the mesh.

    Args:
      batch: tree of numpy arrays, this process's slice of the global batch (see `slice_of_rows`);
        with one process the whole batch.
      mesh: from `make_mesh`.
      axis: the axis of the rows.
    Raises:
      UserError: the rows of the global batch do not divide evenly over the devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec(*(None,) * axis, ROWS))
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    _, slices = slice_of_rows(mesh)

    def place(x: np.ndarray) -> jax.Array:
        rows = x.shape[axis] * slices
        if rows % shards:
            raise UserError(f"batch_size: {rows} rows do not split over {shards} devices")
        return jax.make_array_from_process_local_data(sharding, x)

    return jax.tree.map(place, batch)


def placement(tree: Any, rules: Sequence[tuple[str, PartitionSpec]], mesh: Mesh) -> Any:
    """Return a NamedSharding for every leaf of `tree` (arrays or shapes).

    The first rule whose regular expression matches somewhere in the leaf's '/'-joined path applies,
    so "kernel$" places a kernel, its optimizer moments and its average alike. Leaves without a rule
    are replicated. Raises UserError where a rule does not fit the leaf's shape.
    """

    def place(path: tuple, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next((spec for pattern, spec in rules if re.search(pattern, name)), PartitionSpec())
        sharding = NamedSharding(mesh, spec)
        try:
            sharding.check_compatible_aval(leaf.shape)  # rank
            sharding.shard_shape(leaf.shape)  # divisibility
        except ValueError as error:
            raise UserError(
                f"placement: {spec} does not fit {name} of shape {tuple(leaf.shape)}"
            ) from error
        return sharding

    return jax.tree_util.tree_map_with_path(place, tree)


def put(tree: Any, shardings: Any) -> Any:
    """Return `tree` with the given shardings, every leaf in a buffer of its own.

    A donated state must not hold one buffer twice; the second occurrence of an array is copied.
    """
    seen: set[int] = set()

    def place(leaf: Any, sharding: NamedSharding) -> jax.Array:
        repeated = id(leaf) in seen
        seen.add(id(leaf))
        placed = jax.device_put(leaf, sharding)
        return placed.copy() if repeated else placed

    return jax.tree.map(place, tree, shardings)
