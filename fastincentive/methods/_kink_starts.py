"""Where a climb may start: just beyond the kinks of the followers' exact best responses.

On a plateau payments only cost, and a climb goes down to its lower edge. So from a little beyond a
kink it finds the best payments for the response that begins there, and from before it never does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive.errors import InputError, MemoryLimitError
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menus import coordinate_lines, cut

__all__ = ["Looked", "kink_starts"]

#: Payments are moved this many temperatures beyond a kink.
BEYOND = (3.0, 12.0)
#: Points that are looked at.
MOST_LOOKS = 120
#: With more payments or states they would not go round, or kinks take long to list.
MOST_PAYMENTS, MOST_STATES = 40, 1_000
#: So many payments are looked at one by one at first; with more that leaves no looks for the rest.
MOST_ALONE = 12
#: Times that all payments are gone through, from each of the two first points.
SWEEPS = 3
#: Points whose leader's values differ by a smaller share lead to the same end.
SAME = 0.05


class Looked(NamedTuple):
    """What payments are worth to the leader, before and after their cost."""

    leader_value: float
    objective: float


def kink_starts(
    problem: IncentiveProblem,
    payments: FloatArray,
    look: Callable[[FloatArray], Looked | None],
    temperature: float,
    count: int,
) -> list[FloatArray]:
    """Find at most so many payments (k,) from which to climb, the most promising first.

    From the lower bounds and from ``payments`` one payment, then each in turn, is moved to the best
    of the points a little beyond its kinks. The best of all points looked at are returned, each of
    another leader's value. ``look`` answers None where payments are not allowed.
    """
    size = payments.size
    if count < 1 or size > MOST_PAYMENTS or problem.followers.n_states > MOST_STATES:
        return []
    seen: list[tuple[Looked, FloatArray]] = []

    def worth(x: FloatArray) -> float:
        found = look(x) if len(seen) < MOST_LOOKS else None
        if found is None:
            return -np.inf
        seen.append((found, x))
        return found.objective

    for first in (problem.payments.lower, payments):
        x = np.array(first, float)
        top = worth(x)
        for sweep in range(SWEEPS):
            before, base = top, x.copy()
            try:
                trials = _beyond_kinks(problem, base, temperature)
            except (InputError, MemoryLimitError):
                break  # unbounded at discount 1, or too many kinks
            for k in range(size):
                for value in trials[k].tolist():
                    # At first each payment alone, if they are few, then each in turn.
                    moved = (x if sweep or size > MOST_ALONE else base).copy()
                    moved[k] = value
                    reached = worth(moved)
                    if reached > top:
                        top, x = reached, moved
            if not top > before:
                break
    return _different(seen, count)


def _beyond_kinks(
    problem: IncentiveProblem, payments: FloatArray, temperature: float
) -> list[FloatArray]:
    """Values for each payment, the others as they are: its lower bound, and beyond its kinks."""
    bound = problem.payments
    lines, found, _ = cut(problem, coordinate_lines(problem, payments))
    column = lines.direction.argmax(axis=1)
    variable = np.where(lines.direction.any(axis=1), bound.reach[lines.owner, column], -1)
    kinks = found.lower
    trials = []
    for k in range(payments.size):
        own = bound.lower[k] + np.unique(kinks[(variable[found.line] == k) & (kinks > 0.0)])
        values = (own[:, None] + temperature * np.array(BEYOND)).reshape(-1)
        values = np.unique(np.append(values[values <= bound.upper[k]], bound.lower[k]))
        # Nearer to each other than a temperature they are the same to the followers.
        kept = [values[0]]
        for value in values[1:].tolist():
            if value - kept[-1] >= temperature:
                kept.append(value)
        trials.append(np.array(kept))
    return trials


def _different(seen: list[tuple[Looked, FloatArray]], count: int) -> list[FloatArray]:
    """Return the best points, each of another leader's value."""
    chosen: list[tuple[float, FloatArray]] = []
    for found, x in sorted(seen, key=lambda each: -each[0].objective):
        value = found.leader_value
        if all(abs(value - other) > SAME * max(1.0, abs(other)) for other, _ in chosen):
            chosen.append((value, x))
        if len(chosen) == count:
            break
    return [x for _, x in chosen]
