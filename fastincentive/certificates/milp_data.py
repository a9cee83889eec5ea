"""What the mixed-integer programme of one follower knows: pairs, visits and bounds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import invalid
from fastincentive.followers.policies import net_rewards
from fastincentive.kernels import advantages as kernels
from fastincentive.kernels import bellman
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.regimes import alike, repeat

__all__ = [
    "SLACK",
    "Pairs",
    "Range",
    "Visits",
    "follower_kinds",
    "from_start",
    "leader_control",
    "most_visits",
    "payment_range",
    "prices_of",
    "selector",
]

#: Bounds that floating point may miss are widened by this fraction.
SLACK = 1e-9


class Pairs:
    """The reachable states, and the actions there that differ to follower or leader, as M pairs."""

    def __init__(self, problem: IncentiveProblem) -> None:
        from scipy.sparse import csr_array

        followers = problem.followers
        mdp = followers[0]
        states, actions = mdp.available.shape
        marginals = np.eye(problem.leader.n_labels)[:, None, :]
        by_label, _ = problem.leader.expectations(marginals)
        leader = np.broadcast_to(by_label[problem.leader.labels[0]], (states, actions))
        reached = np.empty(states, bool)
        kernels.mark_reachable(
            followers.packed, 0, mdp.available, reached, np.empty(states, np.int64)
        )
        same = alike(
            followers, follower_kinds(problem), np.unique(leader, return_inverse=True)[1][None]
        )
        keep = reached[:, None] & (same[0] == np.arange(actions))
        self.state, self.action = np.nonzero(keep)
        #: (S, A) the leader's reward.
        self.leader_table = np.where(mdp.available, leader, 0.0)
        self.leader_reward = leader[keep]
        self.reward = mdp.reward[keep]
        self.payment = problem.payments.index[0][keep]
        self.reached = reached
        #: (S,) number of actions to choose from.
        self.count = keep.sum(axis=1)
        #: (S,) closed classes, in which nothing is counted at discount 1.
        self.absorbing = mdp.transition.absorbing
        #: (M, S) 1 at each pair's own state.
        self.own = selector(self.state, states)
        #: (M, k) 1 at each pair's payment.
        self.paid = selector(self.payment, problem.payments.size)
        model = mdp.transition
        moves = csr_array(
            (model.probability, model.successor, model.row_start), shape=(states * actions, states)
        )
        #: (M, S) transition probabilities.
        self.moves = moves[self.state * actions + self.action]
        moving = problem.moving
        #: (S,) where a follower without discount can stay for ever and earn nothing.
        self.idle = followers.idle(moving)[0] & reached
        inside = self.idle | self.absorbing
        #: (M,) 1 for pairs that keep it there.
        self.stays = np.where(
            self.idle[self.state] & (moving[0][keep] == 0.0) & (self.moves @ ~inside == 0.0),
            1.0,
            0.0,
        )

    @property
    def size(self) -> int:
        """M."""
        return self.state.size

    def used_payments(self) -> NDArray[np.bool_]:
        """(k,) whether some pair has this payment."""
        return np.asarray(self.paid.sum(axis=0) > 0)

    def running(self, discount: float) -> NDArray[np.bool_]:
        """(S,) the reachable states in which visits count."""
        return self.reached & ~(self.absorbing & (discount == 1.0))


def follower_kinds(problem: IncentiveProblem) -> NDArray[np.int64]:
    """Payment of each pair (1, S, A), those of single pairs by price and bound alone.

    Of two actions that differ only by payments that nothing else has, one is enough.
    """
    payments = problem.payments
    single = np.bincount(payments.index[payments.index >= 0], minlength=payments.size) == 1
    terms = np.column_stack([prices_of(problem), payments.upper])
    _, kind = np.unique(terms, axis=0, return_inverse=True)
    names = np.where(single, payments.size + kind.reshape(-1), np.arange(payments.size))
    return np.where(payments.index >= 0, names[payments.index], -1)


def prices_of(problem: IncentiveProblem) -> FloatArray:
    """dC/dx (k,)."""
    return np.asarray(problem.cost_pass(problem.payments.lower, np.empty(0)).payments)


def selector(column: NDArray[np.int64], width: int) -> Any:
    """Sparse matrix with a 1 in this column of each row; -1 for none."""
    from scipy.sparse import csr_array

    at = np.flatnonzero(column >= 0)
    return csr_array((np.ones(at.size), (at, column[at])), shape=(column.size, width))


def leader_control(
    problem: IncentiveProblem, rewards: FloatArray, discount: float
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Optimal values (m, S), inf where unbounded, and actions of the follower's model.

    ``rewards`` is (m, S, A); ``discount`` stands in for the follower's.
    """
    count, states, _ = rewards.shape
    packed = repeat(problem.followers.packed, np.zeros(count, np.int64))
    packed = packed._replace(discount=np.full(count, discount))
    actions = np.full((count, states), -1)
    values = np.empty((count, states))
    status = np.empty(count, np.int64)
    bellman.best_responses(
        packed,
        np.ascontiguousarray(rewards),
        actions,
        values,
        np.empty(rewards.shape),
        np.empty(count),
        status,
    )
    values[status < 0] = np.inf
    return values, actions


