"""Leader rewards for many followers: sums over followers, counts, and sums of rewards.

A table over L^n ends at a handful of followers. These rewards are as exact, and their cost grows
with n or n^2: rewards that each follower earns on its own, rewards of how many followers are seen
somewhere, and sums of any rewards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive.errors import InputError, invalid
from fastincentive.kernels import counts as kernels
from fastincentive.leader import BoundReward, LeaderReward, per_follower
from fastincentive.mdp import FloatArray

__all__ = ["AdditiveReward", "CountReward", "SumReward"]


def place(index: tuple[int, ...]) -> str:
    """Name the entry of an array (S,), (n, S) or (n, S, A)."""
    names = ("state",) if len(index) == 1 else ("follower", "state", "action")
    return ", ".join(f"{name} {k}" for name, k in zip(names, index, strict=False))


class _BoundAdditive:
    """Rewards (n, L) by follower and label; ``shown`` (n, L) marks the labels in use."""

    def __init__(
        self, labels: NDArray[np.int64], rewards: FloatArray, shown: NDArray[np.bool_]
    ) -> None:
        self.labels = labels
        self.n_labels = int(rewards.shape[1])
        self._rewards = rewards
        self._shown = shown

    def _own(self, marginals: FloatArray) -> FloatArray:
        """Return each follower's expected reward (T, n)."""
        return np.einsum("til,il->ti", marginals, self._rewards)

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        own = self._own(marginals)
        # Followers before and after, added up: taking one off the total would leave its rounding.
        others = np.zeros_like(own)
        others[:, 1:] += np.cumsum(own[:, :-1], axis=1)
        others[:, :-1] += np.cumsum(own[:, :0:-1], axis=1)[:, ::-1]
        return own.sum(axis=1), others[:, :, None] + self._rewards

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        some = self._shown if possible is None else possible
        if not some.any(axis=1).all():
            return 0.0
        most = np.where(some, self._rewards, -np.inf).max(axis=1).sum()
        least = np.where(some, self._rewards, np.inf).min(axis=1).sum()
        return float(max(abs(most), abs(least)))

    def turns(self, marginals: FloatArray) -> Iterator[FloatArray]:
        own = self._own(marginals)
        after = np.zeros_like(own)
        after[:, :-1] = np.cumsum(own[:, :0:-1], axis=1)[:, ::-1]
        before = np.zeros(own.shape[0])
        for i, rewards in enumerate(self._rewards):
            yield (before + after[:, i])[:, None] + rewards
            before += marginals[:, i] @ rewards

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        return sum(
            float(np.max(each @ rewards @ weights))
            for each, rewards in zip(candidates, self._rewards, strict=True)
        )


class AdditiveReward(LeaderReward):
    """Sum of rewards that each follower earns for the leader on its own.

    R(s_1..s_n, a_1..a_n) = sum_i r_i(s_i, a_i). Cost and memory grow with n.

    Parameters
    ----------
    rewards : array (S,), (n, S) or (n, S, A)
        Reward of each state (the same for all followers, or each its own), or of each state and
        action. Few distinct values per follower make few labels, and all passes quicker.

    Raises
    ------
    InputError
        If a reward is not finite; when the problem is built, if the shape does not fit the
        followers.

    Examples
    --------
    The leader loses 1 per step for each follower in state 2:

    >>> reward = AdditiveReward([0.0, 0.0, -1.0])
    >>> reward.bind(100, 3, 2).magnitude()
    100.0
    """

    def __init__(self, rewards: ArrayLike) -> None:
        self.rewards = np.array(rewards, float)
        if self.rewards.ndim not in (1, 2, 3):
            raise invalid("rewards", "shape (S,), (n, S) or (n, S, A)", self.rewards.shape)
        bad = np.argwhere(~np.isfinite(self.rewards))
        if bad.size:
            index = tuple(bad[0])
            raise invalid("rewards", "finite numbers", self.rewards[index], place(index))

    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""
        rewards = per_follower("rewards", self.rewards, n, n_states, n_actions)
        distinct = [np.unique(each, return_inverse=True) for each in rewards]
        shape = (n, max(len(values) for values, _ in distinct))
        labels = np.empty(rewards.shape, np.int64)
        by_label = np.zeros(shape)
        shown = np.zeros(shape, bool)
        for i, (values, inverse) in enumerate(distinct):
            labels[i] = inverse.reshape(rewards.shape[1:])
            by_label[i, : len(values)] = values
            shown[i, : len(values)] = True
        return _BoundAdditive(labels, by_label, shown)

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""
        return AdditiveReward(weight * self.rewards)


