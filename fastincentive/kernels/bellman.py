"""Policy evaluation, occupancy and best responses of single followers.

Small state spaces use LU factors of ``I - gamma P``: an M-matrix, so no pivoting is needed, and
the row envelope keeps the factors of a grid narrow. One factorisation serves the values and, with
its transpose, the occupancy. Larger ones use sweeps over merged rows. At discount 1 the absorbing
states are killed: value 0, occupancy 0.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from fastincentive.kernels.jit import DENSE_STATES, TINY_PIVOT, jit, parallel_jit

__all__ = [
    "best_responses",
    "boltzmann_policies",
    "evaluate_policies",
    "near_greedy_policies",
    "soft_responses",
]


@jit
def merge_rows(packed, i, gamma, policy, killed, start, column, weight):
    """Rows of gamma P^pi with equal successors summed, as CSR; ``killed``: absorbing rows empty."""
    states, actions = policy.shape
    m = packed.model[i]
    place = np.full(states, -1, np.int64)
    end = 0
    for s in range(states):
        start[s] = end
        if killed and packed.absorbing[m, s]:
            continue
        for a in range(actions):
            w = gamma * policy[s, a]
            if w == 0.0:
                continue
            row = (m * states + s) * actions + a
            for e in range(packed.row_start[row], packed.row_start[row + 1]):
                c = packed.successor[e]
                at = place[c]
                if at < start[s]:
                    place[c] = end
                    column[end] = c
                    weight[end] = w * packed.probability[e]
                    end += 1
                else:
                    weight[at] += w * packed.probability[e]
    start[states] = end
    return end


@jit
def model_size(packed, i, states, actions):
    """Stored transitions of follower i's model."""
    row = packed.model[i] * states * actions
    return packed.row_start[row + states * actions] - packed.row_start[row]


@jit
def factorize(start, column, weight, lu, last):
    """LU factors, in place and without pivoting, of I - W for merged rows W.

    Returns the first state whose pivot vanishes (a class that is never left), or -1; such pivots
    become infinite, so that the class gets value 0 and occupancy 0.
    """
    states = lu.shape[0]
    singular = -1
    for i in range(states):
        first = i
        end = i
        for j in range(states):
            lu[i, j] = 0.0
        lu[i, i] = 1.0
        for e in range(start[i], start[i + 1]):
            c = column[e]
            lu[i, c] -= weight[e]
            first = min(first, c)
            end = max(end, c)
        for k in range(first, i):
            if lu[i, k] != 0.0:
                f = lu[i, k] / lu[k, k]
                lu[i, k] = f
                for j in range(k + 1, last[k] + 1):
                    lu[i, j] -= f * lu[k, j]
                end = max(end, last[k])
        last[i] = end
        if lu[i, i] < TINY_PIVOT:
            lu[i, i] = math.inf
            if singular < 0:
                singular = i
    return singular


@jit
def solve_factored(lu, last, out):
    """Overwrite ``out`` with the solution v of (I - W) v = out."""
    states = out.shape[0]
    for i in range(states):
        total = out[i]
        for k in range(i):
            total -= lu[i, k] * out[k]
        out[i] = total
    for i in range(states - 1, -1, -1):
        total = out[i]
        for j in range(i + 1, last[i] + 1):
            total -= lu[i, j] * out[j]
        out[i] = total / lu[i, i]


@jit
def solve_factored_transposed(lu, last, out):
    """Overwrite ``out`` with the solution d of (I - W)' d = out."""
    states = out.shape[0]
    for k in range(states):
        z = out[k] / lu[k, k]
        out[k] = z
        if z != 0.0:
            for j in range(k + 1, last[k] + 1):
                out[j] -= lu[k, j] * z
    for i in range(states - 1, -1, -1):
        d = out[i]
        if d != 0.0:
            for k in range(i):
                out[k] -= lu[i, k] * d


@jit
def sweep_values(start, column, weight, reward, out, tolerance, sweeps):
    """Gauss-Seidel for v = reward + W v from ``out``, alternating direction.

    Returns the last sweep's largest change, negative if a value grew beyond any bound.
    """
    states = out.shape[0]
    change = math.inf
    for k in range(sweeps):
        change = 0.0
        size = 0.0
        for step in range(states):
            s = step if k % 2 == 0 else states - 1 - step
            total = reward[s]
            loop = 0.0
            for e in range(start[s], start[s + 1]):
                if column[e] == s:
                    loop = weight[e]
                else:
                    total += weight[e] * out[column[e]]
            stay = 1.0 - loop
            value = total / stay if stay >= TINY_PIVOT else 0.0
            change = max(change, abs(value - out[s]))
            size = max(size, abs(value))
            out[s] = value
        if change <= tolerance * max(1.0, size):
            break
    return change


