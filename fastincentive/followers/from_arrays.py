"""Followers given as arrays: checked for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import (
    FloatArray,
    as_floats,
    as_integers,
    as_numbers,
    check_finite,
    check_shape,
)
from fastincentive.errors import invalid
from fastincentive.followers.mdp import TabularMDP, check_absorbed_reward
from fastincentive.followers.packing import check_room
from fastincentive.followers.transition import ROW_SUM_TOLERANCE, in_double

__all__ = ["arrays_of"]


def _index_of(index: ArrayLike | None, count: int, n: int) -> NDArray[np.int64]:
    """Return the number (n,) of each follower's model, of so many."""
    if index is None:
        if count not in (1, n):
            raise invalid(
                "index", f"numbers of shape ({n},), because there are {count} models", None
            )
        return np.zeros(n, np.int64) if count == 1 else np.arange(n)
    found = as_integers("index", index)
    check_shape("index", found, (n,), "(followers,)")
    bad = (found < 0) | (found >= count)
    if bad.any():
        i = int(np.argmax(bad))
        raise invalid("index", f"numbers in 0..{count - 1}", int(found[i]), f"follower {i}")
    return found


def _left_with(
    rewards: ArrayLike, models: Sequence[TabularMDP], index: NDArray[np.int64]
) -> tuple[Sequence[TabularMDP], NDArray[np.int64]]:
    """Add models without the actions whose rewards (n, S, A) are -inf; with everybody's number."""
    given = as_numbers("rewards", rewards)
    shape = (index.size, *models[0].available.shape)
    if given.shape != shape or given.dtype.kind != "f" or given.min() > -np.inf:
        return models, index
    gone = np.flatnonzero((given == -np.inf).any(axis=(1, 2)))
    patterns = np.packbits((given[gone] == -np.inf).reshape(gone.size, -1), axis=1)
    rows = np.column_stack([index[gone], patterns])
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    fewer = [
        models[index[i]].replace(
            reward=np.where(given[i] == -np.inf, -np.inf, models[index[i]].reward)
        )
        for i in gone[first].tolist()
    ]
    number = index.copy()
    number[gone] = len(models) + which.reshape(-1)
    return [*models, *fewer], number


def _rewards_of(
    rewards: ArrayLike, models: Sequence[TabularMDP], index: NDArray[np.int64]
) -> FloatArray:
    """Return rewards (n, S, A), 0 where an action is unavailable, from (n, S, A) or (n, S)."""
    n, (states, actions) = index.size, models[0].available.shape
    given = as_numbers("rewards", rewards)
    if given.shape not in ((n, states, actions), (n, states)):
        expected = f"shape ({n}, {states}, {actions}) or ({n}, {states})"
        raise invalid("rewards", expected, given.shape)
    value = np.empty((n, states, actions))
    value[:] = given if given.ndim == 3 else given[:, :, None]
    for m, mdp in enumerate(models):
        if not mdp.available.all():
            value[(index == m)[:, None, None] & ~mdp.available] = 0.0
    check_finite("rewards", value, lambda at: "follower {}, state {}, action {}".format(*at))
    return value


def _discounts_of(
    discount: ArrayLike | None, models: Sequence[TabularMDP], index: NDArray[np.int64]
) -> FloatArray:
    """Return discounts (n,): those given, else those of the models."""
    if discount is None:
        return np.array([mdp.discount for mdp in models])[index]
    value = as_floats("discount", discount)
    if value.shape not in ((), index.shape):
        raise invalid("discount", f"a number or shape {index.shape}", value.shape)
    value = np.array(np.broadcast_to(value, index.shape))
    bad = ~((value >= 0.0) & (value <= 1.0))
    if bad.any():
        i = int(np.argmax(bad))
        raise invalid("discount", "numbers in [0, 1]", value[i], f"follower {i}")
    return value


def _starts_of(
    initial: ArrayLike | None, models: Sequence[TabularMDP], index: NDArray[np.int64]
) -> FloatArray:
    """Return laws of the first state (n, S), from these, from numbers (n,), or of the models."""
    n, states = index.size, models[0].n_states
    if initial is None:
        return np.stack([mdp.initial for mdp in models])[index]
    given = as_numbers("initial", initial)
    if given.shape == (n,) and np.issubdtype(given.dtype, np.integer):
        bad = (given < 0) | (given >= states)
        if bad.any():
            i = int(np.argmax(bad))
            raise invalid("initial", f"numbers in 0..{states - 1}", int(given[i]), f"follower {i}")
        value = np.zeros((n, states))
        value[np.arange(n), given] = 1.0
        return value
    if given.shape != (n, states):
        expected = f"numbers of states of shape ({n},), or laws of shape ({n}, {states})"
        raise invalid("initial", expected, f"{given.dtype} {given.shape}")
    value = in_double(given)
    total = value.sum(axis=1)
    bad = ~((value >= 0.0).all(axis=1) & (np.abs(total - 1.0) <= ROW_SUM_TOLERANCE))
    if bad.any():
        i = int(np.argmax(bad))
        expected = f"probabilities >= 0 that sum to 1 (within {ROW_SUM_TOLERANCE:g})"
        raise invalid("initial", expected, f"a sum of {total[i]:.12g}", f"follower {i}")
    return value / total[:, None]


def arrays_of(
    models: Sequence[TabularMDP],
    rewards: ArrayLike,
    discount: ArrayLike | None,
    initial: ArrayLike | None,
    index: ArrayLike | None,
) -> tuple[Sequence[TabularMDP], NDArray[np.int64], FloatArray, FloatArray, FloatArray]:
    """Models, their numbers (n,), discounts (n,), starts (n, S), rewards (n, S, A), all checked."""
    shape = as_numbers("rewards", rewards).shape
    n = shape[0] if shape else 0
    if n < 1:
        raise invalid("rewards", "those of at least one follower", shape)
    check_room(n, *models[0].available.shape)
    models, number = _left_with(rewards, models, _index_of(index, len(models), n))
    found = _rewards_of(rewards, models, number)
    discounts = _discounts_of(discount, models, number)
    for i in np.flatnonzero(discounts == 1.0).tolist():
        check_absorbed_reward(models[number[i]].transition, found[i], f"rewards[{i}]")
    return models, number, discounts, _starts_of(initial, models, number), found
