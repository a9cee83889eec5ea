"""The product-space route: joint visitation, and two followers by doubling.

Small dense problems want it, slow absorption needs it (doubling reaches 2^k steps in k products),
and it is the oracle of the three passes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive import contraction
from fastincentive.doubling import Powers, Sum, sum_terms
from fastincentive.errors import ProductSpaceTooLargeError
from fastincentive.followers import Followers
from fastincentive.kernels import joint as kernels
from fastincentive.kernels.pattern import Pattern
from fastincentive.leader import BoundReward
from fastincentive.mdp import FloatArray

__all__ = ["Pair", "check_memory", "joint_values", "pair_pass", "summed_visitation"]


class Pair(NamedTuple):
    """The leader's value and gradient for two followers, and whether the doubling converged."""

    value: float
    gradient: FloatArray  # (2, S, A)
    converged: bool


def check_memory(what: str, states: int, n: int, max_gib: float) -> None:
    """Raise ProductSpaceTooLargeError if a table over S^n needs more than ``max_gib`` GiB."""
    need = 8.0 * float(states) ** n / 2**30
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


def pair_visitation(
    followers: Followers, moves: FloatArray, discount: float
) -> tuple[FloatArray, bool]:
    """Two followers: joint visitation (S, S), and whether the doubling converged.

    The absorbed pairs are left out at discount 1.

    At discount 1 the visits split into those with follower 1 unabsorbed and those with follower 1
    absorbed and follower 2 not; each solves a convergent Stein equation.
    """
    packed = followers.packed
    starts = packed.initial
    if discount < 1.0:
        return double(moves[0].T, moves[1], np.outer(starts[0], starts[1]), discount)
    gone = packed.absorbing[packed.model]
    killed = [np.where(gone[i][None, :], 0.0, moves[i]) for i in range(2)]
    alive = [np.where(gone[i], 0.0, starts[i]) for i in range(2)]
    first, ends = double(killed[0].T, moves[1], np.outer(alive[0], starts[1]), 1.0)
    second, also = double(moves[0].T, killed[1], np.outer(starts[0], alive[1]), 1.0)
    table = np.where(gone[0][:, None], second, first)
    table[np.ix_(gone[0], gone[1])] = 0.0
    return table, ends and also


def double(
    left: FloatArray, right: FloatArray, start: FloatArray, scale: float
) -> tuple[FloatArray, bool]:
    """Solve W = start + scale left W right by squaring; also whether it converged."""
    total = start
    for _ in range(60):
        step = scale * (left @ total @ right)
        total = total + step
        if np.abs(step).sum() <= 1e-16 * np.abs(total).sum():
            return total, True
        left, right, scale = left @ left, right @ right, scale * scale
    return total, False


def pair_pass(
    followers: Followers, reward: BoundReward, policies: FloatArray, discount: float
) -> Pair:
    """Return the leader's value and gradient for two followers whose labels are of states."""
    # Showing follower 2's labels one by one turns the conditional rewards into the table.
    count = reward.n_labels
    shown = np.zeros((count, 2, count))
    shown[:, 0] = 1.0 / count
    shown[:, 1] = np.eye(count)
    table = reward.expectations(shown)[1][:, 0, :].T
    labels = reward.labels[:, :, 0]
    earned = table[np.ix_(labels[0], labels[1])]
    moves = chains(followers, policies)
    values, converged = double(moves[0], moves[1].T, earned, discount)
    visits, ends = pair_visitation(followers, moves, discount)
    start = followers.packed.initial
    gradient = np.empty(followers.shape)
    sides = ((visits, earned, values @ moves[1].T), (visits.T, earned.T, values.T @ moves[0].T))
    for i, (seen, now, ahead) in enumerate(sides):
        here = (seen * now).sum(axis=1)
        # Weight with which (s, a) leads to s': sum over the other's states.
        onward = seen @ ahead.T
        mdp = followers[i]
        model = mdp.transition
        pair = np.repeat(np.arange(onward.shape[0] * mdp.n_actions), np.diff(model.row_start))
        terms = model.probability * onward[pair // mdp.n_actions, model.successor]
        later = np.bincount(pair, weights=terms, minlength=onward.shape[0] * mdp.n_actions)
        gradient[i] = here[:, None] + discount * later.reshape(followers.shape[1:])
    gradient[~followers.available] = 0.0
    return Pair(float(start[0] @ values @ start[1]), gradient, converged and ends)
