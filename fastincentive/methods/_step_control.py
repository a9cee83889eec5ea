"""Step sizes that adapt: longer on a straight way, shorter where iterates only chatter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray

__all__ = ["Pace", "distance", "ends_window", "judge", "start_pace"]

#: Progress is judged over this many iterations.
WINDOW = 25
#: Bounds of the factor on the steps.
SHORTEST, LONGEST = 2.0**-12, 16.0
#: Gaps below this, in units of reward, are small; larger ones must shrink from window to window.
SMALL_GAP = 1e-4


class Pace(NamedTuple):
    """The factor on the steps, and what the current window of iterations has seen."""

    factor: float
    merit: float  # smallest residual before this window
    window_merit: float  # and in it
    gap: float  # largest gap in the last window
    window_gap: float  # and in this one
    anchor: FloatArray  # (k,) payments at its start
    policy_anchor: FloatArray  # (n, S, A)
    last: FloatArray  # (k,) payments at the last iterate
    last_policies: FloatArray  # (n, S, A)
    path: float  # length of the path since its start


def start_pace(payments: FloatArray, policies: FloatArray) -> Pace:
    """Full steps, nothing seen."""
    return Pace(1.0, np.inf, np.inf, np.inf, 0.0, payments, policies, payments, policies, 0.0)


def distance(
    first: tuple[FloatArray, FloatArray],
    second: tuple[FloatArray, FloatArray],
    unit: FloatArray,
    visited: NDArray[np.bool_],
) -> float:
    """How far two points, payments (k,) and policies (n, S, A), are from each other.

    ``unit`` (k,) is the unit of each payment, ``visited`` (n, S) tells which rows matter.
    """
    rows = np.abs(first[1] - second[1]).sum(axis=2)
    return float((np.abs(first[0] - second[0]) / unit).sum() + rows[visited].sum())


def ends_window(iteration: int) -> bool:
    """Whether progress is judged at this iteration."""
    return (iteration + 1) % WINDOW == 0


def judge(
    pace: Pace,
    iteration: int,
    merit: float,
    gap: float,
    step: float,
    travelled: float,
    payments: FloatArray,
    policies: FloatArray,
) -> tuple[Pace, bool]:
    """Record an iterate; at the end of a window set the factor, and say whether the run stalled.

    ``gap`` is the largest gap in units of reward, ``step`` the distance from the last iterate and,
    at the end of a window, ``travelled`` that from its start.
    """
    path = pace.path + step
    best = min(pace.window_merit, merit)
    worst = max(pace.window_gap, gap)
    pace = pace._replace(
        last=payments, last_policies=policies, path=path, window_merit=best, window_gap=worst
    )
    if not ends_window(iteration):
        return pace, False
    factor, stalled = pace.factor, False
    chatters = best > 0.7 * pace.merit and travelled <= 0.3 * path
    circles = worst > SMALL_GAP and worst > 0.5 * pace.gap and iteration > 8 * WINDOW
    if chatters or circles:
        stalled = chatters and factor <= SHORTEST
        factor = max(0.5 * factor, SHORTEST)
    elif worst <= SMALL_GAP and travelled >= 0.9 * path > 0.0:
        factor = min(2.0 * factor, LONGEST)
    elif worst > SMALL_GAP:
        factor = min(factor, 1.0)
    start = start_pace(payments, policies)
    return start._replace(factor=factor, merit=min(best, pace.merit), gap=worst), stalled
