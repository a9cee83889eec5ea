"""Reference policies whose values stand for V_i* in q, and the unit that gaps are measured in."""

from __future__ import annotations

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive.followers.followers import Followers, ResponseValues
from fastincentive.followers.parameterization import Parameterization
from fastincentive.followers.single import soft_responses
from fastincentive.kernels import bellman, soft_bellman

__all__ = ["ascended", "boltzmann", "nearest_greedy", "reward_units", "soft"]


def reward_units(followers: Followers, best: ResponseValues) -> FloatArray:
    """Each follower's unit of reward (n,): the widest spread of its action values in a state."""
    reachable = np.where(followers.sensible(best), best.q_values, np.nan)
    # What nobody would do is as good as unavailable; of each state one action is always kept.
    best_one = best.actions[:, :, None]
    kept = np.take_along_axis(best.q_values, best_one, axis=2)
    np.put_along_axis(reachable, best_one, kept, axis=2)
    spread = np.nanmax(reachable, axis=2) - np.nanmin(reachable, axis=2)
    widest = spread.max(axis=1)
    size = np.abs(best.values).max(axis=1)
    # A follower without a choice that matters has no spread: the size of its values will do.
    return np.where(widest > 1e-9 * (1.0 + size), widest, np.where(size > 0.0, size, 1.0))


def nearest_greedy(best: ResponseValues, policies: FloatArray, unit: FloatArray) -> FloatArray:
    """Return the exact best responses nearest to the policies (n, S, A).

    Any optimal policy gives a subgradient of V_i*; this one is zero where the follower is
    indifferent to what it does already.
    """
    out = np.empty(policies.shape)
    bellman.near_greedy_policies(best.q_values, best.values, 1e-11 * unit, policies, out)
    return out


def boltzmann(followers: Followers, best: ResponseValues, temperature: float) -> FloatArray:
    """Softmax of Q*/tau: the paper's theta* = Q* (Example 1). Worth less than V*."""
    out = np.empty(followers.shape)
    soft_bellman.boltzmann_policies(followers.packed, best.q_values, temperature, out)
    return out


def soft(
    followers: Followers, rewards: FloatArray, temperature: float, policies: FloatArray
) -> FloatArray:
    """Entropy-regularised best responses; ``policies`` is the warm start."""
    return soft_responses(followers, rewards, temperature, policies)[0]


def ascended(
    followers: Followers,
    rewards: FloatArray,
    parameterization: Parameterization,
    policies: FloatArray,
    unit: FloatArray,
    step: float,
    steps: int,
) -> FloatArray:
    """Policies after projected natural-gradient steps on each V_i (the inner loop of BOME)."""
    current = policies
    for _ in range(steps):
        held = followers.evaluate(rewards, current, checked=True)
        advantage = np.where(followers.available, held.q_values - held.values[:, :, None], 0.0)
        current = parameterization.step(current, advantage / unit[:, None, None], step, followers)
    return current
