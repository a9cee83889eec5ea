"""The gridworld of the paper's experiment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.models.grid import gridworld
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["PAPER_MAP", "paper_gridworld", "paper_initial_policies"]

#: The paper's 6x6 grid (Figure 3). Its layout is not in the text; see ``paper_gridworld``.
PAPER_MAP = """
....F.
..F.L.
S..F..
...FG.
.....L
G...F.
"""


@checked
def paper_gridworld(
    slips: Sequence[float] = (0.1, 0.05),
    discount: float | Sequence[float] = 0.95,
    cost_weight: float = 0.1,
    start: Sequence[int] = (2, 0),
    *,
    upper: ArrayLike = np.inf,
) -> IncentiveProblem:
    """Build the 6x6 gridworld of the paper's experiment (Section 4, Figure 3).

    Two robots start in one cell. Goals (3, 4) and (5, 0) pay 10, lesser goals (1, 4) and (4, 5)
    pay 8, fires (0, 4), (1, 2), (2, 3), (3, 3) and (5, 4) cost 5. The leader, whose discount is 1,
    earns 10 when both robots are at a lesser goal, 8 when one is and the other is in the Sink, and
    2 when one is and the other is anywhere else. It may pay robot 1 at (4, 5) and robot 2 at
    (1, 4); the cost is the sum of both payments.

    Parameters
    ----------
    slips : (2,) floats in [0, 0.5]
        Probability of each sideways move, alpha_1 and alpha_2. The paper does not print them:
        the defaults are a choice of this package, as is ``discount``.
    discount : float or (2,) floats in [0, 1]
        The robots' discounts.
    cost_weight : float
        w in f = V - w C(x).
    start : (row, column)
        Start of both robots.
    upper : float or (2,)
        Largest payments.

    Returns
    -------
    IncentiveProblem
        With 37 states, 4 actions, payments (robot 1 at state 29, robot 2 at state 10), and
        ``problem.grid``.

    Notes
    -----
    Figure 3's layout is not in the text either; this one is the research group's published grid
    with a single robot. Table 1 can therefore be compared, but not to the last digit.
    """
    if len(slips) != 2:
        raise invalid("slips", "two probabilities, one per robot", len(slips))
    return gridworld(
        PAPER_MAP,
        slip=slips,
        discount=discount,
        starts=[start],
        paid=[[(4, 5)], [(1, 4)]],
        cost_weight=cost_weight,
        upper=upper,
    )


@checked
def paper_initial_policies(problem: IncentiveProblem, promise: float = 20.0) -> FloatArray:
    """Build the third initialisation of the paper's Table 1.

    The text asks for a robot 1 with a high and a robot 2 with a low probability of reaching a
    lesser goal, and gives no policies. Here robot 1 best-responds to a payment of ``promise`` where
    it may be paid (it then reaches a lesser goal with probability 0.88) and robot 2 to no payment
    (with probability 0.00003).

    Parameters
    ----------
    problem : IncentiveProblem
        From ``paper_gridworld``; any problem will do, all followers but the first unpaid.
    promise : float
        Payment that the first follower answers to, in units of its reward.

    Returns
    -------
    array (n, S, A)
        Deterministic policies.
    """
    rewards = problem.rewards(np.where(problem.payments.reaches[0], float(promise), 0.0))
    rewards[1:] = problem.followers.rewards[1:]
    actions = problem.followers.best_responses(rewards).actions
    return problem.followers.deterministic_policies(actions)
