"""Errors of answers in plain NumPy and SciPy: no kernels of the package, no contender's code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fastincentive._arrays import FloatArray
from fastincentive.followers.mdp import TabularMDP

__all__ = [
    "bellman_residual",
    "evaluation_residual",
    "pair_matrix",
    "policy_matrix",
]


def pair_matrix(mdp: TabularMDP) -> csr_array:
    """P (S * A, S), row s * A + a; rows of unavailable pairs are empty."""
    model = mdp.transition
    states, actions = model.available.shape
    return csr_array(
        (model.probability, model.successor, model.row_start), shape=(states * actions, states)
    )


def policy_matrix(mdp: TabularMDP, policy: FloatArray, pairs: csr_array | None = None) -> csr_array:
    """P^pi (S, S)."""
    states, actions = policy.shape
    numbers = np.arange(states * actions)
    rows = np.arange(0, states * actions + 1, actions)
    choice = csr_array((policy.reshape(-1), numbers, rows), shape=(states, states * actions))
    return csr_array(choice @ (pair_matrix(mdp) if pairs is None else pairs))


def bellman_residual(
    mdp: TabularMDP,
    values: FloatArray,
    actions: NDArray[np.int64] | None = None,
    reward: FloatArray | None = None,
    pairs: csr_array | None = None,
) -> float:
    """Sup norm of V - max_a Q, or of V - Q(., actions) where that is larger; discount below 1."""
    reward = mdp.reward if reward is None else reward
    product = (pair_matrix(mdp) if pairs is None else pairs) @ np.asarray(values)
    q_values = reward + mdp.discount * product.reshape(reward.shape)
    q_values = np.where(mdp.available, q_values, -np.inf)
    worst = np.abs(q_values.max(axis=1) - values).max()
    if actions is not None:
        taken = np.take_along_axis(q_values, np.asarray(actions)[:, None], axis=1)[:, 0]
        worst = max(worst, np.abs(taken - values).max())
    return float(worst)


def evaluation_residual(
    mdp: TabularMDP,
    policy: FloatArray,
    values: FloatArray,
    visits: FloatArray,
    moves: csr_array | None = None,
) -> float:
    """Sup norm of what V and the unnormalised occupancy miss their equations by, discount < 1."""
    moves = policy_matrix(mdp, policy) if moves is None else moves
    reward = (policy * mdp.reward).sum(axis=1)
    first = reward + mdp.discount * (moves @ values) - values
    second = mdp.initial + mdp.discount * (moves.T @ visits) - visits
    return float(max(np.abs(first).max(), np.abs(second).max()))
