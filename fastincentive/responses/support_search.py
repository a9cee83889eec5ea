"""Cheapest supporting payments: Newton steps, linear programmes, mixtures of corners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import InputError
from fastincentive.kernels.packed import TIE
from fastincentive.problem.bound_payments import BoundPayments
from fastincentive.responses.support_programme import SupportProgramme
from fastincentive.responses.support_task import BoolArray, SupportTask

__all__ = ["minimise_cost", "one_payment_each", "support_at_prices", "verified"]

#: A non-linear cost is minimised to this relative gap.
COST_GAP = 1e-9


def one_payment_each(payments: BoundPayments) -> bool:
    """Whether each follower has at most one payment, its own."""
    return payments.reach.shape[1] == 1 and not payments.shared


def support_at_prices(
    task: SupportTask, prices: FloatArray, fallback: FloatArray
) -> tuple[FloatArray, BoolArray]:
    """As ``_support``, for the cost prices . x; the unsupported keep ``fallback``."""
    if one_payment_each(task.payments):
        try:
            return _by_newton(task, fallback)
        except InputError:
            # At discount 1 some margin would be earned for ever: the programmes find out whose.
            if not task.bonus.any():
                raise
    return _by_linear_programme(task, prices, fallback)


def _by_newton(task: SupportTask, fallback: FloatArray) -> tuple[FloatArray, BoolArray]:
    """One payment per follower: raise it from the lower bound to the first root of the gap."""
    payments = task.payments
    paid = payments.reach[:, 0] >= 0
    variable = payments.reach[paid, 0]
    unit = task.unit(fallback)
    x = payments.lower.copy()
    feasible = np.ones(task.followers.n, bool)
    for _ in range(500):
        gap, slope = task.gap_and_slope(x, feasible)
        open_gap = feasible & (gap > 1e-13 * unit)
        # Where more payment does not close the gap, no payment supports the policy.
        stuck = open_gap & (~paid | (slope[:, 0] <= 1e-12))
        feasible &= ~(stuck & (gap > TIE * unit))
        open_gap &= ~stuck
        if not open_gap.any():
            break
        raised = np.where(open_gap, gap / np.where(open_gap, slope[:, 0], 1.0), 0.0)[paid]
        before = x[variable]
        above = before + raised
        x[variable] = np.minimum(above, payments.upper[variable])
        feasible[paid] &= above <= payments.upper[variable] * (1.0 + 1e-14)
        if (x[variable] == before).all():
            feasible &= gap <= TIE * unit
            break
    else:
        feasible &= gap <= TIE * unit
    keep = np.zeros(payments.size, bool)
    keep[variable[feasible[paid]]] = True
    return np.where(keep, x, fallback), feasible


def _by_linear_programme(
    task: SupportTask, prices: FloatArray, fallback: FloatArray
) -> tuple[FloatArray, BoolArray]:
    payments = task.payments
    x = fallback.copy()
    feasible = np.zeros(task.followers.n, bool)
    for group in task.payments.groups:
        programme = SupportProgramme(task, group)
        amounts = programme.solve(prices)
        if amounts is not None:
            x[programme.variables] = amounts
            feasible[group] = True
    x, feasible = verified(task, x, feasible)
    out = fallback.copy()
    bought = payments.reaching(feasible)
    out[bought] = x[bought]
    return out, feasible


def verified(task: SupportTask, x: FloatArray, feasible: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Payments rid of the solver's error, and for whom of ``feasible`` they are exact."""
    x = _close_gaps(task, x, feasible)
    gap, _ = task.gap_and_slope(x, feasible)
    exact = feasible & (gap <= TIE * task.unit(x))
    for group in task.payments.groups:
        exact[group] &= exact[group].all()
    return x, exact


