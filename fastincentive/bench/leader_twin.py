"""The leader's value and gradient by the recursion over marginals, in plain NumPy and SciPy."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive.bench.cases import LeaderCase
from fastincentive.bench.certificates import pair_matrix, policy_matrix

__all__ = [
    "LeaderAnswer",
    "conditional_rewards",
    "joint_residual",
    "leader_error",
    "tail_horizon",
    "twin",
]


class LeaderAnswer(NamedTuple):
    """The leader's value and, unless left out, its derivative by the policies."""

    value: float
    gradient: FloatArray | None  # (n, S, A)


def tail_horizon(case: LeaderCase, tolerance: float) -> int:
    """Count the steps after which what is left is below this share of the largest reward."""
    gamma = case.problem.leader_discount
    return math.ceil(math.log(tolerance * (1.0 - gamma)) / math.log(gamma))


def conditional_rewards(table: FloatArray, laws: FloatArray) -> FloatArray:
    """E[R | s_i = s] (n, T, S) of a table (S,) * n at marginals (n, T, S), for two or three."""
    if len(laws) == 2:
        return np.stack([laws[1] @ table.T, laws[0] @ table])
    states = table.shape[0]
    pairwise = (laws[0] @ table.reshape(states, -1)).reshape(-1, states, states)
    last = (laws[2] @ table.reshape(-1, states).T).reshape(-1, states, states)
    return np.stack(
        [
            np.matmul(last, laws[1][:, :, None])[:, :, 0],
            np.matmul(pairwise, laws[2][:, :, None])[:, :, 0],
            np.matmul(laws[1][:, None, :], pairwise)[:, 0, :],
        ]
    )


def twin(case: LeaderCase, gradient: bool = True, horizon: int | None = None) -> LeaderAnswer:
    """Value and gradient; by default over so many steps that what is left is rounding."""
    problem, gamma = case.problem, case.problem.leader_discount
    horizon = tail_horizon(case, 1e-15) if horizon is None else horizon
    n, states, actions = case.policies.shape
    moves = [policy_matrix(problem.followers[i], case.policies[i]) for i in range(n)]
    laws = np.empty((n, horizon, states))
    for i in range(n):
        backward = moves[i].T.tocsr()
        laws[i, 0] = problem.followers[i].initial
        for t in range(1, horizon):
            laws[i, t] = backward @ laws[i, t - 1]
    earned = conditional_rewards(case.table, laws)
    weights = gamma ** np.arange(horizon)
    value = float(weights @ (laws[0] * earned[0]).sum(axis=1))
    if not gradient:
        return LeaderAnswer(value, None)
    slopes = np.zeros((n, states, actions))
    for i in range(n):
        pairs = pair_matrix(problem.followers[i])
        following = np.zeros(states)
        for t in reversed(range(horizon)):
            later = gamma * (pairs @ following).reshape(states, actions)
            slopes[i] += (weights[t] * laws[i, t])[:, None] * (earned[i, t][:, None] + later)
            following = earned[i, t] + gamma * (moves[i] @ following)
    return LeaderAnswer(value, slopes)


def leader_error(expected: LeaderAnswer, answer: LeaderAnswer) -> float:
    """Largest difference of value and gradient, relative to their largest magnitude, at least 1."""
    worst = abs(answer.value - expected.value) / max(1.0, abs(expected.value))
    if answer.gradient is not None and expected.gradient is not None:
        scale = max(1.0, np.abs(expected.gradient).max())
        worst = max(worst, np.abs(answer.gradient - expected.gradient).max() / scale)
    return float(worst)


def joint_residual(case: LeaderCase, values: FloatArray) -> float:
    """Sup norm of W - R - gamma (P_1 x ... x P_n) W, relative to the largest |W|, at least 1."""
    expected = values
    for i, policy in enumerate(case.policies):
        move = policy_matrix(case.problem.followers[i], policy)
        front = np.moveaxis(expected, i, 0)
        moved = (move @ front.reshape(front.shape[0], -1)).reshape(front.shape)
        expected = np.moveaxis(moved, 0, i)
    residual = values - case.table - case.problem.leader_discount * expected
    return float(np.abs(residual).max() / max(1.0, np.abs(values).max()))