@jit
def sweep_occupancy(start, column, weight, initial, out, tolerance, steps):
    """Sum over time of the mass that W carries from ``initial``; returns the mass left over."""
    states = out.shape[0]
    mass = initial.copy()
    out[:] = initial
    left = 1.0
    for _ in range(steps):
        following = np.zeros(states)
        for s in range(states):
            if mass[s] != 0.0:
                for e in range(start[s], start[s + 1]):
                    following[column[e]] += mass[s] * weight[e]
        left = 0.0
        for s in range(states):
            out[s] += following[s]
            left += following[s]
        mass = following
        if left <= tolerance:
            break
    return left


@jit
def action_values(packed, i, gamma, reward, values, out):
    """Q(s, a) = R(s, a) + gamma sum P V on available pairs, -inf elsewhere."""
    states, actions = reward.shape
    m = packed.model[i]
    for s in range(states):
        killed = gamma == 1.0 and packed.absorbing[m, s]
        for a in range(actions):
            if not packed.available[m, s, a]:
                out[s, a] = -math.inf
                continue
            total = 0.0
            if not killed:
                row = (m * states + s) * actions + a
                for e in range(packed.row_start[row], packed.row_start[row + 1]):
                    total += packed.probability[e] * values[packed.successor[e]]
            out[s, a] = reward[s, a] + gamma * total


@jit
def mean_reward(policy, reward, out):
    """R^pi(s), reading only actions that the policy takes."""
    for s in range(reward.shape[0]):
        total = 0.0
        for a in range(reward.shape[1]):
            if policy[s, a] != 0.0:
                total += policy[s, a] * reward[s, a]
        out[s] = total


@jit
def evaluate_one(packed, i, rewards, policies, values, q_values, visits, singular):
    """Evaluate follower i."""
    _, states, actions = rewards.shape
    gamma = packed.discount[i]
    size = model_size(packed, i, states, actions)
    start = np.empty(states + 1, np.int64)
    column = np.empty(size, np.int64)
    weight = np.empty(size)
    merge_rows(packed, i, gamma, policies[i], gamma == 1.0, start, column, weight)
    mean_reward(policies[i], rewards[i], values[i])
    if states <= DENSE_STATES:
        lu = np.empty((states, states))
        last = np.empty(states, np.int64)
        singular[i] = factorize(start, column, weight, lu, last)
        solve_factored(lu, last, values[i])
        visits[i] = packed.initial[i]
        solve_factored_transposed(lu, last, visits[i])
    else:
        reward = values[i].copy()
        values[i] = 0.0
        sweep_values(start, column, weight, reward, values[i], 1e-14, 1_000_000)
        left = sweep_occupancy(
            start, column, weight, packed.initial[i], visits[i], 1e-15, 1_000_000
        )
        singular[i] = 0 if gamma == 1.0 and left > 1e-6 else -1
    if gamma == 1.0:
        for s in range(states):
            if packed.absorbing[packed.model[i], s]:
                visits[i, s] = 0.0
    action_values(packed, i, gamma, rewards[i], values[i], q_values[i])


@parallel_jit
def evaluate_policies(packed, rewards, policies, values, q_values, visits, singular):
    """V (n,S), Q (n,S,A) and unnormalised state occupancy (n,S) of every follower's policy.

    ``singular[i]`` receives a state from which follower i is never absorbed (discount 1), or -1.
    """
    for i in numba.prange(packed.model.shape[0]):
        evaluate_one(packed, i, rewards, policies, values, q_values, visits, singular)


@jit
def write_actions(packed, i, actions, policy):
    """One-hot rows for the given actions; -1 stands for the uniform choice."""
    m = packed.model[i]
    for s in range(policy.shape[0]):
        for a in range(policy.shape[1]):
            policy[s, a] = 0.0
        if actions[s] >= 0:
            policy[s, actions[s]] = 1.0
        else:
            count = 0
            for a in range(policy.shape[1]):
                count += packed.available[m, s, a]
            for a in range(policy.shape[1]):
                if packed.available[m, s, a]:
                    policy[s, a] = 1.0 / count


@jit
def approach_absorption(packed, i, actions, n_actions):
    """Give states that still choose uniformly (all actions tied) one that nears absorption.

    States join as soon as their action can lead to one that has joined, so every state ends with
    a way out: a policy that was proper with the uniform rows stays proper.
    """
    states = actions.shape[0]
    m = packed.model[i]
    if actions.min() >= 0:
        return
    joined = packed.absorbing[m].copy()
    for s in range(states):
        if joined[s] and actions[s] < 0:
            for a in range(n_actions - 1, -1, -1):
                if packed.available[m, s, a]:
                    actions[s] = a
    grown = True
    while grown:
        grown = False
        for s in range(states):
            if joined[s]:
                continue
            for a in range(n_actions):
                if joined[s] or not packed.available[m, s, a]:
                    continue
                if actions[s] >= 0 and actions[s] != a:
                    continue
                row = (m * states + s) * n_actions + a
                for e in range(packed.row_start[row], packed.row_start[row + 1]):
                    if joined[packed.successor[e]] and packed.probability[e] > 0.0:
                        joined[s] = True
                if joined[s]:
                    actions[s] = a
                    grown = True


