"""Rewards of how many followers count: conditional rewards by divide and conquer.

The number that count has a Poisson binomial law. A group of followers has such a law, and a
function: the expected reward given how many of the group count, everybody else at their own laws.
The function of one half is the whole group's averaged over the law of the other half, down to
single followers, whose functions are their conditional rewards (a product tree, and its transpose
on the way down). Only sums of products of probabilities, never a division: no cancellation. Counts
spread over a few standard deviations, a few sqrt(n), and only these are computed: O(n^2) flops at
each time for few followers, O(n log n) for many.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit

__all__ = ["average_counts", "count_bounds", "count_laws", "count_rewards"]


#: Counts at the ends of a law that are less probable than this are left out.
NEGLIGIBLE = 1e-30


@jit
def count_law(probability, law):
    """Law of the number of successes (g+1,) of independent trials (g,), trial by trial."""
    law[:] = 0.0
    law[0] = 1.0
    low, high = 0, 0
    for j in range(probability.shape[0]):
        p = probability[j]
        if p != 0.0:
            high += 1
            for k in range(high, low, -1):
                law[k] = (1.0 - p) * law[k] + p * law[k - 1]
            law[low] *= 1.0 - p
            low, high = trim(law, low, high + 1)
            high -= 1


@jit
def trim(law, low, high):
    """Set negligible entries at the ends to 0; returns the range low, high of the others."""
    while low < high - 1 and law[low] <= NEGLIGIBLE:
        law[low] = 0.0
        low += 1
    while low < high - 1 and law[high - 1] <= NEGLIGIBLE:
        high -= 1
        law[high] = 0.0
    return low, high


@jit
def average_count(function, law, out):
    """E[function(k + X)] for each k of ``out``, X ~ ``law``."""
    out[:] = 0.0
    for j in range(law.shape[0]):
        p = law[j]
        if p != 0.0:
            for k in range(out.shape[0]):
                out[k] += p * function[k + j]


@parallel_jit
def count_laws(probability, laws):
    """Law (T,g+1) of how many of g followers count, from their probabilities (T,g)."""
    for t in numba.prange(probability.shape[0]):
        count_law(probability[t], laws[t])


@parallel_jit
def average_counts(functions, laws, out):
    """Average functions (T,a+b+1) of a group's count over the laws (T,b+1) of a part of it.

    What is left, written to ``out`` (T,a+1), is the function of the other part's count.
    """
    for t in numba.prange(functions.shape[0]):
        average_count(functions[t], laws[t], out[t])


class GroupLaws(NamedTuple):
    """Laws of the counts of all groups: those of 2^k followers at level k, the last one smaller.

    The group of g followers from f on takes g + 1 entries from f + f // 2^k on.
    """

    law: np.ndarray  # (K+1, 2n)
    low: np.ndarray  # (K+1, n) int64, first count of group f // 2^k that is not negligible
    high: np.ndarray  # (K+1, n) int64, the one after the last


@jit
def write_group_laws(probability, groups):
    """Fill in the laws, from single followers to all of them."""
    n = probability.shape[0]
    law, low, high = groups
    for i in range(n):
        p = probability[i]
        law[0, 2 * i] = 1.0 - p
        law[0, 2 * i + 1] = p
        low[0, i], high[0, i] = trim(law[0, 2 * i :], 0, 2)
    for level in range(1, law.shape[0]):
        size = 1 << level
        half = size >> 1
        for first in range(0, n, size):
            group = first // size
            last = min(first + size, n)
            middle = first + half
            out = law[level, first + group : last + group + 1]
            left = law[level - 1, first + 2 * group :]
            start, stop = low[level - 1, 2 * group], high[level - 1, 2 * group]
            out[:] = 0.0
            if middle >= last:
                out[start:stop] = left[start:stop]
                low[level, group], high[level, group] = start, stop
                continue
            right = law[level - 1, middle + 2 * group + 1 :]
            begin, end = low[level - 1, 2 * group + 1], high[level - 1, 2 * group + 1]
            for a in range(start, stop):
                p = left[a]
                for b in range(begin, end):
                    out[a + b] += p * right[b]
            low[level, group], high[level, group] = trim(out, start + begin, stop + end - 1)


@jit
def average_part(function, known, law, window, out, asked):
    """As ``average_count`` for counts ``asked``, where the function is ``known``."""
    for k in range(asked[0], asked[1]):
        total = 0.0
        for j in range(max(window[0], known[0] - k), min(window[1], known[1] - k)):
            total += law[j] * function[k + j]
        out[k] = total


@jit
def probable_counts(groups, level, group, size):
    """Range of a group's counts that are not negligible, also if one follower deviates."""
    return max(groups.low[level, group] - 1, 0), min(groups.high[level, group] + 1, size + 1)


