"""How far an iterate of Algorithm 1 is from stationary, and how long the next step may be."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.methods._ascent_direction import Change, Iterate, Movement, longest_step
from fastincentive.methods._state import SMALLEST_VISITS, AscentState
from fastincentive.methods._step_control import (
    StepController,
    controlled,
    distance,
    ends_stretch,
)
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.queries import Query, Summary

__all__ = ["Progress", "progress_steps"]


class Progress(NamedTuple):
    """What the shards know of an iteration together."""

    residual: float  # largest change per unit step and visit, in units of reward
    largest_gap: float  # in units of reward
    cost: float  # C of all followers
    damping: FloatArray  # (n,) share of the step to take
    visited: NDArray[np.bool_]  # (n, S)
    controller: StepController
    stalled: bool


def progress_steps(
    problem: ProblemPart,
    state: AscentState,
    at: Iterate,
    move: Movement,
    change: Change,
    payment_unit: FloatArray,
    together: bool,
) -> Generator[Query, Any, Progress]:
    """Measure a change that is about to be made.

    ``payment_unit`` (k,) is the unit of reward of each payment, ``together`` tells that all
    followers take the same share of the step.
    """
    unit = state.unit if move.natural else np.ones(problem.followers.n)
    # Rows count by their visits, as in the norm of the gradient.
    visited = at.values.visits > SMALLEST_VISITS
    row_size = np.abs(change.rows).max(axis=2, where=visited[:, :, None], initial=0.0)
    paid = np.abs(change.payments) / np.maximum(move.payments.scaling, 1e-300)
    damping = longest_step(problem, move, change, row_size, unit)
    gaps = at.best_values - at.start_values
    controller, here = state.controller, (at.payments, at.policies)
    unit_paid = np.where(problem.payments.counted, np.maximum(payment_unit, 1e-300), np.inf)
    before = (controller.last, controller.last_policies)
    lengths = [distance(here, before, unit_paid, visited)]
    if ends_stretch(state.iteration):
        start = (controller.anchor, controller.policy_anchor)
        lengths.append(distance(here, start, unit_paid, visited))
    largest, summed, cost = yield Summary(
        np.array(
            [
                (row_size * np.minimum(at.values.visits, 1.0)).max(),
                paid.max(initial=0.0),
                (np.abs(gaps) / state.unit).max(),
                (gaps / state.unit).max(),
                -damping.min(),
            ]
        ),
        np.array([by_payment for by_payment, _ in lengths]),
        np.array([by_follower for _, by_follower in lengths]),
        problem.variables,
        at.payments,
        at.cost.spent,
    )
    if together:
        damping[:] = -largest[4]
    residual = float(largest[:2].max())
    controller, stalled = controlled(
        controller,
        state.iteration,
        residual + float(largest[2]),
        float(largest[3]),
        float(summed[0]),
        float(summed[-1]),
        *here,
    )
    return Progress(residual, float(largest[3]), cost, damping, visited, controller, stalled)
