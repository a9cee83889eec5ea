"""Warm-started best responses: the values are predicted from how they moved in earlier calls.

While a policy stays optimal its values are linear in the rewards. The derivatives of the values
along the directions in which rewards have moved so far are kept, so that a move along known
directions takes a prediction, a sweep or two of the policy, and the certificate. What a prediction
missed corrects the derivatives: Broyden's rank-one update (Nocedal and Wright, Numerical
Optimization, 2006, section 11.1), on a basis that Gram-Schmidt keeps orthonormal.

Flops of a prediction with d directions over S states: 2 d S; bytes 8 d S.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit
from fastincentive.kernels.sweeps import (
    Answer,
    Limits,
    PolicyRows,
    Scratch,
    SweepState,
    certify,
    load_rewards,
    load_row,
    load_rows,
    modified_policy_iteration,
    set_goal,
    settle_values,
)

__all__ = [
    "DIRECTIONS",
    "ENTRIES",
    "Memory",
    "broyden_update",
    "predict",
    "predicted_responses",
    "store_answer",
]

#: Reward entries that may have moved, and directions that are kept, for each follower.
ENTRIES, DIRECTIONS = 64, 8
#: A direction is new if this share of a move lies outside those known.
NEW = 1e-6
#: Up to so many sweeps of the policy, a prediction counts as exact.
EXACT = 3


class Memory(NamedTuple):
    """What is kept of n followers between calls; places are those of the sweep order."""

    known: np.ndarray  # (n,) bool, whether there has been a call
    rewards: np.ndarray  # (n, S, A) float64, of the last call, states as they are numbered
    largest: np.ndarray  # (n,) float64, their largest magnitude
    reward: np.ndarray  # (n, S, A) float64; this and the next five: see ``SweepState``
    held: np.ndarray  # (n, S) int64
    column: np.ndarray  # (n, S, K) uint32
    weight: np.ndarray  # (n, S, K) float64
    earned: np.ndarray  # (n, S) float64
    values: np.ndarray  # (n, S) float64
    place: np.ndarray  # (M, S) int64, place of each state
    entry: np.ndarray  # (n, ENTRIES) int64, s * A + a of the rewards that have moved
    entries: np.ndarray  # (n,) int64, how many of them
    rank: np.ndarray  # (n,) int64, number of directions
    direction: np.ndarray  # (n, DIRECTIONS, ENTRIES) float64, orthonormal
    response: np.ndarray  # (n, DIRECTIONS, S) float64, derivative of the values along each


@jit
def state_of(memory, ordered, m, i):
    """Follower i's problem, of model m, as it stands in the memory."""
    return SweepState(
        ordered.successor[m],
        ordered.probability[m],
        memory.reward[i],
        memory.held[i],
        PolicyRows(memory.column[i], memory.weight[i], memory.earned[i]),
        memory.values[i],
    )


@jit
def update_rewards(packed, memory, i, rewards, state, move):
    """Bring a follower's problem up to date with new rewards; returns the largest reward.

    ``move`` (ENTRIES,) receives the changes of the entries. Where more entries have moved than are
    kept, all entries and directions are dropped.
    """
    _, states, actions = rewards.shape
    m = packed.model[i]
    last = memory.rewards[i]
    entry = memory.entry[i]
    used = memory.entries[i]
    largest = memory.largest[i]
    move[:] = 0.0
    fallen = False
    for s in range(states):
        same = True
        for a in range(actions):
            same = same and rewards[i, s, a] == last[s, a]
        if same:
            continue
        for a in range(actions):
            now, step = rewards[i, s, a], rewards[i, s, a] - last[s, a]
            if now == last[s, a] or not packed.available[m, s, a]:
                continue
            fallen = fallen or abs(last[s, a]) == largest
            last[s, a] = now
            k = memory.place[m, s]
            state.reward[k, a] = now
            largest = max(largest, abs(now))
            if state.held[k] == a:
                load_row(packed.discount[i], k, a, state)
            if used < 0:
                continue
            j = 0
            while j < used and entry[j] != s * actions + a:
                j += 1
            if j == ENTRIES:
                used = -1
                continue
            if j == used:
                entry[j] = s * actions + a
                used += 1
                memory.direction[i, :, j] = 0.0
            move[j] = step
    if used < 0:
        used = 0
        memory.rank[i] = 0
    memory.entries[i] = used
    if fallen:
        largest = 0.0
        for k in range(states):
            for a in range(actions):
                if state.reward[k, a] != -math.inf:
                    largest = max(largest, abs(state.reward[k, a]))
    memory.largest[i] = largest
    return largest


@jit
def predict(direction, response, rank, used, move, coefficient, applied):
    """Write the change of the values predicted for a move of the rewards to ``applied`` (S,).

    ``coefficient`` (DIRECTIONS,) receives the coordinates of the move in the directions. Returns
    the number of directions, one more where the move is new, and whether it is.
    """
    coefficient[:] = 0.0
    applied[:] = 0.0
    total = 0.0
    for j in range(used):
        total += move[j] * move[j]
    rest = move[:used].copy()
    for d in range(rank):
        for j in range(used):
            coefficient[d] += direction[d, j] * move[j]
        for j in range(used):
            rest[j] -= coefficient[d] * direction[d, j]
        for s in range(applied.shape[0]):
            applied[s] += coefficient[d] * response[d, s]
    beyond = 0.0
    for j in range(used):
        beyond += rest[j] * rest[j]
    if beyond <= NEW * NEW * total:
        return rank, False
    if rank == direction.shape[0]:
        # Begin anew, with this move as the first direction.
        rank, beyond = 0, total
        rest[:] = move[:used]
        coefficient[:] = 0.0
    size = math.sqrt(beyond)
    coefficient[rank] = size
    for j in range(used):
        direction[rank, j] = rest[j] / size
    for s in range(applied.shape[0]):
        response[rank, s] = applied[s] / size if rank == 0 else 0.0
    return rank + 1, True


