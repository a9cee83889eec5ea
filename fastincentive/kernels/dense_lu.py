"""LU of dense blocks without pivoting, for M-matrices: four pivots and two rows at a time.

Right-looking blocked elimination (Golub and Van Loan, Matrix Computations, 2013, section 3.2);
a register block of 2 x 4 makes 16 flops for every 6 numbers read. A front of m rows and w pivots
takes 2 w (m - w) m + 2/3 w^3 flops. Offsets in the innermost loops are unsigned: signed ones might
count from the end, and the compiler would not unroll.
"""

from __future__ import annotations

import math

import numpy as np

from fastincentive.kernels.jit import fused_jit, jit
from fastincentive.kernels.packed import TINY_PIVOT

__all__ = ["eliminate", "product", "subtract_four", "subtract_one"]

#: Pivots that are eliminated together; their rows stay in the cache. A multiple of four.
PANEL = 64


@fused_jit
def subtract_four(rows, one, other, top, u, stride, n, a0, a1, a2, a3, b0, b1, b2, b3):
    """Subtract four stretches of ``top``, each in its multiple, from two of ``rows``.

    The register block: its eight factors are arguments, for in a tuple or an array they would not
    stay in registers.
    """
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
def product(row, at, vector, begin, end):
    """Sum of ``row[at + j] * vector[j]`` from ``begin`` to ``end``, in eight partial sums."""
    t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = 0.0
    j = np.uint64(begin)
    x = np.uint64(at)
    one = np.uint64(1)
    for _ in range((end - begin) // 8):
        t0 += row[x + j] * vector[j]
        t1 += row[x + j + one] * vector[j + one]
        t2 += row[x + j + np.uint64(2)] * vector[j + np.uint64(2)]
        t3 += row[x + j + np.uint64(3)] * vector[j + np.uint64(3)]
        t4 += row[x + j + np.uint64(4)] * vector[j + np.uint64(4)]
        t5 += row[x + j + np.uint64(5)] * vector[j + np.uint64(5)]
        t6 += row[x + j + np.uint64(6)] * vector[j + np.uint64(6)]
        t7 += row[x + j + np.uint64(7)] * vector[j + np.uint64(7)]
        j += np.uint64(8)
    total = ((t0 + t4) + (t1 + t5)) + ((t2 + t6) + (t3 + t7))
    while j < np.uint64(end):
        total += row[x + j] * vector[j]
        j += one
    return total


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

    Pivots are eliminated in panels, which stay in the cache while all rows are updated.
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
