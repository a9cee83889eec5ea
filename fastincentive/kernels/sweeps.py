"""Modified policy iteration by Gauss-Seidel sweeps: best responses and values, many states.

Puterman, Markov Decision Processes (1994), sections 6.3 (Gauss-Seidel value iteration), 6.5
(modified policy iteration) and 6.6 (MacQueen's bounds). The eigenmodes that converge slowly are
removed by reduced-rank extrapolation (Eddy, 1979; Mesina, 1977): three successive changes, combined
with weights of sum 1 so that they all but cancel, and taken back if the next sweep does not
confirm it. Below discount 1 each sweep is a contraction, whatever the point it starts from.

Bytes per state and sweep of a policy: its row of K successors 12 K, its reward 8, the value 16; of
value iteration over A actions: 12 A K, rewards 8 A, the action held 8, the value 16.

``lengths`` are two tuples whose *lengths* are the number of actions and the length K of a row, and
``width`` is the second: lengths of tuples are constants to the compiler, so the inner loops unroll.
An empty tuple stands for any number.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit

__all__ = [
    "Answer",
    "Goal",
    "Limits",
    "PolicyRows",
    "Scratch",
    "SweepState",
    "certify",
    "large_responses",
    "load_rewards",
    "load_row",
    "load_rows",
    "modified_policy_iteration",
    "set_goal",
    "settle_values",
    "sweep",
]

#: Plain sweeps before each extrapolation; half of them where the policy still changes.
PLAIN = 8
#: Jacobi sweeps in search of an error that all values have in common.
LEVELLING = 24
#: A policy that still changes is evaluated until changes are this share of the last improvement's.
SHARE = 0.1


class PolicyRows(NamedTuple):
    """The equation v = earned + W v of a policy, states in sweep order; W has no diagonal."""

    column: np.ndarray  # (S, K) uint32, places of the successors
    weight: np.ndarray  # (S, K) float64, W; padded with weight 0
    earned: np.ndarray  # (S,) float64


class SweepState(NamedTuple):
    """One follower's problem in sweep order, and where its solution stands."""

    successor: np.ndarray  # (S, A, K) uint32, of its model in ``Ordered``
    probability: np.ndarray  # (S, A, K) float64
    reward: np.ndarray  # (S, A) float64, -inf for unavailable actions
    held: np.ndarray  # (S,) int64, the action whose row stands in ``rows``, -1: none
    rows: PolicyRows  # of the policy ``held``
    values: np.ndarray  # (S,) float64


class Scratch(NamedTuple):
    """Arrays that ``settle_values`` overwrites."""

    steps: np.ndarray  # (3, S) float64, three successive changes of the values
    saved: np.ndarray  # (S,) float64, values to go back to


class Limits(NamedTuple):
    """When a best response is good enough, and when sweeps give up."""

    tolerance: float  # Bellman residual to reach in the sup-norm; 0: close to rounding
    budget: float  # row entries to sweep over
    uniform: bool  # whether all rows of the models are as long as the ordered ones


class Answer(NamedTuple):
    """A follower's best response, to be written."""

    actions: np.ndarray  # (S,) int64
    values: np.ndarray  # (S,) float64
    q_values: np.ndarray  # (S, A) float64


@jit
def load_row(gamma, s, a, state):
    """Write the row of action a in the s-th state, its own loop solved away."""
    successor, probability, column = state.successor, state.probability, state.rows.column
    weight = state.rows.weight
    loop = 0.0
    for k in range(column.shape[1]):
        if successor[s, a, k] == s:
            loop += probability[s, a, k]
    scale = 1.0 / (1.0 - gamma * loop)
    for k in range(column.shape[1]):
        c = successor[s, a, k]
        column[s, k] = c
        weight[s, k] = 0.0 if c == s else gamma * scale * probability[s, a, k]
    state.rows.earned[s] = scale * state.reward[s, a]


