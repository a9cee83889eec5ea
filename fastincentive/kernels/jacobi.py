"""Best responses on graphs that mix soon, whatever their rows: Jacobi sweeps and MacQueen's bounds.

Modified policy iteration with the bounds of MacQueen and Porteus (Puterman, Markov Decision
Processes, 1994, sections 6.5 and 6.6). Where a chain mixes soon, values come to differ from the
exact ones by a constant, which the bounds give. No order of the states and no padding of the rows
is needed. Bytes of a sweep of a policy: 12 for each transition that it uses, 16 for each value; of
an improvement 12 for each stored transition.
"""

from __future__ import annotations

import math

import numpy as np

from fastincentive.kernels.bellman import action_values
from fastincentive.kernels.jit import jit
from fastincentive.kernels.sweeps import certify, set_goal

__all__ = ["jacobi_response"]

#: Sweeps of a policy between two improvements.
PARTIAL = 20
#: Improvements at most, and how many may fail to halve the span of the changes in a row.
MOST, FAILURES = 100, 3


@jit
def policy_sweep(packed, i, rewards, actions, values, out):
    """One Jacobi sweep of a policy (S,): R + gamma P values."""
    n_actions = rewards.shape[2]
    states = values.shape[0]
    gamma = packed.discount[i]
    for s in range(states):
        row = (packed.model[i] * states + s) * n_actions + actions[s]
        total = 0.0
        for e in range(packed.row_start[row], packed.row_start[row + 1]):
            at = np.uintp(e)
            total += packed.probability[at] * values[np.uint32(packed.successor[at])]
        out[s] = rewards[i, s, actions[s]] + gamma * total


@jit
def jacobi_response(packed, i, rewards, actions, values, q_values):
    """Solve for follower i, discount below 1; returns residual, goal, and improvements.

    ``actions`` (S,), ``values`` (S,) and ``q_values`` (S, A) are written. Gives up, with a residual
    above the goal, where the span of the changes falls too slowly.
    """
    states, n_actions = q_values.shape
    gamma = packed.discount[i]
    available = packed.available[packed.model[i]]
    largest = 0.0
    widest = 0
    for s in range(states):
        for a in range(n_actions):
            row = (packed.model[i] * states + s) * n_actions + a
            widest = max(widest, packed.row_start[row + 1] - packed.row_start[row])
            if available[s, a]:
                largest = max(largest, abs(rewards[i, s, a]))
    values[:] = 0.0
    other = np.empty(states)
    least = math.inf
    failures = 0
    count = 0
    while count < MOST and failures < FAILURES:
        count += 1
        action_values(packed, i, gamma, rewards[i], values, q_values)
        low, high = math.inf, -math.inf
        for s in range(states):
            best = 0
            for a in range(1, n_actions):
                if q_values[s, a] > q_values[s, best]:
                    best = a
            actions[s] = best
            change = q_values[s, best] - values[s]
            low = min(low, change)
            high = max(high, change)
            other[s] = q_values[s, best]
        values[:] = other + 0.5 * (low + high) * gamma / (1.0 - gamma)
        if gamma * 0.5 * (high - low) <= set_goal(0.0, gamma, largest, widest, values).aim:
            break
        failures = 0 if high - low <= 0.5 * least else failures + 1
        least = min(least, high - low)
        for _ in range(PARTIAL // 2):
            policy_sweep(packed, i, rewards, actions, values, other)
            policy_sweep(packed, i, rewards, actions, other, values)
    actions[:] = -1
    residual = certify(packed, i, rewards, values, q_values, actions, False, ((), ()))
    return residual, set_goal(0.0, gamma, largest, widest, values).passes, count
