"""At a leader's discount of 1: what it earns or loses for ever where followers stay."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import InputError, invalid
from fastincentive.followers.chains import settled_states
from fastincentive.followers.followers import Followers
from fastincentive.leader.base import BoundReward

__all__ = ["Endless", "endless_error", "endless_reward"]

#: Less than this share of the largest reward, on average, is none; and what changes by more of
#: itself, late in a sum over time, has an end.
NOTHING, STEADY = 1e-9, 1e-6
#: So many states are named.
NAMED = 5


class Endless(NamedTuple):
    """A reward that never ends, and who stays where."""

    rate: float  # what the leader earns in a step, in the long run
    follower: int
    states: NDArray[np.int64]


def endless_reward(
    followers: Followers, leader: BoundReward, policies: FloatArray, marginals: FloatArray
) -> Endless | None:
    """Find what the leader earns for ever by policies (n, S, A); None where that is nothing.

    ``marginals`` (T, n, L) are those of labels up to a time when followers that are to be absorbed
    mostly are.
    """
    last = leader.expectations(marginals[len(marginals) // 2 :])[0]
    before, rate = (float(half.mean()) for half in np.array_split(last, 2))
    if abs(rate) <= NOTHING * np.abs(last).max() or abs(rate - before) > STEADY * abs(rate):
        return None
    packed = followers.packed
    stays = settled_states(followers, policies) & ~packed.absorbing[packed.model]
    stays &= followers.reached(policies > 0.0)
    if not stays.any():
        return None
    i = int(np.argmax(stays.any(axis=1)))
    return Endless(rate, i, np.flatnonzero(stays[i]))


def endless_error(found: Endless) -> InputError:
    """Say that the leader's total reward is unbounded, and by whom."""
    names = ", ".join(map(str, found.states[:NAMED].tolist()))
    more = ", ..." if found.states.size > NAMED else ""
    return invalid(
        "policies",
        "a bounded total reward of the leader, because its discount is 1",
        f"{found.rate:g} a step for ever",
        f"follower {found.follower}, which stays in states {names}{more}",
        "Use a leader_discount below 1, or a leader's reward of 0 where followers can stay.",
    )
