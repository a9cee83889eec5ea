"""Joint trajectories of n followers, and estimates of gradients and values from them.

The score-function estimator, REINFORCE (Williams, 1992), with the reward-to-go and leave-one-out
baselines (Kool, van Hoof and Welling, 2019); Monte Carlo policy evaluation, every visit (Sutton and
Barto, Reinforcement Learning, 2018, section 5.1). Every trajectory draws from a generator of its
own, given by a seed and its number, and sums are taken over a fixed number of groups of
trajectories: results do not depend on the threads. O(T n) for each trajectory of T steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit

__all__ = [
    "CENTRED",
    "NONE",
    "OTHERS",
    "SOFTMAX",
    "TIME",
    "CumulativeLaws",
    "Trajectories",
    "score_trajectories",
    "show_labels",
    "simulate",
    "sum_returns",
    "sum_rows",
    "weigh",
]

#: What a row of scores is turned into: the gradient in a direct policy, less its mean over the row,
#: or that in the parameters of a softmax.
CENTRED, SOFTMAX = 0, 1
#: The baseline, subtracted from the weights of the scores: none, the mean of the others at the same
#: time, the mean of their returns.
NONE, TIME, OTHERS = 0, 1, 2
#: Rows of more successors than this are searched by bisection.
SHORT_ROW = 8


class CumulativeLaws(NamedTuple):
    """Cumulative distributions of what is drawn; float64."""

    starts: np.ndarray  # (n, S)
    actions: np.ndarray  # (n, S, A)
    successors: np.ndarray  # (nnz,) within each row


class Trajectories(NamedTuple):
    """B joint trajectories of at most T steps.

    What is kept by step lies end to end: trajectory b has ``place[b]:place[b] + length[b]``.
    """

    states: np.ndarray  # (B, T, n) int32
    actions: np.ndarray  # (B, T, n) int32
    length: np.ndarray  # (B,) int64, steps until nothing is earned any more
    place: np.ndarray  # (B,) int64


@jit
def scramble(key):
    """Scramble 64 bits (the finaliser of SplitMix64; Steele, Lea and Flood, 2014)."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


