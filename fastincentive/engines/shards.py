"""Shards: some of a problem's followers with all that concerns them alone."""

from __future__ import annotations

from copy import copy

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.followers.followers import Followers
from fastincentive.leader.base import BoundReward
from fastincentive.problem.costs import Cost, ExpectedSpend, LinearCost, QuadraticCost
from fastincentive.problem.passes import ForwardPass
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["shard_bounds", "shard_of"]


class _SeenLabels(BoundReward):
    """What a shard knows of the leader's reward: which labels its followers show.

    Expectations are asked for, see ``queries``.
    """

    def __init__(self, labels: NDArray[np.int64], n_labels: int) -> None:
        self.labels = labels
        self.n_labels = n_labels

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        raise NotImplementedError

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        raise NotImplementedError


def shard_bounds(problem: IncentiveProblem, count: int) -> NDArray[np.int64]:
    """Where shards of consecutive followers begin and end (m+1,), m <= count, about equally large.

    A problem small enough for the product space is one shard.
    """
    most = 1 if problem.small else min(count, problem.n)
    return np.linspace(0, problem.n, most + 1, dtype=np.int64)


def shard_of(problem: IncentiveProblem, first: int, last: int) -> IncentiveProblem:
    """Return followers first..last-1 of a problem as a problem of their own.

    What is known of all followers stays as it is: bounds on the leader's reward, horizons and
    tolerances. The leader's reward itself stays behind, and so does a cost that only knows all
    payments together: steps ask for them. All followers are the problem itself.
    """
    if last - first == problem.n:
        return problem
    followers = problem.followers
    shard = copy(problem)
    shard.grid = None
    shard.followers = Followers(
        [followers[i] for i in range(first, last)], followers.counts[first:last]
    )
    shard.leader = _SeenLabels(problem.leader.labels[first:last], problem.leader.n_labels)
    shard.payments, shard.variables = problem.payments.part(first, last)
    passes = problem.passes
    shard.passes = ForwardPass(
        shard.followers,
        shard.leader,
        problem.max_horizon,
        passes.everybody,
        passes.moves_when_absorbed,
    )
    shard.cost_is_asked = shard.payments.shared or type(problem.cost) not in (
        LinearCost,
        QuadraticCost,
    )
    shard.cost = _cost_of(problem.cost, shard.variables)
    return shard


def _cost_of(cost: Cost | ExpectedSpend, variables: NDArray[np.int64]) -> Cost | ExpectedSpend:
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
