"""The sparsity pattern of a transition model: successors of each state, whatever the policy.

Compressed sparse rows (Saad, Iterative Methods for Sparse Linear Systems, 2003, section 3.4). A
policy changes only the weights of these rows, so merging them for a policy is one pass over the
transitions, 16 bytes each, and passes over a chain read short contiguous rows. Numbers are
unsigned: an index that cannot be negative needs no check.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fastincentive.kernels.jit import jit

__all__ = ["Pattern", "concatenate_patterns", "policy_weights", "union_rows"]


class Pattern(NamedTuple):
    """Successors of each state under any action, merged, for M models.

    Row ``s`` of model ``m`` spans ``start[m, s]:start[m, s + 1]`` of the model's part
    ``column[base[m]:base[m + 1]]``; ``place`` (as long as all models' transitions together) says
    which entry of that part a transition belongs to.
    """

    start: np.ndarray  # (M, S + 1) uint32
    base: np.ndarray  # (M + 1,) int64
    column: np.ndarray  # (entries,) uint32, state numbers
    place: np.ndarray  # (nnz,) uint32

    @property
    def largest(self) -> int:
        """Largest number of entries of a model."""
        ends = self.base.tolist()
        return max(end - start for start, end in pairwise(ends))


@jit
def union_rows(row_start, successor, actions, start, column, place):
    """Merge the successors over the actions; returns the number of entries."""
    states = start.shape[0] - 1
    at = np.full(states, -1, np.int64)
    end = 0
    for s in range(states):
        start[s] = end
        first = end
        for e in range(row_start[s * actions], row_start[(s + 1) * actions]):
            c = successor[e]
            if at[c] < first:
                at[c] = end
                column[end] = c
                end += 1
            place[e] = at[c]
    start[states] = end
    return end


def concatenate_patterns(patterns: list[Pattern]) -> Pattern:
    """Patterns of one model each as the pattern of all of them, in order."""
    if len(patterns) == 1:
        return patterns[0]
    sizes = [each.column.size for each in patterns]
    return Pattern(
        np.concatenate([each.start for each in patterns]),
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate([each.column for each in patterns]),
        np.concatenate([each.place for each in patterns]),
    )


@jit
def policy_weights(packed, pattern, i, policy, weight):
    """Write P^pi of follower i: the weight of every entry of the pattern, 0 where pi never goes."""
    states, actions = policy.shape
    m = packed.model[i]
    weight[: pattern.base[m + 1] - pattern.base[m]] = 0.0
    for s in range(states):
        for a in range(actions):
            w = policy[s, a]
            if w != 0.0:
                row = (m * states + s) * actions + a
                for e in range(packed.row_start[row], packed.row_start[row + 1]):
                    weight[pattern.place[e]] += w * packed.probability[e]
