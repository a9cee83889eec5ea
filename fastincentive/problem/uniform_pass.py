"""How long sums over time are while followers choose at random.

There is a chain for each model then, not for each follower.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastincentive.leader.base import BoundReward
from fastincentive.problem.passes import ForwardPass

__all__ = ["UniformPass"]


class UniformPass(ForwardPass):
    """The pass of all followers of a model at once, who have one policy.

    It only measures horizons: bounds on what is left are sums over followers, and so linear in the
    law that these start with together. ``labels`` is what is shown of as many followers as there
    are models; nobody reads it.
    """

    def __init__(self, every: ForwardPass, labels: BoundReward) -> None:
        followers = every.followers.by_model()
        known = (every.max_horizon, every.n_total, every.moves_when_absorbed)
        super().__init__(followers, labels, *known)
        self.stand_for = followers.packed.initial.sum(axis=1)
        self._every = every

    def label_mask(self, states: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(n, L) bool: the labels that all followers can show in the marked states (M, S)."""
        return self._every.label_mask(states[self._every.followers.packed.model])
