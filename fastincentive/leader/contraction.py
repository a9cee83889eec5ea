"""Dense tables over L^n contracted with label marginals: matrix products over stacked times.

The followers are split into two halves. One matrix product for each half averages the table over
the other half at all times at once; what is left is a table per time over one half. Two followers
need nothing more, three a pair per time.
"""

from __future__ import annotations

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive.kernels import contraction as kernels

__all__ = ["conditional_rewards", "expected_rewards", "joint_laws", "one_conditional"]

#: Tables with fewer labels are contracted entry by entry.
PRODUCT_LABELS = 8
#: Numbers in a scratch array: more than two followers are worked on in blocks of times.
SCRATCH = 2**17


def joint_laws(marginals: FloatArray) -> FloatArray:
    """Joint law (T, L^k) of k independent followers with marginals (T, k, L)."""
    horizon, k, count = marginals.shape
    if k == 1:
        return marginals[:, 0]
    laws = np.empty((horizon, count**k))
    kernels.joint_laws.suited(laws.size, horizon)(marginals, laws)
    return laws


def _halves(table: FloatArray) -> tuple[int, FloatArray]:
    """Size of the first half, and the table as a matrix from one half to the other."""
    half = table.ndim // 2
    return half, table.reshape(table.shape[0] ** half, -1)


def _blocks(horizon: int, matrix: FloatArray) -> list[slice]:
    size = max(16, SCRATCH // matrix.shape[1])
    return [slice(first, first + size) for first in range(0, horizon, size)]


def expected_rewards(table: FloatArray, marginals: FloatArray) -> FloatArray:
    """E[R] (T,) for a table (L,)*n and marginals (T, n, L)."""
    horizon, n, count = marginals.shape
    if n == 1:
        return marginals[:, 0] @ table
    if count ** (n // 2) < PRODUCT_LABELS:
        expected = np.empty(horizon)
        kernels.expected_rewards(table.reshape(-1), marginals, expected)
        return expected
    half, matrix = _halves(table)
    if n == 2:
        return np.einsum("tl,tl->t", marginals[:, 0] @ matrix, marginals[:, 1])
    expected = np.empty(horizon)
    for times in _blocks(horizon, matrix):
        block = marginals[times]
        tables = joint_laws(block[:, :half]) @ matrix
        kernels.varying_expected.suited(tables.size, tables.shape[0])(
            tables, block[:, half:], expected[times]
        )
    return expected


def conditional_rewards(table: FloatArray, marginals: FloatArray) -> FloatArray:
    """E[R | label_i = l] (T, n, L)."""
    n, count = marginals.shape[1:]
    conditional = np.empty(marginals.shape)
    if n == 1 or count ** (n // 2) < PRODUCT_LABELS:
        kernels.multilinear_rewards(table.reshape(-1), marginals, conditional)
        return conditional
    if n == 2:
        np.matmul(marginals[:, 1], table.T, out=conditional[:, 0])
        np.matmul(marginals[:, 0], table, out=conditional[:, 1])
        return conditional
    half, matrix = _halves(table)
    for times in _blocks(marginals.shape[0], matrix):
        block, out = marginals[times], conditional[times]
        sides = (
            (slice(0, half), joint_laws(block[:, half:]) @ matrix.T),
            (slice(half, n), joint_laws(block[:, :half]) @ matrix),
        )
        for some, tables in sides:
            if some.stop - some.start == 1:
                out[:, some.start] = tables
            else:
                kernels.varying_rewards.suited(2 * tables.size, tables.shape[0])(
                    tables, block[:, some], out[:, some]
                )
    return conditional


def one_conditional(table: FloatArray, marginals: FloatArray, i: int) -> FloatArray:
    """E[R | label_i = l] (T, L) of follower i alone."""
    horizon, n, count = marginals.shape
    conditional = np.empty((horizon, count))
    if n == 1 or count ** (n // 2) < PRODUCT_LABELS:
        kernels.one_conditional(table.reshape(-1), marginals, i, conditional)
        return conditional
    half, matrix = _halves(table)
    some = slice(0, half) if i < half else slice(half, n)
    for times in _blocks(horizon, matrix):
        block = marginals[times]
        if i < half:
            tables = joint_laws(block[:, half:]) @ matrix.T
        else:
            tables = joint_laws(block[:, :half]) @ matrix
        if some.stop - some.start == 1:
            conditional[times] = tables
        else:
            kernels.varying_conditional.suited(tables.size, tables.shape[0])(
                tables, block[:, some], i - some.start, conditional[times]
            )
    return conditional
