"""Best responses of followers with many states, and a memory that predicts the next ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.followers.evaluation import (
    constant_lengths,
    direct_cost,
    ended_where,
    evaluate_follower,
)
from fastincentive.followers.policies import deterministic_policies, uniform_over
from fastincentive.followers.transition import TransitionModel
from fastincentive.kernels import bellman, sweeps
from fastincentive.kernels.end_components import STAY, mark_idle, stay_together
from fastincentive.kernels.jacobi import jacobi_response
from fastincentive.kernels.packed import Packed
from fastincentive.kernels.response_memory import (
    DIRECTIONS,
    ENTRIES,
    Memory,
    predicted_responses,
    store_answer,
)
from fastincentive.kernels.sweep_order import Ordered

__all__ = [
    "ResponseMemory",
    "Sweepable",
    "mixes_soon",
    "recall_bytes",
    "respond_by_policies",
    "respond_large",
    "sweepable",
]

#: Best responses change from sweeps to policy iteration after the cost of so many factorisations.
PATIENCE_FACTORISATIONS = 10.0
#: Graphs of so few levels mix soon, if anything does; below this discount nothing is gained by it.
FEW_LEVELS, PATIENT_DISCOUNT = 12, 0.98
#: Rounds of policy iteration after which gains near rounding are left, and at most.
SURE_ROUNDS, MOST_ROUNDS = 50, 1000


def stack_ordered(models: Sequence[TransitionModel]) -> Ordered | None:
    """All models in sweep order, or None where the padding of their rows would waste too much."""
    if len(models) == 1:
        return models[0].ordered
    found = [model.ordered for model in models]
    widths = {0 if each is None else each.successor.shape[3] for each in found}
    if len(widths) > 1 or 0 in widths:
        return None
    each_model = [each for each in found if each is not None]
    return Ordered(
        np.concatenate([each.order for each in each_model]),
        np.concatenate([each.successor for each in each_model]),
        np.concatenate([each.probability for each in each_model]),
    )


class Sweepable(NamedTuple):
    """What sweeps need to know of the followers' models."""

    ordered: Ordered
    budget: FloatArray  # (n,) row entries to sweep before factors are tried, inf: never
    uniform: bool  # whether all rows of the models are as long as the ordered ones
    lengths: tuple[tuple[int, ...], tuple[int, ...]]  # see ``constant_lengths``


def sweepable(packed: Packed, models: Sequence[TransitionModel]) -> Sweepable | None:
    """Bring the models into sweep order; None where rows are too ragged for it."""
    ordered = stack_ordered(models)
    if ordered is None:
        return None
    count, states, actions, width = ordered.successor.shape
    # Under a policy without chance every state has one successor: separators have one state.
    breadth = [1 if width == 1 else model.breadth for model in models]
    factors = np.array([direct_cost(states, each) for each in breadth])
    return Sweepable(
        ordered,
        PATIENCE_FACTORISATIONS * factors[packed.model],
        packed.successor.size == count * states * actions * width,
        constant_lengths(actions, width),
    )


def mixes_soon(packed: Packed, models: Sequence[TransitionModel]) -> bool:
    """Whether to begin with Jacobi sweeps and bounds: patient followers on graphs of few levels."""
    levels = max(model.available.shape[0] / model.breadth for model in models)
    return bool(packed.discount.min() >= PATIENT_DISCOUNT and levels <= FEW_LEVELS)


class ResponseMemory:
    """Memory of earlier best responses, which predicts the next: values, policies, derivatives.

    Pass the same object to ``Followers.best_responses`` each time. While policies stay, values are
    linear in the rewards: once rewards have moved along a direction, the next move along it is
    predicted, and takes a sweep or two to certify. Moves of up to 64 entries per follower are told
    apart, in up to 8 directions. For more than 400 states and discounts below 1; else nothing is
    kept. ``Followers.response_memory`` makes one unless it would be too large.
    """

    def __init__(self) -> None:
        self._packed: Packed | None = None
        self._recall: Memory | None = None

    def recall(self, packed: Packed, ordered: Ordered) -> Memory:
        """Return the arrays for these followers, empty ones for others than the last time."""
        if self._recall is None or self._packed is not packed:
            self._packed = packed
            self._recall = empty_recall(packed.model.size, ordered)
        return self._recall

    def __deepcopy__(self, memo: object) -> ResponseMemory:
        """Copy what is remembered; the followers stay the same."""
        other = ResponseMemory()
        other._packed = self._packed
        if self._recall is not None:
            other._recall = Memory(*(array.copy() for array in self._recall))
        return other


def recall_bytes(n: int, known: Sweepable) -> float:
    """Bytes that a memory of n followers takes."""
    _, states, actions, width = known.ordered.successor.shape
    return 8.0 * n * (states * (2 * actions + 1.5 * width + 3 + DIRECTIONS) + DIRECTIONS * ENTRIES)


def empty_recall(n: int, ordered: Ordered) -> Memory:
    """Allocate the arrays of ``Memory``."""
    count, states, actions, width = ordered.successor.shape
    place = np.empty((count, states), np.int64)
    np.put_along_axis(place, ordered.order, np.arange(states)[None], axis=1)
    return Memory(
        known=np.zeros(n, bool),
        rewards=np.empty((n, states, actions)),
        largest=np.empty(n),
        reward=np.empty((n, states, actions)),
        held=np.empty((n, states), np.int64),
        column=np.empty((n, states, width), np.uint32),
        weight=np.empty((n, states, width)),
        earned=np.empty((n, states)),
        values=np.empty((n, states)),
        place=place,
        entry=np.empty((n, ENTRIES), np.int64),
        entries=np.zeros(n, np.int64),
        rank=np.zeros(n, np.int64),
        direction=np.zeros((n, DIRECTIONS, ENTRIES)),
        response=np.empty((n, DIRECTIONS, states)),
    )


