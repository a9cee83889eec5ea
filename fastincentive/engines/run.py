"""A run of a method over shards of the followers: its start, its steps, and what it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.engines.shard import Parts, lockstep
from fastincentive.engines.shards import shard_bounds, shard_of
from fastincentive.followers.parameterization import Parameterization
from fastincentive.methods._state import (
    AscentState,
    join_reports,
    join_states,
    part_of_state,
)
from fastincentive.methods.base import Method, Observer, StepReport
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["Engine", "Run"]


class Engine(ABC):
    """Where the followers of a run are."""

    @abstractmethod
    def run(
        self,
        problem: IncentiveProblem,
        method: Method,
        parameterization: Parameterization,
        observe: Observer | None = None,
    ) -> Run:
        """Cut the problem into shards, for one run.

        ``observe`` is for methods that make several iterates in a step.

        Raises
        ------
        InputError
            If the method does not suit the engine.
        """

    #: Whether the followers are in this process, whose memory they then take.
    here: bool = True

    @abstractmethod
    def count(self) -> int:
        """Return into how many shards followers are cut, at most."""

    def largest_shard(self, problem: IncentiveProblem) -> ProblemPart:
        """Return the shard with most followers."""
        bounds = shard_bounds(problem, self.count())
        k = int(np.argmax(np.diff(bounds)))
        return shard_of(problem, int(bounds[k]), int(bounds[k + 1]))


class Run:
    """One run of a method; the same for any number of shards.

    Parameters
    ----------
    problem : IncentiveProblem
    parts : Parts
        Its shards.
    bounds : array (m+1,)
        At which follower each shard begins, and the last one ends.
    """

    def __init__(self, problem: IncentiveProblem, parts: Parts, bounds: NDArray[np.int64]) -> None:
        self._problem = problem
        self._parts = parts
        self._ranges = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        payments = problem.payments
        self._variables = [np.arange(payments.size)]
        if len(self._ranges) > 1:
            reach = [payments.reach[first:last] for first, last in self._ranges]
            self._variables = [np.unique(part[part >= 0]) for part in reach]
        self._task = "step" if len(self._ranges) == 1 else "light_step"
        #: Iteration of the state that the run stands at.
        self.iteration = 0
        #: Whether the next step goes on to what the last one found.
        self._advance = False

    def start(self, payments: FloatArray, policies: str | FloatArray | None) -> None:
        """Stand at payments (k,), and at policies (n, S, A) or those of a name that solve knows.

        None for methods that move no policies.
        """
        split = [
            (payments[own], policies[first:last] if isinstance(policies, np.ndarray) else policies)
            for own, (first, last) in zip(self._variables, self._ranges, strict=True)
        ]
        self._do("start", split)
        self.iteration, self._advance = 0, False

    def load(self, state: AscentState) -> None:
        """Stand where another run stood."""
        self._do("load", self._split(state))
        self.iteration, self._advance = state.iteration, False

    def step(self) -> StepReport:
        """Evaluate the state, and find the next.

        Raises
        ------
        InputError
            If best responses to the payments are unbounded.
        """
        parts = self._do(self._task, [(self._advance,)] * len(self._ranges))
        problem = self._problem
        self._advance = False
        return join_reports(parts, self._variables, problem.payments, problem.followers.counts)

    def advance(self) -> None:
        """Go on to the state that the last step found."""
        self._advance = True
        self.iteration += 1

    def back(self) -> None:
        """Go back from a state that could not be evaluated."""
        self.iteration -= 1
        self._advance = False
        self._do("back", [(self.iteration,)] * len(self._ranges))

    def state(self) -> AscentState:
        """Return the whole state, to go on from."""
        parts = self._do("gather", [(self._advance,)] * len(self._ranges))
        return join_states(parts, self._variables, self._problem.payments)

    def kept(self) -> AscentState | None:
        """Return the state after an interrupt; or the last one known, if any, where it is lost."""
        return self.state()

    def point(self) -> tuple[FloatArray, FloatArray]:
        """Return theta and policies (n, S, A) as they were evaluated last."""
        parts = self._do("point", [()] * len(self._ranges))
        if len(parts) == 1:
            return parts[0]
        thetas, policies = zip(*parts, strict=True)
        return np.concatenate(thetas), np.concatenate(policies)

    def close(self) -> None:
        """Let go of the shards."""

    def _split(self, state: AscentState) -> list[tuple[AscentState]]:
        if len(self._ranges) == 1:
            return [(state,)]
        reach = self._problem.payments.reach
        return [
            (part_of_state(state, first, last, own, _width(reach[first:last])),)
            for own, (first, last) in zip(self._variables, self._ranges, strict=True)
        ]

    def _do(self, task: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        return lockstep(self._parts, self._problem, task, arguments)


def _width(reach: NDArray[np.int64]) -> int:
    """Most payments of a follower."""
    return int((reach >= 0).sum(axis=1).max())
