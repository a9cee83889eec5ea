"""What followers are asked: shapes and ranges are checked before a kernel sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import (
    FloatArray,
    as_floats,
    as_given,
    as_integers,
    as_numbers,
    check_finite,
    check_shape,
    looks_finite,
)
from fastincentive._checks import number
from fastincentive.errors import invalid
from fastincentive.kernels.packed import Packed

__all__ = [
    "MEANING",
    "check_actions",
    "check_answer",
    "check_mask",
    "check_policies",
    "check_rewards",
    "check_tolerance",
]

MEANING = "(followers, states, actions)"


def check_tolerance(tolerance: float) -> float:
    """Return a tolerance, a finite number >= 0, or raise."""
    found = number("tolerance", tolerance)
    if not 0.0 <= found < np.inf:
        raise invalid("tolerance", "a finite number >= 0", found)
    return found


def check_actions(
    argument: str, actions: ArrayLike, n_actions: int, least: int = 0
) -> NDArray[np.int64]:
    """Return numbers of actions from ``least`` on, or raise naming the first that is none."""
    found = as_integers(argument, actions, "numbers of actions")
    if found.size and not least <= found.min() <= found.max() < n_actions:
        where = tuple(np.argwhere((found < least) | (found >= n_actions))[0].tolist())
        expected = f"actions in {least}..{n_actions - 1}"
        raise invalid(argument, expected, int(found[where]), f"index {where}")
    return found


def check_rewards(rewards: FloatArray, shape: tuple[int, int, int], packed: Packed) -> FloatArray:
    """Return rewards (n, S, A) as kernels take them, or raise; at unavailable actions any do."""
    given = as_given("rewards", rewards, shape, MEANING)
    if not looks_finite(given):
        available = packed.available[packed.model]
        check_finite("rewards", np.where(available, given, 0.0))
    return given


def check_policies(
    policies: object, available: NDArray[np.bool_], argument: str = "policies", single: bool = False
) -> FloatArray:
    """Return policies as an array like ``available`` (n, S, A), or raise at the first bad entry.

    ``single`` lets float32 policies stay so; else their rows are rescaled.
    """
    given = as_numbers(argument, policies)
    short = given.dtype == np.float32
    kept = single and short
    value = np.array(given, np.float32 if kept else float, order="C")
    slack = 1e-6 if short else 1e-9
    check_shape(argument, value, available.shape, MEANING)
    bad = ~(value >= 0) | ((value > 0) & ~available)
    if bad.any():
        i, s, a = (int(k) for k in np.argwhere(bad)[0])
        raise invalid(
            argument,
            "probabilities >= 0, and 0 for unavailable actions",
            value[i, s, a],
            f"follower {i}, state {s}, action {a}",
        )
    total = value.sum(axis=2)
    bad_rows = np.abs(total - 1.0) > slack
    if bad_rows.any():
        i, s = (int(k) for k in np.argwhere(bad_rows)[0])
        raise invalid(
            argument,
            f"rows that sum to 1 (within {slack:.0e})",
            total[i, s],
            f"follower {i}, state {s}",
        )
    if short and not kept:
        value /= total[:, :, None]
    return value


def check_mask(
    argument: str, mask: NDArray[np.bool_], shape: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """Return a mask (n, S, A) of bools, or raise."""
    found = np.ascontiguousarray(as_numbers(argument, mask))
    if found.dtype != np.bool_:
        raise invalid(argument, f"bools of shape {shape}", f"{found.dtype} {found.shape}")
    check_shape(argument, found, shape, MEANING)
    return found


def check_answer(best: Any, shape: tuple[int, int, int]) -> tuple[NDArray[np.int64], FloatArray]:
    """Return copies of actions and values (n, S) that ``Followers.best_responses`` returned."""
    if not (hasattr(best, "actions") and hasattr(best, "values") and hasattr(best, "q_values")):
        raise invalid("best", "what best_responses returns", type(best).__name__)
    actions = check_actions("best.actions", best.actions, shape[2])
    values = as_floats("best.values", best.values)
    check_shape("best.actions", actions, shape[:2], "")
    check_shape("best.values", values, shape[:2], "")
    if as_given("best.q_values", best.q_values, shape) is not best.q_values:
        raise invalid("best.q_values", "an array of floats", type(best.q_values).__name__)
    return actions, values
