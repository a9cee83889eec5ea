"""Rewards of how many followers share each resource, from probabilities of being there.

The reward of a congestion game (Rosenthal, 1973). The members of a resource are the followers that
can be there. The difference of a member is how much higher the expected function of the resource is
with that member there than without it. A polynomial is given by its coefficients b in the basis of
binomials, sum_k b_k C(N, k): the expectation of C(N, k) is the elementary symmetric polynomial e_k
of the members' probabilities. O(m D) flops at each time for m members and degree D; O(m^2) for a
function given by its values.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from fastincentive.kernels.counts import count_rewards_one
from fastincentive.kernels.jit import jit, parallel_jit

__all__ = ["Members", "average_polynomials", "polynomial_differences", "table_differences"]


class Members(NamedTuple):
    """The M memberships of R resources, by resource and follower (or type of followers).

    Those of resource r are ``start[r]:start[r + 1]``, one at least.
    """

    start: np.ndarray  # (R + 1,) int64
    alike: np.ndarray  # (M,) float64, followers of the type, 1 unless there are types
    number: np.ndarray  # (n * L,) int64, membership by follower and label, -1 for none


@jit
def to_members(number, marginals, probability):
    """Write the memberships' probabilities (M,), from label marginals (n*L,)."""
    for k in range(number.shape[0]):
        if number[k] >= 0:
            probability[number[k]] = marginals[k]


@jit
def to_labels(number, difference, differences):
    """Write the memberships' differences (M,) to their labels (n*L,), 0 to the others."""
    for k in range(number.shape[0]):
        differences[k] = difference[number[k]] if number[k] >= 0 else 0.0


@jit
def multiply(source, p, count, out):
    """Coefficients of z^0..z^(d-1) of ``source`` times (1 + p z)^count."""
    degree = source.shape[0]
    for k in range(degree):
        out[k] = source[k]
    weight = 1.0
    for m in range(1, degree):
        weight *= p * (count - m + 1.0) / m
        if weight == 0.0:
            break
        for k in range(m, degree):
            out[k] += weight * source[k - m]


@jit
def average(coefficients, p, count):
    """Average a polynomial of a count over ``count`` followers of it, in place."""
    degree = coefficients.shape[0]
    for k in range(degree):
        weight = 1.0
        for m in range(1, degree - k):
            weight *= p * (count - m + 1.0) / m
            if weight == 0.0:
                break
            coefficients[k] += weight * coefficients[k + m]


@jit
def polynomial_one(coefficients, own, count, before):
    """Turn the members' probabilities (m,) into their differences; returns the expected function.

    For each member, the coefficients (D+1,) averaged over those after it are multiplied with the
    symmetric polynomials e_0..e_{D-1} of those ``before`` it (m,D): no division, no cancellation.
    """
    degree = before.shape[1]
    m = own.shape[0]
    before[0] = 0.0
    before[:m, 0] = 1.0
    for j in range(1, m):
        p = own[j - 1]
        if count[j - 1] == 1.0:
            for k in range(1, degree):
                before[j, k] = before[j - 1, k] + p * before[j - 1, k - 1]
        else:
            multiply(before[j - 1], p, count[j - 1], before[j])
    after = coefficients.copy()
    for j in range(m - 1, -1, -1):
        p = own[j]
        if count[j] > 1.0:
            average(after, p, count[j] - 1.0)
        difference = 0.0
        for k in range(degree):
            difference += after[k + 1] * before[j, k]
            after[k] += p * after[k + 1]
        own[j] = difference
    return after[0]


@parallel_jit
def polynomial_differences(members, coefficients, marginals, expected, differences):
    """Write expected functions (T,R) and differences (T,n*L), from label marginals (T,n*L).

    For coefficients (R,D+1) in binomials, D >= 1. O(n L D) at each time.
    """
    start, _, number = members
    most = np.diff(start).max()
    for t in numba.prange(marginals.shape[0]):
        # In the order of the members: at random places in large arrays memory would take longer.
        work = np.empty(start[-1])
        before = np.empty((most, coefficients.shape[1] - 1))
        to_members(number, marginals[t], work)
        for r in range(coefficients.shape[0]):
            own = work[start[r] : start[r + 1]]
            alike = members.alike[start[r] : start[r + 1]]
            expected[t, r] = polynomial_one(coefficients[r], own, alike, before)
        to_labels(number, work, differences[t])


@parallel_jit
def table_differences(members, values, marginals, expected, differences):
    """As ``polynomial_differences``, for functions given by their values for 0..m members.

    Those of resource r begin at ``start[r] + r`` of ``values`` (M+R,). O(sum_r m_r^2) at each time.
    """
    start, _, number = members
    most = np.diff(start).max()
    for t in numba.prange(marginals.shape[0]):
        work = np.empty(start[-1])
        conditional = np.empty((most, 2))
        to_members(number, marginals[t], work)
        for r in range(start.shape[0] - 1):
            own = work[start[r] : start[r + 1]]
            p = own[0]
            count_rewards_one(values[start[r] + r : start[r + 1] + r + 1], own, conditional)
            expected[t, r] = (1.0 - p) * conditional[0, 0] + p * conditional[0, 1]
            for j in range(own.shape[0]):
                own[j] = conditional[j, 1] - conditional[j, 0]
        to_labels(number, work, differences[t])


@parallel_jit
def average_polynomials(coefficients, probability, out):
    """Average polynomials (T,D+1) of a group's count over g of its followers, into ``out``.

    ``probability`` (T,g) is that of counting; coefficients are in binomials.
    """
    for t in numba.prange(coefficients.shape[0]):
        out[t] = coefficients[t]
        for j in range(probability.shape[1]):
            p = probability[t, j]
            for k in range(coefficients.shape[1] - 1):
                out[t, k] += p * out[t, k + 1]
