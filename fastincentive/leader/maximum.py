"""Leader rewards of the largest or the smallest value over the followers."""

from __future__ import annotations

from collections.abc import Sequence
from math import expm1, log1p
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import ANY_SIZE, FloatArray, as_floats, check_finite
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.kernels.jit import jit, parallel_jit
from fastincentive.leader.base import BoundReward, LeaderReward
from fastincentive.leader.per_follower import as_labels, per_follower, place

__all__ = ["MaxReward"]


class _Tree(NamedTuple):
    """Followers paired up: nodes 0..n-1 are the followers, node n+j pairs nodes 2j and 2j+1.

    Each node cuts the line at its followers' values and at 0: a piece goes from one cut to the
    next, the first piece from -inf. Pieces are numbered node by node; the last node's are all.
    """

    start: NDArray[np.int64]  # (2n,) first piece of each node, and the number of all
    one: NDArray[np.int32]  # (P,) the piece of a pair's first node that holds each of its own,
    other: NDArray[np.int32]  # (P,) and that of its second node
    cut: FloatArray  # the followers' pieces: the lower end of each
    zero: NDArray[np.int64]  # (n,) each follower's piece that begins at 0
    own: NDArray[np.int64]  # (n, L) the piece that begins at the value of each label
    width: FloatArray  # (K+1,) of the last node's pieces, 0 for those without end
    below: int  # number of the last node's pieces below 0
    counts: NDArray[np.int64]  # (n,) followers of each type


@jit
def _pair_up(rank: NDArray[np.int32], start: Any, one: Any, other: Any) -> None:
    """Merge the cuts of each pair's two nodes, told by their ranks (P,)."""
    n = start.size // 2
    for j in range(n - 1):
        a, middle, last = start[2 * j], start[2 * j + 1], start[2 * j + 2]
        b, k = middle, start[n + j]
        while a < middle or b < last:
            if b == last or (a < middle and rank[a] <= rank[b]):
                rank[k] = rank[a]
            else:
                rank[k] = rank[b]
            if a < middle and rank[a] == rank[k]:
                a += 1
            if b < last and rank[b] == rank[k]:
                b += 1
            one[k], other[k] = a - 1, b - 1
            k += 1
        start[n + j + 1] = k


def _planted(values: FloatArray, counts: NDArray[np.int64]) -> _Tree:
    """Pair up the followers with values (n, L)."""
    n = len(values)
    cuts = np.unique(np.append(values, 0.0))
    given = np.concatenate([np.zeros((n, 1)), values], axis=1)
    ranks = np.concatenate([np.zeros((n, 1), np.int64), 1 + np.searchsorted(cuts, given)], axis=1)
    order = np.argsort(ranks, axis=1, kind="stable")
    rising = np.take_along_axis(ranks, order, axis=1)
    new = np.diff(rising, axis=1, prepend=-1) > 0
    piece = np.empty_like(ranks)
    np.put_along_axis(piece, order, np.cumsum(new, axis=1) - 1, axis=1)
    sizes = new.sum(axis=1).tolist()
    for j in range(n - 1):
        sizes.append(min(sizes[2 * j] + sizes[2 * j + 1], cuts.size + 1))  # at most
    start = np.zeros(2 * n, np.int64)
    start[1 : n + 1] = np.cumsum(sizes[:n])
    rank, one, other = np.zeros((3, sum(sizes)), np.int32)
    rank[: start[n]] = rising[new]
    _pair_up(rank, start, one, other)
    one, other = one[: start[-1]].copy(), other[: start[-1]].copy()
    piece += start[:n, None]
    width = np.zeros(cuts.size + 1)
    width[1:-1] = np.diff(cuts)
    cut = np.append(-np.inf, cuts)[rank[: start[n]]]
    below = 1 + int(np.searchsorted(cuts, 0.0))
    zero, own = piece[:, 1].copy(), piece[:, 2:].copy()
    return _Tree(start, one, other, cut, zero, own, width, below, counts)


