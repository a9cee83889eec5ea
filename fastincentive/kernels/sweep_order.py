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

__all__ = ["Ordered", "backward_order", "count_pairs", "ordered_rows", "widest_row"]


class Ordered(NamedTuple):
    """Transition models in sweep order, every row padded to K entries of itself with weight 0."""

    order: np.ndarray  # (M, S) int64, the state at each place
    successor: np.ndarray  # (M, S, A, K) uint32, places; unsigned: negative indices cost a check
    probability: np.ndarray  # (M, S, A, K) float64


@jit
def backward_order(row_start, successor, sink, order):
    """Sort the states by their distance to the sinks, the states that no action leaves.

    Breadth-first along the transitions backwards, from all sinks at once, then from the first
    state not yet met, and so on. Written are ``sink`` (S,) and ``order`` (S,). Returns the widest
    level, at least 1, where the sinks, which nothing joins, count as one state; and how many states
    lead to a sink.
    """
    states = sink.shape[0]
    actions = (row_start.shape[0] - 1) // states
    # Loops lead nowhere. Unsigned numbers, for NumPy's wrap-around costs.
    start = np.zeros(states + 2, np.int64)
    for s in range(states):
        stays = True
        for e in range(np.uintp(row_start[s * actions]), np.uintp(row_start[(s + 1) * actions])):
            c = np.uint32(successor[e])
            if c != s:
                stays = False
                start[c + np.uint32(2)] += 1
        sink[s] = stays
    for s in range(states):
        start[s + 1] += start[s]
    predecessor = np.empty(successor.shape[0], np.uint32)
    for s in range(states):
        for e in range(np.uintp(row_start[s * actions]), np.uintp(row_start[(s + 1) * actions])):
            c = np.uint32(successor[e])
            if c != s:
                at = c + np.uint32(1)
                predecessor[np.uintp(start[at])] = s
                start[at] += 1
    seen = sink.copy()
    end = 0
    for s in range(states):
        if seen[s]:
            order[end] = s
            end += 1
    widest = 1
    first = 0
    unseen = 0
    led = states
    while end < states or first < end:
        if first == end:
            led = min(led, end)
            while seen[unseen]:
                unseen += 1
            seen[unseen] = True
            order[end] = unseen
            end += 1
        last = end
        for k in range(first, last):
            c = np.uint32(order[k])
            for e in range(np.uintp(start[c]), np.uintp(start[c + np.uint32(1)])):
                p = predecessor[e]
                if not seen[p]:
                    seen[p] = True
                    order[end] = p
                    end += 1
        widest = max(widest, end - last)
        first = last
    return widest, led


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
def widest_row(row_start):
    """Count the entries of the longest row."""
    widest = 0
    for row in range(row_start.shape[0] - 1):
        widest = max(widest, row_start[row + 1] - row_start[row])
    return widest


@jit
def ordered_rows(row_start, values, probability, order, successor, weight):
    """Write the rows (S, A, K) of ``Ordered`` for one model."""
    states, actions, width = successor.shape
    place = np.empty(states, np.uint32)
    for k in range(states):
        place[order[k]] = k
    flat, weights = successor.reshape(-1), weight.reshape(-1)
    at = np.uintp(0)
    one = np.uintp(1)
    for k in range(states):
        for row in range(order[k] * actions, (order[k] + 1) * actions):
            last = at + np.uintp(width)
            for e in range(np.uintp(row_start[row]), np.uintp(row_start[row + 1])):
                flat[at] = place[np.uint32(values[e])]
                weights[at] = probability[e]
                at += one
            while at < last:
                flat[at] = k
                weights[at] = 0.0
                at += one
