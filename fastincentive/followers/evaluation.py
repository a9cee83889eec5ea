"""One follower's policy: values and occupancy of many states, by sweeps or by factors.

Sweeps are quick where the discount or the flow of the policy makes them converge soon, sparse LU
factors elsewhere. The rule between the two counts operations, so that answers do not depend on
timing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import invalid
from fastincentive.followers.transition import TransitionModel
from fastincentive.kernels import (
    bellman,
    end_components,
    multifrontal,
    occupancy,
    policy_chain,
    sweeps,
    symbolic_factorization,
)
from fastincentive.kernels.packed import DENSE_STATES, Packed

__all__ = [
    "ROUTES",
    "constant_lengths",
    "direct_cost",
    "ended_where",
    "evaluate_follower",
    "evaluate_packed",
    "is_absorbed",
    "likely_fill",
]

#: How a policy may be evaluated: by a measured rule, by sweeps, or by factors.
ROUTES = ("auto", "sweeps", "direct")
#: Rows up to this long have kernels of their own, with unrolled loops.
LONGEST_UNROLLED = 8
#: Row entries swept in the time of an operation of the elimination.
ENTRIES_PER_OPERATION = 1.8
#: Before the elimination is laid out, its cost is guessed as this, in entries, and so much for each
#: (states)^1.5.
DIRECT_START, DIRECT_COST = 1e5, 8.0
#: Sweeps that an evaluation is expected to take, times the square root of 1 - gamma.
SWEEPS = 15.0
#: The same for a graph of few levels, which mixes soon: so many, and so many for each level.
MIXING, PER_LEVEL = 30.0, 6.0
#: Entries of rows too long to be unrolled take so many times as long.
LONG_ROWS = 2.5
#: Sweeps give up after so many times the cost that was expected of them.
PATIENCE_EXPECTED_COSTS = 2.0
#: The occupancy is swept at most so many times from its true residual.
MOST_ROUNDS = 8
#: Extrapolations after which sweeps give up: rounding may keep them from a goal near its level.
MOST_CYCLES = 20_000
#: Not more than about this many entries in the factors.
MOST_FILL = 1e8


def constant_lengths(actions: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tuples whose lengths the kernels take for constants; empty where rows are long."""
    if max(actions, width) > LONGEST_UNROLLED:
        return (), ()
    return (0,) * actions, (0,) * width


def likely_fill(states: int, breadth: int) -> float:
    """Guess the entries of the factors; for the breadth see ``direct_cost``."""
    size = max(states, breadth**2 / 6.0)
    return 10.0 * size * math.log2(size + 2.0)


def direct_cost(states: int, breadth: int) -> float:
    """Guess the cost of factors in row entries swept; inf where they would not fit.

    ``breadth`` is the widest level of the breadth-first order, the size of a separator.
    """
    if likely_fill(states, breadth) > MOST_FILL:
        return math.inf
    size = max(states, breadth**2 / 6.0)
    return DIRECT_START + DIRECT_COST * size**1.5


def sweeps_cost(model: TransitionModel, gamma: float) -> float:
    """Row entries that sweeps for values and occupancy are expected to go over."""
    order, breadth = model.sweep_order
    slow = SWEEPS / math.sqrt(max(1.0 - gamma, 1e-12))
    expected = min(slow, MIXING + PER_LEVEL * order.size / breadth)
    entries = model.pairs * (1.0 if model.pairs <= LONGEST_UNROLLED * order.size else LONG_ROWS)
    return 2.0 * expected * (entries + 3.0 * order.size)


