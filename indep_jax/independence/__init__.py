"""Differentiable losses that push the codebooks of a tokenizer towards independence.

The losses are functions of arrays; loss.py knows them all by the name that a config gives. Their
files are not called like their functions, so that `from indep_jax.independence import dhsic` is the
function, whatever was imported before.
"""

from indep_jax.independence.cross_covariance import covariance
from indep_jax.independence.hsic import dhsic
from indep_jax.independence.permutation import permutation_mmd
from indep_jax.independence.ring_pairs import ring
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
