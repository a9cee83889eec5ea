"""Tables over joint labels, contracted with the followers' label marginals.

The reward is a tensor with one axis of L labels for each of n followers; its expectation is the
tensor's multilinear form (mode products; Kolda and Bader, Tensor decompositions and applications,
2009, section 2.5). Flops of one follower's conditional rewards at one time: 2 L^n (1 + 1/L + ...),
the largest contraction first; bytes 8 L^n.
"""

from __future__ import annotations

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit

__all__ = [
    "expected_rewards",
    "joint_laws",
    "multilinear_rewards",
    "one_conditional",
    "varying_conditional",
    "varying_expected",
    "varying_rewards",
]


@jit
def contract_others(table, marginals, i, work):
    """E[R | label_i = l] (L,) at one time, for a table over L^n and marginals (n,L).

    The table is contracted with the other followers' marginals, last axis first, in ``work``.
    """
    n, count = marginals.shape
    length = table.shape[0]
    source = table
    for j in range(n - 1, i, -1):
        length //= count
        for r in range(length):
            total = 0.0
            for label in range(count):
                total += source[r * count + label] * marginals[j, label]
            work[r] = total
        source = work
    for j in range(i):
        length //= count
        # Row by row: the inner loop runs along memory. In place, for row 0 is read first.
        for r in range(length):
            work[r] = source[r] * marginals[j, 0]
        for label in range(1, count):
            m = marginals[j, label]
            for r in range(length):
                work[r] += source[label * length + r] * m
        source = work
    return source[:count]


@parallel_jit
def multilinear_rewards(table, marginals, conditional):
    """E[R | label_i = l] (T,n,L) for a table over L^n, one time per task."""
    horizon, n, _ = marginals.shape
    for t in numba.prange(horizon):
        work = np.empty(table.shape[0])
        for i in range(n):
            conditional[t, i] = contract_others(table, marginals[t], i, work)


@parallel_jit
def expected_rewards(table, marginals, expected):
    """E[R] (T,) for a table over L^n, one time per task."""
    for t in numba.prange(marginals.shape[0]):
        work = np.empty(table.shape[0])
        first = contract_others(table, marginals[t], 0, work)
        total = 0.0
        for label in range(marginals.shape[2]):
            total += marginals[t, 0, label] * first[label]
        expected[t] = total


@parallel_jit
def one_conditional(table, marginals, i, conditional):
    """E[R | label_i = l] (T,L) of follower i alone for a table over L^n, one time per task."""
    for t in numba.prange(marginals.shape[0]):
        work = np.empty(table.shape[0])
        conditional[t] = contract_others(table, marginals[t], i, work)


@jit
def contract_pair(table, marginals, out):
    """Both conditionals (2,L) of a table (L^2,) at one time, in one reading of it."""
    count = marginals.shape[1]
    for column in range(count):
        out[1, column] = 0.0
    even = count - count % 4
    for row in range(count):
        m = marginals[0, row]
        place = table[row * count : (row + 1) * count]
        for column in range(count):
            out[1, column] += m * place[column]
        # Four sums, so that an addition need not wait for the one before.
        a = b = c = d = 0.0
        for k in range(0, even, 4):
            a += place[k] * marginals[1, k]
            b += place[k + 1] * marginals[1, k + 1]
            c += place[k + 2] * marginals[1, k + 2]
            d += place[k + 3] * marginals[1, k + 3]
        for k in range(even, count):
            a += place[k] * marginals[1, k]
        out[0, row] = (a + b) + (c + d)


@parallel_jit
def varying_rewards(tables, marginals, conditional):
    """E[R | label_i = l] (T,k,L) for a table (T,L^k) of its own at each time."""
    for t in numba.prange(tables.shape[0]):
        if marginals.shape[1] == 2:
            contract_pair(tables[t], marginals[t], conditional[t])
        else:
            work = np.empty(tables.shape[1])
            for i in range(marginals.shape[1]):
                conditional[t, i] = contract_others(tables[t], marginals[t], i, work)


@parallel_jit
def varying_expected(tables, marginals, expected):
    """E[R] (T,) for a table (T,L^k) of its own at each time."""
    count = marginals.shape[2]
    for t in numba.prange(tables.shape[0]):
        source = tables[t]
        for i in range(marginals.shape[1]):
            # Row by row: the inner loop runs along memory.
            rest = np.zeros(source.shape[0] // count)
            for label in range(count):
                m = marginals[t, i, label]
                for r in range(rest.shape[0]):
                    rest[r] += m * source[label * rest.shape[0] + r]
            source = rest
        expected[t] = source[0]


@parallel_jit
def joint_laws(marginals, laws):
    """Joint laws (T,L^k) of k independent followers with marginals (T,k,L)."""
    _, k, count = marginals.shape
    for t in numba.prange(laws.shape[0]):
        row = laws[t]
        length = count
        for label in range(count):
            row[label] = marginals[t, 0, label]
        for i in range(1, k):
            # From behind, so that what is still needed is not overwritten.
            for r in range(length - 1, -1, -1):
                p = row[r]
                place = row[r * count : (r + 1) * count]
                for label in range(count):
                    place[label] = p * marginals[t, i, label]
            length *= count


@parallel_jit
def varying_conditional(tables, marginals, i, conditional):
    """As ``varying_rewards`` for follower i alone: (T,L)."""
    for t in numba.prange(tables.shape[0]):
        work = np.empty(tables.shape[1])
        conditional[t] = contract_others(tables[t], marginals[t], i, work)
