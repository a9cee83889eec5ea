"""The leader's three passes: forward label marginals, conditional rewards, backward adjoint.

Followers are independent given their policies, so the joint law at each time is the product of
the followers' marginals, and no table over the product space is ever needed.
"""

from __future__ import annotations

import numba
import numpy as np

from fastincentive.kernels.chain import (
    factorize,
    mark_never,
    merge_rows,
    model_size,
    solve_factored,
    sweep_values,
)
from fastincentive.kernels.jit import DENSE_STATES, jit, parallel_jit

__all__ = [
    "expected_rewards",
    "forward_marginals",
    "leader_gradients",
    "multilinear_rewards",
    "one_conditional",
    "settling_time",
    "varying_conditional",
    "varying_rewards",
]


@jit
def settling_time_one(packed, i, policies, discount, rest, settled):
    """Settling time of follower i."""
    _, states, actions = policies.shape
    absorbing = packed.absorbing[packed.model[i]]
    size = model_size(packed, i, states, actions)
    start = np.empty(states + 1, np.int64)
    column = np.empty(size, np.int64)
    weight = np.empty(size)
    merge_rows(packed, i, discount, policies[i], True, start, column, weight)
    never = np.empty(states, np.bool_)
    if mark_never(start, column, weight, absorbing, never):
        for s in range(states):
            if never[s]:
                for e in range(start[s], start[s + 1]):
                    weight[e] = 0.0
    for s in range(states):
        settled[i, s] = absorbing[s] or never[s]
        rest[i, s] = 0.0 if settled[i, s] else 1.0
    if states <= DENSE_STATES:
        lu = np.empty((states, states))
        last = np.empty(states, np.int64)
        factorize(start, column, weight, lu, last)
        solve_factored(lu, last, rest[i])
    else:
        reward = rest[i].copy()
        sweep_values(start, column, weight, reward, rest[i], 1e-6, 100_000)


@parallel_jit
def settling_time(packed, policies, discount, rest, settled):
    """Compute the expected discounted time (n,S) until followers are settled, and where that is.

    Settled: in an absorbing state, or in one from which the policy never reaches any.
    """
    for i in numba.prange(packed.model.shape[0]):
        settling_time_one(packed, i, policies, discount, rest, settled)


@jit
def step_forward(start, column, weight, mass, following):
    """One step of the chain; states without mass are skipped."""
    following[:] = 0.0
    for s in range(mass.shape[0]):
        p = mass[s]
        if p != 0.0:
            for e in range(start[s], start[s + 1]):
                following[column[e]] += p * weight[e]


@jit
def forward_one(packed, i, policies, labels, rest, masses, marginals, remainder):
    """Forward pass of follower i."""
    _, states, actions = policies.shape
    by_action = labels.shape[2] > 1
    size = model_size(packed, i, states, actions)
    start = np.empty(states + 1, np.int64)
    column = np.empty(size, np.int64)
    weight = np.empty(size)
    merge_rows(packed, i, 1.0, policies[i], False, start, column, weight)
    mass = masses[i].copy()
    following = np.empty(states)
    for t in range(marginals.shape[0]):
        left = 0.0
        for label in range(marginals.shape[2]):
            marginals[t, i, label] = 0.0
        for s in range(states):
            p = mass[s]
            if p != 0.0:
                left += p * rest[i, s]
                if by_action:
                    for a in range(actions):
                        marginals[t, i, labels[i, s, a]] += p * policies[i, s, a]
                else:
                    marginals[t, i, labels[i, s, 0]] += p
        remainder[t, i] = left
        step_forward(start, column, weight, mass, following)
        mass, following = following, mass
    masses[i] = mass


@parallel_jit
def forward_marginals(packed, policies, labels, rest, masses, marginals, remainder):
    """Label marginals of the next T times, written to ``marginals`` (T,n,L).

    ``masses`` (n,S) is the state law at the first of them on entry, after the last on return.
    ``labels`` is (n,S,1) or (n,S,A). ``rest`` (n,S) weighs a state by the time still to come, so
    that ``remainder[t, i]`` bounds follower i's share of what lies beyond t.
    """
    for i in numba.prange(packed.model.shape[0]):
        forward_one(packed, i, policies, labels, rest, masses, marginals, remainder)


