"""Models of episodes that end: an absorbing Sink is added as the last state."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.followers.mdp import TabularMDP
from fastincentive.followers.transition import from_triples

__all__ = ["final_states", "mdp_with_sink"]


def final_states(
    starts: NDArray[Any],
    origin: NDArray[np.int64],
    following: NDArray[np.int64],
    ended: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """(S,) bool: states where no episode starts, and each that came from elsewhere has ended.

    ``starts`` (S,) are numbers or chances of first states; of each move (E,) it is given whence and
    whither it led, and whether the episode ended there.
    """
    came = origin != following
    final = np.zeros(starts.size, bool)
    final[following[came & ended]] = True
    final[following[came & ~ended]] = False
    return final & (np.asarray(starts) == 0)


def mdp_with_sink(
    pairs: NDArray[np.int64],
    successors: NDArray[np.int64],
    probability: FloatArray,
    reward: FloatArray,
    available: NDArray[np.bool_],
    initial: FloatArray,
    discount: float,
) -> TabularMDP:
    """Build the model of moves (E,) from pairs s * A + a to states or the Sink, which is S.

    ``available`` (S, A) are the pairs that there are; those of them that no move leaves, and states
    without any, lead to the Sink. ``reward`` (S, A) is expected, and ``initial`` (S,).
    """
    states, actions = available.shape
    exists = np.vstack([available, np.ones((1, actions), bool)])
    exists[~exists.any(axis=1), 0] = True
    known = np.zeros((states + 1) * actions, bool)
    known[pairs] = True
    ends = np.flatnonzero(exists.reshape(-1) & ~known)
    model = from_triples(
        np.concatenate([pairs, ends]),
        np.concatenate([successors, np.full(ends.size, states)]),
        np.concatenate([probability, np.ones(ends.size)]),
        exists,
    )
    earned = np.vstack([reward, np.zeros((1, actions))])
    return TabularMDP.of_model(model, earned, discount, np.append(initial, 0.0))
