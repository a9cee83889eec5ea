"""Progress bars, with the ``progress`` extra."""

from __future__ import annotations

from typing import Any

from fastincentive.errors import missing_extra

__all__ = ["progress_bar"]


def progress_bar(total: int, initial: int = 0, form: str | None = None) -> Any:
    """Open a bar of ``total`` steps; ``form`` is its tqdm ``bar_format``, if not the usual one.

    Raises
    ------
    MissingExtraError
        If tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        raise missing_extra("tqdm", "progress") from None
    return tqdm(
        total=total, initial=initial, unit="it", leave=False, mininterval=0.2, bar_format=form
    )
