"""One follower and any number of payments, to proven optimality: a mixed-integer programme.

Columns: payments x, the follower's values V, its choices y (binary), and visits d that the
leader's discount weighs. V >= Q everywhere and V <= Q where y = 1 make y a best response; d lives
where y = 1. A follower with discount 1 has visits e of its own, which keep it from going round
for ever.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._tables import name_value_list
from fastincentive.certificates.milp_search import Search
from fastincentive.errors import invalid
from fastincentive.problem.costs import LinearCost
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["SingleFollowerOptimum", "single_follower_optimum"]


@dataclass(frozen=True)
class SingleFollowerOptimum:
    """The best payments for one follower and what proves it.

    Attributes
    ----------
    payments : array (k,)
    side_payments : array (S, A)
    policy : array (S, A)
        The deterministic best response that is best for the leader.
    leader_value, cost, objective : float
        Evaluated anew at this point by ``problem.evaluate``, not by the programme.
    bound : float
        No deterministic best response to any payments has a larger objective, up to the solver's
        tolerances and but for what ``restricted`` says.
    restricted : bool
        Whether policies that visit some state more than ``max_visits`` times are left out of the
        bound; only at discount 1.
    nodes : int
        Nodes of the solver's search trees.
    seconds : float
    optimal : bool
        Whether bound and objective agree.
    message : str
        How the search ended.
    """

    payments: FloatArray
    side_payments: FloatArray
    policy: FloatArray
    leader_value: float
    cost: float
    objective: float
    bound: float
    restricted: bool
    nodes: int
    seconds: float
    optimal: bool
    message: str

    @property
    def gap(self) -> float:
        """Bound less objective."""
        return self.bound - self.objective

    def __str__(self) -> str:
        """Return a short table."""
        rows = [
            ("payments", np.array2string(self.payments, precision=6, threshold=8)),
            ("objective", f"{self.objective:.6f}"),
            ("bound", f"{self.bound:.6f}"),
            ("restricted", "yes" if self.restricted else "no"),
            ("nodes", f"{self.nodes}"),
            ("status", self.message),
        ]
        return name_value_list(rows)


@checked
def single_follower_optimum(
    problem: IncentiveProblem,
    *,
    time_limit: float = np.inf,
    max_visits: float = 1000.0,
) -> SingleFollowerOptimum:
    """Find the best payments for one follower, with a certificate, by integer programming.

    Any number of payments, tied or not, with bounds and a budget. The time grows exponentially
    with the number of states where there is a choice to make; meant for small models.

    Parameters
    ----------
    problem : IncentiveProblem
        With one follower, discounts of leader and follower in [0, 1], equal or not, and a
        ``LinearCost``.
    time_limit : float
        Seconds after which the best payments so far are returned, with the bound still open.
    max_visits : float
        At discount 1 a policy may visit a state any number of times before it leaves. More
        expected visits than this are left out; the result says if that was needed. A follower
        with discount below 1 may still settle, for ever, where the leader earns nothing.

    Returns
    -------
    SingleFollowerOptimum
        The payments are the cheapest ones for the policy, verified by exact best responses.

    Raises
    ------
    InputError
        If there are several followers, the cost is not linear, a payment that costs nothing, or
        at leader discount 1 one that could pay without bound, has no upper bound, or at follower
        discount 1 the largest payments could be earned for ever.

    Notes
    -----
    The optimality conditions of the follower with one binary per state and action, as in the
    programmes for incentive and environment design in the literature [1]_ [2]_, solved by HiGHS
    through ``scipy.optimize.milp``. The constants that switch conditions off come from exact best
    responses at the least and the largest payments that can be worth their cost. A policy that
    the solver's tolerances let pass, but that cannot be had at the price, is excluded and the
    programme solved again.

    References
    ----------
    .. [1] H. Zhang and D. Parkes, "Value-based policy teaching with active indirect elicitation",
       AAAI 2008.
    .. [2] J. F. Bard and J. T. Moore, "A branch and bound algorithm for the bilevel programming
       problem", SIAM Journal on Scientific and Statistical Computing 11, 1990.

    Examples
    --------
    >>> import fastincentive as fi
    >>> problem = fi.models.gridworld("S.L ..G", slip=0.0, discount=0.9)
    >>> best = fi.single_follower_optimum(problem)
    >>> best.payments.round(6), best.optimal
    (array([1.]), True)
    """
    _check(problem, time_limit, max_visits)
    began = time.perf_counter()
    search = Search(problem, max_visits, began + time_limit)
    message = search.run()
    best = search.best
    assert best is not None  # for the type checker: the payments of 0 are always tried
    evaluation = problem.evaluate(best.payments, best.policies)
    return SingleFollowerOptimum(
        payments=best.payments,
        side_payments=problem.payments.side_payments(best.payments)[0],
        policy=best.policies[0],
        leader_value=evaluation.leader_value,
        cost=evaluation.cost,
        objective=evaluation.objective,
        bound=max(search.bound, evaluation.objective),
        restricted=search.restricted,
        nodes=search.nodes,
        seconds=time.perf_counter() - began,
        optimal=search.closed,
        message=message,
    )


def _check(problem: IncentiveProblem, time_limit: float, max_visits: float) -> None:
    if problem.n != 1:
        raise invalid(
            "problem",
            "one follower",
            problem.n,
            None,
            "For several followers use solve, or global_optimum if each has one payment.",
        )
    if not isinstance(problem.cost, LinearCost):
        raise invalid(
            "cost",
            "a LinearCost, because the programme is linear",
            type(problem.cost).__name__,
            None,
            "Use solve.",
        )
    if not time_limit > 0:
        raise invalid("time_limit", "a number of seconds > 0", time_limit)
    if not 1 <= max_visits < np.inf:
        raise invalid("max_visits", "a finite number >= 1", max_visits)
