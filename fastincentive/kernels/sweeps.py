"""Gauss-Seidel over ordered states: best responses and values of large state spaces.

Bytes per state and sweep: a policy's row of K successors 12 K, its reward 8, the value 16. Slow
modes (a follower that idles in a pocket) are extrapolated away: three successive changes, combined
so that they all but cancel (reduced-rank extrapolation), and taken back if the next sweep does not
confirm it. Below discount 1 each sweep is a contraction, whatever the point it starts from.

``actions`` and ``width`` arguments are tuples whose *lengths* are the number of actions and the
length K of a row: lengths of tuples are constants to the compiler, so the inner loops unroll. An
empty tuple stands for any number.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit

__all__ = [
    "large_responses",
    "predict_values",
    "settle_values",
    "sweep",
]

#: Plain sweeps before each extrapolation.
PLAIN = 4
#: A policy that still changes is evaluated until changes are this share of the last improvement's.
SHARE = 0.1


@jit
def take_row(successor, probability, reward, gamma, s, a, column, weight, earned):
    """Copy the row of action a in the s-th state, its own loop solved away."""
    loop = 0.0
    for k in range(column.shape[1]):
        if successor[s, a, k] == s:
            loop += probability[s, a, k]
    scale = 1.0 / (1.0 - gamma * loop)
    for k in range(column.shape[1]):
        c = successor[s, a, k]
        column[s, k] = c
        weight[s, k] = 0.0 if c == s else gamma * scale * probability[s, a, k]
    earned[s] = scale * reward[s, a]


@jit
def improve(
    successor,
    probability,
    reward,
    gamma,
    slack,
    values,
    held,
    column,
    weight,
    earned,
    actions,
    width,
):
    """One sweep of value iteration; rows of states whose action changes are rewritten.

    Returns the largest change of a value and the number of actions that changed.
    """
    n_actions = len(actions) if len(actions) > 0 else reward.shape[1]
    row = len(width) if len(width) > 0 else successor.shape[2]
    change = 0.0
    moved = 0
    for s in range(reward.shape[0]):
        best = -math.inf
        now = held[s]
        kept = -math.inf
        for a in range(n_actions):
            total = 0.0
            for k in range(row):
                total += probability[s, a, k] * values[successor[s, a, k]]
            total = reward[s, a] + gamma * total
            kept = total if a == now else kept
            best = total if total > best else best
        if best > kept + slack:
            # Seldom: which action it is, is found out again.
            first = 0
            top = -math.inf
            for a in range(n_actions):
                total = 0.0
                for k in range(row):
                    total += probability[s, a, k] * values[successor[s, a, k]]
                total = reward[s, a] + gamma * total
                if total > top:
                    top = total
                    first = a
            held[s] = first
            moved += 1
            take_row(successor, probability, reward, gamma, s, first, column, weight, earned)
        step = abs(best - values[s])
        if step > change:
            change = step
        values[s] = best
    return change, moved


@jit
def sweep(column, weight, earned, values, width):
    """One sweep of v = earned + W v; returns the largest change."""
    row = len(width) if len(width) > 0 else column.shape[1]
    change = 0.0
    for s in range(earned.shape[0]):
        total = earned[s]
        for k in range(row):
            total += weight[s, k] * values[column[s, k]]
        step = abs(total - values[s])
        values[s] = total
        if step > change:
            change = step
    return change


@jit
def sweep_noting(column, weight, earned, values, steps, width):
    """As ``sweep``; the changes are noted in ``steps``."""
    row = len(width) if len(width) > 0 else column.shape[1]
    change = 0.0
    for s in range(earned.shape[0]):
        total = earned[s]
        for k in range(row):
            total += weight[s, k] * values[column[s, k]]
        step = total - values[s]
        values[s] = total
        steps[s] = step
        if abs(step) > change:
            change = abs(step)
    return change


@jit
def mixture(residuals):
    """Weights, of sum 1, of three successive residuals (3, S) whose mixture is the smallest."""
    r0, r1, r2 = residuals[0], residuals[1], residuals[2]
    a11 = a12 = a22 = b1 = b2 = 0.0
    for s in range(r0.shape[0]):
        first = r1[s] - r0[s]
        second = r2[s] - r1[s]
        a11 += first * first
        a12 += first * second
        a22 += second * second
        b1 += first * r0[s]
        b2 += second * r0[s]
    determinant = a11 * a22 - a12 * a12
    if determinant > 1e-12 * a11 * a22:
        c1 = (b2 * a12 - b1 * a22) / determinant
        c2 = (b1 * a12 - b2 * a11) / determinant
    elif a11 > 0.0:  # one mode is left
        c1 = -b1 / a11
        c2 = 0.0
    else:
        return 0.0, 0.0, 1.0
    return 1.0 - c1, c1 - c2, c2


@jit
def settle_values(column, weight, earned, values, steps, saved, goal, cycles, mix, width):
    """Sweep until no value changes by more than ``goal``; returns sweeps made and last change.

    ``steps`` (3, S) and ``saved`` (S,) are scratch. At most ``cycles`` rounds, each of which ends
    with an extrapolation unless ``mix`` is False.
    """
    count = 0
    change = math.inf
    least = math.inf
    stalled = 0
    for _ in range(cycles):
        for _ in range(PLAIN):
            change = sweep(column, weight, earned, values, width)
            count += 1
            if change <= goal:
                return count, change
        if not mix:
            continue
        for k in range(3):
            change = sweep_noting(column, weight, earned, values, steps[k], width)
            count += 1
            if change <= goal:
                return count, change
        g0, g1, _ = mixture(steps)
        for s in range(values.shape[0]):
            saved[s] = values[s]
            values[s] -= g0 * (steps[1, s] + steps[2, s]) + g1 * steps[2, s]
        after = sweep(column, weight, earned, values, width)
        count += 1
        if after < change:
            change = after
        else:
            values[:] = saved
        stalled = 0 if change < 0.5 * least else stalled + 1
        least = min(least, change)
        if stalled > 10 and change <= 1e-13 * np.abs(values).max():
            break  # rounding keeps the values moving
    return count, change


@jit
def large_response_one(
    packed,
    ordered,
    i,
    rewards,
    tolerance,
    budget,
    actions,
    values,
    q_values,
    residual,
    iterations,
    n_actions,
    width,
):
    """Solve for follower i."""
    _, states, count = rewards.shape
    gamma = packed.discount[i]
    m = packed.model[i]
    order, successor, probability = ordered.order[m], ordered.successor[m], ordered.probability[m]
    reward = np.empty((states, count))
    held = np.empty(states, np.int64)
    guess = np.empty(states)
    column = np.empty((states, successor.shape[2]), np.uint32)
    weight = np.empty((states, successor.shape[2]))
    earned = np.empty(states)
    steps = np.empty((3, states))
    saved = np.empty(states)
    largest = 0.0
    for k in range(states):
        s = order[k]
        guess[k] = values[i, s]
        held[k] = actions[i, s]
        for a in range(count):
            reward[k, a] = -math.inf
            if packed.available[m, s, a]:
                reward[k, a] = rewards[i, s, a]
                largest = max(largest, abs(reward[k, a]))
    slack = 0.0
    stale = True
    if math.isnan(guess[0]):
        guess[:] = 0.0
        if held.min() >= 0:
            for k in range(states):
                take_row(successor, probability, reward, gamma, k, held[k], column, weight, earned)
            stale = False
            settle_values(
                column, weight, earned, guess, steps, saved, 1e-4 * largest, 20, True, width
            )
    least = math.inf
    stalled = 0
    iterations[i] = 0
    spent = 0.0
    for _ in range(1_000_000):
        change, moved = improve(
            successor,
            probability,
            reward,
            gamma,
            slack,
            guess,
            held,
            column,
            weight,
            earned,
            n_actions,
            width,
        )
        iterations[i] += 1
        spent += reward.size * (successor.shape[2] + 3.0)
        size = largest
        for s in range(states):
            size = max(size, abs(guess[s]))
        # Never below what rounding allows; by default well below what ties are told apart by.
        goal = max(tolerance, 2e-15 * size)
        if tolerance <= 0.0:
            goal = max(1e-13 * (1.0 - gamma), 2e-15) * size
        # An action is held for as long as it is worse by less than what the goal would notice.
        slack = 0.1 * goal
        # Later updates of a sweep move a state's successors by at most `change` each.
        if gamma * change <= goal:
            break
        # Where extrapolations lead in circles, plain sweeps converge; rounding alone may keep the
        # values moving.
        if change < 0.5 * least:
            least = change
            stalled = 0
        else:
            stalled += 1
        if (stalled > 30 and change <= 1e-13 * size) or spent > budget[i]:
            break
        if stale:
            for k in range(states):
                take_row(successor, probability, reward, gamma, k, held[k], column, weight, earned)
            stale = False
        enough = 0.3 * goal
        if moved > 0:
            count_swept, _ = settle_values(
                column,
                weight,
                earned,
                guess,
                steps,
                saved,
                max(enough, SHARE * change),
                1 if stalled < 20 else 5,
                stalled < 20,
                width,
            )
        else:
            count_swept, _ = settle_values(
                column, weight, earned, guess, steps, saved, enough, 20, True, width
            )
        spent += count_swept * earned.size * (successor.shape[2] + 3.0)
    for k in range(states):
        values[i, order[k]] = guess[k]
    # The certificate: the residual in the model's own storage, and the first of the best actions.
    worst = 0.0
    slack = 1e-13 * size
    for s in range(states):
        best = -math.inf
        for a in range(count):
            total = -math.inf
            if packed.available[m, s, a]:
                row = (m * states + s) * count + a
                total = 0.0
                for e in range(packed.row_start[row], packed.row_start[row + 1]):
                    total += packed.probability[e] * values[i, packed.successor[e]]
                total = rewards[i, s, a] + gamma * total
            q_values[i, s, a] = total
            best = max(best, total)
        worst = max(worst, abs(best - values[i, s]))
        now = actions[i, s]
        if now < 0 or q_values[i, s, now] < best - slack:
            a = 0
            while q_values[i, s, a] < best - slack:
                a += 1
            actions[i, s] = a
    residual[i] = worst


@parallel_jit
def large_responses(
    packed,
    ordered,
    rewards,
    tolerance,
    budget,
    actions,
    values,
    q_values,
    residual,
    iterations,
    n_actions,
    width,
):
    """Optimal actions (n,S), V* (n,S), Q* (n,S,A) and Bellman residuals (n,), discounts below 1.

    Modified policy iteration: sweeps of value iteration, with sweeps of the policy found between
    them. ``actions`` (-1: none) and ``values`` (NaN: none) are the warm start. Stops where the
    sup-norm residual is certain to be below ``tolerance``, or if that is 0 below 1e-13 (1 - gamma)
    of the size of the values; or, without having got there, once ``budget`` (n,) row entries have
    been swept over.
    """
    for i in numba.prange(packed.model.shape[0]):
        large_response_one(
            packed,
            ordered,
            i,
            rewards,
            tolerance,
            budget,
            actions,
            values,
            q_values,
            residual,
            iterations,
            n_actions,
            width,
        )


@jit
def predict_values(rewards, last, first, first_values, second, second_values, values, out):
    """Extrapolate values (n,S) known at ``last`` rewards (n,S,A) and at two older ones.

    The rewards are fitted as last + c1 (first - last) + c2 (second - last), for each follower in
    least squares, and its values combined alike. Returns whether all fits are exact but for
    rounding.
    """
    n, states, actions = rewards.shape
    exact = True
    for i in range(n):
        a11 = a12 = a22 = b1 = b2 = total = 0.0
        for s in range(states):
            for a in range(actions):
                step = rewards[i, s, a] - last[i, s, a]
                one = first[i, s, a] - last[i, s, a]
                two = second[i, s, a] - last[i, s, a]
                a11 += one * one
                a12 += one * two
                a22 += two * two
                b1 += one * step
                b2 += two * step
                total += step * step
        c1 = c2 = 0.0
        determinant = a11 * a22 - a12 * a12
        if determinant > 1e-8 * a11 * a22:
            c1 = (b1 * a22 - b2 * a12) / determinant
            c2 = (b2 * a11 - b1 * a12) / determinant
        elif a11 > 0.0 and a11 >= a22:
            c1 = b1 / a11
        elif a22 > 0.0:
            c2 = b2 / a22
        if abs(c1) + abs(c2) > 10.0:  # too far ahead: errors grow as much
            c1 = c2 = 0.0
        exact = exact and total - c1 * b1 - c2 * b2 <= 1e-10 * total
        for s in range(states):
            out[i, s] = (
                values[i, s]
                + c1 * (first_values[i, s] - values[i, s])
                + c2 * (second_values[i, s] - values[i, s])
            )
    return exact
