"""Algorithm 1's direction: the smallest multipliers that keep every follower's gap closing.

With u(lambda) = D (grad f + sum lambda_ij grad q_ij), the direction v is the change of the point
over a step along u, divided by the step: the projection on the feasible set for a direct policy
and for payments (it tends to the projection on the tangent cone as the step goes to 0), the move
of the softmax for a softmax policy. lambda is the smallest with <grad q_ij, v> >= phi_ij for each
follower i and each cutting plane j of its V*. Each left side is non-decreasing in its own
lambda_ij, so a safeguarded Newton iteration solves it; several planes, or payments shared by
followers, are swept in turn (coordinate ascent on the dual of the quadratic programme that v
solves).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit
from fastincentive.kernels.simplex import project_row

__all__ = [
    "DIRECT",
    "LINEAR",
    "SETTLED",
    "SOFTMAX",
    "SWEEPS",
    "PaymentSide",
    "Rows",
    "add_multipliers",
    "constraint_norms",
    "joint_direction",
    "move_payments",
    "separate_directions",
    "shared_directions",
    "sweep_directions",
]

#: How a row of policy parameters moves.
DIRECT, SOFTMAX, LINEAR = 0, 1, 2
#: Multipliers stop here: beyond, a constraint has no direction left that improves it.
LARGEST = 1e9
#: Sweeps over multipliers that couple, and the relative change at which they end.
SWEEPS, SETTLED = 3, 1e-6
#: How far below a multiplier, relative to it, the function is tried for being flat.
BELOW = 1e-9


class Rows(NamedTuple):
    """The policy side of the direction, each (n, S, A)."""

    objective: np.ndarray  # D grad f
    constraint: np.ndarray  # D grad q
    slopes: np.ndarray  # grad q, for inner products
    points: np.ndarray  # the policies


class PaymentSide(NamedTuple):
    """The payment side of the direction."""

    reach: np.ndarray  # (n, K) payments of each follower, -1 after the last
    scaling: np.ndarray  # (k,) D
    payments: np.ndarray  # (k,)
    lower: np.ndarray  # (k,)
    upper: np.ndarray  # (k,)


@jit
def row_step(kind, step, multiplier, objective, constraint, point, available, work, out):
    """Change of one row over a step along objective + multiplier constraint, over the step.

    DIRECT: Euclidean projection on the simplex; SOFTMAX: theta / tau moves; LINEAR: no limit.
    """
    actions = objective.shape[0]
    if kind == LINEAR:
        for a in range(actions):
            out[a] = objective[a] + multiplier * constraint[a]
        return
    if kind == DIRECT:
        for a in range(actions):
            work[a] = point[a] + step * (objective[a] + multiplier * constraint[a])
        project_row(work, available, out)
    else:
        best = -math.inf
        for a in range(actions):
            if point[a] > 0.0:
                work[a] = step * (objective[a] + multiplier * constraint[a]) + math.log(point[a])
                best = max(best, work[a])
        total = 0.0
        for a in range(actions):
            out[a] = math.exp(work[a] - best) if point[a] > 0.0 else 0.0
            total += out[a]
        for a in range(actions):
            out[a] /= total
    for a in range(actions):
        out[a] = (out[a] - point[a]) / step


@jit
def rows_pairing(packed, i, kind, step, multiplier, rows, work, out):
    """<grad q, change of follower i's rows>, and its derivative in the multiplier."""
    _, states, actions = rows.objective.shape
    available = packed.available[packed.model[i]]
    total = 0.0
    growth = 0.0
    for s in range(states):
        slopes = rows.slopes[i, s]
        constraint = rows.constraint[i, s]
        seen = False
        for a in range(actions):
            seen = seen or slopes[a] != 0.0
        if not seen:
            continue
        row_step(
            kind,
            step,
            multiplier,
            rows.objective[i, s],
            constraint,
            rows.points[i, s],
            available[s],
            work,
            out,
        )
        # The derivative of the row: constraint less its mean, weighted by what can still move.
        mean = 0.0
        weight = 0.0
        for a in range(actions):
            work[a] = 0.0
            if available[s, a]:
                after = rows.points[i, s, a] + step * out[a]
                if kind == LINEAR:
                    work[a] = 1.0
                elif kind == SOFTMAX:
                    work[a] = after
                elif after > 0.0:
                    work[a] = 1.0
                mean += work[a] * constraint[a]
                weight += work[a]
        mean = 0.0 if kind == LINEAR else mean / weight
        for a in range(actions):
            total += slopes[a] * out[a]
            growth += work[a] * slopes[a] * (constraint[a] - mean)
    return total, growth


@jit
def payment_step(kind, step, k, slope, side):
    """Change of one payment over a step, divided by the step; it stops at its bounds."""
    v = side.scaling[k] * slope
    if kind == LINEAR:
        return v
    moved = min(max(side.payments[k] + step * v, side.lower[k]), side.upper[k])
    return (moved - side.payments[k]) / step


