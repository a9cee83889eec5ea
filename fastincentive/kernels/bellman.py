"""Policy evaluation, occupancy and best responses of single followers.

Howard's policy iteration (Puterman, Markov Decision Processes, 1994, section 6.4; chapter 7 at
discount 1). At discount 1 the absorbing states are killed: value 0, occupancy 0; so is a follower
that stays for ever where all rewards are 0 (see ``end_components``). An evaluation takes at most
2/3 S^3 flops by dense factors, less by the envelope; action values read 12 bytes for each stored
transition.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from fastincentive.kernels.end_components import STAY, mark_idle, mark_resting, stay_together
from fastincentive.kernels.jit import jit, parallel_jit
from fastincentive.kernels.packed import DENSE_STATES, Packed
from fastincentive.kernels.policy_chain import (
    factorize,
    mark_never_absorbed,
    merge_rows,
    model_size,
    solve_factored,
    solve_factored_transposed,
    sweep_values,
)

__all__ = [
    "best_responses",
    "evaluate_policies",
    "first_responses",
    "near_greedy_policies",
]

#: Sweeps of value iteration before the first policy is evaluated, at most.
FEW_SWEEPS = 30
#: They end after so many in a row that change no action.
QUIET = 2
#: Rounds of policy iteration in which gains down to the last digits count.
SURE = 30


@jit
def action_values(packed, i, gamma, reward, values, out):
    """Q(s, a) = R(s, a) + gamma sum P V on available pairs, -inf elsewhere."""
    states, actions = reward.shape
    m = packed.model[i]
    for s in range(states):
        killed = gamma == 1.0 and packed.absorbing[m, s]
        row = (m * states + s) * actions
        first = packed.row_start[row]
        for a in range(actions):
            last = packed.row_start[row + a + 1]
            total = 0.0
            if not killed:
                for e in range(first, last):
                    # Unsigned, for NumPy's wrap-around costs.
                    at = np.uintp(e)
                    total += packed.probability[at] * values[np.uint32(packed.successor[at])]
            total = reward[s, a] + gamma * total
            out[s, a] = total if packed.available[m, s, a] else -math.inf
            first = last


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
def kill_rows(ended, start, column, weight):
    """Empty the rows of states (S,) where play has ended."""
    end = 0
    for s in range(ended.shape[0]):
        first, last = start[s], start[s + 1]
        start[s] = end
        if not ended[s]:
            for e in range(first, last):
                column[end] = column[e]
                weight[end] = weight[e]
                end += 1
    start[ended.shape[0]] = end


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
    lu = np.empty((states, states))
    last = np.empty(states, np.int64)
    singular[i] = factorize(start, column, weight, lu, last)
    solve_factored(lu, last, values[i])
    visits[i] = packed.initial[i]
    solve_factored_transposed(lu, last, visits[i])
    if gamma == 1.0:
        for s in range(states):
            if packed.absorbing[packed.model[i], s]:
                visits[i, s] = 0.0
    action_values(packed, i, gamma, rewards[i], values[i], q_values[i])


@parallel_jit
def evaluate_absorbed(packed, rewards, policies, values, q_values, visits, singular):
    """As ``evaluate_policies``, for policies that are absorbed."""
    for i in numba.prange(packed.model.shape[0]):
        evaluate_one(packed, i, rewards, policies, values, q_values, visits, singular)


def evaluate_policies(
    packed: Packed,
    rewards: Any,
    policies: Any,
    values: Any,
    q_values: Any,
    visits: Any,
    singular: Any,
) -> None:
    """V (n,S), Q (n,S,A) and unnormalised state occupancy (n,S) of every follower's policy.

    By dense factors, for few states. ``singular[i]`` receives a state from which follower i is
    never absorbed and does not rest for nothing either (discount 1), or -1.
    """
    evaluate_absorbed(packed, rewards, policies, values, q_values, visits, singular)
    if singular.max() < 0:
        return
    for i in np.flatnonzero(singular >= 0).tolist():
        own, resting = slice(i, i + 1), np.empty(values.shape[1], np.bool_)
        if mark_resting(packed, i, policies[i], rewards[i], resting):
            # Once more, and where the follower rests play has ended.
            alone = packed._replace(
                absorbing=packed.absorbing | resting,
                model=packed.model[own],
                discount=packed.discount[own],
                initial=packed.initial[own],
            )
            found = values[own], q_values[own], visits[own], singular[own]
            evaluate_absorbed(alone, rewards[own], policies[own], *found)
            action_values(packed, i, packed.discount[i], rewards[i], values[i], q_values[i])


@jit
def write_actions(packed, i, actions, policy):
    """One-hot rows for the given actions; -1: the uniform choice, ``STAY``: no action at all."""
    m = packed.model[i]
    for s in range(policy.shape[0]):
        for a in range(policy.shape[1]):
            policy[s, a] = 0.0
        if actions[s] >= 0:
            policy[s, actions[s]] = 1.0
        elif actions[s] != STAY:
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
    joined = packed.absorbing[m].copy()
    some = False
    for s in range(states):
        some = some or actions[s] == -1
        joined[s] = joined[s] or actions[s] == STAY
    if not some:
        return
    for s in range(states):
        if joined[s] and actions[s] == -1:
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
def improve_actions(packed, i, rewards, share, idle, actions, values, q_values):
    """Take better actions where the gain is more than rounding; in place.

    Rounding is a ``share`` of the values at the state itself: a large penalty on an action that
    nobody takes must not hide the difference of others. ``idle`` (S,) see ``mark_idle``. Returns
    whether any action changed, the largest |max Q - V|, and the size of values and rewards taken.
    """
    changed = False
    worst = 0.0
    largest = 0.0
    for s in range(rewards.shape[0]):
        best = 0
        for a in range(1, rewards.shape[1]):
            if q_values[s, a] > q_values[s, best]:
                best = a
        top = q_values[s, best]
        held = actions[s]
        if idle[s] >= 0 and top < 0.0:
            best = STAY
            top = 0.0
        now = values[s]
        if held >= 0:
            now = q_values[s, held]
        elif held == STAY:
            now = 0.0
        gain = top - now
        worst = max(worst, abs(top - values[s]))
        size = abs(top)
        if best >= 0:
            size = max(size, abs(rewards[s, best]))
        largest = max(largest, max(size, abs(values[s])))
        if held == -1 and packed.discount[i] < 1.0:
            gain = math.inf
        if gain > share * max(size, abs(now)):
            changed = changed or held != best
            actions[s] = best
    return changed, worst, largest


@jit
def best_response_one(packed, i, rewards, idle, actions, values, q_values, residual, iterations):
    """Policy iteration for follower i; ``idle`` (S,) see ``mark_idle``."""
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
    ended = np.empty(states, np.bool_)
    never = np.empty(states, np.bool_)
    given = False
    for s in range(states):
        given = given or actions[i, s] >= 0
    iterations[i] = 0
    k = 0
    while k < 10_000:
        write_actions(packed, i, actions[i], policy)
        merge_rows(packed, i, gamma, policy, gamma == 1.0, start, column, weight)
        mean_reward(policy, rewards[i], reward)
        proper = True
        if dense:
            proper = factorize(start, column, weight, lu, last) < 0
            values[i] = reward
            solve_factored(lu, last, values[i])
        else:
            if k == 0:
                values[i] = 0.0
            if gamma == 1.0:
                for s in range(states):
                    ended[s] = packed.absorbing[packed.model[i], s] or actions[i, s] == STAY
                proper = not mark_never_absorbed(start, column, weight, ended, never)
            sweep_values(start, column, weight, reward, values[i], 1e-14, 40)
        if not proper and k == 0 and given:
            # A policy that is never absorbed is no start: a little of every action leads out.
            actions[i] = -1
            given = False
            continue
        action_values(packed, i, gamma, rewards[i], values[i], q_values[i])
        share = 4e-15 if dense and k < SURE else 1e-13
        changed, worst, largest = improve_actions(
            packed, i, rewards[i], share, idle, actions[i], values[i], q_values[i]
        )
        residual[i] = worst
        k += 1
        iterations[i] = k if proper else -1
        if not proper:
            break
        if not changed and (dense or worst <= max(1e-13 * (1.0 - gamma), 1e-15) * largest):
            break
    approach_absorption(packed, i, actions[i], n_actions)


@parallel_jit
def iterate_policies(packed, rewards, idle, actions, values, q_values, residual, iterations):
    """As ``best_responses``; ``idle`` (n,S) see ``mark_idle``, and ``STAY`` is left in actions."""
    for i in numba.prange(packed.model.shape[0]):
        best_response_one(
            packed, i, rewards, idle[i], actions, values, q_values, residual, iterations
        )


def best_responses(
    packed: Packed,
    rewards: Any,
    actions: Any,
    values: Any,
    q_values: Any,
    residual: Any,
    iterations: Any,
) -> None:
    """Optimal actions (n,S), V* (n,S), Q* (n,S,A) and sup-norm Bellman residual (n,).

    ``actions`` is the warm start (-1: uniform, a proper start at discount 1). Policy iteration
    that changes an action only for a strict gain, so that at discount 1 it stays proper; for
    large state spaces a few sweeps replace each evaluation. ``iterations[i]`` is negative when
    the total reward at discount 1 is unbounded.
    """
    idle = np.full(actions.shape, -1)
    patient = np.flatnonzero(packed.discount == 1.0).tolist()
    for i in patient:
        mark_idle(packed, i, rewards[i], idle[i])
    iterate_policies(packed, rewards, idle, actions, values, q_values, residual, iterations)
    for i in patient:
        stay_together(packed, i, idle[i], actions[i])


@jit
def value_iteration_start(packed, ordered, i, rewards, values, actions):
    """Gauss-Seidel value iteration, from the sinks backwards, until no action changes any more.

    ``values`` is scratch (S,), in the order of the sweeps.
    """
    _, states, n_actions = rewards.shape
    gamma = packed.discount[i]
    m = packed.model[i]
    order = ordered.order[m]
    values[:] = 0.0
    quiet = 0
    for _ in range(FEW_SWEEPS):
        moved = False
        for k in range(states):
            s = order[k]
            if gamma == 1.0 and packed.absorbing[m, s]:
                continue
            best = -math.inf
            first = 0
            for a in range(n_actions):
                if not packed.available[m, s, a]:
                    continue
                total = 0.0
                for e in range(ordered.successor.shape[3]):
                    total += ordered.probability[m, k, a, e] * values[ordered.successor[m, k, a, e]]
                total = rewards[i, s, a] + gamma * total
                if total > best:
                    best = total
                    first = a
            values[k] = best
            moved = moved or actions[i, s] != first
            actions[i, s] = first
        quiet = 0 if moved else quiet + 1
        if quiet == QUIET:
            break


@jit
def prefer_first(actions, q_values):
    """Among tied actions take the first, whatever policy iteration ended with."""
    for s in range(actions.shape[0]):
        best = q_values[s].max()
        slack = 4e-15 * abs(best)
        a = 0
        while q_values[s, a] < best - slack:
            a += 1
        actions[s] = a


@parallel_jit
def first_responses(packed, ordered, rewards, actions, values, q_values, residual, iterations):
    """As ``best_responses`` without a warm start, below discount 1: value iteration finds one."""
    for i in numba.prange(packed.model.shape[0]):
        value_iteration_start(packed, ordered, i, rewards, values[i], actions)
        nowhere = np.full(actions.shape[1], -1)
        best_response_one(
            packed, i, rewards, nowhere, actions, values, q_values, residual, iterations
        )
        prefer_first(actions[i], q_values[i])


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
