"""The compile flags, in one place, and the packed arrays that every kernel reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np

__all__ = ["DENSE_STATES", "TINY_PIVOT", "Packed", "jit", "parallel_jit"]

#: Up to this many states a policy is evaluated by LU factors of I - gamma P, beyond by sweeps.
DENSE_STATES = 400
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


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile once, cache on disk; division by zero gives inf as in NumPy; no fast math."""
    return numba.njit(cache=True, error_model="numpy", nogil=True)(function)


def parallel_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """As ``jit``, with ``prange`` over independent outputs (never a reduction over threads)."""
    return numba.njit(cache=True, error_model="numpy", nogil=True, parallel=True)(function)
