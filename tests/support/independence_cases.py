"""What the tests of the independence losses share: the losses compiled, rows, definitions."""

import functools
import math

import jax
import numpy as np

from indep_jax import independence
from indep_jax.configs import encodec_32khz


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
# Source files of the 24 of `dependent_rows`.
SEGMENTS = np.array([0, 0, 0, 5, 5, 1, 1, 1, 1, 2, 7, 7, 7, 0, 3, 3, 3, 3, 3, 4, 4, 6, 6, 2])


def section(**changes):
    """A config's section loss.independence, complete."""
    return encodec_32khz.get_config().loss.independence.to_dict() | changes


def dependent_rows(seed=0, n=24, codebooks=3, dim=2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, codebooks, dim))
    x[:, 1:] = 0.6 * x[:, 1:] + 0.8 * x[:, :1] ** 2
    return x + 3.0  # off centre, as code vectors are


def kernel(u, v, a):
    return math.exp(-float(np.sum((u - v) ** 2)) / (2 * a))


def standardized(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0, ddof=1) + 1e-8)
