"""What given payments guarantee, and how far each may move before anybody answers otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.kernels.packed import TIE
from fastincentive.problem.evaluation import Evaluation
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.regimes import alike, repeat, walk
from fastincentive.responses.ties import broken_ties

__all__ = ["PaymentRanges", "StackelbergValues", "payment_ranges", "stackelberg_values"]


@dataclass(frozen=True)
class StackelbergValues:
    """What the leader gets from payments if ties are broken for it, and if against it.

    Attributes
    ----------
    optimistic, pessimistic : Evaluation
        The strong and the weak Stackelberg value of these payments.
    optimistic_policies, pessimistic_policies : array (n, S, A)
        The best responses behind them.
    exact : bool
        Whether all deterministic best responses were compared. If not (very many ties), followers
        took turns: the optimistic value may be larger, the pessimistic one smaller than stated.
    """

    optimistic: Evaluation
    pessimistic: Evaluation
    optimistic_policies: FloatArray
    pessimistic_policies: FloatArray
    exact: bool


@checked
def stackelberg_values(problem: IncentiveProblem, payments: ArrayLike) -> StackelbergValues:
    """Evaluate payments at the best responses that are best and worst for the leader.

    Parameters
    ----------
    problem : IncentiveProblem
    payments : float or array (k,)

    Raises
    ------
    InputError
        If payments are out of bounds or have another shape.
    """
    x = problem.payments.check(payments)
    best = broken_ties(problem, x, 1.0)
    worst = broken_ties(problem, x, -1.0)
    return StackelbergValues(
        optimistic=problem.evaluate(x, best.policies, unbounded=True),
        pessimistic=problem.evaluate(x, worst.policies, unbounded=True),
        optimistic_policies=best.policies,
        pessimistic_policies=worst.policies,
        exact=best.exact and worst.exact,
    )


@dataclass(frozen=True)
class PaymentRanges:
    """The stretch of each payment, the others fixed, on which the response stays a best one.

    Attributes
    ----------
    payments : array (k,)
        The payments asked about.
    lower, upper : array (k,)
        The response is a best one for every value of payment k in [lower[k], upper[k]].
    """

    payments: FloatArray
    lower: FloatArray
    upper: FloatArray

    @property
    def slack(self) -> FloatArray:
        """How far each payment may move, up or down, before the response changes (k,)."""
        return np.minimum(self.payments - self.lower, self.upper - self.payments)


@checked
def payment_ranges(
    problem: IncentiveProblem, payments: ArrayLike, policies: ArrayLike | None = None
) -> PaymentRanges:
    """Find how much each payment can move before some follower's response changes.

    Parameters
    ----------
    problem : IncentiveProblem
    payments : float or array (k,)
    policies : array (n, S, A), optional
        Deterministic best responses to the payments, such as ``solution.policies``; by default the
        ones that are best for the leader.

    Returns
    -------
    PaymentRanges
        Of each payment alone. Cheapest payments for a response have lower = payments: a little
        less, and it is lost.

    Raises
    ------
    InputError
        If the policies are not deterministic, or not best responses to the payments.
    """
    followers = problem.followers
    x = problem.payments.check(payments)
    if policies is None:
        chosen = broken_ties(problem, x, 1.0).policies
    else:
        chosen = followers.check_policies(policies)
    if (chosen.max(axis=2) < 1.0).any():
        raise invalid("policies", "deterministic policies", "a mixture")
    rewards = problem.rewards(x)
    evaluated = followers.evaluate(rewards, chosen, checked=True)
    best = followers.best_responses(rewards)
    gap = followers.start_values(best.values) - followers.start_values(evaluated.values)
    if (gap > 20.0 * TIE * followers.units(best)).any():
        i = int(np.argmax(gap))
        raise invalid(
            "policies", "best responses to the payments", f"a gap of {gap[i]:.3g}", f"follower {i}"
        )
    equals = alike(followers, problem.payments.index, problem.leader.labels)
    actions = np.take_along_axis(equals, np.argmax(chosen, axis=2)[:, :, None], axis=2)[:, :, 0]
    laws = np.where(evaluated.visits > 0.0, actions, -1)
    return PaymentRanges(
        x,
        np.maximum(
            x - _stretch(problem, rewards, equals, laws, -1.0, x - problem.payments.lower), 0.0
        ),
        x + _stretch(problem, rewards, equals, laws, 1.0, problem.payments.upper - x),
    )


def _stretch(
    problem: IncentiveProblem,
    rewards: FloatArray,
    equals: NDArray[np.int64],
    laws: NDArray[np.int64],
    sign: float,
    room: FloatArray,
) -> FloatArray:
    """How far (k,) each payment can move in one direction before a reached follower changes."""
    payments, followers = problem.payments, problem.followers
    owner, variable = payments.owners, payments.owned
    direction = sign * (payments.index[owner] == variable[:, None, None])
    found = walk(
        repeat(followers.packed, owner),
        rewards[owner],
        direction,
        equals[owner],
        room[variable],
    )
    wanted = laws[owner[found.line]]
    same = ((found.laws == wanted) | (wanted < 0)).all(axis=1) & (found.lower == 0.0)
    each = np.zeros(owner.size)
    np.maximum.at(each, found.line[same], found.upper[same])
    out = room.copy()
    np.minimum.at(out, variable, each)
    return out
