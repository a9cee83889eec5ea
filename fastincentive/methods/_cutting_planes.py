"""Cutting planes of V_i*(x), the maximum of linear functions of the payments (Kelley, 1960).

A best response found at some payments earns c + D . x at any payments x, so it bounds V_i* from
below everywhere. Keeping the last few of these planes lets a step respect both sides of a kink.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray

__all__ = ["CuttingPlanes", "add_planes", "no_planes"]


class CuttingPlanes(NamedTuple):
    """Up to J planes per follower, over the at most K payments that reach it."""

    constant: FloatArray  # (n, J) c
    slope: FloatArray  # (n, J, K) D
    active: NDArray[np.bool_]  # (n, J)
    used: NDArray[np.int64]  # (n, J) iteration at which the plane was last a best response

    def at(self, spread: FloatArray) -> FloatArray:
        """Value (n, J) of each plane at payments (n, K) in the order of ``reach``."""
        return self.constant + np.einsum("ijk,ik->ij", self.slope, spread)


def no_planes(n: int, count: int, width: int) -> CuttingPlanes:
    """Room for so many planes, none known yet."""
    return CuttingPlanes(
        np.zeros((n, count)),
        np.zeros((n, count, width)),
        np.zeros((n, count), bool),
        np.full((n, count), -1),
    )


def add_planes(
    planes: CuttingPlanes, constant: FloatArray, slope: FloatArray, iteration: int
) -> tuple[CuttingPlanes, NDArray[np.bool_]]:
    """Add one plane per follower in place of a known equal, an empty or the least recent one.

    Returns the new planes, and (n, J) bool: the slots that now hold another one than before.
    """
    rows = np.arange(constant.shape[0])
    off = np.abs(planes.slope - slope[:, None, :]).max(axis=2)
    off += np.abs(planes.constant - constant[:, None])
    size = 1.0 + np.abs(constant)[:, None] + np.abs(slope).max(axis=1)[:, None]
    equal = planes.active & (off <= 1e-9 * size)
    known = equal.any(axis=1)
    slot = np.where(known, np.argmax(equal, axis=1), np.argmin(planes.used, axis=1))
    fresh = np.zeros(planes.active.shape, bool)
    fresh[rows[~known], slot[~known]] = True
    new = CuttingPlanes(
        planes.constant.copy(), planes.slope.copy(), planes.active.copy(), planes.used.copy()
    )
    new.constant[rows, slot] = constant
    new.slope[rows, slot] = slope
    new.active[rows, slot] = True
    new.used[rows, slot] = iteration
    return new, fresh
