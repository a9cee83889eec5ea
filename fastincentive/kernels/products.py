"""Sums of products over followers: conditional rewards by prefix and suffix products.

The product over all others is that of those before times that of those after, without a division.
Factors are scaled such that products over any run of followers are at most about 2: they may
underflow, never overflow. O(n L K) flops at each time for K products.
"""

from __future__ import annotations

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit

__all__ = ["product_rewards"]

#: Products below this are 0: arithmetic with smaller (denormal) numbers is slow.
NEGLIGIBLE = 1e-290


@jit
def product(first, second):
    """Multiply; 0 if the product is negligible."""
    result = first * second
    return result if abs(result) >= NEGLIGIBLE else 0.0


@jit
def product_rewards_one(factors, weights, marginals, after, before, mean, conditional):
    """Conditional rewards (n,L) at one time; returns the expected reward.

    Scratch: ``after`` (n+1,K), ``before`` and ``mean`` (K,).
    """
    n, labels, terms = factors.shape
    after[n] = 1.0
    for i in range(n - 1, -1, -1):
        for k in range(terms):
            mean[k] = 0.0
        for label in range(labels):
            p = marginals[i, label]
            for k in range(terms):
                mean[k] += p * factors[i, label, k]
        for k in range(terms):
            after[i, k] = product(mean[k], after[i + 1, k])
    expected = 0.0
    for k in range(terms):
        expected += weights[k] * after[0, k]
        before[k] = 1.0
    for i in range(n):
        for k in range(terms):
            mean[k] = 0.0
            after[i + 1, k] *= weights[k] * before[k]  # the others' product from here on
        for label in range(labels):
            p = marginals[i, label]
            total = 0.0
            for k in range(terms):
                total += after[i + 1, k] * factors[i, label, k]
                mean[k] += p * factors[i, label, k]
            conditional[i, label] = total
        for k in range(terms):
            before[k] = product(mean[k], before[k])
    return expected


@parallel_jit
def product_rewards(factors, weights, marginals, expected, conditional):
    """E[R] (T,) and E[R | label_i = l] (T,n,L) of R = sum_k weights[k] prod_i factors[i,l_i,k].

    O(n L K) at each time.
    """
    n, _, terms = factors.shape
    for t in numba.prange(marginals.shape[0]):
        after = np.empty((n + 1, terms))
        before = np.empty(terms)
        mean = np.empty(terms)
        expected[t] = product_rewards_one(
            factors, weights, marginals[t], after, before, mean, conditional[t]
        )
