"""Bring a problem into the plain arrays that the reference functions take."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastincentive.problem.problem import IncentiveProblem


def label_table(problem: IncentiveProblem) -> np.ndarray:
    """Reward over the followers' joint labels (L,)*n: what it expects of certain labels."""
    n, count = problem.n, problem.leader.n_labels
    joint = np.indices((count,) * n).reshape(n, -1).T
    rewards, _ = problem.leader.expectations(np.eye(count)[joint])
    return rewards.reshape((count,) * n)


def leader_table(problem: IncentiveProblem) -> np.ndarray:
    """Reward over joint states (S,)*n of a problem whose leader sees states only."""
    states = problem.followers.n_states
    labels = problem.leader.labels[:, :, 0]
    table = label_table(problem)
    return table[np.ix_(*labels)].reshape((states,) * problem.n)


def plain(problem: IncentiveProblem) -> dict[str, Any]:
    """The follower arguments of the reference functions."""
    followers = problem.followers
    return {
        "transitions": [mdp.dense_transition() for mdp in followers],
        "rewards": [mdp.reward for mdp in followers],
        "discounts": [mdp.discount for mdp in followers],
        "initials": [mdp.initial for mdp in followers],
        "available": [mdp.available for mdp in followers],
        "absorbing": [mdp.transition.absorbing for mdp in followers],
        "leader_table": leader_table(problem),
        "leader_discount": problem.leader_discount,
        "cost_weight": problem.cost_weight,
        "index": problem.payments.index,
    }


def iteration_arguments(problem: IncentiveProblem, method: Any, state: Any) -> dict[str, Any]:
    """The arguments of ``reference.ascent_iteration`` at a state of ``BilevelAscent``."""
    held = [np.flatnonzero(row) for row in state.planes.active]
    width = [(row >= 0).sum() for row in problem.payments.reach]
    return plain(problem) | {
        "payments": state.payments,
        "policies": list(state.theta),
        "pieces": [
            [(state.planes.constant[i, j], state.planes.slope[i, j, : width[i]]) for j in js]
            for i, js in enumerate(held)
        ],
        "multipliers": [state.multipliers[i, js] for i, js in enumerate(held)],
        "units": state.unit,
        "step": method.step * state.controller.factor,
        "payment_step": method.payment_step * state.controller.factor,
        "closing": min(method.eta * method.step, 0.5),
        "sweeps": 3,
    }
