"""Pages and figures of results, made from plain arrays and numbers."""

from indep_jax.report import codec, dependence, figures, lm
from indep_jax.report.page import Report, with_interval

__all__ = ["Report", "codec", "dependence", "figures", "lm", "with_interval"]
