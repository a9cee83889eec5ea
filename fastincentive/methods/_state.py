"""What iterations over payments and policies go on from, cut into shards and joined again."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import ImproperPolicyError
from fastincentive.followers.best_responses import ResponseMemory
from fastincentive.followers.followers import Followers, PolicyValues
from fastincentive.followers.parameterization import Parameterization
from fastincentive.followers.single import uniform_policies
from fastincentive.methods._cutting_planes import CuttingPlanes, no_planes
from fastincentive.methods._reference_policies import reward_units
from fastincentive.methods._step_control import StepController, first_controller
from fastincentive.methods.base import StepReport
from fastincentive.problem.bound_payments import BoundPayments
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.queries import AnyOf, Query

__all__ = [
    "SMALLEST_VISITS",
    "AscentState",
    "first_state",
    "join_reports",
    "join_states",
    "part_of_state",
    "policy_values_steps",
    "values_if_proper",
]

#: States with fewer visits count as not visited: they follow the follower alone.
SMALLEST_VISITS = 1e-6

#: A follower without discount that takes more steps than this as good as never ends.
MOST_VISITS = 1e8


class AscentState(NamedTuple):
    """Everything the next iteration depends on."""

    iteration: int
    payments: FloatArray  # (k,)
    theta: FloatArray  # (n, S, A)
    multipliers: FloatArray  # (n, J)
    planes: CuttingPlanes
    actions: NDArray[np.int64]  # (n, S) last best responses, the warm start of the next
    unit: FloatArray  # (n,) spread of each follower's action values: its unit of reward
    controller: StepController
    price: float = 0.0  # of the budget on what is paid out
    #: Of best responses, for many states; it changes answers by rounding alone, and is not saved.
    memory: ResponseMemory | None = None


def first_state(
    problem: ProblemPart,
    parameterization: Parameterization,
    payments: FloatArray,
    policies: FloatArray,
    planes: int = 1,
) -> AscentState:
    """Return the state at the first iterate, with room for so many cutting planes per follower."""
    followers = problem.followers
    theta = parameterization.parameters(policies, followers)
    best = followers.best_responses(problem.rewards(payments))
    # No start takes a penalty: its values would dwarf all that is to be found out.
    penalised = ((policies > 0.0) & ~followers.sensible(best)).any(axis=2, keepdims=True)
    if penalised.any():
        answer = followers.deterministic_policies(best.actions)
        policies = np.where(penalised, answer, policies)
        theta = parameterization.parameters(policies, followers)
    return AscentState(
        iteration=0,
        payments=payments.copy(),
        theta=theta,
        multipliers=np.zeros((followers.n, planes)),
        planes=no_planes(followers.n, planes, problem.payments.reach.shape[1]),
        actions=best.actions,
        unit=reward_units(followers, best),
        controller=first_controller(payments, policies),
        memory=followers.response_memory(),
    )


def policy_values_steps(
    problem: ProblemPart,
    parameterization: Parameterization,
    rewards: FloatArray,
    state: AscentState,
) -> Generator[Query, Any, tuple[AscentState, FloatArray, PolicyValues]]:
    """Return the state, or a proper one, with its policies and their values under the rewards."""
    followers = problem.followers
    policies = parameterization.policies(state.theta, followers)
    values, improper = values_if_proper(followers, rewards, policies)
    if problem.undiscounted and (yield AnyOf(improper)):
        # At discount 1 the start or a step ended in a loop that is never left, or next to
        # never: a little of every action leads out again.
        policies = 0.99 * policies + 0.01 * uniform_policies(followers)
        state = state._replace(theta=parameterization.parameters(policies, followers))
        values = followers.evaluate(rewards, policies, checked=True)
    assert values is not None  # for the type checker
    return state, policies, values


def values_if_proper(
    followers: Followers, rewards: FloatArray, policies: FloatArray
) -> tuple[PolicyValues | None, bool]:
    """Values of policies; or None, and that some follower's is improper or as good as that."""
    try:
        values = followers.evaluate(rewards, policies, checked=True)
    except ImproperPolicyError:
        return None, True
    patient = followers.packed.discount == 1.0
    if patient.any() and values.visits[patient].sum(axis=1).max() > MOST_VISITS:
        return None, True
    return values, False


