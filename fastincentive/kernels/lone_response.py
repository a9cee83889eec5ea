"""The first best response of one follower with few states, from its model to the answer.

Such a problem is solved in less time than it takes to call a few kernels one after the other.
"""

from __future__ import annotations

import numpy as np

from fastincentive.kernels.bellman import best_response_one, prefer_first, value_iteration_start
from fastincentive.kernels.jit import jit
from fastincentive.kernels.packed import Packed
from fastincentive.kernels.sweep_order import Ordered, backward_order, ordered_rows, widest_row

__all__ = ["lone_response"]


@jit
def lone_response(
    row_start, successor, probability, available, reward, discount, actions, values, q_values
):
    """Solve one model below discount 1, as ``bellman.first_responses`` does.

    Written are ``actions`` (1, S), ``values`` (1, S) and ``q_values`` (1, S, A); returns the
    residual and the number of iterations.
    """
    states, count = reward.shape
    width = widest_row(row_start)
    order, sink = np.empty((1, states), np.int64), np.empty((1, states), np.bool_)
    places = np.empty((1, states, count, width), np.uint32)
    weights = np.empty((1, states, count, width))
    backward_order(row_start, successor, sink[0], order[0])
    ordered_rows(row_start, successor, probability, order[0], places[0], weights[0])
    # Copies are writable, as those that kernels are compiled for. Below discount 1 nobody asks
    # which states are absorbing, nor where the follower starts.
    packed = Packed(
        row_start.copy(),
        successor.copy(),
        probability.copy(),
        available.copy().reshape(1, states, count),
        sink,
        sink,
        np.zeros(1, np.int64),
        np.full(1, discount),
        np.zeros((1, states)),
    )
    rewards = reward.copy().reshape(1, states, count)
    residual, iterations = np.empty(1), np.empty(1, np.int64)
    ordered = Ordered(order, places, weights)
    actions[:] = -1
    value_iteration_start(packed, ordered, 0, rewards, values[0], actions)
    nowhere = np.full(states, -1)
    best_response_one(packed, 0, rewards, nowhere, actions, values, q_values, residual, iterations)
    prefer_first(actions[0], q_values[0])
    return residual[0], iterations[0]
