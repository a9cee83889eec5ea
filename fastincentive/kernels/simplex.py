"""Projections: simplex, its tangent cone, boxes and budgets; softmax rows and their gradients.

Simplex and tangent cone by dropping entries until the rest is feasible (Michelot, 1986); budgets by
bisection on the multiplier (the continuous quadratic knapsack problem). Those of rows act on the
available actions only and leave the others at 0: O(A) flops for each round, most often one or two.
Budgets take O(k) for each of some 60 bisections on k payments.
"""

from __future__ import annotations

import math

import numba

from fastincentive.kernels.jit import jit, parallel_jit

__all__ = [
    "project_box",
    "project_budget",
    "project_quadratic_budget",
    "project_row",
    "project_rows",
    "softmax_gradients",
    "softmax_policies",
    "tangent_row",
    "tangent_rows",
]


@jit
def project_row(row, available, out):
    """Euclidean projection of ``row`` on the simplex over its available entries."""
    count = row.shape[0]
    active = 0
    total = 0.0
    for a in range(count):
        out[a] = 0.0
        if available[a]:
            out[a] = 1.0
            active += 1
            total += row[a]
    # Drop entries below the threshold until none is left: exact, at most A rounds.
    level = (total - 1.0) / active
    dropped = True
    while dropped:
        dropped = False
        for a in range(count):
            if out[a] == 1.0 and row[a] <= level and active > 1:
                out[a] = 0.0
                active -= 1
                total -= row[a]
                dropped = True
        if dropped:
            level = (total - 1.0) / active
    total = 0.0
    for a in range(count):
        if out[a] == 1.0:
            out[a] = max(row[a] - level, 0.0)
            total += out[a]
    if total == 0.0:
        # Entries so large that a unit is lost in them: only the largest ones have a share.
        top = -math.inf
        for a in range(count):
            if available[a]:
                top = max(top, row[a])
        for a in range(count):
            if available[a] and row[a] == top:
                out[a] = 1.0
                total += 1.0
    for a in range(count):
        out[a] /= total


@jit
def tangent_row(direction, point, available, out):
    """Projection of ``direction`` on the simplex's tangent cone at ``point``.

    The cone: entries sum to 0, entries at the boundary (``point`` 0) are not negative.
    """
    count = direction.shape[0]
    active = 0
    total = 0.0
    for a in range(count):
        out[a] = 0.0
        if available[a]:
            out[a] = 1.0
            active += 1
            total += direction[a]
    level = total / active
    dropped = True
    while dropped:
        dropped = False
        for a in range(count):
            if out[a] == 1.0 and point[a] <= 0.0 and direction[a] < level:
                out[a] = 0.0
                active -= 1
                total -= direction[a]
                dropped = True
        if dropped:
            level = total / active
    for a in range(count):
        if out[a] == 1.0:
            out[a] = direction[a] - level


@parallel_jit
def project_rows(rows, available, model, out):
    """``project_row`` for every follower and state; ``available`` is (M,S,A)."""
    for i in numba.prange(rows.shape[0]):
        for s in range(rows.shape[1]):
            project_row(rows[i, s], available[model[i], s], out[i, s])


@parallel_jit
def tangent_rows(directions, points, available, model, out):
    """``tangent_row`` for every follower and state; ``available`` is (M,S,A)."""
    for i in numba.prange(directions.shape[0]):
        for s in range(directions.shape[1]):
            tangent_row(directions[i, s], points[i, s], available[model[i], s], out[i, s])


@jit
def project_box(vector, lower, upper, out):
    """Euclidean projection on ``lower <= x <= upper``."""
    for k in range(vector.shape[0]):
        out[k] = min(max(vector[k], lower[k]), upper[k])


