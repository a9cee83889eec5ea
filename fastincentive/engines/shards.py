"""Where followers are cut into shards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastincentive.errors import invalid
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.problem.sampled_gradients import Exact
from fastincentive.problem.shard import ProblemShard

__all__ = ["check_shards", "shard_bounds", "shard_of"]


def check_shards(count: int, multiplier: str, gradient: object) -> None:
    """Raise if there is no such number of shards, or if the method needs all followers in one."""
    if count < 1:
        raise invalid("shards", "a positive integer", count)
    if count > 1 and multiplier == "joint":
        raise invalid(
            "multiplier",
            "'per-follower' with an engine that cuts followers into shards",
            "'joint'",
            remedy="One multiplier over all followers is found where all of them are.",
        )
    if count > 1 and not isinstance(gradient, Exact):
        raise invalid(
            "gradient",
            "Exact() with an engine that cuts followers into shards",
            type(gradient).__name__,
            remedy="Joint trajectories are sampled where all followers are.",
        )


def shard_bounds(problem: IncentiveProblem, count: int) -> NDArray[np.int64]:
    """Where shards of consecutive followers begin and end (m+1,), m <= count, about equally large.

    A problem small enough for the product space is one shard.
    """
    most = 1 if problem.small else min(count, problem.n)
    return np.linspace(0, problem.n, most + 1, dtype=np.int64)


def shard_of(problem: IncentiveProblem, first: int, last: int) -> ProblemPart:
    """Return followers first..last-1 of a problem; all followers are the problem itself."""
    return problem if last - first == problem.n else ProblemShard(problem, first, last)
