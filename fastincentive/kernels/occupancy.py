"""A policy's rows in sweep order, and the occupancy by transposed Gauss-Seidel over them."""

from __future__ import annotations

import math

import numpy as np

from fastincentive.kernels.jit import jit
from fastincentive.kernels.sweeps import PLAIN, mixture

__all__ = ["identity_minus", "leave_over", "policy_rows", "push", "push_occupancy"]


@jit
def policy_rows(start, column, weight, order, reward, places, weights, earned, scale):
    """Write merged rows W of a policy in sweep order, (S, K), their own loops solved away.

    ``scale`` (S,) is 1 / (1 - loop).
    """
    states, width = places.shape
    place = np.empty(states, np.uint32)
    for k in range(states):
        place[order[k]] = k
    for k in range(states):
        s = order[k]
        loop = 0.0
        j = 0
        for e in range(start[s], start[s + 1]):
            if column[e] == s:
                loop += weight[e]
            else:
                places[k, j] = place[column[e]]
                weights[k, j] = weight[e]
                j += 1
        scale[k] = 1.0 / (1.0 - loop)
        for f in range(j):
            weights[k, f] *= scale[k]
        for f in range(j, width):
            places[k, f] = k
            weights[k, f] = 0.0
        earned[k] = scale[k] * reward[s]


@jit
def push(column, weight, pending, visits, width):
    """Pass on all pending mass once, against the order; returns what is pending, in absolute sum.

    The transposed Gauss-Seidel sweep of visits = initial + W' visits: a state's mass is counted,
    and handed to its successors, most of which come next.
    """
    row = len(width) if len(width) > 0 else column.shape[1]
    states = pending.shape[0]
    for k in range(states):
        s = states - 1 - k
        mass = pending[s]
        if mass != 0.0:
            pending[s] = 0.0
            visits[s] += mass
            for e in range(row):
                pending[column[s, e]] += mass * weight[s, e]
    total = 0.0
    for s in range(states):
        total += abs(pending[s])
    return total


@jit
def push_occupancy(column, weight, pending, visits, seen, left, goal, cycles, width):
    """Sweep until the mass still pending is at most ``goal``; returns sweeps made and that mass.

    ``pending`` (S,) holds the initial mass on entry, ``visits`` what was counted so far. ``seen``
    and ``left`` (4, S) are scratch: three successive pairs, and the pair to go back to.
    """
    count = 0
    total = math.inf
    states = pending.shape[0]
    for _ in range(cycles):
        for _ in range(PLAIN):
            total = push(column, weight, pending, visits, width)
            count += 1
            if total <= goal:
                return count, total
        for k in range(3):
            total = push(column, weight, pending, visits, width)
            count += 1
            if total <= goal:
                return count, total
            seen[k] = visits
            left[k] = pending
        g0, g1, g2 = mixture(left)
        for s in range(states):
            seen[3, s] = visits[s]
            left[3, s] = pending[s]
            visits[s] = g0 * seen[0, s] + g1 * seen[1, s] + g2 * seen[2, s]
            pending[s] = g0 * left[0, s] + g1 * left[1, s] + g2 * left[2, s]
        after = push(column, weight, pending, visits, width)
        count += 1
        if after < total:
            total = after
        else:
            visits[:] = seen[3]
            pending[:] = left[3]
    return count, total


@jit
def identity_minus(start, column, weight):
    """Return I - W for merged rows W: index pointer, columns and entries of a CSR matrix."""
    states = start.shape[0] - 1
    first = np.empty(states + 1, np.int32)
    at = np.empty(column.shape[0] + states, np.int32)
    entry = np.empty(at.shape[0])
    end = 0
    for s in range(states):
        first[s] = end
        at[end] = s
        entry[end] = 1.0
        own = end
        end += 1
        for e in range(start[s], start[s + 1]):
            if column[e] == s:
                entry[own] -= weight[e]
            else:
                at[end] = column[e]
                entry[end] = -weight[e]
                end += 1
    first[states] = end
    return first, at[:end], entry[:end]


@jit
def leave_over(column, weight, visits, pending):
    """Turn the initial mass in ``pending`` into the residual initial + W' visits - visits."""
    for s in range(pending.shape[0]):
        pending[s] -= visits[s]
        for k in range(column.shape[1]):
            pending[column[s, k]] += weight[s, k] * visits[s]
