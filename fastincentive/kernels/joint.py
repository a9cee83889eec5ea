"""Visitation over the product space: the dense route, and the oracle of the three passes."""

from __future__ import annotations

import numba
import numpy as np

from fastincentive.kernels.chain import merge_rows, model_size
from fastincentive.kernels.jit import parallel_jit
from fastincentive.kernels.marginals import step_forward

__all__ = ["joint_visitation", "policy_matrices", "state_marginals"]


@parallel_jit
def state_marginals(packed, policies, horizon, out):
    """State laws ``out[i, t, s]`` for t < horizon."""
    n, states, actions = policies.shape
    for i in numba.prange(n):
        size = model_size(packed, i, states, actions)
        start = np.empty(states + 1, np.int64)
        column = np.empty(size, np.int64)
        weight = np.empty(size)
        merge_rows(packed, i, 1.0, policies[i], False, start, column, weight)
        out[i, 0] = packed.initial[i]
        for t in range(1, horizon):
            step_forward(start, column, weight, out[i, t - 1], out[i, t])


@parallel_jit
def joint_visitation(laws, discount, out):
    """sum_t discount^t prod_i law_i^t(s_i) into ``out`` (S, S^(n-1)); one row s_1 per task."""
    n, horizon, states = laws.shape
    for s in numba.prange(states):
        others = np.empty(out.shape[1])
        for t in range(horizon):
            p = laws[0, t, s] * discount**t
            if p == 0.0:
                continue
            others[0] = p
            length = 1
            for j in range(1, n):
                for r in range(length - 1, -1, -1):
                    base = others[r]
                    for c in range(states):
                        others[r * states + c] = base * laws[j, t, c]
                length *= states
            for r in range(length):
                out[s, r] += others[r]


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
