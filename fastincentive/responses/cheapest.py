"""The cheapest payments at which given policies are best responses, by a margin if wanted.

A policy is optimal with a margin m if it is optimal after every competing action at a visited
state has been paid m more. So one routine, for margin 0, serves all margins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive.errors import InfeasiblePolicyError, invalid
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.support_explained import explain
from fastincentive.responses.support_search import (
    minimise_cost,
    one_payment_each,
    support_at_prices,
    verified,
)
from fastincentive.responses.support_task import (
    BoolArray,
    SupportTask,
    check_absorbed,
    competing_actions,
    started_everywhere,
    visited_states,
)

__all__ = ["CheapestPayments", "cheapest_payments", "supporting_payments"]


@dataclass(frozen=True)
class CheapestPayments:
    """The cheapest payments for given policies.

    Attributes
    ----------
    payments : array (k,)
    cost : float
        C(x), without the cost weight.
    margins : array (n,)
        By how much each follower's policy beats the best competing action, at the visited state
        where that is least; inf where nothing competes.
    price_of_margin : float
        ``cost`` less the least cost at margin 0.
    """

    payments: FloatArray
    cost: float
    margins: FloatArray
    price_of_margin: float


@checked
def cheapest_payments(
    problem: IncentiveProblem, policies: ArrayLike, margin: float = 0.0
) -> CheapestPayments:
    """Find the least-cost payments at which the policies are best responses from the start.

    Parameters
    ----------
    problem : IncentiveProblem
    policies : array (n, S, A)
        What each follower should do in the states that it visits with positive probability;
        elsewhere it may do what it likes best.
    margin : float
        By how much, in units of reward, every other action must be worse at each visited state.
        With a margin > 0 the answer at these states is unique, so that the leader gets what it
        paid for however ties are broken. Actions that are the same to the follower and to the
        leader as one that the policy takes (law of the successor, reward, payment, label) do
        not compete. Actions between which a policy draws lots tie among themselves.

    Returns
    -------
    CheapestPayments
        Verified by exact best responses: the gaps V_i* - V_i are within the tolerance for ties
        and the margins within 1e-9 units of reward.

    Raises
    ------
    InfeasiblePolicyError
        If no allowed payments do; it names followers and states, and what they fall short.
    InputError
        If an argument is not as described.
    ImproperPolicyError
        At discount 1, if a policy is never absorbed, nor stays where nothing is earned or paid.

    Notes
    -----
    Minimise C(x) over payments x and values V subject to V(s) >= Q(s, a; x, V) everywhere and
    V(s) = sum_a pi(a|s) Q(s, a; x, V) at visited states: the linear programme of inverse
    reinforcement learning [1]_ on the payments that exist, one for each follower unless shared
    payments tie them together. One payment per follower is found by Newton's
    method on the gap, which is piecewise linear. A non-linear cost must be convex; it is
    minimised by simplicial decomposition [2]_ to a relative gap of 1e-9.

    References
    ----------
    .. [1] A. Y. Ng and S. J. Russell, "Algorithms for inverse reinforcement learning", ICML 2000.
    .. [2] B. von Hohenbalken, "Simplicial decomposition in nonlinear programming algorithms",
       Mathematical Programming 13, 1977.

    Examples
    --------
    >>> import fastincentive as fi
    >>> problem = fi.models.example1()
    >>> target = fi.leader_optimal_policies(problem)
    >>> fi.cheapest_payments(problem, target).payments.round(9)
    array([1., 2.])
    """
    target = problem.followers.check_policies(policies)
    if not (margin >= 0 and np.isfinite(margin)):
        raise invalid("margin", "a finite number >= 0", margin)
    visited = visited_states(problem, target)
    competing = competing_actions(problem, target, visited)
    if margin > 0:
        check_absorbed(problem, target, visited)
    followers = started_everywhere(problem.followers, visited)
    task = SupportTask(problem, followers, target, visited, margin * competing.astype(float))
    payments = _cheapest(task)
    cost = task.cost(payments)
    without = replace(task, bonus=np.zeros(target.shape))
    least = task.cost(_cheapest(without)) if margin > 0 else cost
    best = problem.followers.best_responses(problem.rewards(payments))
    lead = np.where(competing, best.values[:, :, None] - best.q_values, np.inf)
    return CheapestPayments(
        payments=payments,
        cost=cost,
        margins=lead.min(axis=(1, 2)),
        price_of_margin=max(cost - least, 0.0) if least < np.inf else 0.0,
    )


def supporting_payments(
    problem: IncentiveProblem, policies: FloatArray, fallback: FloatArray
) -> tuple[FloatArray, BoolArray]:
    """Cheapest payments (k,) at which each follower's policy is an exact best response.

    Returns them with (n,) bool: the followers for whom there are such payments; the others keep
    ``fallback``, at which a non-linear cost is linearised. Where there is a budget that these
    payments break, all keep it.
    """
    visited = visited_states(problem, policies)
    task = SupportTask(problem, problem.followers, policies, visited, np.zeros(policies.shape))
    x, supported = support_at_prices(task, task.prices(fallback), fallback)
    if not task.within_budget(x):
        return fallback, np.zeros(problem.n, bool)
    return x, supported


def _cheapest(task: SupportTask) -> FloatArray:
    """Least-cost payments for all followers, or the error that says why there are none."""
    x, supported = _support(task)
    if not supported.all():
        raise InfeasiblePolicyError(explain(task, supported))
    if not task.within_budget(x):
        raise InfeasiblePolicyError(
            "policies: the cheapest payments that make these best responses cost "
            f"{task.cost(x):.12g}, and the budget is {task.problem.budget:.12g}. Raise the budget."
        )
    return x


def _support(task: SupportTask) -> tuple[FloatArray, BoolArray]:
    """Least-cost payments that make the policies optimal, and for whom there are any."""
    prices = task.prices(task.payments.lower)
    x, supported = support_at_prices(task, prices, task.payments.lower)
    slope = task.prices(x)
    # Of separate payments each is at its least: no cost that rises with all is lower elsewhere.
    least = one_payment_each(task.payments) and (slope >= 0).all()
    if least or not supported.all() or np.allclose(slope, prices, 1e-14, 0.0):
        return x, supported
    return verified(task, minimise_cost(task, x), supported)
