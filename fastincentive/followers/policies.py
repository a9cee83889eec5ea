"""The plainest policies: one action for certain, or every allowed one alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.kernels.packed import CANCELLED

__all__ = ["deterministic_policies", "net_rewards", "uniform_over"]


def deterministic_policies(actions: NDArray[np.int64], n_actions: int) -> FloatArray:
    """Policies (..., S, A) that take these actions (..., S) for certain."""
    policies = np.zeros((actions.size, n_actions))
    policies[np.arange(actions.size), actions.reshape(-1)] = 1.0
    return policies.reshape(*actions.shape, n_actions)


def net_rewards(own: FloatArray, paid: FloatArray) -> FloatArray:
    """Add rewards and payments up, to 0 where they cancel up to rounding.

    At discount 1 it matters whether a loop earns nothing or next to nothing.
    """
    total = np.asarray(own + paid)
    total[np.abs(total) <= CANCELLED * (np.abs(own) + np.abs(paid))] = 0.0
    return total


def uniform_over(allowed: NDArray[np.bool_]) -> FloatArray:
    """Rows (..., A) that are uniform over what is allowed there (..., A), 0 elsewhere."""
    return np.asarray(allowed / allowed.sum(axis=-1, keepdims=True))
