"""The leader's value of one follower with many states: policy evaluation, no sum over time.

A leader of one follower earns along one chain, so its value solves V = r + gamma P V with the
leader's discount, and its gradient is d(s) Q(s, a) with that discount's occupancy d [1]_.

References
----------
.. [1] R. Sutton, D. McAllester, S. Singh, Y. Mansour, Policy gradient methods for reinforcement
   learning with function approximation, NeurIPS 1999.
"""

from __future__ import annotations

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive.followers.evaluation import is_absorbed
from fastincentive.followers.followers import Followers
from fastincentive.kernels.packed import DENSE_STATES
from fastincentive.leader.base import BoundReward
from fastincentive.problem.passes import LeaderPass

__all__ = ["LonePass"]


class LonePass:
    """What a leader of one follower earns.

    Parameters
    ----------
    followers : Followers
        One, with a count of 1 and more than ``DENSE_STATES`` states.
    leader : BoundReward
    """

    def __init__(self, followers: Followers, leader: BoundReward) -> None:
        own = leader.additive_parts()
        assert own is not None  # for the type checker: so it is for one follower
        self._follower = followers
        self._rewards = np.ascontiguousarray(
            np.broadcast_to(own[0][leader.labels], followers.shape)
        )
        self._discounted: dict[float, Followers] = {}

    @staticmethod
    def of(followers: Followers, leader: BoundReward) -> LonePass | None:
        """Return the pass of one follower with many states; None where sums over time are quick."""
        if followers.population > 1 or followers.n_states <= DENSE_STATES:
            return None
        return LonePass(followers, leader)

    def run(self, policies: FloatArray, gradient: bool, discount: float) -> LeaderPass | None:
        """V, and dV/dpi where asked for; None where only a sum over time will do.

        That is of single precision, and at discount 1 where the follower is never absorbed.
        """
        if policies.dtype != np.float64 or (
            discount == 1.0 and not is_absorbed(self._follower.packed, 0, policies[0])
        ):
            return None
        one = self._at(discount)
        found = one.evaluate(self._rewards, policies, checked=True)
        slopes = None
        if gradient:
            slopes = found.visits[:, :, None] * np.where(one.available, found.q_values, 0.0)
        return LeaderPass(float(one.start_values(found.values)[0]), slopes, 0, 0.0)

    def optimum(self, discount: float) -> FloatArray:
        """Return policies (1, S, A) that are best for the leader at a discount below 1."""
        one = self._at(discount)
        best = one.best_responses(self._rewards, checked=True)
        return one.deterministic_policies(best.actions)

    def _at(self, discount: float) -> Followers:
        """Return the follower with another discount."""
        if discount not in self._discounted:
            self._discounted = {discount: self._follower.discounted(discount)}
        return self._discounted[discount]