@jit
def to_unit(key):
    """Return a number in [0, 1) from 64 random bits."""
    return np.float64(key >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@jit
def inverse_cdf(cumulative, first, last, u):
    """First place in first..last-1 whose cumulative probability is above u, the last one at most.

    Linear search in short rows, bisection in long ones.
    """
    if last - first > SHORT_ROW:
        end = last - 1
        while first < end:
            middle = (first + end) // 2
            if cumulative[middle] > u:
                end = middle
            else:
                first = middle + 1
        return first
    while first < last - 1 and cumulative[first] <= u:
        first += 1
    return first


@jit
def sum_rows(row_start, probability, out):
    """Cumulative distribution of each row of successors; the last entries are 1."""
    for row in range(row_start.shape[0] - 1):
        total = 0.0
        for e in range(row_start[row], row_start[row + 1]):
            total += probability[e]
            out[e] = total
        for e in range(row_start[row], row_start[row + 1]):
            # What is in the last place ends at 1 exactly, also where a row adds up to a bit less.
            out[e] = min(out[e] / total, 1.0)


@parallel_jit
def simulate(packed, cumulative, ended, seed, first, out):
    """Draw joint trajectories number ``first``, ``first + 1``, ...

    A trajectory ends early once every follower is in a state marked in ``ended`` (n,S).
    """
    # A loop of threads that writes into nothing but arrays of a tuple is taken for dead by Numba.
    to_states, to_actions, to_length = out.states, out.actions, out.length
    count, horizon, n = to_states.shape
    _, states, actions = cumulative.actions.shape
    step = np.uint64(0x9E3779B97F4A7C15)
    for b in numba.prange(count):
        key = scramble(scramble(np.uint64(seed)) + step * np.uint64(first + b))
        for i in range(n):
            key += step
            to_states[b, 0, i] = inverse_cdf(
                cumulative.starts[i], 0, states, to_unit(scramble(key))
            )
        length = horizon
        for t in range(horizon):
            active = False
            for i in range(n):
                s = to_states[b, t, i]
                active = active or not ended[i, s]
                key += step
                a = inverse_cdf(cumulative.actions[i, s], 0, actions, to_unit(scramble(key)))
                to_actions[b, t, i] = a
                key += step
                if t < horizon - 1:
                    row = (packed.model[i] * states + s) * actions + a
                    at = inverse_cdf(
                        cumulative.successors,
                        packed.row_start[row],
                        packed.row_start[row + 1],
                        to_unit(scramble(key)),
                    )
                    to_states[b, t + 1, i] = packed.successor[at]
            if not active:
                length = t
                break
        to_length[b] = length


@parallel_jit
def show_labels(drawn, labels, out):
    """Labels (M, n) that the leader sees in all steps, end to end."""
    by_action = labels.shape[2] > 1
    for b in numba.prange(drawn.length.shape[0]):
        for t in range(drawn.length[b]):
            for i in range(labels.shape[0]):
                a = drawn.actions[b, t, i] if by_action else 0
                out[drawn.place[b] + t, i] = labels[i, drawn.states[b, t, i], a]


@jit
def weigh(drawn, rewards, discount, to_go, baseline, weights, returned):
    """Weights (M,) of the scores in all steps, from the rewards (M,), and the returns (B,).

    The discounted return, or with ``to_go`` what comes at the step or later, less the mean of the
    other trajectories' at the same time (``TIME``) or of their returns (``OTHERS``).
    """
    count, horizon, _ = drawn.states.shape
    powers = np.empty(horizon)
    power = 1.0
    for t in range(horizon):
        powers[t] = power
        power *= discount
    sums = np.zeros(horizon)
    total = 0.0
    for b in range(count):
        later = 0.0
        for t in range(drawn.length[b] - 1, -1, -1):
            later += powers[t] * rewards[drawn.place[b] + t]
            weights[drawn.place[b] + t] = later
            sums[t] += later
        returned[b] = later
        total += later
    for b in range(count):
        others = (total - returned[b]) / (count - 1)
        for t in range(drawn.length[b]):
            at = drawn.place[b] + t
            own = weights[at] if to_go else returned[b]
            if baseline == TIME and to_go:
                own -= (sums[t] - own) / (count - 1)
            elif baseline != NONE:
                own -= others
            weights[at] = own


@jit
def gradient_row(kind, scores, policy, available, tau, out):
    """Turn the scores of the actions taken in a state (A,) into a row of the gradient."""
    actions = scores.shape[0]
    if kind == SOFTMAX:
        total = 0.0
        for a in range(actions):
            total += scores[a]
        for a in range(actions):
            out[a] = (scores[a] - policy[a] * total) / tau
        return
    mean = 0.0
    count = 0
    for a in range(actions):
        out[a] = 0.0
        if available[a]:
            count += 1
            if scores[a] != 0.0:
                out[a] = scores[a] / policy[a]
                mean += out[a]
    mean /= count
    for a in range(actions):
        out[a] = out[a] - mean if available[a] else 0.0


@parallel_jit
def score_trajectories(packed, policies, kind, tau, drawn, weights, sums, squares, met):
    """Sum the score-function estimates of trajectories, in G groups of consecutive ones.

    The estimate of one is sum_t w_t grad log pi(a_t|s_t), turned row by row. ``sums`` and
    ``squares`` (G,n,S,A) receive the sums of its entries and of their squares, ``met`` (G,n,S) the
    number of trajectories that met a state.
    """
    groups = sums.shape[0]
    count, _, n = drawn.states.shape
    _, states, actions = policies.shape
    for g in numba.prange(groups):
        scores = np.zeros((states, actions))
        visited = np.empty(states, np.int64)
        fresh = np.ones(states, np.bool_)
        row = np.empty(actions)
        for b in range(g * count // groups, (g + 1) * count // groups):
            for i in range(n):
                many = 0
                for t in range(drawn.length[b]):
                    s = drawn.states[b, t, i]
                    if fresh[s]:
                        fresh[s] = False
                        visited[many] = s
                        many += 1
                    scores[s, drawn.actions[b, t, i]] += weights[drawn.place[b] + t]
                available = packed.available[packed.model[i]]
                for k in range(many):
                    s = visited[k]
                    gradient_row(kind, scores[s], policies[i, s], available[s], tau, row)
                    met[g, i, s] += 1
                    for a in range(actions):
                        sums[g, i, s, a] += row[a]
                        squares[g, i, s, a] += row[a] * row[a]
                        scores[s, a] = 0.0
                    fresh[s] = True


@parallel_jit
def sum_returns(discounts, rewards, drawn, visits, returns, starts, squares):
    """Sum each follower's discounted visits, returns and values, in G groups of trajectories.

    ``visits`` (G,n,S,A) receives sum_t gamma_i^t for the pairs met, ``returns`` the same times the
    return from there on, ``starts`` and ``squares`` (G,n) that from the start, and its square.
    """
    groups = visits.shape[0]
    count, horizon, n = drawn.states.shape
    for g in numba.prange(groups):
        later = np.empty(horizon + 1)
        for b in range(g * count // groups, (g + 1) * count // groups):
            length = drawn.length[b]
            for i in range(n):
                gamma = discounts[i]
                later[length] = 0.0
                for t in range(length - 1, -1, -1):
                    reward = rewards[i, drawn.states[b, t, i], drawn.actions[b, t, i]]
                    later[t] = reward + gamma * later[t + 1]
                share = 1.0
                for t in range(length):
                    s, a = drawn.states[b, t, i], drawn.actions[b, t, i]
                    visits[g, i, s, a] += share
                    returns[g, i, s, a] += share * later[t]
                    share *= gamma
                starts[g, i] += later[0]
                squares[g, i] += later[0] * later[0]
