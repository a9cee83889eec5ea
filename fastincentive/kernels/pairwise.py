"""Rewards of pairs of followers, edge by edge.

A follower's conditional reward holds the sum over the edges of all others: the total less its own
edges. Sums are compensated, with their rounding errors beside them (Knuth's two-sum; Neumaier,
1974), and an edge's expected reward is the same number wherever it is formed: taking edges off a
sum cancels them exactly. O(L^2) flops for each edge and time, O(L) with a shared table.
"""

from __future__ import annotations

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit

__all__ = ["add_edges", "edge_rewards", "largest_rewards", "shared_rewards", "take_edges"]


@jit
def two_sum_error(first, second):
    """Return what first + second loses, by Knuth's two-sum."""
    total = first + second
    part = total - first
    return (first - (total - part)) + (second - part)


@jit
def add_compensated(sums, x, value):
    """Add to one of some sums (m,2), each a leading part and its rounding errors."""
    sums[x, 1] += two_sum_error(sums[x, 0], value)
    sums[x, 0] += value


@jit
def edge_reward(edges, tables, e, marginals):
    """Average the table of edge e over the label laws (n,L) of its two followers."""
    i, j = edges[e, 0], edges[e, 1]
    x = min(e, tables.shape[0] - 1)  # there may be one table for all
    total = 0.0
    for a in range(tables.shape[1]):
        given = 0.0
        for b in range(tables.shape[2]):
            given += tables[x, a, b] * marginals[j, b]
        total += marginals[i, a] * given
    return total


@jit
def edge_conditionals(edges, tables, e, marginals, first, second, out):
    """As ``edge_reward``; adds the conditional rewards of both ends to rows of ``out`` (m,L)."""
    i, j = edges[e, 0], edges[e, 1]
    x = min(e, tables.shape[0] - 1)
    total = 0.0
    for a in range(tables.shape[1]):
        p = marginals[i, a]
        given = 0.0
        for b in range(tables.shape[2]):
            given += tables[x, a, b] * marginals[j, b]
            out[second, b] += p * tables[x, a, b]
        out[first, a] += given
        total += p * given
    return total


@jit
def shared_edge_conditionals(edges, e, to_first, to_second, marginals, conditional):
    """As ``edge_conditionals``, given each follower's label law times the table (n,L)."""
    i, j = edges[e, 0], edges[e, 1]
    total = 0.0
    for b in range(marginals.shape[1]):
        conditional[i, b] += to_first[j, b]
        conditional[j, b] += to_second[i, b]
        total += marginals[i, b] * to_first[j, b]
    return total


@jit
def count_edge(edges, e, value, sums):
    """Add the expected reward of edge e to the sums (n+1,2) of its followers and of all."""
    add_compensated(sums, edges[e, 0], value)
    add_compensated(sums, edges[e, 1], value)
    add_compensated(sums, sums.shape[0] - 1, value)


@jit
def finish(sums, conditional):
    """Add the edges of the others to the followers' own (n,L); returns the expected reward."""
    n = conditional.shape[0]
    for i in range(n):
        lost = two_sum_error(sums[n, 0], -sums[i, 0]) + (sums[n, 1] - sums[i, 1])
        rest = (sums[n, 0] - sums[i, 0]) + lost
        for b in range(conditional.shape[1]):
            conditional[i, b] += rest
    return sums[n, 0] + sums[n, 1]


@jit
def edge_rewards_one(edges, tables, marginals, conditional):
    """Conditional rewards (n,L) at one time; returns the expected reward."""
    sums = np.zeros((marginals.shape[0] + 1, 2))
    conditional[:] = 0.0
    for e in range(edges.shape[0]):
        i, j = edges[e, 0], edges[e, 1]
        value = edge_conditionals(edges, tables, e, marginals, i, j, conditional)
        count_edge(edges, e, value, sums)
    return finish(sums, conditional)


@jit
def shared_rewards_one(edges, to_first, to_second, marginals, conditional):
    """Conditional rewards (n,L) at one time; returns the expected reward."""
    sums = np.zeros((marginals.shape[0] + 1, 2))
    conditional[:] = 0.0
    for e in range(edges.shape[0]):
        value = shared_edge_conditionals(edges, e, to_first, to_second, marginals, conditional)
        count_edge(edges, e, value, sums)
    return finish(sums, conditional)


@jit
def take_edges_one(edges, tables, chosen, i, marginals, t, total, conditional):
    """Take the edges of follower i off sum t, and write its conditional rewards (L,)."""
    out = np.zeros((2, conditional.shape[0]))  # its own, and those of others
    for e in chosen:
        first = 0 if edges[e, 0] == i else 1
        add_compensated(
            total, t, -edge_conditionals(edges, tables, e, marginals, first, 1 - first, out)
        )
    for b in range(conditional.shape[0]):
        conditional[b] = out[0, b] + (total[t, 0] + total[t, 1])


@parallel_jit
def edge_rewards(edges, tables, marginals, expected, conditional):
    """E[R] (T,) and E[R | label_i = l] (T,n,L) for edges (E,2), tables (E,L,L) or one (1,L,L).

    O(E L^2) at each time.
    """
    for t in numba.prange(marginals.shape[0]):
        expected[t] = edge_rewards_one(edges, tables, marginals[t], conditional[t])


@parallel_jit
def shared_rewards(edges, to_first, to_second, marginals, expected, conditional):
    """As ``edge_rewards`` with one table, times the marginals and transposed (T,n,L).

    O(E L) at each time.
    """
    for t in numba.prange(marginals.shape[0]):
        expected[t] = shared_rewards_one(
            edges, to_first[t], to_second[t], marginals[t], conditional[t]
        )


@parallel_jit
def add_edges(edges, tables, chosen, marginals, total):
    """Add the expected rewards of some edges to sums (T,2)."""
    for t in numba.prange(marginals.shape[0]):
        for e in chosen:
            add_compensated(total, t, edge_reward(edges, tables, e, marginals[t]))


@parallel_jit
def take_edges(edges, tables, chosen, i, marginals, total, conditional):
    """Take the edges of follower i off sums (T,2), and write E[R | label_i = l] (T,L)."""
    for t in numba.prange(marginals.shape[0]):
        take_edges_one(edges, tables, chosen, i, marginals[t], t, total, conditional[t])


@jit
def largest_rewards(edges, tables, possible):
    """Sum over the edges of the largest |reward| over possible labels (n,L) of both followers."""
    total = 0.0
    for e in range(edges.shape[0]):
        i, j = edges[e, 0], edges[e, 1]
        x = min(e, tables.shape[0] - 1)
        most = 0.0
        for a in range(tables.shape[1]):
            for b in range(tables.shape[2]):
                if possible[i, a] and possible[j, b]:
                    most = max(most, abs(tables[x, a, b]))
        total += most
    return total
