"""From a method's own point to what followers really do: recovery, and the search over regimes."""

from __future__ import annotations

import warnings

import numpy as np

from fastincentive.errors import ConvergenceWarning, MemoryLimitError
from fastincentive.methods import StepReport
from fastincentive.methods._regime_search import SearchSettings, regime_search
from fastincentive.methods.base import Searched
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menus import Menus
from fastincentive.responses.mixtures import best_mixture
from fastincentive.responses.recovery import Recovered, recover
from fastincentive.responses.search import better
from fastincentive.responses.ties import break_ties
from fastincentive.solution import Refinement
from fastincentive.solver.tie_breaking import StrongStackelberg, WeakStackelberg
from fastincentive.solver.weak_stackelberg import weak_search, with_margin

__all__ = ["refined"]


def refined(
    problem: IncentiveProblem,
    refiner: SearchSettings | None,
    tie_breaking: StrongStackelberg | WeakStackelberg,
    report: StepReport,
    polish: bool,
) -> tuple[Recovered, Refinement | None]:
    """Recover exact best responses from a method's last point, and search on from there.

    With ``polish`` payments are moved to the cheapest ones that support the responses. A search
    that finds no room for its lists is left out, with a warning.
    """
    if report.searched is not None:
        return _searched(problem, tie_breaking, report.searched)
    assert report.policies is not None  # for the type checker
    before = recover(problem, report.payments, report.policies, polish)
    if refiner is not None:
        try:
            strong = regime_search(problem, refiner, before.payments, before.policies)
            return _searched(problem, tie_breaking, Searched(refiner, before, strong))
        except MemoryLimitError as error:
            warnings.warn(f"not refined: {error}", ConvergenceWarning, stacklevel=4)
    if isinstance(tie_breaking, WeakStackelberg):
        before = with_margin(problem, before, tie_breaking.margin)
    return before, None


def _searched(
    problem: IncentiveProblem,
    tie_breaking: StrongStackelberg | WeakStackelberg,
    searched: Searched,
) -> tuple[Recovered, Refinement]:
    """Keep the better of a recovered point and what a search from it has found.

    Ties against the leader want another search, from both.
    """
    settings, before, strong = searched
    after, entries, sweeps, complete = before, strong.entries, strong.sweeps, strong.complete
    if isinstance(tie_breaking, WeakStackelberg):
        guarded = weak_search(problem, settings, tie_breaking.margin, before, strong)
        after, entries, sweeps, complete = guarded
        improvement = after.pessimistic.objective - before.pessimistic.objective
    else:
        kept = problem.affords(before.evaluation.cost)
        known = before.evaluation.objective if kept else -np.inf
        if better(strong.objective, known):
            trial = recover(problem, strong.payments, strong.policies, polish=False)
            if trial.evaluation.objective > known:
                after = trial
        after = _with_lots(problem, after, strong.menus)
        improvement = after.evaluation.objective - known
    return after, Refinement(
        payments=before.payments,
        leader_value=before.evaluation.leader_value,
        objective=before.evaluation.objective,
        pessimistic_objective=before.pessimistic.objective,
        improvement=improvement,
        entries=entries,
        sweeps=sweeps,
        complete=complete,
    )


def _with_lots(problem: IncentiveProblem, point: Recovered, menus: Menus | None) -> Recovered:
    """Let followers draw lots between tied actions where the leader gains by it."""
    objective = problem.net_objective(point.evaluation.leader_value, point.evaluation.cost)
    found = best_mixture(problem, point.payments, point.policies, objective, menus)
    if found is None:
        return point
    worst = break_ties(problem, found.payments, -1.0, found.policies)
    return Recovered(
        payments=found.payments,
        policies=found.policies,
        evaluation=problem.evaluate(found.payments, found.policies, unbounded=True),
        pessimistic_policies=worst,
        pessimistic=problem.evaluate(found.payments, worst, unbounded=True),
    )