@jit
def payments_pairing(kind, step, multiplier, reach, base, own, side):
    """<own, change of the payments> along ``base + multiplier own``, and its derivative."""
    total = 0.0
    growth = 0.0
    for c in range(reach.shape[0]):
        k = reach[c]
        if k >= 0 and own[c] != 0.0:
            v = payment_step(kind, step, k, base[c] + multiplier * own[c], side)
            total += own[c] * v
            if v != 0.0:
                growth += own[c] * own[c] * side.scaling[k]
    return total, growth


class Bracket(NamedTuple):
    """Where the smallest multiplier lies, and the next one to try."""

    low: float  # too small
    low_error: float  # what is lacking there
    low_growth: float  # the derivative there
    high: float  # large enough
    guess: float
    done: bool


@jit
def unbounded():
    """Nothing is known yet; the first guess is 0."""
    return Bracket(-1.0, 0.0, 0.0, math.inf, 0.0, False)


@jit
def narrow(known, error, growth, target):
    """One step of the search for the smallest multiplier, for a non-decreasing function.

    Newton's step from the guess, kept inside the bracket. Once at the target, a point just below
    is tried: where that is at the target, too, the function is flat, and steps from the low side
    end at the left end of the flat part.
    """
    low, low_error, low_growth, high, guess, _ = known
    trial = math.inf
    if error >= 0.0:
        tried = guess >= high * (1.0 - 2.0 * BELOW)
        high = guess
        there = error <= 1e-10 * max(abs(target), 1e-10)
        if guess == 0.0 or (there and low >= guess * (1.0 - 2.0 * BELOW)):
            return Bracket(low, low_error, low_growth, high, guess, True)
        if there and not tried:
            trial = guess * (1.0 - BELOW)
        elif there and low_growth > 0.0:
            trial = low - low_error / low_growth
        elif growth > 0.0:
            trial = guess - error / growth
    else:
        low, low_error, low_growth = guess, error, growth
        if guess >= LARGEST:
            return Bracket(low, low_error, low_growth, high, guess, True)
        if growth > 0.0:
            trial = guess - error / growth
    if not low < trial < high:
        trial = 0.5 * (max(low, 0.0) + high) if high < math.inf else max(2.0 * guess, 1e-6)
    trial = min(max(trial, 0.0), LARGEST)
    if low >= high * (1.0 - 2.0 * BELOW):
        return Bracket(low, low_error, low_growth, high, high, True)
    done = abs(trial - guess) <= 1e-13 * guess
    return Bracket(low, low_error, low_growth, high, trial, done)


@jit
def find_multiplier(packed, i, kind, step, before, rows, base, own, side, target, work, out):
    """Smallest multiplier >= 0 of one of follower i's constraints, the others fixed.

    ``before`` is the sum of the follower's other multipliers (they share ``rows.constraint``);
    ``base`` (K,) the payment gradient without this constraint, ``own`` (K,) this constraint's.
    """
    known = unbounded()
    for _ in range(100):
        guess = known.guess
        value, growth = rows_pairing(packed, i, kind, step, before + guess, rows, work, out)
        paid, slope = payments_pairing(kind, step, guess, side.reach[i], base, own, side)
        known = narrow(known, value + paid - target, growth + slope, target)
        if known.done:
            return known.guess
    return known.high if known.high < math.inf else known.guess


@jit
def sweep_follower(packed, i, kind, step, rows, total, planes, active, side, target, multipliers):
    """Solve follower i's multipliers one after the other; returns the largest relative change."""
    work = np.empty(rows.objective.shape[2])
    out = np.empty(rows.objective.shape[2])
    reach = side.reach[i]
    base = np.empty(reach.shape[0])
    change = 0.0
    summed = multipliers[i].sum()
    moved, _ = rows_pairing(packed, i, kind, step, summed, rows, work, out)
    for j in range(planes.shape[1]):
        if not active[i, j]:
            continue
        own = planes[i, j]
        old = multipliers[i, j]
        for c in range(reach.shape[0]):
            base[c] = total[reach[c]] - old * own[c] if reach[c] >= 0 else 0.0
        if old == 0.0:
            paid, _ = payments_pairing(kind, step, 0.0, reach, base, own, side)
            if moved + paid >= target[i, j]:
                continue
        new = find_multiplier(
            packed, i, kind, step, summed - old, rows, base, own, side, target[i, j], work, out
        )
        for c in range(reach.shape[0]):
            if reach[c] >= 0:
                total[reach[c]] = base[c] + new * own[c]
        multipliers[i, j] = new
        if new != old:
            summed = multipliers[i].sum()
            moved, _ = rows_pairing(packed, i, kind, step, summed, rows, work, out)
            change = max(change, abs(new - old) / max(1e-12, new, old))
    return change


