"""The product-space route: values and visits of joint states, by doubling or summed over time.

Slow absorption needs it (doubling reaches 2^k steps in k products), and it is the oracle of the
three passes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import ProductSpaceTooLargeError
from fastincentive.followers.followers import Followers
from fastincentive.kernels import joint as kernels
from fastincentive.kernels.sparsity import Pattern
from fastincentive.leader import contraction
from fastincentive.problem.doubling import MOST_TERMS, Powers, Sum, sum_terms, sum_visits

__all__ = [
    "JointPass",
    "break_even",
    "check_memory",
    "joint_pass",
    "joint_values",
    "stein_visitation",
    "summed_visitation",
]

#: Doubling takes a few tables over all joint states: up to this many of them.
MOST_JOINT = 2**20


class JointPass(NamedTuple):
    """The leader's value and gradient by doubling."""

    value: float
    gradient: FloatArray | None  # (n, S, A)
    left: float  # bound on what the value leaves out


def joint_states(states: int, n: int) -> float:
    """Return S^n, or inf where that is no float."""
    return math.inf if n * math.log(states) > 700.0 else float(states) ** n


def check_memory(what: str, states: int, n: int, max_gib: float) -> None:
    """Raise ProductSpaceTooLargeError if a table over S^n needs more than ``max_gib`` GiB."""
    need = 8.0 * joint_states(states, n) / 2**30
    if need > max_gib:
        raise ProductSpaceTooLargeError(
            f"{what} over {states}^{n} joint states needs {need:.3g} GiB, more than "
            f"max_gib={max_gib:g}. leader_value and leader_gradient do not need this table."
        )


def summed_visitation(followers: Followers, laws: FloatArray, discount: float) -> FloatArray:
    """Sum over time of the products of the state laws (T, n, S), (S,)*n."""
    horizon, n, states = laws.shape
    weighed = discount ** np.arange(horizon)[:, None] * laws[:, 0]
    out = np.zeros((states, states ** (n - 1)))
    size = max(16, contraction.SCRATCH // out.shape[1])
    for first in range(0, horizon if n > 1 else 0, size):
        times = slice(first, first + size)
        out += weighed[times].T @ contraction.joint_laws(laws[times, 1:])
    if n == 1:
        out[:, 0] = weighed.sum(axis=0)
    table = out.reshape((states,) * n)
    if discount == 1.0:
        packed = followers.packed
        table[np.ix_(*packed.absorbing[packed.model])] = 0.0
    return table


def joint_values(
    followers: Followers,
    pattern: Pattern,
    policies: FloatArray,
    table: FloatArray,
    discount: float,
    unsettled: NDArray[np.bool_] | None,
    limit: int,
) -> Sum:
    """Sum over time of what a table (S,)*n of rewards earns, from every joint state."""
    count = first_steps(pattern, followers.n_states) if followers.n == 2 else 1
    if count > 1:
        total, left, right = np.empty((3, *table.shape))
        kernels.pair_terms(
            followers.packed, pattern, policies, table, discount, count, total, left, right
        )
        moves = [left, right]
    else:
        total, moves = table.copy(), list(chains(followers, policies))
    return sum_terms(Powers(moves, discount, unsettled, count), total, limit)


def first_steps(pattern: Pattern, states: int) -> int:
    """Count the steps along the transitions that cost less than doubling (measured)."""
    sparsity = states**2 / pattern.largest
    return 1 if sparsity < 8 else 4 if sparsity < 40 else 8 if sparsity < 150 else 16


def chains(followers: Followers, policies: FloatArray) -> FloatArray:
    """Dense P^pi (n, S, S)."""
    out = np.empty((followers.n, followers.n_states, followers.n_states))
    kernels.policy_matrices.suited(out.size, followers.n)(followers.packed, policies, out)
    return out


def stein_visitation(followers: Followers, policies: FloatArray, discount: float) -> Sum:
    """Joint visitation (S,)*n by doubling; absorbed joint states are left out at discount 1."""
    packed = followers.packed
    gone = packed.absorbing[packed.model]
    powers = Powers(list(chains(followers, policies)), discount, ~gone if discount == 1.0 else None)
    start = contraction.joint_laws(packed.initial[None]).reshape(
        (followers.n_states,) * followers.n
    )
    found = sum_visits(powers, start.copy())
    if discount == 1.0:
        found.total[np.ix_(*gone)] = 0.0
    return found


def joint_pass(
    followers: Followers,
    pattern: Pattern,
    policies: FloatArray,
    table: FloatArray,
    discount: float,
    unsettled: NDArray[np.bool_] | None,
    with_gradient: bool,
) -> JointPass:
    """Value and gradient for a table (S,)*n of rewards by doubling both values and visits.

    For labels of states. With d the visits and W the values, dV/dpi_i(a|s_i) is the sum over the
    others' states of d (R + gamma sum_s' P_i(s'|s_i,a) (P_others W)(s', others)).
    """
    n, states, _ = followers.shape
    moves = chains(followers, policies)
    packed = followers.packed
    start = contraction.joint_laws(packed.initial[None]).reshape(table.shape)
    if not with_gradient:
        found = joint_values(followers, pattern, policies, table, discount, unsettled, MOST_TERMS)
        return JointPass(float((start * found.total).sum()), None, found.left)
    powers = Powers([move.copy() for move in moves], discount, unsettled)
    values = table.copy()
    visits = start.copy()
    found = sum_terms(powers, values, visits=visits)
    gradient = np.empty(followers.shape)
    for i in range(n):
        next_values = np.moveaxis(values, i, 0)
        for j in range(n):
            if j != i:
                # Followers before i stand one place further back.
                axis = j + 1 if j < i else j
                next_values = np.moveaxis(np.tensordot(moves[j], next_values, (1, axis)), 0, axis)
        seen = np.ascontiguousarray(np.moveaxis(visits, i, 0)).reshape(states, -1)
        now = np.moveaxis(table, i, 0).reshape(states, -1)
        here = np.einsum("so,so->s", seen, now)
        onward = discount * (seen @ next_values.reshape(states, -1).T)
        kernels.row_gradient(packed, i, here, onward, gradient)
    return JointPass(float((start * values).sum()), gradient, found.left)


def break_even(followers: Followers, pattern: Pattern, labels: int) -> float:
    """Count the steps after which doubling would have been cheaper.

    Costs in nanoseconds, as measured on one machine; inf where there are too many joint states.
    """
    n, states, _ = followers.shape
    if joint_states(states, n) > MOST_JOINT:
        return np.inf
    entries = float(np.diff(pattern.base)[followers.packed.model].sum())
    step = 100.0 * n + 1.4 * entries + 0.04 * n * float(labels) ** n
    # A turn doubles values and visits, and squares the powers.
    turn = 2.0 * n * (0.03 * float(states) ** (n + 1) + 3500.0) + n * 0.03 * states**3
    return 12.0 * turn / step
