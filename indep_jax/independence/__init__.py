"""How dependent the codebooks of a tokenizer are: losses to train on, estimates to report."""

from indep_jax.independence.covariance import covariance
from indep_jax.independence.dhsic import dhsic
from indep_jax.independence.mmd import permutation_mmd
from indep_jax.independence.ring import ring
from indep_jax.independence.streams import align, condition, delays, rows, standardize

__all__ = [
    "align",
    "condition",
    "covariance",
    "delays",
    "dhsic",
    "permutation_mmd",
    "ring",
    "rows",
    "standardize",
]
