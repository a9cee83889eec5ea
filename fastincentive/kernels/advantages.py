"""Which actions are optimal, to the last digits that data allow: advantages of one policy.

Actions are compared by relative values, h = V - V(start): below discount 1 they solve
h = R - (1 - gamma) V(start) + gamma P h (Bertsekas, Dynamic Programming and Optimal Control, volume
2, 2012, section 5.3), and stay of the size of differences where V is of the size of 1/(1 - gamma).
They are refined by their residuals (Higham, Accuracy and Stability of Numerical Algorithms, 2002,
chapter 12), so that rounding goes by what stands at the state itself.

An evaluation takes 2/3 S^3 flops by dense factors at most, less by the envelope, and 4 S^2 for each
refinement.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from fastincentive.kernels.bellman import action_values, kill_rows, mean_reward, write_actions
from fastincentive.kernels.end_components import STAY, mark_resting
from fastincentive.kernels.jit import jit, parallel_jit
from fastincentive.kernels.packed import DENSE_STATES
from fastincentive.kernels.policy_chain import (
    factorize,
    mark_never_absorbed,
    merge_rows,
    model_size,
    solve_factored,
    sweep_values,
)

__all__ = [
    "evaluate_actions",
    "largest_entry",
    "mark_reachable",
    "policy_scratch",
    "reached_states",
    "settle_actions",
    "smallest_loss",
]

#: Values are corrected by their residuals so many times.
REFINEMENTS = 2
#: Differences below this share of what a follower earns on its way are rounding.
FLOOR = 2e-14


class PolicyScratch(NamedTuple):
    """Arrays that the evaluation of a policy overwrites."""

    policy: np.ndarray  # (S, A) float64
    start: np.ndarray  # (S + 1,) int64; with the next two the rows of gamma P^pi
    column: np.ndarray  # (nnz,) int64
    weight: np.ndarray  # (nnz,) float64
    lu: np.ndarray  # (S, S) float64, or (0, 0) where there are too many states
    last: np.ndarray  # (S,) int64, last column of each row of U


@jit
def mark_reachable(packed, i, choice, mark, queue):
    """Mark the states met from the start under the allowed choices (S,A); returns how many."""
    states, actions = choice.shape
    m = packed.model[i]
    count = 0
    for s in range(states):
        mark[s] = packed.initial[i, s] > 0.0
        if mark[s]:
            queue[count] = s
            count += 1
    k = 0
    while k < count:
        s = queue[k]
        k += 1
        for a in range(actions):
            if choice[s, a]:
                row = (m * states + s) * actions + a
                for e in range(packed.row_start[row], packed.row_start[row + 1]):
                    c = packed.successor[e]
                    if packed.probability[e] > 0.0 and not mark[c]:
                        mark[c] = True
                        queue[count] = c
                        count += 1
    return count


@jit
def policy_scratch(packed, i, states, actions):
    """Allocate what the evaluation of a policy overwrites."""
    size = model_size(packed, i, states, actions)
    dense = states <= DENSE_STATES
    return PolicyScratch(
        np.empty((states, actions)),
        np.empty(states + 1, np.int64),
        np.empty(size, np.int64),
        np.empty(size),
        np.empty((states, states)) if dense else np.empty((0, 0)),
        np.empty(states, np.int64),
    )


@jit
def prepare_actions(packed, i, actions, moving, scratch):
    """Factors for deterministic actions (``STAY``: value 0); whether they are proper.

    Where ``moving`` (S,A) stays 0 for ever play has ended.
    """
    policy, start, column, weight, lu, last = scratch
    states = actions.shape[0]
    gamma = packed.discount[i]
    write_actions(packed, i, actions, policy)
    merge_rows(packed, i, gamma, policy, gamma == 1.0, start, column, weight)
    if gamma < 1.0:
        if lu.shape[0] > 0:
            factorize(start, column, weight, lu, last)
        return True
    # Where nothing moves any more play has ended.
    ended, never = np.empty(states, np.bool_), np.empty(states, np.bool_)
    mark_resting(packed, i, policy, moving, ended)
    kill_rows(ended, start, column, weight)
    if lu.shape[0] > 0:
        return factorize(start, column, weight, lu, last) < 0
    for s in range(states):
        ended[s] = ended[s] or packed.absorbing[packed.model[i], s] or actions[s] == STAY
    return not mark_never_absorbed(start, column, weight, ended, never)


@jit
def evaluate_actions(packed, i, actions, rewards, moving, scratch, value, q_values):
    """Write relative values (S,) and action values (S,A) of deterministic actions.

    ``value`` holds a guess. Returns whether the actions are proper, and the level: V = level +
    value.
    """
    policy, start, column, weight, lu, last = scratch
    states = actions.shape[0]
    gamma = packed.discount[i]
    dense = lu.shape[0] > 0
    proper = prepare_actions(packed, i, actions, moving, scratch)
    reward = np.empty(states)
    mean_reward(policy, rewards, reward)
    level = 0.0
    origin = 0
    rest = np.empty(states)
    change = np.empty(states)
    for s in range(states):
        if packed.initial[i, s] > packed.initial[i, origin]:
            origin = s
        if dense:
            value[s] = 0.0
    for k in range(1 + REFINEMENTS):
        step = value[origin] if gamma < 1.0 else 0.0
        level += step
        for s in range(states):
            value[s] -= step
        for s in range(states):
            total = reward[s] - (1.0 - gamma) * level - value[s]
            for e in range(start[s], start[s + 1]):
                total += weight[e] * value[column[e]]
            rest[s] = total
        if dense:
            solve_factored(lu, last, rest)
            for s in range(states):
                value[s] += rest[s]
        else:
            for s in range(states):
                change[s] = 0.0
            sweep_values(start, column, weight, rest, change, 1e-15 if k == 0 else 1e-3, 1_000_000)
            for s in range(states):
                value[s] += change[s]
        if not proper:
            break
    action_values(packed, i, gamma, rewards, value, q_values)
    kept = (1.0 - gamma) * level
    for s in range(states):
        for a in range(rewards.shape[1]):
            q_values[s, a] -= kept
    return proper, level


@jit
def largest_entry(q_values):
    """Largest finite magnitude."""
    size = 0.0
    for s in range(q_values.shape[0]):
        for a in range(q_values.shape[1]):
            if q_values[s, a] > -math.inf:
                size = max(size, abs(q_values[s, a]))
    return size


@jit
def tie_slack(packed, i, actions, sizes, level, value, tie, slack):
    """Write differences (S,A) of action values that are no more than rounding.

    A share ``tie`` of what is added up at the state itself, ``sizes`` (S,A) those of the rewards,
    and a few digits of what the follower earns on its way: a large penalty elsewhere does not
    matter.
    """
    states, n_actions = sizes.shape
    m = packed.model[i]
    gamma = packed.discount[i]
    kept = (1.0 - gamma) * abs(level)
    for s in range(states):
        for a in range(n_actions):
            total = 0.0
            row = (m * states + s) * n_actions + a
            for e in range(packed.row_start[row], packed.row_start[row + 1]):
                total += packed.probability[e] * abs(value[packed.successor[e]])
            slack[s, a] = sizes[s, a] + kept + gamma * total
    choice = np.zeros((states, n_actions), np.bool_)
    for s in range(states):
        if actions[s] >= 0:
            choice[s, actions[s]] = True
    met = np.empty(states, np.bool_)
    mark_reachable(packed, i, choice, met, np.empty(states, np.int64))
    floor = 0.0
    for s in range(states):
        if met[s]:
            floor = max(floor, abs(value[s]))
            if actions[s] >= 0:
                floor = max(floor, slack[s, actions[s]])
    for s in range(states):
        held = slack[s, actions[s]] if actions[s] >= 0 else 0.0
        for a in range(n_actions):
            slack[s, a] = max(tie * max(slack[s, a], held), FLOOR * floor)


@jit
def settle_actions(packed, i, rewards, sizes, actions, tie, scratch, value, q_values, slack):
    """Evaluate, and improve what falls short by more than rounding."""
    for _ in range(100):
        _, level = evaluate_actions(packed, i, actions, rewards, rewards, scratch, value, q_values)
        tie_slack(packed, i, actions, sizes, level, value, tie, slack)
        changed = False
        for s in range(actions.shape[0]):
            best = actions[s]
            for a in range(rewards.shape[1]):
                if q_values[s, a] > q_values[s, best] and q_values[s, a] - value[s] > slack[s, a]:
                    best = a
            if best != actions[s]:
                actions[s] = best
                changed = True
        if not changed:
            break


@jit
def smallest_loss(packed, i, tied, value, q_values):
    """Smallest loss by an action that is not tied (S,A), where tied ones lead from the start."""
    states, n_actions = tied.shape
    met = np.empty(states, np.bool_)
    mark_reachable(packed, i, tied, met, np.empty(states, np.int64))
    loss = math.inf
    for s in range(states):
        if met[s]:
            for a in range(n_actions):
                if packed.available[packed.model[i], s, a] and not tied[s, a]:
                    loss = min(loss, value[s] - q_values[s, a])
    return loss


@parallel_jit
def reached_states(packed, allowed, met):
    """Mark the states (n,S) that allowed actions (n,S,A) lead to from the starts."""
    n, states = met.shape
    for i in numba.prange(n):
        mark_reachable(packed, i, allowed[i], met[i], np.empty(states, np.int64))
