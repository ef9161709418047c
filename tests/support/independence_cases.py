"""What the tests of the independence losses share: the losses compiled, rows, definitions."""

import functools
import math

import jax
import numpy as np

from indep_jax import independence


def compiled(function):
    """Jitted with little optimisation: these programs compile for longer than they run."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def jitted(loss):
    """The loss as one compiled program per set of options that are not arrays."""
    programs = {}

    def call(*args, **options):
        arrays = {name: value for name, value in options.items() if hasattr(value, "shape")}
        static = tuple((n, v) for n, v in options.items() if n not in arrays)
        if static not in programs:
            programs[static] = compiled(functools.partial(loss, **dict(static)))
        return programs[static](*args, **arrays)

    return call


covariance = jitted(independence.covariance)
dhsic = jitted(independence.dhsic)
permutation_mmd = jitted(independence.permutation_mmd)
BANDWIDTHS = np.array([[0.7, 1.5, 4.0], [3.0, 2.0, 9.0]])  # [components, codebooks]


def dependent_rows(seed=0, n=24, codebooks=3, dim=2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, codebooks, dim))
    x[:, 1:] = 0.6 * x[:, 1:] + 0.8 * x[:, :1] ** 2
    return x + 3.0  # off centre, as code vectors are


def kernel(u, v, a):
    return math.exp(-float(np.sum((u - v) ** 2)) / (2 * a))


def standardized(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0, ddof=1) + 1e-8)
