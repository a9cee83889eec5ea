"""The plainest policies: one action for certain, or every allowed one alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray

__all__ = ["deterministic_policies", "uniform_over"]


def deterministic_policies(actions: NDArray[np.int64], n_actions: int) -> FloatArray:
    """Policies (..., S, A) that take these actions (..., S) for certain."""
    policies = np.zeros((actions.size, n_actions))
    policies[np.arange(actions.size), actions.reshape(-1)] = 1.0
    return policies.reshape(*actions.shape, n_actions)


def uniform_over(allowed: NDArray[np.bool_]) -> FloatArray:
    """Rows (..., A) that are uniform over what is allowed there (..., A), 0 elsewhere."""
    return np.asarray(allowed / allowed.sum(axis=-1, keepdims=True))
