"""Followers' models as the flat arrays that kernels read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._machine import UNGUARDED, check_memory
from fastincentive.followers.transition import TransitionModel
from fastincentive.kernels.packed import Packed

__all__ = ["check_room", "distinct_models", "pack", "stacked"]


def check_room(n: int, states: int, actions: int) -> None:
    """Raise if the machine cannot hold starts (n, S) and rewards (n, S, A).

    Raises
    ------
    MemoryLimitError
    """
    need = 8.0 * n * states * (actions + 1)
    if need > UNGUARDED:
        sizes = f"{n} followers with {states} states and {actions} actions"
        check_memory(f"to hold {sizes}", need)


def distinct_models(
    given: Iterable[TransitionModel],
) -> tuple[list[TransitionModel], NDArray[np.int64]]:
    """List each model once, by identity: equal ones in use are one object. The index is (n,)."""
    numbers: dict[int, int] = {}
    models: list[TransitionModel] = []
    index = []
    for model in given:
        number = numbers.setdefault(id(model), len(models))
        if number == len(models):
            models.append(model)
        index.append(number)
    return models, np.array(index, np.int64)


def pack(
    models: Sequence[TransitionModel],
    index: NDArray[np.int64],
    discount: FloatArray,
    initial: FloatArray,
) -> Packed:
    """Pack M models; follower i of n has model ``index[i]`` (n,), a discount (n,), a start (n, S).

    Models are copied: their own arrays are read-only, and kernels are compiled for either kind.
    """
    return Packed(
        _row_starts([model.row_start for model in models]),
        _joined([model.successor for model in models]),
        _joined([model.probability for model in models]),
        stacked([model.available for model in models]),
        stacked([model.absorbing for model in models]),
        stacked([model.sink for model in models]),
        index,
        discount,
        initial,
    )


def _row_starts(each: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    if len(each) == 1:
        return each[0].copy()
    offsets = np.concatenate([[0], np.cumsum([start[-1] for start in each])])
    moved = [start[:-1] + offset for start, offset in zip(each, offsets, strict=False)]
    return np.concatenate([*moved, offsets[-1:]])


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return arrays[0].copy() if len(arrays) == 1 else np.concatenate(arrays)


def stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """As ``np.stack``, soon for one array."""
    return arrays[0][None].copy() if len(arrays) == 1 else np.stack(arrays)
