"""What the command line knows of where it runs."""

from __future__ import annotations

import sys

__all__ = ["installed", "on_terminal"]


def on_terminal() -> bool:
    """Whether somebody watches stderr."""
    return sys.stderr is not None and sys.stderr.isatty()


def installed(name: str) -> bool:
    """Whether a package is installed."""
    from importlib.util import find_spec

    return find_spec(name) is not None
