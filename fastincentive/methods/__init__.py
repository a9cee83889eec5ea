"""Ways to solve: each method is ``init`` and ``step`` over a small state, or a search."""

from fastincentive.methods.bilevel_ascent import BilevelAscent
from fastincentive.methods.hyper_gradient import HyperGradient
from fastincentive.methods.regime_ascent import RegimeAscent
from fastincentive.methods.value_penalty import ValuePenalty
from fastincentive.methods.zeroth_order import ZerothOrder

__all__ = ["BilevelAscent", "HyperGradient", "RegimeAscent", "ValuePenalty", "ZerothOrder"]
