"""What of a recovered point goes into a Solution, and the warning of a run that is not done."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fastincentive.errors import ConvergenceWarning
from fastincentive.methods.base import StepReport
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.recovery import Recovered
from fastincentive.solution import Status

__all__ = ["recovered_fields", "warn_unless_done"]


def recovered_fields(problem: IncentiveProblem, point: Recovered) -> dict[str, Any]:
    """Return the fields of a Solution that say what the leader really gets.

    Raises
    ------
    InputError
        If that has no bound.
    """
    evaluation, worst = point.evaluation, point.pessimistic
    if not np.isfinite(evaluation.leader_value):
        problem.evaluate(point.payments, point.policies)  # says why
    taken = point.policies > 0.0
    return {
        "payments": point.payments,
        "side_payments": problem.payments.side_payments(point.payments),
        "policies": point.policies,
        "leader_value": evaluation.leader_value,
        "cost": evaluation.cost,
        "objective": evaluation.objective,
        "nominal_spend": float(point.payments.sum()),
        "expected_spend": problem.expected_spend(point.payments, point.policies),
        "feasibility": evaluation.feasibility,
        "follower_gaps": evaluation.follower_gaps,
        "pessimistic_value": worst.leader_value,
        "pessimistic_objective": worst.objective,
        "pessimistic_policies": point.pessimistic_policies,
        "margins": problem.optimal_actions(point.payments).margin,
        "mixed": (taken.sum(axis=2) > 1) & problem.followers.reached(taken),
    }


def warn_unless_done(status: Status, message: str, report: StepReport) -> None:
    """Issue a ConvergenceWarning, where ``solve`` was called, for a run that just ended."""
    if status not in (Status.CONVERGED, Status.STOPPED):
        warnings.warn(
            f"the ascent {message} (residual {report.residual:.2e}, largest gap "
            f"{report.evaluation.follower_gaps.max():.2e})",
            ConvergenceWarning,
            stacklevel=4,
        )
