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

from fastincentive.kernels.advantages import (
    evaluate_actions,
    largest_entry,
    mark_reachable,
    policy_scratch,
    settle_actions,
    smallest_loss,
)
from fastincentive.kernels.end_components import STAY, mark_resting, stay_together
from fastincentive.kernels.jit import jit, parallel_jit
from fastincentive.kernels.packed import CANCELLED

__all__ = ["Lines", "ResponseList", "walk_lines"]

#: Slopes below this share of the largest one count as flat.
FLAT = 1e-12
#: Lines end where payments are worth this many times the rest: arithmetic resolves no more.
FURTHEST = 1e6
#: No line has this many breakpoints.
MOST_BREAKS = 10_000
#: All choices among tied actions are listed up to this many, beyond only single changes, and these
#: as long as a list takes no more than so many bytes.
LISTED, SINGLES_BYTES = 64, 2**26


class Lines(NamedTuple):
    """Lines of rewards ``base + t direction``, 0 <= t <= upper, one for each of n followers."""

    base: np.ndarray  # (n, S, A) float64
    direction: np.ndarray  # (n, S, A) float64
    equals: np.ndarray  # (n, S, A) int64, see ``equal_actions.first_equals``
    idle: np.ndarray  # (n, S) int64, see ``mark_idle``: where base and direction are 0
    upper: np.ndarray  # (n,) float64


class ResponseList(NamedTuple):
    """Best responses along n lines, with room for C on each; along one line without the n.

    Response k is optimal for t in ``[lower[k], upper[k]]``.
    """

    lower: np.ndarray  # (n, C) float64
    upper: np.ndarray  # (n, C) float64
    visited: np.ndarray  # (n, C, S) int64, its actions in the states that it visits, -1 elsewhere
    full: np.ndarray  # (n, C, S) int64, with optimal actions elsewhere
    stop: np.ndarray  # (n, 2) float64, where a walk for want of room stopped, and its unit


class SearchScratch(NamedTuple):
    """Arrays that the search along the transitions overwrites."""

    choice: np.ndarray  # (S, A) bool
    queue: np.ndarray  # (S,) int64
    mark: np.ndarray  # (S,) bool


@jit
def add_rewards(base, direction, t, rewards, sizes):
    """Write base + t direction, 0 where the two cancel, and the sizes of what is added."""
    for s in range(base.shape[0]):
        for a in range(base.shape[1]):
            total = base[s, a] + t * direction[s, a]
            size = abs(base[s, a]) + abs(t * direction[s, a])
            rewards[s, a] = total if abs(total) > CANCELLED * size else 0.0
            sizes[s, a] = size


@jit
def widest(slack, s):
    """Largest slack of any action in a state."""
    size = slack[s, 0]
    for a in range(1, slack.shape[1]):
        size = max(size, slack[s, a])
    return size


@jit
def earns_optimum(packed, i, choice, mark, moving, worth, slack):
    """Whether deterministic choices (S,A) among tied actions end what they begin, at discount 1.

    A loop of tied actions that never ends does not earn the optimal value. Every marked state must
    reach an absorbing one, or one from which ``moving`` (S,A) stays 0 where ``worth`` (S,) is 0 up
    to ``slack`` (S,A).
    """
    states, actions = choice.shape
    m = packed.model[i]
    out = np.empty(states, np.bool_)
    policy = np.empty((states, actions))
    for s in range(states):
        for a in range(actions):
            policy[s, a] = 1.0 if choice[s, a] else 0.0
    mark_resting(packed, i, policy, moving, out)
    for s in range(states):
        out[s] = packed.absorbing[m, s] or (out[s] and worth[s] <= widest(slack, s))
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
    lost = 0
    for s in range(states):
        lost += mark[s] and not out[s]
    return lost == 0


