"""One shard of a run, and how several go on in lockstep."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive.followers.parameterization import Parameterization
from fastincentive.methods._starts import best_response_policies, leader_optimal_steps
from fastincentive.methods._state import AscentState
from fastincentive.methods.base import Method, Observer, StepReport
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.queries import Context, Query, SequentialReduce

__all__ = ["Done", "Parts", "Shard", "lockstep"]


class Done(NamedTuple):
    """What a shard says when a task is finished."""

    result: Any


class Shard:
    """Some of the followers, and where the run stands for them.

    A task begins with ``begin`` and goes on with ``go_on`` for each answer, until it is done.
    """

    def __init__(
        self,
        problem: ProblemPart,
        method: Method,
        parameterization: Parameterization,
        observe: Observer | None = None,
    ) -> None:
        self._problem: Any = problem
        self._method = method
        self._parameterization = parameterization
        self._observe = observe
        self._state: Any = None
        self._following: Any = None
        self._previous: Any = None
        self._report: StepReport | None = None
        self._task: Generator[Query, Any, Any] | None = None

    def begin(self, task: str, *arguments: Any) -> Query | Done:
        """Begin a task; one that is under way is given up."""
        found = getattr(self, f"_{task}")(*arguments)
        if not isinstance(found, Generator):
            return Done(found)
        self._task = found
        return self.go_on(None)

    def go_on(self, answer: Any) -> Query | Done:
        """Go on with the task until its next query, or its end."""
        assert self._task is not None  # for the type checker
        try:
            return self._task.send(answer)
        except StopIteration as end:
            self._task = None
            return Done(end.value)

    # -- tasks; those that need to know something of all followers are generators ----------------

    def _start(
        self, payments: FloatArray, policies: str | FloatArray | None
    ) -> Generator[Query, Any, None]:
        """Stand at the first iterate."""
        problem = self._problem
        first: FloatArray | None
        if isinstance(policies, str):
            if policies == "best-response":
                first = best_response_policies(problem, payments)
            else:
                first = yield from leader_optimal_steps(problem)
        else:
            first = policies
        self._stand(self._method.init(problem, self._parameterization, payments, first))

    def _load(self, state: AscentState) -> None:
        """Stand where an earlier run stood."""
        memory = self._problem.followers.response_memory()
        self._stand(state._replace(memory=memory))

    def _stand(self, state: Any) -> None:
        self._state = state
        self._following = self._previous = self._report = None

    def _step(self, advance: bool) -> Generator[Query, Any, StepReport]:
        """Evaluate the state, or the one that the last step led to, and find the next."""
        if advance and self._following is not None:
            self._previous, self._state, self._following = self._state, self._following, None
        self._following, self._report = yield from self._method.step_from_steps(
            self._problem, self._parameterization, self._state, self._observe
        )
        return self._report

    def _light_step(self, advance: bool) -> Generator[Query, Any, StepReport]:
        """As ``step``, and the policies stay here."""
        report = yield from self._step(advance)
        return report._replace(theta=None, policies=None)

    def _back(self, iteration: int) -> None:
        """Stand at this iteration again, the last one that was evaluated."""
        if self._state.iteration > iteration and self._previous is not None:
            self._state, self._following = self._previous, None

    def _gather(self, advance: bool) -> Any:
        """Return the state, or the next one."""
        return self._following if advance and self._following is not None else self._state

    def _point(self) -> tuple[FloatArray, FloatArray]:
        """Return theta and policies as they were evaluated last."""
        report = self._report
        assert report is not None  # for the type checker
        assert report.theta is not None
        assert report.policies is not None
        return report.theta, report.policies


class Parts(Protocol):
    """The shards of a run, wherever they are."""

    def begin(self, task: str, arguments: Sequence[tuple[Any, ...]]) -> list[Query | Done]:
        """Begin a task in every shard, with arguments for each."""
        ...

    def go_on(self, answers: Mapping[int, Any]) -> dict[int, Query | Done]:
        """Give some of the shards, by number, their answers."""
        ...


def lockstep(
    parts: Parts, context: Context, task: str, arguments: Sequence[tuple[Any, ...]]
) -> list[Any]:
    """Run a task in all shards, and return what each has found.

    ``context`` is what answers know of all followers: the problem.
    """
    asked = parts.begin(task, arguments)
    while True:
        results = [each.result for each in asked if isinstance(each, Done)]
        if results:
            return results
        if isinstance(asked[0], SequentialReduce) and not asked[0].done and len(asked) > 1:
            asked = _sequential_reduce(parts, context, asked)
            continue
        answers = asked[0].answers(asked, context)  # type: ignore[union-attr]
        found = parts.go_on(dict(enumerate(answers)))
        asked = [found[k] for k in range(len(answers))]


def _sequential_reduce(parts: Parts, context: Any, asked: Sequence[Any]) -> list[Query | Done]:
    """Let the shards take their turns, each with the numbers as the one before it left them."""
    numbers = np.zeros(context.payments.size)
    for each in asked:
        numbers[each.variables] = each.numbers
    after: list[Query | Done] = []
    for k, each in enumerate(asked):
        left: Any = parts.go_on({k: (numbers[each.variables], 0.0)})[k]
        numbers[left.variables] = left.numbers
        after.append(left)
    return after
