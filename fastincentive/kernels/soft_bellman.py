"""Best responses with entropy: soft policy iteration.

Newton's method on the soft Bellman equation (Geist, Scherrer and Pietquin, A theory of regularized
Markov decision processes, 2019). An evaluation costs what it does in ``bellman``.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from fastincentive.kernels.bellman import action_values, mean_reward
from fastincentive.kernels.jit import jit, parallel_jit
from fastincentive.kernels.packed import DENSE_STATES
from fastincentive.kernels.policy_chain import (
    factorize,
    merge_rows,
    model_size,
    solve_factored,
    sweep_values,
)

__all__ = ["boltzmann_policies", "soft_responses"]


@jit
def soft_maximum(q_row, available, tau, policy_row):
    """Return tau log sum exp(q / tau) over available actions, and its softmax; log domain."""
    best = -math.inf
    for a in range(q_row.shape[0]):
        if available[a]:
            best = max(best, q_row[a])
    total = 0.0
    for a in range(q_row.shape[0]):
        policy_row[a] = math.exp((q_row[a] - best) / tau) if available[a] else 0.0
        total += policy_row[a]
    for a in range(q_row.shape[0]):
        policy_row[a] /= total
    return best + tau * math.log(total)


@jit
def soft_response_one(packed, i, rewards, tau, policies, values, q_values, residual, iterations):
    """Soft policy iteration for follower i."""
    _, states, actions = rewards.shape
    gamma = packed.discount[i]
    m = packed.model[i]
    size = model_size(packed, i, states, actions)
    start = np.empty(states + 1, np.int64)
    column = np.empty(size, np.int64)
    weight = np.empty(size)
    reward = np.empty(states)
    dense = states <= DENSE_STATES
    lu = np.empty((states, states)) if dense else np.empty((0, 0))
    last = np.empty(states, np.int64)
    values[i] = 0.0
    iterations[i] = 0
    previous = math.inf
    largest = 1.0
    for k in range(5_000):
        merge_rows(packed, i, gamma, policies[i], gamma == 1.0, start, column, weight)
        mean_reward(policies[i], rewards[i], reward)
        for s in range(states):
            if not (packed.sink[m, s] or (gamma == 1.0 and packed.absorbing[m, s])):
                for a in range(actions):
                    p = policies[i, s, a]
                    if p > 0.0:
                        reward[s] -= tau * p * math.log(p)
        if dense:
            if factorize(start, column, weight, lu, last) >= 0:
                iterations[i] = -1
                break
            values[i] = reward
            solve_factored(lu, last, values[i])
        else:
            sweep_values(start, column, weight, reward, values[i], 1e-14, 20)
        action_values(packed, i, gamma, rewards[i], values[i], q_values[i])
        worst = 0.0
        largest = 1.0
        for s in range(states):
            row = policies[i, s]
            soft = soft_maximum(q_values[i, s], packed.available[m, s], tau, row)
            if packed.sink[m, s] or (gamma == 1.0 and packed.absorbing[m, s]):
                # Play has ended: the best choices, and no entropy.
                soft = q_values[i, s].max()
                for a in range(actions):
                    row[a] = 1.0 if q_values[i, s, a] == soft else 0.0
                row /= row.sum()
            largest = max(largest, abs(values[i, s]))
            worst = max(worst, abs(soft - values[i, s]))
        residual[i] = worst
        iterations[i] = k + 1
        if worst <= 1e-13 * largest or (dense and k > 20 and worst >= previous):
            break
        previous = worst
    # At discount 1 a loop that pays takes all probability from the actions that leave it: values
    # diverge, or the policy almost never leaves, and then a small residual proves nothing.
    paying = gamma == 1.0 and largest > 1e8 * (np.abs(rewards[i]).max() + tau)
    if gamma == 1.0 and dense:
        for s in range(states):
            paying = paying or lu[s, s] < 1e-9
    if paying or not residual[i] <= 1e-9 * largest:
        iterations[i] = -1


@parallel_jit
def soft_responses(packed, rewards, tau, policies, values, q_values, residual, iterations):
    """Entropy-regularised best responses: V = tau log sum exp(Q / tau), hard where play has ended.

    ``policies`` is the warm start. Newton's method (soft policy iteration): evaluate the policy
    with its entropy, then take the softmax of Q / tau.
    """
    for i in numba.prange(packed.model.shape[0]):
        soft_response_one(packed, i, rewards, tau, policies, values, q_values, residual, iterations)


@parallel_jit
def boltzmann_policies(packed, q_values, tau, policies):
    """Softmax of Q / tau over the available actions (n,S,A)."""
    n, states, _ = q_values.shape
    for i in numba.prange(n):
        for s in range(states):
            soft_maximum(q_values[i, s], packed.available[packed.model[i], s], tau, policies[i, s])
