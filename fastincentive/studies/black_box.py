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
from fastincentive.followers.estimates import GUESSES, EstimatedMDP, warn_of_gaps
from fastincentive.followers.followers import Followers
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.solution import Solution
from fastincentive.solver.loop import solve
from fastincentive.solver.tie_breaking import WeakStackelberg

__all__ = ["ModelUncertainty", "model_uncertainty", "solve_estimated"]

#: One draw in so many is cautious: the worst for the leader of so many models.
CAUTIOUS, TRIES = 3, 4


#: Models drawn, each of which is solved for: more take days.
MOST_DRAWS = 10**6


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

    Notes
    -----
    Draws guess by turns of outcomes that were never seen that they may lead anywhere, or that they
    are like what other states have shown. Every third draw is cautious: of four models the one that
    is worst for the leader; where pairs were never tried, the follower is lured by these, half of
    the time to where it is paid. So means are on the careful side, and the quantile of 5 % allows
    for a prior that does not suit the true follower.
    """

    feasibility: FloatArray
    objective: FloatArray
    answered: FloatArray

    @property
    def promise(self) -> float:
        """What the leader earns at least, at the 5 % level: that quantile of ``answered``."""
        return float(np.quantile(self.answered, 0.05))

    def __str__(self) -> str:
        """Return means, standard deviations, and the lowest and the highest twentieth."""
        rows = [f"{'':<12}{'mean':>12}{'s.d.':>12}{'5 %':>12}{'95 %':>12}"]
        for name in ("feasibility", "objective", "answered"):
            each = getattr(self, name)
            figures = (each.mean(), each.std(ddof=1), *np.quantile(each, (0.05, 0.95)))
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

    Warns
    -----
    FewSamplesWarning
        If pairs of states that were seen were tried once or never.
    """
    rng = renamed_seed(rng, seed)
    _check_estimates(problem, estimates)
    warn_of_gaps(estimates, stacklevel=3)
    return _uncertainty(problem, payments, policies, estimates, draws, rng)


def _check_estimates(problem: IncentiveProblem, estimates: Sequence[EstimatedMDP | None]) -> None:
    if len(estimates) != problem.n:
        raise invalid("estimates", f"{problem.n}, one for each follower", len(estimates))


def _uncertainty(
    problem: IncentiveProblem,
    payments: ArrayLike,
    policies: ArrayLike,
    estimates: Sequence[EstimatedMDP | None],
    draws: int,
    rng: Rng,
) -> ModelUncertainty:
    """As ``model_uncertainty``, without its warning."""
    if draws < 2:
        raise invalid("draws", "an integer of at least 2", draws)
    if draws > MOST_DRAWS:
        raise invalid("draws", f"at most {MOST_DRAWS:g}", draws)
    x = problem.payments.check_bounds(payments)
    checked = problem.followers.check_policies(policies)
    generator = np.random.default_rng(rng)
    gaps = any(each is not None and len(each.seldom(0)) for each in estimates)
    found = np.empty((3, draws))
    for k in range(draws):
        cautious = k % CAUTIOUS == CAUTIOUS - 1
        guess = "lure" if cautious and gaps else GUESSES[k % 2]
        tries = [
            _under(_drawn(problem, x, estimates, generator, guess), x, checked)
            for _ in range(TRIES if cautious else 1)
        ]
        found[:, k] = min(tries, key=lambda each: each[2])
    return ModelUncertainty(*found)


def _drawn(
    problem: IncentiveProblem,
    payments: FloatArray,
    estimates: Sequence[EstimatedMDP | None],
    generator: np.random.Generator,
    guess: str,
) -> IncentiveProblem:
    """Draw each estimated follower; lures lead to where it is paid, or anywhere, by turns."""
    paid = problem.payments.side_payments(payments).max(axis=2) > 0.0
    mdps = []
    for i, (mdp, each) in enumerate(zip(problem.followers, estimates, strict=True)):
        target = None
        if guess == "lure" and paid[i].any() and generator.random() < 0.5:
            target = int(generator.choice(np.flatnonzero(paid[i])))
        drawn = mdp if each is None else each.resample(generator, guess, target)
        mdps.append(drawn.replace(discount=mdp.discount))
    return problem.replace(followers=Followers(mdps, problem.followers.counts))


def _under(
    drawn: IncentiveProblem, payments: FloatArray, policies: FloatArray
) -> tuple[float, float, float]:
    """Feasibility and objective of policies in a draw, and the objective of best responses."""
    fixed = drawn.evaluate(payments, policies)
    best = drawn.followers.best_responses(drawn.rewards(payments))
    answer = drawn.followers.deterministic_policies(best.actions)
    value = drawn.leader_pass(answer, gradient=False).value
    cost = drawn.cost_pass(payments, answer, gradient=False).value
    return fixed.feasibility, fixed.objective, drawn.net(value, cost)


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
        The solution is that of the estimated problem, at the payments chosen; what it says they
        earn is as good as the estimate. The leader may count on ``promise`` of the uncertainty,
        which is from other draws than those that the payments were chosen by.

    Raises
    ------
    InputError
        If an argument is not as described.

    Warns
    -----
    FewSamplesWarning
        If pairs of states that were seen were tried once or never.
    """
    drawn_with = seed_of(renamed_seed(rng, seed))
    if not len(margins):
        raise invalid("margins", "at least one", "none")
    _check_estimates(problem, estimates)
    warn_of_gaps(estimates, stacklevel=3)
    found = [solve(problem, tie_breaking=WeakStackelberg(margin), **settings) for margin in margins]

    def under(solution: Solution, seed: int) -> ModelUncertainty:
        at = (problem, solution.payments, solution.policies)
        return _uncertainty(*at, estimates, draws, seed)

    best = found[0]
    if len(found) > 1:
        best = max(found, key=lambda each: under(each, drawn_with).answered.mean())
    # Draws that the payments were not chosen by.
    return best, under(best, drawn_with + 1)
