"""Payments that work whichever way ties are broken: the search for the guaranteed value."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import InfeasiblePolicyError
from fastincentive.kernels import bellman
from fastincentive.kernels.packed import TIE
from fastincentive.methods._regime_search import (
    SearchSettings,
    first_lines,
    new_lines,
    with_several,
)
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.cheapest import cheapest_payments
from fastincentive.responses.menus import (
    Cut,
    Lines,
    Menus,
    build,
    certain,
    coordinate_lines,
    cut,
    join,
    side_payments,
)
from fastincentive.responses.recovery import Recovered, recover
from fastincentive.responses.regimes import repeat
from fastincentive.responses.search import RegimePoint, Search, better
from fastincentive.responses.ties import unit_of_reward

__all__ = ["GuardedPoint", "GuardedSearch", "guarded_menus", "weak_search", "with_margin"]

#: Rounds of new lines for followers with several payments.
ROUNDS = 4
#: Steps towards the start of a regime.
CHORDS = 6


class GuardedMenus(NamedTuple):
    """Entries bought with a margin; those that tie all the same make one offer."""

    menus: Menus
    offer: NDArray[np.int64]  # (C,) number of the offer, ascending


class GuardedPoint(NamedTuple):
    """Where the search ended."""

    point: Recovered
    entries: int  # responses priced
    sweeps: int
    complete: bool  # whether every response on the lines was listed


class GuardedSearch(Search):
    """Search over offers: of the responses that tie at an offer the follower takes the worst."""

    def __init__(self, problem: IncentiveProblem, guarded: GuardedMenus) -> None:
        super().__init__(problem, guarded.menus)
        self._offer = guarded.offer

    def _starts(self, i: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where follower i's offers start in its menu, and the offer of each entry."""
        offer = self._offer[self.menus.of(i)]
        starts = np.flatnonzero(np.diff(offer, prepend=-1))
        return starts, np.repeat(np.arange(starts.size), np.diff(starts, append=offer.size))

    def worth(self, i: int, conditional: FloatArray, pick: NDArray[np.int64]) -> FloatArray:
        """Objective with each entry that is the worst of its offer, -inf for the others."""
        each = super().worth(i, conditional, pick)
        starts, offer = self._starts(i)
        return np.where(each <= np.minimum.reduceat(each, starts)[offer], each, -np.inf)

    def pair_values(self, pick: NDArray[np.int64], i: int, j: int) -> FloatArray:
        """V - w C of every pair that is the worst of its two offers, -inf for the others."""
        each = super().pair_values(pick, i, j)
        first, mine = self._starts(i)
        second, other = self._starts(j)
        worst = np.minimum.reduceat(np.minimum.reduceat(each, first, axis=0), second, axis=1)
        return np.where(each <= worst[np.ix_(mine, other)], each, -np.inf)


def guarded_menus(problem: IncentiveProblem, lines: Lines, margin: float) -> GuardedMenus:
    """Cut lines into regimes and post each response inside its regime, at least a margin from ties.

    ``margin`` is in units of each follower's reward. Responses that tie all the same are offered
    together: the follower may take any of them.
    """
    parts = cut(problem, lines)
    lines, found, _ = parts
    posted = _inside(problem, parts, margin)
    begin = np.searchsorted(found.line, np.arange(lines.owner.size + 1))
    entries: list[NDArray[np.int64]] = []
    at: list[FloatArray] = []
    for j in range(lines.owner.size):
        here = np.arange(begin[j], begin[j + 1])
        lasting = here[found.upper[here] > found.lower[here]]
        # At the start of the line, which may have no length, as well.
        for t in np.unique(np.append(posted[lasting], 0.0)):
            near = TIE * max(1.0, t)
            tied = here[(found.lower[here] <= t + near) & (t - near <= found.upper[here])]
            entries.append(tied)
            at.append(np.full(tied.size, t))
    chosen = np.concatenate(entries)
    line = found.line[chosen]
    menus = build(
        problem,
        lines.owner[line],
        lines.base[line] + np.concatenate(at)[:, None] * lines.direction[line],
        found.actions[chosen],
        found.laws[chosen],
        bool(found.complete.all()),
    )
    return GuardedMenus(menus, np.repeat(np.arange(len(entries)), [each.size for each in entries]))


