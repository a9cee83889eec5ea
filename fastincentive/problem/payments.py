"""Where the leader may pay, how payments are tied together, and within what limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import (
    as_floats,
    as_integers,
    as_numbers,
)
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.followers.followers import Followers
from fastincentive.problem.bound_payments import BoundPayments
from fastincentive.problem.costs import Cost, ExpectedSpend, LinearCost, QuadraticCost, check_cost

__all__ = ["Payments"]


class Payments:
    """Which side payments x(i, s, a) the leader may choose.

    Build with one of the class methods; each takes ``upper``, a bound per payment, and
    ``budget``, a bound on the problem's cost C(x): by default on the sum of the payments.

    The ascent keeps the budget of a linear or quadratic cost by projection, without a multiplier
    of its own: where it binds a run may end without being flagged as converged. The projection
    ignores a budget on ``ExpectedSpend``, which depends on the policies too. Other costs take
    no budget.
    """

    @checked
    def __init__(
        self,
        build: Callable[[Followers], NDArray[np.int64]],
        upper: ArrayLike = np.inf,
        budget: float | None = None,
    ) -> None:
        self._build = build
        self.upper = as_floats("upper", upper)
        self.budget = None if budget is None else float(budget)
        if not (self.upper >= 0).all():
            raise invalid("upper", "numbers >= 0", self.upper)
        if self.budget is not None and not self.budget >= 0:
            raise invalid("budget", "a number >= 0", self.budget)

    @classmethod
    @checked
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
    @checked
    def at_pairs(
        cls, mask: ArrayLike, upper: ArrayLike = np.inf, budget: float | None = None
    ) -> Payments:
        """One payment for each marked (follower, state, action); ``mask`` (n, S, A) bool."""
        marked = as_numbers("mask", mask).copy()
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
    @checked
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
    @checked
    def from_index(
        cls, index: ArrayLike, upper: ArrayLike = np.inf, budget: float | None = None
    ) -> Payments:
        """Tie payments together: entries (n, S, A) with the same number share one variable.

        -1 means no payment. A number used by several followers is a posted tariff.
        """
        numbers = as_integers("index", index)

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

    @checked
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
