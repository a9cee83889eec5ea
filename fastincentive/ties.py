"""Best responses where several are optimal: ties broken for the leader, or against it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastincentive.errors import ImproperPolicyError
from fastincentive.kernels import bellman
from fastincentive.mdp import FloatArray
from fastincentive.problem import IncentiveProblem

__all__ = ["TIE", "break_ties", "is_proper", "unit_of_reward"]

#: Actions within this many units of reward of the best count as tied.
TIE = 2e-11
#: Tied choices are enumerated up to this many combinations, and searched locally beyond.
ENUMERATED = 256


def break_ties(
    problem: IncentiveProblem,
    payments: FloatArray,
    sign: float,
    start: FloatArray | None = None,
    budget: int = 2000,
) -> FloatArray:
    """Return best responses (n, S, A) that are best (sign +1) or worst (-1) for the leader.

    Among the optimal actions of every visited state, all combinations are tried when there are few
    (exact over deterministic policies); else followers' choices are changed one state at a time,
    guided by the leader's gradient, until no change helps or ``budget`` evaluations are spent.
    ``start`` is kept if it is a best response and nothing deterministic does better.
    """
    followers = problem.followers
    rewards = problem.rewards(payments)
    best = followers.best_responses(rewards)
    unit = unit_of_reward(problem, payments)
    tied = best.q_values >= best.q_values.max(axis=2, keepdims=True) - TIE * unit[:, None, None]
    held = np.empty(followers.shape)
    first = np.eye(followers.n_actions)[best.actions] if start is None else start
    bellman.near_greedy_policies(
        best.q_values, best.q_values.max(axis=2), TIE * unit, np.where(tied, first, 0.0), held
    )
    best_start = followers.start_values(best.values)

    def worth(candidate: FloatArray) -> float:
        """Leader's value in the wanted sense, -inf if the candidate is no best response."""
        try:
            values = followers.start_values(followers.evaluate(rewards, candidate).values)
        except ImproperPolicyError:
            return -np.inf
        if (best_start - values > 20.0 * TIE * unit).any():
            return -np.inf
        return sign * problem.leader_pass(candidate, gradient=False).value

    choices = _choices(problem, rewards, tied)
    current = worth(held)
    if current == -np.inf:
        held = np.eye(followers.n_actions)[best.actions]
        current = worth(held)
    if not choices:
        return held
    combinations = np.prod([float(len(actions)) for _, _, actions in choices])
    if combinations <= ENUMERATED:
        origin = held
        for pick in itertools.product(*[actions for _, _, actions in choices]):
            trial = origin.copy()
            for (i, s, _), a in zip(choices, pick, strict=True):
                trial[i, s] = 0.0
                trial[i, s, a] = 1.0
            value = worth(trial)
            if value > current + 1e-13 * max(1.0, abs(current)):
                held, current = trial, value
        return held
    return _search_ties(problem, choices, held, current, worth, sign, budget)


def _choices(
    problem: IncentiveProblem, rewards: FloatArray, tied: NDArray[np.bool_]
) -> list[tuple[int, int, list[int]]]:
    """Return (follower, state, actions): visited states with several different optimal actions."""
    followers = problem.followers
    count = tied.sum(axis=2)
    if (count == 1).all():
        return []
    visits = followers.evaluate(rewards, tied / count[:, :, None]).visits
    labels = problem.leader.labels
    found = []
    for i, s in np.argwhere((count > 1) & (visits > 0)):
        model = followers[int(i)].transition
        seen: dict[tuple[bytes, bytes, int], int] = {}
        for a in np.flatnonzero(tied[i, s]):
            row = s * followers.n_actions + a
            span = slice(model.row_start[row], model.row_start[row + 1])
            order = np.argsort(model.successor[span], kind="stable")
            label = int(labels[i, s, a]) if labels.shape[2] > 1 else 0
            key = (
                model.successor[span][order].tobytes(),
                np.round(model.probability[span][order], 14).tobytes(),
                label,
            )
            seen.setdefault(key, int(a))
        if len(seen) > 1:
            found.append((int(i), int(s), list(seen.values())))
    return found


def _search_ties(
    problem: IncentiveProblem,
    choices: list[tuple[int, int, list[int]]],
    held: FloatArray,
    current: float,
    worth: Callable[[FloatArray], float],
    sign: float,
    budget: int,
) -> FloatArray:
    """Local search over tied choices, in the order in which the leader's gradient ranks them."""
    spent = 0
    while spent < budget:
        slope = problem.leader_pass(held).gradient
        assert slope is not None  # for the type checker
        gains = []
        every = held.copy()
        for i, s, actions in choices:
            here = float(held[i, s] @ slope[i, s])
            top = max(actions, key=lambda a: sign * slope[i, s, a])
            every[i, s] = 0.0
            every[i, s, top] = 1.0
            gains += [(sign * slope[i, s, a] - sign * here, i, s, a) for a in actions]
        spent += 1
        value = worth(every)
        if value > current + 1e-13 * max(1.0, abs(current)):
            held, current = every, value
            continue
        improved = False
        for _, i, s, a in sorted(gains, reverse=True):
            if held[i, s, a] == 1.0 or spent >= budget:
                continue
            trial = held.copy()
            trial[i, s] = 0.0
            trial[i, s, a] = 1.0
            spent += 1
            value = worth(trial)
            if value > current + 1e-13 * max(1.0, abs(current)):
                held, current, improved = trial, value, True
                break
        if not improved:
            break
    return held


def unit_of_reward(problem: IncentiveProblem, payments: FloatArray) -> FloatArray:
    """Each follower's unit of reward (n,): the size of its values and rewards, at least 1e-9."""
    best = problem.followers.best_responses(problem.rewards(payments))
    finite = np.where(np.isfinite(best.q_values), np.abs(best.q_values), 0.0)
    return np.maximum(finite.max(axis=(1, 2)), 1e-9)


def is_proper(problem: IncentiveProblem, policies: FloatArray) -> bool:
    """Whether followers with discount 1 are absorbed under these policies (n, S, A)."""
    try:
        problem.followers.evaluate(problem.followers.rewards, policies)
    except ImproperPolicyError:
        return False
    return True
