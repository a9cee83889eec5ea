"""The loop: start, iterate a method, stop for a stated reason, recover, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastincentive import io
from fastincentive.certificate import stationarity
from fastincentive.errors import ConvergenceWarning, InputError, invalid, missing_extra
from fastincentive.mdp import FloatArray
from fastincentive.methods.bilevel_ascent import AscentState, BilevelAscent, StepReport
from fastincentive.policy import Direct, Parameterization, Softmax
from fastincentive.problem import IncentiveProblem
from fastincentive.recovery import recover
from fastincentive.solution import MESSAGES, Ascent, History, Solution, Status
from fastincentive.starts import best_response_policies, leader_optimal_policies

__all__ = ["solve"]


def solve(
    problem: IncentiveProblem,
    method: BilevelAscent | None = None,
    parameterization: Parameterization | None = None,
    initial_payments: ArrayLike = 2.0,
    initial_policies: str | ArrayLike = "leader-optimal",
    *,
    rng: int | np.random.Generator | None = None,
    polish: bool = True,
    callback: Callable[[StepReport], None] | None = None,
    progress: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 200,
) -> Solution:
    """Solve an incentive design problem and report what the leader really gets.

    Parameters
    ----------
    problem : IncentiveProblem
    method : BilevelAscent, optional
        By default ``BilevelAscent()``: Algorithm 1 with settings that need no tuning.
    parameterization : Direct or Softmax, optional
        By default ``Direct()``.
    initial_payments : float or array (k,)
        A number stands for every payment and is cut to the bounds.
    initial_policies : "leader-optimal", "best-response" or array (n, S, A)
        Start from the policies the leader would choose itself (local optimum), from best
        responses to the initial payments, or from given ones.
    rng : int or Generator, optional
        Randomness of methods that sample. Exact gradients draw nothing.
    polish : bool
        Move the last payments to the cheapest ones that support the response they were built for
        (an iterate can be short of a kink by rounding); the ascent's own point stays in
        ``solution.ascent``.
    callback : callable, optional
        Called with each iteration's ``StepReport``; may raise StopIteration to stop.
    progress : bool
        Show a progress bar (needs the ``progress`` extra).
    checkpoint : path, optional
        Write the state there every ``checkpoint_every`` iterations and when the run ends or is
        interrupted, atomically; if the file exists, go on from it. The result equals that of an
        uninterrupted run.
    checkpoint_every : int

    Returns
    -------
    Solution

    Warns
    -----
    ConvergenceWarning
        If the ascent did not converge; ``solution.message`` says why.
    """
    if not isinstance(problem, IncentiveProblem):
        raise InputError(f"problem: expected an IncentiveProblem, got {type(problem).__name__}")
    method = BilevelAscent() if method is None else method
    if not isinstance(method, BilevelAscent):
        raise InputError(f"method: expected a BilevelAscent, got {type(method).__name__}")
    parameterization = Direct() if parameterization is None else parameterization
    if not isinstance(parameterization, (Direct, Softmax)):
        raise InputError(
            f"parameterization: expected Direct() or Softmax(tau), "
            f"got {type(parameterization).__name__}"
        )
    if checkpoint_every < 1:
        raise invalid("checkpoint_every", "a positive integer", checkpoint_every)
    np.random.default_rng(rng)  # a bad seed is refused before any work
    settings = f"{problem!r} {problem.fingerprint()} {method!r} {parameterization!r}"
    history = History()
    if checkpoint is not None and Path(checkpoint).exists():
        state, history = io.load_checkpoint(checkpoint, settings)
    else:
        x = _payments(problem, initial_payments)
        policies = _policies(problem, x, initial_policies)
        state = method.init(problem, parameterization, x, policies)

    bar = _bar(method.max_iter, state.iteration) if progress else None
    status = Status.MAX_ITER
    report: StepReport | None = None
    previous = state
    try:
        while True:
            try:
                following, latest = method.step_from(problem, parameterization, state)
            except InputError:
                if report is None:
                    raise
                # A step at discount 1 led to payments that are earned for ever.
                state, status = previous, Status.STALLED
                break
            report, previous = latest, state
            if len(history) == state.iteration:
                _record(history, state, report)
            if bar is not None:
                bar.set_postfix_str(
                    f"objective {report.evaluation.objective:.4f}  "
                    f"q {report.evaluation.feasibility:.1e}",
                    refresh=False,
                )
                bar.update(1)
            if report.converged:
                status = Status.CONVERGED
                break
            if report.stalled:
                status = Status.STALLED
                break
            if callback is not None:
                try:
                    callback(report)
                except StopIteration:
                    status = Status.STOPPED
                    break
            if state.iteration >= method.max_iter:
                break
            state = following
            if checkpoint is not None and state.iteration % checkpoint_every == 0:
                io.save_checkpoint(checkpoint, settings, state, history)
    finally:
        if bar is not None:
            bar.close()
        if checkpoint is not None:
            # Whatever ended the run, an interrupt included, it can go on from here.
            io.save_checkpoint(checkpoint, settings, state, history)
    return _finish(problem, parameterization, state, report, status, history, polish)


def _finish(
    problem: IncentiveProblem,
    parameterization: Parameterization,
    state: AscentState,
    report: StepReport,
    status: Status,
    history: History,
    polish: bool,
) -> Solution:
    import warnings

    success = status == Status.CONVERGED
    recovered = recover(problem, state.payments, report.policies, polish)
    measure = stationarity(problem, state.payments, report.policies, parameterization)
    evaluation, worst = recovered.evaluation, recovered.pessimistic
    message = MESSAGES[status]
    if not success and status != Status.STOPPED:
        warnings.warn(
            f"the ascent {message} (residual {report.residual:.2e}, largest gap "
            f"{report.evaluation.follower_gaps.max():.2e})",
            ConvergenceWarning,
            stacklevel=3,
        )
    return Solution(
        payments=recovered.payments,
        side_payments=problem.payments.side_payments(recovered.payments),
        policies=recovered.policies,
        leader_value=evaluation.leader_value,
        cost=evaluation.cost,
        objective=evaluation.objective,
        feasibility=evaluation.feasibility,
        follower_gaps=evaluation.follower_gaps,
        pessimistic_value=worst.leader_value,
        pessimistic_objective=worst.objective,
        pessimistic_policies=recovered.pessimistic_policies,
        success=success,
        status=status,
        message=message,
        nit=state.iteration,
        history=history,
        ascent=Ascent(
            payments=state.payments,
            theta=report.theta,
            policies=report.policies,
            leader_value=report.evaluation.leader_value,
            objective=report.evaluation.objective,
            feasibility=report.evaluation.feasibility,
            follower_gaps=report.evaluation.follower_gaps,
            multipliers=report.multipliers,
            stationarity=measure.measure,
        ),
    )


def _payments(problem: IncentiveProblem, initial: ArrayLike) -> FloatArray:
    bound = problem.payments
    if np.ndim(initial) == 0:
        value = np.full(bound.size, np.asarray(initial, float))
        if not np.isfinite(value).all():
            raise invalid("initial_payments", "a finite number", initial)
        return bound.project(value)
    return bound.check(initial, "initial_payments")


def _policies(problem: IncentiveProblem, x: FloatArray, initial: str | ArrayLike) -> FloatArray:
    if isinstance(initial, str):
        if initial == "best-response":
            return best_response_policies(problem, x)
        if initial == "leader-optimal":
            return leader_optimal_policies(problem)
        raise invalid(
            "initial_policies", '"leader-optimal", "best-response" or an array', repr(initial)
        )
    return problem.followers.check_policies(initial, "initial_policies")


def _record(history: History, state: AscentState, report: StepReport) -> None:
    history.leader_value.append(report.evaluation.leader_value)
    history.objective.append(report.evaluation.objective)
    history.feasibility.append(report.evaluation.feasibility)
    history.largest_gap.append(float(report.evaluation.follower_gaps.max()))
    history.multiplier.append(float(report.multipliers.max()))
    history.residual.append(report.residual)
    history.payments.append(state.payments)


def _bar(total: int, initial: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        raise missing_extra("tqdm", "progress") from None
    return tqdm(total=total, initial=initial, unit="it", leave=False, mininterval=0.2)