@jit
def contract_others(table, marginals, i, work):
    """E[R | label_i = l] (L,) at one time, for a table over L^n and marginals (n,L).

    The table is contracted with the other followers' marginals, last axis first, in ``work``.
    """
    n, count = marginals.shape
    length = table.shape[0]
    source = table
    for j in range(n - 1, i, -1):
        length //= count
        for r in range(length):
            total = 0.0
            for label in range(count):
                total += source[r * count + label] * marginals[j, label]
            work[r] = total
        source = work
    for j in range(i):
        length //= count
        # Row by row: the inner loop runs along memory. In place, for row 0 is read first.
        for r in range(length):
            work[r] = source[r] * marginals[j, 0]
        for label in range(1, count):
            m = marginals[j, label]
            for r in range(length):
                work[r] += source[label * length + r] * m
        source = work
    return source[:count]


@parallel_jit
def multilinear_rewards(table, marginals, expected, conditional):
    """E[R] (T,) and E[R | label_i = l] (T,n,L) for a table over L^n, one time per task."""
    horizon, n, count = marginals.shape
    for t in numba.prange(horizon):
        work = np.empty(table.shape[0])
        for i in range(n):
            conditional[t, i] = contract_others(table, marginals[t], i, work)
        total = 0.0
        for label in range(count):
            total += marginals[t, 0, label] * conditional[t, 0, label]
        expected[t] = total


@parallel_jit
def expected_rewards(table, marginals, expected):
    """E[R] (T,) for a table over L^n, one time per task."""
    for t in numba.prange(marginals.shape[0]):
        work = np.empty(table.shape[0])
        first = contract_others(table, marginals[t], 0, work)
        total = 0.0
        for label in range(marginals.shape[2]):
            total += marginals[t, 0, label] * first[label]
        expected[t] = total


@parallel_jit
def one_conditional(table, marginals, i, conditional):
    """E[R | label_i = l] (T,L) of follower i alone for a table over L^n, one time per task."""
    for t in numba.prange(marginals.shape[0]):
        work = np.empty(table.shape[0])
        conditional[t] = contract_others(table, marginals[t], i, work)


@jit
def contract_pair(table, marginals, out):
    """Both conditionals (2,L) of a table (L^2,) at one time, in one reading of it."""
    count = marginals.shape[1]
    for column in range(count):
        out[1, column] = 0.0
    even = count - count % 4
    for row in range(count):
        m = marginals[0, row]
        place = table[row * count : (row + 1) * count]
        for column in range(count):
            out[1, column] += m * place[column]
        # Four sums, so that an addition need not wait for the one before.
        a = b = c = d = 0.0
        for k in range(0, even, 4):
            a += place[k] * marginals[1, k]
            b += place[k + 1] * marginals[1, k + 1]
            c += place[k + 2] * marginals[1, k + 2]
            d += place[k + 3] * marginals[1, k + 3]
        for k in range(even, count):
            a += place[k] * marginals[1, k]
        out[0, row] = (a + b) + (c + d)


@parallel_jit
def varying_rewards(tables, marginals, conditional):
    """E[R | label_i = l] (T,k,L) for a table (T,L^k) of its own at each time."""
    for t in numba.prange(tables.shape[0]):
        if marginals.shape[1] == 2:
            contract_pair(tables[t], marginals[t], conditional[t])
        else:
            work = np.empty(tables.shape[1])
            for i in range(marginals.shape[1]):
                conditional[t, i] = contract_others(tables[t], marginals[t], i, work)


@parallel_jit
def varying_conditional(tables, marginals, i, conditional):
    """As ``varying_rewards`` for follower i alone: (T,L)."""
    for t in numba.prange(tables.shape[0]):
        work = np.empty(tables.shape[1])
        conditional[t] = contract_others(tables[t], marginals[t], i, work)


