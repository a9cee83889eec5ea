"""Sums over followers that are never below, or never above, what the leader earns."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.certificates.joint_control import joint_table
from fastincentive.leader.additive import _BoundAdditive
from fastincentive.leader.base import BoundReward, _BoundSum, _BoundTable
from fastincentive.leader.counts import _BoundCount

__all__ = ["majorant", "parts_of"]

BoolArray = NDArray[np.bool_]

#: Combinations of labels up to which a reward is fitted; larger ones are bounded by a constant.
MOST_ROWS = 20_000


def parts_of(reward: BoundReward, n: int) -> FloatArray | None:
    """Rewards (n, L) that each follower earns on its own and that add up to R, or None."""
    if n == 1:
        return joint_table(reward, 1).T
    if isinstance(reward, _BoundAdditive):
        return reward._rewards
    if isinstance(reward, _BoundSum):
        total = np.zeros((n, reward.n_labels))
        for part, shown in reward._parts:
            own = parts_of(part, n)
            if own is None:
                return None
            total += own[:, shown.label]
        return total
    return None


def majorant(
    reward: BoundReward,
    sign: float,
    possible: BoolArray,
    lasting: BoolArray,
    reference: FloatArray,
) -> FloatArray | None:
    """Find u (n, L) with sign * R(l_1..l_n) <= sum_i u_i(l_i), small at a reference.

    Parameters
    ----------
    reward : BoundReward
    sign : float
        1, or -1 for minus a minorant.
    possible : bool array (n, L)
        Labels that the followers can show.
    lasting : bool array (n, L)
        Labels at which u must be <= 0 (for what may be earned for ever at discount 1).
    reference : array (n, L)
        Positive weights, of equal sums, of the labels: sum_i reference_i . u_i is minimised.

    Returns
    -------
    array (n, L) or None
        None if none is found.
    """
    own = parts_of(reward, len(possible))
    if own is not None:
        return sign * own
    if isinstance(reward, _BoundSum):
        total = np.zeros(possible.shape)
        for part, shown in reward._parts:
            own = majorant(
                part,
                sign,
                shown.total(possible.astype(float)) > 0,
                shown.total(lasting.astype(float)) > 0,
                shown.total(reference),
            )
            if own is None:
                return None
            total += own[:, shown.label]
        return total
    found = None
    if isinstance(reward, _BoundTable):
        found = _fit_table(sign * reward._table, possible, lasting, reference)
    elif isinstance(reward, _BoundCount):
        found = _fit_counts(sign * reward._values, possible, lasting, reference)
    if found is None and not lasting.any():
        found = np.full(possible.shape, reward.magnitude(possible) / len(possible))
    return found


def _fit_table(
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


def _fit_counts(
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
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    size = max(1.0, float(np.abs(least).max()))
    bounds = [(None, 0.0 if cap else None) for cap in capped[used]]
    answer = linprog(  # type: ignore[call-overload]
        weights[used], -csr_array(rows[:, used]), -least, bounds=bounds
    )
    if answer.status != 0:
        return None
    u = np.zeros(used.size)
    u[used] = answer.x
    # Raised to hold exactly: first to 0 where that is meant, then where it is allowed.
    u[capped & (u > -1e-9 * size)] = 0.0
    short = least - rows @ u
    u[used & ~(capped & (u == 0.0))] += max(float(short.max()), 0.0)
    return u if (rows @ u >= least - 1e-14 * size).all() else None
