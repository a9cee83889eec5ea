"""Sums over time on the product space by doubling: every turn makes them twice as long.

With A = gamma P_1 x ... x P_n the sum W_N of the first N terms A^t R obeys
W_2N = W_N + A^N W_N, and A^N acts by one matrix product along each axis. What lies beyond N is
certified by the norm of A^N: the discount, times the largest chance that not all followers are
settled within N steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray

__all__ = ["MOST_TERMS", "Powers", "Sum", "sum_terms", "sum_visits"]

#: What may be left out, as a share of the largest entry.
TAIL = 1e-14
#: No sum is longer: rounding errors of the powers grow with it.
MOST_TERMS = 2**52
#: While the last step added a larger share of the largest entry there is no end in sight.
SMALL = 1e-3


class Sum(NamedTuple):
    """A sum over time."""

    total: FloatArray  # (S,) * n
    terms: int
    left: float  # bound on any entry of what lies beyond; inf if nothing is known


class Powers:
    """A^N for N = terms, and after each ``square`` twice as many.

    Parameters
    ----------
    moves : sequence of n arrays (S, S)
        P_i^N; the first is overwritten.
    discount : float
        gamma.
    unsettled : bool array (n, S), optional
        Nothing is earned, now and ever after, where no follower is in one of these states. By
        default something may be earned anywhere.
    terms : int
        N.
    """

    def __init__(
        self,
        moves: Sequence[FloatArray],
        discount: float,
        unsettled: NDArray[np.bool_] | None = None,
        terms: int = 1,
    ) -> None:
        self.moves = list(moves)
        self.scale = discount**terms
        self.moves[0] *= self.scale
        self.terms = terms
        self._unsettled = None if unsettled is None else unsettled.astype(float)
        shape = (len(self.moves[0]),) * len(self.moves)
        self._rooms = [np.empty(shape), np.empty(shape)]

    def norm(self) -> float:
        """Bound on the sup norm of A^N, for tables that are 0 where all are settled."""
        if self._unsettled is None:
            return self.scale
        # Follower 0's matrix has the discount in it.
        stays = [
            float((move @ each).max())
            for move, each in zip(self.moves, self._unsettled, strict=True)
        ]
        return min(self.scale, stays[0] + self.scale * sum(stays[1:]))

    def square(self) -> None:
        """Go from N to 2 N."""
        pair = len(self.moves) == 2
        spare = self._rooms[0] if pair else np.empty_like(self.moves[0])
        for i, move in enumerate(self.moves):
            np.matmul(move, move, out=spare)
            self.moves[i], spare = spare, move
        if pair:
            self._rooms[0] = spare
        self.scale *= self.scale
        self.terms *= 2

    def apply(self, table: FloatArray, adjoint: bool = False) -> FloatArray:
        """Multiply a table (S,) * n by A^N or its transpose.

        What an earlier call returned is overwritten, unless it is the table.
        """
        states, n = len(self.moves[0]), len(self.moves)
        source = table
        for i, move in enumerate(self.moves):
            out = self._rooms[1] if source is self._rooms[0] else self._rooms[0]
            if i == n - 1 and n > 1:
                right = move if adjoint else move.T
                np.matmul(source.reshape(-1, states), right, out=out.reshape(-1, states))
            else:
                # Before an axis come i others, behind it the rest.
                shape = (states**i, states, -1) if i else (states, -1)
                left = move.T if adjoint else move
                np.matmul(left, source.reshape(shape), out=out.reshape(shape))
            source = out
        return source


def sum_terms(
    powers: Powers,
    total: FloatArray,
    limit: int = MOST_TERMS,
    visits: FloatArray | None = None,
) -> Sum:
    """Sum A^t R over time until what lies beyond is rounding, or the limit.

    Parameters
    ----------
    powers : Powers
    total : array (S,)*n
        The first ``powers.terms`` terms; added to.
    limit : int
        No more terms than this or twice as many.
    visits : array (S,)*n, optional
        As many terms of the sum of A' ^t mu, to be completed beside it.
    """
    while True:
        if visits is not None:
            visits += powers.apply(visits, adjoint=True)
        step = powers.apply(total)
        total += step
        last = 2 * powers.terms >= limit
        size, largest = _largest(step), _largest(total)
        if last or size <= SMALL * largest:
            norm = powers.norm()
            left = size * norm / (1.0 - norm) if norm < 1.0 else np.inf
            complete = visits is None or norm**2 <= TAIL
            if last or (left <= TAIL * largest and complete):
                return Sum(total, 2 * powers.terms, left)
            if left * norm <= TAIL * largest and total.ndim <= 2 and visits is None:
                # No dearer than to square the powers, and enough.
                total += powers.apply(step)
                return Sum(total, 3 * powers.terms, left * norm)
        powers.square()


def sum_visits(powers: Powers, total: FloatArray) -> Sum:
    """Sum A' ^t mu over time; what is left is bounded as a sum over joint states that count."""
    while True:
        total += powers.apply(total, adjoint=True)
        norm = powers.norm()
        # No more than the norm's square is still under way, of a mass of one.
        if norm**2 <= TAIL * (1.0 - norm):
            return Sum(total, 2 * powers.terms, norm**2 / (1.0 - norm))
        if 2 * powers.terms >= MOST_TERMS:
            return Sum(total, 2 * powers.terms, np.inf)
        powers.square()


def _largest(table: FloatArray) -> float:
    return max(float(table.max()), -float(table.min()))
