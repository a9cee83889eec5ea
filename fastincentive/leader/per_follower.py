"""Arrays that rewards are given: by state, by follower and state, or by action as well."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import as_integers
from fastincentive.errors import invalid

__all__ = ["as_labels", "per_follower", "place"]


def per_follower(
    argument: str, given: NDArray[Any], n: int, n_states: int, n_actions: int
) -> NDArray[Any]:
    """Spread an array (S,), (n, S) or (n, S, A) to (n, S, 1) or (n, S, A), or raise."""
    spread = np.broadcast_to(given, (n, *given.shape)) if given.ndim == 1 else given
    width = spread.shape[2] if spread.ndim == 3 else 1
    if spread.shape[:2] != (n, n_states) or width not in (1, n_actions):
        raise invalid(
            argument,
            f"shape ({n_states},), ({n}, {n_states}) or ({n}, {n_states}, {n_actions})",
            given.shape,
        )
    return spread.reshape(n, n_states, width)


def as_labels(argument: str, given: object) -> NDArray[np.int64]:
    """Return labels (S,), (n, S) or (n, S, A) as a new array of integers, or raise."""
    expected = "integers of shape (S,), (n, S) or (n, S, A)"
    labels = as_integers(argument, given, expected)
    if labels.ndim not in (1, 2, 3):
        raise invalid(argument, expected, f"{labels.dtype} {labels.shape}")
    return labels


def place(index: tuple[int, ...]) -> str:
    """Name the entry of an array (S,), (n, S) or (n, S, A)."""
    names = ("state",) if len(index) == 1 else ("follower", "state", "action")
    return ", ".join(f"{name} {k}" for name, k in zip(names, index, strict=False))
