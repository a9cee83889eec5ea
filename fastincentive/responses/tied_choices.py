"""Ties of followers with too many tied responses to list: the leader improves them itself.

Where actions tie, any choice among them is a best response, so the leader, or its opponent, has a
decision process of its own to choose from. It is solved by policy iteration with the leader's
gradient, in the memory of one: choices are mixed with a share of all tied actions, so that states
which they do not visit say what they are worth as well, and the share falls from round to round.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.followers.policies import uniform_over
from fastincentive.kernels.advantages import mark_reachable
from fastincentive.kernels.packed import TIE
from fastincentive.kernels.regimes import LISTED
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.regimes import alike

__all__ = [
    "MOST_BYTES",
    "TiedChoices",
    "climbed",
    "list_bytes",
    "most_responses",
    "net_of",
    "tied_choices",
]

#: Shares of all tied actions that choices are mixed with, round by round.
SHARES = (0.1, 1e-2, 1e-3, 1e-3, 1e-3)
#: Responses that take more bytes than this are not listed.
MOST_BYTES = 2**22


class TiedChoices(NamedTuple):
    """What followers may do at given payments."""

    rewards: FloatArray  # (n, S, A)
    start_values: FloatArray  # (n,) the best
    unit: FloatArray  # (n,) see ``Followers.units``
    actions: NDArray[np.int64]  # (n, S) a best response
    tied: NDArray[np.bool_]  # (n, S, A) the optimal actions, in states that these lead to

    @property
    def only(self) -> bool:
        """Whether there is one response only."""
        return bool((self.tied.sum(axis=2) == 1).all())

    @property
    def listed(self) -> FloatArray:
        """(n,) responses of each follower that would be listed."""
        options = self.tied.sum(axis=2)
        every = np.exp(np.minimum(np.log(options).sum(axis=1), math.log(LISTED) + 1.0))
        single = 2.0 * (1.0 + (options - 1).sum(axis=1))
        return np.asarray(np.where(every <= LISTED + 0.5, every, single))


def most_responses(problem: IncentiveProblem) -> FloatArray:
    """(n,) responses of each follower that would be listed if all actions were tied."""
    n, states, actions = problem.followers.shape
    return np.full(n, max(float(LISTED), 2.0 * (1.0 + states * (actions - 1))))


def list_bytes(problem: IncentiveProblem, count: FloatArray) -> float:
    """Bytes that lists of so many responses (n,) take, with their label marginals, about."""
    n, states, actions = problem.followers.shape
    lists = n * max(float(count.max()), 32.0) * 16.0 * states
    shown = problem.passes.likely_horizon * problem.leader.n_labels
    return lists + float(count.sum()) * (states * (80.0 + 12.0 * actions) + 8.0 * shown)


def tied_choices(problem: IncentiveProblem, payments: FloatArray) -> TiedChoices:
    """Find the optimal actions at payments (k,), one of each kind that makes no difference."""
    followers = problem.followers
    rewards = problem.rewards(payments)
    best = followers.best_responses(rewards)
    equals = alike(followers, problem.payments.index, problem.leader.labels)
    actions = np.take_along_axis(equals, best.actions[:, :, None], axis=2)
    tied = problem.optimal_actions(payments, best).tied
    tied &= equals == np.arange(followers.n_actions)
    np.put_along_axis(tied, actions, True, axis=2)
    mark, queue = np.empty(followers.n_states, np.bool_), np.empty(followers.n_states, np.int64)
    for i in range(followers.n):
        mark_reachable(followers.packed, i, tied[i], mark, queue)
        tied[i, ~mark] = False
    np.put_along_axis(tied, actions, True, axis=2)
    start_values = followers.start_values(best.values)
    return TiedChoices(rewards, start_values, followers.units(best), actions[:, :, 0], tied)


def net_of(
    problem: IncentiveProblem, payments: FloatArray, policies: FloatArray, budget: bool
) -> float:
    """V - w C of policies, -inf if a ``budget`` that counts is exceeded."""
    # What is paid out may depend on the response as well.
    cost = problem.cost_pass(payments, policies, gradient=False).value
    if budget and not problem.affords(cost):
        return -np.inf
    return problem.net(problem.leader_pass(policies, gradient=False).value, cost)


def climbed(
    problem: IncentiveProblem, payments: FloatArray, choices: TiedChoices, sign: float
) -> FloatArray:
    """Return best responses (n, S, A) that are good (sign +1) or bad (-1) for the leader."""
    followers, tied = problem.followers, choices.tied
    every = uniform_over(tied)
    actions = choices.actions
    found = followers.deterministic_policies(actions)
    top = sign * net_of(problem, payments, found, sign > 0.0)
    mixed = every
    for share in SHARES:
        slopes = sign * _slopes(problem, payments, mixed)
        worth = np.where(tied, slopes, -np.inf)
        best = worth.max(axis=2, keepdims=True)
        held = np.take_along_axis(worth, actions[:, :, None], axis=2)
        same = held >= best - 1e-12 * np.abs(best).max()
        chosen = np.where(same[:, :, 0], actions, worth.argmax(axis=2))
        if mixed is not every and np.array_equal(chosen, actions):
            break
        actions = chosen
        policies = followers.deterministic_policies(actions)
        if not _answers(problem, choices, policies):
            break
        value = sign * net_of(problem, payments, policies, sign > 0.0)
        if value > top:
            found, top = policies, value
        mixed = (1.0 - share) * policies + share * every
    return found


def _slopes(problem: IncentiveProblem, payments: FloatArray, policies: FloatArray) -> FloatArray:
    """Return the derivatives (n, S, A) of V - w C in the policies."""
    slopes = problem.leader_pass(policies).gradient
    assert slopes is not None  # for the type checker
    spent = problem.cost_pass(payments, policies).policies
    return slopes if spent is None else slopes - problem.cost_weight * spent


def _answers(problem: IncentiveProblem, choices: TiedChoices, policies: FloatArray) -> bool:
    """Whether choices among tied actions earn the optimum: at discount 1 they may go round."""
    followers = problem.followers
    if not problem.undiscounted:
        return True
    if not followers.is_proper(policies):
        return False
    values = followers.evaluate(choices.rewards, policies, checked=True).values
    short = choices.start_values - followers.start_values(values)
    return bool((short <= 20.0 * TIE * choices.unit).all())
