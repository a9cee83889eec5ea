"""A follower's chain under its policy: merged rows, LU factors, sweeps, states never absorbed.

Small state spaces use LU factors of ``I - gamma P``: an M-matrix, so no pivoting is needed, and the
envelope of the rows (their skyline; George and Liu, Computer Solution of Large Sparse Positive
Definite Systems, 1981, chapter 4) keeps the factors of a grid narrow. One factorisation serves the
values and, with its transpose, the occupancy. At most 2/3 S^3 flops for the factors and 2 S^2 for a
solve; of order S b^2 and S b for an envelope of width b.
"""

from __future__ import annotations

import math

import numpy as np

from fastincentive.kernels.dense_lu import product, subtract_four, subtract_one
from fastincentive.kernels.jit import jit
from fastincentive.kernels.packed import TINY_PIVOT

__all__ = [
    "factorize",
    "mark_never_absorbed",
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
def mark_never_absorbed(start, column, weight, absorbing, never):
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
def write_row(start, column, weight, i, lu):
    """Write row i of I - W; returns its first and last column, or i where that is further in."""
    first = i
    end = i
    for j in range(lu.shape[1]):
        lu[i, j] = 0.0
    lu[i, i] = 1.0
    for e in range(start[i], start[i + 1]):
        c = column[e]
        lu[i, c] -= weight[e]
        first = min(first, c)
        end = max(end, c)
    return first, end


@jit
def factorize(start, column, weight, lu, last):
    """LU factors, in place and without pivoting, of I - W for merged rows W.

    Returns the first state whose pivot vanishes (a class that is never left), or -1; such pivots
    become infinite, so that the class gets value 0 and occupancy 0.
    """
    states = lu.shape[0]
    flat = lu.reshape(states * states)
    singular = -1
    for i in range(0, states, 2):
        first, end = write_row(start, column, weight, i, lu)
        done = first
        if i + 1 < states:
            other, other_end = write_row(start, column, weight, i + 1, lu)
            last[i + 1] = other_end
            # Two rows and four pivots at a time, where there are as many.
            done = min(first, other) // 4 * 4
            x, y = lu[i], lu[i + 1]
            while done + 4 <= i:
                k = done
                done += 4
                t0, t1, t2, t3 = lu[k], lu[k + 1], lu[k + 2], lu[k + 3]
                a0 = x[k] / t0[k]
                b0 = y[k] / t0[k]
                a1 = (x[k + 1] - a0 * t0[k + 1]) / t1[k + 1]
                b1 = (y[k + 1] - b0 * t0[k + 1]) / t1[k + 1]
                a2 = (x[k + 2] - a0 * t0[k + 2] - a1 * t1[k + 2]) / t2[k + 2]
                b2 = (y[k + 2] - b0 * t0[k + 2] - b1 * t1[k + 2]) / t2[k + 2]
                a3 = (x[k + 3] - a0 * t0[k + 3] - a1 * t1[k + 3] - a2 * t2[k + 3]) / t3[k + 3]
                b3 = (y[k + 3] - b0 * t0[k + 3] - b1 * t1[k + 3] - b2 * t2[k + 3]) / t3[k + 3]
                x[k], x[k + 1], x[k + 2], x[k + 3] = a0, a1, a2, a3
                y[k], y[k + 1], y[k + 2], y[k + 3] = b0, b1, b2, b3
                far = max(last[k], last[k + 1], last[k + 2], last[k + 3])
                u = k * states + done
                subtract_four(
                    flat,
                    i * states + done,
                    (i + 1) * states + done,
                    flat,
                    u,
                    states,
                    far + 1 - done,
                    a0,
                    a1,
                    a2,
                    a3,
                    b0,
                    b1,
                    b2,
                    b3,
                )
                end = max(end, far)
                last[i + 1] = max(last[i + 1], far)
        last[i] = end
        for h in range(i, min(i + 2, states)):
            for k in range(done, h):
                if lu[h, k] != 0.0:
                    f = lu[h, k] / lu[k, k]
                    lu[h, k] = f
                    subtract_one(flat, h * states + k + 1, flat, k * states + k + 1, last[k] - k, f)
                    last[h] = max(last[h], last[k])
            if lu[h, h] < TINY_PIVOT:
                lu[h, h] = math.inf
                if singular < 0:
                    singular = h
    return singular


@jit
def solve_factored(lu, last, out):
    """Overwrite ``out`` with the solution v of (I - W) v = out."""
    states = out.shape[0]
    flat = lu.reshape(states * states)
    for i in range(states):
        k = 0
        while lu[i, k] == 0.0:  # before the envelope; the diagonal is not 0
            k += 1
        out[i] -= product(flat, i * states, out, min(k, i), i)
    for i in range(states - 1, -1, -1):
        out[i] = (out[i] - product(flat, i * states, out, i + 1, last[i] + 1)) / lu[i, i]


@jit
def solve_factored_transposed(lu, last, out):
    """Overwrite ``out`` with the solution d of (I - W)' d = out."""
    states = out.shape[0]
    flat = lu.reshape(states * states)
    for k in range(states):
        z = out[k] / lu[k, k]
        out[k] = z
        if z != 0.0:
            subtract_one(out, k + 1, flat, k * states + k + 1, last[k] - k, z)
    for i in range(states - 1, -1, -1):
        k = 0
        while lu[i, k] == 0.0:
            k += 1
        if k < i and out[i] != 0.0:
            subtract_one(out, k, flat, i * states + k, i - k, out[i])


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
