"""Leader rewards that are products over the followers, or sums of such products.

Whether nobody fails, whether all are at a goal, what depends on the followers through one chance
each: a few products say it for any number of followers, at a cost that grows with n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import ANY_SIZE, FloatArray, as_floats, check_finite
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.kernels import products as kernels
from fastincentive.leader.base import BoundReward, LeaderReward
from fastincentive.leader.per_follower import per_follower, place
from fastincentive.leader.population import bind_everybody, spread

__all__ = ["ProductReward"]

#: Bounds on |R| above this are an overflow: rounding and scaling need some room.
LARGEST = float(np.finfo(float).max) / 16


def _interval_product(
    low: FloatArray, high: FloatArray, other_low: FloatArray, other_high: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Multiply two intervals, entry by entry."""
    ends = [low * other_low, low * other_high, high * other_low, high * other_high]
    return np.minimum.reduce(ends), np.maximum.reduce(ends)


def _distinct(
    factors: FloatArray,
) -> tuple[NDArray[np.int64], FloatArray, NDArray[np.bool_]]:
    """Return labels for the distinct columns of each follower's factors (K, n, S, W).

    These are labels (n, S, W), factors by label (n, L, K) and the labels in use (n, L).
    """
    terms, n = factors.shape[:2]
    flat = factors.reshape(terms, -1)
    each = flat.shape[1] // n
    # Followers first, compressed after every term, so that the numbers stay small.
    numbers = np.repeat(np.arange(n), each)
    first = numbers
    for values in flat:
        _, column = np.unique(values, return_inverse=True)
        numbers = numbers * (column.max() + 1) + column
        _, first, numbers = np.unique(numbers, return_index=True, return_inverse=True)
    owner = first // each
    start = np.searchsorted(owner, np.arange(n))
    labels = (numbers.reshape(n, each) - start[:, None]).reshape(factors.shape[1:])
    own = np.arange(owner.size) - start[owner]
    by_label = np.zeros((n, int(own.max()) + 1, terms))
    by_label[owner, own] = flat[:, first].T
    shown = np.zeros(by_label.shape[:2], bool)
    shown[owner, own] = True
    return np.ascontiguousarray(labels, np.int64), by_label, shown


