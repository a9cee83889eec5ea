"""Ways to solve: each method is ``init`` and ``step`` over a small state, or a search."""

from fastincentive.methods.bilevel_ascent import BilevelAscent
from fastincentive.methods.hyper_gradient import HyperGradient
from fastincentive.methods.regime_ascent import RegimeAscent

__all__ = ["BilevelAscent", "HyperGradient", "RegimeAscent"]
