"""Numeric LU factors of I - gamma P by the multifrontal method, and solves with them.

Duff and Reid (1983); Liu, The multifrontal method for sparse matrix solution (1992). The fronts are
laid out by ``symbolic_factorization``. I - gamma P is an M-matrix, diagonally dominant by rows: no
pivoting is needed (Berman and Plemmons, Nonnegative Matrices, 1994, chapter 6). Flops of a front of
m rows and w pivots: 2 w (m - w) m + 2/3 w^3; both solves read the 8-byte factors once each way.
"""

from __future__ import annotations

import math

import numpy as np

from fastincentive.kernels.bellman import mean_reward
from fastincentive.kernels.dense_lu import eliminate
from fastincentive.kernels.jit import jit

__all__ = ["evaluate_fronts", "factorize_fronts", "solve_fronts"]

#: Residuals above this share of the largest value or visit are corrected (iterative refinement); at
#: most so many solves.
ROUNDING, MOST_ROUNDS = 1e-14, 4


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
def extend_add(update, position, top, left, rest):
    """Add the update matrix of a child to its parent's front (extend-add)."""
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
            extend_add(update, fronts.position[other : fronts.begin[c + 1]], top, left, rest)
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
def residuals(packed, i, gamma, rewards, policy, values, visits, q_values, value, visit):
    """Write Q (S,A), and the residuals of V and of the occupancy: ``value``, ``visit`` (S,)."""
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

    Iterative refinement with the same factors, should rounding leave residuals above
    ``ROUNDING``. Returns a state from which play is never absorbed (discount 1), or -1.
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
        residuals(packed, i, gamma, rewards, policy, values, visits, q_values, value, visit)
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
