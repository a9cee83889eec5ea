"""Where the leader may pay, how payments are tied together, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive.errors import invalid
from fastincentive.followers import Followers
from fastincentive.kernels import simplex
from fastincentive.mdp import FloatArray

__all__ = ["BoundPayments", "Cost", "LinearCost", "Payments"]


class Cost(Protocol):
    """A differentiable cost C of the payments (k,)."""

    def value(self, payments: FloatArray) -> float:
        """C(x)."""
        ...

    def gradient(self, payments: FloatArray) -> FloatArray:
        """dC/dx, shape (k,)."""
        ...


class LinearCost:
    """C(x) = prices . x; by default the plain sum of the payments.

    Parameters
    ----------
    prices : float or array (k,)
        Price of each payment variable, >= 0.
    """

    def __init__(self, prices: ArrayLike = 1.0) -> None:
        self.prices = np.array(prices, float)
        if not (self.prices >= 0).all():
            raise invalid("prices", "numbers >= 0", self.prices)

    def value(self, payments: FloatArray) -> float:
        """C(x)."""
        return float(np.sum(self.prices * payments))

    def gradient(self, payments: FloatArray) -> FloatArray:
        """dC/dx, shape (k,)."""
        return np.broadcast_to(self.prices, payments.shape).astype(float)


class BoundPayments:
    """Payments of n followers with known sizes: an index, bounds, and the maps between them."""

    def __init__(self, index: NDArray[np.int64], upper: ArrayLike, budget: float | None) -> None:
        self.index = index
        self.size = int(index.max(initial=-1)) + 1
        self.lower = np.zeros(self.size)
        self.upper = np.array(np.broadcast_to(np.asarray(upper, float), (self.size,)))
        self.budget = budget
        self._paid = np.flatnonzero(index.reshape(-1) >= 0)
        self._variable = index.reshape(-1)[self._paid]
        #: (n, k) bool: which followers a payment variable reaches.
        self.reaches = np.zeros((index.shape[0], self.size), bool)
        self.reaches[self._paid // (index.shape[1] * index.shape[2]), self._variable] = True
        width = int(self.reaches.sum(axis=1).max())
        #: (n, K) the payment variables that reach each follower, -1 after the last.
        self.reach = np.full((index.shape[0], width), -1)
        for i, row in enumerate(self.reaches):
            held = np.flatnonzero(row)
            self.reach[i, : held.size] = held
        #: Whether some payment variable is shared between followers.
        self.shared = bool((self.reaches.sum(axis=0) > 1).any())

    def side_payments(self, payments: FloatArray) -> FloatArray:
        """Spread payments (k,) to x(i, s, a) (n, S, A)."""
        out = np.zeros(self.index.size)
        out[self._paid] = payments[self._variable]
        return out.reshape(self.index.shape)

    def pull_back(self, gradient: FloatArray) -> FloatArray:
        """Sum a gradient in x(i, s, a) (n, S, A) to one in the payments (k,)."""
        return np.bincount(
            self._variable, weights=gradient.reshape(-1)[self._paid], minlength=self.size
        ).astype(float)

    def pull_back_each(self, gradient: FloatArray) -> FloatArray:
        """As ``pull_back``, follower by follower: (n, k)."""
        n = self.index.shape[0]
        follower = self._paid // (self.index.size // n)
        return (
            np.bincount(
                follower * self.size + self._variable,
                weights=gradient.reshape(-1)[self._paid],
                minlength=n * self.size,
            )
            .reshape(n, self.size)
            .astype(float)
        )

    def project(self, payments: FloatArray) -> FloatArray:
        """Euclidean projection on the bounds and, if there is one, the budget."""
        out = np.empty(self.size)
        if self.budget is None:
            simplex.project_box(payments, self.lower, self.upper, out)
        else:
            prices = np.ones(self.size)
            simplex.project_budget(payments, self.lower, self.upper, prices, self.budget, out)
        return out

    def check(self, payments: object, argument: str = "payments") -> FloatArray:
        """Return payments as (k,), a scalar repeated, or raise naming the first bad entry."""
        value = np.array(payments, float)
        if value.ndim == 0:
            value = np.full(self.size, float(value))
        if value.shape != (self.size,):
            raise invalid(argument, f"a number or shape ({self.size},)", value.shape)
        bad = ~((value >= self.lower) & (value <= self.upper)) | ~np.isfinite(value)
        if bad.any():
            k = int(np.argmax(bad))
            raise invalid(
                argument,
                f"a finite payment between {self.lower[k]:g} and {self.upper[k]:g}",
                value[k],
                f"payment {k} ({self.describe(k)})",
            )
        if self.budget is not None and value.sum() > self.budget * (1 + 1e-12):
            raise invalid(
                argument,
                f"a sum of at most the budget {self.budget:.12g}",
                f"{value.sum():.12g}",
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
    ``budget``, a bound on their sum. The ascent keeps the budget by projection, without a
    multiplier of its own: where it binds a run may end without being flagged as converged.
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
            k = 0
            for i, each in enumerate(lists):
                for s in each:
                    if not 0 <= s < followers.n_states:
                        raise invalid(
                            "states", f"numbers in 0..{followers.n_states - 1}", s, f"follower {i}"
                        )
                    if (index[i, s] >= 0).any():
                        raise invalid("states", "each state once", s, f"follower {i}")
                    index[i, s, followers[i].available[s]] = k
                    k += 1
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

    def bind(self, followers: Followers) -> BoundPayments:
        """Check against the followers and return the bound form."""
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
        return BoundPayments(index, self.upper, self.budget)
