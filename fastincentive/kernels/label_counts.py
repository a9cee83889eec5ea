"""Rewards of how many followers carry each of several labels: divide and conquer as in ``counts``.

Numbers of followers with labels 1..d, of g followers in all, are points of a simplex. A point is
known by its place in the table of values, (n+1)^d entries in C order: places add up as numbers do,
so that a law (a Poisson multinomial one) is a list of probabilities beside the list of its points'
places. O(n^(2d)) flops at each time for d labels besides the one that nobody counts.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit

__all__ = ["Simplices", "label_count_rewards"]


class Simplices(NamedTuple):
    """Places of the points of the groups of each level: 2^k followers at level k, or fewer.

    Level 0 has the single followers, whose points are those of labels 0, d, ..., 1.
    """

    place: np.ndarray  # all lists, int64
    full: np.ndarray  # (K+1, 2) int64, first and end of the list of a full group
    last: np.ndarray  # (K+1, 2) int64, of the level's last group
    begin: np.ndarray  # (K+2,) int64, where a level begins in the array of all laws


@jit
def group_points(simplices, level, group, groups):
    """Places of a group's points, and where its law lies."""
    first, end = simplices.full[level]
    start = simplices.begin[level] + group * (end - first)
    if group == groups - 1:
        first, end = simplices.last[level]
    return simplices.place[first:end], start


@jit
def label_count_rewards_one(values, marginals, simplices, conditional):
    """Conditional rewards (n,L) at one time."""
    n, count = marginals.shape
    levels = simplices.full.shape[0]
    laws = np.empty(simplices.begin[levels])
    table = np.zeros(values.shape[0])
    for i in range(n):
        laws[i * count] = marginals[i, 0]
        for label in range(1, count):
            laws[i * count + count - label] = marginals[i, label]
    for level in range(1, levels):
        groups = (n + (1 << level) - 1) >> level
        parts = (n + (1 << (level - 1)) - 1) >> (level - 1)
        for group in range(groups):
            place, start = group_points(simplices, level, group, groups)
            left_place, left = group_points(simplices, level - 1, 2 * group, parts)
            if 2 * group + 1 == parts:
                laws[start : start + place.size] = laws[left : left + place.size]
                continue
            right_place, right = group_points(simplices, level - 1, 2 * group + 1, parts)
            for a in range(left_place.size):
                p = laws[left + a]
                if p != 0.0:
                    for b in range(right_place.size):
                        table[left_place[a] + right_place[b]] += p * laws[right + b]
            for k in range(place.size):
                laws[start + k] = table[place[k]]
                table[place[k]] = 0.0
    # Functions of the groups' numbers take the same places as laws, level by level.
    source = np.empty(laws.shape[0])
    top, start = group_points(simplices, levels - 1, 0, 1)
    for k in range(top.size):
        source[start + k] = values[top[k]]
    for level in range(levels - 1, 0, -1):
        groups = (n + (1 << level) - 1) >> level
        parts = (n + (1 << (level - 1)) - 1) >> (level - 1)
        for group in range(groups):
            place, start = group_points(simplices, level, group, groups)
            for k in range(place.size):
                table[place[k]] = source[start + k]
            for part in range(2 * group, min(2 * group + 2, parts)):
                its_place, its = group_points(simplices, level - 1, part, parts)
                other = part + 1 if part == 2 * group else part - 1
                if other == parts:
                    source[its : its + its_place.size] = source[start : start + its_place.size]
                    continue
                other_place, law = group_points(simplices, level - 1, other, parts)
                source[its : its + its_place.size] = 0.0
                for b in range(other_place.size):
                    p = laws[law + b]
                    if p != 0.0:
                        for a in range(its_place.size):
                            source[its + a] += p * table[its_place[a] + other_place[b]]
    for i in range(n):
        conditional[i, 0] = source[i * count]
        for label in range(1, count):
            conditional[i, label] = source[i * count + count - label]


@parallel_jit
def label_count_rewards(values, marginals, simplices, expected, conditional):
    """E[R] (T,) and E[R | label_i = l] (T,n,L) for values ((n+1)^(L-1),) and marginals (T,n,L)."""
    for t in numba.prange(marginals.shape[0]):
        label_count_rewards_one(values, marginals[t], simplices, conditional[t])
        total = 0.0
        for label in range(marginals.shape[2]):
            total += marginals[t, 0, label] * conditional[t, 0, label]
        expected[t] = total
