"""Leader rewards of populations: n types of followers, several alike of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._machine import check_large
from fastincentive.leader.base import BLOCK, BoundReward, LeaderReward

__all__ = ["bind_everybody", "spread"]


def spread(given: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[Any]:
    """Repeat an array by type (n, ...) for every follower (N, ...); (S,) is that of all types."""
    if given.ndim > 1 and len(given) == counts.size:
        every = int(counts.sum())
        check_large(f"A reward that tells {every} followers apart", every * given[0].nbytes)
        return np.repeat(given, counts, axis=0)
    return given


def bind_everybody(
    reward: LeaderReward, counts: NDArray[np.int64], n_states: int, n_actions: int
) -> BoundReward:
    """Bind a reward of all N followers, in the order of their types (n,), to the types."""
    population = int(counts.sum())
    need = 24.0 * population * n_states
    check_large(f"A reward that tells {population} followers apart", need)
    return _BoundPopulation(reward.bind(int(counts.sum()), n_states, n_actions), counts)


class _BoundPopulation(BoundReward):
    """A reward of all N followers, seen from n types whose followers behave alike.

    Marginals and conditional rewards are those of one follower of each type.
    """

    def __init__(self, reward: BoundReward, counts: NDArray[np.int64]) -> None:
        self._reward = reward
        self._counts = counts
        self._first = np.cumsum(counts) - counts
        self.labels = np.ascontiguousarray(reward.labels[self._first])
        self.n_labels = reward.n_labels

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        expected = np.empty(marginals.shape[0])
        conditional = np.empty(marginals.shape)
        size = self._times()
        for first in range(0, expected.size, size):
            block = slice(first, first + size)
            everybody = np.repeat(marginals[block], self._counts, axis=1)
            expected[block], each = self._reward.expectations(everybody)
            conditional[block] = each[:, self._first]
        return expected, conditional

    def _times(self) -> int:
        """Count the times that are gone through at once."""
        return max(1, 8 * BLOCK // int(self._counts.sum() * self.n_labels))

    def scratch_bytes(self, horizon: int) -> int:
        # Everybody's marginals, conditional rewards and what these take.
        times = min(horizon, self._times())
        return 3 * 8 * times * int(self._counts.sum()) * self.n_labels

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        if possible is not None:
            possible = np.repeat(possible, self._counts, axis=0)
        return self._reward.magnitude(possible)

    def turns(self, marginals: FloatArray) -> Iterator[FloatArray]:
        raise NotImplementedError  # followers of a type do not take turns

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        raise NotImplementedError  # bounds are for followers one by one
