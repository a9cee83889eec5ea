"""All three of the leader's passes in one call, for two followers and a small table.

The passes are those of ``marginals``; over a few dozen states and steps the calls between them cost
more than the passes. Between forward and backward pass the L x L table is multiplied with the label
marginals of all T steps, by BLAS: 4 T L^2 flops.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastincentive.kernels.jit import jit
from fastincentive.kernels.marginals import (
    SETTLE,
    Chains,
    ForwardLaws,
    first_below,
    forward_one,
    leader_gradient_one,
)

__all__ = ["Horizon", "fused_pass"]


class Horizon(NamedTuple):
    """How far into the future a pass goes."""

    discount: float  # the leader's
    stage: int  # what is done before the first step: ``SETTLE`` or ``WEIGH``
    steps: int  # at most
    stop: float  # bound on what may lie beyond, as a multiple of the largest reward


@jit
def fused_pass(packed, pattern, policies, labels, tables, horizon, shows_states, gradient):
    """Value and gradient for a table (L,L) and its transpose, the two ``tables``.

    ``gradient`` (2,S,A) is written; if it has no entries, none is computed. ``shows_states`` says
    that labels are the numbers of states. Returns the number of steps, a bound on what lies beyond
    as a multiple of the largest reward, and the value. The number is 0 where ``horizon.steps`` are
    not enough, -1 where some policy has states that it never leaves: then nothing else is written.
    """
    discount, stage, steps, stop = horizon
    table, transposed = tables
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
    kept = max(at, 1)
    conditional = np.empty((kept, n, count))
    # BLAS wants contiguous rows; a copy even of one row, for it is overwritten.
    shown = marginals[:kept, 0].copy()
    given = np.dot(shown, table)
    conditional[:, 1] = given
    value = 0.0
    power = 1.0
    for t in range(kept):
        total = 0.0
        for label in range(count):
            total += marginals[t, 1, label] * given[t, label]
        value += power * total
        power *= discount
    if gradient.size == 0:
        return kept, left, value
    shown[:] = marginals[:kept, 1]
    np.dot(shown, transposed, given)
    conditional[:, 0] = given
    forward = ForwardLaws(chains.weights, laws[:kept])
    for i in range(n):
        leader_gradient_one(
            packed, pattern, i, policies, labels, forward, conditional, discount, True, gradient
        )
    return kept, left, value
