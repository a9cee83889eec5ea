"""Mixing between tied actions: the leader's value is not linear in one follower's policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.followers.policies import uniform_over
from fastincentive.kernels import simplex
from fastincentive.kernels.packed import TIE
from fastincentive.problem.problem import IncentiveProblem

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
    point: tuple[FloatArray, FloatArray],
    objective: float,
    others: Sequence[tuple[FloatArray, FloatArray]] = (),
) -> Mixing:
    """Climb the leader's value over the mixtures of tied actions, from each point.

    Parameters
    ----------
    problem : IncentiveProblem
    point : payments (k,) and policies (n, S, A)
        The best without mixing.
    objective : float
        Its objective.
    others : sequence of payments and policies
        Best responses at which mixtures are searched.
    """
    best = (objective, *point)
    searched = 0
    for payments, policies in others:
        tied = _tied(problem, payments, policies)
        if not (tied.sum(axis=2) > 1).any():
            continue
        searched += 1
        even = uniform_over(tied)
        # Half way between, mixtures are on both sides.
        for start in (policies, 0.5 * policies + 0.5 * even):
            mixed = _climb(problem, payments, tied, start)
            value = _value(problem, payments, mixed)
            if value > best[0] + 1e-9 * max(1.0, abs(best[0])):
                best = (value, payments, mixed)
    return Mixing(searched, best[0] - objective, best[1], best[2], best[0])


def _tied(
    problem: IncentiveProblem, payments: FloatArray, policies: FloatArray
) -> NDArray[np.bool_]:
    """(n, S, A) bool: optimal actions in states that tied actions can lead to, else the policy."""
    followers = problem.followers
    rewards = problem.rewards(payments)
    tied = problem.optimal_actions(payments, followers.best_responses(rewards)).tied
    tied |= policies > 0.0
    return np.where(followers.reached(tied)[:, :, None], tied, policies > 0.0)


def _climb(
    problem: IncentiveProblem, payments: FloatArray, tied: NDArray[np.bool_], policies: FloatArray
) -> FloatArray:
    """Projected gradient ascent with backtracking over the simplices of the tied actions."""
    which = np.arange(problem.n)
    current = policies
    value = _value(problem, payments, current)
    step = 1.0
    for _ in range(60):
        slope = problem.leader_pass(current).gradient
        assert slope is not None  # for the type checker
        paid = problem.cost_pass(payments, current).policies
        if paid is not None:
            slope = slope - problem.cost_weight * paid
        size = float(np.abs(np.where(tied, slope, 0.0)).max())
        if size == 0.0:
            break
        moved = False
        while step > 1e-8:
            trial = np.empty(current.shape)
            simplex.project_rows(current + step / size * slope, tied, which, trial)
            following = _value(problem, payments, trial)
            if following > value + 1e-12 * max(1.0, abs(following)):
                current, value, moved = trial, following, True
                step *= 2.0
                break
            step *= 0.25
        if not moved:
            break
    return current


def _value(problem: IncentiveProblem, payments: FloatArray, policies: FloatArray) -> float:
    """V - w C, -inf beyond the budget and for what is no best response in floating point.

    At discount 1 tied actions can make a follower wait for ever, or so long that its value is lost.
    """
    cost = problem.cost_pass(payments, policies, gradient=False).value
    rewards = problem.rewards(payments)
    if not (problem.affords(cost) and problem.followers.is_proper(policies, rewards)):
        return -np.inf
    best = problem.followers.best_responses(rewards)
    values = problem.followers.evaluate(rewards, policies, checked=True).values
    gap = problem.followers.start_values(best.values) - problem.followers.start_values(values)
    if (np.abs(gap) > 100.0 * TIE * problem.followers.units(best)).any():
        return -np.inf
    return problem.net(problem.leader_pass(policies, gradient=False).value, cost)
