"""One controller moves one or two followers, seeing both: dynamic programming.

Value iteration with MacQueen's bounds, and backward induction (Puterman, Markov Decision Processes,
1994, sections 6.6 and 4.5), on the product of two decision processes, whose moves are independent
given the actions: expectations are taken over one follower after the other. A single follower is a
pair whose second has one state and one action. Flops of a backup with K successors in a row:
2 K S1 S2 A2 for the second follower, 2 K S1 A1 S2 A2 for the first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastincentive.kernels.jit import jit

__all__ = ["BOUND", "TIGHT", "UNBOUNDED", "Mover", "backward_induction", "value_iteration"]

#: What ``value_iteration`` returns.
UNBOUNDED, BOUND, TIGHT = 0, 1, 2


class Mover(NamedTuple):
    """A component of the product: one follower, moved by the controller."""

    row_start: np.ndarray  # (S*A + 1,) int64
    successor: np.ndarray  # (nnz,) int32
    probability: np.ndarray  # (nnz,) float64
    allowed: np.ndarray  # (S, A) bool, at least one action in each state
    loss: np.ndarray  # (S, A) float64, what the action costs the follower
    labels: np.ndarray  # (S, A) int64


@jit
def bellman_backup(
    first, second, table, lead, multipliers, scales, factor, next_value, value, taken
):
    """One step back in time: from ``next_value`` (S1,S2) to value and the actions taken (2,S1,S2).

    The controller earns lead * table[labels] - sum_i multipliers[i] * scales[i] * loss_i now, and
    factor * next_value.
    """
    states1, actions1 = first.allowed.shape
    states2, actions2 = second.allowed.shape
    reach = np.zeros((states1, states2, actions2))
    for c in range(states1):
        for s2 in range(states2):
            for a2 in range(actions2):
                row = s2 * actions2 + a2
                total = 0.0
                for e in range(second.row_start[row], second.row_start[row + 1]):
                    total += second.probability[e] * next_value[c, second.successor[e]]
                reach[c, s2, a2] = total
    onward = np.empty((states2, actions2))
    for s1 in range(states1):
        value[s1] = -math.inf
        for a1 in range(actions1):
            if not first.allowed[s1, a1]:
                continue
            onward[:] = 0.0
            row = s1 * actions1 + a1
            for e in range(first.row_start[row], first.row_start[row + 1]):
                p = first.probability[e]
                c = first.successor[e]
                for s2 in range(states2):
                    for a2 in range(actions2):
                        onward[s2, a2] += p * reach[c, s2, a2]
            own = multipliers[0] * scales[0] * first.loss[s1, a1]
            seen = first.labels[s1, a1]
            for s2 in range(states2):
                for a2 in range(actions2):
                    if not second.allowed[s2, a2]:
                        continue
                    total = (
                        lead * table[seen, second.labels[s2, a2]]
                        - own
                        - multipliers[1] * scales[1] * second.loss[s2, a2]
                        + factor * onward[s2, a2]
                    )
                    if total > value[s1, s2]:
                        value[s1, s2] = total
                        taken[0, s1, s2] = a1
                        taken[1, s1, s2] = a2


@jit
def losses_backup(first, second, scales, factor, taken, next_lost, lost):
    """One step back for the losses (2,S1,S2) of the actions taken: scales[i] * loss_i added up."""
    states1, actions1 = first.allowed.shape
    states2, actions2 = second.allowed.shape
    for s1 in range(states1):
        for s2 in range(states2):
            row1 = s1 * actions1 + taken[0, s1, s2]
            row2 = s2 * actions2 + taken[1, s1, s2]
            total1 = 0.0
            total2 = 0.0
            for e in range(first.row_start[row1], first.row_start[row1 + 1]):
                c = first.successor[e]
                for k in range(second.row_start[row2], second.row_start[row2 + 1]):
                    p = first.probability[e] * second.probability[k]
                    total1 += p * next_lost[0, c, second.successor[k]]
                    total2 += p * next_lost[1, c, second.successor[k]]
            lost[0, s1, s2] = scales[0] * first.loss[s1, taken[0, s1, s2]] + factor * total1
            lost[1, s1, s2] = scales[1] * second.loss[s2, taken[1, s1, s2]] + factor * total2


@jit
def resolution(rest):
    """Share of a sum over time that rounding leaves unknown; ``rest`` steps are still to come."""
    return min(max(1e-14, 4e-16 * rest), 1e-11)


@jit
def losses_for_ever(first, second, discount, counted, taken, sweeps, lost):
    """Losses (2,S1,S2) of the ``counted`` (2,) followers if the same actions are taken for ever.

    Returns whether the sweeps were enough: at discount 1 losses may grow for ever.
    """
    lost[:] = 0.0
    following = np.empty_like(lost)
    rest = discount / (1.0 - discount) if discount < 1.0 else math.inf
    for k in range(1, sweeps + 1):
        losses_backup(first, second, counted, discount, taken, lost, following)
        settled = True
        for i in range(2):
            low = math.inf
            high = -math.inf
            size = 0.0
            for s1 in range(lost.shape[1]):
                for s2 in range(lost.shape[2]):
                    change = following[i, s1, s2] - lost[i, s1, s2]
                    low = min(low, change)
                    high = max(high, change)
                    size = max(size, abs(following[i, s1, s2]))
            lost[i] = following[i]
            if discount < 1.0:
                if rest * (high - low) <= resolution(rest) * max(size, rest * high):
                    following[i] += 0.5 * rest * (high + low)
                else:
                    settled = False
            elif k * max(high, -low) > 1e-13 * size:
                settled = False
        if settled:
            lost[:] = following
            return True
    return False


@jit
def value_iteration(first, second, table, discount, multipliers, counted, sweeps, value, taken):
    """Value iteration at one discount, with the losses of the ``counted`` (2,) followers only.

    Writes upper bounds on the optimal values (MacQueen's, below discount 1), and the actions (2,
    S1,S2) taken. Returns ``TIGHT`` where the values are bounds up to rounding, ``BOUND`` where the
    sweeps were too few for that, and ``UNBOUNDED`` where they are no bounds: at discount 1 the
    iteration may not converge.
    """
    value[:] = 0.0
    following = np.empty_like(value)
    rest = discount / (1.0 - discount) if discount < 1.0 else math.inf
    mark = math.inf
    patience = max(256, 2 * (value.shape[0] + value.shape[1]))
    for k in range(1, sweeps + 1):
        bellman_backup(
            first,
            second,
            table,
            1.0,
            multipliers,
            counted,
            discount,
            value,
            following,
            taken,
        )
        low = math.inf
        high = -math.inf
        size = 0.0
        for s1 in range(value.shape[0]):
            for s2 in range(value.shape[1]):
                change = following[s1, s2] - value[s1, s2]
                low = min(low, change)
                high = max(high, change)
                size = max(size, abs(following[s1, s2]))
        value[:] = following
        if discount < 1.0:
            tight = rest * (high - low) <= resolution(rest) * size
            if tight or k == sweeps:
                value += rest * high
                return TIGHT if tight else BOUND
        elif max(high, -low) <= 1e-14 * size:
            # Changes that fell this far at a geometric pace in k sweeps add up to less than k more.
            value += k * max(high, 0.0)
            return TIGHT
        elif k & (k - 1) == 0 and k >= patience:
            # Changes that hardly fall while the number of sweeps doubles go on for ever.
            if max(high, -low) > 0.999 * mark:
                return UNBOUNDED
            mark = max(high, -low)
    return UNBOUNDED


@jit
def backward_induction(first, second, table, discounts, multipliers, horizon, value, lost):
    """Go back from ``horizon`` to 0 in place; ``discounts`` (3,): the leader's, the followers'."""
    following = np.empty_like(value)
    lost_following = np.empty_like(lost)
    taken = np.zeros(lost.shape, np.int64)
    for t in range(horizon - 1, -1, -1):
        scales = discounts[1:] ** t
        bellman_backup(
            first,
            second,
            table,
            discounts[0] ** t,
            multipliers,
            scales,
            1.0,
            value,
            following,
            taken,
        )
        losses_backup(first, second, scales, 1.0, taken, lost, lost_following)
        value[:] = following
        lost[:] = lost_following
