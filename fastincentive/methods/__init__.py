"""Ways to solve: each method is ``init`` and ``step`` over a small state."""

from fastincentive.methods.bilevel_ascent import BilevelAscent

__all__ = ["BilevelAscent"]