def _close_gaps(task: SupportTask, x: FloatArray, feasible: BoolArray) -> FloatArray:
    """Remove the programme's own error: the nearest payments on the lines that the gaps show.

    Each gap is a maximum of lines in x; the violated ones are collected, and the least change
    that satisfies them all is a least-distance programme.
    """
    payments = task.payments
    unit = task.unit(x)
    origin = x.copy()
    groups = task.payments.groups
    lines: list[list[tuple[FloatArray, float]]] = [[] for _ in groups]
    for _ in range(50):
        gap, slope = task.gap_and_slope(x, feasible)
        open_gap = feasible & (gap > 1e-13 * unit) & (np.abs(slope).max(axis=1) > 1e-12)
        if not open_gap.any():
            break
        x = x.copy()
        for group, known in zip(groups, lines, strict=True):
            variables = payments.reaching(group)
            fresh = [i for i in group if open_gap[i]]
            for i in fresh:
                row = np.zeros(payments.size)
                paid = payments.reach[i] >= 0
                row[payments.reach[i, paid]] = slope[i, paid]
                known.append((row[variables], gap[i] + row @ (x - origin)))
            if fresh:
                x[variables] = _nearest_on_lines(payments, variables, origin, known)
    return x


def _nearest_on_lines(
    payments: BoundPayments,
    variables: NDArray[np.int64],
    origin: FloatArray,
    lines: Sequence[tuple[FloatArray, float]],
) -> FloatArray:
    """Nearest allowed payments to the origin's with row @ change >= value for each line.

    Solved as non-negative least squares (Lawson and Hanson, Solving Least Squares Problems,
    chapter 23).
    """
    from scipy.optimize import nnls

    here, lower, upper = origin[variables], payments.lower[variables], payments.upper[variables]
    finite = np.isfinite(upper)
    eye = np.eye(variables.size)
    values = np.array([value for _, value in lines])
    rows = np.vstack([[row for row, _ in lines], eye, -eye[finite]])
    least = np.concatenate([values, lower - here, (here - upper)[finite]])
    scale = np.abs(values).max()
    dual = np.vstack([rows.T, least[None, :] / scale])
    goal = np.zeros(variables.size + 1)
    goal[-1] = 1.0
    rest = dual @ nnls(dual, goal)[0] - goal
    change = -scale * rest[:-1] / rest[-1] if rest[-1] < 0.0 else 0.0
    return np.clip(here + change, lower, upper)


def minimise_cost(task: SupportTask, x: FloatArray) -> FloatArray:
    """Minimise a convex cost: mix corners of the feasible set, each the cheapest at some prices.

    At the end no corner is cheaper than the mixture by more than ``COST_GAP``, at its own prices.
    """
    programmes = [SupportProgramme(task, group) for group in task.payments.groups]
    corners = x[None, :]
    weights = np.ones(1)
    for _ in range(20 + 4 * x.size):
        prices = task.prices(x)
        corner = x.copy()
        for programme in programmes:
            amounts = programme.solve(prices)
            if amounts is not None:
                corner[programme.variables] = amounts
        if prices @ (x - corner) <= COST_GAP * abs(task.cost(x)):
            break
        corners = np.vstack([corners[weights > 0], corner])
        weights = _best_mixture(task, corners, np.append(weights[weights > 0], 0.0))
        x = weights @ corners
    return x


def _best_mixture(task: SupportTask, corners: FloatArray, weights: FloatArray) -> FloatArray:
    """Weights of the corners at which the cost of their mixture is least."""
    from scipy.optimize import minimize

    size = max(abs(task.cost(weights @ corners)), 1e-300)
    result = minimize(  # type: ignore[call-overload]
        lambda w: task.cost(w @ corners) / size,
        weights,
        jac=lambda w: corners @ task.prices(w @ corners) / size,
        bounds=[(0.0, 1.0)] * weights.size,
        constraints={
            "type": "eq",
            "fun": lambda w: w.sum() - 1.0,
            "jac": lambda w: np.ones(w.size),
        },
        method="SLSQP",
        options={"ftol": 1e-16, "maxiter": 200},
    )
    mixed = np.where(result.x > 1e-12, result.x, 0.0)
    return mixed / mixed.sum()