def part_of_state(
    state: AscentState, first: int, last: int, variables: NDArray[np.int64], width: int
) -> AscentState:
    """Return the state of followers first..last-1, of which each has at most so many payments."""
    own = slice(first, last)
    planes, controller = state.planes, state.controller
    return AscentState(
        iteration=state.iteration,
        payments=state.payments[variables],
        theta=state.theta[own],
        multipliers=state.multipliers[own],
        planes=CuttingPlanes(
            planes.constant[own],
            np.ascontiguousarray(planes.slope[own, :, :width]),
            planes.active[own],
            planes.used[own],
        ),
        actions=state.actions[own],
        unit=state.unit[own],
        controller=controller._replace(
            anchor=controller.anchor[variables],
            policy_anchor=controller.policy_anchor[own],
            last=controller.last[variables],
            last_policies=controller.last_policies[own],
        ),
        price=state.price,
    )


def join_states(
    parts: Sequence[AscentState], variables: Sequence[NDArray[np.int64]], bound: BoundPayments
) -> AscentState:
    """Return the state of all followers."""
    if len(parts) == 1:
        return parts[0]

    def joined(arrays: list[Any]) -> Any:
        return np.concatenate(arrays)

    def wide(slope: FloatArray) -> FloatArray:
        return np.pad(slope, ((0, 0), (0, 0), (0, bound.reach.shape[1] - slope.shape[2])))

    def payments(arrays: list[FloatArray]) -> FloatArray:
        return _scattered(arrays, variables, bound.size)

    planes = [part.planes for part in parts]
    controllers = [part.controller for part in parts]
    return AscentState(
        iteration=parts[0].iteration,
        payments=payments([part.payments for part in parts]),
        theta=joined([part.theta for part in parts]),
        multipliers=joined([part.multipliers for part in parts]),
        planes=CuttingPlanes(
            joined([part.constant for part in planes]),
            joined([wide(part.slope) for part in planes]),
            joined([part.active for part in planes]),
            joined([part.used for part in planes]),
        ),
        actions=joined([part.actions for part in parts]),
        unit=joined([part.unit for part in parts]),
        controller=controllers[0]._replace(
            anchor=payments([part.anchor for part in controllers]),
            policy_anchor=joined([part.policy_anchor for part in controllers]),
            last=payments([part.last for part in controllers]),
            last_policies=joined([part.last_policies for part in controllers]),
        ),
        price=parts[0].price,
    )


def join_reports(
    parts: Sequence[StepReport],
    variables: Sequence[NDArray[np.int64]],
    bound: BoundPayments,
    counts: NDArray[np.int64],
) -> StepReport:
    """Return the report on all followers; policies are left out unless there is one shard."""
    if len(parts) == 1:
        return parts[0]
    values, best, gaps = (
        np.concatenate([getattr(part.evaluation, name) for part in parts])
        for name in ("follower_values", "best_values", "follower_gaps")
    )
    return parts[0]._replace(
        theta=None,
        policies=None,
        payments=_scattered([part.payments for part in parts], variables, bound.size),
        evaluation=replace(
            parts[0].evaluation,
            follower_values=values,
            best_values=best,
            follower_gaps=gaps,
            feasibility=-float(counts @ gaps),
        ),
        multipliers=np.concatenate([part.multipliers for part in parts]),
        finite=all(part.finite for part in parts),
    )


def _scattered(
    arrays: Sequence[FloatArray], variables: Sequence[NDArray[np.int64]], size: int
) -> FloatArray:
    whole = np.zeros(size)
    for array, where in zip(arrays, variables, strict=True):
        whole[where] = array
    return whole
