"""Where the leader may pay, how payments are tied together, and within what limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import invalid
from fastincentive.followers.followers import Followers
from fastincentive.kernels import simplex
from fastincentive.problem.costs import Cost, ExpectedSpend, LinearCost, QuadraticCost, check_cost

__all__ = ["ROUNDING", "BoundPayments", "Payments"]

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
        out = np.zeros(self.index.size)
        out[self._paid] = payments[self._variable]
        return out.reshape(self.index.shape)

    def pull_back(self, gradient: FloatArray, onto: FloatArray | None = None) -> FloatArray:
        """Sum a gradient in x(i, s, a) (n, S, A) to one in the payments (k,), ``onto`` another."""
        out = np.zeros(self.size) if onto is None else onto.copy()
        np.add.at(out, self._variable, gradient.reshape(-1)[self._paid])
        return out

    def most(self, values: FloatArray) -> FloatArray:
        """Largest (k,) of numbers >= 0 (n,) of the followers that each payment reaches."""
        out = np.zeros(self.size)
        np.maximum.at(out, self.owned, values[self.owners])
        return out

    def least(self, values: FloatArray) -> FloatArray:
        """Smallest (k,) of numbers (n,) of the followers that each payment reaches, or inf."""
        out = np.full(self.size, np.inf)
        np.minimum.at(out, self.owned, values[self.owners])
        return out

    def reaching(self, followers: NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.int64]:
        """Payment variables that reach some of the followers, by number or mask."""
        variables = self.reach[followers]
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
        return float(np.sum((self.prices + self.curvature * payments) * payments))

    def budget_slope(self, payments: FloatArray) -> FloatArray:
        """Return the derivative (k,) of ``budget_use``."""
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
        if not self.size:
            return np.zeros(self.reach.shape)
        return np.where(self.reach >= 0, payments[self.reach], 0.0)

    def project(self, payments: FloatArray) -> FloatArray:
        """Euclidean projection on the bounds and, if ``budget`` is not None, the budget."""
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
        value = np.array(payments, float)
        if value.ndim == 0:
            value = np.full(self.size, float(value))
        if value.shape != (self.size,):
            raise invalid(argument, f"a number or shape ({self.size},)", value.shape)
        bad = ~((value >= self.lower) & (value <= self.stated_upper)) | ~np.isfinite(value)
        if bad.any():
            k = int(np.argmax(bad))
            raise invalid(
                argument,
                f"a finite payment between {self.lower[k]:g} and {self.stated_upper[k]:g}",
                value[k],
                f"payment {k} ({self.describe(k)})",
            )
        return value

    def describe(self, k: int) -> str:
        """Return which follower, state and action payment variable k reaches first."""
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


class Payments:
    """Which side payments x(i, s, a) the leader may choose.

    Build with one of the class methods; each takes ``upper``, a bound per payment, and
    ``budget``, a bound on the problem's cost C(x): by default on the sum of the payments.

    The ascent keeps the budget of a linear or quadratic cost by projection, without a multiplier
    of its own: where it binds a run may end without being flagged as converged. The projection
    ignores a budget on ``ExpectedSpend``, which depends on the policies too. Other costs take
    no budget.
    """

    def __init__(
        self,
        build: Callable[[Followers], NDArray[np.int64]],
        upper: ArrayLike = np.inf,
        budget: float | None = None,
    ) -> None:
        self._build = build
        self.upper = np.array(upper, float)
        self.budget = None if budget is None else float(budget)
        if not (self.upper >= 0).all():
            raise invalid("upper", "numbers >= 0", self.upper)
        if self.budget is not None and not self.budget >= 0:
            raise invalid("budget", "a number >= 0", self.budget)

    @classmethod
    def at_states(
        cls,
        states: Sequence[Sequence[int]],
        upper: ArrayLike = np.inf,
        budget: float | None = None,
    ) -> Payments:
        """One payment for each follower i and each listed state, whatever the action there."""
        lists = [[int(s) for s in each] for each in states]

        def build(followers: Followers) -> NDArray[np.int64]:
            if len(lists) != followers.n:
                raise invalid("states", f"one list per follower, {followers.n}", len(lists))
            index = np.full(followers.shape, -1, np.int64)
            owner = np.repeat(np.arange(followers.n), [len(each) for each in lists])
            where = np.array([s for each in lists for s in each], np.int64)
            _raise_first_bad_state(owner, where, followers.n_states)
            there = followers.packed.available[followers.packed.model[owner], where]
            index[owner, where] = np.where(there, np.arange(where.size)[:, None], -1)
            return index

        return cls(build, upper, budget)

    @classmethod
    def at_pairs(
        cls, mask: ArrayLike, upper: ArrayLike = np.inf, budget: float | None = None
    ) -> Payments:
        """One payment for each marked (follower, state, action); ``mask`` (n, S, A) bool."""
        marked = np.array(mask)
        if marked.dtype != np.bool_:
            raise invalid("mask", "a bool array (n, S, A)", marked.dtype)

        def build(followers: Followers) -> NDArray[np.int64]:
            if marked.shape != followers.shape:
                raise invalid("mask", f"shape {followers.shape}", marked.shape)
            index = np.full(followers.shape, -1, np.int64)
            index[marked] = np.arange(int(marked.sum()))
            return index

        return cls(build, upper, budget)

    @classmethod
    def everywhere(cls, upper: ArrayLike = np.inf, budget: float | None = None) -> Payments:
        """One payment for each follower, state and available action.

        At discount 1 the absorbing states are left out.
        """

        def build(followers: Followers) -> NDArray[np.int64]:
            packed = followers.packed
            marked = followers.available.copy()
            unpaid = packed.absorbing[packed.model] & (packed.discount == 1.0)[:, None]
            marked[unpaid] = False
            index = np.full(followers.shape, -1, np.int64)
            index[marked] = np.arange(int(marked.sum()))
            return index

        return cls(build, upper, budget)

    @classmethod
    def from_index(
        cls, index: ArrayLike, upper: ArrayLike = np.inf, budget: float | None = None
    ) -> Payments:
        """Tie payments together: entries (n, S, A) with the same number share one variable.

        -1 means no payment. A number used by several followers is a posted tariff.
        """
        numbers = np.array(index)
        if not np.issubdtype(numbers.dtype, np.integer):
            raise invalid("index", "integers", numbers.dtype)

        def build(followers: Followers) -> NDArray[np.int64]:
            if numbers.shape != followers.shape:
                raise invalid("index", f"shape {followers.shape}", numbers.shape)
            used = np.unique(numbers[numbers >= 0])
            if numbers.min() < -1 or not np.array_equal(used, np.arange(used.size)):
                raise invalid(
                    "index", "-1 for no payment, else numbers 0..k-1 without gaps", used.tolist()
                )
            return numbers.astype(np.int64)

        return cls(build, upper, budget)

    def bind(self, followers: Followers, cost: Cost | ExpectedSpend | None = None) -> BoundPayments:
        """Check against the followers and return the bound form.

        ``cost`` is what the budget bounds; by default the sum of the payments.

        Raises
        ------
        InputError
            If the parts do not fit together, or there is a budget on a cost that cannot have one.
        """
        index = self._build(followers)
        packed = followers.packed
        bad = (index >= 0) & ~followers.available
        if bad.any():
            i, s, a = (int(k) for k in np.argwhere(bad)[0])
            raise invalid(
                "payments",
                "payments for available actions only",
                "an unavailable action",
                f"follower {i}, state {s}, action {a}",
            )
        endless = packed.absorbing[packed.model] & (packed.discount == 1.0)[:, None]
        bad = (index >= 0) & endless[:, :, None]
        if bad.any():
            i, s, a = (int(k) for k in np.argwhere(bad)[0])
            raise invalid(
                "payments",
                "no payment in an absorbing state, because the discount is 1 (it is paid for ever)",
                "one",
                f"follower {i}, state {s}, action {a}",
            )
        size = int(index.max(initial=-1)) + 1
        if size == 0:
            raise invalid("payments", "at least one payment", "none")
        if self.upper.ndim and self.upper.shape != (size,):
            raise invalid("upper", f"a number or shape ({size},)", self.upper.shape)
        cost = LinearCost() if cost is None else cost
        check_cost(cost, size)
        if isinstance(cost, LinearCost):
            return BoundPayments(index, self.upper, self.budget, cost.prices)
        if isinstance(cost, QuadraticCost):
            return BoundPayments(index, self.upper, self.budget, cost.prices, cost.curvature)
        if self.budget is None or isinstance(cost, ExpectedSpend):
            return BoundPayments(index, self.upper, None)
        raise invalid(
            "budget",
            "a linear or quadratic cost, or ExpectedSpend, for a budget to bound",
            type(cost).__name__,
            None,
            "Use one of these costs, or bound the payments with upper.",
        )


def _raise_first_bad_state(
    owner: NDArray[np.int64], state: NDArray[np.int64], n_states: int
) -> None:
    """Raise at the first of these states (k,) of followers (k,) that is none, or comes again."""
    bad = (state < 0) | (state >= n_states)
    _, first = np.unique(owner * n_states + np.where(bad, 0, state), return_index=True)
    again = np.ones(state.size, bool)
    again[first] = False
    again &= ~bad
    if (bad | again).any():
        k = int(np.argmax(bad | again))
        expected = f"numbers in 0..{n_states - 1}" if bad[k] else "each state once"
        raise invalid("states", expected, int(state[k]), f"follower {int(owner[k])}")