@jit
def settle_follower(
    packed, i, kind, step, rows, total, planes, active, side, target, multipliers, row_out
):
    """Sweep follower i's own multipliers until they settle, then move its rows."""
    for _ in range(SWEEPS):
        if (
            sweep_follower(
                packed, i, kind, step, rows, total, planes, active, side, target, multipliers
            )
            <= SETTLED
        ):
            break
    move_rows(packed, i, kind, step, multipliers[i].sum(), rows, row_out)


@jit
def move_rows(packed, i, kind, step, multiplier, rows, out):
    """Change of all of follower i's rows, divided by the step."""
    work = np.empty(rows.objective.shape[2])
    available = packed.available[packed.model[i]]
    for s in range(rows.objective.shape[1]):
        row_step(
            kind,
            step,
            multiplier,
            rows.objective[i, s],
            rows.constraint[i, s],
            rows.points[i, s],
            available[s],
            work,
            out[i, s],
        )


@jit
def add_multipliers(reach, planes, multipliers, total):
    """Add the multipliers (n,J) times their payment parts (n,J,K) to the gradient (k,)."""
    for i in range(reach.shape[0]):
        for j in range(planes.shape[1]):
            for c in range(reach.shape[1]):
                if reach[i, c] >= 0:
                    total[reach[i, c]] += multipliers[i, j] * planes[i, j, c]


@parallel_jit
def separate_directions(
    packed, kind, step, rows, total, planes, active, side, target, multipliers, row_out
):
    """Multipliers (n,J), one per follower and piece, and the rows' change (n,S,A).

    For payments that reach one follower each. ``planes`` (n,J,K) are the payment parts of
    grad q_ij, ``target`` (n,J) is phi. ``total`` (k,) enters as grad_x f with the multipliers in
    it, and leaves with the new ones; ``multipliers`` is the warm start and the result.
    """
    for i in numba.prange(packed.model.shape[0]):
        settle_follower(
            packed, i, kind, step, rows, total, planes, active, side, target, multipliers, row_out
        )


@jit
def sweep_directions(packed, kind, step, rows, total, planes, active, side, target, multipliers):
    """Go once through the multipliers of followers that share payments, one after the other.

    Arguments are those of ``separate_directions``. Returns the largest relative change.
    """
    change = 0.0
    for i in range(packed.model.shape[0]):
        change = max(
            change,
            sweep_follower(
                packed, i, kind, step, rows, total, planes, active, side, target, multipliers
            ),
        )
    return change


@jit
def shared_directions(packed, kind, step, rows, multipliers, row_out):
    """Change of the rows (n,S,A) for the multipliers (n,J) that sweeps have found."""
    for i in range(packed.model.shape[0]):
        move_rows(packed, i, kind, step, multipliers[i].sum(), rows, row_out)


@jit
def joint_direction(packed, kind, step, rows, slope_f, slope_q, every, side, target, row_out):
    """Compute the paper's single multiplier, and the rows' change (n,S,A).

    ``slope_f`` and ``slope_q`` (k,) are grad_x f and grad_x q; ``every`` (k,) numbers the
    payments.
    """
    n = packed.model.shape[0]
    work = np.empty(rows.objective.shape[2])
    out = np.empty(rows.objective.shape[2])
    known = unbounded()
    for _ in range(100):
        guess = known.guess
        value, growth = payments_pairing(kind, step, guess, every, slope_f, slope_q, side)
        for i in range(n):
            one, slope = rows_pairing(packed, i, kind, step, guess, rows, work, out)
            value += one
            growth += slope
        known = narrow(known, value - target, growth, target)
        if known.done:
            break
    guess = known.high if not known.done and known.high < math.inf else known.guess
    for i in range(n):
        move_rows(packed, i, kind, step, guess, rows, row_out)
    return guess


@jit
def move_payments(kind, step, slope, side, out):
    """Change of the payments (k,) along their gradient, divided by the step."""
    for k in range(slope.shape[0]):
        out[k] = payment_step(kind, step, k, slope[k], side)


@jit
def constraint_norms(packed, kind, step, rows, planes, side, out):
    """<grad q_ij, change along D grad q_ij> (n,J): the squared norm that the barrier counts."""
    none = Rows(np.zeros(rows.objective.shape), rows.constraint, rows.slopes, rows.points)
    work = np.empty(rows.objective.shape[2])
    row = np.empty(rows.objective.shape[2])
    base = np.zeros(side.reach.shape[1])
    for i in range(packed.model.shape[0]):
        moved, _ = rows_pairing(packed, i, kind, step, 1.0, none, work, row)
        for j in range(planes.shape[1]):
            paid, _ = payments_pairing(kind, step, 1.0, side.reach[i], base, planes[i, j], side)
            out[i, j] = moved + paid
