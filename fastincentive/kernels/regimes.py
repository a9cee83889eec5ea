"""Parametric policy iteration: every best response of a follower along a line of payments.

The parametric simplex method (Gass and Saaty, 1955; Bertsimas and Tsitsiklis, Introduction to
Linear Optimization, 1997, section 5.5) on the linear programme of a decision process. With reward
R + t D the values of a fixed policy are linear in t, so a policy stays optimal until the first
advantage reaches zero. There the set of optimal actions is known; the policy that is optimal next
maximises the slope D over that set (a decision process of its own), whatever the number of actions
that tie. So breakpoints are met one by one, exactly, degenerate ones included.

Cost of a breakpoint: a policy evaluation at it, one for each improvement of the slopes (two at
least), and one after it; by dense LU factors 2/3 S^3 flops each at most, less by the envelope.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from fastincentive.kernels.bellman import action_values, mean_reward, write_actions
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

__all__ = ["Lines", "ResponseList", "first_equals", "walk_lines"]

#: Slopes below this share of the largest one count as flat.
FLAT = 1e-12
#: Lines end where payments are worth this many times the rest: arithmetic resolves no more.
FURTHEST = 1e6
#: No line has this many breakpoints.
MOST_BREAKS = 10_000
#: All choices among tied actions are listed up to this many, beyond only single changes.
LISTED = 64


class Lines(NamedTuple):
    """Lines of rewards ``base + t direction``, 0 <= t <= upper, one for each of n followers."""

    base: np.ndarray  # (n, S, A) float64
    direction: np.ndarray  # (n, S, A) float64
    equals: np.ndarray  # (n, S, A) int64, see ``first_equals``
    upper: np.ndarray  # (n,) float64


class ResponseList(NamedTuple):
    """Best responses along n lines, with room for C on each; along one line without the n.

    Response k is optimal for t in ``[lower[k], upper[k]]``.
    """

    lower: np.ndarray  # (n, C) float64
    upper: np.ndarray  # (n, C) float64
    visited: np.ndarray  # (n, C, S) int64, its actions in the states that it visits, -1 elsewhere
    full: np.ndarray  # (n, C, S) int64, with optimal actions elsewhere


class PolicyScratch(NamedTuple):
    """Arrays that the evaluation of a policy overwrites."""

    policy: np.ndarray  # (S, A) float64
    start: np.ndarray  # (S + 1,) int64; with the next two the rows of gamma P^pi
    column: np.ndarray  # (nnz,) int64
    weight: np.ndarray  # (nnz,) float64
    lu: np.ndarray  # (S, S) float64, or (0, 0) where there are too many states
    last: np.ndarray  # (S,) int64, last column of each row of U


class SearchScratch(NamedTuple):
    """Arrays that the search along the transitions overwrites."""

    choice: np.ndarray  # (S, A) bool
    queue: np.ndarray  # (S,) int64
    mark: np.ndarray  # (S,) bool


@jit
def equal_rows(packed, first, second, scratch):
    """Whether two rows of the transition lists are the same law; ``scratch`` (S,) holds zeros."""
    for e in range(packed.row_start[first], packed.row_start[first + 1]):
        scratch[packed.successor[e]] += packed.probability[e]
    for e in range(packed.row_start[second], packed.row_start[second + 1]):
        scratch[packed.successor[e]] -= packed.probability[e]
    equal = True
    for row in (first, second):
        for e in range(packed.row_start[row], packed.row_start[row + 1]):
            c = packed.successor[e]
            equal = equal and abs(scratch[c]) <= 1e-14
            scratch[c] = 0.0
    return equal


@parallel_jit
def first_equals(packed, rewards, index, labels, out):
    """First action (n,S,A) that is equivalent to each: same law, reward, payment and label.

    ``labels`` is (n,S,1) or (n,S,A). Unavailable actions get -1.
    """
    n, states, actions = rewards.shape
    for i in numba.prange(n):
        m = packed.model[i]
        scratch = np.zeros(states)
        for s in range(states):
            for a in range(actions):
                out[i, s, a] = -1
                if not packed.available[m, s, a]:
                    continue
                out[i, s, a] = a
                for b in range(a):
                    if out[i, s, b] != b or rewards[i, s, a] != rewards[i, s, b]:
                        continue
                    if index[i, s, a] != index[i, s, b]:
                        continue
                    if labels.shape[2] > 1 and labels[i, s, a] != labels[i, s, b]:
                        continue
                    row = (m * states + s) * actions
                    if equal_rows(packed, row + a, row + b, scratch):
                        out[i, s, a] = b
                        break


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
def evaluate_actions(packed, i, actions, rewards, scratch, value, q_values):
    """Write values and Q-values of deterministic actions; whether they are proper."""
    policy, start, column, weight, lu, last = scratch
    gamma = packed.discount[i]
    write_actions(packed, i, actions, policy)
    merge_rows(packed, i, gamma, policy, gamma == 1.0, start, column, weight)
    proper = True
    mean_reward(policy, rewards, value)
    if lu.shape[0] > 0:
        proper = factorize(start, column, weight, lu, last) < 0
        solve_factored(lu, last, value)
    else:
        if gamma == 1.0:
            never = np.empty(value.shape[0], np.bool_)
            proper = not mark_never_absorbed(
                start, column, weight, packed.absorbing[packed.model[i]], never
            )
        total = value.copy()
        value[:] = 0.0
        sweep_values(start, column, weight, total, value, 1e-15, 1_000_000)
    action_values(packed, i, gamma, rewards, value, q_values)
    return proper


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
def can_be_absorbed(packed, i, choice, mark):
    """Whether every marked state can reach an absorbing one under the choices (S,A)."""
    states, actions = choice.shape
    m = packed.model[i]
    out = packed.absorbing[m].copy()
    grown = True
    while grown:
        grown = False
        for s in range(states):
            if out[s] or not mark[s]:
                continue
            for a in range(actions):
                if choice[s, a]:
                    row = (m * states + s) * actions + a
                    for e in range(packed.row_start[row], packed.row_start[row + 1]):
                        if packed.probability[e] > 0.0 and out[packed.successor[e]]:
                            out[s] = True
            grown = grown or out[s]
    return not (mark & ~out).any()


@jit
def list_response(packed, i, pick, right, t, count, listed, scratch):
    """Add the response ``pick`` (S,) at t if its visited part is new; returns the new count."""
    choice, queue, _ = scratch
    capacity = listed.lower.shape[0]
    states = pick.shape[0]
    choice[:] = False
    for s in range(states):
        choice[s, pick[s]] = True
    mark = np.empty(states, np.bool_)
    mark_reachable(packed, i, choice, mark, queue)
    # At discount 1 a loop of tied actions that never ends does not earn the optimal value.
    if packed.discount[i] == 1.0 and not can_be_absorbed(packed, i, choice, mark):
        return count
    for k in range(min(count, capacity) - 1, -1, -1):
        same = True
        for s in range(states):
            if listed.visited[k, s] != (pick[s] if mark[s] else -1):
                same = False
                break
        if same:
            listed.upper[k] = t
            return count
    if count < capacity:
        listed.lower[count] = t
        listed.upper[count] = t
        for s in range(states):
            listed.visited[count, s] = pick[s] if mark[s] else -1
            listed.full[count, s] = pick[s] if mark[s] else right[s]
    return count + 1


@jit
def list_tied(packed, i, tied, sides, t, count, listed, scratch):
    """List the responses that choose among tied actions; returns (count, whether all).

    ``sides``: optimal actions (S,) just before t and just after it.
    """
    left, right = sides
    mark = scratch.mark
    states, actions = tied.shape
    mark_reachable(packed, i, tied, mark, scratch.queue)
    where = np.empty(states, np.int64)
    spots = 0
    total = 1.0
    for s in range(states):
        if mark[s]:
            options = 0
            for a in range(actions):
                options += tied[s, a]
            if options > 1:
                where[spots] = s
                spots += 1
                total *= options
    pick = right.copy()
    if total <= LISTED:
        for k in range(spots):
            pick[where[k]] = np.argmax(tied[where[k]])
        while True:
            count = list_response(packed, i, pick, right, t, count, listed, scratch)
            k = 0
            while k < spots:
                s = where[k]
                a = pick[s] + 1
                while a < actions and not tied[s, a]:
                    a += 1
                if a < actions:
                    pick[s] = a
                    break
                pick[s] = np.argmax(tied[s])
                k += 1
            if k == spots:
                return count, True
    for origin in (left, right):
        pick[:] = origin
        count = list_response(packed, i, pick, right, t, count, listed, scratch)
        for k in range(spots):
            s = where[k]
            for a in range(actions):
                if tied[s, a] and a != origin[s]:
                    pick[s] = a
                    count = list_response(packed, i, pick, right, t, count, listed, scratch)
            pick[s] = origin[s]
    return count, False


@jit
def improve_slopes(packed, i, actions, direction, tied, scratch, slope, q_slopes):
    """Policy iteration with rewards ``direction`` among tied actions, in place.

    Returns whether the last policy is proper, and up to which difference its slopes count as flat.
    """
    proper = True
    flat = 0.0
    for _ in range(10_000):
        proper = evaluate_actions(packed, i, actions, direction, scratch, slope, q_slopes)
        flat = FLAT * max(largest_entry(q_slopes), 1e-300)
        changed = False
        for s in range(actions.shape[0]):
            best = actions[s]
            for a in range(direction.shape[1]):
                if tied[s, a] and q_slopes[s, a] > q_slopes[s, best] + flat:
                    best = a
            if best != actions[s]:
                actions[s] = best
                changed = True
        if not (proper and changed):
            break
    return proper, flat


@jit
def walk_one(packed, i, lines, actions, tie, listed, found):
    """Walk the line of follower i."""
    base, direction, equals = lines.base[i], lines.direction[i], lines.equals[i]
    upper = lines.upper[i]
    states, width = base.shape
    m = packed.model[i]
    size = model_size(packed, i, states, width)
    dense = states <= DENSE_STATES
    scratch = PolicyScratch(
        np.empty((states, width)),
        np.empty(states + 1, np.int64),
        np.empty(size, np.int64),
        np.empty(size),
        np.empty((states, states)) if dense else np.empty((0, 0)),
        np.empty(states, np.int64),
    )
    value = np.empty(states)
    slope = np.empty(states)
    q_values = np.empty((states, width))
    q_slopes = np.empty((states, width))
    rewards = np.empty((states, width))
    tied = np.empty((states, width), np.bool_)
    search = SearchScratch(
        np.empty((states, width), np.bool_), np.empty(states, np.int64), np.empty(states, np.bool_)
    )
    left = actions.copy()
    count = 0
    breaks = 0
    complete = True
    t = 0.0
    unit = 0.0
    while True:
        rewards[:] = base + t * direction
        evaluate_actions(packed, i, actions, rewards, scratch, value, q_values)
        near = tie * max(largest_entry(q_values), 1e-9)
        if breaks == 0:
            unit = max(largest_entry(q_values), largest_entry(base))
        for s in range(states):
            for a in range(width):
                tied[s, a] = (
                    packed.available[m, s, a]
                    and equals[s, a] == a
                    and q_values[s, a] >= value[s] - near
                )
            tied[s, actions[s]] = True
        # Of the actions tied here, those whose value grows fastest are optimal next.
        proper, flat = improve_slopes(packed, i, actions, direction, tied, scratch, slope, q_slopes)
        count, every = list_tied(packed, i, tied, (left, actions), t, count, listed, search)
        complete = complete and every
        if not proper:
            # At discount 1 what is paid from here on can be earned for ever.
            found[2] = 1
            break
        evaluate_actions(packed, i, actions, rewards, scratch, value, q_values)
        step = math.inf
        for s in range(states):
            for a in range(width):
                if tied[s, a] or not packed.available[m, s, a] or equals[s, a] != a:
                    continue
                rise = q_slopes[s, a] - slope[s]
                if rise > flat:
                    step = min(step, max(value[s] - q_values[s, a], 0.0) / rise)
        left[:] = actions
        if step == math.inf or t + step > upper:
            break
        if breaks == MOST_BREAKS:
            complete = False
            break
        if (t + step) * largest_entry(q_slopes) > FURTHEST * unit:
            # There is more, but so far that rounding would hide it.
            upper = t + step
            found[4] = 1
            break
        t += step
        breaks += 1
    # What is optimal just after the last breakpoint stays optimal to the end of the line.
    if found[2] == 0:
        for k in range(min(count, listed.lower.shape[0])):
            lasting = listed.upper[k] == t
            for s in range(states):
                a = listed.visited[k, s]
                if a >= 0 and not (tied[s, a] and q_slopes[s, a] >= slope[s] - flat):
                    lasting = False
            if lasting:
                listed.upper[k] = upper
    found[0] = count
    found[1] = breaks
    found[3] = complete


@parallel_jit
def walk_lines(packed, lines, actions, tie, listed, found):
    """List the best responses of followers along their lines.

    Follower i (n of them; the same one may be given with several lines) starts from the best
    response ``actions`` (n,S) at t = 0, in actions that are their own ``lines.equals``; the array
    is overwritten. ``listed`` and ``found`` are written. ``found`` (n,5) int64: number of responses
    (those for which ``listed`` has no room are not stored), number of breakpoints, whether the line
    ended early because payments could be earned for ever at discount 1, whether all combinations of
    tied actions are listed, and whether the line ended early because the next breakpoint is too far
    to be resolved. Actions whose values are within ``tie`` of the size of the largest are tied.
    """
    # Names of their own for what threads write, as in ``sweeps.large_responses``.
    lower, upper, visited, full = listed.lower, listed.upper, listed.visited, listed.full
    for i in numba.prange(packed.model.shape[0]):
        own = ResponseList(lower[i], upper[i], visited[i], full[i])
        walk_one(packed, i, lines, actions[i], tie, own, found[i])
