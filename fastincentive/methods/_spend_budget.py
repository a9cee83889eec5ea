"""A budget on what is paid out, inside the direction of Algorithm 1.

What followers are paid depends on what they do, so no projection of the payments keeps within such
a budget B. Its price mu >= 0 takes part instead, as lambda does for q: the direction is that of
V - (w + mu) C, and mu is the smallest that lets C grow by no more than a share of what is left of
the budget, or lets it shrink by that share of what is too much.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive.methods._ascent_direction import (
    Change,
    Constraints,
    Iterate,
    Movement,
    direction_steps,
)
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.queries import Query, Sums

__all__ = ["Priced", "Target", "priced_direction_steps"]

#: An iteration may spend this share of what is left of the budget, and saves it of what is beyond.
SHARE = 0.5
#: Directions tried for a price, fewer where followers share payments and each takes many sweeps;
#: and how near C must come to what is aimed at, as a share of B.
TRIALS, SHARED_TRIALS, NEAR = 30, 6, 1e-9
#: The first price that is tried after 0, as a share of what the leader can earn by the budget.
FIRST = 1e-3


class Target(NamedTuple):
    """What a direction is found from, see ``direction_steps``."""

    move: Movement
    constraints: Constraints
    growth: FloatArray  # (n, J) what each q_ij must grow by
    spending: FloatArray | None  # (n, S, A) D grad_theta C; None if C does not depend on policies
    joint: bool


class Priced(NamedTuple):
    """A direction, the price of the budget in it, and the followers' multipliers."""

    change: Change
    price: float
    multipliers: FloatArray  # (n, J)
    growth: float  # of C, along the change


def priced_direction_steps(
    problem: ProblemPart, at: Iterate, target: Target, price: float, multipliers: FloatArray
) -> Generator[Query, Any, Priced]:
    """Find the direction, and the smallest price at which C keeps to the budget.

    ``price`` and ``multipliers`` (n, J) are the last ones.
    """
    if problem.budget is None or target.spending is None:
        return (yield from _at_price(problem, at, target, 0.0, multipliers))
    budget = problem.budget
    step = target.move.step
    none = np.zeros((1, problem.payments.size))
    assert at.cost.spent is not None  # for the type checker: C depends on policies
    spent = float((yield Sums(none, at.cost.spent[None], problem.variables))[0])
    most = SHARE * (budget - spent) / step
    near = max(NEAR * budget / step, 1e-3 * abs(most))
    first = FIRST * max(problem.magnitude / max(budget, 1e-300), problem.cost_weight)
    low: Priced | None = None
    high: Priced | None = None
    guess = price
    for trial in range(SHARED_TRIALS if problem.payments.shared else TRIALS):
        found = yield from _at_price(problem, at, target, guess, multipliers)
        multipliers = found.multipliers
        if found.growth <= most:
            high = found
            if guess == 0.0 or found.growth >= most - near:
                break
        else:
            low = found
        guess = _next_price(low, high, most, first, trial)
        if high is not None and low is not None and not low.price < guess < high.price:
            break
    best = high if high is not None else low
    assert best is not None  # for the type checker: one of them was found
    return best


def _next_price(
    low: Priced | None, high: Priced | None, most: float, first: float, trial: int
) -> float:
    """Return a price between one that is too low and one that is high enough."""
    # From the last iteration's price the next one is not far.
    factor = 1.0 + 0.02 * 8.0**trial
    if high is None:
        assert low is not None  # for the type checker
        return max(factor * low.price, first)
    if low is None:
        return high.price / factor if high.price > first else 0.0
    # C changes by pieces that are linear in the price, some of them steep.
    over, under = low.growth - most, most - high.growth
    share = over / (over + under) if trial % 3 else 0.5
    return low.price + share * (high.price - low.price)


def _at_price(
    problem: ProblemPart, at: Iterate, target: Target, price: float, multipliers: FloatArray
) -> Generator[Query, Any, Priced]:
    """Return the direction at a price, with multipliers of its own."""
    move, spending = target.move, target.spending
    if spending is not None and price > 0.0:
        rows = move.rows
        move = move._replace(rows=rows._replace(objective=rows.objective - price * spending))
    slope = -(problem.cost_weight + price) * at.cost.payments  # grad_x f, eq. 11
    multipliers = multipliers.copy()
    change = yield from direction_steps(
        problem, move, target.constraints, target.growth, slope, multipliers, target.joint
    )
    growth = 0.0
    if spending is not None and problem.budget is not None:
        assert at.cost.policies is not None  # for the type checker
        paid = np.where(problem.payments.counted, at.cost.payments * change.payments, 0.0)
        done = (at.cost.policies * change.rows).sum(axis=(1, 2))
        growth = float((yield Sums(paid[None], done[None], problem.variables))[0])
    return Priced(change, price, multipliers, growth)
