"""Numeric LU factors of I - gamma P on the fronts of a model, and solves with them.

I - gamma P is an M-matrix, diagonally dominant by rows: no pivoting is needed.
"""

from __future__ import annotations

import math

import numpy as np

from fastincentive.kernels.bellman import mean_reward
from fastincentive.kernels.jit import TINY_PIVOT, fused_jit, jit

__all__ = ["eliminate", "evaluate_fronts", "factorize_fronts", "solve_fronts"]

#: Residuals above this share of the largest value or visit are corrected; at most so many solves.
ROUNDING, MOST_ROUNDS = 1e-14, 4
#: Pivots that are eliminated together; their rows stay in the cache. A multiple of four.
PANEL = 64


@fused_jit
def subtract_four(rows, one, other, top, u, stride, n, a0, a1, a2, a3, b0, b1, b2, b3):
    """Subtract four stretches of ``top``, each in its multiple, from two of ``rows``."""
    x, y = np.uint64(one), np.uint64(other)
    u0, u1 = np.uint64(u), np.uint64(u + stride)
    u2, u3 = np.uint64(u + 2 * stride), np.uint64(u + 3 * stride)
    for j in range(np.uint64(n)):
        v0, v1, v2, v3 = top[u0 + j], top[u1 + j], top[u2 + j], top[u3 + j]
        rows[x + j] -= a0 * v0 + a1 * v1 + a2 * v2 + a3 * v3
        rows[y + j] -= b0 * v0 + b1 * v1 + b2 * v2 + b3 * v3


@fused_jit
def subtract_one(rows, one, top, u, n, a):
    """Subtract a multiple of a stretch of ``top`` from one of ``rows``."""
    x, y = np.uint64(one), np.uint64(u)
    for j in range(np.uint64(n)):
        rows[x + j] -= a * top[y + j]


