"""Line search over payments that several followers share: they all answer to each step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menus import label_marginals
from fastincentive.responses.regimes import alike, repeat, walk

__all__ = ["Answers", "answers_at", "best_on_line"]

#: Points of a line that are priced in one pass; the neighbours of the best follow in another.
POINTS = 256
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
    marginals: FloatArray  # (T, C, L)
    actions: NDArray[np.int64]  # (C, S)


def answers_at(problem: IncentiveProblem, payments: FloatArray) -> Answers:
    """Best responses to payments, the first action where tied."""
    actions = problem.followers.best_responses(problem.rewards(payments)).actions
    policies = problem.followers.deterministic_policies(actions)
    value = problem.leader_pass(policies, gradient=False).value
    return Answers(payments, actions, _net(problem, value, payments, policies))


def best_on_line(
    problem: IncentiveProblem, held: Answers, base: FloatArray, direction: FloatArray
) -> Answers:
    """Return the best of all breakpoints of all followers on ``base + t direction``, t >= 0.

    Every breakpoint is priced when there are few; of many, evenly spaced ones and then those
    around the best. Returns ``held`` if nothing is better.
    """
    payments, followers = problem.payments, problem.followers
    moved = np.unique(payments.owners[direction[payments.owned] != 0.0])
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(direction > 0, (payments.upper - base) / direction, np.inf)
        room = np.where(direction < 0, (payments.lower - base) / direction, room)
    along = payments.side_payments(direction)[moved]
    found = walk(
        repeat(followers.packed, moved),
        problem.rewards(base)[moved],
        along,
        alike(followers, payments.index, problem.leader.labels)[moved],
        np.full(moved.size, max(float(room.min()), 0.0)),
    )
    still = np.setdiff1d(np.arange(problem.n), moved)
    owner = np.concatenate([moved[found.line], still])
    actions = np.concatenate([found.actions, held.actions[still]])
    first = np.zeros(owner.size)
    first[: found.line.size] = found.lower
    last = np.full(owner.size, np.inf)
    last[: found.line.size] = found.upper
    order = np.lexsort((first, owner))
    owner, actions, first, last = owner[order], actions[order], first[order], last[order]
    starts = np.searchsorted(owner, np.arange(problem.n + 1))
    marginals, _ = label_marginals(problem, owner, actions, starts)
    offers = Offers(starts, first, last, marginals, actions)
    # Where payments fall along the line, the far end of a regime is the cheap one.
    points = np.unique(found.lower)
    if payments.prices @ direction < 0.0:
        points = np.union1d(points, found.upper[np.isfinite(found.upper)])
    chosen = points[np.unique(np.linspace(0, points.size - 1, POINTS).astype(int))]
    best, top = held, held.objective
    for _ in range(2):
        for t, pick, objective in _priced(problem, base, direction, chosen, offers):
            if objective > top:
                top = objective
                best = Answers(base + t * direction, actions[pick], objective)
        # The breakpoints skipped next to the best one so far.
        if chosen.size == points.size or best is held:
            break
        off = np.abs(base + points[:, None] * direction - best.payments).sum(axis=1)
        at = int(np.argmin(off))
        chosen = points[max(at - POINTS // 2, 0) : at + POINTS // 2]
    if top <= held.objective + 1e-11 * max(1.0, abs(held.objective)):
        return held
    return best


def _priced(
    problem: IncentiveProblem,
    payments: FloatArray,
    direction: FloatArray,
    points: FloatArray,
    offers: Offers,
) -> list[tuple[float, NDArray[np.int64], float]]:
    """(t, entries, objective): at each point the responses that begin there, and those that end."""
    starts, first, last, marginals, actions = offers
    picks = []
    for t in points:
        near = 1e-12 * max(1.0, t)
        optimal = (first <= t + near) & (t - near <= last)
        newest = np.empty(starts.size - 1, np.int64)
        oldest = np.empty(starts.size - 1, np.int64)
        for i in range(starts.size - 1):
            entries = starts[i] + np.flatnonzero(optimal[starts[i] : starts[i + 1]])
            oldest[i], newest[i] = entries[0], entries[-1]
        picks.append((float(t), newest))
        if not np.array_equal(newest, oldest):
            picks.append((float(t), oldest))
    horizon, _, count = marginals.shape
    weights = problem.leader_discount ** np.arange(horizon)
    chunk = max(MOST_BYTES // (8 * horizon * problem.n * count), 1)
    found = []
    for begin in range(0, len(picks), chunk):
        part = picks[begin : begin + chunk]
        stacked = np.concatenate([marginals[:, pick] for _, pick in part])
        expected, _ = problem.leader.expectations(np.ascontiguousarray(stacked))
        values = expected.reshape(len(part), horizon) @ weights
        for (t, pick), value in zip(part, values, strict=True):
            policies = problem.followers.deterministic_policies(actions[pick])
            posted = payments + t * direction
            found.append((t, pick, _net(problem, float(value), posted, policies)))
    return found


def _net(
    problem: IncentiveProblem, value: float, payments: FloatArray, policies: FloatArray
) -> float:
    cost = problem.cost_pass(payments, policies, gradient=False).value
    return problem.net_objective(value, cost)
