"""Payments of followers with known sizes: an index, bounds, and the maps between them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import (
    LARGEST,
    FloatArray,
    as_floats,
    as_given,
    as_numbers,
    check_finite,
    looks_finite,
)
from fastincentive._checks import whole
from fastincentive.errors import invalid, shown
from fastincentive.kernels import simplex

__all__ = ["ROUNDING", "BoundPayments"]

#: A budget may be exceeded by this share of it, by rounding.
ROUNDING = 1e-9


class BoundPayments:
    """Payments of n followers with known sizes: an index, bounds, and the maps between them.

    Attributes
    ----------
    index : array (n, S, A)
        Payment variable of each pair, -1 for none.
    size : int
        k, the number of payment variables.
    lower, upper : array (k,)
        The least and the most that each payment may be; ``lower`` is 0. A budget limits ``upper``
        as well: to what a payment may be where all others are 0.
    stated_upper : array (k,)
        Upper bounds whatever the budget.
    budget : float or None
        Bound on ``budget_use``. None without a budget, and where it bounds what depends on the
        policies too (``IncentiveProblem.budget`` has it).
    prices, curvature : array (k,)
        ``budget_use(x)`` is prices . x + curvature . x^2: a linear or quadratic cost.
    owners, owned : array (m,)
        The pairs of a follower and a payment variable that reaches it, follower by follower.
    reach : array (n, K)
        The payment variables that reach each follower, -1 after the last.
    shared : bool
        Whether some payment variable is shared between followers, those of other shards included.
    counted : array (k,) of bool
        Whether sums over all payments count it here: of a variable in several shards one does.
    """

    def __init__(
        self,
        index: NDArray[np.int64],
        upper: ArrayLike,
        budget: float | None,
        prices: ArrayLike = 1.0,
        curvature: ArrayLike = 0.0,
        shared: bool | None = None,
        counted: NDArray[np.bool_] | None = None,
    ) -> None:
        self.index = index
        self.size = int(index.max(initial=-1)) + 1
        self.counted = np.ones(self.size, bool) if counted is None else counted
        self.lower = np.zeros(self.size)
        self.stated_upper = np.array(np.broadcast_to(np.asarray(upper, float), (self.size,)))
        self.budget = budget
        self.prices = np.array(np.broadcast_to(np.asarray(prices, float), (self.size,)))
        self.curvature = np.array(np.broadcast_to(np.asarray(curvature, float), (self.size,)))
        self.upper = self._largest()
        self._paid = np.flatnonzero(index.reshape(-1) >= 0)
        self._variable = index.reshape(-1)[self._paid]
        owner = self._paid // (index.shape[1] * index.shape[2])
        pairs, each = np.unique(owner * self.size + self._variable, return_inverse=True)
        self.owners, self.owned = np.divmod(pairs, max(self.size, 1))
        count = np.bincount(self.owners, minlength=index.shape[0])
        column = np.arange(pairs.size) - (np.cumsum(count) - count)[self.owners]
        self.reach = np.full((index.shape[0], max(int(count.max()), 1)), -1)
        self.reach[self.owners, column] = self.owned
        #: Where in ``reach`` each paid pair of state and action is found.
        self._place = (self.owners * self.reach.shape[1] + column)[each]
        self.shared = bool((np.bincount(self.owned) > 1).any()) if shared is None else shared

    def __reduce__(self) -> tuple[Any, ...]:
        limits = (self.stated_upper, self.budget, self.prices, self.curvature)
        # The rest follows from the index.
        return BoundPayments, (self.index, *limits, self.shared, self.counted)

    def part(self, first: int, last: int) -> tuple[BoundPayments, NDArray[np.int64]]:
        """Return the payments of followers first..last-1, and which variables (k,) these are."""
        index = self.index[first:last]
        paid = index >= 0
        variables, number = np.unique(index[paid], return_inverse=True)
        own = np.full(index.shape, -1)
        own[paid] = number
        limits = (self.stated_upper[variables], self.budget)
        rates = (self.prices[variables], self.curvature[variables])
        _, nearest = np.unique(self.owned, return_index=True)
        counted = self.owners[nearest[variables]] >= first
        return BoundPayments(own, *limits, *rates, self.shared, counted), variables

    def side_payments(self, payments: FloatArray) -> FloatArray:
        """Spread payments (k,) to x(i, s, a) (n, S, A)."""
        payments = self._vector(payments)
        out = np.zeros(self.index.size)
        out[self._paid] = payments[self._variable]
        return out.reshape(self.index.shape)

    def pull_back(self, gradient: FloatArray, onto: FloatArray | None = None) -> FloatArray:
        """Sum a gradient in x(i, s, a) (n, S, A) to one in the payments (k,), ``onto`` another."""
        gradient = self._entries(gradient)
        out = np.zeros(self.size) if onto is None else self._vector(onto, "onto").copy()
        np.add.at(out, self._variable, gradient.reshape(-1)[self._paid])
        return out

    def most(self, values: FloatArray) -> FloatArray:
        """Largest (k,) of numbers >= 0 (n,) of the followers that each payment reaches."""
        values = self._by_follower(values)
        out = np.zeros(self.size)
        np.maximum.at(out, self.owned, values[self.owners])
        return out

    def least(self, values: FloatArray) -> FloatArray:
        """Smallest (k,) of numbers (n,) of the followers that each payment reaches, or inf."""
        values = self._by_follower(values)
        out = np.full(self.size, np.inf)
        np.minimum.at(out, self.owned, values[self.owners])
        return out

    def reaching(self, followers: NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.int64]:
        """Payment variables that reach some of the followers, by number or mask."""
        chosen = as_numbers("followers", followers)
        n = len(self.reach)
        mask = chosen.dtype == np.bool_ and chosen.shape == (n,)
        if not (mask or (chosen.dtype.kind in "iu" and ((chosen >= 0) & (chosen < n)).all())):
            raise invalid("followers", f"a mask ({n},) or numbers in 0..{n - 1}", shown(followers))
        variables = self.reach[chosen]
        return np.asarray(np.unique(variables[variables >= 0]))

    @cached_property
    def groups(self) -> list[NDArray[np.int64]]:
        """Followers that shared payments tie together, group by group."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        # Followers and payments are the nodes of one graph.
        n = len(self.reach)
        pairs = (self.owners, n + self.owned)
        graph = csr_array((np.ones(self.owned.size), pairs), (n + self.size,) * 2)
        _, group = connected_components(graph, directed=False)
        group = group[:n]
        order = np.argsort(group, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)

    @cached_property
    def reaches(self) -> NDArray[np.bool_]:
        """(n, k) bool: which followers a payment variable reaches."""
        out = np.zeros((self.index.shape[0], self.size), bool)
        out[self.owners, self.owned] = True
        return out

    def pull_back_each(self, gradient: FloatArray) -> FloatArray:
        """As ``pull_back``, follower by follower: (n, k)."""
        out = np.zeros((self.index.shape[0], self.size))
        out[self.owners, self.owned] = self.compress(gradient)[self.reach >= 0]
        return out

    def budget_use(self, payments: FloatArray) -> float:
        """Return what the budget bounds: C(x) of a linear or quadratic cost."""
        payments = self._vector(payments)
        if not looks_finite(payments):
            check_finite("payments", payments)
        return float(np.sum((self.prices + self.curvature * payments) * payments))

    def budget_slope(self, payments: FloatArray) -> FloatArray:
        """Return the derivative (k,) of ``budget_use``."""
        payments = self._vector(payments)
        if not looks_finite(payments):
            check_finite("payments", payments)
        return np.asarray(self.prices + 2.0 * self.curvature * payments)

    def _largest(self) -> FloatArray:
        """Return the most (k,) that each payment alone may be, within its bound and the budget."""
        if self.budget is None:
            return self.stated_upper
        # The positive root of curvature x^2 + prices x = budget, in a form that does not cancel.
        budget = self.budget * (1.0 + ROUNDING)
        root = self.prices + np.sqrt(self.prices**2 + 4.0 * self.curvature * budget)
        free = (self.prices == 0.0) & (self.curvature == 0.0)
        alone = np.where(free, np.inf, 2.0 * budget / np.where(root > 0.0, root, 1.0))
        return np.minimum(self.stated_upper, alone)

    def compress(self, occupancy: FloatArray) -> FloatArray:
        """D (n, K): dV_i/dx of the payments that reach each follower, from occupancies (n, S, A).

        In the order of ``reach``, 0 where there is none.
        """
        occupancy = self._entries(occupancy, "occupancy")
        return (
            np.bincount(
                self._place,
                weights=occupancy.reshape(-1)[self._paid],
                minlength=self.reach.size,
            )
            .reshape(self.reach.shape)
            .astype(float)
        )

    def spread(self, payments: FloatArray) -> FloatArray:
        """Payments (n, K) in the order of ``reach``, 0 where there is none."""
        payments = self._vector(payments)
        if not self.size:
            return np.zeros(self.reach.shape)
        return np.where(self.reach >= 0, payments[self.reach], 0.0)

    def project(self, payments: FloatArray) -> FloatArray:
        """Euclidean projection on the bounds and, if ``budget`` is not None, the budget."""
        payments = self._vector(payments)
        out = np.empty(self.size)
        if self.budget is None:
            simplex.project_box(payments, self.lower, self.upper, out)
        elif not self.curvature.any():
            simplex.project_budget(payments, self.lower, self.upper, self.prices, self.budget, out)
        else:
            simplex.project_quadratic_budget(
                payments, self.lower, self.upper, self.prices, self.curvature, self.budget, out
            )
        return out

    def check(self, payments: object, argument: str = "payments") -> FloatArray:
        """Return payments as (k,), a scalar repeated, or raise naming the first bad entry.

        Raises
        ------
        InputError
            If the shape is another, a payment is out of its bounds, or together they exceed the
            budget.
        """
        value = self.check_bounds(payments, argument)
        if self.budget is not None and self.budget_use(value) > self.budget * (1.0 + ROUNDING):
            raise invalid(
                argument,
                f"a cost of at most the budget {self.budget:.12g}",
                f"{self.budget_use(value):.12g}",
            )
        return value

    def check_bounds(self, payments: object, argument: str = "payments") -> FloatArray:
        """As ``check``, whatever the budget."""
        value = as_floats(argument, payments)
        if value.ndim == 0:
            value = np.full(self.size, float(value))
        if value.shape != (self.size,):
            raise invalid(argument, f"a number or shape ({self.size},)", value.shape)
        bad = ~((value >= self.lower) & (value <= self.stated_upper)) | ~(np.abs(value) <= LARGEST)
        if bad.any():
            k = int(np.argmax(bad))
            raise invalid(
                argument,
                f"a finite payment between {self.lower[k]:g} and {self.stated_upper[k]:g}",
                value[k],
                f"payment {k} ({self.describe(k)})",
            )
        return value

    def _vector(self, payments: FloatArray, argument: str = "payments") -> FloatArray:
        return _known(argument, payments, (self.size,), "one for each payment")

    def _entries(self, given: FloatArray, argument: str = "gradient") -> FloatArray:
        return _known(argument, given, self.index.shape, "(followers, states, actions)")

    def _by_follower(self, values: FloatArray) -> FloatArray:
        return _known("values", values, self.reach.shape[:1], "one for each follower")

    def describe(self, k: int) -> str:
        """Return which follower, state and action payment variable k reaches first."""
        k = whole("k", k)
        if not 0 <= k < self.size:
            raise invalid("k", f"a payment in 0..{self.size - 1}", k)
        at = self._paid[self._variable == k]
        _, states, actions = self.index.shape
        i, s, a = (
            int(at[0]) // (states * actions),
            int(at[0]) // actions % states,
            int(at[0]) % actions,
        )
        if at.size == 1:
            return f"follower {i}, state {s}, action {a}"
        if at.size <= actions:
            return f"follower {i}, state {s}"
        return f"{at.size} pairs from follower {i}, state {s}"


def _known(argument: str, given: FloatArray, shape: tuple[int, ...], meaning: str) -> FloatArray:
    """Return an array of this shape as it is given, without NaN; it may hold infinities."""
    found = as_given(argument, given, shape, meaning)
    if not looks_finite(found) and np.isnan(found).any():
        where = tuple(np.argwhere(np.isnan(found))[0].tolist())
        raise invalid(argument, "numbers", "NaN", f"index {where}")
    return found