def evaluate_packed(
    models: Sequence[TransitionModel],
    packed: Packed,
    rewards: FloatArray,
    policies: FloatArray,
    route: str = "auto",
    tolerance: float = 0.0,
) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.int64]]:
    """V (n,S), Q (n,S,A) and occupancy (n,S) of policies (n,S,A), by the way that suits the size.

    Of more than ``DENSE_STATES`` states ``tolerance`` bounds the residuals that sweeps leave, of
    values and of the occupancy; 0 means close to rounding. At discount 1 the last array (n,) holds
    a state from which follower i is never absorbed and does not rest for nothing either, -1 where
    all is well.
    """
    n, states, _ = rewards.shape
    values = np.empty((n, states))
    q_values = np.empty(rewards.shape)
    visits = np.empty((n, states))
    singular = np.empty(n, np.int64)
    if states <= DENSE_STATES:
        bellman.evaluate_policies(packed, rewards, policies, values, q_values, visits, singular)
        return values, q_values, visits, singular

    def evaluate(i: int) -> None:
        singular[i] = evaluate_follower(
            models[packed.model[i]],
            packed,
            i,
            rewards[i],
            policies[i],
            (values[i], q_values[i], visits[i]),
            route,
            tolerance,
        )

    if n == 1:
        evaluate(0)
    else:
        from concurrent.futures import ThreadPoolExecutor

        from numba import get_num_threads

        # Kernels release the lock; each follower is computed by one thread alone.
        with ThreadPoolExecutor(min(n, get_num_threads())) as pool:
            list(pool.map(evaluate, range(n)))
    return values, q_values, visits, singular


def evaluate_follower(
    model: TransitionModel,
    packed: Packed,
    i: int,
    rewards: FloatArray,
    policy: FloatArray,
    out: tuple[FloatArray, FloatArray, FloatArray],
    route: str,
    tolerance: float,
) -> int:
    """Write V (S,), Q (S,A) and occupancy (S,) of follower i; returns as ``evaluate_packed``."""
    gamma = float(packed.discount[i])
    task = _Task(model, packed, i, rewards, policy, out, tolerance)
    rows = None
    if gamma == 1.0:
        rows = _merged_rows(packed, i, policy)
        never = np.empty(policy.shape[0], np.bool_)
        if policy_chain.mark_never_absorbed(*rows, packed.absorbing[packed.model[i]], never):
            resting = np.empty(policy.shape[0], np.bool_)
            if not end_components.mark_resting(packed, i, policy, rewards, resting):
                return int(np.argmax(never))
            ended = ended_where(packed, i, resting)
            state = evaluate_follower(model, ended, i, rewards, policy, out, route, tolerance)
            bellman.action_values(packed, i, gamma, rewards, out[0], out[1])
            return state
    layout = model.fronts() if route == "direct" else None
    if route != "direct":
        budget = math.inf
        if route == "auto":
            budget = sweeps_cost(model, gamma)
            layout = _affordable(model, budget)
            budget *= PATIENCE_EXPECTED_COSTS
        while layout is None:
            rows = _merged_rows(packed, i, policy) if rows is None else rows
            if _by_sweeps(task, rows, budget):
                return -1
            # Factors that cost no more than what was tried in vain, or more of the same.
            layout = _affordable(model, 1.5 * budget)
            budget *= 4.0
    if layout is None:
        raise invalid(
            "route",
            '"auto" or "sweeps", because factors would take too much memory',
            repr(route),
        )
    return int(multifrontal.evaluate_fronts(layout, packed, i, rewards, policy, *out))


def is_absorbed(packed: Packed, i: int, policy: FloatArray) -> bool:
    """Whether follower i is absorbed under its policy (S, A), from every state."""
    ended = packed._replace(discount=np.ones(packed.discount.size))
    never = np.empty(policy.shape[0], np.bool_)
    absorbing = packed.absorbing[packed.model[i]]
    return not policy_chain.mark_never_absorbed(*_merged_rows(ended, i, policy), absorbing, never)


def ended_where(packed: Packed, i: int, ended: NDArray[np.bool_]) -> Packed:
    """Return packed followers for which play of follower i has ended in these states (S,), too."""
    absorbing = packed.absorbing.copy()
    absorbing[packed.model[i]] |= ended
    return packed._replace(absorbing=absorbing)


def _affordable(model: TransitionModel, entries: float) -> symbolic_factorization.Fronts | None:
    """Where the factors lie, or None if they cost more than so many row entries swept."""
    layout = model.fronts(entries / ENTRIES_PER_OPERATION)
    return None if layout is None or ENTRIES_PER_OPERATION * layout.work > entries else layout


