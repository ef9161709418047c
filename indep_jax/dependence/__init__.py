"""How dependent a tokenizer's codebooks are, estimated from codes on the host.

`measure_codes` measures all of it; the estimators are in mutual_information, total_correlation and
permutation_test.
"""

from indep_jax.dependence.measure import Dependence, measure_codes, record

__all__ = ["Dependence", "measure_codes", "record"]
