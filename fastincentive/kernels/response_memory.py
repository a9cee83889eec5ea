"""Best responses from memory: what has changed since the last call, and what follows from it.

While a policy stays optimal its values are linear in the rewards. The responses of the values to
the directions in which rewards have moved so far are kept, so that a move along known directions is
answered by a prediction, a sweep or two of the policy, and the certificate. What a prediction
missed goes into the responses (Broyden's update).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit
from fastincentive.kernels.sweeps import (
    Lines,
    certify,
    iterate,
    load_lines,
    set_goal,
    settle_values,
    take_row,
    take_rows,
)

__all__ = ["DIRECTIONS", "ENTRIES", "Recall", "learn", "predict", "recalled_responses", "restore"]

#: Reward entries that may have moved, and directions that are kept, for each follower.
ENTRIES, DIRECTIONS = 64, 8
#: A direction is new if this share of a move lies outside those known.
NEW = 1e-6
#: Up to so many sweeps of the policy, a prediction counts as exact.
EXACT = 3


class Recall(NamedTuple):
    """What is kept of n followers between calls; places are those of the sweeps."""

    known: np.ndarray  # (n,) bool: whether there has been a call
    rewards: np.ndarray  # (n, S, A) of the last call, states as they are numbered
    largest: np.ndarray  # (n,) their largest magnitude
    reward: np.ndarray  # (n, S, A) and what follows: Lines
    held: np.ndarray  # (n, S)
    column: np.ndarray  # (n, S, K)
    weight: np.ndarray  # (n, S, K)
    earned: np.ndarray  # (n, S)
    values: np.ndarray  # (n, S)
    place: np.ndarray  # (M, S) place of each state
    entry: np.ndarray  # (n, ENTRIES) s * A + a of the rewards that have moved
    entries: np.ndarray  # (n,) how many
    rank: np.ndarray  # (n,) number of directions
    direction: np.ndarray  # (n, DIRECTIONS, ENTRIES) orthonormal
    response: np.ndarray  # (n, DIRECTIONS, S) change of the values per unit along them


@jit
def lines_of(recall, i):
    """Follower i's lines."""
    return Lines(
        recall.reward[i],
        recall.held[i],
        recall.column[i],
        recall.weight[i],
        recall.earned[i],
        recall.values[i],
    )


@jit
def note_changes(packed, ordered, recall, i, rewards, lines, move):
    """Bring the lines up to date with new rewards; returns the largest reward.

    ``move`` (ENTRIES,) receives the changes of the entries. Where there are too many to be told one
    by one, all entries and directions are forgotten.
    """
    _, states, actions = rewards.shape
    m = packed.model[i]
    last = recall.rewards[i]
    entry = recall.entry[i]
    used = recall.entries[i]
    largest = recall.largest[i]
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
            k = recall.place[m, s]
            lines.reward[k, a] = now
            largest = max(largest, abs(now))
            if lines.held[k] == a:
                take_row(
                    ordered.successor[m],
                    ordered.probability[m],
                    lines.reward,
                    packed.discount[i],
                    k,
                    a,
                    lines.column,
                    lines.weight,
                    lines.earned,
                )
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
                recall.direction[i, :, j] = 0.0
            move[j] = step
    if used < 0:
        used = 0
        recall.rank[i] = 0
    recall.entries[i] = used
    if fallen:
        largest = 0.0
        for k in range(states):
            for a in range(actions):
                if lines.reward[k, a] != -math.inf:
                    largest = max(largest, abs(lines.reward[k, a]))
    recall.largest[i] = largest
    return largest


@jit
def predict(direction, response, rank, used, move, coefficient, applied):
    """Write the response of the values to a move of the rewards, as far as known, to ``applied``.

    ``coefficient`` (DIRECTIONS,) receives the move in terms of the directions. Returns the number
    of directions, one more where the move is new, and whether it is.
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
def learn(response, rank, new, coefficient, missed):
    """Put what the prediction ``missed`` (S,) into the responses.

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
def restore(packed, ordered, recall, i, actions, values):
    """Take over actions (S,) and values (S,) that were found in another way."""
    m = packed.model[i]
    order = ordered.order[m]
    lines = lines_of(recall, i)
    for k in range(order.shape[0]):
        lines.held[k] = actions[order[k]]
        lines.values[k] = values[order[k]]
    take_rows(ordered.successor[m], ordered.probability[m], packed.discount[i], lines)


