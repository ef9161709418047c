"""What a program does, counted before XLA, and the speeds at which this machine could do it."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from indep_jax import bench


class Cost(NamedTuple):
    """Of one call on each device: FLOPs of matmuls and convolutions, bytes that go in and out of
    the matmuls, exps, bytes sent to the next device of a ring."""

    flops: int
    matmul_bytes: int
    exps: int
    sent_bytes: int


def count(function: Callable, *shapes) -> Cost:
    """What a function does with arrays of these shapes, counted in its program before XLA.

    Loops count as often as they run, and what is within a shard_map for one device: so a mesh of
    devices that are not here (jax.sharding.AbstractMesh) can be counted too.
    """
    found = dict(flops=0, matmul_bytes=0, exps=0, sent_bytes=0)

    def walk(program, times):
        for step in program.eqns:
            if not step.outvars:
                continue
            name, out = step.primitive.name, step.outvars[0].aval
            if name == "dot_general":
                (contracted, _), _ = step.params["dimension_numbers"]
                inner = np.prod([step.invars[0].aval.shape[axis] for axis in contracted])
                found["flops"] += int(times * 2 * out.size * inner)
                found["matmul_bytes"] += times * sum(
                    var.aval.size * var.aval.dtype.itemsize for var in (*step.invars, *step.outvars)
                )
            elif name == "conv_general_dilated":
                kernel, axes = step.invars[1].aval, step.params["dimension_numbers"].rhs_spec
                inner = kernel.size // kernel.shape[axes[0]]  # taps and channels of one output
                found["flops"] += times * 2 * out.size * inner
            elif name == "exp":
                found["exps"] += times * out.size
            elif name == "ppermute":
                found["sent_bytes"] += times * sum(
                    var.aval.size * var.aval.dtype.itemsize for var in step.outvars
                )
            repeats = step.params["length"] if name == "scan" else 1
            for value in step.params.values():
                for part in value if isinstance(value, (tuple, list)) else (value,):
                    part = getattr(part, "jaxpr", part)
                    if hasattr(part, "eqns"):
                        walk(part, times * repeats)

    walk(jax.make_jaxpr(function)(*shapes).jaxpr, 1)
    return Cost(**found)


def speeds() -> tuple[float, float]:
    """(FLOP/s of a matmul, exps a second) of the machine."""
    size, times = 1024, 64
    x = jax.random.normal(jax.random.key(0), (size, size))
    functions = dict(
        matmul=jax.jit(lambda x: jax.lax.fori_loop(0, times, lambda _, y: x @ y / 32, x)),
        exp=jax.jit(lambda x: jax.lax.fori_loop(0, times, lambda _, y: jnp.exp(-y), x)),
    )
    found = bench.medians({name: functools.partial(f, x) for name, f in functions.items()}, 5)
    return (times * 2 * size**3 / found["matmul"].median, times * size**2 / found["exp"].median)