@jit
def _law(own: Any, chance: Any, count: int, first: int, last: int, under: Any, over: Any) -> None:
    """Chances that so many alike are all at most at a piece's lower end, and that one is not.

    The second is no difference from 1, so that it is as accurate where it is small.
    """
    under[first:last] = 0.0
    for k in range(own.size):
        under[own[k]] += chance[k]
    rest = 0.0
    for p in range(last - 1, first - 1, -1):
        over[p] = rest
        rest += under[p]
    for p in range(first + 1, last):
        under[p] += under[p - 1]
    if count > 1:
        for p in range(first, last):
            under[p] = under[p] ** count
            over[p] = 1.0 - under[p] if over[p] > 0.5 else -expm1(count * log1p(-over[p]))


@parallel_jit
def _maxima(tree: Any, marginals: Any, expected: Any, conditional: Any) -> None:
    """Fill in E[max] (T,) and E[max | label_i = l] (T, n, L) at marginals (T, n, L)."""
    n, start = marginals.shape[1], tree.start
    leaves, total = start[n], start[2 * n - 1]
    for t in numba.prange(marginals.shape[0]):
        under, over = np.empty(total), np.empty(total)
        for i in range(n):
            _law(tree.own[i], marginals[t, i], tree.counts[i], start[i], start[i + 1], under, over)
        for k in range(leaves, total):
            a, b = tree.one[k], tree.other[k]
            under[k] = under[a] * under[b]
            over[k] = over[a] + under[a] * over[b]
        # Integrals over each piece of the chances of the followers outside the node.
        all_under, one_over = np.zeros(total), np.zeros(total)
        mean = 0.0
        for k in range(tree.width.size):
            p = start[2 * n - 2] + k
            all_under[p] = tree.width[k]
            mean += tree.width[k] * (-under[p] if k < tree.below else over[p])
        expected[t] = mean
        for k in range(total - 1, leaves - 1, -1):
            a, b = tree.one[k], tree.other[k]
            all_under[a] += all_under[k] * under[b]
            one_over[a] += one_over[k] + all_under[k] * over[b]
            all_under[b] += all_under[k] * under[a]
            one_over[b] += one_over[k] + all_under[k] * over[a]
        for i in range(n):
            first, last, count = start[i], start[i + 1], tree.counts[i] - 1
            if count > 0:  # the others of the follower's own type
                _law(tree.own[i], marginals[t, i], count, first, last, under, over)
                for p in range(first, last):
                    one_over[p] += all_under[p] * over[p]
                    all_under[p] *= under[p]
            more, less = 0.0, 0.0
            for p in range(last - 1, first - 1, -1):
                if p >= tree.zero[i]:
                    more += one_over[p]
                    under[p] = tree.cut[p] + more
                else:
                    less += all_under[p]
                    under[p] = more - less
            for k in range(tree.own.shape[1]):
                conditional[t, i, k] = under[tree.own[i, k]]