class _BoundCount:
    """Values (n+1,) of the number of followers with label 1."""

    n_labels = 2

    def __init__(self, labels: NDArray[np.int64], values: FloatArray) -> None:
        self.labels = labels
        self._values = values

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        expected = np.empty(marginals.shape[0])
        conditional = np.empty(marginals.shape)
        probability = np.ascontiguousarray(marginals[:, :, 1])
        kernels.count_rewards(self._values, probability, expected, conditional)
        return expected, conditional

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        values = self._values
        if possible is not None:
            if not possible.any(axis=1).all():
                return 0.0
            least = int((~possible[:, 0]).sum())
            most = int(possible[:, 1].sum())
            values = values[least : most + 1]
        return float(np.abs(values).max())

    def turns(self, marginals: FloatArray) -> Iterator[FloatArray]:
        function = np.tile(self._values, (marginals.shape[0], 1))
        return self._visit(marginals, 0, marginals.shape[1], function)

    def _visit(
        self, marginals: FloatArray, first: int, last: int, function: FloatArray
    ) -> Iterator[FloatArray]:
        """Visit followers first..last-1, given the function (T, size+1) of their count."""
        if last - first == 1:
            yield function
            return
        middle = (first + last) // 2
        # The second half is formed when the first is done, and its marginals are what they will be.
        yield from self._visit(
            marginals, first, middle, self._averaged(marginals, middle, last, function)
        )
        yield from self._visit(
            marginals, middle, last, self._averaged(marginals, first, middle, function)
        )

    def _averaged(
        self, marginals: FloatArray, first: int, last: int, function: FloatArray
    ) -> FloatArray:
        """Average the function of a group's count over its followers first..last-1."""
        horizon, width = function.shape
        laws = np.empty((horizon, last - first + 1))
        kernels.count_laws(np.ascontiguousarray(marginals[:, first:last, 1]), laws)
        out = np.empty((horizon, width - (last - first)))
        kernels.average_counts(function, laws, out)
        return out

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        shape = (weights.size, len(candidates) - 1)
        low, high = np.empty(shape), np.empty(shape)
        for i, each in enumerate(candidates[1:]):
            low[:, i] = each[:, :, 1].min(axis=0)
            high[:, i] = each[:, :, 1].max(axis=0)
        bounds = np.empty((weights.size, 2))
        kernels.count_bounds(self._values, low, high, bounds)
        return float(np.max((candidates[0] * bounds).sum(axis=2) @ weights))


class CountReward(LeaderReward):
    """Reward of how many followers count, for example how many are late, or at a goal.

    R = values[sum_i c_i(s_i, a_i)] with c_i in {0, 1}. Exact in O(n^2) per time step.

    Parameters
    ----------
    labels : int or bool array (S,), (n, S) or (n, S, A)
        1 where a follower counts, 0 where it does not: by state (the same for all followers, or
        each its own), or by state and action.
    values : array (n+1,)
        Reward for 0, 1, ..., n followers that count.

    Raises
    ------
    InputError
        If a label is not 0 or 1, or a value is not finite; when the problem is built, if the
        shapes do not fit the followers.

    Notes
    -----
    The number that count is Poisson-binomial at each time. Each follower needs the law of the
    others' number; dividing its own factor out of the common law loses all digits at some
    probabilities, so groups are halved instead, as in the tree of Biscarri, Zhao and Brunner,
    "A simple and fast method for computing the Poisson binomial distribution function",
    Computational Statistics & Data Analysis 122 (2018) 92-100.

    Examples
    --------
    The leader earns 5 as long as at most one of three followers is in state 1:

    >>> reward = CountReward([0, 1], [5.0, 5.0, 0.0, 0.0])
    >>> expected, _ = reward.bind(3, 2, 1).expectations(np.full((1, 3, 2), 0.5))
    >>> expected
    array([2.5])
    """

    def __init__(self, labels: ArrayLike, values: ArrayLike) -> None:
        self.labels = np.array(labels)
        self.values = np.array(values, float)
        dtype = self.labels.dtype
        if dtype.kind not in "biu":
            raise invalid("labels", "integers or bools, 0 or 1", dtype)
        if self.labels.ndim not in (1, 2, 3):
            raise invalid("labels", "shape (S,), (n, S) or (n, S, A)", self.labels.shape)
        bad = np.argwhere((self.labels != 0) & (self.labels != 1))
        if bad.size:
            index = tuple(bad[0])
            raise invalid(
                "labels", "0 (does not count) or 1 (counts)", self.labels[index], place(index)
            )
        if self.values.ndim != 1:
            raise invalid("values", "shape (n+1,)", self.values.shape)
        odd = np.flatnonzero(~np.isfinite(self.values))
        if odd.size:
            raise invalid("values", "finite numbers", self.values[odd[0]], f"count {odd[0]}")

    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""
        labels = per_follower("labels", self.labels, n, n_states, n_actions)
        if self.values.shape != (n + 1,):
            raise invalid(
                "values",
                f"shape ({n + 1},), a reward for each of 0..{n} followers",
                self.values.shape,
            )
        return _BoundCount(np.ascontiguousarray(labels, np.int64), self.values)

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""
        return CountReward(self.labels, weight * self.values)


