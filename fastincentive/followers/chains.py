"""The Markov chains of followers under their policies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.followers.followers import Followers
from fastincentive.kernels import marginals as kernels
from fastincentive.kernels.marginals import SETTLE, Chains
from fastincentive.kernels.packed import Packed
from fastincentive.kernels.sparsity import Pattern, concatenate_patterns

__all__ = ["pattern_of", "room", "settled_states"]


def pattern_of(followers: Followers) -> Pattern:
    """Merge the successor rows of the followers' models."""
    return concatenate_patterns([model.pattern for model in followers.models])


def settled_states(followers: Followers, policies: FloatArray) -> NDArray[np.bool_]:
    """(n, S) bool: where a follower is absorbed, or will never be under its policy."""
    packed, pattern = followers.packed, pattern_of(followers)
    chains = room(packed, pattern)
    none = np.empty((0, *packed.initial.shape))
    labels = np.zeros((*packed.initial.shape, 1), np.int64)
    kernels.forward_laws(packed, pattern, policies, labels, 1.0, SETTLE, chains, none, none)
    return chains.settled


def room(packed: Packed, pattern: Pattern, steps: int = 0) -> Chains:
    """Make room for the chains of n policies, which stand at their initial laws."""
    n, states = packed.initial.shape
    return Chains(
        np.zeros((n, pattern.largest)),
        np.empty((n, states)),
        np.empty((n, states), np.bool_),
        np.empty(n, np.bool_),
        packed.initial.copy(),
        np.empty((steps, n)),
    )