@jit
def leader_gradient_one(packed, i, policies, labels, conditional, discount, tail, gradient):
    """Backward pass of follower i."""
    _, states, actions = policies.shape
    horizon = conditional.shape[0]
    by_action = labels.shape[2] > 1
    m = packed.model[i]
    size = model_size(packed, i, states, actions)
    start = np.empty(states + 1, np.int64)
    column = np.empty(size, np.int64)
    weight = np.empty(size)
    merge_rows(packed, i, 1.0, policies[i], False, start, column, weight)
    masses = np.empty((horizon, states))
    masses[0] = packed.initial[i]
    for t in range(1, horizon):
        step_forward(start, column, weight, masses[t - 1], masses[t])
    reward = np.empty(states)
    value = np.zeros(states)
    if tail:
        for s in range(states):
            reward[s] = 0.0
            for a in range(actions):
                label = labels[i, s, a] if by_action else labels[i, s, 0]
                reward[s] += policies[i, s, a] * conditional[horizon - 1, i, label]
        killed_start = np.empty(states + 1, np.int64)
        killed_column = np.empty(size, np.int64)
        killed_weight = np.empty(size)
        merge_rows(
            packed,
            i,
            discount,
            policies[i],
            discount == 1.0,
            killed_start,
            killed_column,
            killed_weight,
        )
        if states <= DENSE_STATES:
            lu = np.empty((states, states))
            last = np.empty(states, np.int64)
            factorize(killed_start, killed_column, killed_weight, lu, last)
            value[:] = reward
            solve_factored(lu, last, value)
        else:
            sweep_values(killed_start, killed_column, killed_weight, reward, value, 1e-13, 20_000)
    # Successors of a state under any action, merged: the only pairs the gradient needs.
    union = np.empty(states + 1, np.int64)
    successor = np.empty(size, np.int64)
    flow = np.zeros(size)
    place = np.full(states, -1, np.int64)
    pair = np.empty(size, np.int64)
    offset = packed.row_start[m * states * actions]
    end = 0
    for s in range(states):
        union[s] = end
        row = (m * states + s) * actions
        for e in range(packed.row_start[row], packed.row_start[row + actions]):
            c = packed.successor[e]
            if place[c] < union[s]:
                place[c] = end
                successor[end] = c
                end += 1
            pair[e - offset] = place[c]
    union[states] = end
    earned = np.zeros((states, labels.shape[2]))
    following = np.empty(states)
    for t in range(horizon - 1, -1, -1):
        power = discount**t
        for s in range(states):
            total = 0.0
            for e in range(start[s], start[s + 1]):
                total += weight[e] * value[column[e]]
            if by_action:
                here = 0.0
                for a in range(actions):
                    here += policies[i, s, a] * conditional[t, i, labels[i, s, a]]
            else:
                here = conditional[t, i, labels[i, s, 0]]
            following[s] = here + discount * total
            p = power * masses[t, s]
            if p != 0.0:
                for k in range(labels.shape[2]):
                    earned[s, k] += p * conditional[t, i, labels[i, s, k]]
                p *= discount
                for u in range(union[s], union[s + 1]):
                    flow[u] += p * value[successor[u]]
        value, following = following, value
    for s in range(states):
        for a in range(actions):
            if not packed.available[m, s, a]:
                gradient[i, s, a] = 0.0
                continue
            total = earned[s, a] if by_action else earned[s, 0]
            row = (m * states + s) * actions + a
            for e in range(packed.row_start[row], packed.row_start[row + 1]):
                total += packed.probability[e] * flow[pair[e - offset]]
            gradient[i, s, a] = total


@parallel_jit
def leader_gradients(packed, policies, labels, conditional, discount, tail, gradient):
    """dV/dpi (n,S,A) from the conditional rewards (T,n,L): the backward pass.

    The forward law is recomputed, so memory is O(T S) per thread. Beyond the horizon the
    conditional rewards are constant up to the certified tail, and ``tail`` says whether the
    adjoint starts from the stationary value of the last ones (else from 0).
    """
    for i in numba.prange(packed.model.shape[0]):
        leader_gradient_one(packed, i, policies, labels, conditional, discount, tail, gradient)