@jit
def project_budget(vector, lower, upper, prices, budget, out):
    """Euclidean projection on ``lower <= x <= upper`` with ``prices @ x <= budget``.

    Bisection on the budget's multiplier, then the exact multiplier on the entries left free.
    """
    count = vector.shape[0]
    low = 0.0
    high = 0.0
    spent = 0.0
    for k in range(count):
        out[k] = min(max(vector[k], lower[k]), upper[k])
        spent += prices[k] * out[k]
        if prices[k] > 0.0:
            high = max(high, (vector[k] - lower[k]) / prices[k])
    if spent <= budget:
        return
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle <= low or middle >= high:
            break
        spent = 0.0
        for k in range(count):
            spent += prices[k] * min(max(vector[k] - middle * prices[k], lower[k]), upper[k])
        if spent > budget:
            low = middle
        else:
            high = middle
    square = 0.0
    rest = budget
    for k in range(count):
        shifted = vector[k] - high * prices[k]
        if lower[k] < shifted < upper[k]:
            square += prices[k] * prices[k]
            rest -= prices[k] * vector[k]
        else:
            rest -= prices[k] * min(max(shifted, lower[k]), upper[k])
    multiplier = -rest / square if square > 0.0 else high
    for k in range(count):
        out[k] = min(max(vector[k] - multiplier * prices[k], lower[k]), upper[k])


@jit
def shrink(vector, lower, upper, prices, curvature, multiplier, out):
    """Minimiser of |x - vector|^2 / 2 + multiplier cost(x) in the box; returns its cost."""
    spent = 0.0
    for k in range(vector.shape[0]):
        moved = (vector[k] - multiplier * prices[k]) / (1.0 + 2.0 * multiplier * curvature[k])
        out[k] = min(max(moved, lower[k]), upper[k])
        spent += (prices[k] + curvature[k] * out[k]) * out[k]
    return spent


@jit
def project_quadratic_budget(vector, lower, upper, prices, curvature, budget, out):
    """Projection on ``0 <= lower <= x <= upper`` with ``prices @ x + curvature @ x^2 <= budget``.

    Prices and curvature are >= 0, so the cost of the shrunken vector falls with the budget's
    multiplier: bisection to the last bit, on the side that keeps the budget.
    """
    if shrink(vector, lower, upper, prices, curvature, 0.0, out) <= budget:
        return
    low = 0.0
    high = 1.0
    while shrink(vector, lower, upper, prices, curvature, high, out) > budget and high < 1e300:
        low = high
        high = 2.0 * high
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle <= low or middle >= high:
            break
        if shrink(vector, lower, upper, prices, curvature, middle, out) > budget:
            low = middle
        else:
            high = middle
    shrink(vector, lower, upper, prices, curvature, high, out)


@parallel_jit
def softmax_policies(theta, tau, available, model, out):
    """pi(a|s) = exp(theta / tau) / sum, in the log domain, over the available actions."""
    for i in numba.prange(theta.shape[0]):
        for s in range(theta.shape[1]):
            best = -math.inf
            for a in range(theta.shape[2]):
                if available[model[i], s, a]:
                    best = max(best, theta[i, s, a])
            total = 0.0
            for a in range(theta.shape[2]):
                p = 0.0
                if available[model[i], s, a]:
                    p = math.exp((theta[i, s, a] - best) / tau)
                out[i, s, a] = p
                total += p
            for a in range(theta.shape[2]):
                out[i, s, a] /= total


@parallel_jit
def softmax_gradients(gradients, policies, tau, out):
    """Gradient in theta from the gradient in pi (eq. 16): pi / tau (g - sum_b pi_b g_b)."""
    for i in numba.prange(policies.shape[0]):
        for s in range(policies.shape[1]):
            mean = 0.0
            for a in range(policies.shape[2]):
                if policies[i, s, a] > 0.0:
                    mean += policies[i, s, a] * gradients[i, s, a]
            for a in range(policies.shape[2]):
                p = policies[i, s, a]
                out[i, s, a] = p / tau * (gradients[i, s, a] - mean) if p > 0.0 else 0.0
