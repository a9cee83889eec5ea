"""Leader rewards that add up: over followers, and sums of any rewards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive.errors import InputError, invalid
from fastincentive.leader import (
    BoundReward,
    LeaderReward,
    per_follower,
    place,
    sampled_rewards,
)
from fastincentive.mdp import FloatArray

__all__ = ["AdditiveReward", "SumReward"]


class _BoundAdditive:
    """Rewards (n, L) by follower and label; ``shown`` (n, L) marks the labels in use."""

    def __init__(
        self,
        labels: NDArray[np.int64],
        rewards: FloatArray,
        shown: NDArray[np.bool_],
        counts: NDArray[np.int64],
    ) -> None:
        self._counts = counts
        self.labels = labels
        self.n_labels = int(rewards.shape[1])
        self._rewards = rewards
        self._shown = shown

    def _own(self, marginals: FloatArray) -> FloatArray:
        """Return each follower's expected reward (T, n)."""
        return np.einsum("til,il->ti", marginals, self._rewards)

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        own = self._own(marginals)
        alike = self._counts * own
        # Followers before and after, added up: taking one off the total would leave its rounding.
        others = alike - own
        others[:, 1:] += np.cumsum(alike[:, :-1], axis=1)
        others[:, :-1] += np.cumsum(alike[:, :0:-1], axis=1)[:, ::-1]
        return alike.sum(axis=1), others[:, :, None] + self._rewards

    def sampled(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        """R (M,) of joint labels (M, n)."""
        own = self._rewards[np.arange(labels.shape[1]), labels]
        return np.asarray(own @ self._counts.astype(float))

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        some = self._shown if possible is None else possible
        if not some.any(axis=1).all():
            return 0.0
        most = self._counts @ np.where(some, self._rewards, -np.inf).max(axis=1)
        least = self._counts @ np.where(some, self._rewards, np.inf).min(axis=1)
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
        return self.bind_types(np.ones(n, np.int64), n_states, n_actions)

    def bind_types(self, counts: NDArray[np.int64], n_states: int, n_actions: int) -> BoundReward:
        """As ``bind`` for types of followers with counts (n,)."""
        n = counts.size
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
        return _BoundAdditive(labels, by_label, shown, counts)

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""
        return AdditiveReward(weight * self.rewards)


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

    def sampled(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        """R (M,) of joint labels (M, n)."""
        total = np.zeros(len(labels))
        for part, shown in self._parts:
            total += sampled_rewards(part, shown.label[labels])
        return total

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
    >>> from fastincentive import CountReward
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
        return _joined([part.bind(n, n_states, n_actions) for part in self.parts])

    def bind_types(self, counts: NDArray[np.int64], n_states: int, n_actions: int) -> BoundReward:
        """As ``bind`` for types of followers with counts (n,)."""
        return _joined([part.bind_types(counts, n_states, n_actions) for part in self.parts])

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""
        return SumReward([part.scaled(weight) for part in self.parts])


def _joined(parts: Sequence[BoundReward]) -> _BoundSum:
    """Bind parts to labels that they have in common."""
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