@jit
def recalled_response_one(
    packed,
    ordered,
    recall,
    i,
    rewards,
    tolerance,
    budget,
    uniform,
    actions,
    values,
    q_values,
    residual,
    goal,
    iterations,
    n_actions,
    width,
):
    """Solve for follower i."""
    states = rewards.shape[1]
    gamma = packed.discount[i]
    m = packed.model[i]
    order, successor, probability = ordered.order[m], ordered.successor[m], ordered.probability[m]
    lines = lines_of(recall, i)
    steps = np.empty((3, states))
    saved = np.empty(states)
    if not recall.known[i]:
        recall.known[i] = True
        recall.rewards[i] = rewards[i]
        recall.entries[i] = 0
        recall.rank[i] = 0
        largest = load_lines(packed, ordered, i, rewards, lines)
        recall.largest[i] = largest
        lines.held[:] = -1
        lines.values[:] = 0.0
        iterations[i] = iterate(
            successor,
            probability,
            gamma,
            lines,
            False,
            largest,
            tolerance,
            budget[i],
            steps,
            saved,
            n_actions,
            width,
        )
        actions[i] = -1
        for k in range(states):
            values[i, order[k]] = lines.values[k]
        residual[i] = certify(
            packed, i, rewards, values[i], q_values[i], actions[i], uniform, n_actions, width
        )
        goal[i] = set_goal(tolerance, gamma, largest, successor.shape[2], values[i]).passes
        return
    move = np.empty(ENTRIES)
    coefficient = np.empty(DIRECTIONS)
    predicted = np.empty(states)
    largest = note_changes(packed, ordered, recall, i, rewards, lines, move)
    recall.rank[i], new = predict(
        recall.direction[i],
        recall.response[i],
        recall.rank[i],
        recall.entries[i],
        move,
        coefficient,
        predicted,
    )
    for k in range(states):
        lines.values[k] += predicted[k]
        predicted[k] = lines.values[k]
    aims = set_goal(tolerance, gamma, largest, successor.shape[2], lines.values)
    swept, change = settle_values(
        lines.column,
        lines.weight,
        lines.earned,
        lines.values,
        steps,
        saved,
        aims.enough,
        1,
        False,
        width,
    )
    iterations[i] = 0
    # The certificate comes first where the values have settled: if the policy holds, it is all.
    for _ in range(2):
        if change > aims.aim and iterations[i] == 0:
            iterations[i] = iterate(
                successor,
                probability,
                gamma,
                lines,
                False,
                largest,
                tolerance,
                budget[i],
                steps,
                saved,
                n_actions,
                width,
            )
        for k in range(states):
            values[i, order[k]] = lines.values[k]
            actions[i, order[k]] = lines.held[k]
        residual[i] = certify(
            packed, i, rewards, values[i], q_values[i], actions[i], uniform, n_actions, width
        )
        if residual[i] <= aims.aim or iterations[i] > 0:
            break
        change = math.inf
    goal[i] = aims.passes
    if swept > EXACT or iterations[i] > 0:
        for k in range(states):
            saved[k] = lines.values[k] - predicted[k]
        learn(recall.response[i], recall.rank[i], new, coefficient, saved)


@parallel_jit
def recalled_responses(
    packed,
    ordered,
    recall,
    rewards,
    tolerance,
    budget,
    uniform,
    actions,
    values,
    q_values,
    residual,
    goal,
    iterations,
    n_actions,
    width,
):
    """As ``large_responses``, from what ``recall`` tells; all outputs are written."""
    for i in numba.prange(packed.model.shape[0]):
        recalled_response_one(
            packed,
            ordered,
            recall,
            i,
            rewards,
            tolerance,
            budget,
            uniform,
            actions,
            values,
            q_values,
            residual,
            goal,
            iterations,
            n_actions,
            width,
        )
