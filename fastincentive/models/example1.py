"""Example 1 of the paper: two followers, four states, several stationary points."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from fastincentive._arrays import FloatArray, as_floats, check_finite
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.followers.mdp import TabularMDP
from fastincentive.leader.tables import JointReward
from fastincentive.problem.payments import Payments
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["example1", "example1_objective"]

_SINK = 3
#: What followers 1 and 2 earn at their own goals, states 1 and 2.
_GOAL_REWARDS = (1.0, 2.0)


@checked
def example1(cost_weight: float = 1.0) -> IncentiveProblem:
    """Build Example 1 of the paper (Section 3.3, Figure 1).

    States 0, 1, 2 and Sink = 3. From 0 action a1 leads to state 1 and a2 to state 2; both states
    lead to the Sink. Follower 1 earns 1 at state 1, its goal; follower 2 earns 2 at state 2, its
    goal. All discounts are 1. Payment 0 goes to follower 1 at state 2, payment 1 to follower 2 at
    state 1, each at the other's goal. The cost is their sum.

    Parameters
    ----------
    cost_weight : float
        w in f = V - w C(x); the paper's formula has 1.

    Returns
    -------
    IncentiveProblem

    Notes
    -----
    The text gives the leader 6 at the joint state (2, 1) and 5 at (2, 0) or (0, 1). The latter
    never occur, for both followers leave state 0 together, and contradict the formula that follows,
    f_m = 5 + 4 p1 p2 - 5 p1 + p2 - x1 - x2. That formula holds, and is used here, when the leader
    earns 6 if both reach the other's goal, 5 if exactly one does, and 0 if neither does. After one
    step exactly one has reached the other's goal in the joint states (2, 2), where follower 2 is at
    its own, and (1, 1), where follower 1 is. The table is 0 everywhere else.
    """
    successors = np.full((4, 2, 1), _SINK)
    successors[0, :, 0] = (1, 2)
    rewards = np.zeros((2, 4))
    rewards[0, 1], rewards[1, 2] = _GOAL_REWARDS
    first = TabularMDP.from_successors(
        successors, np.ones(successors.shape), rewards[0], discount=1.0, initial=0
    )
    table = np.zeros((4, 4))
    table[2, 1] = 6.0
    table[2, 2] = table[1, 1] = 5.0
    return IncentiveProblem(
        [first, first.replace(reward=rewards[1])],
        JointReward(table),
        Payments.at_states([[2], [1]]),
        leader_discount=1.0,
        cost_weight=cost_weight,
    )


@checked
def example1_objective(
    x: ArrayLike,
    parameterization: str = "direct",
    temperature: float = 0.05,
    cost_weight: float = 1.0,
) -> FloatArray:
    """Evaluate the closed form of f_m(x) = max over best responses of f(x, theta) in Example 1.

    f_m = 5 + 4 p1 p2 - 5 p1 + p2 - w (x1 + x2), where p1 and p2 are the probabilities that follower
    1 and 2 take a1 in state 0. Under the direct parameterization p1 = 1 for x1 < 1, else 0, and
    p2 = 1 for x2 >= 2, else 0 (ties are broken for the leader). Under softmax the response is
    theta = Q*, hence p1 = 1 / (1 + exp((x1 - 1) / tau)), p2 = 1 / (1 + exp((2 - x2) / tau)).

    Parameters
    ----------
    x : array (..., 2)
        Payments (x1, x2).
    parameterization : "direct" or "softmax"
    temperature : float
        tau > 0 of the softmax, in units of reward.
    cost_weight : float
        w.

    Returns
    -------
    array (...)

    Raises
    ------
    InputError
        If ``x`` does not end in an axis of length 2, or another argument is not as described.
    """
    payments = as_floats("x", x)
    check_finite("x", payments)
    if payments.ndim == 0 or payments.shape[-1] != 2:
        raise invalid("x", "an array (..., 2)", payments.shape)
    if not temperature > 0:
        raise invalid("temperature", "a number > 0", temperature)
    x1, x2 = payments[..., 0], payments[..., 1]
    goal1, goal2 = _GOAL_REWARDS
    if parameterization == "direct":
        p1 = (x1 < goal1).astype(float)
        p2 = (x2 >= goal2).astype(float)
    elif parameterization == "softmax":
        p1 = expit((goal1 - x1) / temperature)
        p2 = expit((x2 - goal2) / temperature)
    else:
        raise invalid("parameterization", '"direct" or "softmax"', repr(parameterization))
    return np.asarray(5.0 + 4.0 * p1 * p2 - 5.0 * p1 + p2 - cost_weight * (x1 + x2))
