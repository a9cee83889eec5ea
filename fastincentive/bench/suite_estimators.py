"""Estimated gradients: certified to have no bias over random problems, and how fast they are."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fastincentive import models
from fastincentive._arrays import FloatArray
from fastincentive.bench.case import Case
from fastincentive.bench.timing import Contender, Trial
from fastincentive.followers.mdp import TabularMDP
from fastincentive.followers.parameterization import Direct, Parameterization, Softmax
from fastincentive.followers.single import uniform_policies
from fastincentive.leader.tables import JointReward
from fastincentive.problem.payments import Payments
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.problem.sampled_gradients import GradientEstimate, Reinforce, centred
from fastincentive.studies.audit import FORMS, WITHIN

__all__ = ["estimator_cases"]

#: Profile -> random problems, and trajectories of each estimate.
SIZES = {"smoke": (10, 20_000), "regular": (20, 200_000)}
#: Share of the entries that may lie outside.
OUTSIDE = 0.005
HOW: dict[str, Parameterization] = {"direct": Direct(), "softmax": Softmax(0.5)}


class _Question(NamedTuple):
    problem: IncentiveProblem
    policies: FloatArray
    exact: FloatArray


def estimator_cases() -> list[Case]:
    """Every form, for direct policies and softmax, at leader discount 0.9 and 1; and the rate."""
    found = [Case("joint steps, paper grid", "smoke", _rate)]
    for profile in SIZES:
        for how in HOW:
            for discount in (0.9, 1.0):
                for form in FORMS:
                    name = f"{how}, discount {discount:g}, {form}, {SIZES[profile][1]}"
                    run = partial(_unbiased, form, how, discount, *SIZES[profile])
                    found.append(Case(name, profile, run))
    return found


def _unbiased(form: str, how: str, discount: float, problems: int, trajectories: int) -> Trial:
    """Share of the entries more than four standard errors off, over all problems."""
    questions = [_random(seed, discount, HOW[how]) for seed in range(problems)]
    estimator = replace(FORMS[form], trajectories=trajectories)

    def run(estimator: Reinforce = estimator) -> list[GradientEstimate]:
        return [
            replace(estimator, rng=seed).estimate(each.problem, each.policies, HOW[how])[0]
            for seed, each in enumerate(questions)
        ]

    plain = _variances(run(replace(FORMS["total return"], trajectories=trajectories)))

    def outside(found: list[GradientEstimate]) -> float:
        off = [
            (np.abs(estimate.gradient - each.exact) > WITHIN * estimate.standard_error + 1e-12)
            for estimate, each in zip(found, questions, strict=True)
        ]
        return float(np.concatenate([each.ravel() for each in off]).mean())

    def facts(found: list[GradientEstimate]) -> dict[str, Any]:
        ratio = np.exp(np.mean(np.log(_variances(found) / plain)))
        return {"variance ratio": float(ratio), "joint steps": sum(each.steps for each in found)}

    return Trial([Contender("fastincentive", run)], outside, OUTSIDE, facts=facts)


def _variances(found: list[GradientEstimate]) -> FloatArray:
    return np.array([float((each.standard_error**2).sum()) for each in found])


def _random(seed: int, discount: float, how: Parameterization) -> _Question:
    """One to three followers, absorbed after some five steps; the oracle is on joint states."""
    rng = np.random.default_rng([seed, 7])
    n, states, actions = 1 + seed % 3, 4, 3
    mdps = []
    for _ in range(n):
        transition = 0.8 * rng.dirichlet(np.ones(states), size=(states, actions))
        transition[:, :, -1] += 0.2
        transition[-1] = np.eye(states)[-1]
        mdps.append(TabularMDP(transition, np.zeros((states, actions)), discount=0.9, initial=0))
    table = rng.normal(size=(states,) * n)
    table.flat[-1] = 0.0
    problem = IncentiveProblem(
        mdps, JointReward(table), Payments.at_states([[0]] * n), leader_discount=discount
    )
    policies = rng.dirichlet(np.ones(actions), size=(n, states))
    exact = _exact(problem, table, policies)
    available = np.ones(policies.shape, bool)
    if isinstance(how, Softmax):
        return _Question(problem, policies, how.gradient(exact, policies))
    return _Question(problem, policies, centred(exact, available))


def _exact(problem: IncentiveProblem, table: FloatArray, policies: FloatArray) -> FloatArray:
    """dV/dpi (n,S,A) from one linear solve on the joint states, which no kernel has to do with."""
    n, states, actions = policies.shape
    moves = [mdp.dense_transition() for mdp in problem.followers]
    each = [np.einsum("sa,sat->st", pi, move) for pi, move in zip(policies, moves, strict=True)]
    joint = np.ones((1, 1))
    start = np.ones(1)
    for i, chain in enumerate(each):
        joint = np.kron(joint, chain)
        start = np.kron(start, problem.followers.packed.initial[i])
    keep = np.arange(joint.shape[0]) < joint.shape[0] - 1  # all but the one that absorbs all
    matrix = np.eye(keep.sum()) - problem.leader_discount * joint[np.ix_(keep, keep)]
    values, visits = np.zeros(keep.size), np.zeros(keep.size)
    values[keep] = np.linalg.solve(matrix, table.reshape(-1)[keep])
    visits[keep] = np.linalg.solve(matrix.T, start[keep])
    joint_values, where = values.reshape(table.shape), visits.reshape(table.shape)
    found = np.empty((n, states, actions))
    for i in range(n):
        following = joint_values
        for j in range(n):
            if j != i:  # the others move by their policies
                following = np.moveaxis(np.tensordot(each[j], following, axes=(1, j)), 0, j)
        weight = np.moveaxis(where, i, 0).reshape(states, -1)
        after = np.moveaxis(following, i, 0).reshape(states, -1)
        found[i] = problem.leader_discount * np.einsum("sat,sk,tk->sa", moves[i], weight, after)
        found[i] += (weight * np.moveaxis(table, i, 0).reshape(states, -1)).sum(axis=1)[:, None]
    return found


def _rate() -> Trial:
    """Sample and score two followers on the paper's grid, from uniform policies."""
    problem = models.paper_gridworld()
    policies = uniform_policies(problem.followers)
    value = problem.leader_value(policies)
    estimator = Reinforce(20_000)

    def error(found: GradientEstimate) -> float:
        return abs(found.value - value) / found.value_error

    ours = Contender("fastincentive", lambda: estimator.estimate(problem, policies)[0])
    return Trial([ours], error, WITHIN, facts=lambda found: {"joint steps": found.steps})