@jit
def improve(gamma, slack, state, lengths):
    """One sweep of value iteration; rows of states whose action changes are rewritten.

    Returns the largest change of a value and the number of actions that changed. An action is kept
    unless another one is better by more than ``slack``. Bytes: see the top of the file.
    """
    successor, probability, reward = state.successor, state.probability, state.reward
    values, held = state.values, state.held
    n_actions = len(lengths[0]) if len(lengths[0]) > 0 else reward.shape[1]
    row = len(lengths[1]) if len(lengths[1]) > 0 else successor.shape[2]
    change = 0.0
    moved = 0
    for s in range(reward.shape[0]):
        best = -math.inf
        now = held[s]
        kept = -math.inf
        for a in range(n_actions):
            total = 0.0
            for k in range(row):
                total += probability[s, a, k] * values[successor[s, a, k]]
            total = reward[s, a] + gamma * total
            kept = total if a == now else kept
            best = total if total > best else best
        if best > kept + slack:
            # Seldom: which action it is, is found out again.
            first = 0
            top = -math.inf
            for a in range(n_actions):
                total = 0.0
                for k in range(row):
                    total += probability[s, a, k] * values[successor[s, a, k]]
                total = reward[s, a] + gamma * total
                if total > top:
                    top = total
                    first = a
            held[s] = first
            moved += 1
            load_row(gamma, s, first, state)
        step = abs(best - values[s])
        if step > change:
            change = step
        values[s] = best
    return change, moved


@jit
def sweep(column, weight, earned, values, width):
    """One Gauss-Seidel sweep of v = earned + W v; returns the largest change.

    2 K flops and 12 K + 24 bytes for each state.
    """
    row = len(width) if len(width) > 0 else column.shape[1]
    change = 0.0
    for s in range(earned.shape[0]):
        total = earned[s]
        for k in range(row):
            total += weight[s, k] * values[column[s, k]]
        step = abs(total - values[s])
        values[s] = total
        if step > change:
            change = step
    return change


@jit
def sweep_noting(column, weight, earned, values, steps, width):
    """As ``sweep``; the changes are written to ``steps`` (S,)."""
    row = len(width) if len(width) > 0 else column.shape[1]
    change = 0.0
    for s in range(earned.shape[0]):
        total = earned[s]
        for k in range(row):
            total += weight[s, k] * values[column[s, k]]
        step = total - values[s]
        values[s] = total
        steps[s] = step
        if abs(step) > change:
            change = abs(step)
    return change


@jit
def extrapolation_weights(residuals):
    """Weights, of sum 1, of three successive residuals (3, S) whose weighted sum is the smallest.

    Least squares in two unknowns (reduced-rank extrapolation of order 2).
    """
    r0, r1, r2 = residuals[0], residuals[1], residuals[2]
    a11 = a12 = a22 = b1 = b2 = 0.0
    for s in range(r0.shape[0]):
        first = r1[s] - r0[s]
        second = r2[s] - r1[s]
        a11 += first * first
        a12 += first * second
        a22 += second * second
        b1 += first * r0[s]
        b2 += second * r0[s]
    determinant = a11 * a22 - a12 * a12
    if determinant > 1e-12 * a11 * a22:
        c1 = (b2 * a12 - b1 * a22) / determinant
        c2 = (b1 * a12 - b2 * a11) / determinant
    elif a11 > 0.0:  # one mode is left
        c1 = -b1 / a11
        c2 = 0.0
    else:
        return 0.0, 0.0, 1.0
    return 1.0 - c1, c1 - c2, c2


@jit
def remove_common_error(column, weight, earned, values, errors, width):
    """Estimate the error common to all values, and remove it; returns whether it was most of it.

    Errors lie between the extremes of residuals divided by 1 - row sum (MacQueen's bounds). Where
    chains mix soon, a few damped Jacobi sweeps, which keep a common error common, bring the
    extremes together; differences of changes, which extrapolation would need, are lost in rounding.
    ``errors`` (S,) is scratch.
    """
    row = len(width) if len(width) > 0 else column.shape[1]
    least = math.inf
    for _ in range(LEVELLING):
        low, high = math.inf, -math.inf
        for s in range(earned.shape[0]):
            total = earned[s] - values[s]
            left = 1.0
            for k in range(row):
                total += weight[s, k] * values[column[s, k]]
                left -= weight[s, k]
            if left <= 1e-12:
                return False  # no discount: an error common to all would not decay
            errors[s] = total / left
            least = left if left < least else least
            low = errors[s] if errors[s] < low else low
            high = errors[s] if errors[s] > high else high
        if high - low <= 0.2 * max(abs(low), abs(high)):
            values += 0.5 * (low + high)
            return True
        for s in range(earned.shape[0]):
            values[s] += least * errors[s]
    return False


