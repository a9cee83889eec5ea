"""Dense tables over L^n contracted with label marginals: matrix products over stacked times.

The followers are split into two halves. One matrix product for each half averages the table over
the other half at all times at once; what is left is a table per time over one half. Two followers
need nothing more, three a pair per time.
"""

from __future__ import annotations

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive.kernels import contraction as kernels

__all__ = [
    "conditional_rewards",
    "expected_rewards",
    "joint_laws",
    "one_conditional",
    "pair_of_many",
    "scratch_bytes",
    "uneven_conditional",
]

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


def scratch_bytes(table: FloatArray, horizon: int) -> int:
    """Bytes that expectations over T times take beside their results, about."""
    if table.ndim <= 2:
        return 0
    matrix = _halves(table)[1]
    # Laws of both halves, and what products make of them.
    return 8 * 3 * min(horizon, max(16, SCRATCH // matrix.shape[1])) * sum(matrix.shape)


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


def pair_of_many(table: FloatArray, marginals: FloatArray, i: int, j: int) -> FloatArray:
    """E[R | label_i = l, label_j = m] (T, L, L) of two of more followers; no copy of the table."""
    horizon, n, count = marginals.shape
    first, *others = (k for k in range(n) if k not in (i, j))
    cut = table.reshape(count**first, count, -1)
    out = np.empty((horizon, count, count))
    size = max(1, SCRATCH * count // table.size)
    for times in [slice(at, at + size) for at in range(0, horizon, size)]:
        block = marginals[times]
        held = np.matmul(block[:, first], cut)
        held = np.moveaxis(held, 1, 0).reshape(-1, *(count,) * (n - 1))
        left = [k for k in range(n) if k != first]
        for k in others:
            held = np.moveaxis(held, 1 + left.index(k), -1)
            held = np.einsum("t...l,tl->t...", held, block[:, k])
            left.remove(k)
        out[times] = held if i < j else held.transpose(0, 2, 1)
    return out


def uneven_conditional(table: FloatArray, marginals: FloatArray) -> FloatArray:
    """E[R | label_i = l] (T, n, L) for a table (L_1, ..., L_n), 0 at labels that it lacks.

    Each follower's table is averaged over the others one by one, over most labels first.
    """
    horizon, n, _ = marginals.shape
    out = np.zeros(marginals.shape)
    order = np.argsort(table.shape, kind="stable")[::-1].tolist()
    size = max(16, SCRATCH * max(table.shape) // table.size)
    for times in [slice(first, first + size) for first in range(0, horizon, size)]:
        for i in range(n):
            # Axes: the followers left, in order, and last the times.
            left, held = list(range(n)), table[..., None]
            for k in order:
                if k != i:
                    law = marginals[times, k, : table.shape[k]].T
                    held = np.moveaxis(held, left.index(k), -2)
                    held = np.einsum("...lt,lt->...t", held, law, optimize=False)
                    left.remove(k)
            out[times, i, : table.shape[i]] = held.T if n > 1 else table
    return out
