"""All followers in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from fastincentive._checks import checked
from fastincentive.engines.run import Engine, Run
from fastincentive.engines.shard import Done, Shard
from fastincentive.engines.shards import shard_bounds, shard_of
from fastincentive.followers.parameterization import Parameterization
from fastincentive.methods.base import Method, Observer
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.problem.queries import Query

__all__ = ["Local"]


class Local(Engine):
    """All followers in this process: what ``solve`` does by default.

    Parameters
    ----------
    shards : int
        1 by default. More take no less memory: they are there to see what a cluster would do.
    """

    @checked
    def __init__(self, shards: int = 1) -> None:
        self.shards = shards

    def run(
        self,
        problem: IncentiveProblem,
        method: Method,
        parameterization: Parameterization,
        observe: Observer | None = None,
    ) -> Run:
        """Cut the problem into shards, for one run."""
        method.check_shards(self.shards)
        bounds = shard_bounds(problem, self.shards)
        shards = [
            Shard(shard_of(problem, first, last), method, parameterization, observe)
            for first, last in pairwise(bounds.tolist())
        ]
        return Run(problem, _LocalParts(shards), bounds)

    def count(self) -> int:
        """Return into how many shards followers are cut, at most."""
        return self.shards


class _LocalParts:
    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards

    def begin(self, task: str, arguments: Sequence[tuple[Any, ...]]) -> list[Query | Done]:
        return [
            shard.begin(task, *each) for shard, each in zip(self._shards, arguments, strict=True)
        ]

    def go_on(self, answers: Mapping[int, Any]) -> dict[int, Query | Done]:
        return {k: self._shards[k].go_on(answer) for k, answer in answers.items()}
