"""From a method's own point to what the followers do: recovery, and the search over regimes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastincentive.methods._state import StepReport
from fastincentive.methods.regime_ascent import RegimeAscent, RegimePoint, regime_search
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.recovery import Recovered, recover
from fastincentive.responses.search import better
from fastincentive.solution import Refinement
from fastincentive.solver.objectives import StrongStackelberg, WeakStackelberg
from fastincentive.solver.weak_stackelberg import GuardedPoint, weak_search, with_margin

__all__ = ["Found", "recovered", "refined"]


class Found(NamedTuple):
    """What is recovered from a method's own point, and how far the search went on from there."""

    point: Recovered
    refinement: Refinement | None


def recovered(
    problem: IncentiveProblem,
    report: StepReport,
    polish: bool,
    objective: StrongStackelberg | WeakStackelberg,
    refiner: RegimeAscent | None,
) -> Found:
    """Recover exact best responses from a method's own point, and search on from there."""
    assert report.policies is not None  # for the type checker
    point = recover(problem, report.payments, report.policies, polish)
    if refiner is not None:
        return refined(problem, refiner, objective, point)
    if isinstance(objective, WeakStackelberg):
        point = with_margin(problem, point, objective.margin)
    return Found(point, None)


def refined(
    problem: IncentiveProblem,
    method: RegimeAscent,
    objective: StrongStackelberg | WeakStackelberg,
    before: Recovered,
) -> Found:
    """Search on from a recovered point; the better of the two is kept."""
    found: RegimePoint | GuardedPoint
    if isinstance(objective, WeakStackelberg):
        found = weak_search(problem, method, objective.margin, before)
        after = found.point
        improvement = after.pessimistic.objective - before.pessimistic.objective
    else:
        found = regime_search(problem, method, before.payments, before.policies)
        after = before
        kept = problem.affords(before.evaluation.cost)
        held = before.evaluation.objective if kept else -np.inf
        if better(found.objective, held):
            trial = recover(problem, found.payments, found.policies, polish=False)
            if trial.evaluation.objective > held:
                after = trial
        improvement = after.evaluation.objective - held
    refinement = Refinement(
        payments=before.payments,
        leader_value=before.evaluation.leader_value,
        objective=before.evaluation.objective,
        pessimistic_objective=before.pessimistic.objective,
        improvement=improvement,
        entries=found.entries,
        sweeps=found.sweeps,
        complete=found.complete,
    )
    return Found(after, refinement)