@jit
def broyden_update(response, rank, new, coefficient, missed):
    """Correct the derivatives by what the prediction ``missed`` (S,).

    All of it is due to the direction that was new, if there was one; else Broyden's update.
    """
    first = rank - 1 if new else 0
    total = 0.0
    for d in range(first, rank):
        total += coefficient[d] * coefficient[d]
    if total == 0.0:
        return
    for d in range(first, rank):
        c = coefficient[d] / total
        for s in range(missed.shape[0]):
            response[d, s] += c * missed[s]


@jit
def store_answer(packed, ordered, memory, i, actions, values):
    """Store actions (S,) and values (S,) that were found in another way."""
    m = packed.model[i]
    order = ordered.order[m]
    state = state_of(memory, ordered, m, i)
    for k in range(order.shape[0]):
        state.held[k] = actions[order[k]]
        state.values[k] = values[order[k]]
    load_rows(packed.discount[i], state)


@jit
def first_response_one(packed, ordered, memory, i, rewards, limits, answer, lengths):
    """Solve for follower i, of which nothing is known yet."""
    gamma = packed.discount[i]
    m = packed.model[i]
    order, width = ordered.order[m], ordered.successor.shape[3]
    states = order.shape[0]
    state = state_of(memory, ordered, m, i)
    scratch = Scratch(np.empty((3, states)), np.empty(states))
    actions, values, q_values = answer
    memory.known[i] = True
    memory.rewards[i] = rewards[i]
    memory.entries[i] = 0
    memory.rank[i] = 0
    largest = load_rewards(packed, ordered, i, rewards, state)
    memory.largest[i] = largest
    state.held[:] = -1
    state.values[:] = 0.0
    iterations = modified_policy_iteration(
        gamma, state, scratch, False, largest, limits.tolerance, limits.budget, lengths
    )
    actions[:] = -1
    for k in range(states):
        values[order[k]] = state.values[k]
    residual = certify(packed, i, rewards, values, q_values, actions, limits.uniform, lengths)
    goal = set_goal(limits.tolerance, gamma, largest, width, values).passes
    return iterations, residual, goal


@jit
def predicted_response_one(packed, ordered, memory, i, rewards, limits, answer, lengths):
    """Solve for follower i; returns as ``large_response_one``."""
    if not memory.known[i]:
        return first_response_one(packed, ordered, memory, i, rewards, limits, answer, lengths)
    gamma = packed.discount[i]
    m = packed.model[i]
    order, width = ordered.order[m], ordered.successor.shape[3]
    states = order.shape[0]
    state = state_of(memory, ordered, m, i)
    scratch = Scratch(np.empty((3, states)), np.empty(states))
    actions, values, q_values = answer
    move = np.empty(ENTRIES)
    coefficient = np.empty(DIRECTIONS)
    predicted = np.empty(states)
    largest = update_rewards(packed, memory, i, rewards, state, move)
    memory.rank[i], new = predict(
        memory.direction[i],
        memory.response[i],
        memory.rank[i],
        memory.entries[i],
        move,
        coefficient,
        predicted,
    )
    for k in range(states):
        state.values[k] += predicted[k]
        predicted[k] = state.values[k]
    goal = set_goal(limits.tolerance, gamma, largest, width, state.values)
    swept, change = settle_values(
        state.rows, state.values, scratch, goal.enough, 1, False, lengths[1]
    )
    iterations = 0
    residual = math.inf
    # The certificate comes first where the values have settled: if the policy holds, it is all.
    for _ in range(2):
        if change > goal.aim and iterations == 0:
            iterations = modified_policy_iteration(
                gamma, state, scratch, False, largest, limits.tolerance, limits.budget, lengths
            )
        for k in range(states):
            values[order[k]] = state.values[k]
            actions[order[k]] = state.held[k]
        residual = certify(packed, i, rewards, values, q_values, actions, limits.uniform, lengths)
        if residual <= goal.aim or iterations > 0:
            break
        change = math.inf
    if swept > EXACT or iterations > 0:
        missed = scratch.saved
        for k in range(states):
            missed[k] = state.values[k] - predicted[k]
        broyden_update(memory.response[i], memory.rank[i], new, coefficient, missed)
    return iterations, residual, goal.passes


@parallel_jit
def predicted_responses(
    packed,
    ordered,
    memory,
    rewards,
    limits,
    actions,
    values,
    q_values,
    residual,
    goal,
    iterations,
    n_actions,
    width,
):
    """As ``large_responses``, from the memory; all of the answer is written, nothing of it read."""
    # Arguments as in ``large_responses``.
    tolerance, budget, uniform = limits
    for i in numba.prange(packed.model.shape[0]):
        own = Answer(actions[i], values[i], q_values[i])
        until = Limits(tolerance, budget[i], uniform)
        iterations[i], residual[i], goal[i] = predicted_response_one(
            packed, ordered, memory, i, rewards, until, own, (n_actions, width)
        )
