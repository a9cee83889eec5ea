"""Random problems, for tests and benchmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastincentive._checks import checked
from fastincentive._machine import check_large
from fastincentive._random import Rng, check_rng
from fastincentive.errors import invalid
from fastincentive.followers.followers import Followers
from fastincentive.followers.mdp import TabularMDP
from fastincentive.leader.base import LeaderReward
from fastincentive.leader.tables import JointReward, LabelReward
from fastincentive.problem.payments import Payments
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["random_problem"]

#: Largest table that the leader's reward may need.
_LARGEST_TABLE = 100_000
_RANDOM_LABELS = 3


@checked
def random_problem(
    n: int = 2,
    n_states: int = 10,
    n_actions: int = 3,
    branching: int = 3,
    rng: Rng = None,
    *,
    discounts: tuple[float, float] = (0.8, 0.95),
    leader_discount: float = 0.9,
    action_dependent: bool = False,
    unavailable: float = 0.0,
    n_payments: int = 2,
    cost_weight: float = 0.1,
) -> IncentiveProblem:
    """Build a problem with random followers and a random leader.

    Every follower has its own transitions, rewards uniform in [0, 1], and a random first state.
    The leader's rewards are uniform in [0, 1].

    Parameters
    ----------
    n, n_states, n_actions : int
        Number of followers, states S and actions A.
    branching : int
        Successors of each state and action, drawn with replacement, with random probabilities.
    rng : None, int or numpy.random.Generator
        Seed. One stream is spawned for the leader and one for each follower, so another n leaves
        the first followers as they are.
    discounts : (float, float)
        Each follower's discount is uniform between these, within [0, 1).
    leader_discount : float in [0, 1)
    action_dependent : bool
        Whether the leader's reward sees the followers' actions as well.
    unavailable : float in [0, 1)
        Probability that an action does not exist in a state; one action always does.
    n_payments : int
        Payments per follower, each at a random state whatever the action there.
    cost_weight : float
        w in f = V - w C(x); C is the sum of the payments.

    Returns
    -------
    IncentiveProblem
        Its leader has a ``JointReward`` if that table has at most 100,000 entries, else a
        ``LabelReward`` with three random labels.

    Raises
    ------
    InputError
        If an argument is not as described, or n > 10 (the table over labels has 3**n entries).

    Examples
    --------
    >>> from fastincentive.models import random_problem
    >>> random_problem(3, rng=0)
    IncentiveProblem(n=3, n_states=10, n_actions=3, n_payments=6, leader_discount=0.9, \
cost_weight=0.1)
    """
    check_rng(rng)
    for name, value in (
        ("n", n),
        ("n_states", n_states),
        ("n_actions", n_actions),
        ("branching", branching),
    ):
        if value < 1:
            raise invalid(name, "an integer >= 1", value)
    check_large("A random problem", 40.0 * n * n_states * n_actions * branching)
    if not 1 <= n_payments <= n_states:
        raise invalid("n_payments", f"an integer in 1..{n_states}", n_payments)
    if not 0.0 <= unavailable < 1.0:
        raise invalid("unavailable", "a probability in [0, 1)", unavailable)
    low, high = discounts
    if not 0.0 <= low <= high < 1.0:
        raise invalid("discounts", "two numbers, 0 <= low <= high < 1", discounts)
    streams = np.random.default_rng(rng).spawn(n + 1)
    mdps = []
    sites = []
    for stream in streams[1:]:
        shape = (n_states, n_actions, branching)
        mdps.append(_follower(stream, shape, discounts, unavailable))
        sites.append(np.sort(stream.choice(n_states, n_payments, replace=False)).tolist())
    return IncentiveProblem(
        Followers(mdps),
        _leader(streams[0], n, n_states, n_actions if action_dependent else 1),
        Payments.at_states(sites),
        leader_discount=leader_discount,
        cost_weight=cost_weight,
    )


def _follower(
    stream: np.random.Generator,
    shape: tuple[int, int, int],
    discounts: tuple[float, float],
    unavailable: float,
) -> TabularMDP:
    """Draw a follower with (S, A) rows of so many successors."""
    n_states, n_actions, branching = shape
    available = _availability(stream, n_states, n_actions, unavailable)
    return TabularMDP.from_successors(
        stream.integers(n_states, size=shape),
        stream.dirichlet(np.ones(branching), size=(n_states, n_actions)),
        stream.random((n_states, n_actions)),
        discount=float(stream.uniform(*discounts)),
        initial=stream.dirichlet(np.ones(n_states)),
        available=available,
    )


def _availability(
    stream: np.random.Generator, n_states: int, n_actions: int, unavailable: float
) -> NDArray[np.bool_]:
    available = stream.random((n_states, n_actions)) >= unavailable
    available[np.arange(n_states), stream.integers(n_actions, size=n_states)] = True
    return available


def _leader(stream: np.random.Generator, n: int, n_states: int, width: int) -> LeaderReward:
    """Table over the joint state (width 1) or state and action (width A), or over labels."""
    if (n_states * width) ** n <= _LARGEST_TABLE:
        shape = (n_states,) * n if width == 1 else (n_states, width) * n
        return JointReward(stream.random(shape))
    if _RANDOM_LABELS**n > _LARGEST_TABLE:
        raise invalid("n", f"3**n <= {_LARGEST_TABLE}, the table over three labels", n)
    shape = (n, n_states) if width == 1 else (n, n_states, width)
    labels = stream.integers(_RANDOM_LABELS, size=shape)
    return LabelReward(labels, stream.random((_RANDOM_LABELS,) * n))