@fused_jit
def reduce_rows(rows, width, rests, top, m, begin, end, first, last, own):
    """Eliminate pivots ``begin`` to ``end`` of a front from rows ``first`` to ``last``.

    The first ``width`` columns of these rows are in ``rows``, the others in ``rests``, all flat.
    ``own``: they are the pivots' own rows. Returns the first pivot that vanishes, or -1.
    """
    r = m - width
    singular = -1
    for i in range(first, last, 2):
        x = i * width
        done = begin
        if i + 1 < last:
            y = x + width
            done = begin + (end - begin) // 4 * 4
            if own:
                done = min(done, i // 4 * 4)
            for k in range(begin, done, 4):
                t0 = k * m + k
                t1, t2, t3 = t0 + m, t0 + 2 * m, t0 + 3 * m
                p0, p1, p2, p3 = top[t0], top[t1 + 1], top[t2 + 2], top[t3 + 3]
                q01, q02, q03 = top[t0 + 1], top[t0 + 2], top[t0 + 3]
                q12, q13, q23 = top[t1 + 2], top[t1 + 3], top[t2 + 3]
                a0 = rows[x + k] / p0
                b0 = rows[y + k] / p0
                a1 = (rows[x + k + 1] - a0 * q01) / p1
                b1 = (rows[y + k + 1] - b0 * q01) / p1
                a2 = (rows[x + k + 2] - a0 * q02 - a1 * q12) / p2
                b2 = (rows[y + k + 2] - b0 * q02 - b1 * q12) / p2
                a3 = (rows[x + k + 3] - a0 * q03 - a1 * q13 - a2 * q23) / p3
                b3 = (rows[y + k + 3] - b0 * q03 - b1 * q13 - b2 * q23) / p3
                rows[x + k], rows[x + k + 1], rows[x + k + 2], rows[x + k + 3] = a0, a1, a2, a3
                rows[y + k], rows[y + k + 1], rows[y + k + 2], rows[y + k + 3] = b0, b1, b2, b3
                j = k + 4
                n = width - j
                subtract_four(rows, x + j, y + j, top, t0 + 4, m, n, a0, a1, a2, a3, b0, b1, b2, b3)
                if r > 0:
                    u = k * m + width
                    one = i * r
                    subtract_four(rests, one, one + r, top, u, m, r, a0, a1, a2, a3, b0, b1, b2, b3)
        for h in range(i, min(i + 2, last)):
            x = h * width
            for k in range(done, min(h, end) if own else end):
                t0 = k * m + k
                f = rows[x + k] / top[t0]
                rows[x + k] = f
                if f != 0.0:
                    subtract_one(rows, x + k + 1, top, t0 + 1, width - k - 1, f)
                    if r > 0:
                        subtract_one(rests, h * r, top, k * m + width, r, f)
            if own and h < end and rows[x + h] < TINY_PIVOT:
                rows[x + h] = math.inf
                if singular < 0:
                    singular = h
    return singular


@jit
def eliminate(factors, rest, w, m):
    """Partial LU of a front in place; returns the first pivot that vanishes, or -1.

    Pivots are eliminated in panels that stay in the cache while all rows pass by.
    """
    left = factors[w * m :]
    singular = -1
    for begin in range(0, w, PANEL):
        end = min(w, begin + PANEL)
        bad = reduce_rows(factors, m, rest, factors, m, begin, end, begin, w, True)
        if singular < 0:
            singular = bad
        reduce_rows(left, w, rest, factors, m, begin, end, 0, m - w, False)
    return singular


@jit
def write_matrix(fronts, packed, i, gamma, policy, factors):
    """Write I - gamma P^pi where the factors will be; at discount 1 absorbing rows are killed."""
    states, actions = policy.shape
    m = packed.model[i]
    base = packed.row_start[m * states * actions]
    factors[:] = 0.0
    for s in range(states):
        factors[fronts.diagonal[s]] = 1.0
    for s in range(states):
        if gamma == 1.0 and packed.absorbing[m, s]:
            continue
        for a in range(actions):
            w = gamma * policy[s, a]
            if w == 0.0:
                continue
            row = (m * states + s) * actions + a
            for e in range(packed.row_start[row], packed.row_start[row + 1]):
                factors[fronts.address[e - base]] -= w * packed.probability[e]


@jit
def extend(update, position, top, left, rest):
    """Add what is left of a child to its parent's front."""
    w = top.shape[0]
    r = position.shape[0]
    cut = 0
    while cut < r and position[cut] < w:
        cut += 1
    for a in range(cut):
        row = top[position[a]]
        for b in range(r):
            row[position[b]] += update[a, b]
    for a in range(cut, r):
        row = left[position[a] - w]
        for b in range(cut):
            row[position[b]] += update[a, b]
        row = rest[position[a] - w]
        for b in range(cut, r):
            row[position[b] - w] += update[a, b]


@jit
def factorize_fronts(fronts, factors, stack):
    """LU factors, in place, of the matrix in ``factors``; ``stack`` is scratch.

    Returns a state whose pivot vanishes (of a class that is never left), or -1; such pivots become
    infinite.
    """
    singular = -1
    for f in range(fronts.parent.shape[0]):
        w = fronts.first[f + 1] - fronts.first[f]
        m = fronts.begin[f + 1] - fronts.begin[f]
        r = m - w
        at = fronts.factor[f]
        top = factors[at : at + w * m].reshape(w, m)
        left = factors[at + w * m : fronts.factor[f + 1]].reshape(r, w)
        rest = stack[fronts.stack[f] : fronts.stack[f] + r * r].reshape(r, r)
        rest[:] = 0.0
        c = fronts.child[f]
        while c >= 0:
            other = fronts.begin[c] + fronts.first[c + 1] - fronts.first[c]
            size = fronts.begin[c + 1] - other
            update = stack[fronts.stack[c] : fronts.stack[c] + size * size].reshape(size, size)
            extend(update, fronts.position[other : fronts.begin[c + 1]], top, left, rest)
            c = fronts.sibling[c]
        bad = eliminate(factors[at : fronts.factor[f + 1]], rest.reshape(r * r), w, m)
        if bad >= 0 and singular < 0:
            singular = fronts.order[fronts.first[f] + bad]
    return singular


@jit
def solve_fronts(fronts, factors, value, visit):
    """Overwrite ``value`` with (I - W)^-1 value and ``visit`` with (I - W)'^-1 visit, in places."""
    count = fronts.parent.shape[0]
    for f in range(count):
        first = fronts.first[f]
        w = fronts.first[f + 1] - first
        m = fronts.begin[f + 1] - fronts.begin[f]
        at = fronts.factor[f]
        top = factors[at : at + w * m].reshape(w, m)
        left = factors[at + w * m : fronts.factor[f + 1]].reshape(m - w, w)
        index = fronts.member[fronts.begin[f] : fronts.begin[f + 1]]
        for k in range(w):
            row = top[k]
            total = value[first + k]
            for j in range(k):
                total -= row[j] * value[first + j]
            value[first + k] = total
            z = visit[first + k] / row[k]
            visit[first + k] = z
            if z != 0.0:
                for j in range(k + 1, m):
                    visit[index[j]] -= z * row[j]
        for a in range(m - w):
            total = 0.0
            for k in range(w):
                total += left[a, k] * value[first + k]
            value[index[w + a]] -= total
    for f in range(count - 1, -1, -1):
        first = fronts.first[f]
        w = fronts.first[f + 1] - first
        m = fronts.begin[f + 1] - fronts.begin[f]
        at = fronts.factor[f]
        top = factors[at : at + w * m].reshape(w, m)
        left = factors[at + w * m : fronts.factor[f + 1]].reshape(m - w, w)
        index = fronts.member[fronts.begin[f] : fronts.begin[f + 1]]
        for k in range(w - 1, -1, -1):
            row = top[k]
            total = value[first + k]
            for j in range(k + 1, m):
                total -= row[j] * value[index[j]]
            value[first + k] = total / row[k]
        for a in range(m - w):
            d = visit[index[w + a]]
            if d != 0.0:
                for k in range(w):
                    visit[first + k] -= left[a, k] * d
        for i in range(w - 1, 0, -1):
            d = visit[first + i]
            for k in range(i):
                visit[first + k] -= top[i, k] * d


@jit
def look_back(packed, i, gamma, rewards, policy, values, visits, q_values, value, visit):
    """Q (S,A), and by how much V and the occupancy miss their equations: ``value``, ``visit``."""
    states, actions = rewards.shape
    m = packed.model[i]
    for s in range(states):
        visit[s] = packed.initial[i, s] - visits[s]
    for s in range(states):
        killed = gamma == 1.0 and packed.absorbing[m, s]
        mean = 0.0
        for a in range(actions):
            if not packed.available[m, s, a]:
                q_values[s, a] = -math.inf
                continue
            total = 0.0
            if not killed:
                row = (m * states + s) * actions + a
                mass = gamma * policy[s, a] * visits[s]
                for e in range(packed.row_start[row], packed.row_start[row + 1]):
                    c = packed.successor[e]
                    total += packed.probability[e] * values[c]
                    visit[c] += packed.probability[e] * mass
            q_values[s, a] = rewards[s, a] + gamma * total
            mean += policy[s, a] * q_values[s, a]
        value[s] = mean - values[s]


@jit
def evaluate_fronts(fronts, packed, i, rewards, policy, values, q_values, visits):
    """V (S,), Q (S,A) and occupancy (S,) of follower i's policy.

    The residuals are looked at, and corrected by the same factors should rounding have left more
    than ``ROUNDING``. Returns a state from which play is never absorbed (discount 1), or -1.
    """
    states = rewards.shape[0]
    gamma = packed.discount[i]
    factors = np.empty(fronts.factor[-1])
    stack = np.empty(fronts.stack[-1])
    write_matrix(fronts, packed, i, gamma, policy, factors)
    singular = factorize_fronts(fronts, factors, stack)
    if singular >= 0:
        return singular
    value, visit = np.empty(states), packed.initial[i].copy()
    mean_reward(policy, rewards, value)
    first, second = np.empty(states), np.empty(states)
    values[:] = 0.0
    visits[:] = 0.0
    before = math.inf
    for _ in range(MOST_ROUNDS):
        for k in range(states):
            first[k], second[k] = value[fronts.order[k]], visit[fronts.order[k]]
        solve_fronts(fronts, factors, first, second)
        for k in range(states):
            values[fronts.order[k]] += first[k]
            visits[fronts.order[k]] += second[k]
        look_back(packed, i, gamma, rewards, policy, values, visits, q_values, value, visit)
        worst = 0.0
        size_value = size_visit = worst_value = worst_visit = 1e-300
        for s in range(states):
            size_value = max(size_value, abs(values[s]))
            size_visit = max(size_visit, abs(visits[s]))
            worst_value = max(worst_value, abs(value[s]))
            worst_visit = max(worst_visit, abs(visit[s]))
        worst = max(worst_value / size_value, worst_visit / size_visit)
        if worst <= ROUNDING or worst > 0.5 * before:
            break
        before = worst
    if gamma == 1.0:
        for s in range(states):
            if packed.absorbing[packed.model[i], s]:
                visits[s] = 0.0
    return -1
