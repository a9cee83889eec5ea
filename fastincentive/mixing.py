"""Mixing between tied actions: the leader's value is not linear in one follower's policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastincentive.kernels import simplex
from fastincentive.kernels.jit import TIE
from fastincentive.mdp import FloatArray
from fastincentive.problem import IncentiveProblem
from fastincentive.ties import unit_of_reward

__all__ = ["Mixing", "search_mixing"]


@dataclass(frozen=True)
class Mixing:
    """What the search over mixed best responses found.

    Attributes
    ----------
    searched : int
        Points at which some follower has tied actions in a state it visits.
    gain : float
        Best objective with mixing less the best without, >= 0. A local search: mixing may help
        more than this.
    payments : array (k,)
    policies : array (n, S, A)
        Best responses with the best objective found, mixed where that helped.
    objective : float
    """

    searched: int
    gain: float
    payments: FloatArray
    policies: FloatArray
    objective: float

    @property
    def helped(self) -> bool:
        """Whether mixing was better than every deterministic choice tried."""
        return self.gain > 0.0


def search_mixing(
    problem: IncentiveProblem,
    points: Sequence[tuple[FloatArray, FloatArray]],
    objective: float,
) -> Mixing:
    """Climb the leader's value over the mixtures of tied actions, from each point.

    Parameters
    ----------
    problem : IncentiveProblem
    points : sequence of (payments (k,), policies (n, S, A))
        Best responses; the first is the best without mixing.
    objective : float
        The objective of the first.
    """
    best = (objective, *points[0])
    searched = 0
    for payments, policies in points:
        tied = _tied(problem, payments, policies)
        if not (tied.sum(axis=2) > 1).any():
            continue
        searched += 1
        even = tied / tied.sum(axis=2, keepdims=True)
        # Half way between, mixtures are on both sides.
        for start in (policies, 0.5 * policies + 0.5 * even):
            value, mixed = _climb(problem, payments, tied, start)
            if value > best[0] + 1e-9 * max(1.0, abs(best[0])):
                best = (value, payments, mixed)
    return Mixing(searched, best[0] - objective, best[1], best[2], best[0])


def _tied(problem: IncentiveProblem, payments: FloatArray, policies: FloatArray) -> FloatArray:
    """(n, S, A) bool: optimal actions in states that tied actions can lead to, else the policy."""
    followers = problem.followers
    rewards = problem.rewards(payments)
    best = followers.best_responses(rewards)
    unit = unit_of_reward(problem, payments)
    tied = best.q_values >= best.q_values.max(axis=2, keepdims=True) - TIE * unit[:, None, None]
    tied |= policies > 0.0
    visits = followers.evaluate(rewards, tied / tied.sum(axis=2, keepdims=True)).visits
    return np.where((visits > 0.0)[:, :, None], tied, policies > 0.0)


def _climb(
    problem: IncentiveProblem, payments: FloatArray, tied: FloatArray, policies: FloatArray
) -> tuple[float, FloatArray]:
    """Projected gradient ascent with backtracking over the simplices of the tied actions."""
    which = np.arange(problem.n)
    held = policies
    leader = problem.leader_pass(held)
    value = leader.value
    step = 1.0
    for _ in range(60):
        assert leader.gradient is not None  # for the type checker
        slope = leader.gradient
        size = float(np.abs(np.where(tied, slope, 0.0)).max())
        if size == 0.0:
            break
        moved = False
        while step > 1e-8:
            trial = np.empty(held.shape)
            simplex.project_rows(held + step / size * slope, tied, which, trial)
            following = problem.leader_pass(trial)
            if following.value > value + 1e-12 * max(1.0, abs(value)):
                held, leader, value, moved = trial, following, following.value, True
                step *= 2.0
                break
            step *= 0.25
        if not moved:
            break
    cost = problem.cost_pass(payments, held, gradient=False).value
    return problem.net(value, cost), held
