"""Leader rewards of how many followers carry each label."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray, as_floats, as_numbers, check_finite
from fastincentive._checks import checked
from fastincentive.errors import ProductSpaceTooLargeError, invalid
from fastincentive.kernels import counts as kernels
from fastincentive.kernels.label_counts import Simplices, label_count_rewards
from fastincentive.leader import majorants
from fastincentive.leader.base import BoundReward, LeaderReward
from fastincentive.leader.per_follower import per_follower, place
from fastincentive.leader.population import bind_everybody, spread

__all__ = ["CountReward", "average_counts", "by_halves"]

#: Laws of more than two labels may take so much memory per thread.
MOST_GIB = 2.0


def average_counts(function: FloatArray, probability: FloatArray) -> FloatArray:
    """Average functions (T, g+h+1) of a count over g followers of it with these chances (T, g)."""
    horizon, size = probability.shape
    laws = np.empty((horizon, size + 1))
    kernels.count_laws(np.ascontiguousarray(probability), laws)
    out = np.empty((horizon, function.shape[1] - size))
    kernels.average_counts(function, laws, out)
    return out


def by_halves(
    first: int,
    last: int,
    function: FloatArray,
    averaged: Callable[[FloatArray, slice], FloatArray],
) -> Iterator[FloatArray]:
    """Visit followers first..last-1, given a function (T, ...) of their count.

    ``averaged`` averages a function over some of the followers of its count. The second half's is
    formed when the first is done, and its marginals are what they will be.
    """
    if last - first == 1:
        yield function
        return
    middle = (first + last) // 2
    for own, others in (
        (slice(first, middle), slice(middle, last)),
        (slice(middle, last), slice(first, middle)),
    ):
        yield from by_halves(own.start, own.stop, averaged(function, others), averaged)


class _BoundCount(BoundReward):
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

    def at_labels(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        return self._values[labels.sum(axis=1)]

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
        def averaged(function: FloatArray, others: slice) -> FloatArray:
            return average_counts(function, marginals[:, others, 1])

        function = np.tile(self._values, (marginals.shape[0], 1))
        return by_halves(0, marginals.shape[1], function, averaged)

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        shape = (weights.size, len(candidates) - 1)
        low, high = np.empty(shape), np.empty(shape)
        for i, each in enumerate(candidates[1:]):
            low[:, i] = each[:, :, 1].min(axis=0)
            high[:, i] = each[:, :, 1].max(axis=0)
        bounds = np.empty((weights.size, 2))
        kernels.count_bounds(self._values, low, high, bounds)
        return float(np.max((candidates[0] * bounds).sum(axis=2) @ weights))

    def majorant(
        self,
        sign: float,
        possible: NDArray[np.bool_],
        lasting: NDArray[np.bool_],
        reference: FloatArray,
    ) -> FloatArray | None:
        if len(possible) > 1:
            found = majorants.fit_counts(sign * self._values, possible, lasting, reference)
            if found is not None:
                return found
        return super().majorant(sign, possible, lasting, reference)


def points(n: int, labels: int, followers: int) -> NDArray[np.int64]:
    """Numbers (P, labels-1) of at most so many of n followers with labels 1.., in C order."""
    numbers = np.indices((followers + 1,) * (labels - 1)).reshape(labels - 1, -1).T
    return np.ascontiguousarray(numbers[numbers.sum(axis=1) <= followers])


class _BoundLabelCounts(BoundReward):
    """Values (n+1,)*(L-1) of the numbers of followers with labels 1..L-1, for L > 2."""

    def __init__(self, labels: NDArray[np.int64], values: FloatArray) -> None:
        n = labels.shape[0]
        self.labels = labels
        self.n_labels = values.ndim + 1
        self._values = values.reshape(-1)
        #: What a follower more with each label adds to the place in the table.
        self._stride = np.concatenate(
            [[0], (n + 1) ** np.arange(values.ndim - 1, -1, -1, dtype=np.int64)]
        )
        self._simplices = self._laid_out(n)

    def _places(self, n: int, followers: int) -> NDArray[np.int64]:
        """Places in the table of all numbers of so many followers."""
        return np.asarray(points(n, self.n_labels, followers) @ self._stride[1:])

    def _laid_out(self, n: int) -> Simplices:
        levels = max(1, math.ceil(math.log2(n)) + 1)
        sizes = [(2**k, n - 2**k * ((n - 1) // 2**k)) for k in range(levels)]
        count = {g: math.comb(g + self.n_labels - 1, g) for pair in sizes for g in pair}
        laws = [(-(-n // full) - 1) * count[full] + count[last] for full, last in sizes]
        need = 8.0 * (2 * sum(laws) + self._values.size) / 2**30
        if need > MOST_GIB:
            raise ProductSpaceTooLargeError(
                f"CountReward: the laws of how many of {n} followers carry each of "
                f"{self.n_labels} labels need {need:.3g} GiB per thread, more than {MOST_GIB:g}. "
                "Use fewer labels, or a sum of rewards that see two labels each."
            )
        lists = {g: self._places(n, g) for g in sorted({*count})}
        ends = dict(zip(lists, np.cumsum([each.size for each in lists.values()]), strict=True))
        spans = np.array([[(ends[g] - count[g], ends[g]) for g in pair] for pair in sizes])
        return Simplices(
            np.concatenate(list(lists.values())),
            np.ascontiguousarray(spans[:, 0]),
            np.ascontiguousarray(spans[:, 1]),
            np.concatenate([[0], np.cumsum(laws)]),
        )

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        expected = np.empty(marginals.shape[0])
        conditional = np.empty(marginals.shape)
        given = np.ascontiguousarray(marginals)
        label_count_rewards(self._values, given, self._simplices, expected, conditional)
        return expected, conditional

    def at_labels(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        return self._values[self._stride[labels].sum(axis=1)]

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        n = self.labels.shape[0]
        numbers = points(n, self.n_labels, n)
        numbers = np.column_stack([n - numbers.sum(axis=1), numbers])
        if possible is not None:
            if not possible.any(axis=1).all():
                return 0.0
            least = possible[possible.sum(axis=1) == 1].sum(axis=0)
            within = (numbers >= least) & (numbers <= possible.sum(axis=0))
            numbers = numbers[within.all(axis=1)]
        return float(np.abs(self._values[numbers @ self._stride]).max())

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        # As for tables: followers n-1..1 choose anew at each time and for all numbers before.
        n = len(candidates)
        places = [self._places(n, i)[:, None] + self._stride for i in range(n)]
        bounds = np.empty((weights.size, self.n_labels))
        for t in range(weights.size):
            best = self._values.copy()
            for i in range(n - 1, 0, -1):
                best[places[i][:, 0]] = (best[places[i]] @ candidates[i][:, t].T).max(axis=1)
            bounds[t] = best[self._stride]
        return float(np.max((candidates[0] * bounds).sum(axis=2) @ weights))


class CountReward(LeaderReward):
    """Reward of how many followers carry each label: how many are late, or at which goal.

    With two labels R = values[N], N the number of followers with label 1; exact in O(n^2) per time
    step, O(n log n) where n is large. With L labels R = values[N_1, ..., N_{L-1}], N_l the number
    with label l; exact while these numbers are few enough for a table.

    Parameters
    ----------
    labels : int or bool array (S,), (n, S) or (n, S, A)
        Label 0..L-1 by state (the same for all followers, or each its own), or by state and action.
    values : array (n+1,)*(L-1)
        Reward for each combination of numbers of followers; combinations of more than n do not
        matter.

    Raises
    ------
    InputError
        If a value is not finite or a label has no axis; when the problem is built, if the shapes do
        not fit the followers.
    ProductSpaceTooLargeError
        When the problem is built, if the laws of more than two labels need too much memory.

    Notes
    -----
    The numbers are Poisson-multinomial at each time, a single one Poisson-binomial. Each follower
    needs the law of the others'; dividing its own factor out of the common law loses all digits at
    some probabilities, so groups are halved instead, as in the tree of Biscarri, Zhao and Brunner,
    "A simple and fast method for computing the Poisson binomial distribution function",
    Computational Statistics & Data Analysis 122 (2018) 92-100.

    Examples
    --------
    The leader earns 5 as long as at most one of three followers is in state 1:

    >>> reward = CountReward([0, 1], [5.0, 5.0, 0.0, 0.0])
    >>> expected, _ = reward.bind(3, 2, 1).expectations(np.full((1, 3, 2), 0.5))
    >>> expected
    array([2.5])

    It is paid for balance: minus the difference between the numbers at two places.

    >>> here, there = np.indices((4, 4))
    >>> reward = CountReward([0, 1, 2], -np.abs(here - there))
    >>> reward.bind(3, 3, 1).n_labels
    3
    """

    @checked
    def __init__(self, labels: ArrayLike, values: ArrayLike) -> None:
        self.labels = as_numbers("labels", labels)
        self.values = as_floats("values", values)
        dtype = self.labels.dtype
        if dtype.kind not in "biu":
            raise invalid("labels", "integers or bools", dtype)
        self.labels = self.labels.copy()
        if self.labels.ndim not in (1, 2, 3):
            raise invalid("labels", "shape (S,), (n, S) or (n, S, A)", self.labels.shape)
        if self.values.ndim == 0 or len(set(self.values.shape)) != 1:
            raise invalid("values", "shape (n+1,)*(L-1) for L labels", self.values.shape)
        most = self.values.ndim
        bad = np.argwhere((self.labels < 0) | (self.labels > most))
        if bad.size:
            index = tuple(bad[0])
            meaning = "0 (does not count) or 1 (counts)" if most == 1 else f"labels 0..{most}"
            raise invalid("labels", meaning, self.labels[index], place(index))
        check_finite("values", self.values, lambda at: "count " + ", ".join(map(str, at)))

    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""
        labels = per_follower("labels", self.labels, n, n_states, n_actions)
        axes = self.values.ndim
        if self.values.shape != (n + 1,) * axes:
            raise invalid(
                "values",
                f"shape {(n + 1,) * axes}, a reward for each of 0..{n} followers",
                self.values.shape,
            )
        labels = np.ascontiguousarray(labels, np.int64)
        if axes == 1:
            return _BoundCount(labels, self.values)
        return _BoundLabelCounts(labels, self.values)

    def bind_types(self, counts: NDArray[np.int64], n_states: int, n_actions: int) -> BoundReward:
        """As ``bind`` for types of followers with counts (n,); labels by follower are by type.

        It costs as much as for all followers.
        """
        every = CountReward(spread(self.labels, counts), self.values)
        return bind_everybody(every, counts, n_states, n_actions)

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""
        return CountReward(self.labels, weight * self.values)
