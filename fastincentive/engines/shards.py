"""Where followers are cut into shards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastincentive.problem.part import ProblemPart
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.problem.shard import ProblemShard

__all__ = ["shard_bounds", "shard_of"]


def shard_bounds(problem: IncentiveProblem, count: int) -> NDArray[np.int64]:
    """Where shards of consecutive followers begin and end (m+1,), m <= count, about equally large.

    A problem small enough for the product space is one shard.
    """
    most = 1 if problem.small else min(count, problem.n)
    return np.linspace(0, problem.n, most + 1, dtype=np.int64)


def shard_of(problem: IncentiveProblem, first: int, last: int) -> ProblemPart:
    """Return followers first..last-1 of a problem; all followers are the problem itself."""
    return problem if last - first == problem.n else ProblemShard(problem, first, last)
