"""The models of all followers as flat arrays: what kernels take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["CANCELLED", "DENSE_STATES", "TIE", "TINY_PIVOT", "Packed"]

#: Up to this many states a policy is evaluated by dense LU factors of I - gamma P, beyond by sweeps
#: or sparse factors.
DENSE_STATES = 400
#: Actions within this many units of reward (the size of values and rewards) of the best are tied.
TIE = 2e-11
#: Rewards and payments that cancel to less than this share of either add up to 0.
CANCELLED = 4e-15
#: A pivot of I - P below this belongs to a class of states that the policy never leaves.
TINY_PIVOT = 1e-12


class Packed(NamedTuple):
    """n followers with M distinct transition models of S states and A actions, as flat arrays.

    The transitions of all models are compressed sparse rows, one for each pair of state and action:
    row ``(model * S + s) * A + a`` spans ``row_start[row]:row_start[row + 1]`` of ``successor`` and
    ``probability``. Rows of unavailable actions are empty.

    Attributes
    ----------
    row_start : array (M*S*A + 1,) of int64
        Where each row begins; the last entry is nnz, the number of transitions of all models.
    successor : array (nnz,) of int32
        Numbers of states, in any order within a row; the same one may occur twice.
    probability : array (nnz,) of float64
        Positive; those of a row add up to 1.
    available : array (M, S, A) of bool
        At least one action in each state.
    absorbing : array (M, S) of bool
        States of closed classes of the graph of all available actions: no policy leaves them.
    sink : array (M, S) of bool
        States that no available action leaves: the closed classes of one state.
    model : array (n,) of int64
        Each follower's transition model, 0 to M - 1.
    discount : array (n,) of float64
        Each follower's discount, 0 to 1.
    initial : array (n, S) of float64
        Each follower's law of the first state.
    """

    row_start: np.ndarray
    successor: np.ndarray
    probability: np.ndarray
    available: np.ndarray
    absorbing: np.ndarray
    sink: np.ndarray
    model: np.ndarray
    discount: np.ndarray
    initial: np.ndarray
