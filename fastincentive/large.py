"""Followers with many states: which route evaluates a policy, and what the last answer tells.

Best responses always go by sweeps. Policies are evaluated by sweeps where the discount makes them
converge soon, else by SuperLU; the rule counts operations, so that answers do not depend on
timing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive.kernels import bellman, chain, sweeps
from fastincentive.kernels.jit import Packed
from fastincentive.kernels.order import Ordered
from fastincentive.kernels.recall import (
    DIRECTIONS,
    ENTRIES,
    Recall,
    recalled_responses,
    restore,
)
from fastincentive.mdp import FloatArray, TransitionModel

__all__ = [
    "ROUTES",
    "ResponseMemory",
    "Sweepable",
    "evaluate_large",
    "recall_bytes",
    "respond_large",
    "sweepable",
]

#: How a policy may be evaluated: by a measured rule, by sweeps, or by SuperLU factors.
ROUTES = ("auto", "sweeps", "direct")
#: Rows up to this long have kernels of their own, with unrolled loops.
LONGEST_UNROLLED = 8
#: SuperLU's time in the unit of a row entry swept: this, and so much for each (states)^1.5.
DIRECT_START, DIRECT_COST = 1.1e6, 15.0
#: Sweeps that an evaluation is expected to take, times the square root of 1 - gamma.
SWEEPS = 12.0
#: Best responses change from sweeps to policy iteration after the cost of so many factorisations.
PATIENCE = 3.0
#: Extrapolations after which sweeps give up: rounding may keep them from a goal near its level.
MOST_CYCLES = 20_000
#: Share of the factors' cost for which sweeps are tried first.
TRIAL = 0.03
#: Not more than about this many entries in SuperLU's factors (12 bytes each).
MOST_FILL = 4e8


def constant_lengths(actions: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tuples whose lengths the kernels take for constants; empty where rows are long."""
    if max(actions, width) > LONGEST_UNROLLED:
        return (), ()
    return (0,) * actions, (0,) * width


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
    breadth: tuple[int, ...]  # of each model, the widest level of its order
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
    breadth = tuple(1 if width == 1 else model.breadth for model in models)
    return Sweepable(
        ordered,
        breadth,
        PATIENCE * np.array([direct_cost(states, breadth[m]) for m in packed.model]),
        packed.successor.size == count * states * actions * width,
        constant_lengths(actions, width),
    )


class ResponseMemory:
    """What earlier best responses tell about the next: values, policies, and how values respond.

    Pass the same object to ``Followers.best_responses`` each time. While policies stay, values are
    linear in the rewards: once rewards have moved along a direction, the next move along it is
    predicted, and takes a sweep or two to certify. Moves of up to 64 entries per follower are told
    apart, in up to 8 directions. For more than 400 states and discounts below 1; else nothing is
    kept. ``Followers.response_memory`` makes one unless it would be too large.
    """

    def __init__(self) -> None:
        self._packed: Packed | None = None
        self._recall: Recall | None = None

    def recall(self, packed: Packed, ordered: Ordered) -> Recall:
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
            other._recall = Recall(*(array.copy() for array in self._recall))
        return other


def recall_bytes(n: int, known: Sweepable) -> float:
    """Bytes that a memory of n followers takes."""
    _, states, actions, width = known.ordered.successor.shape
    return 8.0 * n * (states * (2 * actions + 1.5 * width + 3 + DIRECTIONS) + DIRECTIONS * ENTRIES)


