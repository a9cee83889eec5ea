"""What the leader earns: rewards on the joint state, seen through labels.

A *label* is what the reward can see of a follower. A reward implements ``bind``, which checks it
against the followers' sizes and returns the bound form that the three passes need: labels, the
expected reward and the conditional expected reward at independent label marginals, and a bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive.errors import invalid
from fastincentive.kernels import marginals as kernels
from fastincentive.mdp import FloatArray

__all__ = ["BoundReward", "JointReward", "LabelReward", "LeaderReward"]


class BoundReward(Protocol):
    """A leader reward for n followers with known sizes: what the three passes call."""

    #: (n, S, 1) or, if the reward sees actions, (n, S, A): label of each follower, state, action.
    labels: NDArray[np.int64]
    #: Number of labels L.
    n_labels: int

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        """E[R] (T,) and E[R | label_i = l] (T, n, L) for label marginals (T, n, L)."""
        ...

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        """Bound on |R| over the labels marked possible (n, L); over all by default."""
        ...


class LeaderReward(ABC):
    """A reward that depends on the joint state (and possibly actions) of all followers."""

    @abstractmethod
    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""


class _BoundTable:
    """A table over L^n."""

    def __init__(self, labels: NDArray[np.int64], table: FloatArray) -> None:
        self.labels = labels
        self.n_labels = int(table.shape[0])
        self._table = table
        self._flat = table.reshape(-1)

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        expected = np.empty(marginals.shape[0])
        conditional = np.empty(marginals.shape)
        kernels.multilinear_rewards(self._flat, marginals, expected, conditional)
        return expected, conditional

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        table = self._table
        if possible is not None:
            table = table[np.ix_(*[np.flatnonzero(row) for row in possible])]
        return float(np.abs(table).max(initial=0.0))


class LabelReward(LeaderReward):
    """Reward given by a table over the followers' labels.

    Parameters
    ----------
    labels : int array (S,), (n, S) or (n, S, A)
        Label of each state (the same for all followers, or each its own), or of each state and
        action.
    table : array (L_1, ..., L_n)
        Reward for each combination of labels, one axis per follower.

    Raises
    ------
    InputError
        When the problem is built, if shapes or label numbers do not fit the followers.
    """

    def __init__(self, labels: ArrayLike, table: ArrayLike) -> None:
        self.labels = np.array(labels)
        self.table = np.array(table, float)
        if not np.issubdtype(self.labels.dtype, np.integer) or self.labels.ndim not in (1, 2, 3):
            raise invalid(
                "labels",
                "integers of shape (S,), (n, S) or (n, S, A)",
                f"{self.labels.dtype} {self.labels.shape}",
            )
        if not np.isfinite(self.table).all():
            where = tuple(int(k) for k in np.argwhere(~np.isfinite(self.table))[0])
            raise invalid("table", "finite numbers", self.table[where], f"index {where}")

    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""
        labels = self.labels
        if labels.ndim == 1:
            labels = np.broadcast_to(labels, (n, labels.shape[0]))
        width = labels.shape[2] if labels.ndim == 3 else 1
        if labels.shape[:2] != (n, n_states) or width not in (1, n_actions):
            raise invalid(
                "labels",
                f"shape ({n_states},), ({n}, {n_states}) or ({n}, {n_states}, {n_actions})",
                self.labels.shape,
            )
        if self.table.ndim != n:
            raise invalid("table", f"one axis per follower, {n}", f"{self.table.ndim} axes")
        labels = labels.reshape(n, n_states, width)
        for i in range(n):
            count = self.table.shape[i]
            bad = (labels[i] < 0) | (labels[i] >= count)
            if bad.any():
                s = int(np.argwhere(bad)[0][0])
                raise invalid(
                    "labels",
                    f"numbers in 0..{count - 1}, the size of table axis {i}",
                    int(labels[i][bad][0]),
                    f"follower {i}, state {s}",
                )
        largest = max(self.table.shape)
        table = np.zeros((largest,) * n)
        table[tuple(slice(count) for count in self.table.shape)] = self.table
        return _BoundTable(np.ascontiguousarray(labels, np.int64), table)


class JointReward(LeaderReward):
    """Reward given by a dense table over the joint state, or joint state and action.

    Parameters
    ----------
    table : array (S,)*n or (S, A)*n
        ``table[s_1, ..., s_n]``, or ``table[s_1, a_1, ..., s_n, a_n]``.

    Raises
    ------
    InputError
        When the problem is built, if the shape does not fit the followers.
    """

    def __init__(self, table: ArrayLike) -> None:
        self.table = np.array(table, float)
        if not np.isfinite(self.table).all():
            where = tuple(int(k) for k in np.argwhere(~np.isfinite(self.table))[0])
            raise invalid("table", "finite numbers", self.table[where], f"index {where}")

    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""
        if self.table.shape == (n_states,) * n:
            return LabelReward(np.arange(n_states), self.table).bind(n, n_states, n_actions)
        if self.table.shape == (n_states, n_actions) * n:
            pairs = np.arange(n_states * n_actions).reshape(1, n_states, n_actions)
            labels = np.repeat(pairs, n, axis=0)
            table = self.table.reshape((n_states * n_actions,) * n)
            return LabelReward(labels, table).bind(n, n_states, n_actions)
        raise invalid(
            "table",
            f"shape {(n_states,) * n} (joint states) or {(n_states, n_actions) * n} "
            "(states and actions, follower by follower)",
            self.table.shape,
        )