@jit
def best_response_one(packed, i, rewards, actions, values, q_values, residual, iterations):
    """Policy iteration for follower i."""
    _, states, n_actions = rewards.shape
    gamma = packed.discount[i]
    size = model_size(packed, i, states, n_actions)
    start = np.empty(states + 1, np.int64)
    column = np.empty(size, np.int64)
    weight = np.empty(size)
    policy = np.empty((states, n_actions))
    reward = np.empty(states)
    dense = states <= DENSE_STATES
    lu = np.empty((states, states)) if dense else np.empty((0, 0))
    last = np.empty(states, np.int64)
    iterations[i] = 0
    for k in range(10_000):
        write_actions(packed, i, actions[i], policy)
        merge_rows(packed, i, gamma, policy, gamma == 1.0, start, column, weight)
        mean_reward(policy, rewards[i], reward)
        if dense:
            if factorize(start, column, weight, lu, last) >= 0:
                iterations[i] = -1
            values[i] = reward
            solve_factored(lu, last, values[i])
        else:
            if k == 0:
                values[i] = 0.0
            sweep_values(start, column, weight, reward, values[i], 1e-14, 40)
        action_values(packed, i, gamma, rewards[i], values[i], q_values[i])
        largest = 0.0
        for s in range(states):
            largest = max(largest, abs(values[i, s]))
        changed = False
        worst = 0.0
        for s in range(states):
            best = 0
            for a in range(1, n_actions):
                if q_values[i, s, a] > q_values[i, s, best]:
                    best = a
            held = actions[i, s]
            gain = q_values[i, s, best] - values[i, s]
            worst = max(worst, abs(gain))
            if held >= 0:
                gain = q_values[i, s, best] - q_values[i, s, held]
            elif gamma < 1.0:
                gain = math.inf
            if gain > 1e-13 * max(1.0, largest):
                changed = changed or held != best
                actions[i, s] = best
        residual[i] = worst
        if iterations[i] < 0:
            break
        iterations[i] = k + 1
        if not changed and (dense or worst <= 1e-13 * max(1.0, largest)):
            break
    approach_absorption(packed, i, actions[i], n_actions)


@parallel_jit
def best_responses(packed, rewards, actions, values, q_values, residual, iterations):
    """Optimal actions (n,S), V* (n,S), Q* (n,S,A) and sup-norm Bellman residual (n,).

    ``actions`` is the warm start (-1: uniform, a proper start at discount 1). Policy iteration
    that changes an action only for a strict gain, so that at discount 1 it stays proper; for
    large state spaces a few sweeps replace each evaluation. ``iterations[i]`` is negative when
    the total reward at discount 1 is unbounded.
    """
    for i in numba.prange(packed.model.shape[0]):
        best_response_one(packed, i, rewards, actions, values, q_values, residual, iterations)


@jit
def soft_maximum(q_row, available, tau, policy_row):
    """tau log sum exp(q / tau) over available actions, and its softmax; log domain."""
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
    for k in range(100_000):
        merge_rows(packed, i, gamma, policies[i], gamma == 1.0, start, column, weight)
        mean_reward(policies[i], rewards[i], reward)
        for s in range(states):
            if not packed.sink[m, s]:
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
            soft = soft_maximum(q_values[i, s], packed.available[m, s], tau, policies[i, s])
            largest = max(largest, abs(values[i, s]))
            if not packed.sink[m, s]:
                worst = max(worst, abs(soft - values[i, s]))
        residual[i] = worst
        iterations[i] = k + 1
        if worst <= 1e-13 * largest or (dense and k > 20 and worst >= previous):
            break
        previous = worst


@parallel_jit
def soft_responses(packed, rewards, tau, policies, values, q_values, residual, iterations):
    """Entropy-regularised best responses: V = tau log sum exp(Q / tau), none in the sinks.

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


@parallel_jit
def near_greedy_policies(q_values, values, slack, policies, out):
    """Policies (n,S,A) kept where they take actions within ``slack[i]`` of the best, else moved.

    Mass on worse actions goes to the kept ones in proportion; a state without kept mass takes the
    first best action. With slack 0 this is an exact best response, the one nearest to the policy.
    """
    n, states, actions = policies.shape
    for i in numba.prange(n):
        for s in range(states):
            best = 0
            for a in range(1, actions):
                if q_values[i, s, a] > q_values[i, s, best]:
                    best = a
            floor = q_values[i, s, best] - slack[i]
            kept = 0.0
            for a in range(actions):
                if q_values[i, s, a] >= floor:
                    kept += policies[i, s, a]
            for a in range(actions):
                if kept > 1e-12:
                    keep = q_values[i, s, a] >= floor
                    out[i, s, a] = policies[i, s, a] / kept if keep else 0.0
                else:
                    out[i, s, a] = 1.0 if a == best else 0.0
