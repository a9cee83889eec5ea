"""The direction of Algorithm 1: constraints, scaled gradients, multipliers, and where a step ends.

A method hands over what it has evaluated, an ``Iterate``; ``Movement`` says how policies and
payments move along a gradient: projected, scaled by a preconditioner, over a step of which length.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.followers.followers import Followers, PolicyValues, ResponseValues
from fastincentive.followers.parameterization import Direct, Parameterization, Softmax
from fastincentive.kernels import ascent_direction as kernels
from fastincentive.methods._cutting_planes import CuttingPlanes, add_planes
from fastincentive.methods._state import SMALLEST_VISITS
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.passes import LeaderPass
from fastincentive.problem.queries import Project, Query, SequentialReduce
from fastincentive.problem.spending import CostSlopes

__all__ = [
    "Change",
    "Constraints",
    "Iterate",
    "Movement",
    "constraints_at",
    "direction_steps",
    "longest_step",
    "next_payments_steps",
    "next_theta",
    "numbers_of",
    "scaled_rows",
]

#: A gap may open at this rate: without it, rounding alone would call for a multiplier.
ROUNDING = 1e-11
#: In one iteration rows of policies change by at most so much, payments by so many units of reward.
LARGEST_CHANGE = 0.2


class Iterate(NamedTuple):
    """A point (x, theta) with all that the gradients of f and q are made of."""

    payments: FloatArray  # (k,) x
    policies: FloatArray  # (n, S, A) pi_theta
    values: PolicyValues  # of the policies under R_i + x_i
    best: ResponseValues  # exact best responses
    reference: FloatArray  # (n, S, A) policies whose values stand for V_i*
    reference_values: PolicyValues
    start_values: FloatArray  # (n,) V_i
    best_values: FloatArray  # (n,) V_i*
    leader: LeaderPass
    cost: CostSlopes
    objective_gradient: FloatArray  # (n, S, A) df/dpi, every entry a free variable (eq. 7)


class Constraints(NamedTuple):
    """q_ij = V_i less plane j of V_i*, at an iterate."""

    slack: FloatArray  # (n, J) q_ij
    slopes: FloatArray  # (n, J, K) dq_ij/dx (eq. 12)
    active: NDArray[np.bool_]  # (n, J)


class Movement(NamedTuple):
    """How a step moves: the gradients scaled by the preconditioner D, projected over a step."""

    kind: int  # DIRECT, SOFTMAX or LINEAR
    step: float
    rows: kernels.Rows
    payments: kernels.PaymentSide
    natural: bool  # whether D is the natural gradient's: 1 / (visits x unit of reward)


class Change(NamedTuple):
    """What a step would change, divided by the step."""

    rows: FloatArray  # (n, S, A)
    payments: FloatArray  # (k,)


def constraints_at(
    problem: ProblemPart, at: Iterate, planes: CuttingPlanes, iteration: int
) -> tuple[CuttingPlanes, NDArray[np.bool_], Constraints]:
    """Add the reference's cutting planes, and return what each plane says of q_i.

    Also (n, J) bool: the slots that now hold another plane than before.
    """
    payments = problem.payments
    spread = payments.spread(at.payments)
    slope = payments.compress(at.values.visits[:, :, None] * at.policies)
    reference_slope = payments.compress(at.reference_values.visits[:, :, None] * at.reference)
    constant = at.best_values - (reference_slope * spread).sum(axis=1)
    planes, fresh = add_planes(planes, constant, reference_slope, iteration)
    slack = at.start_values[:, None] - planes.at(spread)
    slopes = slope[:, None, :] - planes.slope
    rounding = ROUNDING * (1.0 + np.abs(slope).max(axis=1, initial=0.0))
    slopes[np.abs(slopes) <= rounding[:, None, None]] = 0.0
    return planes, fresh, Constraints(slack, slopes, planes.active)


def scaled_rows(
    parameterization: Parameterization,
    followers: Followers,
    at: Iterate,
    unit: FloatArray,
    natural: bool,
    ambient: bool,
) -> tuple[int, kernels.Rows]:
    """How rows move, and along what: D grad f, D grad q, and grad q (eq. 13) for inner products."""
    visits = at.values.visits[:, :, None]
    available = followers.available
    advantage = np.where(available, at.values.q_values - at.values.values[:, :, None], 0.0)
    kind = kernels.DIRECT if isinstance(parameterization, Direct) else kernels.SOFTMAX
    if natural:
        scale = unit[:, None, None]
        objective = at.objective_gradient / (np.maximum(visits, SMALLEST_VISITS) * scale)
        return kind, kernels.Rows(objective, advantage / scale, visits * advantage, at.policies)
    q_values = np.where(available, at.values.q_values, 0.0)
    objective = parameterization.gradient(at.objective_gradient, at.policies)
    slopes = parameterization.gradient(visits * q_values, at.policies)
    if ambient:
        return kernels.LINEAR, kernels.Rows(objective, slopes, slopes, at.policies)
    if isinstance(parameterization, Softmax):
        # The kernel moves theta / tau, and measures the change in the policies.
        tau = parameterization.temperature
        rows = kernels.Rows(objective / tau, slopes / tau, visits * advantage, at.policies)
        return kind, rows
    return kind, kernels.Rows(objective, slopes, slopes, at.policies)


def direction_steps(
    problem: ProblemPart,
    move: Movement,
    constraints: Constraints,
    target: FloatArray,
    gradient: FloatArray,
    multipliers: FloatArray,
    joint: bool,
) -> Generator[Query, Any, Change]:
    """Find the smallest multipliers that let q_ij grow by ``target`` (n, J), and the change.

    ``gradient`` (k,) is grad_x f. ``multipliers`` (n, J) are the last ones, and are overwritten by
    the new ones.
    """
    payments, kind, step = problem.payments, move.kind, move.step
    row_change = np.empty(move.rows.points.shape)
    given = (problem, move, constraints, target, gradient, multipliers, row_change)
    if joint:
        gradient = _joint_multiplier(*given)
    elif payments.shared:
        gradient = yield from _shared_multipliers_steps(*given)
    else:
        gradient = _separate_multipliers(*given)
    change = np.empty(payments.size)
    kernels.move_payments(kind, step, gradient, move.payments, change)
    if payments.budget is not None and kind != kernels.LINEAR:
        start = move.payments.payments
        moved = yield Project(problem.variables, start + step * change)
        change = (moved - start) / step
    return Change(row_change, change)


def _joint_multiplier(
    problem: ProblemPart,
    move: Movement,
    constraints: Constraints,
    target: FloatArray,
    gradient: FloatArray,
    multipliers: FloatArray,
    row_change: FloatArray,
) -> FloatArray:
    """One multiplier over all followers (the paper's); returns grad_x f + lambda grad_x q."""
    packed, payments = problem.followers.packed, problem.payments
    slopes = _scatter(payments.reach, constraints.slopes[:, 0], payments.size)
    every, wanted = np.arange(payments.size), float(target[:, 0].sum())
    multipliers[:] = kernels.joint_direction(
        packed,
        move.kind,
        move.step,
        move.rows,
        gradient,
        slopes,
        every,
        move.payments,
        wanted,
        row_change,
    )
    return gradient + multipliers[0, 0] * slopes


def _separate_multipliers(
    problem: ProblemPart,
    move: Movement,
    constraints: Constraints,
    target: FloatArray,
    gradient: FloatArray,
    multipliers: FloatArray,
    row_change: FloatArray,
) -> FloatArray:
    """Multipliers of each follower, whose payments are its own; as above."""
    packed, reach = problem.followers.packed, problem.payments.reach
    slopes, active = constraints.slopes, constraints.active
    kernels.add_multipliers(reach, slopes, multipliers, gradient)
    kernels.separate_directions(
        packed,
        move.kind,
        move.step,
        move.rows,
        gradient,
        slopes,
        active,
        move.payments,
        target,
        multipliers,
        row_change,
    )
    return gradient


def _shared_multipliers_steps(
    problem: ProblemPart,
    move: Movement,
    constraints: Constraints,
    target: FloatArray,
    gradient: FloatArray,
    multipliers: FloatArray,
    row_change: FloatArray,
) -> Generator[Query, Any, FloatArray]:
    """Multipliers of followers that share payments: what one changes, the next one sees."""
    packed, reach, variables = problem.followers.packed, problem.payments.reach, problem.variables
    kind, step, rows = move.kind, move.step, move.rows
    slopes, active = constraints.slopes, constraints.active
    gradient, _ = yield SequentialReduce(variables, gradient, False)
    kernels.add_multipliers(reach, slopes, multipliers, gradient)
    gradient, _ = yield SequentialReduce(variables, gradient, True)
    for _ in range(kernels.SWEEPS):
        gradient, _ = yield SequentialReduce(variables, gradient, False)
        change = kernels.sweep_directions(
            packed, kind, step, rows, gradient, slopes, active, move.payments, target, multipliers
        )
        gradient, change = yield SequentialReduce(variables, gradient, True, change)
        if change <= kernels.SETTLED:
            break
    kernels.shared_directions(packed, kind, step, rows, multipliers, row_change)
    return gradient


def numbers_of(change: Change) -> tuple[Change, bool]:
    """Return the change with 0 for what no numbers came out of, and whether all did."""
    finite = bool(np.isfinite(change.rows).all() and np.isfinite(change.payments).all())
    if finite:
        return change, True
    return Change(*(np.where(np.isfinite(each), each, 0.0) for each in change)), False


def longest_step(
    problem: ProblemPart,
    move: Movement,
    change: Change,
    row_size: FloatArray,
    unit: FloatArray,
) -> FloatArray:
    """Share (n,) of the step that each follower's side takes; ``row_size`` (n, S) is its rows'."""
    if move.kind == kernels.LINEAR:
        return np.ones(unit.size)
    damping = LARGEST_CHANGE / np.maximum(move.step * row_size.max(axis=1), LARGEST_CHANGE)
    if move.natural:
        moved = np.abs(problem.payments.spread(change.payments)).max(axis=1) * move.step
        most = LARGEST_CHANGE * unit
        damping = np.minimum(damping, most / np.maximum(moved, most))
    return damping


def next_payments_steps(
    problem: ProblemPart, move: Movement, change: FloatArray, damping: FloatArray
) -> Generator[Query, Any, FloatArray]:
    """Payments (k,) after the step, projected on their bounds and the budget."""
    payments = problem.payments
    moved = move.payments.payments + move.step * payments.least(damping) * change
    if payments.budget is None:
        return payments.project(moved)
    moved = yield Project(problem.variables, moved)
    return moved


def next_theta(
    parameterization: Parameterization,
    followers: Followers,
    theta: FloatArray,
    move: Movement,
    change: FloatArray,
    visited: NDArray[np.bool_],
    damping: FloatArray,
) -> FloatArray:
    """Theta after the step; rows that are not visited follow the follower's own gradient."""
    step, rows = move.step, move.rows
    if move.kind == kernels.LINEAR:
        return parameterization.project(theta + step * change, followers)
    factor = np.where(visited, damping[:, None], 1.0)[:, :, None]
    moved = rows.points + step * factor * change
    drift = np.zeros(theta.shape)
    if move.natural:
        drift = np.where(visited[:, :, None], 0.0, step * rows.constraint)
    if isinstance(parameterization, Direct):
        return parameterization.project(moved + drift, followers)
    logits = np.log(np.maximum(moved, 1e-300)) + drift
    return parameterization.from_logits(logits, followers.available)


def _scatter(reach: NDArray[np.int64], values: FloatArray, size: int) -> FloatArray:
    """Sum per-follower entries (n, K) into the payments (k,)."""
    known = reach >= 0
    return np.bincount(reach[known], weights=values[known], minlength=size).astype(float)
