"""Step sizes that adapt: longer on a straight path, shorter where iterates go to and fro."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray

__all__ = ["StepController", "controlled", "distance", "ends_stretch", "first_controller"]

#: Progress is judged over this many iterations, and whether the path is straight over so many.
WINDOW, STRETCH = 25, 5
#: A path is straight whose ends are at least this share of its length apart.
STRAIGHT = 0.99
#: Bounds of the factor on the steps.
SHORTEST, LONGEST = 2.0**-12, 16.0
#: Gaps below this, in units of reward, are small; larger ones must shrink from window to window.
SMALL_GAP = 1e-4


class StepController(NamedTuple):
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


def first_controller(payments: FloatArray, policies: FloatArray) -> StepController:
    """Full steps, nothing seen."""
    return StepController(
        1.0, np.inf, np.inf, np.inf, 0.0, payments, policies, payments, policies, 0.0
    )


def distance(
    first: tuple[FloatArray, FloatArray],
    second: tuple[FloatArray, FloatArray],
    unit: FloatArray,
    visited: NDArray[np.bool_],
) -> tuple[FloatArray, FloatArray]:
    """How far two points are from each other: in each payment (k,), in each follower's policy (n,).

    ``unit`` (k,) is the unit of each payment, ``visited`` (n, S) tells which rows matter.
    """
    rows = np.abs(first[1] - second[1]).sum(axis=2)
    return np.abs(first[0] - second[0]) / unit, np.where(visited, rows, 0.0).sum(axis=1)


def ends_stretch(iteration: int) -> bool:
    """Whether progress is judged at this iteration, or whether the path is straight."""
    return (iteration + 1) % STRETCH == 0


def controlled(
    controller: StepController,
    iteration: int,
    merit: float,
    gap: float,
    step: float,
    travelled: float,
    payments: FloatArray,
    policies: FloatArray,
) -> tuple[StepController, bool]:
    """Record an iterate; at the end of a window set the factor, and say whether the run stalled.

    On a straight path a window ends with its first stretch. ``gap`` is the largest gap in units of
    reward, ``step`` the distance from the last iterate and, at the end of a stretch, ``travelled``
    that from the window's start.
    """
    path = controller.path + step
    best = min(controller.window_merit, merit)
    worst = max(controller.window_gap, gap)
    controller = controller._replace(
        last=payments, last_policies=policies, path=path, window_merit=best, window_gap=worst
    )
    factor, stalled = controller.factor, False
    straight = worst <= SMALL_GAP and travelled >= STRAIGHT * path > 0.0
    if (iteration + 1) % WINDOW and not (ends_stretch(iteration) and straight):
        return controller, False
    oscillates = best > 0.7 * controller.merit and travelled <= 0.3 * path
    circles = worst > SMALL_GAP and worst > 0.5 * controller.gap and iteration > 8 * WINDOW
    if oscillates or circles:
        stalled = oscillates and factor <= SHORTEST
        factor = max(0.5 * factor, SHORTEST)
    elif worst <= SMALL_GAP and travelled >= 0.9 * path > 0.0:
        factor = min(2.0 * factor, LONGEST)
    elif worst > SMALL_GAP:
        factor = min(factor, 1.0)
    start = first_controller(payments, policies)
    return start._replace(factor=factor, merit=min(best, controller.merit), gap=worst), stalled
