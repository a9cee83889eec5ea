"""The followers' chains as dense matrices, for the routes over the product space."""

from __future__ import annotations

import numba
import numpy as np

from fastincentive.kernels.chain import merge_rows, model_size
from fastincentive.kernels.jit import parallel_jit

__all__ = ["policy_matrices"]


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