@jit
def list_response(packed, i, pick, right, point, count, listed, scratch):
    """Add the response ``pick`` (S,) at a point if its visited part is new; returns the new count.

    ``point``: t, the rewards there (S,A), the values (S,) and their slack (S,A).
    """
    t, moving, value, slack = point
    choice, queue, _ = scratch
    capacity = listed.lower.shape[0]
    states = pick.shape[0]
    choice[:] = False
    for s in range(states):
        choice[s, pick[s]] = True
    mark = np.empty(states, np.bool_)
    mark_reachable(packed, i, choice, mark, queue)
    endless = packed.discount[i] == 1.0
    if endless and not earns_optimum(packed, i, choice, mark, moving, value, slack):
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
def list_tied(packed, i, tied, sides, point, count, listed, scratch):
    """List the responses that choose among tied actions; returns (count, whether all).

    ``sides``: optimal actions (S,) just before the point and just after it.
    """
    left, right = sides
    capacity = listed.lower.shape[0]
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
            count = list_response(packed, i, pick, right, point, count, listed, scratch)
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
        count = list_response(packed, i, origin, right, point, count, listed, scratch)
    for origin in (left, right):
        pick[:] = origin
        for k in range(spots):
            if count > capacity or 16 * states * count > SINGLES_BYTES:
                return count, False
            s = where[k]
            for a in range(actions):
                if tied[s, a] and a != origin[s]:
                    pick[s] = a
                    count = list_response(packed, i, pick, right, point, count, listed, scratch)
            pick[s] = origin[s]
    return count, False


@jit
def improve_slopes(packed, i, actions, direction, moving, tied, idle, scratch, slope, q_slopes):
    """Policy iteration with rewards ``direction`` among tied actions, in place.

    ``idle`` (S,) are actions that stay at value and slope 0 where that is as good, -1 elsewhere.
    Returns whether the last policy is proper, and up to which difference its slopes count as flat.
    """
    proper = True
    flat = 0.0
    for _ in range(10_000):
        proper, _ = evaluate_actions(
            packed, i, actions, direction, moving, scratch, slope, q_slopes
        )
        flat = FLAT * max(largest_entry(q_slopes), 1e-300)
        changed = False
        for s in range(actions.shape[0]):
            best = actions[s]
            top = slope[s]
            for a in range(direction.shape[1]):
                if tied[s, a] and q_slopes[s, a] > top + flat:
                    best = a
                    top = q_slopes[s, a]
            if idle[s] >= 0 and top + flat < 0.0:
                best = STAY
            if best != actions[s]:
                actions[s] = best
                changed = True
        if not (proper and changed):
            break
    if packed.discount[i] == 1.0:
        stay_together(packed, i, idle, actions)
    return proper, flat


@jit
def mark_lasting(packed, i, slopes, moving, flat, tied, listed, known, t, upper):
    """Extend to the end of the line what is optimal just after its last breakpoint t."""
    slope, q_slopes = slopes
    states, actions = tied.shape
    choice = np.empty((states, actions), np.bool_)
    mark = np.empty(states, np.bool_)
    slack = np.empty((states, 1))
    for k in range(known):
        lasting = listed.upper[k] == t
        for s in range(states):
            a = listed.visited[k, s]
            if a >= 0 and not (tied[s, a] and q_slopes[s, a] >= slope[s] - flat):
                lasting = False
        if lasting and packed.discount[i] == 1.0:
            for s in range(states):
                for a in range(actions):
                    choice[s, a] = a == listed.full[k, s]
                mark[s] = listed.visited[k, s] >= 0
                slack[s, 0] = flat
            lasting = earns_optimum(packed, i, choice, mark, moving, slope, slack)
        if lasting:
            listed.upper[k] = upper


