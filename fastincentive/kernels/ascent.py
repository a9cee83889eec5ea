"""Algorithm 1's direction: the smallest multipliers that keep every follower's gap closing.

With u(lambda) = D (grad f + sum lambda_ij grad q_ij), the direction v is the change of the point
over a step along u, divided by the step: the projection on the feasible set for a direct policy
and for payments (it tends to the projection on the tangent cone as the step goes to 0), the move
of the softmax for a softmax policy. lambda is the smallest with <grad q_ij, v> >= phi_ij for each
follower i and each linear piece j of its V*. Each left side is non-decreasing in its own
lambda_ij, so a safeguarded Newton iteration solves it; several pieces, or payments shared by
followers, are swept in turn (coordinate ascent on the dual of the quadratic programme that v
solves).
"""

from __future__ import annotations

import math

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit
from fastincentive.kernels.simplex import project_row

__all__ = [
    "DIRECT",
    "LINEAR",
    "SOFTMAX",
    "constraint_norms",
    "joint_direction",
    "rows_along",
    "separate_directions",
]

#: How a row of policy parameters moves.
DIRECT, SOFTMAX, LINEAR = 0, 1, 2
#: Multipliers stop here: beyond, a constraint has no direction left that improves it.
LARGEST = 1e9


@jit
def row_step(kind, step, multiplier, ahead, pull, point, available, work, out):
    """Change of one row over a step along ``ahead + multiplier pull``, divided by the step.

    DIRECT: Euclidean projection on the simplex; SOFTMAX: theta / tau moves; LINEAR: no limit.
    """
    actions = ahead.shape[0]
    if kind == LINEAR:
        for a in range(actions):
            out[a] = ahead[a] + multiplier * pull[a]
        return
    if kind == DIRECT:
        for a in range(actions):
            work[a] = point[a] + step * (ahead[a] + multiplier * pull[a])
        project_row(work, available, out)
    else:
        best = -math.inf
        for a in range(actions):
            if point[a] > 0.0:
                work[a] = step * (ahead[a] + multiplier * pull[a])
                best = max(best, work[a] + math.log(point[a]))
        total = 0.0
        for a in range(actions):
            out[a] = 0.0
            if point[a] > 0.0:
                out[a] = math.exp(work[a] + math.log(point[a]) - best)
                total += out[a]
        for a in range(actions):
            out[a] /= total
    for a in range(actions):
        out[a] = (out[a] - point[a]) / step


@jit
def rows_pairing(kind, step, multiplier, ahead, pull, slopes, points, available, work, out):
    """<slopes, change of the rows> over the states, and a derivative in the multiplier."""
    states, actions = ahead.shape
    total = 0.0
    growth = 0.0
    for s in range(states):
        seen = False
        for a in range(actions):
            seen = seen or slopes[s, a] != 0.0
        if not seen:
            continue
        row_step(kind, step, multiplier, ahead[s], pull[s], points[s], available[s], work, out)
        mean = 0.0
        weight = 0.0
        for a in range(actions):
            if available[s, a]:
                p = points[s, a] + step * out[a]
                w = 1.0 if kind == LINEAR else (p if kind == SOFTMAX else (1.0 if p > 0.0 else 0.0))
                mean += w * pull[s, a]
                weight += w
                work[a] = w
            else:
                work[a] = 0.0
        mean = mean / weight if kind != LINEAR else 0.0
        for a in range(actions):
            total += slopes[s, a] * out[a]
            growth += work[a] * slopes[s, a] * (pull[s, a] - mean)
    return total, growth


@jit
def payment_step(kind, step, k, slope, scale, payments, lower, upper):
    """Change of one payment over a step, divided by the step: scaled, stopped at its bounds."""
    v = scale[k] * slope
    if kind == LINEAR:
        return v
    return (min(max(payments[k] + step * v, lower[k]), upper[k]) - payments[k]) / step


@jit
def payments_pairing(kind, step, multiplier, reach, base, own, scale, payments, lower, upper):
    """<own, change of the payments> along ``base + multiplier own``, and its derivative."""
    total = 0.0
    growth = 0.0
    for c in range(reach.shape[0]):
        k = reach[c]
        if k >= 0 and own[c] != 0.0:
            v = payment_step(
                kind, step, k, base[c] + multiplier * own[c], scale, payments, lower, upper
            )
            total += own[c] * v
            if v != 0.0:
                growth += own[c] * own[c] * scale[k]
    return total, growth


@jit
def next_guess(low, high, guess, error, growth):
    """Newton's step for a non-decreasing function, kept inside the bracket."""
    trial = guess - error / growth if growth > 0.0 else math.inf
    if low < trial < high:
        return trial
    if high < math.inf:
        return 0.5 * (max(low, 0.0) + high)
    return max(2.0 * guess, 1e-6)


