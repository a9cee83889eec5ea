"""Actions that nobody can tell apart: of the same law, reward, payment and label."""

from __future__ import annotations

import numba
import numpy as np

from fastincentive.kernels.jit import jit, parallel_jit

__all__ = ["first_equals"]


@jit
def equal_rows(packed, first, second, scratch):
    """Whether two rows of the transition lists are the same law; ``scratch`` (S,) holds zeros."""
    for e in range(packed.row_start[first], packed.row_start[first + 1]):
        scratch[packed.successor[e]] += packed.probability[e]
    for e in range(packed.row_start[second], packed.row_start[second + 1]):
        scratch[packed.successor[e]] -= packed.probability[e]
    equal = True
    for row in (first, second):
        for e in range(packed.row_start[row], packed.row_start[row + 1]):
            c = packed.successor[e]
            equal = equal and abs(scratch[c]) <= 1e-14
            scratch[c] = 0.0
    return equal


@parallel_jit
def first_equals(packed, rewards, index, labels, out):
    """First action (n,S,A) that is equivalent to each: same law, reward, payment and label.

    ``labels`` is (n,S,1) or (n,S,A). Unavailable actions get -1.
    """
    n, states, actions = rewards.shape
    for i in numba.prange(n):
        m = packed.model[i]
        scratch = np.zeros(states)
        for s in range(states):
            for a in range(actions):
                out[i, s, a] = -1
                if not packed.available[m, s, a]:
                    continue
                out[i, s, a] = a
                for b in range(a):
                    if out[i, s, b] != b or rewards[i, s, a] != rewards[i, s, b]:
                        continue
                    if index[i, s, a] != index[i, s, b]:
                        continue
                    if labels.shape[2] > 1 and labels[i, s, a] != labels[i, s, b]:
                        continue
                    row = (m * states + s) * actions
                    if equal_rows(packed, row + a, row + b, scratch):
                        out[i, s, a] = b
                        break