class _PartLabels:
    """The labels of one part of a sum, ``label`` (L,) for each of the common ones."""

    def __init__(self, label: NDArray[np.int64], count: int) -> None:
        self.label = label
        self._count = count
        self._order = np.argsort(label, kind="stable")
        self._present, self._start = np.unique(label[self._order], return_index=True)

    def total(self, common: FloatArray) -> FloatArray:
        """Sum over the common labels (..., L) that show the same label of the part (..., L_k)."""
        out = np.zeros((*common.shape[:-1], self._count))
        out[..., self._present] = np.add.reduceat(common[..., self._order], self._start, axis=-1)
        return out


class _BoundSum:
    """Bound parts under common labels, and how these show the parts' own."""

    def __init__(
        self,
        labels: NDArray[np.int64],
        n_labels: int,
        parts: Sequence[tuple[BoundReward, _PartLabels]],
    ) -> None:
        self.labels = labels
        self.n_labels = n_labels
        self._parts = parts

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        expected = np.zeros(marginals.shape[0])
        conditional = np.zeros(marginals.shape)
        for part, shown in self._parts:
            value, by_label = part.expectations(shown.total(marginals))
            expected += value
            conditional += by_label[:, :, shown.label]
        return expected, conditional

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        if possible is None:
            return sum(part.magnitude() for part, _ in self._parts)
        share = possible.astype(float)
        return sum(part.magnitude(shown.total(share) > 0) for part, shown in self._parts)

    def turns(self, marginals: FloatArray) -> Iterator[FloatArray]:
        own = [shown.total(marginals) for _, shown in self._parts]
        turns = [part.turns(each) for (part, _), each in zip(self._parts, own, strict=True)]
        for i, pieces in enumerate(zip(*turns, strict=True)):
            conditional = np.zeros((marginals.shape[0], self.n_labels))
            for (_, shown), piece in zip(self._parts, pieces, strict=True):
                conditional += piece[:, shown.label]
            yield conditional
            # The parts read their own marginals when they go on.
            for (_, shown), each in zip(self._parts, own, strict=True):
                each[:, i] = shown.total(marginals[:, i])

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        return sum(
            part.relaxed([shown.total(each) for each in candidates], weights)
            for part, shown in self._parts
        )


class SumReward(LeaderReward):
    """Sum of leader rewards; ``first + second`` is short for it, sums of sums are one sum.

    Parameters
    ----------
    parts : sequence of LeaderReward
        At least one; ``2.0 * reward`` gives a part a weight.

    Raises
    ------
    InputError
        If there is no part, or one is not a LeaderReward; when the problem is built, if a part
        does not fit the followers.

    Notes
    -----
    A label is a combination of the parts' labels that some follower shows somewhere. The bounds
    of the bound form are sums of the parts' bounds.

    Examples
    --------
    >>> late = CountReward([0, 1], [0.0, 0.0, -4.0])
    >>> reward = late + 0.5 * AdditiveReward([1.0, 0.0])
    >>> len(reward.parts)
    2
    """

    def __init__(self, parts: Sequence[LeaderReward]) -> None:
        self.parts: list[LeaderReward] = []
        for k, part in enumerate(parts):
            if not isinstance(part, LeaderReward):
                raise InputError(f"parts[{k}]: expected a LeaderReward, got {type(part).__name__}")
            self.parts += part.parts if isinstance(part, SumReward) else [part]
        if not self.parts:
            raise invalid("parts", "at least one LeaderReward", "none")

    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""
        parts = [part.bind(n, n_states, n_actions) for part in self.parts]
        shape = np.broadcast_shapes(*[part.labels.shape for part in parts])
        columns = [np.broadcast_to(part.labels, shape).reshape(-1) for part in parts]
        # Compressed after every part, so that the numbers stay small.
        common = np.zeros(columns[0].size, np.int64)
        first = common
        for part, column in zip(parts, columns, strict=True):
            numbers = common * part.n_labels + column
            _, first, common = np.unique(numbers, return_index=True, return_inverse=True)
        shown = [
            (part, _PartLabels(column[first], part.n_labels))
            for part, column in zip(parts, columns, strict=True)
        ]
        labels = np.ascontiguousarray(common.reshape(shape), np.int64)
        return _BoundSum(labels, first.size, shown)

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""
        return SumReward([part.scaled(weight) for part in self.parts])
