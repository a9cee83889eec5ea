"""Contenders that answer one question: certified first, then timed in alternation.

An answer that misses the tolerance is reported as failed and never timed; where that is ours (the
first contender) nobody is timed.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from fastincentive.errors import invalid

__all__ = ["FAILED", "NOT_TIMED", "OK", "Contender", "Outcome", "Trial", "quartiles", "race"]

OK, FAILED, NOT_TIMED = "ok", "failed", "not timed"

#: A sample repeats a call until it lasts this long.
SAMPLE_SECONDS = 5e-3
#: Preparing the calls of one sample takes no longer than about this.
PREPARE_SECONDS = 1.0
_MOST_CALLS = 100_000


@dataclass(frozen=True)
class Contender:
    """One way to answer.

    Attributes
    ----------
    name : str
    run : callable
        The call that is timed. Without ``prepare`` it takes no arguments.
    prepare : callable, optional
        Makes the argument of one call, outside the timing: for solvers that remember the last.
    read : callable, optional
        Brings what ``run`` returned into the form that is certified, outside the timing.
    moved : float, optional
        Bytes that a call has to move at least.
    """

    name: str
    run: Callable[..., Any]
    prepare: Callable[[], Any] | None = None
    read: Callable[[Any], Any] | None = None
    moved: float | None = None


@dataclass(frozen=True)
class Trial:
    """A question and who answers it.

    Attributes
    ----------
    contenders : sequence of Contender
        Ours first; ratios are to it.
    certify : callable
        Error of an answer, by code that is none of the contenders'.
    tolerance : float
        Largest error that passes.
    skipped : tuple of str
        A line for each contender that could not take part.
    facts : callable, optional
        Plain data about an answer that is worth keeping, such as iterations.
    """

    contenders: Sequence[Contender]
    certify: Callable[[Any], float]
    tolerance: float
    skipped: tuple[str, ...] = ()
    facts: Callable[[Any], dict[str, Any]] | None = None


@dataclass
class Outcome:
    """What became of one contender; ``samples`` are seconds per call, one for each round."""

    name: str
    status: str = OK
    error: float = math.nan
    first_seconds: float = math.nan
    calls: int = 0
    samples: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    moved: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    message: str = ""

    @property
    def median(self) -> float:
        """Median seconds per call; NaN if not timed."""
        return quartiles(self.samples)[1]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; NaN of nothing."""
    if not len(values):
        return math.nan, math.nan, math.nan
    low, middle, high = np.quantile(np.asarray(values, float), [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def race(
    trial: Trial,
    rounds: int,
    budget: float = math.inf,
    sample_seconds: float = SAMPLE_SECONDS,
) -> list[Outcome]:
    """Warm up and certify every contender, then time the rounds.

    Parameters
    ----------
    trial : Trial
    rounds : int
        Each round takes one sample of every contender, and begins with another one each time.
    budget : float
        A contender other than ours leaves after the round in which it has spent so many seconds.
    sample_seconds : float
        Calls are repeated until a sample lasts this long.

    Returns
    -------
    list of Outcome
        In the order of the contenders. The last answer is certified again after the rounds.

    Raises
    ------
    InputError
        If there is no contender or no round.
    """
    if rounds < 1:
        raise invalid("rounds", "an integer >= 1", rounds)
    if not trial.contenders:
        raise invalid("trial", "at least one contender", "none")
    outcomes = [_warmed_up(trial, contender) for contender in trial.contenders]
    if outcomes[0].status != OK:
        for outcome in outcomes[1:]:
            if outcome.status == OK:
                outcome.status = NOT_TIMED
        return outcomes
    running = [k for k, outcome in enumerate(outcomes) if outcome.status == OK]
    for k in running:
        began = perf_counter()
        seconds, _ = _sample(trial.contenders[k], 1)
        prepared = perf_counter() - began - seconds
        calls = math.ceil(sample_seconds / max(seconds, 1e-9))
        most = min(_MOST_CALLS, PREPARE_SECONDS / max(prepared, 1e-9))
        outcomes[k].calls = max(1, min(calls, int(most)))
    spent = [0.0] * len(outcomes)
    for turn in range(rounds):
        shift = turn % len(running)
        last = [turn == rounds - 1 or (k > 0 and spent[k] > budget) for k in range(len(outcomes))]
        for k in running[shift:] + running[:shift]:
            outcome = outcomes[k]
            seconds, answer = _sample(trial.contenders[k], outcome.calls)
            outcome.samples.append(seconds)
            spent[k] += seconds * outcome.calls
            if last[k]:
                _judge(trial, trial.contenders[k], outcome, answer)
        running = [k for k in running if not last[k]]
    if outcomes[0].status != OK:
        for outcome in outcomes:
            outcome.status = NOT_TIMED if outcome.status == OK else outcome.status
            outcome.samples.clear()
    for outcome in outcomes:
        outcome.ratios = [
            theirs / ours
            for theirs, ours in zip(outcome.samples, outcomes[0].samples, strict=False)
        ]
    return outcomes


def _warmed_up(trial: Trial, contender: Contender) -> Outcome:
    """Make the first call, which may compile, and certify its answer."""
    outcome = Outcome(contender.name, moved=contender.moved)
    try:
        outcome.first_seconds, answer = _sample(contender, 1)
    except Exception as error:  # a contender that breaks has failed; the others go on
        outcome.status = FAILED
        outcome.message = f"{type(error).__name__}: {error}"
        return outcome
    _judge(trial, contender, outcome, answer)
    if outcome.status == OK and trial.facts is not None:
        outcome.facts = trial.facts(answer if contender.read is None else contender.read(answer))
    return outcome


def _judge(trial: Trial, contender: Contender, outcome: Outcome, answer: Any) -> None:
    """Certify an answer; a failed one loses its samples."""
    read = answer if contender.read is None else contender.read(answer)
    outcome.error = float(trial.certify(read))
    if not outcome.error <= trial.tolerance:
        outcome.status = FAILED
        outcome.message = f"error {outcome.error:.2g} exceeds {trial.tolerance:.2g}"
        outcome.samples.clear()


def _sample(contender: Contender, calls: int) -> tuple[float, Any]:
    """Seconds per call over some calls, and the last answer."""
    run, answer = contender.run, None
    collecting = gc.isenabled()
    gc.disable()
    try:
        if contender.prepare is None:
            began = perf_counter()
            for _ in range(calls):
                answer = run()
            return (perf_counter() - began) / calls, answer
        seconds = 0.0
        for _ in range(calls):
            prepared = contender.prepare()
            began = perf_counter()
            answer = run(prepared)
            seconds += perf_counter() - began
        return seconds / calls, answer
    finally:
        if collecting:
            gc.enable()
