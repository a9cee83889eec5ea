"""Leader rewards of how many followers share a resource: cells, links, time slots.

Given all policies the followers are independent, so the number at a resource is a sum of
independent trials. Who can be at a resource decides its cost, not how many followers or resources
there are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import pairwise
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import LARGEST, FloatArray, as_floats, check_finite
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.kernels import congestion as kernels
from fastincentive.kernels import counts
from fastincentive.leader.base import BoundReward, LeaderReward
from fastincentive.leader.congestion_layout import Layout
from fastincentive.leader.counts import average_counts, by_halves
from fastincentive.leader.per_follower import as_labels, per_follower, place
from fastincentive.leader.population import bind_everybody, spread

__all__ = ["CongestionReward"]


class _BoundCongestion(BoundReward):
    """Functions of the numbers at resources, whatever their form.

    ``values`` holds them for 0..m members, end to end; ``constant`` is earned at resources that
    nobody can use.
    """

    def __init__(self, layout: Layout, values: FloatArray, constant: float) -> None:
        self.labels = layout.labels
        self.n_labels = layout.shape[1]
        self._layout = layout
        self._values = values
        self._constant = constant

    @abstractmethod
    def _write(self, flat: FloatArray, expected: FloatArray, differences: FloatArray) -> None:
        """Fill in each resource's expected function (T, R) and differences (T, n*L)."""

    @abstractmethod
    def _function(self, r: int) -> FloatArray:
        """Return the function of resource r as numbers that ``_averaged`` and ``_ends`` know."""

    @abstractmethod
    def _averaged(self, function: FloatArray, probability: FloatArray) -> FloatArray:
        """Average functions (T, ...) of a group's count over some of it, (T, g)."""

    @staticmethod
    @abstractmethod
    def _ends(function: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Value of functions of one follower's count (T, ...) at 0, and the difference to 1."""

    def _differences(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Each resource's expected function (T, R), and what a follower there adds (T, n, L)."""
        horizon = len(marginals)
        expected = np.zeros((horizon, self._layout.used.size))
        differences = np.zeros(marginals.shape)
        if expected.size:
            flat = np.ascontiguousarray(marginals).reshape(horizon, -1)
            self._write(flat, expected, differences.reshape(horizon, -1))
        return expected, differences

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        by_resource, conditional = self._differences(marginals)
        expected = by_resource.sum(axis=1) + self._constant
        without = expected[:, None] - np.einsum("til,til->ti", marginals, conditional)
        conditional += without[:, :, None]
        return expected, conditional

    def at_labels(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        layout, each = self._layout, np.arange(labels.shape[1])
        there = layout.resource[each, labels]
        some = there >= 0
        cells = (np.arange(len(labels))[:, None] * layout.used.size + there)[some]
        numbers = np.bincount(cells, minlength=len(labels) * layout.used.size)
        numbers = numbers.reshape(len(labels), -1)
        return np.asarray(self._values[layout.first + numbers].sum(axis=1) + self._constant)

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        layout = self._layout
        if possible is None:
            possible = layout.shown
        if not possible.any(axis=1).all():
            return 0.0
        single = possible.sum(axis=1, keepdims=True) == 1
        least, most = (layout.followers_at(some) for some in (possible & single, possible))
        return max(
            abs(self._constant + sign * self._highest(sign * self._values, possible, least, most))
            for sign in (1.0, -1.0)
        )

    def _highest(
        self,
        values: FloatArray,
        possible: NDArray[np.bool_],
        least: NDArray[np.int64],
        most: NDArray[np.int64],
    ) -> float:
        """Bound the sum of functions from above, numbers being in ``least``..``most`` (R,)."""
        layout = self._layout
        if not layout.used.size:
            return 0.0
        base = values[layout.first + least]
        above = layout.number - np.repeat(least, layout.sizes)
        inside = (above >= 0) & (layout.number <= np.repeat(most, layout.sizes))
        gain = np.where(inside, values - np.repeat(base, layout.sizes), -np.inf)
        # Every resource at its best number, though together they may want more than n followers;
        # or every follower where it adds most, at the steepest chord of its resource.
        apart = np.maximum.reduceat(gain, layout.first).sum()
        slopes = np.where(above > 0, gain / np.maximum(above, 1), -np.inf)
        chord = np.append(np.maximum.reduceat(slopes, layout.first), 0.0)  # the last one for none
        free = possible.sum(axis=1) > 1
        steep = np.where(possible, chord[layout.resource], -np.inf)[free].max(axis=1)
        steepest = (layout.counts[free] * steep).sum()
        return float(base.sum() + min(apart, steepest))

    def turns(self, marginals: FloatArray) -> Iterator[FloatArray]:
        horizon, layout = len(marginals), self._layout
        by_resource, _ = self._differences(marginals)
        # In a square of sqrt(R) sums of sqrt(R), a change is added up anew: a running total would
        # keep the rounding of whatever was far larger before.
        side = isqrt(max(layout.used.size - 1, 0)) + 1
        square = np.zeros((horizon, side, side))
        square.reshape(horizon, -1)[:, : layout.used.size] = by_resource
        sums = square.sum(axis=2)
        visits = [self._members_in_turn(marginals, r) for r in range(layout.used.size)]
        for i, row in enumerate(layout.resource):
            mine = [(label, r, *divmod(r, side)) for label, r in enumerate(row.tolist()) if r >= 0]
            conditional = np.zeros((horizon, self.n_labels))
            for label, r, k, j in mine:
                square[:, k, j], conditional[:, label] = next(visits[r])
                sums[:, k] = square[:, k].sum(axis=1)
            differences = conditional.copy()
            conditional += (self._constant + sums.sum(axis=1))[:, None]
            yield conditional
            for label, _, k, j in mine:
                square[:, k, j] += marginals[:, i, label] * differences[:, label]
                sums[:, k] = square[:, k].sum(axis=1)

    def _members_in_turn(
        self, marginals: FloatArray, r: int
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield E[f_r] without each member of resource r, and what it adds there, both (T,)."""
        follower, label = self._layout.follower, self._layout.label

        def averaged(function: FloatArray, others: slice) -> FloatArray:
            probability = marginals[:, follower[others], label[others]]
            return self._averaged(function, np.ascontiguousarray(probability))

        first, last = self._layout.members.start[r : r + 2].tolist()
        function = np.tile(self._function(r), (len(marginals), 1))
        for own in by_halves(first, last, function, averaged):
            yield self._ends(own)

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        layout = self._layout
        low = np.stack([each.min(axis=0) for each in candidates], axis=1)
        high = np.stack([each.max(axis=0) for each in candidates], axis=1)
        # The first member of a resource chooses once for all times and for all the resources that
        # it is first at; the others choose anew at each time, resource and number before them.
        totals = [np.zeros(len(each)) for each in candidates]
        bounds = np.empty((weights.size, 2))
        for r, (first, last) in enumerate(pairwise(layout.members.start.tolist())):
            i, label = layout.follower[first], layout.label[first]
            others = np.s_[:, layout.follower[first + 1 : last], layout.label[first + 1 : last]]
            counts.count_bounds(
                self._values[first + r : last + r + 1],
                np.ascontiguousarray(low[others]),
                np.ascontiguousarray(high[others]),
                bounds,
            )
            p = candidates[i][:, :, label]
            totals[i] += ((1.0 - p) * bounds[:, 0] + p * bounds[:, 1]) @ weights
        return float(self._constant * weights.sum() + sum(each.max() for each in totals))


class _BoundTables(_BoundCongestion):
    """Functions given by their values."""

    def _write(self, flat: FloatArray, expected: FloatArray, differences: FloatArray) -> None:
        kernels.table_differences(self._layout.members, self._values, flat, expected, differences)

    def _function(self, r: int) -> FloatArray:
        first = self._layout.first[r]
        return self._values[first : first + self._layout.sizes[r]]

    def _averaged(self, function: FloatArray, probability: FloatArray) -> FloatArray:
        return average_counts(function, probability)

    @staticmethod
    def _ends(function: FloatArray) -> tuple[FloatArray, FloatArray]:
        return function[:, 0], function[:, 1] - function[:, 0]


class _BoundPolynomials(_BoundCongestion):
    """Functions given by coefficients (R, D+1) in the basis of binomials."""

    def __init__(
        self, layout: Layout, values: FloatArray, constant: float, coefficients: FloatArray
    ) -> None:
        super().__init__(layout, values, constant)
        self._coefficients = coefficients

    def _write(self, flat: FloatArray, expected: FloatArray, differences: FloatArray) -> None:
        members = self._layout.members
        kernels.polynomial_differences(members, self._coefficients, flat, expected, differences)

    def expected(self, marginals: FloatArray) -> FloatArray:
        members = self._layout.members
        if (members.alike > 1.0).any():
            return super().expected(marginals)
        follower, label = self._layout.follower, self._layout.label
        total = np.full(len(marginals), self._constant)
        for r, (first, last) in enumerate(pairwise(members.start.tolist())):
            own = np.ascontiguousarray(marginals[:, follower[first:last], label[first:last]])
            function = np.tile(self._coefficients[r], (len(marginals), 1))
            total += self._averaged(function, own)[:, 0]
        return total

    def _function(self, r: int) -> FloatArray:
        return self._coefficients[r]

    def _averaged(self, function: FloatArray, probability: FloatArray) -> FloatArray:
        out = np.empty_like(function)
        kernels.average_polynomials(function, probability, out)
        return out

    @staticmethod
    def _ends(function: FloatArray) -> tuple[FloatArray, FloatArray]:
        return function[:, 0], function[:, 1]


class CongestionReward(LeaderReward):
    """Sum over resources of functions of how many followers use each: cells, links, time slots.

    R = sum_r f_r(N_r), where N_r is the number of followers at resource r. Followers should be able
    to use few resources each: these are their labels. Polynomials, see `polynomial`, are for many
    followers.

    Parameters
    ----------
    resources : int array (S,), (n, S) or (n, S, A)
        Resource 0..R-1 that a follower uses in each state (the same for all followers, or each its
        own), or in each state and action; -1 for none.
    values : array (n+1,) or (R, n+1)
        f(0), ..., f(n), the same for all resources, or for each. f(0) is earned at every resource
        where nobody is; without rows R is one more than the largest number in ``resources``.

    Raises
    ------
    InputError
        If a resource is below -1 or has no row, or a value is not finite; when the problem is
        built, if the shapes do not fit the followers.

    Notes
    -----
    N_r is Poisson-binomial over the m_r followers that can be at r: O(sum_r m_r^2) per time step,
    as in `CountReward`. Where one can be at r, what it adds there is E[f_r(N+1) - f_r(N)] over the
    others' number N.

    Examples
    --------
    Two links; two followers on the same link lose 4, one alone loses 1:

    >>> reward = CongestionReward([0, 1], [0.0, -1.0, -4.0])
    >>> expected, given = reward.bind(2, 2, 1).expectations(np.full((1, 2, 2), 0.5))
    >>> expected
    array([-3.])
    >>> given[0, 0]
    array([-3., -3.])
    """

    _argument, _width, _column = "values", "n+1", "count"

    @checked
    def __init__(self, resources: ArrayLike, values: ArrayLike) -> None:
        self.resources = as_labels("resources", resources)
        self.functions = as_floats(self._argument, values)
        if self.functions.ndim not in (1, 2) or not self.functions.size:
            raise invalid(
                self._argument,
                f"shape ({self._width},) or (R, {self._width})",
                self.functions.shape,
            )

        def where(index: tuple[int, ...]) -> str:
            *row, column = index
            return "".join(f"resource {r}, " for r in row) + f"{self._column} {column}"

        check_finite(self._argument, self.functions, where)
        numbers, most = "a number from 0 on", 2**31
        if self.functions.ndim == 2:
            most = len(self.functions) - 1
            numbers = f"the number of a row of {self._argument}, 0..{most}"
        bad = np.argwhere((self.resources < -1) | (self.resources > most))
        if bad.size:
            index = tuple(bad[0])
            raise invalid(
                "resources", f"-1 (none) or {numbers}", self.resources[index], place(index)
            )

    @classmethod
    def polynomial(cls, resources: ArrayLike, coefficients: ArrayLike) -> CongestionReward:
        """Polynomials f_r(N) = sum_k c_k N^k of the numbers, at a cost that is linear in them.

        Parameters
        ----------
        resources : int array (S,), (n, S) or (n, S, A)
            As for the class.
        coefficients : array (D+1,) or (R, D+1)
            c_0, ..., c_D, the same for all resources, or for each.

        Returns
        -------
        CongestionReward

        Raises
        ------
        InputError
            As for the class; also when the problem is built, if n^D is no finite number.

        Notes
        -----
        E[C(N, k)] is the elementary symmetric polynomial e_k of the probabilities, which grows
        follower by follower in sums of products: without cancellation, unless coefficients differ
        in sign. At n = 1000 and D <= 6 the rounding is below 2e-14 E[sum_k |c_k| N^k], also where
        probabilities are 0 or 1. O(n L D) per time step for L labels, and O(n L + D max_r m_r)
        memory per thread.

        Examples
        --------
        The BPR curve: N vehicles on a link of capacity c lose N t (1 + 0.15 (N/c)^4) minutes.

        >>> c, t = 20.0, 1.5
        >>> reward = CongestionReward.polynomial(
        ...     [0, 1, -1], [0.0, -t, 0.0, 0.0, 0.0, -0.15 * t / c**4]
        ... )
        >>> reward.bind(40, 3, 1).magnitude()
        204.0
        """
        return _PolynomialReward(resources, coefficients)

    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""
        if self.functions.shape[-1] != n + 1:
            raise invalid(
                "values",
                f"shape ({n + 1},) or (R, {n + 1}), rewards for 0..{n} followers",
                self.functions.shape,
            )
        layout, row, constant = self._laid_out(np.ones(n, np.int64), n_states, n_actions)
        values = np.atleast_2d(self.functions)[np.repeat(row, layout.sizes), layout.number]
        return _BoundTables(layout, values, constant)

    def bind_types(self, counts: NDArray[np.int64], n_states: int, n_actions: int) -> BoundReward:
        """As ``bind`` for types of followers with counts (n,); resources by follower are by type.

        Polynomials cost as much as the types; values as much as all followers.
        """
        every = copy(self)
        every.resources = spread(self.resources, counts)
        return bind_everybody(every, counts, n_states, n_actions)

    def _laid_out(
        self, counts: NDArray[np.int64], n_states: int, n_actions: int
    ) -> tuple[Layout, NDArray[np.int64], float]:
        """Return who can be where, the row (R,) of each resource in use, and the rest's f(0)."""
        resources = per_follower("resources", self.resources, counts.size, n_states, n_actions)
        layout = Layout(np.ascontiguousarray(resources, np.int64), counts)
        if self.functions.ndim == 1:
            others = int(resources.max()) + 1 - layout.used.size
            return layout, np.zeros_like(layout.used), float(self.functions[0] * others)
        alone = np.delete(self.functions[:, 0], layout.used)
        return layout, layout.used, float(alone.sum())

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""
        return type(self)(self.resources, weight * self.functions)


class _PolynomialReward(CongestionReward):
    """What ``CongestionReward.polynomial`` makes."""

    _argument, _width, _column = "coefficients", "D+1", "power"

    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""
        return self.bind_types(np.ones(n, np.int64), n_states, n_actions)

    def bind_types(self, counts: NDArray[np.int64], n_states: int, n_actions: int) -> BoundReward:
        """As ``bind`` for types of followers with counts (n,)."""
        n = int(counts.sum())
        coefficients = np.atleast_2d(self.functions)
        degree = coefficients.shape[1] - 1
        with np.errstate(over="ignore"):
            most = ((1.0 + np.abs(coefficients)) * float(n) ** np.arange(degree + 1)).sum(axis=1)
        if not (most <= LARGEST).all():
            raise invalid(
                "coefficients",
                f"polynomials that are finite for {n} followers",
                f"degree {degree}",
                remedy="Count in larger units, or give the values",
            )
        layout, row, constant = self._laid_out(counts, n_states, n_actions)
        values = np.zeros(layout.number.size)
        spread = np.repeat(row, layout.sizes)
        for k in range(degree, -1, -1):
            values *= layout.number
            values += coefficients[spread, k]
        # C(N, k) is 0 for k above the number of members.
        top = max(1, min(degree, int(layout.sizes.max(initial=1)) - 1))
        in_binomials = coefficients[row] @ _surjections(degree, top)
        return _BoundPolynomials(layout, values, constant, in_binomials)


def _surjections(degree: int, top: int) -> FloatArray:
    """Coefficients F (D+1, K+1) of powers in binomials, N^j = sum_k F[j, k] C(N, k).

    F[j, k] is the number of maps of j things onto k, k! times a Stirling number of the second kind.
    """
    number = np.zeros((degree + 1, top + 1))
    number[0, 0] = 1.0
    for j in range(1, degree + 1):
        for k in range(1, min(j, top) + 1):
            number[j, k] = k * (number[j - 1, k] + number[j - 1, k - 1])
    return number
