"""A follower's chain under its policy: merged rows, LU factors, sweeps, and who is never absorbed.

Small state spaces use LU factors of ``I - gamma P``: an M-matrix, so no pivoting is needed, and
the row envelope keeps the factors of a grid narrow. One factorisation serves the values and, with
its transpose, the occupancy. Larger ones use sweeps over the merged rows.
"""

from __future__ import annotations

import math

import numpy as np

from fastincentive.kernels.jit import TINY_PIVOT, jit

__all__ = [
    "factorize",
    "mark_never",
    "merge_rows",
    "model_size",
    "solve_factored",
    "solve_factored_transposed",
    "sweep_values",
]


@jit
def merge_rows(packed, i, gamma, policy, killed, start, column, weight):
    """Rows of gamma P^pi with equal successors summed, as CSR; ``killed``: absorbing rows empty."""
    states, actions = policy.shape
    m = packed.model[i]
    place = np.full(states, -1, np.int64)
    end = 0
    for s in range(states):
        start[s] = end
        if killed and packed.absorbing[m, s]:
            continue
        for a in range(actions):
            w = gamma * policy[s, a]
            if w == 0.0:
                continue
            row = (m * states + s) * actions + a
            for e in range(packed.row_start[row], packed.row_start[row + 1]):
                c = packed.successor[e]
                at = place[c]
                if at < start[s]:
                    place[c] = end
                    column[end] = c
                    weight[end] = w * packed.probability[e]
                    end += 1
                else:
                    weight[at] += w * packed.probability[e]
    start[states] = end
    return end


@jit
def mark_never(start, column, weight, absorbing, never):
    """Mark the states that cannot reach an absorbing one; returns whether there are any."""
    states = absorbing.shape[0]
    before = np.zeros(states + 1, np.int64)
    for e in range(start[states]):
        before[column[e] + 1] += 1
    for s in range(states):
        before[s + 1] += before[s]
    predecessor = np.empty(start[states], np.int64)
    free = before[:-1].copy()
    for s in range(states):
        for e in range(start[s], start[s + 1]):
            c = column[e]
            predecessor[free[c]] = s if weight[e] > 0.0 else -1
            free[c] += 1
    met = np.empty(states, np.int64)
    end = 0
    for s in range(states):
        never[s] = not absorbing[s]
        if absorbing[s]:
            met[end] = s
            end += 1
    k = 0
    while k < end:
        for e in range(before[met[k]], before[met[k] + 1]):
            p = predecessor[e]
            if p >= 0 and never[p]:
                never[p] = False
                met[end] = p
                end += 1
        k += 1
    return end < states


@jit
def model_size(packed, i, states, actions):
    """Count the stored transitions of follower i's model."""
    row = packed.model[i] * states * actions
    return packed.row_start[row + states * actions] - packed.row_start[row]


@jit
def factorize(start, column, weight, lu, last):
    """LU factors, in place and without pivoting, of I - W for merged rows W.

    Returns the first state whose pivot vanishes (a class that is never left), or -1; such pivots
    become infinite, so that the class gets value 0 and occupancy 0.
    """
    states = lu.shape[0]
    singular = -1
    for i in range(states):
        first = i
        end = i
        for j in range(states):
            lu[i, j] = 0.0
        lu[i, i] = 1.0
        for e in range(start[i], start[i + 1]):
            c = column[e]
            lu[i, c] -= weight[e]
            first = min(first, c)
            end = max(end, c)
        for k in range(first, i):
            if lu[i, k] != 0.0:
                f = lu[i, k] / lu[k, k]
                lu[i, k] = f
                for j in range(k + 1, last[k] + 1):
                    lu[i, j] -= f * lu[k, j]
                end = max(end, last[k])
        last[i] = end
        if lu[i, i] < TINY_PIVOT:
            lu[i, i] = math.inf
            if singular < 0:
                singular = i
    return singular


@jit
def solve_factored(lu, last, out):
    """Overwrite ``out`` with the solution v of (I - W) v = out."""
    states = out.shape[0]
    for i in range(states):
        total = out[i]
        for k in range(i):
            total -= lu[i, k] * out[k]
        out[i] = total
    for i in range(states - 1, -1, -1):
        total = out[i]
        for j in range(i + 1, last[i] + 1):
            total -= lu[i, j] * out[j]
        out[i] = total / lu[i, i]


@jit
def solve_factored_transposed(lu, last, out):
    """Overwrite ``out`` with the solution d of (I - W)' d = out."""
    states = out.shape[0]
    for k in range(states):
        z = out[k] / lu[k, k]
        out[k] = z
        if z != 0.0:
            for j in range(k + 1, last[k] + 1):
                out[j] -= lu[k, j] * z
    for i in range(states - 1, -1, -1):
        d = out[i]
        if d != 0.0:
            for k in range(i):
                out[k] -= lu[i, k] * d


@jit
def sweep_values(start, column, weight, reward, out, tolerance, sweeps):
    """Gauss-Seidel for v = reward + W v from ``out``, alternating direction.

    Returns the last sweep's largest change.
    """
    states = out.shape[0]
    change = math.inf
    for k in range(sweeps):
        change = 0.0
        size = 0.0
        for step in range(states):
            s = step if k % 2 == 0 else states - 1 - step
            total = reward[s]
            loop = 0.0
            for e in range(start[s], start[s + 1]):
                if column[e] == s:
                    loop = weight[e]
                else:
                    total += weight[e] * out[column[e]]
            stay = 1.0 - loop
            value = total / stay if stay >= TINY_PIVOT else 0.0
            change = max(change, abs(value - out[s]))
            size = max(size, abs(value))
            out[s] = value
        if change <= tolerance * size:
            break
    return change
