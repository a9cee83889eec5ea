"""What ``solve`` was asked for, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastincentive._arrays import FloatArray
from fastincentive._files import check_writable
from fastincentive._machine import UNGUARDED
from fastincentive._random import Rng, check_rng
from fastincentive.engines import Engine
from fastincentive.errors import InputError, invalid
from fastincentive.followers.parameterization import Direct, Parameterization, Softmax
from fastincentive.methods import Method, RegimeAscent
from fastincentive.problem.memory import ASCENT_ARRAYS, spend_budget
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.solver.checkpoints import Checkpoint
from fastincentive.solver.plan import plan_of
from fastincentive.solver.tie_breaking import StrongStackelberg, WeakStackelberg

__all__ = ["DEFAULT_POLICIES", "Request", "request_of"]

#: Where Algorithm 1 starts by default.
DEFAULT_POLICIES, DEFAULT_PAYMENTS = "leader-optimal", 2.0
#: Where less of the payments than this is still too much, the start is at their lower bounds.
SMALLEST_SHARE = 1e-6


@dataclass(frozen=True)
class Request:
    """A solve: what to solve, how, and what to do with where the method ends."""

    problem: IncentiveProblem
    method: Method
    parameterization: Parameterization
    tie_breaking: StrongStackelberg | WeakStackelberg
    refiner: RegimeAscent | None
    #: What the method and the refiner are, and why.
    plan: str
    engine: Engine | None
    #: Where the state is kept, or None, and after how many iterations.
    path: Path | None
    every: int
    #: After how many iterations K is measured; 0 for never.
    measure_every: int = 0

    def start(
        self, payments: ArrayLike | None, policies: str | ArrayLike
    ) -> tuple[FloatArray, str | FloatArray | None]:
        """Return payments (k,), and policies (n, S, A), the name of some, or None if unused."""
        allowed = self.problem.payments
        if payments is None:
            # What is paid out may be far beyond a budget: it is come to from below.
            payments = 0.0 if spend_budget(self.problem) < np.inf else DEFAULT_PAYMENTS
        if np.ndim(payments) == 0:
            value = np.full(allowed.size, np.asarray(payments, float))
            if not np.isfinite(value).all():
                raise invalid("initial_payments", "a finite number", payments)
            x = self._bounded_start(allowed.project(value))
        else:
            x = allowed.check(payments, "initial_payments")
        if not self.method.capabilities.uses_policies:
            return x, None
        if not isinstance(policies, str):
            return x, self.problem.followers.check_policies(policies, "initial_policies")
        if policies not in (DEFAULT_POLICIES, "best-response"):
            raise invalid(
                "initial_policies", '"leader-optimal", "best-response" or an array', repr(policies)
            )
        return x, policies

    def _bounded_start(self, payments: FloatArray) -> FloatArray:
        """Lower payments (k,) until no follower could earn them for ever, at discount 1."""
        problem, lower = self.problem, self.problem.payments.lower
        share = 1.0
        while problem.undiscounted and share > 0.0:
            x = lower + share * (payments - lower)
            if problem.followers.is_bounded(problem.rewards(x)):
                return x
            share = share / 2.0 if share > SMALLEST_SHARE else 0.0
        return lower + share * (payments - lower)

    def checkpoint(
        self, payments: FloatArray, policies: str | FloatArray | None
    ) -> Checkpoint | None:
        """Return the file of the run from this start, if one is asked for."""
        if self.path is None:
            return None
        return Checkpoint(
            self.path,
            self.every,
            self.problem,
            self.method,
            self.parameterization,
            payments,
            policies,
        )


def request_of(
    *,
    problem: IncentiveProblem,
    method: Method | None,
    parameterization: Parameterization | None,
    policies: str | ArrayLike,
    tie_breaking: StrongStackelberg | WeakStackelberg | None,
    refine: bool | RegimeAscent,
    rng: Rng,
    engine: Engine | None,
    checkpoint: str | Path | None,
    checkpoint_every: int,
    stationarity_every: int,
) -> Request:
    """Fill in the defaults of ``solve``, and refuse what does not fit together.

    Raises
    ------
    InputError
        If an argument is not as ``solve`` describes it, or the method cannot do what is asked.
    MemoryLimitError
        If a large run needs more memory than there is.
    """
    _check(problem, "problem", IncentiveProblem, "an IncentiveProblem")
    if method is not None:
        _check(method, "method", Method, "a method such as BilevelAscent()")
    _check(refine, "refine", (bool, RegimeAscent), "a bool or a RegimeAscent")
    plan = plan_of(
        problem,
        method,
        refine,
        ascent_asked=parameterization is not None
        or not (isinstance(policies, str) and policies == DEFAULT_POLICIES)
        or engine is not None
        or checkpoint is not None
        or stationarity_every != 0,
    )
    method, refiner = plan.method, plan.refiner
    parameterization = Direct() if parameterization is None else parameterization
    _check(parameterization, "parameterization", (Direct, Softmax), "Direct() or Softmax(tau)")
    if checkpoint_every < 1:
        raise invalid("checkpoint_every", "a positive integer", checkpoint_every)
    _check_measures(method, stationarity_every)
    tie_breaking = StrongStackelberg() if tie_breaking is None else tie_breaking
    kinds = (StrongStackelberg, WeakStackelberg)
    _check(tie_breaking, "tie_breaking", kinds, "StrongStackelberg() or WeakStackelberg()")
    if engine is not None:
        _check(engine, "engine", Engine, "engines.Local() or engines.Dask(client)")
    method.check_suits(problem, engine=engine is not None, checkpoint=checkpoint is not None)
    # Elsewhere the passes look for themselves.
    here = engine is None or engine.here
    if here and ASCENT_ARRAYS * problem.followers.rewards.nbytes > UNGUARDED:
        problem.memory_estimate().raise_if_too_large()
    check_rng(rng)
    if rng is not None:
        method, refiner = _drawing_from(rng, method, refiner)
    path = None
    if checkpoint is not None:
        _check(checkpoint, "checkpoint", (str, PathLike), "a path")
        path = Path(checkpoint)
        check_writable(path, "checkpoint")
    return Request(
        problem=problem,
        method=method,
        parameterization=parameterization,
        tie_breaking=tie_breaking,
        refiner=refiner,
        plan=plan.text,
        engine=engine,
        path=path,
        every=checkpoint_every,
        measure_every=stationarity_every,
    )


def _check(value: object, argument: str, kinds: type | tuple[type, ...], expected: str) -> None:
    if not isinstance(value, kinds):
        raise InputError(f"{argument}: expected {expected}, got {type(value).__name__}")


def _check_measures(method: Method, every: int) -> None:
    if every < 0:
        raise invalid("stationarity_every", "an integer >= 0", every)
    if every and not method.capabilities.uses_policies:
        raise invalid(
            "stationarity_every",
            f"0 with {type(method).__name__}",
            every,
            None,
            "K of Definition 1 is a measure of payments and policies; this method has no policies "
            "of its own.",
        )


def _drawing_from(
    rng: Rng, method: Method, refiner: RegimeAscent | None
) -> tuple[Any, RegimeAscent | None]:
    """Return both with this source of random numbers, where they draw any."""
    draws = method.capabilities.draws
    if not draws and refiner is None:
        name = type(method).__name__
        raise InputError(
            f"rng: expected None, got {rng!r}: {name} with these settings draws nothing, and "
            "nothing is refined"
        )
    if draws:
        method = method.drawing_from(rng)
    return method, None if refiner is None else refiner.drawing_from(rng)
