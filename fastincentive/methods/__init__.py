"""Ways to solve: each method is ``init`` and ``step`` over a small state, or a search."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastincentive.methods.bilevel_ascent import BilevelAscent
    from fastincentive.methods.regime_ascent import RegimeAscent

_WHERE = {"BilevelAscent": "bilevel_ascent", "RegimeAscent": "regime_ascent"}

__all__ = ["BilevelAscent", "RegimeAscent"]


def __getattr__(name: str) -> Any:
    """Load a method on first use: methods need modules that need pieces of this package."""
    if name not in _WHERE:
        raise AttributeError(f"module 'fastincentive.methods' has no attribute {name!r}")
    return getattr(import_module(f"fastincentive.methods.{_WHERE[name]}"), name)
