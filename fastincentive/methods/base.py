"""The seam for methods: what ``solve`` and the engines ask of every one of them.

A method is a frozen dataclass of settings with four operations. ``init`` makes the state of the
first iterate; a step evaluates a state and finds the next; ``terminate`` says whether that was the
end, and why; ``finish`` turns the last report into what a solution keeps of it. What a method needs
and can do it declares in its ``capabilities``; nobody asks for its class.

The step is called ``step_from``, for ``step`` is a setting of several methods: the step size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._random import Rng
from fastincentive.errors import InputError, invalid
from fastincentive.followers.parameterization import Parameterization
from fastincentive.problem.evaluation import Evaluation
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.problem.queries import Query, run_single
from fastincentive.responses.recovery import Recovered
from fastincentive.responses.search import RegimePoint
from fastincentive.solution import MESSAGES, Ascent, Status

__all__ = ["Capabilities", "Method", "Observer", "Refusal", "Searched", "StepReport"]


class Searched(NamedTuple):
    """What a search over regimes has found so far."""

    settings: Any  # of the search, see ``RegimeAscent``
    start: Recovered
    point: RegimePoint


class StepReport(NamedTuple):
    """An iterate, evaluated at its own point; what callbacks of ``solve`` get."""

    iteration: int  # how many iterations led to it
    theta: FloatArray | None  # (n, S, A); None where policies stay with the workers of an engine
    policies: FloatArray | None  # (n, S, A)
    payments: FloatArray  # (k,)
    evaluation: Evaluation
    multipliers: FloatArray  # (n,)
    residual: float  # how far from an end of the run, in the method's own measure
    converged: bool = False
    stalled: bool = False
    finite: bool = True  # whether the next state is made of numbers
    exhausted: bool = False  # whether the method's limit on iterations is reached
    evaluations: int = 0  # of the objective so far, by methods that count them
    searched: Searched | None = None  # by a method that is a search over regimes
    price: float = 0.0  # of the budget, where it bounds what is paid out
    stationarity: float = math.inf  # K of Definition 1, where ``solve`` was asked to measure it


#: Is shown every iterate of a step that makes several; StopIteration asks the method to stop.
Observer = Callable[[StepReport], None]


class Refusal(NamedTuple):
    """Why a method cannot do something with its present settings: the parts of an InputError."""

    argument: str
    expected: str
    got: object
    remedy: str = ""

    def error(self) -> InputError:
        """Return the error that says so."""
        return invalid(self.argument, self.expected, self.got, None, self.remedy)


@dataclass(frozen=True)
class Capabilities:
    """What a method, with its settings, needs and can do.

    Attributes
    ----------
    uses_policies : bool
        It moves policies: it starts from some, in a parameterization. Others start from payments.
    keeps_state : bool
        Its state is an ``AscentState``, which checkpoints hold.
    shards : bool or Refusal
        Its step asks what it must know of all followers by queries, so that they may be in shards,
        wherever an engine has them. A Refusal says which setting stands against it; with False the
        method runs where ``solve`` is called, and takes no engine.
    types : bool or str
        It knows types of followers with counts above 1; a str says what of it does not.
    draws : bool
        It draws random numbers.
    searches_regimes : bool
        It is itself a search over the followers' regimes, so that nothing refines its answer.
    restarts : bool
        It climbs again (``restarted``) from the payments that a refinement finds, and keeps the
        better end.
    """

    uses_policies: bool
    keeps_state: bool
    shards: bool | Refusal = False
    types: bool | str = True
    draws: bool = False
    searches_regimes: bool = False
    restarts: bool = False


class Method(ABC):
    """A way to solve an incentive design problem; see the module for how the parts fit together."""

    #: What it says when it ends, by status.
    messages: ClassVar[dict[Status, str]] = MESSAGES

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What the method needs and can do."""

    @property
    @abstractmethod
    def most_iterations(self) -> int:
        """Iterations after which a run ends in any case; for progress bars."""

    @checked
    def check_suits(
        self, problem: ProblemPart, *, engine: bool = False, checkpoint: bool = False
    ) -> None:
        """Raise InputError where a run asks for what the capabilities do not have.

        ``engine`` and ``checkpoint`` tell that one is given.
        """
        can, name = self.capabilities, type(self).__name__
        if checkpoint and not can.keeps_state:
            raise InputError(f"checkpoint: expected none with {name}, which keeps no state")
        if engine and can.shards is False:
            raise InputError(f"engine: expected none with {name}, which runs in this process")
        if isinstance(can.types, str):
            problem.refuse_types(can.types)

    @checked
    def check_shards(self, count: int) -> None:
        """Raise InputError where followers are to be cut into shards, and may not be."""
        if count < 1:
            raise invalid("shards", "a positive integer", count)
        allowed = self.capabilities.shards
        if count > 1 and isinstance(allowed, Refusal):
            raise allowed.error()
        if count > 1 and not allowed:
            raise invalid("shards", f"1 with {type(self).__name__}", count)

    def drawing_from(self, rng: Rng) -> Method:
        """Return the method with another source of random numbers, where it draws any."""
        raise NotImplementedError

    def restarted(self) -> Method:
        """Return the method for a second run, from payments that a refinement found."""
        return self

    @abstractmethod
    def init(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        payments: FloatArray,
        policies: FloatArray | None,
    ) -> Any:
        """Return the state at the first iterate: payments (k,) and, if used, policies (n, S, A).

        A state is a NamedTuple with a number ``iteration``.
        """

    @checked
    def step_from(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        state: Any,
        observe: Observer | None = None,
    ) -> tuple[Any, StepReport]:
        """Evaluate a state, and find the next one.

        A method implements this, or ``step_from_steps`` if followers may be in shards. One whose
        step makes several iterates shows each to ``observe``, and ends when that raises
        StopIteration.

        Raises
        ------
        InputError
            If the total reward of a follower at discount 1 is unbounded.
        """
        return run_single(self.step_from_steps(problem, parameterization, state, observe), problem)

    def step_from_steps(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        state: Any,
        observe: Observer | None = None,
    ) -> Generator[Query, Any, tuple[Any, StepReport]]:
        """As ``step_from``, for a shard of the followers that asks what it must know of all."""
        yield from ()  # by default nothing is asked: all followers are here
        return self.step_from(problem, parameterization, state, observe)

    def terminate(self, report: StepReport) -> Status | None:
        """Return why the run ends with this report, or None if it goes on."""
        if report.converged:
            return Status.CONVERGED
        if report.stalled:
            return Status.STALLED
        if report.exhausted:
            return Status.MAX_ITER
        return None if report.finite else Status.STALLED

    def finish(self, report: StepReport) -> Ascent | None:
        """Return what a solution keeps of the last report; None if that is the solution itself.

        ``stationarity`` is the report's residual. Where policies are moved, ``solve`` puts the
        measure of Definition 1 in its place, which other code finds.
        """
        assert report.theta is not None  # for the type checker
        assert report.policies is not None
        return Ascent(
            payments=report.payments,
            theta=report.theta,
            policies=report.policies,
            leader_value=report.evaluation.leader_value,
            objective=report.evaluation.objective,
            feasibility=report.evaluation.feasibility,
            follower_gaps=report.evaluation.follower_gaps,
            multipliers=report.multipliers,
            stationarity=report.residual,
            price=report.price,
        )