def _inside(problem: IncentiveProblem, parts: Cut, margin: float) -> FloatArray:
    """Smallest t (C,) at which each response leads by the margin, or by about half the most it can.

    It leads over each other action, at each visited state, by a concave function of t that is >= 0
    on the regime. So what ties in the middle ties all along, and is left out; and every chord from
    the regime's start gives a t at which the margin holds, and each chord a smaller one.
    """
    lines, found, _ = parts
    unit = unit_of_reward(problem, problem.payments.lower)[lines.owner][found.line]
    ends = np.isfinite(found.upper)
    width = np.where(ends, found.upper, np.maximum(2.0 * found.lower, found.lower + unit))
    t = found.lower + 0.5 * (width - found.lower)
    gaps = _gaps(problem, parts, t)
    rivals = gaps > 10.0 * TIE * unit[:, None, None]

    def lead_of(gaps: FloatArray) -> FloatArray:
        return np.where(rivals, gaps, np.inf).min(axis=(1, 2))

    lead, start = lead_of(gaps), lead_of(_gaps(problem, parts, found.lower))
    wanted = np.where(lead > 1.01 * margin * unit, margin * unit, 0.5 * lead)
    short = start < wanted
    stretch = np.full(t.size, 1.0 + 1e-3)
    for _ in range(CHORDS):
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(short, stretch * (wanted - start) / (lead - start), 0.0)
        nearer = found.lower + np.minimum(share, 1.0) * (t - found.lower)
        nearer_lead = lead_of(_gaps(problem, parts, nearer))
        good = (nearer_lead >= wanted) & (nearer < t)
        t, lead = np.where(good, nearer, t), np.where(good, nearer_lead, lead)
        # Where rounding hides the margin, a little more shows it.
        stretch = np.where(good, 1.0 + 1e-3, 10.0 * stretch)
    return t


def _gaps(problem: IncentiveProblem, parts: Cut, t: FloatArray) -> FloatArray:
    """By how much (C, S, A) each response beats every other action in the states it visits."""
    lines, found, equals = parts
    followers = problem.followers
    owner = lines.owner[found.line]
    spread = lines.base[found.line] + t[:, None] * lines.direction[found.line]
    rewards = followers.rewards[owner] + side_payments(problem, owner, spread)
    count, states = found.actions.shape
    values = np.empty((count, states))
    q_values = np.empty(rewards.shape)
    bellman.best_responses(
        repeat(followers.packed, owner),
        rewards,
        found.actions.copy(),
        values,
        q_values,
        np.empty(count),
        np.empty(count, np.int64),
    )
    taken = np.maximum(found.laws, 0)
    rivals = equals[found.line] != taken[:, :, None]
    rivals &= (found.laws >= 0)[:, :, None]
    own = np.take_along_axis(q_values, taken[:, :, None], axis=2)
    return np.where(rivals, own - q_values, np.inf)


def weak_search(
    problem: IncentiveProblem,
    method: SearchSettings,
    margin: float,
    before: Recovered,
    strong: RegimePoint,
) -> GuardedPoint:
    """Look for payments with a larger guaranteed objective than ``before``.

    ``strong`` is what a search from there has found for ties broken in the leader's favour.
    Payments shared between followers are only raised by the margin, from the best ones for those.
    """
    favoured = recover(problem, strong.payments, strong.policies, polish=False)
    best = max(
        with_margin(problem, before, margin),
        with_margin(problem, favoured, margin),
        key=lambda each: each.pessimistic.objective,
    )
    if problem.payments.shared:
        return GuardedPoint(best, strong.entries, strong.sweeps, False)
    rng = np.random.default_rng(method.rng)
    several = with_several(problem)
    lines = coordinate_lines(problem, before.payments)
    if several.size:
        lines = join(lines, first_lines(problem, method, rng, several))
    sweeps = strong.sweeps
    for _ in range(ROUNDS if several.size else 1):
        guarded = guarded_menus(problem, lines, margin)
        search = GuardedSearch(problem, guarded)
        pick, _ = search.from_starts(
            method.starts, problem.n <= method.pairs, rng, best.payments, best.policies, []
        )
        sweeps += search.sweeps
        found = recover(problem, search.payments(pick), search.policies(pick), polish=False)
        if not better(found.pessimistic.objective, best.pessimistic.objective):
            break
        best = found
        if several.size:
            lines = join(lines, new_lines(problem, method, rng, several, best.payments))
    menus = guarded.menus
    objective = best.pessimistic.objective
    complete = certain(problem, menus.complete, menus.tail, objective)
    return GuardedPoint(best, menus.owner.size, sweeps, complete)


def with_margin(problem: IncentiveProblem, point: Recovered, margin: float) -> Recovered:
    """Buy the same responses with a margin, if that guarantees more."""
    unit = float(unit_of_reward(problem, problem.payments.lower).min())
    try:
        payments = cheapest_payments(problem, point.policies, margin * unit).payments
    except InfeasiblePolicyError:
        return point
    found = recover(problem, payments, point.policies, polish=False)
    return max(point, found, key=lambda each: each.pessimistic.objective)
