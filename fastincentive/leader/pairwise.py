"""Leader rewards of pairs of followers that meet: a sparse graph with a table for each edge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray, as_floats, as_integers, check_finite
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.kernels import pairwise as kernels
from fastincentive.leader.base import BoundReward, LeaderReward
from fastincentive.leader.per_follower import as_labels, per_follower, place

__all__ = ["PairwiseReward"]

#: Numbers in a scratch array: one table is multiplied in blocks of times.
SCRATCH = 2**18


class _BoundPairwise(BoundReward):
    """Edges (E, 2) and their tables (E, L, L), or the one (1, L, L) of all."""

    def __init__(
        self, labels: NDArray[np.int64], edges: NDArray[np.int64], tables: FloatArray
    ) -> None:
        self.labels = labels
        self.n_labels = int(tables.shape[1])
        self._edges = edges
        self._tables = tables

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        marginals = np.ascontiguousarray(marginals)
        expected = np.empty(marginals.shape[0])
        conditional = np.empty(marginals.shape)
        if len(self._tables) == 1 and len(self._edges) >= marginals.shape[1]:
            self._shared(marginals, expected, conditional)
        else:
            kernels.edge_rewards(self._edges, self._tables, marginals, expected, conditional)
        return expected, conditional

    def _shared(self, marginals: FloatArray, expected: FloatArray, conditional: FloatArray) -> None:
        """One table: matrix products over all followers and a block of times."""
        table = self._tables[0]
        size = max(1, SCRATCH // marginals[0].size)
        for first in range(0, len(marginals), size):
            times = slice(first, first + size)
            block = marginals[times]
            kernels.shared_rewards.suited(self._edges.size * block[:, 0].size, len(block))(
                self._edges,
                block @ table.T,
                block @ table,
                block,
                expected[times],
                conditional[times],
            )

    def at_labels(self, labels: NDArray[np.integer[Any]]) -> FloatArray:
        one, other = labels[:, self._edges[:, 0]], labels[:, self._edges[:, 1]]
        table = np.arange(len(self._edges)) if len(self._tables) != 1 else 0
        return np.asarray(self._tables[table, one, other].sum(axis=1))

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        some = possible
        if some is None:
            some = np.ones((len(self.labels), self.n_labels), bool)
        if not some.any(axis=1).all():
            return 0.0
        return float(kernels.largest_rewards(self._edges, self._tables, some))

    def turns(self, marginals: FloatArray) -> Iterator[FloatArray]:
        horizon, n, count = marginals.shape
        given = self._edges, self._tables
        steps = horizon * count**2
        ends = self._edges.reshape(-1)
        order = np.argsort(ends, kind="stable") // 2
        bounds = np.searchsorted(np.sort(ends), np.arange(n + 1))
        total = np.zeros((horizon, 2))
        kernels.add_edges(*given, np.arange(len(self._edges)), marginals, total)
        for i in range(n):
            own = order[bounds[i] : bounds[i + 1]]
            conditional = np.empty((horizon, count))
            kernels.take_edges.suited(steps * own.size, horizon)(
                *given, own, i, marginals, total, conditional
            )
            yield conditional
            kernels.add_edges.suited(steps * own.size, horizon)(*given, own, marginals, total)

    def relaxed(self, candidates: Sequence[FloatArray], weights: FloatArray) -> float:
        weighted = [(each * weights[:, None]).reshape(len(each), -1) for each in candidates]
        tables = np.broadcast_to(self._tables, (len(self._edges), *self._tables.shape[1:]))
        total = 0.0
        for (i, j), table in zip(self._edges, tables, strict=True):
            given = (candidates[j] @ table.T).reshape(len(candidates[j]), -1)
            total += float(np.max(weighted[i] @ given.T))
        return total


class PairwiseReward(LeaderReward):
    """Sum over the edges of a graph of followers: what two followers earn together.

    R = sum over edges e = (i, j) of tables[e][l_i, l_j]. Exact in O(E L^2) per time step, with E
    edges and L labels.

    Parameters
    ----------
    edges : int array (E, 2)
        Two different followers each. The same two may have several edges, which add up; a follower
        without edges earns nothing.
    tables : array (E, L, L) or (L, L)
        Reward of each edge, or of every one, for the label of its first follower (rows) and of its
        second (columns).
    labels : int array (S,), (n, S) or (n, S, A), optional
        Label of each state (the same for all followers, or each its own), or of each state and
        action. By default the states themselves, and L = S.

    Raises
    ------
    InputError
        If edges join a follower with itself, there is not one table for each edge or for all, or a
        number is not finite; when the problem is built, if shapes, followers or label numbers do
        not fit the followers.

    Notes
    -----
    The graph is a coordination graph (Guestrin, Koller and Parr, "Multiagent planning with factored
    MDPs", Advances in Neural Information Processing Systems 14 (2001) 1523-1530). What followers
    earn on their own is an ``AdditiveReward``, which may be added. A follower's conditional reward
    holds all edges of the others: the total, kept with its rounding errors, less its own edges.
    One table for all edges is quicker than many: it is multiplied once for each follower.

    Examples
    --------
    Six followers on a ring; the leader loses 1 for each two neighbours in the same state:

    >>> ring = [(i, (i + 1) % 6) for i in range(6)]
    >>> reward = PairwiseReward(ring, -np.eye(3))
    >>> expected, _ = reward.bind(6, 3, 1).expectations(np.full((1, 6, 3), 1 / 3))
    >>> float(expected[0].round(12))
    -2.0
    """

    @checked
    def __init__(
        self, edges: ArrayLike, tables: ArrayLike, labels: ArrayLike | None = None
    ) -> None:
        expected = "integers of shape (E, 2)"
        self.edges = as_integers("edges", edges, expected)
        self.tables = as_floats("tables", tables)
        self.labels = None if labels is None else as_labels("labels", labels)
        if self.edges.ndim != 2 or self.edges.shape[1] != 2:
            raise invalid("edges", expected, f"{self.edges.dtype} {self.edges.shape}")
        loops = np.flatnonzero(self.edges[:, 0] == self.edges[:, 1])
        if loops.size:
            e = loops[0]
            raise invalid("edges", "two different followers", self.edges[e].tolist(), f"edge {e}")
        shape = self.tables.shape
        if (
            self.tables.ndim not in (2, 3)
            or not shape[-1] == shape[-2] > 0
            or shape[:-2] not in ((), (len(self.edges),))
        ):
            raise invalid("tables", f"shape ({len(self.edges)}, L, L) or (L, L)", shape)

        def where(index: tuple[int, ...]) -> str:
            return f"edge {index[0]}, " * (len(index) == 3) + f"labels {index[-2]}, {index[-1]}"

        check_finite("tables", self.tables, where)

    def bind(self, n: int, n_states: int, n_actions: int) -> BoundReward:
        """Check against n followers with S states and A actions, and return the bound form."""
        count = self.tables.shape[-1]
        odd = np.argwhere((self.edges < 0) | (self.edges >= n))
        if odd.size:
            e = odd[0][0]
            raise invalid("edges", f"followers in 0..{n - 1}", self.edges[e].tolist(), f"edge {e}")
        if self.labels is None and count != n_states:
            raise invalid(
                "tables",
                f"last axes ({n_states}, {n_states}), the number of states",
                self.tables.shape,
                None,
                "Give labels if the tables are not over states.",
            )
        given = np.arange(n_states) if self.labels is None else self.labels
        labels = per_follower("labels", given, n, n_states, n_actions)
        bad = np.argwhere((given < 0) | (given >= count))
        if bad.size:
            index = tuple(bad[0])
            raise invalid(
                "labels",
                f"numbers in 0..{count - 1}, the size of the tables' axes",
                given[index],
                place(index),
            )
        return _BoundPairwise(
            np.ascontiguousarray(labels, np.int64),
            np.ascontiguousarray(self.edges, np.int64),
            np.ascontiguousarray(self.tables.reshape(-1, count, count)),
        )

    def scaled(self, weight: float) -> LeaderReward:
        """Return the same reward times a finite number."""
        return PairwiseReward(self.edges, weight * self.tables, self.labels)