@jit
def find_multiplier(
    kind,
    step,
    ahead,
    pull,
    slopes,
    points,
    available,
    total_before,
    reach,
    base,
    own,
    scale,
    payments,
    lower,
    upper,
    target,
    work,
    out,
):
    """Smallest multiplier >= 0 of one constraint, the others fixed.

    ``total_before`` is the sum of the follower's other multipliers (they share ``pull``); ``base``
    the payment gradient without this constraint, ``own`` the constraint's payment gradient.
    """
    low = -1.0
    high = math.inf
    guess = 0.0
    for _ in range(100):
        value, growth = rows_pairing(
            kind, step, total_before + guess, ahead, pull, slopes, points, available, work, out
        )
        paid, slope = payments_pairing(
            kind, step, guess, reach, base, own, scale, payments, lower, upper
        )
        error = value + paid - target
        growth += slope
        if error >= 0.0:
            high = guess
            flat = growth <= 0.0 and high - max(low, 0.0) > 0.05 * high
            if guess == 0.0 or (error <= 1e-10 * max(abs(target), 1e-10) and not flat):
                return guess
        else:
            low = guess
            if guess >= LARGEST:
                return LARGEST
        trial = min(max(next_guess(low, high, guess, error, growth), 0.0), LARGEST)
        if abs(trial - guess) <= 1e-13 * guess:
            return high if high < math.inf else trial
        guess = trial
    return high if high < math.inf else guess


@jit
def follower_multipliers(
    kind,
    step,
    ahead,
    pull,
    slopes,
    points,
    available,
    reach,
    total,
    pieces,
    active,
    scale,
    payments,
    lower,
    upper,
    target,
    multipliers,
):
    """One sweep over a follower's pieces; returns the largest relative change."""
    work = np.empty(ahead.shape[1])
    out = np.empty(ahead.shape[1])
    base = np.empty(reach.shape[0])
    change = 0.0
    summed = multipliers.sum()
    rows, _ = rows_pairing(kind, step, summed, ahead, pull, slopes, points, available, work, out)
    for j in range(pieces.shape[0]):
        if not active[j]:
            continue
        old = multipliers[j]
        for c in range(reach.shape[0]):
            base[c] = total[reach[c]] - old * pieces[j, c] if reach[c] >= 0 else 0.0
        if old == 0.0:
            paid, _ = payments_pairing(
                kind, step, 0.0, reach, base, pieces[j], scale, payments, lower, upper
            )
            if rows + paid >= target[j]:
                continue
        new = find_multiplier(
            kind,
            step,
            ahead,
            pull,
            slopes,
            points,
            available,
            summed - old,
            reach,
            base,
            pieces[j],
            scale,
            payments,
            lower,
            upper,
            target[j],
            work,
            out,
        )
        for c in range(reach.shape[0]):
            if reach[c] >= 0:
                total[reach[c]] = base[c] + new * pieces[j, c]
        multipliers[j] = new
        summed += new - old
        rows, _ = rows_pairing(
            kind, step, summed, ahead, pull, slopes, points, available, work, out
        )
        change = max(change, abs(new - old) / max(1e-12, max(new, old)))
    return change


@jit
def rows_step(kind, step, multiplier, ahead, pull, points, available, out):
    """The change of all rows of one follower, divided by the step."""
    work = np.empty(ahead.shape[1])
    for s in range(ahead.shape[0]):
        row_step(kind, step, multiplier, ahead[s], pull[s], points[s], available[s], work, out[s])


