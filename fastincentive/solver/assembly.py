"""Put a Solution together."""

from __future__ import annotations

import numpy as np

from fastincentive.errors import ConvergenceWarning
from fastincentive.methods._state import StepReport
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.solution import Ascent, Ending, History, Solution, Status
from fastincentive.solver.refinement import Found

__all__ = ["assemble_solution", "last_iterate", "record", "warn_unless_done"]


def assemble_solution(
    problem: IncentiveProblem,
    ending: Ending,
    ascent: Ascent | None,
    found: Found,
    history: History,
    certify: bool,
) -> Solution:
    """Put together what was found, and a bound on all objectives if asked for."""
    recovered = found.point
    evaluation, worst = recovered.evaluation, recovered.pessimistic
    bound = np.inf
    if certify:
        from fastincentive.certificates.bounds import upper_bound

        bound = upper_bound(problem)
    return Solution(
        payments=recovered.payments,
        side_payments=problem.payments.side_payments(recovered.payments),
        policies=recovered.policies,
        leader_value=evaluation.leader_value,
        cost=evaluation.cost,
        objective=evaluation.objective,
        nominal_spend=float(recovered.payments.sum()),
        expected_spend=problem.expected_spend(recovered.payments, recovered.policies),
        feasibility=evaluation.feasibility,
        follower_gaps=evaluation.follower_gaps,
        pessimistic_value=worst.leader_value,
        pessimistic_objective=worst.objective,
        pessimistic_policies=recovered.pessimistic_policies,
        success=ending.status == Status.CONVERGED,
        status=ending.status,
        message=ending.message,
        nit=ending.iterations,
        history=history,
        ascent=ascent,
        refinement=found.refinement,
        upper_bound=bound,
        evaluations=ending.evaluations,
    )


def warn_unless_done(ending: Ending, report: StepReport) -> None:
    """Issue a ConvergenceWarning unless the run converged or was stopped."""
    if ending.status not in (Status.CONVERGED, Status.STOPPED):
        import warnings

        warnings.warn(
            f"the ascent {ending.message} (residual {report.residual:.2e}, largest gap "
            f"{report.evaluation.follower_gaps.max():.2e})",
            ConvergenceWarning,
            stacklevel=3,
        )


def last_iterate(report: StepReport, measure: float) -> Ascent:
    """Keep a method's own last point; ``measure`` says how far from stationary it is."""
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
        stationarity=measure,
    )


def record(history: History, report: StepReport) -> None:
    """Append an iteration to the history."""
    history.leader_value.append(report.evaluation.leader_value)
    history.objective.append(report.evaluation.objective)
    history.feasibility.append(report.evaluation.feasibility)
    history.largest_gap.append(float(report.evaluation.follower_gaps.max()))
    history.multiplier.append(float(report.multipliers.max()))
    history.residual.append(report.residual)
    history.payments.append(report.payments)
