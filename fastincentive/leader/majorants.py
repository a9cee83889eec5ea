"""Sums over followers that are never below, or never above, what the leader earns."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._highs import linprog

__all__ = ["fit_counts", "fit_table"]

BoolArray = NDArray[np.bool_]

#: Combinations of labels up to which a reward is fitted; larger ones are bounded by a constant.
MOST_ROWS = 20_000


def fit_table(
    table: FloatArray, possible: BoolArray, lasting: BoolArray, reference: FloatArray
) -> FloatArray | None:
    """One variable for each follower and label, one row for each combination of labels."""
    n, count = possible.shape
    shown = [np.flatnonzero(row) for row in possible]
    if np.log([max(each.size, 1) for each in shown]).sum() > math.log(MOST_ROWS):
        return None
    labels = np.stack([each.ravel() for each in np.meshgrid(*shown, indexing="ij")])
    rows = np.zeros((labels.shape[1], n * count))
    for i in range(n):
        rows[np.arange(labels.shape[1]), i * count + labels[i]] = 1.0
    found = _fit(rows, table[tuple(labels)], reference.ravel(), lasting.ravel(), possible.ravel())
    return None if found is None else found.reshape(n, count)


def fit_counts(
    values: FloatArray, possible: BoolArray, lasting: BoolArray, reference: FloatArray
) -> FloatArray | None:
    """Two variables for each kind of follower, one row for each number of each kind that count."""
    kinds, kind = np.unique(np.hstack([possible, lasting]), axis=0, return_inverse=True)
    sizes = np.bincount(kind, minlength=len(kinds))
    if np.log(sizes + 1.0).sum() > math.log(MOST_ROWS):
        return None
    able, capped = kinds[:, :2] > 0, kinds[:, 2:] > 0
    # A kind that cannot help counting always does, and one that cannot count never does.
    ranges = [
        range(0 if able[g, 0] else size, (size if able[g, 1] else 0) + 1)
        for g, size in enumerate(sizes)
    ]
    counting = np.array(list(itertools.product(*ranges)))
    rows = np.stack([sizes - counting, counting], axis=2).reshape(len(counting), -1).astype(float)
    weights = np.zeros((len(kinds), 2))
    np.add.at(weights, kind, reference)
    found = _fit(rows, values[counting.sum(axis=1)], weights.ravel(), capped.ravel(), able.ravel())
    return None if found is None else found.reshape(-1, 2)[kind]


def _fit(
    rows: FloatArray, least: FloatArray, weights: FloatArray, capped: BoolArray, used: BoolArray
) -> FloatArray | None:
    """Minimise weights . u subject to rows u >= least, and u <= 0 where capped; 0 where unused."""
    from scipy.sparse import csr_array

    size = max(1.0, float(np.abs(least).max()))
    bounds = [(None, 0.0 if cap else None) for cap in capped[used]]
    answer = linprog(weights[used], -csr_array(rows[:, used]), -least, bounds=bounds)
    if answer.status != 0:
        return None
    u = np.zeros(used.size)
    u[used] = answer.x
    # Raised to hold exactly: first to 0 where that is meant, then where it is allowed.
    u[capped & (u > -1e-9 * size)] = 0.0
    short = least - rows @ u
    u[used & ~(capped & (u == 0.0))] += max(float(short.max()), 0.0)
    return u if (rows @ u >= least - 1e-14 * size).all() else None
