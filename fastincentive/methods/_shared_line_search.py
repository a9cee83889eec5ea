"""Line search over payments that several followers share: they all answer to each step."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.kernels.packed import TIE
from fastincentive.problem.bound_payments import ROUNDING
from fastincentive.problem.costs import ExpectedSpend, expected_payouts
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menus import END, Menus, certain, label_marginals
from fastincentive.responses.regimes import Responses, alike, walk
from fastincentive.responses.search import Search

__all__ = ["Answers", "answers_at", "best_on_line"]

#: Points of a line that are priced in one pass; the neighbours of the best follow in another.
POINTS = 256
#: At each point all combinations of tied responses are priced up to this many.
COMBINATIONS = 64
#: So many of them are priced by their policies.
CONFIRMED = 4
#: Stacked label marginals may take this many bytes.
MOST_BYTES = 2**28


class Answers(NamedTuple):
    """Payments, one best response per follower, and the objective."""

    payments: FloatArray  # (k,)
    actions: NDArray[np.int64]  # (n, S)
    objective: float


class Offers(NamedTuple):
    """Responses of all followers on a line, follower by follower."""

    starts: NDArray[np.int64]  # (n+1,) where each follower's begin
    first: FloatArray  # (C,) where on the line each begins to be optimal
    last: FloatArray  # (C,) and where it ends
    laws: NDArray[np.int64]  # (C, S)
    actions: NDArray[np.int64]  # (C, S)
    marginals: FloatArray  # (T, C, L)
    tail: float
    spent: FloatArray | None  # (2, C) paid at t = 0, and more for each t; None if not known so


class Priced(NamedTuple):
    """The best of some points of a line."""

    t: float
    pick: NDArray[np.int64]  # (n,) entries of the offers
    objective: float
    whole: bool  # whether all combinations of tied responses were priced at each point


def answers_at(problem: IncentiveProblem, payments: FloatArray) -> Answers:
    """Best responses to payments, the first action where tied."""
    actions = problem.followers.best_responses(problem.rewards(payments)).actions
    policies = problem.followers.deterministic_policies(actions)
    value = problem.leader_pass(policies, gradient=False).value
    return Answers(payments, actions, _net(problem, value, payments, policies))


def best_on_line(
    problem: IncentiveProblem, held: Answers, base: FloatArray, direction: FloatArray
) -> tuple[Answers, bool]:
    """Return the best of all breakpoints of all followers on ``base + t direction``, t >= 0.

    Every breakpoint is priced when there are few; of many, evenly spaced ones and then those
    around the best. At each, followers take the tied responses that are best for the leader.
    Returns ``held`` if nothing is better, and whether everything on the line was compared.
    """
    payments = problem.payments
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(direction > 0, (payments.upper - base) / direction, np.inf)
        room = np.where(direction < 0, (payments.lower - base) / direction, room)
    found, offers = _offers(problem, base, direction, max(float(room.min()), 0.0))
    # Where payments fall along the line, the far end of a regime is the cheap one.
    points = np.unique(found.lower)
    if payments.prices @ direction < 0.0:
        points = np.union1d(points, found.upper[np.isfinite(found.upper)])
    # Beyond the last response listed of some follower nobody knows what it does.
    points = points[points <= np.maximum.reduceat(offers.last, offers.starts[:-1]).min()]
    chosen = points[np.unique(np.linspace(0, points.size - 1, POINTS).astype(int))]
    complete = chosen.size == points.size
    best, top = held, held.objective
    for _ in range(2):
        priced = _priced(problem, base, direction, chosen, offers)
        complete = complete and priced.whole
        if priced.objective > top:
            top = priced.objective
            posted = np.clip(base + priced.t * direction, payments.lower, payments.upper)
            best = Answers(posted, offers.actions[priced.pick], top)
        # The breakpoints skipped next to the best one so far.
        if chosen.size == points.size or best is held:
            break
        off = np.abs(base + points[:, None] * direction - best.payments).sum(axis=1)
        at = int(np.argmin(off))
        chosen = points[max(at - POINTS // 2, 0) : at + POINTS // 2]
    if top <= held.objective + 1e-11 * max(1.0, abs(held.objective)):
        best = held
    listed = complete and bool(found.complete.all())
    return best, certain(problem, listed, offers.tail, best.objective)


def _offers(
    problem: IncentiveProblem, base: FloatArray, direction: FloatArray, end: float
) -> tuple[Responses, Offers]:
    """All responses of all followers, also of those whom the line does not reach: they may tie."""
    payments, followers = problem.payments, problem.followers
    found = walk(
        followers.packed,
        problem.rewards(base),
        payments.side_payments(direction),
        alike(followers, payments.index, problem.leader.labels),
        np.full(problem.n, end * END),
    )
    starts = np.searchsorted(found.line, np.arange(problem.n + 1))
    marginals, tail = label_marginals(problem, found.line, found.actions, starts)
    spent = _spent_along(problem, found, base, direction)
    return found, Offers(
        starts, found.lower, found.upper, found.laws, found.actions, marginals, tail, spent
    )


def _spent_along(
    problem: IncentiveProblem, found: Responses, base: FloatArray, direction: FloatArray
) -> FloatArray | None:
    """(2, C) what ``ExpectedSpend`` is at base and adds along the direction, for each response.

    None for other costs, and where some follower is paid for ever at a leader's discount of 1.
    """
    if not isinstance(problem.cost, ExpectedSpend):
        return None
    followers, payments, owner = problem.followers, problem.payments, found.line
    payable = payments.index[owner] >= 0
    policies = followers.deterministic_policies(found.actions)
    many = followers.repeated(owner)
    paid = expected_payouts(many, payable.astype(float), payable, policies, problem.leader_discount)
    if not np.isfinite(paid.values).all():
        return None
    visits = policies * paid.visits[:, :, None] * followers.counts[owner][:, None, None]
    prices = np.broadcast_to(problem.cost.prices, payments.size)
    rates = [payments.side_payments(prices * each)[owner] for each in (base, direction)]
    return np.array([(visits * rate).sum(axis=(1, 2)) for rate in rates])


def _priced(
    problem: IncentiveProblem,
    base: FloatArray,
    direction: FloatArray,
    points: FloatArray,
    offers: Offers,
) -> Priced:
    """Price at each point the combinations of all responses that are optimal there."""
    picks: list[NDArray[np.int64]] = []
    at: list[int] = []
    whole = True
    for k, t in enumerate(points):
        near = TIE * t
        optimal = np.flatnonzero((offers.first <= t + near) & (t - near <= offers.last))
        begin = np.searchsorted(optimal, offers.starts)
        tied = [optimal[first:last] for first, last in itertools.pairwise(begin)]
        if math.prod(each.size for each in tied) <= COMBINATIONS:
            fresh = [np.array(each) for each in itertools.product(*tied)]
        else:
            whole = False
            fresh = _climbed(problem, base + t * direction, optimal, begin, offers)
        picks += fresh
        at += [k] * len(fresh)
    # What begins at one point is still there at the next.
    different, same = np.unique(np.array(picks), axis=0, return_inverse=True)
    values = _values(problem, different, offers.marginals)[same.reshape(-1)]
    number = np.array(at)
    if offers.spent is not None:
        fixed, rate = offers.spent[:, np.array(picks)].sum(axis=2)
        cost = fixed + points[number] * rate
        net = values - problem.cost_weight * cost
        if problem.budget is not None:
            net[cost > problem.budget * (1.0 + ROUNDING)] = -np.inf
        # The best are priced once more, whatever rounding says of the budget.
        order = np.argsort(-net, kind="stable")[:CONFIRMED]
    else:
        order = np.lexsort((-values, number))
        if not isinstance(problem.cost, ExpectedSpend):
            # At one point all combinations cost the same.
            order = order[np.unique(number[order], return_index=True)[1]]
    best = Priced(0.0, picks[0], -np.inf, whole)
    for j in order.tolist():
        t = float(points[at[j]])
        policies = problem.followers.deterministic_policies(offers.actions[picks[j]])
        objective = _net(problem, float(values[j]), base + t * direction, policies)
        if objective > best.objective:
            best = Priced(t, picks[j], objective, whole)
    return best


def _climbed(
    problem: IncentiveProblem,
    payments: FloatArray,
    optimal: NDArray[np.int64],
    begin: NDArray[np.int64],
    offers: Offers,
) -> list[NDArray[np.int64]]:
    """Good combinations of too many: followers take turns, from the first and the last responses.

    ``optimal`` (m,) are the offers at these payments, follower i's ``begin[i]:begin[i + 1]``.
    """
    owner = np.repeat(np.arange(problem.n), np.diff(begin))
    menus = Menus(
        owner=owner,
        spread=problem.payments.spread(payments)[owner],
        actions=offers.actions[optimal],
        laws=offers.laws[optimal],
        first=begin,
        marginals=np.ascontiguousarray(offers.marginals[:, optimal]),
        tail=offers.tail,
        complete=True,
        unseen=np.inf,
    )
    search = Search(problem, menus)
    ends = (begin[:-1], begin[1:] - 1)
    return [optimal[search.climb(start, False, [])[0]] for start in ends]


def _values(
    problem: IncentiveProblem, picks: NDArray[np.int64], marginals: FloatArray
) -> FloatArray:
    """Leader's value (m,) of combinations of offers (m, n)."""
    horizon, _, count = marginals.shape
    weights = problem.leader_discount ** np.arange(horizon)
    chunk = max(MOST_BYTES // (8 * horizon * problem.n * count), 1)
    values = np.empty(len(picks))
    for first in range(0, len(picks), chunk):
        part = picks[first : first + chunk]
        stacked = np.concatenate([marginals[:, pick] for pick in part])
        expected = problem.leader.expected(stacked)
        values[first : first + chunk] = expected.reshape(len(part), horizon) @ weights
    return values


def _net(
    problem: IncentiveProblem, value: float, payments: FloatArray, policies: FloatArray
) -> float:
    cost = problem.cost_pass(payments, policies, gradient=False).value
    return problem.net_objective(value, cost)