@jit
def walk_one(packed, i, lines, actions, value, tied, tie, listed, found):
    """Walk the line of follower i; without a line return the smallest loss at its start."""
    base, direction, equals = lines.base[i], lines.direction[i], lines.equals[i]
    upper = lines.upper[i]
    states, width = base.shape
    m = packed.model[i]
    scratch = policy_scratch(packed, i, states, width)
    slope = np.zeros(states)
    q_values = np.empty((states, width))
    q_slopes = np.empty((states, width))
    rewards = np.empty((states, width))
    sizes = np.empty((states, width))
    slack = np.empty((states, width))
    search = SearchScratch(
        np.empty((states, width), np.bool_), np.empty(states, np.int64), np.empty(states, np.bool_)
    )
    idle = lines.idle[i]
    stays = np.empty(states, np.int64)
    moving = np.empty((states, width))
    for s in range(states):
        for a in range(width):
            moving[s, a] = abs(base[s, a]) + abs(direction[s, a])
    left = actions.copy()
    count, breaks, complete = found[0], found[1], found[3] != 0
    t, unit = (1.0, 0.0) if upper < 0.0 else (listed.stop[0], listed.stop[1])
    flat = 0.0
    proper = True
    while True:
        add_rewards(base, direction, t, rewards, sizes)
        # Before and after the actions are taken that are optimal next.
        for after in range(2):
            settle_actions(packed, i, rewards, sizes, actions, tie, scratch, value, q_values, slack)
            for s in range(states):
                actions[s] = equals[s, actions[s]]
            if after == 1:
                break
            if breaks == 0:
                left[:] = actions
                unit = max(largest_entry(q_values), largest_entry(base))
            for s in range(states):
                for a in range(width):
                    tied[s, a] = (
                        packed.available[m, s, a]
                        and equals[s, a] == a
                        and q_values[s, a] >= value[s] - slack[s, a]
                    )
                tied[s, actions[s]] = True
                stays[s] = idle[s] if value[s] <= widest(slack, s) else -1
            if upper < 0.0:
                return smallest_loss(packed, i, tied, value, q_values)
            # Of the actions tied here, those whose value grows fastest are optimal next.
            proper, flat = improve_slopes(
                packed, i, actions, direction, moving, tied, stays, scratch, slope, q_slopes
            )
            point = (t, rewards, value, slack)
            count, every = list_tied(packed, i, tied, (left, actions), point, count, listed, search)
            if count > listed.lower.shape[0]:
                actions[:] = left
                found[0], found[1], found[3] = listed.lower.shape[0], breaks, complete
                listed.stop[0], listed.stop[1] = t, unit
                return math.inf
            complete = complete and every
            if not proper:
                break
        if not proper:
            # At discount 1 what is paid from here on can be earned for ever.
            found[2] = 1
            break
        step = math.inf
        for s in range(states):
            for a in range(width):
                if tied[s, a] or not packed.available[m, s, a] or equals[s, a] != a:
                    continue
                rise = q_slopes[s, a] - slope[s]
                if rise > flat:
                    step = min(step, max(value[s] - q_values[s, a], 0.0) / rise)
            if idle[s] >= 0 and stays[s] < 0 and -slope[s] > flat:
                step = min(step, max(value[s], 0.0) / -slope[s])
        left[:] = actions
        if step == math.inf or t + step > upper:
            break
        complete = complete and breaks < MOST_BREAKS
        if breaks == MOST_BREAKS or (t + step) * largest_entry(q_slopes) > FURTHEST * unit:
            # There is more, but too much, or so far that rounding would hide it.
            upper = t + step
            found[4] = 1
            break
        t += step
        breaks += 1
    # What is optimal just after the last breakpoint stays optimal to the end of the line.
    if found[2] == 0:
        slopes = (slope, q_slopes)
        mark_lasting(packed, i, slopes, moving, flat, tied, listed, count, t, upper)
    found[0], found[1], found[3], found[5] = count, breaks, complete, 1
    return math.inf


@parallel_jit
def walk_lines(packed, lines, actions, values, tied, margin, tie, listed, found):
    """List the best responses of followers along their lines.

    Follower i (n of them; the same one may be given with several lines) starts from the best
    response ``actions`` (n,S) at t = 0, optimal up to rounding, of which ``values`` (n,S) are a
    guess; both are overwritten. ``listed`` and ``found`` are written. ``found`` (n,6) int64: number
    of responses, number of breakpoints, whether the line ended early because payments could be
    earned for ever at discount 1, whether all combinations of tied actions are listed, whether the
    line ended early because the next breakpoint is too far to be resolved, and whether the walk is
    done. One for which ``listed`` has no room stops: called again with all arrays and more room it
    goes on. At first all are 0, but ``found[:, 3]`` 1. Actions whose values differ by less than
    ``tie`` of what is added up at the state are tied.

    Where ``lines.upper`` is negative only the point t = 1 is looked at: ``tied`` (n,S,A) marks all
    optimal actions there, and ``margin`` (n,) is the smallest loss by any other in a state that
    they lead to. On other lines these two hold nothing of use.
    """
    # Names of their own for what threads write, as in ``sweeps.large_responses``.
    lower, upper, visited, full = listed.lower, listed.upper, listed.visited, listed.full
    stop = listed.stop
    for i in numba.prange(packed.model.shape[0]):
        if found[i, 5] != 0:
            continue
        own = ResponseList(lower[i], upper[i], visited[i], full[i], stop[i])
        margin[i] = walk_one(packed, i, lines, actions[i], values[i], tied[i], tie, own, found[i])
