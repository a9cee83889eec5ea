"""What the leader earns: rewards on the joint state, seen through labels.

A *label* is what the reward can see of a follower. A reward implements ``bind``, which checks it
against the followers' sizes and returns the bound form, a ``BoundReward``: all that the rest of the
package asks. Nothing outside asks what class a reward is of.
Rewards add up with ``+``, and ``*`` gives them a weight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.leader.argument_checks import check_questions

__all__ = ["BoundReward", "LeaderReward", "SumReward"]

#: Numbers in one block of label marginals, where joint states are gone through.
BLOCK = 2**20


class BoundReward(ABC):
    """A leader reward of n followers with known sizes: what the passes and searches ask.

    A reward must know ``expectations`` and ``magnitude``. All else follows from these two, as the
    defaults say; a reward that can do better, or sooner, does it its own way.
    """

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        check_questions(cls)

    #: (n, S, 1) or, if the reward sees actions, (n, S, A): label of each follower, state, action.
    labels: NDArray[np.int64]
    #: Number of labels L.
    n_labels: int

    @abstractmethod
    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        """E[R] (T,) and E[R | label_i = l] (T, n, L) for label marginals (T, n, L)."""

    @abstractmethod
    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        """Bound on |R| over the labels marked possible (n, L); over all by default.

        0 if a follower has no possible label.
        """

    def expected(self, marginals: FloatArray) -> FloatArray:
        """E[R] (T,) for label marginals (T, n, L); by default the first of ``expectations``."""
        return self.expectations(marginals)[0]

    def conditional(self, marginals: FloatArray) -> FloatArray:
        """E[R | label_i = l] (T, n, L); by default the second of ``expectations``."""
        return self.expectations(marginals)[1]

    def sampled(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        """R (M,) of joint labels (M, n), block by block, see ``at_labels``."""
        count, n = labels.shape
        out = np.empty(count)
        size = max(1, BLOCK // (n * self.n_labels))
        for first in range(0, count, size):
            out[first : first + size] = self.at_labels(labels[first : first + size])
        return out

    def at_labels(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        """R (M,) of so few joint labels (M, n) that arrays (M, n, L) have room.

        By default what followers earn that are certain of these labels.
        """
        return self.expectations(np.eye(self.n_labels)[labels])[0]

    def turns(self, marginals: FloatArray) -> Iterator[FloatArray]:
        """E[R | label_i = l] (T, L) of followers i = 0..n-1 in turn, for marginals (T, n, L).

        The caller may overwrite ``marginals[:, i]`` of the follower just visited before it goes on
        to the next one; all that follows is given the new ones. The array of each turn is its own.
        By default all conditional rewards are computed for each follower: n times the work.
        """
        for i in range(marginals.shape[1]):
            yield self.conditional(marginals)[:, i].copy()

    def pair(self, marginals: FloatArray, i: int, j: int) -> FloatArray:
        """E[R | label_i = l, label_j = m] (T, L, L), the others at their marginals (T, n, L).

        By default follower j is certain of each label in turn.
        """
        horizon, n, count = marginals.shape
        certain = np.repeat(marginals[None], count, axis=0)
        certain[:, :, j] = np.eye(count)[:, None, :]
        conditional = self.conditional(certain.reshape(-1, n, count))
        table = conditional.reshape(count, horizon, n, count)[:, :, i]
        return np.ascontiguousarray(table.transpose(1, 2, 0))

    def label_table(self) -> FloatArray:
        """R over the labels of one follower (L,) or of two (L, L)."""
        n, count = len(self.labels), self.n_labels
        if n == 1:
            return self.expected(np.eye(count)[:, None, :])
        return self.pair(np.full((1, n, count), 1.0 / count), 0, 1)[0]

    def small_table(self, most: int) -> FloatArray | None:
        """Table (L,)*n that R is read from, if it has one, over at most so many labels of states.

        By default there is none.
        """
        return None

    def joint_table(self, policies: FloatArray) -> FloatArray:
        """E[R | s_1, ..., s_n] (S,)*n of one step under policies (n, S, A).

        By default the other followers' joint states stand for times, and follower 0's conditional
        rewards are what its labels earn there.
        """
        n, states, actions = policies.shape
        count = self.n_labels
        # Laws of the labels that each state shows.
        shown = np.zeros((n, states, count))
        labels = np.broadcast_to(self.labels, policies.shape)
        where = np.ogrid[:n, :states]
        for a in range(actions):
            np.add.at(shown, (*where, labels[:, :, a]), policies[:, :, a])
        others = np.indices((states,) * (n - 1)).reshape(n - 1, states ** (n - 1))
        out = np.empty((states, others.shape[1]))
        size = max(1, BLOCK // (n * count))
        for first in range(0, out.shape[1], size):
            block = others[:, first : first + size]
            marginals = np.empty((block.shape[1], n, count))
            marginals[:, 0] = 1.0 / count
            for j in range(1, n):
                marginals[:, j] = shown[j, block[j - 1]]
            out[:, first : first + size] = shown[0] @ self.conditional(marginals)[:, 0].T
        return out.reshape((states,) * n)

    def scratch_bytes(self, horizon: int) -> int:
        """Bytes that expectations over T times take beside their results (T, n, L), about.

        By default as many as the marginals, of which a copy is made.
        """
        return 8 * horizon * len(self.labels) * self.n_labels

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        """Bound max over c of sum_t weights[t] E[R | m_i^t = candidates[i][c_i, t]] from above.

        ``candidates`` holds for each follower the label marginals (C_i, T, L) that it may choose,
        once for all times; ``weights`` (T,) are >= 0. Exact, but for rounding, when every C_i is 1.
        By default exact when one follower at most has a choice, and else the largest |R| over the
        labels of all candidates at all times.
        """
        choosing = [i for i, each in enumerate(candidates) if len(each) > 1]
        if len(choosing) > 1:
            possible = np.stack([(each > 0.0).any(axis=(0, 1)) for each in candidates])
            return float(weights.sum()) * self.magnitude(possible)
        i = choosing[0] if choosing else 0
        conditional = self.conditional(np.stack([each[0] for each in candidates], axis=1))[:, i]
        return float(np.max((candidates[i] * conditional).sum(axis=2) @ weights))

    def additive_parts(self) -> FloatArray | None:
        """Rewards (n, L) that each follower earns on its own and that add up to R, or None.

        By default known for one follower only.
        """
        return self.label_table()[None] if len(self.labels) == 1 else None

    def majorant(
        self,
        sign: float,
        possible: NDArray[np.bool_],
        lasting: NDArray[np.bool_],
        reference: FloatArray,
    ) -> FloatArray | None:
        """Find u (n, L) with sign * R(l_1..l_n) <= sum_i u_i(l_i), small at a reference.

        By default the parts that add up to R, if there are, and else a constant.

        Parameters
        ----------
        sign : float
            1, or -1 for minus a minorant.
        possible : bool array (n, L)
            Labels that the followers can show.
        lasting : bool array (n, L)
            Labels at which u must be <= 0 (for what may be earned for ever at discount 1).
        reference : array (n, L)
            Positive weights, of equal sums, of the labels: sum_i reference_i . u_i is minimised.

        Returns
        -------
        array (n, L) or None
            None if none is found.
        """
        own = self.additive_parts()
        if own is not None:
            return sign * own
        if lasting.any():
            return None
        return np.full(possible.shape, self.magnitude(possible) / len(possible))


class LeaderReward(ABC):
    """A reward that depends on the joint state (and possibly actions) of all followers.

    ``first + second`` is the sum of two rewards, ``2.0 * reward`` a reward with a weight.
    """

    #: NumPy numbers leave the product to ``__rmul__``.
    __array_ufunc__ = None

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        check_questions(cls)

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
        return self.scaled(weight)

    __rmul__ = __mul__


for _own in (BoundReward, LeaderReward):
    check_questions(_own)


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


class _BoundSum(BoundReward):
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

    def at_labels(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        total = np.zeros(len(labels))
        for part, shown in self._parts:
            total += part.sampled(shown.label[labels])
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

    def scratch_bytes(self, horizon: int) -> int:
        return 3 * super().scratch_bytes(horizon)

    def additive_parts(self) -> FloatArray | None:
        total = np.zeros((len(self.labels), self.n_labels))
        for part, shown in self._parts:
            own = part.additive_parts()
            if own is None:
                return None
            total += own[:, shown.label]
        return total

    def majorant(
        self,
        sign: float,
        possible: NDArray[np.bool_],
        lasting: NDArray[np.bool_],
        reference: FloatArray,
    ) -> FloatArray | None:
        whole = self.additive_parts()
        if whole is not None:
            return sign * whole
        total = np.zeros(possible.shape)
        for part, shown in self._parts:
            own = part.majorant(
                sign,
                shown.total(possible.astype(float)) > 0,
                shown.total(lasting.astype(float)) > 0,
                shown.total(reference),
            )
            if own is None:
                return None
            total += own[:, shown.label]
        return total


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
    >>> from fastincentive import AdditiveReward, CountReward
    >>> late = CountReward([0, 1], [0.0, 0.0, -4.0])
    >>> reward = late + 0.5 * AdditiveReward([1.0, 0.0])
    >>> len(reward.parts)
    2
    """

    @checked
    def __init__(self, parts: Sequence[LeaderReward]) -> None:
        self.parts: list[LeaderReward] = []
        for part in parts:
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
