"""RegimeAscent: exact line searches over the followers' regimes, until nothing can be improved.

Between two breakpoints of a follower's best response the leader's value is constant and payments
only cost, so the best payment on a line is at a breakpoint, and the others' marginals price all
of them at once. Followers take turns; pairs of them move together where there are few.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import invalid
from fastincentive.methods._shared_line_search import Answers, answers_at, best_on_line
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.cheapest import supporting_payments
from fastincentive.responses.menus import (
    Lines,
    Menus,
    collect,
    coordinate_lines,
    join,
    merge,
    with_payments,
)
from fastincentive.responses.search import Search, better

__all__ = [
    "RegimeAscent",
    "RegimePoint",
    "first_lines",
    "new_lines",
    "regime_search",
    "with_several",
]


@dataclass(frozen=True)
class RegimeAscent:
    """Coordinate and direction line search over regimes, exact and monotone.

    Parameters
    ----------
    starts : int
        Random starts besides the given point and no payments at all.
    pairs : int
        With at most this many followers, pairs of them are moved together as well: two followers
        that only pay off jointly are no trap then.
    directions : int
        Followers with several payments: random directions tried from each point reached.
    rounds : int
        Followers with several payments: how often new lines through the point are added.
    repriced : int
        Followers with several payments: how many of their best entries are bought at the cheapest
        payments there are (a linear programme each) in each round.
    rng : int
        Seed of the random starts and directions.

    Notes
    -----
    The result is unilaterally optimal: given the others' responses, no follower has a better entry
    on any line that was searched; with one payment each that is any payment at all. Costs are taken
    to grow with the payments, so that each response is bought where it begins.
    """

    starts: int = 8
    pairs: int = 6
    directions: int = 8
    rounds: int = 20
    repriced: int = 4
    rng: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("starts", "pairs", "directions", "rounds", "repriced", "rng"):
            value = getattr(self, name)
            if not (isinstance(value, (int, np.integer)) and value >= 0):
                raise invalid(name, "an integer >= 0", repr(value))


@dataclass(frozen=True)
class RegimePoint:
    """Where the search ended.

    Attributes
    ----------
    payments : array (k,)
    policies : array (n, S, A)
        Best responses to them, deterministic.
    objective : float
        V - w C, up to the tail tolerance.
    sweeps : int
        Rounds over all followers, all starts together.
    entries : int
        Best responses considered.
    complete : bool
        Whether every best response on the lines was listed.
    trace : list of float
        The objective after each improvement of the start that won.
    """

    payments: FloatArray
    policies: FloatArray
    objective: float
    sweeps: int
    entries: int
    complete: bool
    trace: list[float] = field(default_factory=list)


def regime_search(
    problem: IncentiveProblem,
    method: RegimeAscent,
    payments: FloatArray | None = None,
    policies: FloatArray | None = None,
) -> RegimePoint:
    """Search from a point, from no payments and from random entries; return the best."""
    problem.refuse_types("a search over regimes")
    rng = np.random.default_rng(method.rng)
    origin = problem.payments.lower if payments is None else payments
    if problem.payments.shared:
        return _search_shared(problem, method, origin, rng)
    lines = coordinate_lines(problem, origin)
    several = with_several(problem)
    if several.size:
        lines = join(lines, first_lines(problem, method, rng, several))
    menus = collect(problem, lines)
    trace: list[float] = []
    search = Search(problem, menus)
    pick, value = search.from_starts(
        method.starts, problem.n <= method.pairs, rng, origin, policies, trace
    )
    sweeps = search.sweeps
    for _ in range(method.rounds if several.size else 0):
        before = value
        laws = search.menus.laws[pick]
        menus = _reprice(search, pick, several, method.repriced)
        lines = new_lines(problem, method, rng, several, search.payments(pick))
        search = Search(problem, merge(problem, menus, collect(problem, lines)))
        pick, value = search.climb(search.like(laws), problem.n <= method.pairs, trace)
        sweeps += search.sweeps
        if not better(value, before):
            break
    return RegimePoint(
        payments=search.payments(pick),
        policies=search.policies(pick),
        objective=value,
        sweeps=sweeps,
        entries=search.menus.owner.size,
        complete=search.menus.complete,
        trace=trace,
    )


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


def _search_shared(
    problem: IncentiveProblem, method: RegimeAscent, origin: FloatArray, rng: np.random.Generator
) -> RegimePoint:
    """Payments that reach several followers: line by line, all of them answering."""
    bound = problem.payments
    axes = np.eye(bound.size)
    best: Answers | None = None
    trace: list[float] = []
    sweeps = 0
    for start in (origin, bound.lower):
        held = answers_at(problem, start)
        steps = [held.objective]
        for _ in range(method.rounds):
            sweeps += 1
            before = held.objective
            for axis in axes:
                # From the lower bound on, so that the whole line is seen.
                base = np.where(axis > 0, bound.lower, held.payments)
                held = best_on_line(problem, held, base, axis)
            for _ in range(method.directions if bound.size > 1 else 0):
                held = best_on_line(problem, held, held.payments, rng.normal(size=bound.size))
            held = _bought(problem, held)
            steps.append(held.objective)
            if not better(held.objective, before):
                break
        if best is None or held.objective > best.objective:
            best, trace = held, steps
    assert best is not None  # for the type checker: there are two starts
    return RegimePoint(
        payments=best.payments,
        policies=np.asarray(np.eye(problem.followers.n_actions)[best.actions]),
        objective=best.objective,
        sweeps=sweeps,
        entries=0,
        complete=True,
        trace=trace,
    )


def _bought(problem: IncentiveProblem, held: Answers) -> Answers:
    """Buy the same responses as cheaply as possible."""
    policies = np.eye(problem.followers.n_actions)[held.actions]
    x, supported = supporting_payments(problem, policies, held.payments)
    if not supported.all():
        return held
    value = problem.leader_pass(policies, gradient=False).value
    cost = problem.cost_pass(x, policies, gradient=False).value
    objective = problem.net(value, cost) if problem.affords(cost) else -np.inf
    return Answers(x, held.actions, objective) if objective > held.objective else held


def with_several(problem: IncentiveProblem) -> NDArray[np.int64]:
    """Followers with more than one payment."""
    return np.flatnonzero((problem.payments.reach >= 0).sum(axis=1) > 1)


def first_lines(
    problem: IncentiveProblem,
    method: RegimeAscent,
    rng: np.random.Generator,
    several: NDArray[np.int64],
) -> Lines:
    """Lines from no payments at all: each payment alone, all together, and random mixtures."""
    bound = problem.payments
    alone = coordinate_lines(problem, bound.lower)
    which = np.repeat(several, method.directions + 1)
    held = bound.reach[which] >= 0
    direction = rng.exponential(size=held.shape)
    direction[:: method.directions + 1] = 1.0
    base = bound.spread(bound.lower)[which]
    return join(alone, Lines(which, base, np.where(held, direction, 0.0)))


def new_lines(
    problem: IncentiveProblem,
    method: RegimeAscent,
    rng: np.random.Generator,
    several: NDArray[np.int64],
    x: FloatArray,
) -> Lines:
    """Lines through payments x: each payment alone, and random directions of both signs."""
    bound = problem.payments
    which = np.repeat(several, method.directions)
    held = bound.reach[which] >= 0
    base = bound.spread(x)[which]
    direction = np.where(held, rng.normal(size=held.shape), 0.0)
    return join(coordinate_lines(problem, x), Lines(which, base, direction))
