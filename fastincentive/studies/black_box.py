"""Payments for followers whose models are estimates, and what the samples leave open of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._random import Rng, renamed_seed, seed_of
from fastincentive.errors import invalid
from fastincentive.followers.followers import Followers
from fastincentive.followers.simulators import EstimatedMDP
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.solution import Solution
from fastincentive.solver.loop import solve
from fastincentive.solver.tie_breaking import WeakStackelberg

__all__ = ["ModelUncertainty", "model_uncertainty", "solve_estimated"]


@dataclass(frozen=True)
class ModelUncertainty:
    """What a point (x, pi) is worth under models that the samples allow.

    Attributes
    ----------
    feasibility : array (draws,)
        q(x, pi), the sum of what followers lose by pi: at a best response to the estimated model it
        is 0 there, and below 0 in draws to which another policy is better.
    objective : array (draws,)
        f with the followers' policies fixed.
    answered : array (draws,)
        f with best responses to each draw instead, the first best action where several tie.
    """

    feasibility: FloatArray
    objective: FloatArray
    answered: FloatArray

    def __str__(self) -> str:
        """Return means, standard deviations and the lowest twentieth."""
        rows = [f"{'':<12}{'mean':>12}{'s.d.':>12}{'5 %':>12}"]
        for name in ("feasibility", "objective", "answered"):
            each = getattr(self, name)
            figures = (each.mean(), each.std(ddof=1), np.quantile(each, 0.05))
            rows.append(f"{name:<12}" + "".join(f"{figure:>12.4g}" for figure in figures))
        return "\n".join(rows)


@checked
def model_uncertainty(
    problem: IncentiveProblem,
    payments: ArrayLike,
    policies: ArrayLike,
    estimates: Sequence[EstimatedMDP | None],
    draws: int = 200,
    rng: Rng = 0,
    *,
    seed: int | None = None,
) -> ModelUncertainty:
    """Evaluate a point under models that the followers' samples allow.

    Parameters
    ----------
    problem : IncentiveProblem
        Its followers are the estimated models.
    payments : float or array (k,)
    policies : array (n, S, A)
        The responses that are counted on, such as ``solution.policies``.
    estimates : sequence of EstimatedMDP or None
        One for each follower, None where the model is known.
    draws : int
        Models drawn for each follower, see ``EstimatedMDP.resample``.
    rng : None, int or numpy.random.Generator
        What the models are drawn with: the default of 0 gives the same ones in every run, None
        others each time.
    seed : int, optional
        The old name of ``rng``, still accepted with a DeprecationWarning.

    Returns
    -------
    ModelUncertainty
        Its ``feasibility`` says how far from best responses the policies may really be.

    Raises
    ------
    InputError
        If an argument is not as described.
    """
    rng = renamed_seed(rng, seed)
    if len(estimates) != problem.n:
        raise invalid("estimates", f"{problem.n}, one for each follower", len(estimates))
    if draws < 2:
        raise invalid("draws", "an integer of at least 2", draws)
    x = problem.payments.check_bounds(payments)
    checked = problem.followers.check_policies(policies)
    generator = np.random.default_rng(rng)
    found = np.empty((3, draws))
    for k in range(draws):
        mdps = [
            mdp if each is None else each.resample(generator).replace(discount=mdp.discount)
            for mdp, each in zip(problem.followers, estimates, strict=True)
        ]
        drawn = problem.replace(followers=Followers(mdps, problem.followers.counts))
        fixed = drawn.evaluate(x, checked)
        best = drawn.followers.best_responses(drawn.rewards(x))
        answer = drawn.followers.deterministic_policies(best.actions)
        value = drawn.leader_pass(answer, gradient=False).value
        cost = drawn.cost_pass(x, answer, gradient=False).value
        found[:, k] = fixed.feasibility, fixed.objective, drawn.net(value, cost)
    return ModelUncertainty(*found)


@checked
def solve_estimated(
    problem: IncentiveProblem,
    estimates: Sequence[EstimatedMDP | None],
    margins: Sequence[float] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    draws: int = 100,
    rng: Rng = 0,
    *,
    seed: int | None = None,
    **settings: Any,
) -> tuple[Solution, ModelUncertainty]:
    """Find payments that are good for the followers that the samples allow, not for one model.

    Payments that make followers just indifferent in the estimated model are lost in half of the
    models that are as likely. Each margin is solved for (``WeakStackelberg``); the payments that
    earn most on average over the draws, followers answering each, are returned.

    Parameters
    ----------
    problem : IncentiveProblem
        Its followers are the estimated models.
    estimates : sequence of EstimatedMDP or None
        One for each follower, None where the model is known.
    margins : sequence of float
        By how much the wanted responses are to be better than others, in units of reward.
    draws : int
    rng : None, int or numpy.random.Generator
        As for ``model_uncertainty``; the models drawn are the same ones for every margin.
    seed : int, optional
        The old name of ``rng``, still accepted with a DeprecationWarning.
    **settings
        Of ``solve``: where to start, how to refine, and so on.

    Returns
    -------
    Solution, ModelUncertainty
        The solution is that of the estimated problem, at the payments chosen.

    Raises
    ------
    InputError
        If an argument is not as described.
    """
    drawn_with = seed_of(renamed_seed(rng, seed))
    if not len(margins):
        raise invalid("margins", "at least one", "none")
    best = None
    for margin in margins:
        solution = solve(problem, tie_breaking=WeakStackelberg(margin), **settings)
        found = model_uncertainty(
            problem, solution.payments, solution.policies, estimates, draws, drawn_with
        )
        if best is None or found.answered.mean() > best[1].answered.mean():
            best = solution, found
    assert best is not None  # for the type checker
    return best
