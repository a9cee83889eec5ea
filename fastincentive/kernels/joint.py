"""The followers' chains as dense matrices, for sums over the product space of two followers.

The value of a table F over joint states is the solution of X = F + discount P1 X P2' (a Stein
equation), here the first terms of its Neumann series. Flops of a term: 2 S (E1 + E2) for chains
with E1 and E2 transitions.
"""

from __future__ import annotations

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit
from fastincentive.kernels.policy_chain import merge_rows, model_size
from fastincentive.kernels.sparsity import policy_weights

__all__ = ["pair_terms", "policy_matrices", "row_gradient"]


@parallel_jit
def policy_matrices(packed, policies, out):
    """Dense P^pi (n,S,S)."""
    n, states, actions = policies.shape
    for i in numba.prange(n):
        size = model_size(packed, i, states, actions)
        start = np.empty(states + 1, np.int64)
        column = np.empty(size, np.int64)
        weight = np.empty(size)
        merge_rows(packed, i, 1.0, policies[i], False, start, column, weight)
        for s in range(states):
            for c in range(states):
                out[i, s, c] = 0.0
            for e in range(start[s], start[s + 1]):
                out[i, s, column[e]] = weight[e]


@jit
def left_product(start, column, weight, factor, table, out):
    """``out`` = factor W table for merged rows W and a table (S, K)."""
    for s in range(out.shape[0]):
        out[s] = 0.0
        row = out[s]
        for e in range(start[s], start[s + 1]):
            w = factor * weight[e]
            source = table[column[e]]
            for k in range(row.shape[0]):
                row[k] += w * source[k]


@jit
def pair_terms(packed, pattern, policies, table, discount, count, total, left, right):
    """Sum of the first ``count`` terms of (discount P_1 x P_2)^t table, and the powers P_i^count.

    Steps along the transitions: cheap while dense powers would be all but empty. The number of
    terms is a power of two.
    """
    states = table.shape[0]
    product = np.empty((states, states))
    base = pattern.base
    weights = np.empty((2, pattern.column.shape[0]))
    for i in range(2):
        m = packed.model[i]
        policy_weights(packed, pattern, i, policies[i], weights[i])
        column = pattern.column[base[m] : base[m + 1]]
        power = left if i == 0 else right
        power[:] = 0.0
        for s in range(states):
            for e in range(pattern.start[m, s], pattern.start[m, s + 1]):
                power[s, column[e]] = weights[i, e]
        for _ in range(count - 1):
            left_product(pattern.start[m], column, weights[i], 1.0, power, product)
            power[:] = product
    m1, m2 = packed.model[0], packed.model[1]
    column1 = pattern.column[base[m1] : base[m1 + 1]]
    column2 = pattern.column[base[m2] : base[m2 + 1]]
    start2 = pattern.start[m2]
    weight2 = weights[1]
    total[:] = table
    for _ in range(count - 1):
        left_product(pattern.start[m1], column1, weights[0], discount, total, product)
        for s in range(states):
            row = product[s]
            for c in range(states):
                value = table[s, c]
                for e in range(start2[c], start2[c + 1]):
                    value += weight2[e] * row[column2[e]]
                total[s, c] = value


@jit
def row_gradient(packed, i, here, onward, gradient):
    """Gradient (S,A) of follower i into ``gradient[i]``.

    A state earns ``here`` (S,), and leads to each other with the weight ``onward`` (S,S).
    """
    _, states, actions = gradient.shape
    m = packed.model[i]
    for s in range(states):
        for a in range(actions):
            total = 0.0
            if packed.available[m, s, a]:
                total = here[s]
                row = (m * states + s) * actions + a
                for e in range(packed.row_start[row], packed.row_start[row + 1]):
                    total += packed.probability[e] * onward[s, packed.successor[e]]
            gradient[i, s, a] = total
