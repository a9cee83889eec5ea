"""Linear pieces of V_i*(x): a maximum of linear functions of the payments, met one by one.

A best response found at some payments earns c + D . x at any payments x, so it bounds V_i* from
below everywhere. Keeping the last few pieces lets a step respect both sides of a kink.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray

__all__ = ["Pieces", "add_pieces", "empty_pieces"]


class Pieces(NamedTuple):
    """Up to J linear pieces per follower, over the at most K payments that reach it."""

    constant: FloatArray  # (n, J) c
    slope: FloatArray  # (n, J, K) D
    active: NDArray[np.bool_]  # (n, J)
    used: NDArray[np.int64]  # (n, J) iteration at which the piece was last a best response

    def at(self, spread: FloatArray) -> FloatArray:
        """Value (n, J) of each piece at payments (n, K) in the order of ``reach``."""
        return self.constant + np.einsum("ijk,ik->ij", self.slope, spread)


def empty_pieces(n: int, count: int, width: int) -> Pieces:
    """No pieces yet."""
    return Pieces(
        np.zeros((n, count)),
        np.zeros((n, count, width)),
        np.zeros((n, count), bool),
        np.full((n, count), -1),
    )


def add_pieces(
    pieces: Pieces, constant: FloatArray, slope: FloatArray, iteration: int
) -> tuple[Pieces, NDArray[np.bool_]]:
    """Add one piece per follower in place of a known equal, an empty or the least recent one.

    Returns the new pieces, and (n, J) bool: the slots that now hold another one than before.
    """
    rows = np.arange(constant.shape[0])
    off = np.abs(pieces.slope - slope[:, None, :]).max(axis=2)
    off += np.abs(pieces.constant - constant[:, None])
    size = 1.0 + np.abs(constant)[:, None] + np.abs(slope).max(axis=1)[:, None]
    equal = pieces.active & (off <= 1e-9 * size)
    known = equal.any(axis=1)
    slot = np.where(known, np.argmax(equal, axis=1), np.argmin(pieces.used, axis=1))
    fresh = np.zeros(pieces.active.shape, bool)
    fresh[rows[~known], slot[~known]] = True
    new = Pieces(
        pieces.constant.copy(), pieces.slope.copy(), pieces.active.copy(), pieces.used.copy()
    )
    new.constant[rows, slot] = constant
    new.slope[rows, slot] = slope
    new.active[rows, slot] = True
    new.used[rows, slot] = iteration
    return new, fresh
