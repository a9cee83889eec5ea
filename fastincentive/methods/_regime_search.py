"""Rounds of exact line searches over the followers' regimes; ``RegimeAscent`` runs them.

Between two breakpoints of a follower's best response the leader's value is constant and payments
only cost, so the best payment on a line is at a breakpoint, and the others' marginals price all
of them at once.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._random import Rng
from fastincentive.methods._shared_line_search import Answers, answers_at, best_on_line
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.cheapest import supporting_payments
from fastincentive.responses.menus import (
    Lines,
    Menus,
    certain,
    collect,
    coordinate_lines,
    join,
    merge,
    with_payments,
)
from fastincentive.responses.search import RegimePoint, Search, better

__all__ = [
    "SearchSettings",
    "SeparateSearch",
    "SharedSearch",
    "first_lines",
    "new_lines",
    "regime_search",
    "search_of",
    "with_several",
]


class SearchSettings(Protocol):
    """What a search is told; see ``RegimeAscent``."""

    @property
    def starts(self) -> int:
        """Random starts."""

    @property
    def pairs(self) -> int:
        """Most followers of which pairs are moved together."""

    @property
    def directions(self) -> int:
        """Random directions from each point."""

    @property
    def rounds(self) -> int:
        """Rounds of new lines."""

    @property
    def repriced(self) -> int:
        """Entries bought at the cheapest payments in each round."""

    @property
    def rng(self) -> Rng:
        """Source of random starts and directions."""


class SeparateSearch:
    """The search where each payment reaches one follower: entries of menus, follower by follower.

    Each ``advance`` is one round: the first from all starts, later ones (for followers with several
    payments) over new lines through the point reached.
    """

    def __init__(
        self,
        problem: IncentiveProblem,
        method: SearchSettings,
        payments: FloatArray | None,
        policies: FloatArray | None,
    ) -> None:
        self._problem, self._method = problem, method
        self._rng = np.random.default_rng(method.rng)
        self._origin = problem.payments.lower if payments is None else payments
        self._policies = policies
        self._several = with_several(problem)
        self._left = 1 + (method.rounds if self._several.size else 0)
        self._search: Search | None = None
        self._pick = np.empty(0, np.int64)
        self._value = -np.inf
        self._sweeps = 0
        self._trace: list[float] = []

    @property
    def done(self) -> bool:
        """Whether the last round found nothing better, or was the last one."""
        return self._left == 0

    def advance(self) -> None:
        """Go one round on."""
        self._left -= 1
        if self._search is None:
            self._first_round()
        else:
            self._next_round(self._search)

    def _first_round(self) -> None:
        problem, method = self._problem, self._method
        lines = coordinate_lines(problem, self._origin)
        if self._several.size:
            lines = join(lines, first_lines(problem, method, self._rng, self._several))
        self._search = Search(problem, collect(problem, lines))
        self._pick, self._value = self._search.from_starts(
            method.starts,
            problem.n <= method.pairs,
            self._rng,
            self._origin,
            self._policies,
            self._trace,
        )
        self._sweeps = self._search.sweeps

    def _next_round(self, search: Search) -> None:
        problem, method, before = self._problem, self._method, self._value
        laws = search.menus.laws[self._pick]
        menus = _reprice(search, self._pick, self._several, method.repriced)
        here = search.payments(self._pick)
        lines = new_lines(problem, method, self._rng, self._several, here)
        self._search = Search(problem, merge(problem, menus, collect(problem, lines)))
        self._pick, self._value = self._search.climb(
            self._search.like(laws), problem.n <= method.pairs, self._trace
        )
        self._sweeps += self._search.sweeps
        if not better(self._value, before):
            self._left = 0

    def point(self) -> RegimePoint:
        """Return the best point so far."""
        search = self._search
        assert search is not None  # for the type checker: after the first round
        return RegimePoint(
            payments=search.payments(self._pick),
            policies=search.policies(self._pick),
            objective=self._value,
            sweeps=self._sweeps,
            entries=search.menus.owner.size,
            complete=certain(self._problem, search.menus.complete, search.menus.tail, self._value),
            trace=self._trace,
            menus=search.menus,
        )


class SharedSearch:
    """The search where payments reach several followers: line by line, all of them answering.

    Each ``advance`` is one round over all lines, from the given payments first and then from the
    lower bounds.
    """

    def __init__(
        self,
        problem: IncentiveProblem,
        method: SearchSettings,
        payments: FloatArray | None,
        policies: FloatArray | None,
    ) -> None:
        self._problem, self._method = problem, method
        self._rng = np.random.default_rng(method.rng)
        lower = problem.payments.lower
        self._starts = [lower if payments is None else payments, lower]
        self._sweeps = 0
        self._complete = True
        self._best: Answers | None = None
        self._trace: list[float] = []
        self._begin()

    @property
    def done(self) -> bool:
        """Whether every start has ended."""
        return not self._starts

    def _begin(self) -> None:
        """Stand at the next start, unless there is none."""
        while self._starts:
            self._held = answers_at(self._problem, self._starts[0])
            self._steps = [self._held.objective]
            self._left = self._method.rounds
            if self._left > 0:
                return
            self._end()

    def _end(self) -> None:
        """Keep what the present start led to, if it is the best."""
        if self._best is None or self._held.objective > self._best.objective:
            self._best, self._trace = self._held, self._steps
        del self._starts[0]

    def advance(self) -> None:
        """Go one round on."""
        payments, method = self._problem.payments, self._method
        held = self._held
        before = held.objective
        self._sweeps += 1
        self._left -= 1
        for axis in np.eye(payments.size):
            # From the lower bound on, so that the whole line is seen.
            base = np.where(axis > 0, payments.lower, held.payments)
            held = self._along(held, base, axis)
        for _ in range(method.directions if payments.size > 1 else 0):
            direction = self._rng.normal(size=payments.size)
            held = self._along(held, held.payments, direction)
        self._held = _bought(self._problem, held)
        self._steps.append(self._held.objective)
        if self._left == 0 or not better(self._held.objective, before):
            self._end()
            self._begin()

    def _along(self, held: Answers, base: FloatArray, direction: FloatArray) -> Answers:
        found, complete = best_on_line(self._problem, held, base, direction)
        self._complete = self._complete and complete
        return found

    def point(self) -> RegimePoint:
        """Return the best point so far."""
        best, trace = self._best, self._trace
        if self._starts and (best is None or self._held.objective > best.objective):
            best, trace = self._held, self._steps
        assert best is not None  # for the type checker: there are two starts
        return RegimePoint(
            payments=best.payments,
            policies=self._problem.followers.deterministic_policies(best.actions),
            objective=best.objective,
            sweeps=self._sweeps,
            entries=0,
            complete=self._complete,
            trace=trace,
        )


def regime_search(
    problem: IncentiveProblem,
    method: SearchSettings,
    payments: FloatArray | None = None,
    policies: FloatArray | None = None,
) -> RegimePoint:
    """Search from a point, from no payments and from random entries; return the best."""
    search = search_of(problem, method, payments, policies)
    while not search.done:
        search.advance()
    return search.point()


def search_of(
    problem: IncentiveProblem,
    method: SearchSettings,
    payments: FloatArray | None,
    policies: FloatArray | None,
) -> SeparateSearch | SharedSearch:
    """Return the search for a problem: whether payments are shared decides which."""
    problem.refuse_types("a search over regimes")
    kind = SharedSearch if problem.payments.shared else SeparateSearch
    return kind(problem, method, payments, policies)


def _reprice(
    search: Search, pick: NDArray[np.int64], several: NDArray[np.int64], count: int
) -> Menus:
    """Give the most promising entries of followers with several payments their cheapest ones.

    A line buys a response at its own cheapest point, payments off the line may be cheaper: a
    linear programme finds them.
    """
    problem, menus = search.problem, search.menus
    marginals = search.marginals(pick)
    order: dict[int, NDArray[np.int64]] = {}
    for i, conditional in enumerate(problem.leader.turns(marginals)):
        if i in several:
            worth = search.worth(i, conditional, pick)
            best = np.argsort(-worth, kind="stable")[:count] + menus.of(i).start
            order[i] = np.concatenate([[pick[i]], best[best != pick[i]]])
    for rank in range(count):
        chosen = pick.copy()
        for i, entries in order.items():
            if rank < entries.size:
                chosen[i] = entries[rank]
        x, supported = supporting_payments(
            problem, search.policies(chosen), search.menus.payments(problem, chosen)
        )
        fresh = [i for i in order if supported[i] and rank < order[i].size]
        menus = with_payments(problem, menus, chosen[fresh], x)
    return menus


def _bought(problem: IncentiveProblem, held: Answers) -> Answers:
    """Buy the same responses as cheaply as possible."""
    policies = problem.followers.deterministic_policies(held.actions)
    x, supported = supporting_payments(problem, policies, held.payments)
    if not supported.all():
        return held
    value = problem.leader_pass(policies, gradient=False).value
    cost = problem.cost_pass(x, policies, gradient=False).value
    objective = problem.net_objective(value, cost)
    return Answers(x, held.actions, objective) if objective > held.objective else held


def with_several(problem: IncentiveProblem) -> NDArray[np.int64]:
    """Followers with more than one payment."""
    return np.flatnonzero((problem.payments.reach >= 0).sum(axis=1) > 1)


def first_lines(
    problem: IncentiveProblem,
    method: SearchSettings,
    rng: np.random.Generator,
    several: NDArray[np.int64],
) -> Lines:
    """Lines from no payments at all: each payment alone, all together, and random mixtures."""
    payments = problem.payments
    alone = coordinate_lines(problem, payments.lower)
    which = np.repeat(several, method.directions + 1)
    held = payments.reach[which] >= 0
    direction = rng.exponential(size=held.shape)
    direction[:: method.directions + 1] = 1.0
    base = payments.spread(payments.lower)[which]
    return join(alone, Lines(which, base, np.where(held, direction, 0.0)))


def new_lines(
    problem: IncentiveProblem,
    method: SearchSettings,
    rng: np.random.Generator,
    several: NDArray[np.int64],
    x: FloatArray,
) -> Lines:
    """Lines through payments x: each payment alone, and random directions of both signs."""
    payments = problem.payments
    which = np.repeat(several, method.directions)
    held = payments.reach[which] >= 0
    base = payments.spread(x)[which]
    direction = np.where(held, rng.normal(size=held.shape), 0.0)
    return join(coordinate_lines(problem, x), Lines(which, base, direction))
