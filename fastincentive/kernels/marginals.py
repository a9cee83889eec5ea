"""The leader's forward and backward pass: laws and label marginals, and the adjoint equation.

Between them come the conditional rewards of the followers' labels, which depend on the kind of
reward (``contraction``, ``counts``, ``products``, ...). Followers are independent given their
policies, so the joint law at each time is the product of the followers' marginals, and no table
over the product space is ever needed. The backward pass is reverse accumulation through the
Kolmogorov forward equation (Griewank and Walther, Evaluating Derivatives, 2008, chapter 3).

Cost for each step and follower with E distinct pairs of state and successor: forward 2 E flops,
backward 4 E; both read 12 E bytes, the backward pass reads and writes 16 E more.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit
from fastincentive.kernels.packed import DENSE_STATES
from fastincentive.kernels.policy_chain import (
    factorize,
    mark_never_absorbed,
    solve_factored,
    sweep_values,
)
from fastincentive.kernels.sparsity import policy_weights

__all__ = [
    "SETTLE",
    "STEP",
    "WEIGH",
    "Chains",
    "ForwardLaws",
    "first_below",
    "forward_laws",
    "leader_gradients",
]

#: What the forward pass does before its first step.
STEP, WEIGH, SETTLE = 0, 1, 2
#: Less mass than this is dropped: arithmetic with such small (denormal) products is slow.
NEGLIGIBLE = 1e-250
#: Steps within which most policies settle half of what is left, from the worst state on.
FIRST_SWEEPS = 64
#: Slower ones, once states that are never left are known, are given these before a solve.
MOST_SWEEPS = 512
#: Up to this many states LU factors are quicker than sweeps.
FACTORED_STATES = 64


class Chains(NamedTuple):
    """The followers' chains under their policies, on the pattern, and where they are.

    Settled: in an absorbing state, or in one from which the policy never reaches any.
    """

    weights: np.ndarray  # (n, E) probability of every entry of the pattern
    rest: np.ndarray  # (n, S) bound on the expected discounted time until settled, or other weights
    settled: np.ndarray  # (n, S) bool
    lost: np.ndarray  # (n,) bool, whether the policy has states that it never leaves
    masses: np.ndarray  # (n, S) law at the first time on entry, after the last on return
    remainder: np.ndarray  # (T, n) law at t times ``rest``: a share of what lies beyond t


class ForwardLaws(NamedTuple):
    """What the backward pass needs of the forward one."""

    weights: np.ndarray  # (n, E) of the chains
    laws: np.ndarray  # (T, n, S) of the states; or of no times: they are computed again


@jit
def bound_settling_time(start, column, weight, discount, settled, sweeps, rest):
    """Bound the expected discounted time (S,) until settled; returns whether the bound is good.

    A chain started in s is unsettled after k steps with probability u_k(s), at most c from any
    state; what follows is no more than u_k / (1 - c) times the time so far. Good as soon as c is a
    half, within the given number of ``sweeps``.
    """
    states = rest.shape[0]
    now = np.empty(states)
    following = np.empty(states)
    for s in range(states):
        now[s] = 0.0 if settled[s] else 1.0
        rest[s] = now[s]
    for _ in range(sweeps):
        most = 0.0
        longest = 0.0
        for s in range(states):
            total = 0.0
            if not settled[s]:
                for e in range(start[s], start[s + 1]):
                    total += weight[e] * now[column[e]]
                total *= discount
            following[s] = total
            most = max(most, total)
            longest = max(longest, rest[s])
        if most <= 0.5:
            for s in range(states):
                rest[s] += following[s] * longest / (1.0 - most)
            return True
        for s in range(states):
            rest[s] += following[s]
        now, following = following, now
    return False


@jit
def settling_time_one(packed, start, column, m, discount, weight, rest, settled):
    """Settling time of one follower; returns whether it has states that it never leaves."""
    states = rest.shape[0]
    settled[:] = packed.absorbing[m]
    # Where this succeeds every state leads to an absorbing one.
    if bound_settling_time(start, column, weight, discount, settled, FIRST_SWEEPS, rest):
        return False
    never = np.empty(states, np.bool_)
    lost = mark_never_absorbed(start, column, weight, packed.absorbing[m], never)
    for s in range(states):
        settled[s] |= never[s]
    if bound_settling_time(start, column, weight, discount, settled, MOST_SWEEPS, rest):
        return lost
    killed = np.empty(column.shape[0])
    for s in range(states):
        rest[s] = 0.0 if settled[s] else 1.0
        for e in range(start[s], start[s + 1]):
            killed[e] = 0.0 if settled[s] else discount * weight[e]
    if states <= DENSE_STATES:
        lu = np.empty((states, states))
        last = np.empty(states, np.int64)
        factorize(start, column, killed, lu, last)
        solve_factored(lu, last, rest)
    else:
        reward = rest.copy()
        sweep_values(start, column, killed, reward, rest, 1e-6, 100_000)
    return lost


@jit
def step_forward(start, column, weight, rest, mass, following):
    """One step of the chain; states without mass are skipped. Returns the mass times ``rest``.

    Bytes: 12 for each entry of the pattern, 24 for each state.
    """
    following[:] = 0.0
    left = 0.0
    for s in range(mass.shape[0]):
        p = mass[s]
        if p > NEGLIGIBLE:
            left += p * rest[s]
            for e in range(start[s], start[s + 1]):
                following[column[e]] += p * weight[e]
    return left


@jit
def narrow_labels(labels):
    """Labels (S,1) or (S,A) of one follower as unsigned numbers, whose use needs no check."""
    narrow = np.empty(labels.shape, np.uint32)
    for s in range(labels.shape[0]):
        for a in range(labels.shape[1]):
            narrow[s, a] = labels[s, a]
    return narrow


@jit
def show_labels(mass, policy, shown, seen):
    """Law (L,) of the labels that a state law (S,) shows."""
    seen[:] = 0.0
    for s in range(shown.shape[0]):
        if shown.shape[1] > 1:
            for a in range(shown.shape[1]):
                seen[shown[s, a]] += mass[s] * policy[s, a]
        else:
            seen[shown[s, 0]] += mass[s]


@jit
def forward_one(packed, pattern, i, policies, labels, discount, stage, chains, laws, marginals):
    """Forward pass of follower i."""
    states = policies.shape[1]
    m = packed.model[i]
    start = pattern.start[m]
    column = pattern.column[pattern.base[m] : pattern.base[m + 1]]
    weight = chains.weights[i]
    rest = chains.rest[i]
    left = chains.remainder
    if stage >= WEIGH:
        policy_weights(packed, pattern, i, policies[i], weight)
        chains.lost[i] = stage == SETTLE and settling_time_one(
            packed, start, column, m, discount, weight, rest, chains.settled[i]
        )
    horizon = left.shape[0]
    keep = laws.shape[0] > 0
    show = marginals.shape[0] > 0
    shown = narrow_labels(labels[i])
    last = chains.masses[i]
    if keep and horizon > 0:
        laws[0, i] = last
        for t in range(horizon - 1):
            left[t, i] = step_forward(start, column, weight, rest, laws[t, i], laws[t + 1, i])
        t = horizon - 1
        left[t, i] = step_forward(start, column, weight, rest, laws[t, i], last)
        if show:
            for t in range(horizon):
                show_labels(laws[t, i], policies[i], shown, marginals[t, i])
        return
    mass = last.copy()
    following = np.empty(states)
    for t in range(horizon):
        if show:
            show_labels(mass, policies[i], shown, marginals[t, i])
        left[t, i] = step_forward(start, column, weight, rest, mass, following)
        mass, following = following, mass
    last[:] = mass


@parallel_jit
def forward_laws(packed, pattern, policies, labels, discount, stage, chains, laws, marginals):
    """State laws (T,n,S) and label marginals (T,n,L) of the next T times; no times: not asked for.

    ``labels`` is (n,S,1) or (n,S,A). ``stage`` says what is done before the first step: ``SETTLE``
    writes the weights of the chains and how long they take to settle, ``WEIGH`` the weights alone.
    """
    for i in numba.prange(packed.model.shape[0]):
        forward_one(packed, pattern, i, policies, labels, discount, stage, chains, laws, marginals)


@jit
def first_below(remainder, discount, first, tolerance):
    """First time at which discount^(first + t) sum_i remainder[t, i] <= tolerance.

    Returns it (-1: never) and the sum there, or the last one.
    """
    bound = 0.0
    power = discount**first
    for t in range(remainder.shape[0]):
        bound = 0.0
        for i in range(remainder.shape[1]):
            bound += remainder[t, i]
        bound *= power
        if bound <= tolerance:
            return t, bound
        power *= discount
    return -1, bound


@jit
def stationary_value(start, column, weight, reward, discount, ended, value):
    """Solve v = reward + discount P v; at discount 1 v is 0 where ``ended``."""
    states = reward.shape[0]
    killed = np.empty(column.shape[0])
    for s in range(states):
        scale = 0.0 if ended[s] and discount == 1.0 else discount
        for e in range(start[s], start[s + 1]):
            killed[e] = scale * weight[e]
    value[:] = 0.0
    if states > FACTORED_STATES:
        for sweeps in (200, 20_000):
            change = sweep_values(start, column, killed, reward, value, 1e-13, sweeps)
            if change <= 1e-13 * np.abs(value).max():
                return
            if states <= DENSE_STATES:
                break
        else:
            return
    lu = np.empty((states, states))
    last = np.empty(states, np.int64)
    factorize(start, column, killed, lu, last)
    value[:] = reward
    solve_factored(lu, last, value)


@jit
def leader_gradient_one(
    packed, pattern, i, policies, labels, forward, conditional, discount, tail, gradient
):
    """Backward pass of follower i; returns the leader's value as its rewards add up to it."""
    laws = forward.laws
    _, states, actions = policies.shape
    horizon = conditional.shape[0]
    m = packed.model[i]
    start = pattern.start[m]
    column = pattern.column[pattern.base[m] : pattern.base[m + 1]]
    weight = forward.weights[i]
    shown = narrow_labels(labels[i])
    by_action = shown.shape[1] > 1
    masses = laws
    owner = np.int64(i)
    if laws.shape[0] == 0:
        masses = np.empty((horizon, 1, states))
        owner = np.int64(0)
        masses[0, 0] = packed.initial[i]
        none = np.zeros(states)
        for t in range(1, horizon):
            step_forward(start, column, weight, none, masses[t - 1, 0], masses[t, 0])
    reward = np.empty(states)
    value = np.zeros(states)
    if tail:
        earned_last = conditional[horizon - 1, i]
        for s in range(states):
            reward[s] = 0.0
            for a in range(actions):
                reward[s] += policies[i, s, a] * earned_last[shown[s, a if by_action else 0]]
        stationary_value(start, column, weight, reward, discount, packed.absorbing[m], value)
    # dV/dP of every entry of the pattern, and what actions earn at once, over all visits.
    slope = np.zeros(column.shape[0])
    earned = np.zeros(shown.shape)
    following = np.empty(states)
    powers = np.empty(horizon)
    power = 1.0
    for t in range(horizon):
        powers[t] = power
        power *= discount
    for t in range(horizon - 1, -1, -1):
        now = conditional[t, i]
        mass = masses[t, owner]
        for s in range(states):
            p = powers[t] * mass[s]
            if by_action:
                here = 0.0
                for a in range(actions):
                    here += policies[i, s, a] * now[shown[s, a]]
                    earned[s, a] += p * now[shown[s, a]]
            else:
                here = now[shown[s, 0]]
                earned[s, 0] += p * here
            p *= discount
            total = 0.0
            for e in range(start[s], start[s + 1]):
                later = value[column[e]]
                total += weight[e] * later
                slope[e] += p * later
            following[s] = here + discount * total
        value, following = following, value
    leader_value = 0.0
    for s in range(states):
        if not by_action:
            leader_value += earned[s, 0]
        for a in range(actions):
            total = 0.0
            if packed.available[m, s, a]:
                total = earned[s, a if by_action else 0]
                if by_action:
                    leader_value += policies[i, s, a] * total
                row = (m * states + s) * actions + a
                for e in range(packed.row_start[row], packed.row_start[row + 1]):
                    total += packed.probability[e] * slope[pattern.place[e]]
            gradient[i, s, a] = total
    return leader_value


@parallel_jit
def leader_gradients(
    packed, pattern, policies, labels, forward, conditional, discount, tail, gradient, value_of
):
    """dV/dpi (n,S,A) from the conditional rewards (T,n,L): the backward pass.

    ``value_of[i]`` (n,) is the leader's value as follower i's rewards add up to it.

    Beyond the horizon the conditional rewards are constant up to the certified tail, and ``tail``
    says whether the adjoint starts from the stationary value of the last ones (else from 0).
    """
    for i in numba.prange(packed.model.shape[0]):
        value_of[i] = leader_gradient_one(
            packed,
            pattern,
            i,
            policies,
            labels,
            forward,
            conditional,
            discount,
            tail,
            gradient,
        )
