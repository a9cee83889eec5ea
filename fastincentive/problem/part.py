"""What the steps of a method ask of a problem, which may be a shard of one."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked, number
from fastincentive.errors import InputError, invalid
from fastincentive.followers.followers import Followers, OptimalActions, ResponseValues
from fastincentive.followers.policies import net_rewards
from fastincentive.leader.base import BoundReward
from fastincentive.problem.bound_payments import ROUNDING, BoundPayments
from fastincentive.problem.costs import Cost, ExpectedSpend
from fastincentive.problem.evaluation import Evaluation
from fastincentive.problem.leader_side import LeaderSide
from fastincentive.problem.passes import ForwardPass, LeaderPass
from fastincentive.problem.queries import Query
from fastincentive.problem.spending import CostPass, CostSlopes, Spending

__all__ = ["ProblemPart"]


class ProblemPart:
    """Followers, what the leader earns with them, and what it pays them.

    An ``IncentiveProblem`` has all followers, a ``ProblemShard`` some. What a method does in a
    step needs no more than this; what it must know of all followers it asks, see ``queries``.

    Parameters
    ----------
    followers : Followers
    leader_side : LeaderSide
    spending : Spending
    cost_weight : float
        w >= 0 in f = V - w C(x).
    budget : float or None
        Bound on the cost of all followers.
    """

    def __init__(
        self,
        followers: Followers,
        leader_side: LeaderSide,
        spending: Spending,
        cost_weight: float,
        budget: float | None,
    ) -> None:
        self.followers = followers
        self.leader_side = leader_side
        self.spending = spending
        self.cost_weight = cost_weight
        #: Bound on the cost, or None.
        self.budget = budget
        #: Whether some policies may be improper: some follower, of any shard, does not discount.
        self.undiscounted = bool((followers.packed.discount == 1.0).any())

    @property
    def n(self) -> int:
        """Number of followers."""
        return self.followers.n

    @property
    def has_types(self) -> bool:
        """Whether types of followers have counts above 1."""
        return self.followers.population > self.followers.n

    @property
    def leader(self) -> BoundReward:
        """The leader's reward; a shard only knows its labels."""
        return self.leader_side.leader

    @property
    def leader_discount(self) -> float:
        """The leader's discount, in [0, 1]."""
        return self.leader_side.discount

    @property
    def passes(self) -> ForwardPass:
        """The forward and backward passes over the followers' chains."""
        return self.leader_side.passes

    @property
    def magnitude(self) -> float:
        """Largest |reward| of the leader, whatever all followers do."""
        return self.leader_side.magnitude

    @property
    def payments(self) -> BoundPayments:
        """Where the leader may pay these followers."""
        return self.spending.payments

    @property
    def cost(self) -> Cost | ExpectedSpend:
        """C of these payments."""
        return self.spending.cost

    @property
    def variables(self) -> NDArray[np.int64]:
        """Which payments (k,) of the whole problem these are: all, but in a shard of it."""
        return self.spending.variables

    def rewards(self, payments: FloatArray) -> FloatArray:
        """R_i + x_i (n, S, A) for payments (k,), eq. 2; 0 where the two cancel up to rounding."""
        own, paid = self.followers.rewards, self.payments.side_payments(payments)
        return net_rewards(own, paid) if self.undiscounted else own + paid

    @property
    def moving(self) -> FloatArray:
        """(n, S, A) 0 where nothing is earned whatever the payments, positive elsewhere."""
        return np.abs(self.followers.rewards) + (self.payments.index >= 0)

    def optimal_actions(
        self, payments: FloatArray, best: ResponseValues | None = None
    ) -> OptimalActions:
        """Find all optimal actions at payments (k,), from the best responses if these are known."""
        if best is None:
            best = self.followers.best_responses(self.rewards(payments), checked=True)
        own, paid = self.followers.rewards, self.payments.side_payments(payments)
        return self.followers.optimal_actions(own, paid, best)

    def leader_pass(
        self, policies: FloatArray, gradient: bool = True, discount: float | None = None
    ) -> LeaderPass:
        """V and dV/dpi; policies are not checked, ``discount`` stands in for the leader's own.

        Only where all followers are: a shard takes ``leader_pass_steps``.
        """
        if not isinstance(gradient, (bool, np.bool_)):
            raise invalid("gradient", "True or False", type(gradient).__name__)
        if discount is not None and not 0.0 <= number("discount", discount) <= 1.0:
            raise invalid("discount", "a number in [0, 1]", discount)
        found = self.leader_side.leader_pass(policies, gradient, discount=discount)
        slopes = found.gradient
        if np.isnan(found.value) or (slopes is not None and np.isnan(slopes).any()):
            raise invalid("policies", "rows that sum to 1", "others, under which nothing is finite")
        return found

    def leader_pass_steps(
        self, policies: FloatArray, gradient: bool = True, discount: float | None = None
    ) -> Generator[Query, Any, LeaderPass]:
        """As ``leader_pass``, asking what must be known of all followers."""
        return self.leader_side.leader_pass_steps(policies, gradient, discount)

    @checked
    def cost_pass(
        self, payments: FloatArray, policies: FloatArray, gradient: bool = True
    ) -> CostPass:
        """C and its derivatives; entries are not checked. Without ``gradient`` dC/dx is empty."""
        return self.spending.cost_pass(payments, policies, gradient)

    def cost_slopes_steps(
        self, payments: FloatArray, policies: FloatArray
    ) -> Generator[Query, Any, CostSlopes]:
        """Differentiate C, asking what others must know; its value only all together know."""
        return self.spending.cost_slopes_steps(payments, policies)

    def net(self, leader_value: float, cost: float) -> float:
        """Return f = V - w C: the leader's value less what the payments cost it."""
        leader_value, cost = number("leader_value", leader_value), number("cost", cost)
        # Without a weight an infinite cost counts nothing.
        found = leader_value - self.cost_weight * cost if self.cost_weight else leader_value
        if np.isnan(found):
            raise invalid("cost", "a finite number beside an infinite value", cost)
        return found

    @checked
    def affords(self, cost: float, slack: float = ROUNDING) -> bool:
        """Whether the budget, if there is one, allows this cost of all followers."""
        return self.budget is None or cost <= self.budget * (1.0 + slack)

    @checked
    def net_objective(self, leader_value: float, cost: float) -> float:
        """Return f = V - w C, or -inf where the budget does not allow this cost."""
        return self.net(leader_value, cost) if self.affords(cost) else -np.inf

    def assemble(
        self, leader: LeaderPass, cost: float, values: FloatArray, best: FloatArray
    ) -> Evaluation:
        """Put an Evaluation together: the leader's pass, C, V_i (n,) and V_i* (n,)."""
        gaps = best - values
        return Evaluation(
            leader_value=leader.value,
            cost=cost,
            objective=self.net(leader.value, cost),
            follower_values=values,
            best_values=best,
            follower_gaps=gaps,
            feasibility=-float(self.followers.counts @ gaps),
            horizon=leader.horizon,
            truncation=leader.truncation,
        )

    def refuse_types(self, what: str) -> None:
        """Raise if there are counts above 1, which ``what`` does not know."""
        if self.has_types:
            raise InputError(
                f"followers: expected counts of 1 for {what}, got {self.followers.population} "
                f"followers of {self.n} types. List the followers one by one."
            )