def _merged_rows(packed: Packed, i: int, policy: FloatArray) -> Any:
    """Rows of gamma P^pi in CSR; at discount 1 those of absorbing states are empty."""
    gamma = float(packed.discount[i])
    start = np.empty(policy.shape[0] + 1, np.int64)
    size = policy_chain.model_size(packed, i, *policy.shape)
    column = np.empty(size, np.int64)
    weight = np.empty(size)
    end = policy_chain.merge_rows(packed, i, gamma, policy, gamma == 1.0, start, column, weight)
    return start, column[:end], weight[:end]


class _Task(NamedTuple):
    """A policy of follower i to evaluate, and where V, Q and the occupancy go."""

    model: TransitionModel
    packed: Packed
    i: int
    rewards: FloatArray  # (S, A)
    policy: FloatArray  # (S, A)
    out: tuple[FloatArray, FloatArray, FloatArray]
    tolerance: float


def _by_sweeps(task: _Task, merged: Any, budget: float) -> bool:
    """Evaluate by sweeps over at most about ``budget`` row entries; returns whether these did."""
    model, packed, i, rewards, policy, out, tolerance = task
    gamma = float(packed.discount[i])
    start, column, weight = merged
    order, _ = model.sweep_order
    states = order.size
    widest = int(np.diff(start).max())
    if states * widest > 2 * column.size + 1000:  # ragged: long rows are split
        widest = max(4, 2 * column.size // states)
    widest = max(widest, 2)
    count = occupancy.count_rows(start, column, widest)
    reward = np.empty(states)
    bellman.mean_reward(policy, rewards, reward)
    row = np.empty(states, np.int64)
    places = np.empty((count, widest), np.uint32)
    weights = np.empty((count, widest))
    earned = np.empty(count)
    scale = np.empty(count)
    occupancy.policy_rows(start, column, weight, order, reward, row, places, weights, earned, scale)
    rows = sweeps.PolicyRows(places, weights, earned)
    width = constant_lengths(1, widest)[1]
    entries = count * (widest * (1.0 if widest <= LONGEST_UNROLLED else LONG_ROWS) + 3.0)
    cycles = int(min(MOST_CYCLES, max(1.0, budget / (16.0 * entries))))
    if cycles == MOST_CYCLES:  # nothing more can come
        budget = math.inf
    scratch = np.empty((8, count))
    values = np.zeros(count)
    goal, share = tolerance, tolerance
    if tolerance <= 0.0:
        share = 1e-14
        size = float(np.abs(earned).max())
        goal = max(1e-14 * (1.0 - gamma), 1e-15) * size / max(1.0 - gamma, 1e-3)
    while True:
        _, change = sweeps.settle_values(
            rows, values, sweeps.Scratch(scratch[:3], scratch[3]), goal, cycles, True, width
        )
        size = float(np.abs(values).max())
        if change > max(goal, 1e-14 * size) and budget < math.inf:
            return False
        # Values may be much smaller than the rewards and the discount would allow.
        if tolerance > 0.0 or goal <= 1e-14 * size or size == 0.0:
            break
        goal = 1e-14 * size
    counted = np.zeros(count)
    initial = np.zeros(count)
    initial[row] = packed.initial[i]
    for k in range(MOST_ROUNDS):
        # Rounding adds up: what is pending is taken from the equation anew, and counted apart.
        pending = initial.copy()
        occupancy.occupancy_residual(places, weights, counted, pending)
        largest = float(np.abs(counted).max())
        if k > 1 and float(np.abs(pending).max()) <= max(share, 1e-14 * largest):
            break
        extra = np.zeros(count)
        _, left = occupancy.settle_occupancy(
            places, weights, pending, extra, scratch[:4], scratch[4:], share, cycles, width
        )
        counted += extra
        if left > share and budget < math.inf:
            return False
    out[0][:] = values[row]
    out[2][:] = (scale * counted)[row]
    if gamma == 1.0:
        out[2][packed.absorbing[packed.model[i]]] = 0.0
    bellman.action_values(packed, i, gamma, rewards, out[0], out[1])
    return True
