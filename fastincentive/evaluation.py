"""One follower's policy: values and occupancy of many states, by sweeps or by factors.

The rule between the two counts operations, so that answers do not depend on timing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive.kernels import bellman, chain, occupancy, sweeps
from fastincentive.kernels.jit import Packed
from fastincentive.kernels.order import Ordered
from fastincentive.mdp import FloatArray

__all__ = ["ROUTES", "constant_lengths", "direct_cost", "evaluate_large", "evaluate_one"]

#: How a policy may be evaluated: by a measured rule, by sweeps, or by SuperLU factors.
ROUTES = ("auto", "sweeps", "direct")
#: Rows up to this long have kernels of their own, with unrolled loops.
LONGEST_UNROLLED = 8
#: SuperLU's time in the unit of a row entry swept: this, and so much for each (states)^1.5.
DIRECT_START, DIRECT_COST = 1.1e6, 15.0
#: Sweeps that an evaluation is expected to take, times the square root of 1 - gamma.
SWEEPS = 12.0
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
    occupancy.policy_rows(start, column, weight, order, reward, places, weights, earned, scale)
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
            occupancy.leave_over(places, weights, counted, pending)
            _, left = occupancy.push_occupancy(
                places, weights, pending, counted, scratch[:4], scratch[4:], share, cycles, width
            )
        direct = may_change and left > share
    if direct:
        factors = superlu(*occupancy.identity_minus(start, column[:end], weight[:end]))
        values[:] = factors.solve(reward, trans="T")[order]
        counted[:] = factors.solve(packed.initial[i])[order] / scale
        # One sweep each makes up for what rounding left in the factors.
        pending = packed.initial[i][order]
        occupancy.leave_over(places, weights, counted, pending)
        sweeps.sweep(places, weights, earned, values, width)
        occupancy.push(places, weights, pending, counted, width)
    ordered_values = np.empty(states)
    ordered_values[order] = values
    visits = np.empty(states)
    visits[order] = scale * counted
    return ordered_values, visits