@parallel_jit
def separate_directions(
    packed,
    kind,
    step,
    shared,
    ahead,
    pull,
    slopes,
    points,
    reach,
    total,
    pieces,
    active,
    scale,
    payments,
    lower,
    upper,
    target,
    multipliers,
    row_out,
    payment_out,
):
    """Direction with one multiplier per follower and piece.

    ``ahead`` and ``pull`` (n,S,A) are D grad f and D grad q, ``slopes`` grad q itself; ``reach``
    (n,K) the payments of each follower (-1: none), ``pieces`` (n,J,K) their part of grad q_ij,
    ``target`` (n,J) phi. ``total`` (k,) enters as grad_x f and leaves with the multipliers added;
    ``multipliers`` (n,J) is the warm start and the result.
    """
    n = packed.model.shape[0]
    for i in range(n):
        for j in range(pieces.shape[1]):
            if not active[i, j]:
                multipliers[i, j] = 0.0
            for c in range(reach.shape[1]):
                if reach[i, c] >= 0:
                    total[reach[i, c]] += multipliers[i, j] * pieces[i, j, c]
    if shared:
        for _ in range(60):
            change = 0.0
            for i in range(n):
                change = max(
                    change,
                    follower_multipliers(
                        kind,
                        step,
                        ahead[i],
                        pull[i],
                        slopes[i],
                        points[i],
                        packed.available[packed.model[i]],
                        reach[i],
                        total,
                        pieces[i],
                        active[i],
                        scale,
                        payments,
                        lower,
                        upper,
                        target[i],
                        multipliers[i],
                    ),
                )
            if change <= 1e-9:
                break
    else:
        for i in numba.prange(n):
            for _ in range(60):
                change = follower_multipliers(
                    kind,
                    step,
                    ahead[i],
                    pull[i],
                    slopes[i],
                    points[i],
                    packed.available[packed.model[i]],
                    reach[i],
                    total,
                    pieces[i],
                    active[i],
                    scale,
                    payments,
                    lower,
                    upper,
                    target[i],
                    multipliers[i],
                )
                if change <= 1e-9:
                    break
    for i in numba.prange(n):
        rows_step(
            kind,
            step,
            multipliers[i].sum(),
            ahead[i],
            pull[i],
            points[i],
            packed.available[packed.model[i]],
            row_out[i],
        )
    for k in range(payment_out.shape[0]):
        payment_out[k] = payment_step(kind, step, k, total[k], scale, payments, lower, upper)


@jit
def joint_direction(
    packed,
    kind,
    step,
    ahead,
    pull,
    slopes,
    points,
    reach,
    slope_f,
    slope_q,
    scale,
    payments,
    lower,
    upper,
    target,
    row_out,
    payment_out,
):
    """Direction with the paper's single multiplier; returns it.

    ``slope_f`` and ``slope_q`` (k,) are grad_x f and grad_x q; ``reach`` lists all payments.
    """
    n = packed.model.shape[0]
    work = np.empty(ahead.shape[2])
    out = np.empty(ahead.shape[2])
    low = -1.0
    high = math.inf
    guess = 0.0
    for _ in range(100):
        value, growth = payments_pairing(
            kind, step, guess, reach, slope_f, slope_q, scale, payments, lower, upper
        )
        for i in range(n):
            one, slope = rows_pairing(
                kind,
                step,
                guess,
                ahead[i],
                pull[i],
                slopes[i],
                points[i],
                packed.available[packed.model[i]],
                work,
                out,
            )
            value += one
            growth += slope
        error = value - target
        if error >= 0.0:
            high = guess
            flat = growth <= 0.0 and high - max(low, 0.0) > 0.05 * high
            if guess == 0.0 or (error <= 1e-10 * max(abs(target), 1e-10) and not flat):
                break
        else:
            low = guess
            if guess >= LARGEST:
                break
        trial = min(max(next_guess(low, high, guess, error, growth), 0.0), LARGEST)
        if abs(trial - guess) <= 1e-13 * guess:
            guess = high if high < math.inf else trial
            break
        guess = trial
    for i in range(n):
        rows_step(
            kind,
            step,
            guess,
            ahead[i],
            pull[i],
            points[i],
            packed.available[packed.model[i]],
            row_out[i],
        )
    for k in range(payment_out.shape[0]):
        payment_out[k] = payment_step(
            kind, step, k, slope_f[k] + guess * slope_q[k], scale, payments, lower, upper
        )
    return guess


@parallel_jit
def constraint_norms(
    packed, kind, step, pull, slopes, points, reach, pieces, scale, payments, lower, upper, out
):
    """<grad q_ij, change along D grad q_ij>, the squared norm of the gradient that counts (n,J)."""
    for i in numba.prange(packed.model.shape[0]):
        none = np.zeros(pull[i].shape)
        work = np.empty(pull.shape[2])
        row = np.empty(pull.shape[2])
        base = np.zeros(reach.shape[1])
        rows, _ = rows_pairing(
            kind,
            step,
            1.0,
            none,
            pull[i],
            slopes[i],
            points[i],
            packed.available[packed.model[i]],
            work,
            row,
        )
        for j in range(pieces.shape[1]):
            paid, _ = payments_pairing(
                kind, step, 1.0, reach[i], base, pieces[i, j], scale, payments, lower, upper
            )
            out[i, j] = rows + paid


@parallel_jit
def rows_along(packed, kind, step, pull, points, out):
    """Change of all rows (n,S,A) over a step along ``pull``, divided by the step."""
    for i in numba.prange(packed.model.shape[0]):
        none = np.zeros(pull[i].shape)
        rows_step(
            kind, step, 1.0, none, pull[i], points[i], packed.available[packed.model[i]], out[i]
        )
