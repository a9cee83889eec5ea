"""Incentive design in Markov decision processes.

A leader promises each of n independent followers non-negative side payments; each follower solves
its own tabular MDP; the leader's reward depends on the joint state of all of them. The public names
are listed in ``__init__.pyi``, and loaded on first use, so that importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def _listed() -> dict[str, str]:
    """Return where each public name of ``__init__.pyi`` lives."""
    where = {}
    for line in Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8").splitlines():
        match line.split():
            case ["from", module, "import", name, "as", _]:
                where[name] = module
    return where


_WHERE = _listed()
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    """Load a public name, or a wing that is public as a whole, on first use."""
    if name not in _WHERE:
        raise AttributeError(f"module 'fastincentive' has no attribute {name!r}")
    if _WHERE[name] == __name__:
        value = import_module(f"{__name__}.{name}")
    else:
        value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__"])
