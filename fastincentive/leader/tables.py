"""Rewards given by a table over the followers' states or labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastincentive.errors import invalid
from fastincentive.leader.base import BoundReward, LeaderReward, _BoundTable, per_follower

__all__ = ["JointReward", "LabelReward"]


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
        labels = per_follower("labels", self.labels, n, n_states, n_actions)
        if self.table.ndim != n:
            raise invalid("table", f"one axis per follower, {n}", f"{self.table.ndim} axes")
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

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""
        return LabelReward(self.labels, weight * self.table)


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

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""
        return JointReward(weight * self.table)
