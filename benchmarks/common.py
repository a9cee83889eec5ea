"""The package's frozen cases, and how an older commit without some API is left out."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

try:
    from fastincentive.bench import cases
except ImportError:  # a commit before there were any
    cases = None  # type: ignore[assignment]

#: Names written out: asv reads parameters before it knows whether a commit has the cases.
PROBLEMS = ["paper", "random-2x50", "random-8x10"]


def needs(*things: Any) -> None:
    """Leave a benchmark out, as asv understands it, where something is missing."""
    if any(thing is None for thing in things):
        raise NotImplementedError


def moved(now: str, before: str) -> ModuleType:
    """Return a module of the package, where it is or where older commits have it."""
    try:
        return import_module(f"fastincentive.{now}")
    except ModuleNotFoundError:
        return import_module(f"fastincentive.{before}")


def method(thing: Any, name: str) -> Any:
    """Return a method, or leave the benchmark out."""
    found = getattr(thing, name, None)
    needs(found)
    return found
