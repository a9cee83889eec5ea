"""Where a run may start: best responses, or the policies the leader would choose itself."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive.followers.single import uniform_policies
from fastincentive.problem.memory import START_DISCOUNT
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.queries import AnyOf, Broadcast, Query, run_single

__all__ = ["best_response_policies", "leader_optimal_policies", "leader_optimal_steps"]

#: Rounds without a better value after which the ascent towards the leader's optimum ends.
PATIENCE_ROUNDS = 20


@checked
def best_response_policies(problem: ProblemPart, payments: ArrayLike) -> FloatArray:
    """Deterministic best responses (n, S, A) to payments (k,), the first action where tied.

    Raises
    ------
    InputError
        If the payments have the wrong shape or are outside their bounds.
    """
    result = problem.followers.best_responses(problem.rewards(problem.payments.check(payments)))
    return problem.followers.deterministic_policies(result.actions)


@checked
def leader_optimal_policies(problem: ProblemPart, rounds: int = 80) -> FloatArray:
    """Policies (n, S, A) that make the leader's value large, the followers' interests ignored.

    From the uniform policies, mixes in the greedy policies of the leader's gradient (a
    conditional-gradient ascent), then takes the greedy ones if they are no worse. A local
    optimum: the leader's value is not concave. Of one follower with many states they are the
    leader's optimum. A discount of at most 0.99 stands in for the leader's, so that followers do
    not wait for ever where the leader would not mind.
    """
    return run_single(leader_optimal_steps(problem, rounds), problem)


def leader_optimal_steps(
    problem: ProblemPart, rounds: int = 80
) -> Generator[Query, Any, FloatArray]:
    """As ``leader_optimal_policies``, for a shard that asks what it must know of all followers."""
    discount = min(problem.leader_discount, START_DISCOUNT)
    followers = problem.followers
    lone = problem.leader_side.lone
    if lone is not None:
        optimum = lone.optimum(discount)
        if followers.is_proper(optimum):
            return optimum
    uniform = uniform_policies(followers)
    # Without discount a follower must come out of every loop before its costs grow too large.
    least = 0.01 if problem.undiscounted else 0.0
    policies = uniform
    best, best_value = policies, -np.inf
    waited = 0
    last = np.zeros(followers.shape)
    repeated = 0
    for _ in range(rounds):
        leader = yield from problem.leader_pass_steps(policies, discount=discount)
        assert leader.gradient is not None  # for the type checker
        here = yield Broadcast(leader.value)
        waited += 1
        if here > best_value:
            # Less than a millionth more is as good as nothing to start from.
            waited = 0 if here > best_value + 1e-6 * abs(best_value) else waited
            best, best_value = policies, here
        slope = np.where(followers.available, leader.gradient, -np.inf)
        greedy = followers.deterministic_policies(np.argmax(slope, axis=2))
        if not (yield AnyOf(not np.array_equal(greedy, last))):
            # The mixture only moves on towards what is known already.
            repeated += 1
            if repeated >= 6 and not (yield AnyOf(not np.array_equal(best, greedy))):
                break
        else:
            repeated = 0
            last = greedy
            found = yield from problem.leader_pass_steps(greedy, gradient=False, discount=discount)
            value = yield Broadcast(found.value)
            if value > best_value and not (yield AnyOf(not followers.is_proper(greedy))):
                waited = 0
                best, best_value = greedy, value
        if waited >= PATIENCE_ROUNDS:
            break
        policies = (1.0 - least) * (0.7 * policies + 0.3 * greedy) + least * uniform
    return best
