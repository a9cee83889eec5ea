"""What entries of the followers' menus cost the leader, alone and together."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.problem.bound_payments import ROUNDING
from fastincentive.problem.costs import ExpectedSpend, LinearCost, QuadraticCost, expected_payouts
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menus import Menus, side_payments

__all__ = ["MenuCosts", "menu_costs"]


class MenuCosts(ABC):
    """w C of combinations of entries, inf where a budget on C is broken."""

    @abstractmethod
    def of(self, i: int, pick: NDArray[np.int64]) -> FloatArray:
        """Total (C_i,) for each entry of follower i, the other followers' entries as in pick."""

    @abstractmethod
    def pair(self, i: int, j: int, pick: NDArray[np.int64]) -> FloatArray:
        """Total (C_i, C_j) for each pair of entries, the other followers' as in pick."""

    @abstractmethod
    def total(self, pick: NDArray[np.int64]) -> float:
        """Total of one entry per follower (n,)."""

    @abstractmethod
    def least(self, entries: NDArray[np.int64]) -> float:
        """Lower bound on what these entries of one follower add to any total."""


class _Separable(MenuCosts):
    """A sum over followers."""

    def __init__(
        self, problem: IncentiveProblem, menus: Menus, each: FloatArray, budget: float
    ) -> None:
        self._menus = menus
        self._each = each
        self._weight = problem.cost_weight
        self._budget = budget

    def _weighed(self, cost: FloatArray) -> FloatArray:
        if self._budget < np.inf:
            cost = np.where(cost <= self._budget, cost, np.inf)
            if self._weight == 0.0:
                return np.where(np.isinf(cost), np.inf, 0.0)
        # Without a weight an infinite cost counts nothing.
        return self._weight * cost if self._weight else np.zeros(cost.shape)

    def of(self, i: int, pick: NDArray[np.int64]) -> FloatArray:
        others = self._each[np.delete(pick, i)].sum()
        return self._weighed(others + self._each[self._menus.of(i)])

    def pair(self, i: int, j: int, pick: NDArray[np.int64]) -> FloatArray:
        others = self._each[np.delete(pick, [i, j])].sum()
        first, second = self._each[self._menus.of(i)], self._each[self._menus.of(j)]
        return self._weighed(others + first[:, None] + second[None])

    def total(self, pick: NDArray[np.int64]) -> float:
        return float(self._weighed(self._each[pick].sum()))

    def least(self, entries: NDArray[np.int64]) -> float:
        return self._weight * float(self._each[entries].min()) if self._weight else 0.0


class _General(MenuCosts):
    """Any function of all payments, evaluated combination by combination."""

    def __init__(self, problem: IncentiveProblem, menus: Menus, budget: float) -> None:
        self._problem = problem
        self._menus = menus
        self._budget = budget

    def _cost(self, pick: NDArray[np.int64]) -> float:
        problem = self._problem
        cost = problem.cost.value(self._menus.payments(problem, pick))  # type: ignore[union-attr]
        return problem.cost_weight * cost if cost <= self._budget else np.inf

    def of(self, i: int, pick: NDArray[np.int64]) -> FloatArray:
        trial = pick.copy()
        entries = range(self._menus.of(i).start, self._menus.of(i).stop)
        out = np.empty(len(entries))
        for k, entry in enumerate(entries):
            trial[i] = entry
            out[k] = self._cost(trial)
        return out

    def pair(self, i: int, j: int, pick: NDArray[np.int64]) -> FloatArray:
        trial = pick.copy()
        rows = []
        for entry in range(self._menus.of(i).start, self._menus.of(i).stop):
            trial[i] = entry
            rows.append(self.of(j, trial))
        return np.array(rows)

    def total(self, pick: NDArray[np.int64]) -> float:
        return self._cost(pick)

    def least(self, entries: NDArray[np.int64]) -> float:
        raise NotImplementedError("a general cost has no bound")


def menu_costs(problem: IncentiveProblem, menus: Menus, budget: bool = True) -> MenuCosts:
    """Build the costs of a problem's menus, term by term where the cost is a sum of such.

    Without ``budget`` no cost is too large.
    """
    cost = problem.cost
    limit = np.inf
    if budget and problem.budget is not None:
        limit = problem.budget * (1.0 + ROUNDING)
    payments = problem.payments
    reach = payments.reach[menus.owner]
    paid = reach >= 0
    if isinstance(cost, ExpectedSpend):
        followers = problem.followers
        many = followers.repeated(menus.owner)
        prices = np.broadcast_to(cost.prices, payments.size)
        rates = side_payments(problem, menus.owner, np.where(paid, prices[reach], 0) * menus.spread)
        payable = payments.index[menus.owner] >= 0
        policies = followers.deterministic_policies(menus.actions)
        spent = expected_payouts(many, rates, payable, policies, problem.leader_discount)
        return _Separable(problem, menus, spent.values * followers.counts[menus.owner], limit)
    if isinstance(cost, (LinearCost, QuadraticCost)):
        prices = payments.prices[reach] + payments.curvature[reach] * menus.spread
        # Followers that share a payment bear it in equal parts.
        sharing = np.bincount(payments.owned, minlength=payments.size)[reach]
        each = np.where(paid, prices * menus.spread / sharing, 0.0).sum(axis=1)
        return _Separable(problem, menus, each, limit)
    return _General(problem, menus, limit)
