"""What payments cost the leader: C and its derivatives, and what followers are really paid."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray, as_given
from fastincentive.followers.argument_checks import MEANING
from fastincentive.followers.followers import Followers
from fastincentive.problem.bound_payments import BoundPayments
from fastincentive.problem.costs import (
    Cost,
    ExpectedSpend,
    LinearCost,
    Payouts,
    QuadraticCost,
    expected_payouts,
)
from fastincentive.problem.queries import Query, SequentialReduce, SlopeOfCost

__all__ = ["CostPass", "CostSlopes", "Spending"]


class CostPass(NamedTuple):
    """The cost at a point and its derivatives."""

    value: float
    payments: FloatArray  # (k,) dC/dx
    policies: FloatArray | None  # (n, S, A) dC/dpi; None if the cost does not depend on policies


class CostSlopes(NamedTuple):
    """The derivatives of the cost at a point, and what adds up to the cost, where followers do."""

    payments: FloatArray  # (k,) dC/dx
    policies: FloatArray | None  # (n, S, A) dC/dpi; None if the cost does not depend on policies
    spent: FloatArray | None  # (n,) what is paid to all followers of each type, in that case


class _Spent(NamedTuple):
    """What all followers of a type are paid in expectation."""

    values: FloatArray  # (n,)
    visits: FloatArray  # (n, S, 1)
    q_values: FloatArray  # (n, S, A), 0 at unavailable actions


class Spending:
    """The payments of some followers, and what they cost.

    Parameters
    ----------
    followers : Followers
    payments : BoundPayments
        Where these followers are paid.
    cost : Cost or ExpectedSpend
        C of these payments.
    discount : float
        The leader's.
    variables : array (k,), optional
        Which payments of the whole problem these are, in a shard; by default all.
    asks : bool
        Whether a shard must ask for the cost: it depends on payments that others have, too.
    """

    def __init__(
        self,
        followers: Followers,
        payments: BoundPayments,
        cost: Cost | ExpectedSpend,
        discount: float,
        variables: NDArray[np.int64] | None = None,
        asks: bool = False,
    ) -> None:
        self.followers = followers
        self.payments = payments
        self.cost = cost
        self.discount = discount
        self.variables = np.arange(payments.size) if variables is None else variables
        self.asks = asks

    def part(self, first: int, last: int, followers: Followers) -> Spending:
        """Return the spending on followers first..last-1, for a shard of them."""
        payments, variables = self.payments.part(first, last)
        asks = payments.shared or type(self.cost) not in (LinearCost, QuadraticCost)
        cost = _part_of_cost(self.cost, variables)
        return Spending(followers, payments, cost, self.discount, variables, asks)

    def cost_pass(
        self, payments: FloatArray, policies: FloatArray, gradient: bool = True
    ) -> CostPass:
        """C and its derivatives; entries are not checked. Without ``gradient`` dC/dx is empty."""
        if isinstance(self.cost, ExpectedSpend):
            spent = self._spent(self.cost, payments, policies)
            if not gradient:
                return CostPass(float(spent.values.sum()), np.empty(0), None)
            paid = self.payments.pull_back(spent.visits * policies)
            slope = self.cost.prices * paid
            return CostPass(float(spent.values.sum()), slope, spent.visits * spent.q_values)
        # Copies: what a cost of someone's own writes into them changes nothing.
        slope = self.cost.gradient(payments.copy()) if gradient else np.empty(0)
        return CostPass(self.cost.value(payments.copy()), slope, None)

    def cost_slopes_steps(
        self, payments: FloatArray, policies: FloatArray
    ) -> Generator[Query, Any, CostSlopes]:
        """Differentiate C, for a shard of the followers; its value only all together know."""
        if not isinstance(self.cost, ExpectedSpend):
            if self.asks:
                slope = yield SlopeOfCost(self.variables, payments)
            else:
                slope = self.cost.gradient(payments.copy())
            return CostSlopes(slope, None, None)
        spent = self._spent(self.cost, payments, policies)
        if self.payments.shared:
            # Shards take turns, for sums in another order round otherwise.
            paid, _ = yield SequentialReduce(self.variables, np.zeros(payments.size), False)
            paid = self.payments.pull_back(spent.visits * policies, paid)
            paid, _ = yield SequentialReduce(self.variables, paid, True)
        else:
            paid = self.payments.pull_back(spent.visits * policies)
        slope = self.cost.prices * paid
        return CostSlopes(slope, spent.visits * spent.q_values, spent.values)

    def expected(self, payments: FloatArray, policies: FloatArray) -> float:
        """Compute the expected total paid out, discounted by the leader, whatever the cost."""
        return float(self.followers.counts @ self._payouts(payments, policies).values)

    def _spent(self, cost: ExpectedSpend, payments: FloatArray, policies: FloatArray) -> _Spent:
        found = self._payouts(cost.prices * payments, policies)
        counts = self.followers.counts
        visits = found.visits[:, :, None] * counts[:, None, None]
        q_values = np.where(self.followers.available, found.q_values, 0.0)
        return _Spent(counts * found.values, visits, q_values)

    def _payouts(self, payments: FloatArray, policies: FloatArray) -> Payouts:
        policies = as_given("policies", policies, self.followers.shape, MEANING)
        return expected_payouts(
            self.followers,
            self.payments.side_payments(payments),
            self.payments.index >= 0,
            policies,
            self.discount,
        )


def _part_of_cost(cost: Cost | ExpectedSpend, variables: NDArray[np.int64]) -> Cost | ExpectedSpend:
    """Return the cost of some of the payments; of others than the package's own nothing is left."""

    def own(rates: FloatArray) -> FloatArray:
        return rates[variables] if rates.ndim else rates

    if type(cost) is LinearCost:
        return LinearCost(own(cost.prices))
    if type(cost) is QuadraticCost:
        return QuadraticCost(own(cost.prices), own(cost.curvature))
    if isinstance(cost, ExpectedSpend):
        return ExpectedSpend(own(cost.prices))
    return LinearCost(0.0)  # it is asked for