@jit
def count_rewards_one(values, probability, conditional):
    """Conditional rewards (n,2) at one time."""
    n = probability.shape[0]
    top = 0
    while 1 << top < n:
        top += 1
    groups = GroupLaws(
        np.empty((top + 1, 2 * n)),
        np.empty((top + 1, n), np.int64),
        np.empty((top + 1, n), np.int64),
    )
    write_group_laws(probability, groups)
    # A level's functions lie as its laws do.
    source = np.empty(2 * n)
    target = np.empty(2 * n)
    source[: n + 1] = values
    for level in range(top, 0, -1):
        size = 1 << level
        half = size >> 1
        below = groups.law[level - 1]
        for first in range(0, n, size):
            group = first // size
            last = min(first + size, n)
            middle = min(first + half, n)
            function = source[first + group :]
            known = probable_counts(groups, level, group, last - first)
            left = first + 2 * group
            right = middle + 2 * group + 1
            asked = probable_counts(groups, level - 1, 2 * group, middle - first)
            if middle == last:
                target[left + asked[0] : left + asked[1]] = function[asked[0] : asked[1]]
                continue
            its = (groups.low[level - 1, 2 * group], groups.high[level - 1, 2 * group])
            other = (groups.low[level - 1, 2 * group + 1], groups.high[level - 1, 2 * group + 1])
            average_part(function, known, below[right:], other, target[left:], asked)
            asked = probable_counts(groups, level - 1, 2 * group + 1, last - middle)
            average_part(function, known, below[left:], its, target[right:], asked)
        source, target = target, source
    for i in range(n):
        conditional[i, 0] = source[2 * i]
        conditional[i, 1] = source[2 * i + 1]


@parallel_jit
def count_rewards(values, probability, expected, conditional):
    """E[R] (T,) and E[R | label_i = l] (T,n,2) for values (n+1,) of the number that count.

    ``probability`` (T,n) is that of counting. O(n^2) at each time, O(n log n) where n is large.
    """
    for t in numba.prange(probability.shape[0]):
        count_rewards_one(values, probability[t], conditional[t])
        p = probability[t, 0]
        expected[t] = (1.0 - p) * conditional[t, 0, 0] + p * conditional[t, 0, 1]


@parallel_jit
def count_bounds(values, low, high, bounds):
    """Bound on E[R | label_0 = l] (T,2), the others' probabilities between ``low`` and ``high``.

    These are (T,n-1). Each of followers n-1..1 takes the better end for every count of the ones
    before it: a reward linear in a probability is largest at an end.
    """
    for t in numba.prange(bounds.shape[0]):
        work = values.copy()
        for j in range(low.shape[1] - 1, -1, -1):
            p = low[t, j]
            q = high[t, j]
            for k in range(j + 2):
                at_low = (1.0 - p) * work[k] + p * work[k + 1]
                at_high = (1.0 - q) * work[k] + q * work[k + 1]
                work[k] = max(at_low, at_high)
        bounds[t, 0] = work[0]
        bounds[t, 1] = work[1]
