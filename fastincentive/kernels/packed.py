"""The models of all followers as flat arrays: what kernels take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["DENSE_STATES", "TIE", "TINY_PIVOT", "Packed"]

#: Up to this many states a policy is evaluated by dense LU factors of I - gamma P, beyond by sweeps
#: or sparse factors.
DENSE_STATES = 400
#: Actions within this many units of reward (the size of values and rewards) of the best are tied.
TIE = 2e-11
#: A pivot of I - P below this belongs to a class of states that the policy never leaves.
TINY_PIVOT = 1e-12


class Packed(NamedTuple):
    """n followers with M distinct transition models, as flat arrays.

    Row ``(model * S + s) * A + a`` of the transition lists spans
    ``row_start[row]:row_start[row + 1]`` of ``successor`` and ``probability``.
    """

    row_start: np.ndarray  # (M*S*A + 1,) int64
    successor: np.ndarray  # (nnz,) int32, state numbers
    probability: np.ndarray  # (nnz,) float64
    available: np.ndarray  # (M, S, A) bool
    absorbing: np.ndarray  # (M, S) bool, union of the closed classes of the graph of all actions
    sink: np.ndarray  # (M, S) bool, states that no available action leaves
    model: np.ndarray  # (n,) int64
    discount: np.ndarray  # (n,) float64
    initial: np.ndarray  # (n, S) float64
