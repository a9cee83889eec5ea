"""Rewards of how many followers count, by halves.

A group of followers has a law (how many of them count) and a function (the expected reward given
how many of them count, everything outside at its own law). The function of one half is the whole
group's averaged over the law of the other half, down to single followers, whose functions are
their conditional rewards. Only sums of products of probabilities: nothing is divided out again.
"""

from __future__ import annotations

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit

__all__ = ["average_counts", "count_bounds", "count_laws", "count_rewards"]


@jit
def count_law(probability, law):
    """Law of the number of successes (g+1,) of independent trials (g,), trial by trial."""
    law[:] = 0.0
    law[0] = 1.0
    for j in range(probability.shape[0]):
        p = probability[j]
        if p != 0.0:
            for k in range(j + 1, 0, -1):
                law[k] = (1.0 - p) * law[k] + p * law[k - 1]
            law[0] *= 1.0 - p


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


@jit
def count_rewards_one(values, probability, conditional):
    """Conditional rewards (n,2) at one time."""
    n = probability.shape[0]
    size = 1
    while size < n:
        size *= 2
    # A level holds the functions of groups of `size` followers, the last one perhaps smaller; the
    # group from follower f on starts at f + f // size, for each has one entry more than followers.
    source = np.empty(2 * n)
    target = np.empty(2 * n)
    law = np.empty(n + 1)
    source[: n + 1] = values
    while size > 1:
        half = size // 2
        for first in range(0, n, size):
            last = min(first + size, n)
            middle = min(first + half, n)
            function = source[first + first // size :]
            left = target[first + first // half :][: middle - first + 1]
            others = law[: last - middle + 1]
            count_law(probability[middle:last], others)
            average_count(function, others, left)
            if middle < last:
                right = target[middle + middle // half :][: last - middle + 1]
                others = law[: middle - first + 1]
                count_law(probability[first:middle], others)
                average_count(function, others, right)
        source, target = target, source
        size = half
    for i in range(n):
        conditional[i, 0] = source[2 * i]
        conditional[i, 1] = source[2 * i + 1]


@parallel_jit
def count_rewards(values, probability, expected, conditional):
    """E[R] (T,) and E[R | label_i = l] (T,n,2) for values (n+1,) of the number that count.

    ``probability`` (T,n) is that of counting. O(n^2) at each time.
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