def empty_recall(n: int, ordered: Ordered) -> Recall:
    """Allocate the arrays of ``Recall``."""
    count, states, actions, width = ordered.successor.shape
    place = np.empty((count, states), np.int64)
    np.put_along_axis(place, ordered.order, np.arange(states)[None], axis=1)
    return Recall(
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


def superlu(start: NDArray[np.int32], column: NDArray[np.int32], weight: FloatArray) -> Any:
    """Factors of the transpose of an M-matrix given by rows: no pivoting, symmetric ordering."""
    from scipy.sparse import csc_array
    from scipy.sparse.linalg import splu

    size = start.size - 1
    # Rows of a matrix are the columns of its transpose.
    transposed = csc_array((weight, column, start), shape=(size, size))
    return splu(
        transposed,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


def direct_cost(states: int, breadth: int) -> float:
    """Cost of SuperLU's factors in row entries swept, inf where they would not fit.

    ``breadth`` is the widest level of the breadth-first order, the size of a separator.
    """
    size = max(states, breadth**2 / 6.0)
    if 10.0 * size * math.log2(size + 2.0) > MOST_FILL:
        return math.inf
    return DIRECT_START + DIRECT_COST * size**1.5


def respond_large(
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
    kernel = sweeps.large_responses if recall is None else recalled_responses
    if recall is None:
        actions[:] = -1 if warm is None else warm
    (kernel.serial if n == 1 else kernel)(
        packed,
        known.ordered,
        *(() if recall is None else (recall,)),
        rewards,
        tolerance,
        known.budget,
        known.uniform,
        actions,
        values,
        q_values,
        residual,
        goal,
        iterations,
        *known.lengths,
    )
    for i in np.flatnonzero(residual > goal).tolist():
        if known.budget[i] < math.inf:
            residual[i], extra = iterate_policies(
                packed, known, i, rewards[i], actions[i], values[i], q_values[i]
            )
            iterations[i] += extra
            if recall is not None:
                restore(packed, known.ordered, recall, i, actions[i], values[i])
    return actions, values, q_values, residual, iterations


def iterate_policies(
    packed: Packed,
    known: Sweepable,
    i: int,
    rewards: FloatArray,
    actions: NDArray[np.int64],
    values: FloatArray,
    q_values: FloatArray,
) -> tuple[float, int]:
    """Policy iteration with SuperLU from ``actions``; all in place, returns residual and rounds."""
    gamma = float(packed.discount[i])
    each = np.arange(actions.size)
    count = 0
    while True:
        count += 1
        policy = np.eye(rewards.shape[1])[actions]
        values[:], _ = evaluate_one(
            packed, known.ordered, known.breadth, i, rewards, policy, "direct", 0.0
        )
        bellman.action_values(packed, i, gamma, rewards, values, q_values)
        best = q_values.argmax(axis=1)
        top = q_values[each, best]
        better = top > q_values[each, actions] + 1e-13 * max(float(np.abs(values).max()), 1e-300)
        if not better.any():
            break
        actions[better] = best[better]
    return float(np.abs(top - values).max()), count


def evaluate_large(
    packed: Packed,
    ordered: Ordered,
    breadth: Sequence[int],
    rewards: FloatArray,
    policies: FloatArray,
    route: str = "auto",
    tolerance: float = 0.0,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """V (n,S), Q (n,S,A) and occupancy (n,S) of policies (n,S,A), discounts below 1.

    ``breadth`` (one for each model) is the widest level of its order. ``tolerance`` bounds the
    residuals that sweeps leave, of values and of the occupancy; 0 means close to rounding.
    """
    n, states, _ = rewards.shape
    values = np.empty((n, states))
    q_values = np.empty(rewards.shape)
    visits = np.empty((n, states))

    def evaluate(i: int) -> None:
        values[i], visits[i] = evaluate_one(
            packed, ordered, breadth, i, rewards[i], policies[i], route, tolerance
        )
        gamma = float(packed.discount[i])
        bellman.action_values(packed, i, gamma, rewards[i], values[i], q_values[i])

    if n == 1:
        evaluate(0)
    else:
        from concurrent.futures import ThreadPoolExecutor

        from numba import get_num_threads

        # Kernels and SuperLU release the lock; each follower is computed by one thread alone.
        with ThreadPoolExecutor(min(n, get_num_threads())) as pool:
            list(pool.map(evaluate, range(n)))
    return values, q_values, visits


def evaluate_one(
    packed: Packed,
    ordered: Ordered,
    breadth: Sequence[int],
    i: int,
    rewards: FloatArray,
    policy: FloatArray,
    route: str,
    tolerance: float,
) -> tuple[FloatArray, FloatArray]:
    """V (S,) and occupancy (S,) of follower i; the policy's rows are merged once for both."""
    states, actions = rewards.shape
    m = int(packed.model[i])
    gamma = float(packed.discount[i])
    order = ordered.order[m]
    start = np.empty(states + 1, np.int64)
    size = chain.model_size(packed, i, states, actions)
    column = np.empty(size, np.int64)
    weight = np.empty(size)
    end = chain.merge_rows(packed, i, gamma, policy, False, start, column, weight)
    reward = np.empty(states)
    bellman.mean_reward(policy, rewards, reward)
    widest = int(np.diff(start).max())
    places = np.empty((states, widest), np.uint32)
    weights = np.empty((states, widest))
    earned = np.empty(states)
    scale = np.empty(states)
    sweeps.policy_rows(start, column, weight, order, reward, places, weights, earned, scale)
    width = constant_lengths(1, widest)[1]
    values = np.zeros(states)
    counted = np.zeros(states)
    expected = SWEEPS / math.sqrt(1.0 - gamma)
    limit = direct_cost(states, breadth[m])
    direct = route == "direct" or (
        route == "auto" and 2.0 * expected * states * (widest + 3) > limit
    )
    may_change = route == "auto" and limit < math.inf
    cycles = MOST_CYCLES
    if may_change:
        # Where three times the sweeps that were expected do not do, factors are the better bet;
        # where factors are expected to be, a small share of their cost goes to trying sweeps.
        cycles = 1 + int(0.4 * expected)
        if direct:
            cycles = int(TRIAL * limit / (8 * states * (widest + 3)))
            direct = cycles == 0
    if not direct:
        scratch = np.empty((8, states))
        goal, share = tolerance, tolerance
        if tolerance <= 0.0:
            goal = max(1e-14 * (1.0 - gamma), 1e-15) * float(np.abs(earned).max()) / (1.0 - gamma)
            share = 1e-14
        _, change = sweeps.settle_values(
            places, weights, earned, values, scratch[:3], scratch[3], goal, cycles, True, width
        )
        direct = may_change and change > goal
    if not direct:
        for _ in range(2):  # the second time from the true residual, for rounding adds up in it
            pending = packed.initial[i][order]
            sweeps.leave_over(places, weights, counted, pending)
            _, left = sweeps.push_occupancy(
                places, weights, pending, counted, scratch[:4], scratch[4:], share, cycles, width
            )
        direct = may_change and left > share
    if direct:
        factors = superlu(*sweeps.identity_minus(start, column[:end], weight[:end]))
        values[:] = factors.solve(reward, trans="T")[order]
        counted[:] = factors.solve(packed.initial[i])[order] / scale
        # One sweep each makes up for what rounding left in the factors.
        pending = packed.initial[i][order]
        sweeps.leave_over(places, weights, counted, pending)
        sweeps.sweep(places, weights, earned, values, width)
        sweeps.push(places, weights, pending, counted, width)
    ordered_values = np.empty(states)
    ordered_values[order] = values
    visits = np.empty(states)
    visits[order] = scale * counted
    return ordered_values, visits
