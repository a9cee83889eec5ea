"""Ways to solve, one file a method; all are a ``base.Method``."""

from fastincentive.methods.base import Capabilities, Method, StepReport
from fastincentive.methods.bilevel_ascent import BilevelAscent
from fastincentive.methods.hyper_gradient import HyperGradient
from fastincentive.methods.regime_ascent import RegimeAscent
from fastincentive.methods.value_penalty import ValuePenalty
from fastincentive.methods.zeroth_order import ZerothOrder

__all__ = [
    "BilevelAscent",
    "Capabilities",
    "HyperGradient",
    "Method",
    "RegimeAscent",
    "StepReport",
    "ValuePenalty",
    "ZerothOrder",
]
