"""Rewards given by a table over the followers' states or labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray, as_floats, check_finite
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.leader import contraction, majorants
from fastincentive.leader.base import BoundReward, LeaderReward
from fastincentive.leader.per_follower import as_labels, per_follower

__all__ = ["JointReward", "LabelReward"]

#: Tables up to this many numbers have as many labels for each follower as for that with most.
MOST_PADDED = 2**12
#: Tables of more numbers than this are not copied.
LARGE = 2**16


class _BoundTable(BoundReward):
    """A table over L^n."""

    def __init__(self, labels: NDArray[np.int64], table: FloatArray) -> None:
        self.labels = labels
        self.n_labels = int(table.shape[0])
        self._table = table
        self._flat = table.reshape(-1)

    def __reduce__(self) -> tuple[Any, ...]:
        return _BoundTable, (self.labels, self._table)  # once, and not flat as well

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        conditional = self.conditional(marginals)
        return np.einsum("tl,tl->t", conditional[:, 0], marginals[:, 0]), conditional

    def conditional(self, marginals: FloatArray) -> FloatArray:
        return contraction.conditional_rewards(self._table, marginals)

    def expected(self, marginals: FloatArray) -> FloatArray:
        return contraction.expected_rewards(self._table, marginals)

    def at_labels(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        place = labels[:, 0].astype(np.intp)
        for i in range(1, labels.shape[1]):
            place *= self.n_labels
            place += labels[:, i]
        return self._flat[place]

    def small_table(self, most: int) -> FloatArray | None:
        small = self.labels.shape[2] == 1 and self.n_labels <= most
        return self._table if small else None

    def joint_table(self, policies: FloatArray) -> FloatArray:
        if self.labels.shape[2] > 1:
            return super().joint_table(policies)
        labels = self.labels[:, :, 0]
        if labels.shape[1] == self.n_labels and (labels == np.arange(self.n_labels)).all():
            return self._table
        return self._table[np.ix_(*labels)]

    def pair(self, marginals: FloatArray, i: int, j: int) -> FloatArray:
        count = self.n_labels
        others = [k for k in range(marginals.shape[1]) if k not in (i, j)]
        if others and self._table.size > LARGE:
            return contraction.pair_of_many(self._table, marginals, i, j)
        held = np.moveaxis(self._table, (i, j), (0, 1)).reshape(1, -1)
        for k in reversed(others):
            # Label k is the last axis by now: contract it, each time with its own marginals.
            held = np.matmul(held.reshape(held.shape[0], -1, count), marginals[:, k, :, None])
            held = held[:, :, 0]
        shape = (marginals.shape[0], count, count)
        return np.broadcast_to(held.reshape(-1, count, count), shape).copy()

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        return _largest(self._table, possible)

    def turns(self, marginals: FloatArray) -> Iterator[FloatArray]:
        for i in range(marginals.shape[1]):
            yield contraction.one_conditional(self._table, marginals, i)

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        # Followers n-1..1 choose anew at each time and for each combination of the labels before
        # theirs, which can only be better than one choice; follower 0 chooses once.
        bounds = np.empty((weights.size, self.n_labels))
        for t in range(weights.size):
            best = self._flat
            for each in reversed(candidates[1:]):
                best = (best.reshape(-1, self.n_labels) @ each[:, t].T).max(axis=1)
            bounds[t] = best
        return float(np.max((candidates[0] * bounds).sum(axis=2) @ weights))

    def scratch_bytes(self, horizon: int) -> int:
        return contraction.scratch_bytes(self._table, horizon)

    def majorant(
        self,
        sign: float,
        possible: NDArray[np.bool_],
        lasting: NDArray[np.bool_],
        reference: FloatArray,
    ) -> FloatArray | None:
        if self._table.ndim > 1:
            found = majorants.fit_table(sign * self._table, possible, lasting, reference)
            if found is not None:
                return found
        return super().majorant(sign, possible, lasting, reference)


class _BoundUneven(BoundReward):
    """A table over (L_1, ..., L_n), which L^n would make much larger."""

    def __init__(self, labels: NDArray[np.int64], table: FloatArray) -> None:
        self.labels = labels
        self.n_labels = max(table.shape)
        self._table = table

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        conditional = self.conditional(marginals)
        return np.einsum("tl,tl->t", conditional[:, 0], marginals[:, 0]), conditional

    def conditional(self, marginals: FloatArray) -> FloatArray:
        return contraction.uneven_conditional(self._table, marginals)

    def at_labels(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        return np.asarray(self._table[tuple(labels.T)])

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        return _largest(self._table, possible)

    def scratch_bytes(self, horizon: int) -> int:
        return 8 * (contraction.SCRATCH + 16 * self._table.size)


def _bound(labels: NDArray[np.int64], table: FloatArray) -> BoundReward:
    """Bind a table (L_1, ..., L_n) to labels (n, S, 1) or (n, S, A) that are on it."""
    largest = max(table.shape)
    padded = largest**table.ndim
    if padded == table.size:
        return _BoundTable(labels, np.ascontiguousarray(table))
    if padded > MOST_PADDED and padded > 4 * table.size:
        return _BoundUneven(labels, table)
    whole = np.zeros((largest,) * table.ndim)
    whole[tuple(slice(count) for count in table.shape)] = table
    return _BoundTable(labels, whole)


def _largest(table: FloatArray, possible: NDArray[np.bool_] | None) -> float:
    """Largest magnitude in a table over marked labels (n, L); a large table is not copied."""
    shown = [np.arange(count) for count in table.shape]
    if possible is not None:
        shown = [
            np.flatnonzero(row[: each.size]) for row, each in zip(possible, shown, strict=True)
        ]
    if table.ndim == 1 or table.size <= LARGE:
        return float(np.abs(table[np.ix_(*shown)]).max(initial=0.0))
    whole = all(some.size == count for some, count in zip(shown[1:], table.shape[1:], strict=True))
    most = 0.0
    for k in shown[0].tolist():
        part = table[k] if whole else table[k][np.ix_(*shown[1:])]
        most = max(most, float(part.max(initial=0.0)), -float(part.min(initial=0.0)))
    return most


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

    @checked
    def __init__(self, labels: ArrayLike, table: ArrayLike) -> None:
        self.labels = as_labels("labels", labels)
        self.table = as_floats("table", table)
        check_finite("table", self.table)

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
        return _bound(np.ascontiguousarray(labels, np.int64), self.table)

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

    @checked
    def __init__(self, table: ArrayLike) -> None:
        self.table = as_floats("table", table)
        check_finite("table", self.table)

    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""
        # Tables may be large: they are not copied.
        if self.table.shape == (n_states,) * n:
            return _bound(np.tile(np.arange(n_states)[:, None], (n, 1, 1)), self.table)
        if self.table.shape == (n_states, n_actions) * n:
            pairs = np.arange(n_states * n_actions).reshape(1, n_states, n_actions)
            table = self.table.reshape((n_states * n_actions,) * n)
            return _bound(np.repeat(pairs, n, axis=0), table)
        raise invalid(
            "table",
            f"shape {(n_states,) * n} (joint states) or {(n_states, n_actions) * n} "
            "(states and actions, follower by follower)",
            self.table.shape,
        )

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""
        return JointReward(weight * self.table)