class Visits(NamedTuple):
    """The most discounted visits that a policy can pay to each state (S,), from the start."""

    most: FloatArray
    capped: bool


def most_visits(
    problem: IncentiveProblem, pairs: Pairs, discount: float, max_visits: float
) -> Visits:
    """Bound how often a policy visits each state, as the discount weighs it."""
    states, actions = problem.followers.shape[1:]
    running = np.flatnonzero(pairs.running(discount))
    rewards = np.zeros((running.size, states, actions))
    rewards[np.arange(running.size), running] = 1.0
    values, _ = leader_control(problem, rewards, discount)
    most = np.zeros(states)
    most[running] = from_start(problem, values) * (1.0 + SLACK)
    if discount < 1.0:
        return Visits(most, False)
    return Visits(np.minimum(most, max_visits), bool((most > max_visits).any()))


def from_start(problem: IncentiveProblem, values: FloatArray) -> FloatArray:
    """Mean (m,) of values (m, S), which may be inf, over the first state."""
    initial = problem.followers.packed.initial[0]
    started = initial > 0
    return np.asarray(values[:, started] @ initial[started])


class Range(NamedTuple):
    """What payments and values can be, if the objective is to exceed a known one."""

    most: FloatArray  # (k,) largest payments
    total: float  # largest cost
    low: FloatArray  # (S,) least V
    high: FloatArray  # (S,) largest V


def payment_range(
    problem: IncentiveProblem, pairs: Pairs, value_bound: float, objective: float
) -> Range:
    """Bound the payments and values that an optimum can have."""
    payments, weight, prices = problem.payments, problem.cost_weight, prices_of(problem)
    used = pairs.used_payments()
    total = np.inf if problem.budget is None else problem.budget
    if weight > 0:
        total = min(total, max(value_bound - objective, 0.0) / weight)
    total *= 1.0 + SLACK
    priced = (prices > 0) & (total < np.inf)
    alone = np.where(priced, total / np.where(prices > 0, prices, 1.0), np.inf)
    most = np.where(used, np.minimum(payments.upper, alone), 0.0)
    if (most == np.inf).any():
        k = int(np.argmax(most))
        raise invalid(
            "payments",
            "an upper bound on each payment that costs the leader nothing or may be worth any sum",
            "none",
            f"payment {k}",
            "Give Payments an upper bound or, at leader discount 1, lower the leader's discount.",
        )
    # V* is convex in x: on the simplex prices . x <= total it is largest at a corner, with the
    # payments that cost nothing at their bounds. The box of all bounds may be smaller still.
    free = np.where(priced, 0.0, most)
    single = np.flatnonzero(priced & used)
    corners = free + np.zeros((single.size + 1, 1))
    corners[np.arange(single.size), single] = alone[single]
    points = np.vstack([payments.lower, most, corners])
    rewards = problem.followers.rewards + np.concatenate(
        [payments.side_payments(x) for x in points]
    )
    values, _ = leader_control(problem, rewards, problem.followers[0].discount)
    high = np.minimum(values[1], values[2:].max(axis=0))
    followers = problem.followers
    # A loop in which payments come up to its costs: followers may stay in it, and V jumps.
    jumps = followers.idle(net_rewards(followers.rewards, payments.side_payments(most))) & (
        ~followers.idle(problem.moving)
    )
    if not np.isfinite(high[pairs.reached]).all() or jumps.any():
        raise invalid(
            "payments",
            "a bounded best total reward at the largest payments worth their cost, because the "
            "follower's discount is 1",
            "a loop that could earn for ever, or be stayed in for nothing",
            None,
            "Give Payments a lower upper bound, or use a follower discount below 1.",
        )
    return Range(most, total, values[0], high)