def _balanced(factors: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Scale factors (n, L, K) by powers of two, which is exact, and weights (K,) the other way.

    Products over any run of followers are then at most 2: no order of multiplication overflows,
    and what underflows is nothing beside the bound on the term. Factors of largest size 1 stay.
    """
    largest = np.abs(factors).max(axis=1)
    sizes = np.log2(np.where(largest > 0.0, largest, 1.0))
    powers = np.floor(np.cumsum(sizes, axis=0)).astype(np.int64)
    steps = np.diff(powers, axis=0, prepend=0)
    factors = np.ldexp(factors, -steps[:, None, :])
    weights = np.where((largest > 0.0).all(axis=0), weights, 0.0)
    with np.errstate(over="ignore"):
        weights = np.ldexp(weights, powers[-1])
        bounds = np.abs(weights) * np.abs(factors).max(axis=1).prod(axis=0)
        total = bounds.sum()
    if not total <= LARGEST:
        raise invalid(
            "factors",
            f"a bound sum_k |weights[k]| prod_i max |factors[k, i]| of at most {LARGEST:.0e}",
            total,
            f"{len(factors)} followers, term {int(bounds.argmax())} the largest",
            "Scale the factors, for example to at most 1, and give the terms weights.",
        )
    return factors, weights


class _BoundProduct(BoundReward):
    """Weights (K,) of products of factors (n, L, K); ``shown`` (n, L) marks the labels in use."""

    def __init__(
        self,
        labels: NDArray[np.int64],
        factors: FloatArray,
        weights: FloatArray,
        shown: NDArray[np.bool_],
    ) -> None:
        self.labels = labels
        self.n_labels = int(factors.shape[1])
        self._factors = factors
        self._weights = weights
        self._shown = shown

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        expected = np.empty(marginals.shape[0])
        conditional = np.empty(marginals.shape)
        kernels.product_rewards(
            self._factors, self._weights, np.ascontiguousarray(marginals), expected, conditional
        )
        return expected, conditional

    def at_labels(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        return self._factors[np.arange(labels.shape[1]), labels].prod(axis=1) @ self._weights

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        some = self._shown if possible is None else possible
        if not some.any(axis=1).all():
            return 0.0
        low = np.where(some[:, :, None], self._factors, np.inf).min(axis=1)
        high = np.where(some[:, :, None], self._factors, -np.inf).max(axis=1)
        while len(low) > 1:
            # Neighbours, for products over runs of followers do not overflow.
            pad = np.ones((len(low) % 2, low.shape[1]))
            low, high = np.concatenate([low, pad]), np.concatenate([high, pad])
            low, high = _interval_product(low[::2], high[::2], low[1::2], high[1::2])
        ends = self._weights * low[0], self._weights * high[0]
        return float(max(np.maximum(*ends).sum(), -np.minimum(*ends).sum()))

    def turns(self, marginals: FloatArray) -> Iterator[FloatArray]:
        horizon, n, _ = marginals.shape
        size = isqrt(n - 1) + 1
        blocks = [slice(first, min(first + size, n)) for first in range(0, n, size)]
        # Products over all blocks after each: those within a block are formed when it is reached.
        beyond = [np.ones((horizon, self._weights.size))]
        for block in blocks[:0:-1]:
            beyond.append(beyond[-1] * self._means(marginals, block).prod(axis=0))
        before = np.tile(self._weights, (horizon, 1))
        for block in blocks:
            after = np.concatenate([self._means(marginals, block), beyond.pop()[None]])
            after = np.cumprod(after[:0:-1], axis=0)[::-1]
            for i, others in zip(range(n)[block], after, strict=True):
                yield (before * others) @ self._factors[i].T
                before *= marginals[:, i] @ self._factors[i]

    def _means(self, marginals: FloatArray, block: slice) -> FloatArray:
        """Return expected factors (b, T, K) of a block of followers."""
        return np.matmul(marginals[:, block].transpose(1, 0, 2), self._factors[block])

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        # Followers 1..n-1 choose anew at each time and for each term; follower 0 chooses once.
        low = high = np.ones((weights.size, self._weights.size))
        for each, factors in zip(candidates[1:], self._factors[1:], strict=True):
            means = each @ factors
            low, high = _interval_product(low, high, means.min(axis=0), means.max(axis=0))
        means = candidates[0] @ self._factors[0] * self._weights
        return float(np.max(np.maximum(means * low, means * high).sum(axis=2) @ weights))


class ProductReward(LeaderReward):
    """Sum of a few products of factors, one factor for each follower.

    R(s_1..s_n, a_1..a_n) = sum_k weights[k] prod_i factors[k, i, s_i, a_i]. Exact in O(n L K) per
    time step, with L labels and K terms.

    Parameters
    ----------
    factors : array (K, S), (K, n, S) or (K, n, S, A)
        Factors of each term by state (the same for all followers, or each its own), or by state
        and action. States where all of a follower's factors agree share a label: few labels make
        all passes quicker.
    weights : array (K,), optional
        Weight of each term, 1 by default.

    Raises
    ------
    InputError
        If a number is not finite, there is no term, or not one weight per term; when the problem
        is built, if the shape does not fit the followers, or if the bound
        sum_k |weights[k]| prod_i max |factors[k, i]| is no finite number (or close to the largest).

    Notes
    -----
    The table over the product space is given in canonical polyadic form (Kolda and Bader, "Tensor
    decompositions and applications", SIAM Review 51 (2009) 455-500). Each follower needs the
    product of the others' expected factors: of those before and those after, for dividing its own
    out would fail at 0. Products of many factors below 1 may underflow to 0.

    The bound form's bounds are sums of the terms' bounds: tight for one term, or when all
    followers are certain.

    Examples
    --------
    The leader earns 1 as long as none of ten followers has failed (state 2):

    >>> reward = ProductReward([[1.0, 1.0, 0.0]])
    >>> failed_or_not = np.tile([0.1, 0.9], (1, 10, 1))
    >>> expected, _ = reward.bind(10, 3, 1).expectations(failed_or_not)
    >>> bool(np.isclose(expected[0], 0.9**10))
    True
    """

    @checked
    def __init__(self, factors: ArrayLike, weights: ArrayLike | None = None) -> None:
        self.factors = as_floats("factors", factors)
        if self.factors.ndim not in (2, 3, 4):
            raise invalid("factors", "shape (K, S), (K, n, S) or (K, n, S, A)", self.factors.shape)
        terms = self.factors.shape[0]
        if not terms:
            raise invalid("factors", "at least one term", self.factors.shape)
        self.weights = np.ones(terms) if weights is None else as_floats("weights", weights)
        if self.weights.shape != (terms,):
            raise invalid("weights", f"shape ({terms},), one per term", self.weights.shape)

        def where(index: tuple[int, ...]) -> str:
            return f"term {index[0]}" + (f", {place(index[1:])}" if index[1:] else "")

        check_finite("factors", self.factors, where, ANY_SIZE)
        check_finite("weights", self.weights, where, ANY_SIZE)

    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""
        factors = np.stack(
            [per_follower("factors[k]", each, n, n_states, n_actions) for each in self.factors]
        )
        labels, by_label, shown = _distinct(factors)
        return _BoundProduct(labels, *_balanced(by_label, self.weights), shown)

    def bind_types(self, counts: NDArray[np.int64], n_states: int, n_actions: int) -> BoundReward:
        """As ``bind`` for types of followers with counts (n,); factors by follower are by type.

        It costs as much as for all followers.
        """
        factors = [spread(each, counts) for each in self.factors]
        every = ProductReward(np.stack(factors), self.weights)
        return bind_everybody(every, counts, n_states, n_actions)

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""
        return ProductReward(self.factors, weight * self.weights)