def respond_large(
    models: Sequence[TransitionModel],
    packed: Packed,
    known: Sweepable,
    rewards: FloatArray,
    warm: NDArray[np.int64] | None,
    memory: ResponseMemory | None,
    tolerance: float,
) -> tuple[NDArray[np.int64], FloatArray, FloatArray, FloatArray, NDArray[np.int64]]:
    """Actions (n,S), V* (n,S), Q* (n,S,A), Bellman residuals (n,) and iterations (n,).

    Sweeps, and for a follower for which they take longer than a few factorisations would, policy
    iteration with these from where the sweeps had come. Discounts below 1.
    """
    n, states, _ = rewards.shape
    actions = np.empty((n, states), np.int64)
    values = np.empty((n, states))
    q_values = np.empty(rewards.shape)
    residual, goal = np.empty(n), np.empty(n)
    iterations = np.empty(n, np.int64)
    recall = None if memory is None else memory.recall(packed, known.ordered)
    kernel = sweeps.large_responses if recall is None else predicted_responses
    if recall is None:
        actions[:] = -1 if warm is None else warm
    (kernel.serial if n == 1 else kernel)(
        packed,
        known.ordered,
        *(() if recall is None else (recall,)),
        rewards,
        (tolerance, known.budget, known.uniform),
        actions,
        values,
        q_values,
        residual,
        goal,
        iterations,
        *known.lengths,
    )
    nowhere = np.full(states, -1)  # below discount 1 nobody stays for ever
    for i in np.flatnonzero(residual > goal).tolist():
        if known.budget[i] < math.inf:
            model = models[packed.model[i]]
            residual[i], extra = iterate_policies(
                model, packed, i, rewards[i], nowhere, actions[i], values[i], q_values[i]
            )
            iterations[i] += extra
            if recall is not None:
                store_answer(packed, known.ordered, recall, i, actions[i], values[i])
    return actions, values, q_values, residual, iterations


def respond_by_policies(
    models: Sequence[TransitionModel],
    packed: Packed,
    rewards: FloatArray,
    warm: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64], FloatArray, FloatArray, FloatArray, NDArray[np.int64]]:
    """As ``respond_large`` for any discounts and rows, by policy iteration.

    It starts from where Jacobi sweeps come below discount 1, which on graphs that mix soon is the
    answer; at discount 1 from ``warm`` actions or a few sweeps of value iteration. Iterations are
    negative where at discount 1 the total reward is unbounded.
    """
    n, states, n_actions = rewards.shape
    actions = np.full((n, states), -1)
    values = np.empty((n, states))
    q_values = np.empty(rewards.shape)
    residual = np.empty(n)
    iterations = np.zeros(n, np.int64)
    ordered = stack_ordered(models) if warm is None else None
    for i in range(n):
        answer = (actions[i], values[i], q_values[i])
        if warm is not None:
            actions[i] = warm[i]
        elif packed.discount[i] < 1.0:
            residual[i], passes, iterations[i] = jacobi_response(packed, i, rewards, *answer)
            if residual[i] <= passes:
                continue
        elif ordered is not None:
            bellman.value_iteration_start(packed, ordered, i, rewards, values[i], actions)
        idle = np.full(states, -1)
        if packed.discount[i] == 1.0:
            mark_idle(packed, i, rewards[i], idle)
        task = (models[packed.model[i]], packed, i, rewards[i], idle)
        residual[i], rounds = iterate_policies(*task, *answer)
        if rounds < 0 and actions[i].max() >= 0:
            # The start was a policy that is never absorbed: a little of every action leads out.
            actions[i] = -1
            residual[i], rounds = iterate_policies(*task, *answer)
        iterations[i] = rounds if rounds < 0 else iterations[i] + rounds
        bellman.approach_absorption(packed, i, actions[i], n_actions)
        if packed.discount[i] == 1.0:
            stay_together(packed, i, idle, actions[i])
        if warm is None and packed.discount[i] < 1.0:
            bellman.prefer_first(actions[i], q_values[i])
    return actions, values, q_values, residual, iterations


def iterate_policies(
    model: TransitionModel,
    packed: Packed,
    i: int,
    rewards: FloatArray,
    idle: NDArray[np.int64],
    actions: NDArray[np.int64],
    values: FloatArray,
    q_values: FloatArray,
) -> tuple[float, int]:
    """Policy iteration from ``actions`` (-1: uniform); in place, returns residual and rounds.

    An action changes only for a strict gain, so that policies stay proper at discount 1; ``idle``
    (S,) see ``mark_idle``. The number of rounds is negative if one is not.
    """
    states, n_actions = rewards.shape
    uniform = uniform_over(model.available)
    visits = np.empty(states)
    count = 0
    while True:
        count += 1
        chosen = deterministic_policies(np.maximum(actions, 0), n_actions)
        policy = np.where(actions[:, None] < 0, uniform, chosen)
        ended, stays = packed, actions == STAY
        if stays.any():
            ended = ended_where(packed, i, stays)
            policy[stays] = 0.0
        out = (values, q_values, visits)
        if evaluate_follower(model, ended, i, rewards, policy, out, "auto", 0.0) >= 0:
            return math.inf, -1
        if ended is not packed:
            bellman.action_values(packed, i, packed.discount[i], rewards, values, q_values)
        # Values from sweeps are not exact to the last digit: ties may go round.
        share = 1e-13 if count < SURE_ROUNDS else 1e-11
        changed, worst, _ = bellman.improve_actions(
            packed, i, rewards, share, idle, actions, values, q_values
        )
        if not changed or count > MOST_ROUNDS:
            return float(worst), count
