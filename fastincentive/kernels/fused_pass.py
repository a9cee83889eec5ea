"""All three of the leader's passes in one call, for two followers and a small table.

Over a few dozen states and steps the calls between the passes cost more than the passes.
"""

from __future__ import annotations

import numpy as np

from fastincentive.kernels.jit import jit
from fastincentive.kernels.marginals import (
    SETTLE,
    Chains,
    first_below,
    forward_one,
    leader_gradient_one,
)

__all__ = ["short_pass"]


@jit
def short_pass(
    packed,
    pattern,
    policies,
    labels,
    table,
    turned,
    discount,
    stage,
    steps,
    stop,
    shows_states,
    with_gradient,
    gradient,
):
    """Value and, where asked for, gradient (2,S,A) for a table (L,L) and its transpose.

    Returns horizon, bound on what lies beyond as a multiple of the largest reward, and value. The
    horizon is 0 where ``steps`` are not enough, -1 where some policy has states that it never
    leaves: then nothing else is written.
    """
    n, states, _ = policies.shape
    count = table.shape[0]
    entries = pattern.column.shape[0]
    chains = Chains(
        np.empty((n, entries)),
        np.empty((n, states)),
        np.empty((n, states), np.bool_),
        np.empty(n, np.bool_),
        packed.initial.copy(),
        np.empty((steps, n)),
    )
    if stage != SETTLE:
        chains.rest[:] = 1.0 / ((1.0 - discount) * n)
    laws = np.empty((steps, n, states))
    marginals = laws if shows_states else np.empty((steps, n, count))
    none = np.empty((0, n, count))
    seen = none if shows_states else marginals
    for i in range(n):
        forward_one(packed, pattern, i, policies, labels, discount, stage, chains, laws, seen)
        if stage == SETTLE and chains.lost[i]:
            return -1, 0.0, 0.0
    at, left = first_below(chains.remainder, discount, 0, stop)
    if at < 0:
        return 0, left, 0.0
    horizon = max(at, 1)
    conditional = np.empty((horizon, n, count))
    # BLAS wants contiguous rows; a copy even of one row, for it is overwritten.
    shown = marginals[:horizon, 0].copy()
    given = np.dot(shown, table)
    conditional[:, 1] = given
    value = 0.0
    power = 1.0
    for t in range(horizon):
        total = 0.0
        for label in range(count):
            total += marginals[t, 1, label] * given[t, label]
        value += power * total
        power *= discount
    if not with_gradient:
        return horizon, left, value
    shown[:] = marginals[:horizon, 1]
    np.dot(shown, turned, given)
    conditional[:, 0] = given
    values = np.empty(n)
    for i in range(n):
        leader_gradient_one(
            packed,
            pattern,
            i,
            policies,
            labels,
            chains.weights,
            laws[:horizon],
            conditional,
            discount,
            True,
            gradient,
            values,
        )
    return horizon, left, value
