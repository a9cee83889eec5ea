"""Best responses where several are optimal: ties broken for the leader, or against it."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import ImproperPolicyError
from fastincentive.kernels import bellman
from fastincentive.kernels.packed import TIE
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menus import Lines, Menus, certain, collect
from fastincentive.responses.search import Search
from fastincentive.responses.tied_choices import (
    MOST_BYTES,
    climbed,
    list_bytes,
    most_responses,
    net_of,
    tied_choices,
)

__all__ = ["TieBreak", "break_ties", "broken_ties", "unit_of_reward"]

#: All combinations of the followers' tied responses are priced up to this many.
ENUMERATED = 4096
#: Responses of followers with more states are not walked through.
WALKED_STATES = 1000
#: Random starts of the search over more.
STARTS = 4


class TieBreak(NamedTuple):
    """Best responses chosen among all optimal ones."""

    policies: FloatArray  # (n, S, A)
    exact: bool  # whether every deterministic choice was compared


def break_ties(
    problem: IncentiveProblem,
    payments: FloatArray,
    sign: float,
    start: FloatArray | None = None,
) -> FloatArray:
    """Return best responses (n, S, A) that are best (sign +1) or worst (-1) for the leader.

    As ``broken_ties``, without saying whether the answer is exact.
    """
    return broken_ties(problem, payments, sign, start).policies


def broken_ties(
    problem: IncentiveProblem,
    payments: FloatArray,
    sign: float,
    start: FloatArray | None = None,
) -> TieBreak:
    """Return best responses that are best (sign +1) or worst (-1) for the leader.

    Every follower's optimal deterministic responses are listed. All combinations are compared when
    there are few; else followers take turns from several starts until no change helps. Where a list
    finds no room, or followers have more than ``WALKED_STATES`` states, tied actions are improved
    by the leader's gradient instead. ``start``
    (n, S, A), deterministic or not, is kept if it is a best response and nothing does better.
    """
    many = problem.followers.n_states > WALKED_STATES
    if not many and list_bytes(problem, most_responses(problem)) <= MOST_BYTES:
        chosen, exact = _of_all_listed(problem, payments, sign)
    else:
        choices = tied_choices(problem, payments)
        if many and choices.only:
            return TieBreak(problem.followers.deterministic_policies(choices.actions), True)
        if many or list_bytes(problem, choices.listed) > MOST_BYTES:
            chosen, exact = climbed(problem, payments, choices, sign), False
        else:
            chosen, exact = _of_all_listed(problem, payments, sign)
    if start is not None:
        kept = _on_optimal_actions(problem, payments, start)
        if kept is not None:
            # The leader does not choose what it cannot afford.
            budget = sign > 0.0
            gain = net_of(problem, payments, chosen, budget)
            gain -= net_of(problem, payments, kept, budget)
            if not sign * gain > 1e-13 * max(1.0, abs(gain)):
                chosen = kept
    return TieBreak(chosen, exact)


def _of_all_listed(problem: IncentiveProblem, payments: FloatArray, sign: float) -> TieBreak:
    """Choose from the list of all tied responses."""
    which = np.arange(problem.n)
    spread = problem.payments.spread(payments)
    # A line of no length: the responses that are optimal at its only point.
    menus = collect(problem, Lines(which, spread, np.zeros(spread.shape)))
    sizes = np.diff(menus.first)
    if menus.owner.size == problem.n:
        # Without a choice nothing has to be compared.
        return TieBreak(_policies(problem, menus, menus.first[:-1]), menus.complete)
    search = Search(problem, menus, sign)
    few = not problem.has_types and float(np.log(sizes).sum()) <= math.log(ENUMERATED) + 1e-9
    pick = _best_combination(search, sizes) if few else _take_turns(search)
    exact = few and certain(problem, menus.complete, menus.tail, search.objective(pick))
    return TieBreak(_policies(problem, menus, pick), exact)


def _policies(problem: IncentiveProblem, menus: Menus, pick: NDArray[np.int64]) -> FloatArray:
    return problem.followers.deterministic_policies(menus.actions[pick])


def _best_combination(search: Search, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Price every combination, two followers at a time."""
    first = search.menus.first[:-1]
    many = np.argsort(-sizes, kind="stable")[:2]
    if sizes.size == 1:
        return np.array([int(np.argmax(search.single_values()))])
    i, j = (int(k) for k in np.sort(many))
    rest = [k for k in range(sizes.size) if k not in (i, j)]
    best, top = first, -np.inf
    for others in itertools.product(*[range(sizes[k]) for k in rest]):
        pick = first.copy()
        pick[rest] += np.array(others, np.int64)
        values = search.pair_values(pick, i, j)
        at = np.unravel_index(int(np.argmax(values)), values.shape)
        if values[at] > top + 1e-13 * max(1.0, abs(top)) or top == -np.inf:
            top = float(values[at])
            pick[[i, j]] = first[[i, j]] + np.array(at)
            best = pick
    return best


def _take_turns(search: Search) -> NDArray[np.int64]:
    rng = np.random.default_rng(0)
    first, last = search.menus.first[:-1], search.menus.first[1:]
    starts = [first] + [rng.integers(first, last) for _ in range(STARTS)]
    found = [search.climb(start, False, []) for start in starts]
    return max(found, key=lambda each: each[1])[0]


def _on_optimal_actions(
    problem: IncentiveProblem, payments: FloatArray, start: FloatArray
) -> FloatArray | None:
    """``start`` on its optimal actions, if that makes it a best response."""
    followers = problem.followers
    rewards = problem.rewards(payments)
    best = followers.best_responses(rewards)
    unit = followers.units(best)
    tied = problem.optimal_actions(payments, best).tied
    # Ranks stand for values: where the start takes nothing that is tied the best response does.
    worth = np.where(tied, 1.0, 0.0)
    np.put_along_axis(worth, best.actions[:, :, None], 1.25, axis=2)
    kept = np.empty(followers.shape)
    bellman.near_greedy_policies(
        worth, best.values, np.full(problem.n, 0.5), np.where(tied, start, 0.0), kept
    )
    try:
        values = followers.start_values(followers.evaluate(rewards, kept, checked=True).values)
    except ImproperPolicyError:
        return None
    short = followers.start_values(best.values) - values
    return kept if (short <= 20.0 * TIE * unit).all() else None


def unit_of_reward(problem: IncentiveProblem, payments: FloatArray) -> FloatArray:
    """Each follower's unit of reward (n,): the size of its values and rewards, at least 1e-9."""
    followers = problem.followers
    return followers.units(followers.best_responses(problem.rewards(payments)))