@jit
def settle_values(rows, values, scratch, goal, cycles, mix, width):
    """Sweep until no value changes by more than ``goal``; returns sweeps made and last change.

    At most ``cycles`` rounds, each of which ends with an extrapolation unless ``mix`` is False.
    """
    column, weight, earned = rows.column, rows.weight, rows.earned
    steps, saved = scratch.steps, scratch.saved
    count = 0
    tried, wait = 0, 1
    change = math.inf
    least = math.inf
    stalled = 0
    for _ in range(cycles):
        for _ in range(PLAIN if cycles > 1 else PLAIN // 2):
            change = sweep(column, weight, earned, values, width)
            count += 1
            if change <= goal:
                return count, change
        if not mix:
            continue
        for k in range(3):
            change = sweep_noting(column, weight, earned, values, steps[k], width)
            count += 1
            if change <= goal:
                return count, change
        g0, g1, _ = extrapolation_weights(steps)
        for s in range(values.shape[0]):
            saved[s] = values[s]
            values[s] -= g0 * (steps[1, s] + steps[2, s]) + g1 * steps[2, s]
        after = sweep(column, weight, earned, values, width)
        count += 1
        failed = not after < change
        if failed:
            values[:] = saved
        else:
            change = after
        stalled = 0 if change < 0.5 * least else stalled + 1
        least = min(least, change)
        tried += 1
        if failed and stalled > 0 and tried >= wait:
            wait = (
                1 if remove_common_error(column, weight, earned, values, saved, width) else 2 * wait
            )
            tried = 0
            count += LEVELLING
        if stalled > 10 and change <= 1e-13 * np.abs(values).max():
            break  # rounding keeps the values moving
    return count, change


@jit
def load_rewards(packed, ordered, i, rewards, state):
    """Bring follower i's rewards into sweep order; returns the largest magnitude."""
    m = packed.model[i]
    order = ordered.order[m]
    largest = 0.0
    for k in range(order.shape[0]):
        s = order[k]
        for a in range(rewards.shape[2]):
            state.reward[k, a] = -math.inf
            if packed.available[m, s, a]:
                state.reward[k, a] = rewards[i, s, a]
                largest = max(largest, abs(rewards[i, s, a]))
    return largest


@jit
def load_rows(gamma, state):
    """Write the rows of all actions held."""
    for k in range(state.held.shape[0]):
        load_row(gamma, k, state.held[k], state)


class Goal(NamedTuple):
    """Bellman residuals to reach."""

    aim: float  # what sweeps try to reach
    enough: float  # change of a sweep of the policy that is small enough
    passes: float  # rounding may stop sweeps short of their aim: still good enough
    size: float  # of values and rewards


@jit
def set_goal(tolerance, gamma, largest, width, values):
    """Set the residuals to reach: never below what rounding allows for rows of this width.

    By default (``tolerance`` 0) they are well below ``TIE``, the gap between actions that are tied.
    """
    size = largest
    for s in range(values.shape[0]):
        size = max(size, abs(values[s]))
    noise = 2e-16 * (6.0 + math.sqrt(width)) * size
    aim = max(tolerance, 1.5 * noise)
    passes = tolerance
    if tolerance <= 0.0:
        aim = max(1e-13 * (1.0 - gamma) * size, aim)
        passes = max(2e-12 * (1.0 - gamma) * size, 3.0 * noise)
    return Goal(aim, max(0.3 * aim, noise), passes, size)


@jit
def modified_policy_iteration(gamma, state, scratch, stale, largest, tolerance, budget, lengths):
    """Run modified policy iteration from ``state``; returns the number of improvements.

    ``stale`` says that the rows of the actions held are not written yet.
    """
    values = state.values
    width = state.successor.shape[2]
    effort = width + 3.0
    slack = 0.0
    least = math.inf
    stalled = 0
    spent = 0.0
    count = 0
    for _ in range(1_000_000):
        change, moved = improve(gamma, slack, state, lengths)
        count += 1
        spent += state.reward.size * effort
        goal = set_goal(tolerance, gamma, largest, width, values)
        # An action is held for as long as it is worse by less than what the goal would notice.
        slack = 0.1 * goal.aim
        # Later updates of a sweep move a state's successors by at most `change` each.
        if gamma * change <= goal.aim:
            break
        # Where extrapolations do not help any more, plain sweeps converge; rounding alone may keep
        # the values moving.
        if change < 0.5 * least:
            least = change
            stalled = 0
        else:
            stalled += 1
        if (stalled > 30 and change <= 1e-13 * goal.size) or spent > budget:
            break
        if stale:
            load_rows(gamma, state)
            stale = False
        enough, cycles, mix = goal.enough, 20, True
        if moved > 0:
            enough, cycles, mix = max(enough, SHARE * change), 1, stalled < 20
            if not mix:
                cycles = 5
        swept, _ = settle_values(state.rows, values, scratch, enough, cycles, mix, lengths[1])
        spent += swept * values.size * effort
    return count


@jit
def certify(packed, i, rewards, values, q_values, actions, uniform, lengths):
    """Bellman residual of follower i in the model's own storage; Q (S, A), and optimal actions.

    The first of the best actions where the one given (-1: none) is not among them. ``uniform`` says
    that all rows have the length of ``lengths[1]``. Bytes: 12 for each stored transition.
    """
    states = values.shape[0]
    count = len(lengths[0]) if len(lengths[0]) > 0 else rewards.shape[2]
    row = len(lengths[1])
    m = packed.model[i]
    gamma = packed.discount[i]
    worst = 0.0
    size = 0.0
    for s in range(states):
        size = max(size, abs(values[s]))
    slack = 1e-13 * size
    for s in range(states):
        best = -math.inf
        for a in range(count):
            total = 0.0
            pair = (m * states + s) * count + a
            if uniform and row > 0:
                for k in range(row):
                    # Unsigned, for NumPy's wrap-around costs.
                    at = np.uintp(pair * row + k)
                    total += packed.probability[at] * values[np.uint32(packed.successor[at])]
            else:
                for e in range(packed.row_start[pair], packed.row_start[pair + 1]):
                    total += packed.probability[e] * values[packed.successor[e]]
            total = rewards[i, s, a] + gamma * total
            if not packed.available[m, s, a]:
                total = -math.inf
            q_values[s, a] = total
            best = total if total > best else best
        worst = max(worst, abs(best - values[s]))
        now = actions[s]
        if now < 0 or q_values[s, now] < best - slack:
            a = 0
            while q_values[s, a] < best - slack:
                a += 1
            actions[s] = a
    return worst


@jit
def large_response_one(packed, ordered, i, rewards, limits, answer, lengths):
    """Solve for follower i; returns improvements, residual, and the residual that passes."""
    _, states, count = rewards.shape
    gamma = packed.discount[i]
    m = packed.model[i]
    order, width = ordered.order[m], ordered.successor.shape[3]
    state = SweepState(
        ordered.successor[m],
        ordered.probability[m],
        np.empty((states, count)),
        answer.actions[order],
        PolicyRows(
            np.empty((states, width), np.uint32), np.empty((states, width)), np.empty(states)
        ),
        np.zeros(states),
    )
    scratch = Scratch(np.empty((3, states)), np.empty(states))
    largest = load_rewards(packed, ordered, i, rewards, state)
    # Where no action is held yet, the first improvement takes all rows.
    stale = state.held.min() < 0 <= state.held.max()
    if state.held.min() >= 0:
        load_rows(gamma, state)
        settle_values(state.rows, state.values, scratch, 1e-4 * largest, 20, True, lengths[1])
    iterations = modified_policy_iteration(
        gamma, state, scratch, stale, largest, limits.tolerance, limits.budget, lengths
    )
    actions, values, q_values = answer
    for k in range(states):
        values[order[k]] = state.values[k]
    residual = certify(packed, i, rewards, values, q_values, actions, limits.uniform, lengths)
    goal = set_goal(limits.tolerance, gamma, largest, width, values).passes
    return iterations, residual, goal


@parallel_jit
def large_responses(
    packed,
    ordered,
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
    """Optimal actions (n,S), V* (n,S), Q* (n,S,A) and Bellman residuals (n,), discounts below 1.

    Modified policy iteration: sweeps of value iteration, with sweeps of the policy found between
    them. ``limits`` are those of ``Limits``, with a budget (n,) for each follower. Written are
    ``actions`` (-1 on entry: none, else the warm start), ``values``, ``q_values``, residuals,
    residuals that pass (n,), and numbers of improvements (n,). Stops where the sup-norm residual is
    certain to be below the tolerance, or if that is 0 below 1e-13 (1 - gamma) of the size of the
    values; or, without having got there, once the budget of row entries is spent.
    """
    # What threads write are arguments of their own: of a loop that writes into arrays of a tuple
    # Numba may drop the writes. Threads take no tuples of tuples either, so the two of ``lengths``
    # come one by one.
    tolerance, budget, uniform = limits
    for i in numba.prange(packed.model.shape[0]):
        own = Answer(actions[i], values[i], q_values[i])
        until = Limits(tolerance, budget[i], uniform)
        iterations[i], residual[i], goal[i] = large_response_one(
            packed, ordered, i, rewards, until, own, (n_actions, width)
        )
