"""Progress bars, with the ``progress`` extra."""

from __future__ import annotations

from typing import Any

from fastincentive.errors import missing_extra

__all__ = ["progress_bar"]


def progress_bar(total: int, initial: int) -> Any:
    """Return a bar that stands at ``initial`` of ``total``.

    Raises
    ------
    MissingExtraError
        Without tqdm.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        raise missing_extra("tqdm", "progress") from None
    return tqdm(total=total, initial=initial, unit="it", leave=False, mininterval=0.2)
