"""What the leader earns: rewards on the joint state, seen through labels.

A *label* is what the reward can see of a follower. A reward implements ``bind``, which checks it
against the followers' sizes and returns the bound form that the three passes need: labels, the
expected reward and the conditional expected reward at independent label marginals, and bounds.
Rewards add up with ``+``, and ``*`` gives them a weight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import InputError, invalid
from fastincentive.leader import contraction

__all__ = [
    "BoundReward",
    "LeaderReward",
    "SumReward",
    "_BoundTable",
    "conditional_rewards",
    "expected_rewards",
    "joint_table",
    "pair_rewards",
    "per_follower",
    "sampled_rewards",
    "scratch_bytes",
]

#: Numbers in one block of label marginals, where joint states are gone through.
BLOCK = 2**20


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

    def turns(self, marginals: FloatArray) -> Iterator[FloatArray]:
        """E[R | label_i = l] (T, L) of followers i = 0..n-1 in turn, for marginals (T, n, L).

        The caller may overwrite ``marginals[:, i]`` of the follower just visited before it goes on
        to the next one; all that follows is given the new ones. The array of each turn is its own.
        """
        ...

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        """Bound max over c of sum_t weights[t] E[R | m_i^t = candidates[i][c_i, t]] from above.

        ``candidates`` holds for each follower the label marginals (C_i, T, L) that it may choose,
        once for all times; ``weights`` (T,) are >= 0. Exact, but for rounding, when every C_i is 1.
        """
        ...


class LeaderReward(ABC):
    """A reward that depends on the joint state (and possibly actions) of all followers.

    ``first + second`` is the sum of two rewards, ``2.0 * reward`` a reward with a weight.
    """

    #: NumPy numbers leave the product to ``__rmul__``.
    __array_ufunc__ = None

    @abstractmethod
    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""

    def bind_types(self, counts: NDArray[np.int64], n_states: int, n_actions: int) -> BoundReward:
        """As ``bind`` for types of followers with counts (n,); arrays by follower are by type.

        Raises
        ------
        InputError
            If the reward does not see the followers of a type alike.
        """
        raise invalid(
            "leader",
            "a reward that is the same whichever followers of a type are where",
            type(self).__name__,
            remedy="List the followers one by one",
        )

    @abstractmethod
    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""

    def __add__(self, other: LeaderReward) -> LeaderReward:
        """Return the sum of two rewards."""
        if not isinstance(other, LeaderReward):
            return NotImplemented
        return SumReward([self, other])

    def __mul__(self, weight: float) -> LeaderReward:
        """Return the reward times a finite number; any other number is an InputError."""
        if not isinstance(weight, (int, float, np.integer, np.floating)):
            return NotImplemented
        if not np.isfinite(weight):
            raise invalid("weight", "a finite number", weight)
        return self.scaled(float(weight))

    __rmul__ = __mul__


def per_follower(
    argument: str, given: NDArray[Any], n: int, n_states: int, n_actions: int
) -> NDArray[Any]:
    """Spread an array (S,), (n, S) or (n, S, A) to (n, S, 1) or (n, S, A), or raise."""
    spread = np.broadcast_to(given, (n, *given.shape)) if given.ndim == 1 else given
    width = spread.shape[2] if spread.ndim == 3 else 1
    if spread.shape[:2] != (n, n_states) or width not in (1, n_actions):
        raise invalid(
            argument,
            f"shape ({n_states},), ({n}, {n_states}) or ({n}, {n_states}, {n_actions})",
            given.shape,
        )
    return spread.reshape(n, n_states, width)


def place(index: tuple[int, ...]) -> str:
    """Name the entry of an array (S,), (n, S) or (n, S, A)."""
    names = ("state",) if len(index) == 1 else ("follower", "state", "action")
    return ", ".join(f"{name} {k}" for name, k in zip(names, index, strict=False))


class _BoundTable:
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
        """E[R | label_i = l] (T, n, L) alone."""
        return contraction.conditional_rewards(self._table, marginals)

    def expected(self, marginals: FloatArray) -> FloatArray:
        """E[R] (T,), without the conditional rewards."""
        return contraction.expected_rewards(self._table, marginals)

    def sampled(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        """R (M,) of joint labels (M, n)."""
        place = labels[:, 0].astype(np.intp)
        for i in range(1, labels.shape[1]):
            place *= self.n_labels
            place += labels[:, i]
        return self._flat[place]

    def at_states(self) -> FloatArray:
        """R over joint states (S,)*n, for labels of states."""
        labels = self.labels[:, :, 0]
        if labels.shape[1] == self.n_labels and (labels == np.arange(self.n_labels)).all():
            return self._table
        return self._table[np.ix_(*labels)]

    def pair(self, marginals: FloatArray, i: int, j: int) -> FloatArray:
        """E[R | label_i = l, label_j = m] (T, L, L)."""
        count = self.n_labels
        others = [k for k in range(marginals.shape[1]) if k not in (i, j)]
        held = np.moveaxis(self._table, (i, j), (0, 1)).reshape(1, -1)
        for k in reversed(others):
            # Label k is the last axis by now: contract it, each time with its own marginals.
            held = np.matmul(held.reshape(held.shape[0], -1, count), marginals[:, k, :, None])
            held = held[:, :, 0]
        shape = (marginals.shape[0], count, count)
        return np.broadcast_to(held.reshape(-1, count, count), shape).copy()

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        table = self._table
        if possible is not None:
            table = table[np.ix_(*[np.flatnonzero(row) for row in possible])]
        return float(np.abs(table).max(initial=0.0))

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


def expected_rewards(leader: BoundReward, marginals: FloatArray) -> FloatArray:
    """E[R] (T,) for label marginals (T, n, L): for tables without the conditional rewards."""
    if isinstance(leader, _BoundTable):
        return leader.expected(marginals)
    return leader.expectations(marginals)[0]


def conditional_rewards(leader: BoundReward, marginals: FloatArray) -> FloatArray:
    """E[R | label_i = l] (T, n, L) for label marginals (T, n, L): for tables without E[R]."""
    if isinstance(leader, _BoundTable):
        return leader.conditional(marginals)
    return leader.expectations(marginals)[1]


def sampled_rewards(leader: BoundReward, labels: NDArray[np.integer[Any]]) -> FloatArray:
    """R (M,) of joint labels (M, n): their expectation when all followers are certain."""
    sampled = getattr(leader, "sampled", None)
    count, n = labels.shape
    out = np.empty(count)
    size = max(1, BLOCK // (n * leader.n_labels))
    for first in range(0, count, size):
        some = labels[first : first + size]
        if sampled is not None:
            out[first : first + size] = sampled(some)
        else:
            certain = np.eye(leader.n_labels)[some]
            out[first : first + size] = leader.expectations(certain)[0]
    return out


def scratch_bytes(leader: BoundReward, horizon: int, n: int) -> int:
    """Bytes that expectations over T times take beside their results (T, n, L), about."""
    from fastincentive.leader.base import _BoundSum
    from fastincentive.leader.population import _BoundPopulation

    if isinstance(leader, _BoundTable):
        return 0
    if isinstance(leader, _BoundPopulation):
        return leader.scratch_bytes(horizon)
    return 8 * horizon * n * leader.n_labels * (3 if isinstance(leader, _BoundSum) else 1)


def small_table(leader: BoundReward, most: int) -> FloatArray | None:
    """Table (L,)*n over labels of states, or None if there is none with at most so many labels."""
    if isinstance(leader, _BoundTable) and leader.labels.shape[2] == 1 and leader.n_labels <= most:
        return leader._table
    return None


def joint_table(leader: BoundReward, policies: FloatArray) -> FloatArray:
    """E[R | s_1, ..., s_n] (S,)*n of one step under policies (n, S, A)."""
    n, states, actions = policies.shape
    count = leader.n_labels
    if isinstance(leader, _BoundTable) and leader.labels.shape[2] == 1:
        return leader.at_states()
    # Laws of the labels that each state shows.
    shown = np.zeros((n, states, count))
    labels = np.broadcast_to(leader.labels, policies.shape)
    where = np.ogrid[:n, :states]
    for a in range(actions):
        np.add.at(shown, (*where, labels[:, :, a]), policies[:, :, a])
    # The others in each of their joint states, in C order, stand for times.
    others = np.indices((states,) * (n - 1)).reshape(n - 1, states ** (n - 1))
    out = np.empty((states, others.shape[1]))
    size = max(1, BLOCK // (n * count))
    for first in range(0, out.shape[1], size):
        block = others[:, first : first + size]
        marginals = np.empty((block.shape[1], n, count))
        marginals[:, 0] = 1.0 / count
        for j in range(1, n):
            marginals[:, j] = shown[j, block[j - 1]]
        given = leader.expectations(marginals)[1][:, 0]
        out[:, first : first + size] = shown[0] @ given.T
    return out.reshape((states,) * n)


def pair_rewards(leader: BoundReward, marginals: FloatArray, i: int, j: int) -> FloatArray:
    """E[R | label_i = l, label_j = m] (T, L, L), the others at their marginals (T, n, L)."""
    horizon, n, count = marginals.shape
    if isinstance(leader, _BoundTable):
        return leader.pair(marginals, i, j)
    # Follower j certain of each label in turn.
    certain = np.repeat(marginals[None], count, axis=0)
    certain[:, :, j] = np.eye(count)[:, None, :]
    _, conditional = leader.expectations(certain.reshape(-1, n, count))
    table = conditional.reshape(count, horizon, n, count)[:, :, i]
    return np.ascontiguousarray(table.transpose(1, 2, 0))


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