class _BoundMax(BoundReward):
    """Values (n, L) by follower and label: ``sign`` times the largest of ``sign`` times them."""

    def __init__(
        self,
        labels: NDArray[np.int64],
        values: FloatArray,
        sign: float,
        counts: NDArray[np.int64],
    ) -> None:
        self.labels = labels
        self.n_labels = int(values.shape[1])
        self._values = sign * values
        self._sign = sign
        self._tree = _planted(self._values, counts)

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        expected = np.empty(marginals.shape[0])
        conditional = np.empty(marginals.shape)
        _maxima(self._tree, np.ascontiguousarray(marginals), expected, conditional)
        expected *= self._sign
        conditional *= self._sign
        return expected, conditional

    def at_labels(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        return self._sign * self._values[np.arange(labels.shape[1]), labels].max(axis=1)

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        if possible is None:
            possible = np.zeros(self._values.shape, bool)
            np.put_along_axis(possible, self.labels.reshape(len(possible), -1), True, axis=1)
        if not possible.any(axis=1).all():
            return 0.0
        most = np.where(possible, self._values, -np.inf).max()
        least = np.where(possible, self._values, np.inf).min(axis=1).max()
        return float(max(abs(most), abs(least)))

    def scratch_bytes(self, horizon: int) -> int:
        times = min(horizon, numba.get_num_threads())
        return super().scratch_bytes(horizon) + 4 * 8 * times * self._tree.one.size

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        # Followers 1..n-1 choose anew at each time and for each value that the largest may be at
        # most; follower 0 chooses once. The chances chosen are those of a law again.
        laws = np.empty((weights.size, len(candidates), self.n_labels))
        best = np.min if self._sign > 0.0 else np.max
        for i, (each, values) in enumerate(zip(candidates, self._values, strict=True)):
            order = np.argsort(values, kind="stable")
            under = best(np.cumsum(each[:, :, order], axis=2), axis=0)
            laws[:, i, order] = np.diff(under, axis=1, prepend=0.0)
        laws[:, 0] = candidates[0][0]
        given = self.conditional(laws)[:, 0]
        return float(np.max((candidates[0] * given).sum(axis=2) @ weights))


class MaxReward(LeaderReward):
    """Largest value over the followers, or the smallest: the last to arrive, the weakest link.

    R = max_i values[i, l_i] over the followers' labels l_i. Exact in O(n L log(n L)) per time step,
    with L labels; O(n L) where all followers have the same few values.

    Parameters
    ----------
    labels : int array (S,), (n, S) or (n, S, A)
        Label 0..L-1 by state (the same for all followers, or each its own), or by state and action.
    values : array (L,) or (n, L)
        Value of each label, the same for all followers, or each its own.
    smallest : bool, optional
        Take the smallest value instead.

    Raises
    ------
    InputError
        If a value is not finite or a label has none; when the problem is built, if the shapes do
        not fit the followers.

    Notes
    -----
    The largest of independent values M is at most v with chance F(v), the product of the followers'
    chances, and E[M] is the integral of 1 - F above 0 less that of F below (David and Nagaraja,
    *Order Statistics*, 3rd ed., Wiley, 2003). Each follower needs these integrals between its own
    values with the others' F. Its own factor is not divided out, for it may be 0: followers are
    paired up, and pairs in turn, as in `CountReward`; the F of all outside a pair is that of all
    outside the larger group times that of the group's other half. 1 - F is carried along as a sum
    of products of chances: nothing is subtracted but the two integrals, and values that hardly ever
    occur do not drown the others.

    Memory is a few numbers for each follower, label and level of pairs, per thread.

    Examples
    --------
    Three followers; the leader loses 2 for the last one's delay, if a late one (state 2) is there:

    >>> reward = MaxReward([0, 1, 2], [0.0, -1.0, -2.0], smallest=True)
    >>> expected, given = reward.bind(3, 3, 1).expectations(np.full((1, 3, 3), 1 / 3))
    >>> float(expected[0].round(12)), given[0, 0].round(12).tolist()
    (-1.666666666667, [-1.444444444444, -1.555555555556, -2.0])
    """

    @checked
    def __init__(self, labels: ArrayLike, values: ArrayLike, *, smallest: bool = False) -> None:
        self.labels = as_labels("labels", labels)
        self.values = as_floats("values", values)
        self.smallest = bool(smallest)
        if self.values.ndim not in (1, 2) or not self.values.size:
            raise invalid("values", "shape (L,) or (n, L)", self.values.shape)
        count = self.values.shape[-1]
        bad = np.argwhere((self.labels < 0) | (self.labels >= count))
        if bad.size:
            index = tuple(bad[0])
            expected = f"numbers in 0..{count - 1}, which have values"
            raise invalid("labels", expected, self.labels[index], place(index))

        def where(index: tuple[int, ...]) -> str:
            *follower, label = index
            return "".join(f"follower {i}, " for i in follower) + f"label {label}"

        check_finite("values", self.values, where, ANY_SIZE)

    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""
        return self.bind_types(np.ones(n, np.int64), n_states, n_actions)

    def bind_types(self, counts: NDArray[np.int64], n_states: int, n_actions: int) -> BoundReward:
        """As ``bind`` for types of followers with counts (n,)."""
        n, count = counts.size, self.values.shape[-1]
        labels = per_follower("labels", self.labels, n, n_states, n_actions)
        if self.values.ndim == 2 and len(self.values) != n:
            raise invalid("values", f"shape ({count},) or ({n}, {count})", self.values.shape)
        return _BoundMax(
            np.ascontiguousarray(labels, np.int64),
            np.broadcast_to(self.values, (n, count)),
            -1.0 if self.smallest else 1.0,
            counts,
        )

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number; below 0 it turns largest to smallest."""
        return MaxReward(
            self.labels, weight * self.values, smallest=self.smallest != (weight < 0.0)
        )
