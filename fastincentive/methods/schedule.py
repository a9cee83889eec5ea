"""Step sizes that adapt: longer on a straight way, shorter where iterates only chatter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive.mdp import FloatArray

__all__ = ["Pace", "judge", "start_pace"]

#: Progress is judged over this many iterations.
WINDOW = 25
#: Bounds of the factor on the steps.
SHORTEST, LONGEST = 2.0**-12, 16.0


class Pace(NamedTuple):
    """The factor on the steps, and what the current window of iterations has seen."""

    factor: float
    merit: float  # smallest residual before this window
    window_merit: float  # and in it
    anchor: FloatArray  # (k,) payments at its start
    policy_anchor: FloatArray  # (n, S, A)
    last: FloatArray  # (k,) payments at the last iterate
    last_policies: FloatArray  # (n, S, A)
    path: float  # length of the path since its start


def start_pace(payments: FloatArray, policies: FloatArray) -> Pace:
    """Full steps, nothing seen."""
    return Pace(1.0, np.inf, np.inf, payments, policies, payments, policies, 0.0)


def judge(
    pace: Pace,
    iteration: int,
    merit: float,
    payments: FloatArray,
    policies: FloatArray,
    unit: FloatArray,
    visited: NDArray[np.bool_],
    feasible: bool,
) -> tuple[Pace, bool]:
    """Record an iterate; at the end of a window set the factor, and say whether the run stalled.

    ``unit`` (k,) is the unit of each payment, ``visited`` (n, S) tells which rows matter,
    ``feasible`` whether the gaps are small.
    """

    def distance(x: FloatArray, p: FloatArray, y: FloatArray, r: FloatArray) -> float:
        rows = np.abs(p - r).sum(axis=2)
        return float((np.abs(x - y) / unit).sum() + rows[visited].sum())

    path = pace.path + distance(payments, policies, pace.last, pace.last_policies)
    best = min(pace.window_merit, merit)
    pace = pace._replace(last=payments, last_policies=policies, path=path, window_merit=best)
    if (iteration + 1) % WINDOW:
        return pace, False
    travelled = distance(payments, policies, pace.anchor, pace.policy_anchor)
    factor, stalled = pace.factor, False
    if path > 0.0 and travelled >= 0.9 * path and feasible:
        factor = min(2.0 * factor, LONGEST)
    elif best > 0.7 * pace.merit and travelled <= 0.3 * path:
        stalled = factor <= SHORTEST
        factor = max(0.5 * factor, SHORTEST)
    elif not feasible:
        factor = min(factor, 1.0)
    start = start_pace(payments, policies)
    return start._replace(factor=factor, merit=min(best, pace.merit)), stalled
