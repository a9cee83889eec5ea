"""What ``solve`` does by default, and why: measured rules, stated in ``solution.plan``."""

from __future__ import annotations

from typing import NamedTuple

from fastincentive.methods import BilevelAscent, Method, RegimeAscent
from fastincentive.problem.memory import REFINED_STATES, lists_first, shares_much
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["Plan", "plan_of"]

#: Where so many followers share payments that an iteration takes long, so many are made.
FEW_ITERATIONS = 60


class Plan(NamedTuple):
    """A method, the search over regimes that follows it, if any, and what to say of both."""

    method: Method
    refiner: RegimeAscent | None
    text: str


def plan_of(
    problem: IncentiveProblem,
    method: Method | None,
    refine: bool | RegimeAscent,
    ascent_asked: bool,
) -> Plan:
    """Choose how a problem is solved, where no method is given.

    Where each follower has one payment at most, all of its best responses are listed on one line,
    and so are those of all followers to one payment that they share; with a few payments each,
    lines through them show most. The search over these lists finds what Algorithm 1 and
    a search from its end find together, some ten times sooner (measured). ``ascent_asked`` tells
    that other arguments are for Algorithm 1 only.
    """
    if method is None:
        listed = lists_first(problem) and refine is not False and not ascent_asked
        if listed:
            search = refine if isinstance(refine, RegimeAscent) else RegimeAscent()
            few = problem.payments.reach.shape[1]
            why = "each follower has one payment at most, and all responses to it are listed"
            if problem.payments.shared:
                why = "there is one payment, and all breakpoints of all followers are priced"
            elif few > 1:
                why = f"lines through the payments of each follower, {few} at most, are searched"
            return Plan(search, None, f"{_name(search)}: {why}")
        method = BilevelAscent()
        if shares_much(problem):
            method = BilevelAscent(max_iter=FEW_ITERATIONS)
    refiner, why = _refiner(problem, method, refine)
    then = f"{_name(method)}, then {_name(refiner)}" if refiner is not None else _name(method)
    return Plan(method, refiner, then + (f": {why}" if why else ""))


def _refiner(
    problem: IncentiveProblem, method: Method, refine: bool | RegimeAscent
) -> tuple[RegimeAscent | None, str]:
    """Return the search over regimes that follows a method, and why there is none."""
    if isinstance(refine, RegimeAscent):
        return refine, ""
    if method.capabilities.searches_regimes or not refine:
        return None, ""
    if problem.has_types:
        return None, "types of followers are not searched by regimes"
    if problem.followers.n_states > REFINED_STATES:
        return None, f"more than {REFINED_STATES} states are not searched by regimes"
    if shares_much(problem):
        return None, "payments that so many followers share are not searched by regimes"
    return RegimeAscent(), ""


def _name(method: Method) -> str:
    return type(method).__name__
