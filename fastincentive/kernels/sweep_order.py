"""States in backward breadth-first order, for Gauss-Seidel sweeps, and transitions stored so.

A value depends on those of the state's successors. Sorted by their distance to the sinks, states
come after most of their successors, so that one Gauss-Seidel sweep carries the value of a goal
across the whole state space, and neighbours in the order are neighbours in memory (a level
structure as in the Cuthill-McKee ordering; Saad, Iterative Methods for Sparse Linear Systems, 2003,
section 3.3). O(nnz) for the order; 12 bytes for each padded entry of the rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastincentive.kernels.jit import jit

__all__ = ["Ordered", "backward_order", "count_pairs", "ordered_rows"]


class Ordered(NamedTuple):
    """Transition models in sweep order, every row padded to K entries of itself with weight 0."""

    order: np.ndarray  # (M, S) int64, the state at each place
    successor: np.ndarray  # (M, S, A, K) uint32, places; unsigned: negative indices cost a check
    probability: np.ndarray  # (M, S, A, K) float64


@jit
def backward_order(row_start, successor, sink, order):
    """Sort the states by their distance to the sinks; returns the widest level, at least 1.

    Breadth-first along the transitions backwards, from all sinks at once, then from the first
    state not yet met, and so on. The sinks, which nothing joins, count as one state.
    """
    states = sink.shape[0]
    actions = (row_start.shape[0] - 1) // states
    start = np.zeros(states + 1, np.int64)
    for e in range(successor.shape[0]):
        start[successor[e] + 1] += 1
    for s in range(states):
        start[s + 1] += start[s]
    predecessor = np.empty(successor.shape[0], np.int32)
    free = start[:-1].copy()
    for s in range(states):
        for e in range(row_start[s * actions], row_start[(s + 1) * actions]):
            c = successor[e]
            predecessor[free[c]] = s
            free[c] += 1
    seen = sink.copy()
    end = 0
    for s in range(states):
        if seen[s]:
            order[end] = s
            end += 1
    widest = 1
    first = 0
    unseen = 0
    while end < states or first < end:
        if first == end:
            while seen[unseen]:
                unseen += 1
            seen[unseen] = True
            order[end] = unseen
            end += 1
        last = end
        for k in range(first, last):
            c = order[k]
            for e in range(start[c], start[c + 1]):
                p = predecessor[e]
                if not seen[p]:
                    seen[p] = True
                    order[end] = p
                    end += 1
        widest = max(widest, end - last)
        first = last
    return widest


@jit
def count_pairs(row_start, successor, states):
    """Count the distinct (state, successor) pairs."""
    actions = (row_start.shape[0] - 1) // states
    mark = np.full(states, -1, np.int64)
    count = 0
    for s in range(states):
        for e in range(row_start[s * actions], row_start[(s + 1) * actions]):
            if mark[successor[e]] != s:
                mark[successor[e]] = s
                count += 1
    return count


@jit
def ordered_rows(row_start, values, probability, order, successor, weight):
    """Write the rows (S, A, K) of ``Ordered`` for one model."""
    states, actions, width = successor.shape
    place = np.empty(states, np.uint32)
    for k in range(states):
        place[order[k]] = k
    for k in range(states):
        for a in range(actions):
            row = order[k] * actions + a
            j = 0
            for e in range(row_start[row], row_start[row + 1]):
                successor[k, a, j] = place[values[e]]
                weight[k, a, j] = probability[e]
                j += 1
            while j < width:
                successor[k, a, j] = k
                weight[k, a, j] = 0.0
                j += 1
