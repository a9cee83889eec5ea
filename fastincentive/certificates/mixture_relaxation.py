"""How much the leader can earn where followers' policies are known up to boxes of probabilities.

One controller sees all followers and moves each of them, at every time anew, within its box:
dynamic programming in the joint state, over the vertices of the boxes. That is no less than any
mixture in the boxes brings, and tends to it as the boxes shrink.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["ROUGH", "Best", "Rows", "gains", "largest", "rows_of"]

#: Sweeps of value iteration, at most, and at discount 1.
MOST_SWEEPS, MOST_UNDISCOUNTED = 5_000, 400
#: Joint states up to which policy iteration comes first.
DENSE = 81
#: The bounds of value iteration may be this far apart, by share of the largest reward.
CLOSE, ROUGH = 1e-10, 1e-3
#: Multiplications that take about as long as a sweep's calls.
CALLS = 50_000.0


class Rows(NamedTuple):
    """What one follower may do: R vertices of its boxes in the states that it meets.

    The first vertex of every state comes first, then the second of those that have one, and so on.
    """

    chance: FloatArray  # (R, S) laws of the next state
    shown: FloatArray  # (R, L) laws of the label
    spent: FloatArray  # (R,) what is paid out
    of: NDArray[np.int64]  # (R,) the state
    layers: list[slice]  # first, second, ... vertices
    states: NDArray[np.int64]  # (S,) numbers of the states
    start: FloatArray  # (S,) initial law
    ended: NDArray[np.bool_]  # (S,) absorbing states


def rows_of(
    problem: IncentiveProblem,
    i: int,
    moves: FloatArray,
    box: tuple[FloatArray, FloatArray],
    met: NDArray[np.bool_],
    rates: FloatArray,
) -> Rows:
    """List the vertices of follower i's boxes, least and most probabilities (S, A).

    ``moves`` (S, A, S) are its transition probabilities, ``met`` (S,) the states that the boxes
    lead to, ``rates`` (S, A) what it is paid.
    """
    packed, leader = problem.followers.packed, problem.leader
    states = np.flatnonzero(met)
    vertices = [_vertices(box[0][s], box[1][s]) for s in states.tolist()]
    layers: list[slice] = []
    of: list[int] = []
    weights: list[FloatArray] = []
    for layer in range(max(len(each) for each in vertices)):
        first = len(of)
        for k, each in enumerate(vertices):
            if len(each) > layer:
                of.append(k)
                weights.append(each[layer])
        layers.append(slice(first, len(of)))
    own, share = np.array(of), np.array(weights)
    at = states[own]
    labels = np.broadcast_to(leader.labels[i], rates.shape)
    shown = np.zeros((at.size, leader.n_labels))
    for a in range(share.shape[1]):
        np.add.at(shown, (np.arange(at.size), labels[at, a]), share[:, a])
    return Rows(
        chance=np.einsum("ra,rak->rk", share, moves[at][:, :, states]),
        shown=shown,
        spent=(share * rates[at]).sum(axis=1),
        of=own,
        layers=layers,
        states=states,
        start=packed.initial[i][states],
        ended=packed.absorbing[packed.model[i]][states],
    )


def _vertices(least: FloatArray, most: FloatArray) -> list[FloatArray]:
    """Vertices of the probabilities between bounds (A,)."""
    free = np.flatnonzero(most > least)
    if free.size == 0:
        return [most]
    if (least[free] == 0.0).all() and (most[free] == 1.0).all():
        return list(np.eye(least.size)[free])
    found: dict[bytes, FloatArray] = {}
    # All but one stand at a bound.
    for k in free.tolist():
        others = free[free != k].tolist()
        for ends in itertools.product((0, 1), repeat=len(others)):
            point = least.copy()
            for j, end in zip(others, ends, strict=True):
                point[j] = most[j] if end else least[j]
            rest = 1.0 - (point.sum() - point[k])
            if least[k] - 1e-15 <= rest <= most[k] + 1e-15:
                point[k] = min(max(rest, least[k]), most[k])
                found[point.tobytes()] = point
    return list(found.values())


def gains(table: FloatArray, rows: Sequence[Rows]) -> FloatArray:
    """Reward (R_1, ..., R_n) of each choice of rows, from that of joint labels (L, ..., L)."""
    out = table
    for each in rows:
        # The first axis goes, and comes again as the last.
        out = np.tensordot(out, each.shown, axes=(0, 1))
    return out


class Best(NamedTuple):
    """Bounds on what a controller can earn."""

    start: float  # from the start
    values: FloatArray  # (S_1, ..., S_n) from each joint state
    work: float  # about as many multiplications


def largest(
    rows: Sequence[Rows],
    gain: FloatArray,
    discount: float,
    target: float = -np.inf,
    ceiling: FloatArray | None = None,
    share: float = CLOSE,
) -> Best:
    """Bound the discounted sum of gains (R_1, ..., R_n) from above; inf if none is known.

    Tight, up to a ``share`` of the largest gain, unless it is below the ``target`` already. At
    discount 1 it may be loose: it is found from a ``ceiling`` (S_1, ..., S_n), a bound that is
    known from each joint state, or, without one, where all followers are absorbed in any case.
    """
    shape = tuple(each.states.size for each in rows)
    size = CALLS + float(gain.size * sum(shape))
    close = share * max(float(np.abs(gain).max()), 1e-300)
    if discount == 1.0:
        if ceiling is not None and np.isfinite(ceiling).all():
            return _from_above(rows, gain, target, ceiling, close)
        return _until_absorbed(rows, gain, target, close)
    values = np.zeros(shape)
    if values.size <= DENSE:
        values = _policy_iteration(rows, gain, discount)
    factor = discount / (1.0 - discount)
    work = 10.0 * CALLS + 10.0 * float(values.size) ** 3 if values.size <= DENSE else 0.0
    for _ in range(MOST_SWEEPS):
        work += size
        following = _best_rows(rows, gain + discount * _expected(rows, values))
        change = following - values
        values = following
        # MacQueen's bounds.
        above, below = factor * float(change.max()), factor * float(change.min())
        start = _mean(rows, values) + above
        if start <= target or above - below <= close:
            break
    return Best(start, values + above, work)


def _from_above(
    rows: Sequence[Rows],
    gain: FloatArray,
    target: float,
    ceiling: FloatArray,
    close: float,
) -> Best:
    """Value iteration from a bound: all that follow are bounds."""
    shape = tuple(each.states.size for each in rows)
    values, start, work = ceiling, np.inf, 0.0
    for _ in range(MOST_UNDISCOUNTED):
        work += CALLS + float(gain.size * sum(shape))
        following = np.minimum(values, _best_rows(rows, gain + _expected(rows, values)))
        change = float((values - following).max())
        values = following
        start = _mean(rows, values)
        if start <= target or change <= 0.01 * close:
            break
    return Best(start, values, work)


def _until_absorbed(rows: Sequence[Rows], gain: FloatArray, target: float, close: float) -> Best:
    """Value iteration from nothing; what is left is earned by those that are not absorbed yet."""
    shape = tuple(each.states.size for each in rows)
    ended = np.ones((), bool)
    for each in rows:
        ended = np.logical_and.outer(ended, each.ended)
    values, lasting, work = np.zeros(shape), (~ended).astype(float), 0.0
    none = Best(np.inf, np.full(shape, np.inf), CALLS)
    if (_best_rows(rows, gain)[ended] > 0.0).any():
        return none
    most = max(float(gain.max()), 0.0)
    start = above = np.inf
    for sweep in range(1, MOST_UNDISCOUNTED + 1):
        work += 2.0 * (CALLS + float(gain.size * sum(shape)))
        values = _best_rows(rows, gain + _expected(rows, values))
        lasting = _best_rows(rows, _expected(rows, lasting))
        longest = float(lasting.max())
        if longest < 1.0:
            # Of each further stretch of as many steps no larger share is left.
            above = most * sweep * longest / (1.0 - longest)
            start = _mean(rows, values) + above
        if start <= target or above <= close:
            break
    return Best(start, values + above, work)


def _policy_iteration(rows: Sequence[Rows], gain: FloatArray, discount: float) -> FloatArray:
    """Values (S_1, ..., S_n) of a policy that value iteration finds nothing to improve in."""
    shape = tuple(each.states.size for each in rows)
    count = int(np.prod(shape))
    values: FloatArray = np.zeros(shape)
    before = np.full(0, -1)
    for _ in range(50):
        worth = gain + discount * _expected(rows, values)
        chosen = _choices(rows, worth)
        if np.array_equal(chosen, before):
            break
        before = chosen
        picked = np.unravel_index(chosen, worth.shape)
        moves = np.ones((count, 1))
        for each, pick in zip(rows, picked, strict=True):
            moves = (moves[:, :, None] * each.chance[pick][:, None, :]).reshape(count, -1)
        earned = gain.reshape(-1)[chosen]
        values = np.linalg.solve(np.eye(count) - discount * moves, earned).astype(float)
        values = values.reshape(shape)
    return values


def _choices(rows: Sequence[Rows], worth: FloatArray) -> NDArray[np.int64]:
    """Numbers (joint states) of the best joint rows, in the flat order of ``worth``."""
    numbers = np.arange(worth.size).reshape(worth.shape)
    for axis, each in enumerate(rows):
        own, numbers = np.moveaxis(worth, axis, 0), np.moveaxis(numbers, axis, 0)
        best, number = own[each.layers[0]].copy(), numbers[each.layers[0]].copy()
        for layer in each.layers[1:]:
            at = each.of[layer]
            better = own[layer] > best[at]
            best[at] = np.where(better, own[layer], best[at])
            number[at] = np.where(better, numbers[layer], number[at])
        worth, numbers = np.moveaxis(best, 0, axis), np.moveaxis(number, 0, axis)
    return np.asarray(numbers.reshape(-1))


def _expected(rows: Sequence[Rows], values: FloatArray) -> FloatArray:
    """Return expected values (R_1, ..., R_n) of the next joint state, from (S_1, ..., S_n)."""
    for each in rows:
        values = np.tensordot(values, each.chance, axes=(0, 1))
    return values


def _best_rows(rows: Sequence[Rows], worth: FloatArray) -> FloatArray:
    """Largest (S_1, ..., S_n) over the rows of each state."""
    for axis, each in enumerate(rows):
        if len(each.layers) > 1:
            own = np.moveaxis(worth, axis, 0)
            best = own[each.layers[0]].copy()
            for layer in each.layers[1:]:
                at = each.of[layer]
                best[at] = np.maximum(best[at], own[layer])
            worth = np.moveaxis(best, 0, axis)
    return worth


def _mean(rows: Sequence[Rows], values: FloatArray) -> float:
    for each in rows:
        values = np.tensordot(each.start, values, axes=(0, 0))
    return float(values)
