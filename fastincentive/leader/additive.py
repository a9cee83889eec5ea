"""Leader rewards that add up over followers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray, as_floats, check_finite
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.leader.base import BoundReward, LeaderReward
from fastincentive.leader.per_follower import per_follower, place

__all__ = ["AdditiveReward"]


class _BoundAdditive(BoundReward):
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

    def at_labels(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
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

    def additive_parts(self) -> FloatArray:
        return self._rewards


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

    @checked
    def __init__(self, rewards: ArrayLike) -> None:
        self.rewards = as_floats("rewards", rewards)
        if self.rewards.ndim not in (1, 2, 3):
            raise invalid("rewards", "shape (S,), (n, S) or (n, S, A)", self.rewards.shape)
        check_finite("rewards", self.rewards, place)

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
