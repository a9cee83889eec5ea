"""``solve``: start, iterate a method, stop for a stated reason, recover, refine, report.

Nothing here knows a method by name: what one needs and can do, it declares (``methods/base.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._random import Rng
from fastincentive.certificates.stationarity import stationarity
from fastincentive.engines import Engine, Local, Run
from fastincentive.errors import InputError
from fastincentive.followers.parameterization import Parameterization
from fastincentive.methods import Method, RegimeAscent, StepReport
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.solution import History, Solution, Status
from fastincentive.solver.assembly import recovered_fields, warn_unless_done
from fastincentive.solver.checkpoints import Checkpoint
from fastincentive.solver.refinement import refined
from fastincentive.solver.request import DEFAULT_POLICIES, Request, request_of
from fastincentive.solver.tie_breaking import StrongStackelberg, WeakStackelberg, renamed_objective
from fastincentive.solver.watch import Watch

__all__ = ["solve"]


@checked
def solve(
    problem: IncentiveProblem,
    method: Method | None = None,
    parameterization: Parameterization | None = None,
    initial_payments: ArrayLike | None = None,
    initial_policies: str | ArrayLike = DEFAULT_POLICIES,
    *,
    tie_breaking: StrongStackelberg | WeakStackelberg | None = None,
    rng: Rng = None,
    polish: bool = True,
    refine: bool | RegimeAscent = True,
    certify: bool = False,
    engine: Engine | None = None,
    callback: Callable[[StepReport], None] | None = None,
    progress: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 200,
    stationarity_every: int = 0,
    objective: StrongStackelberg | WeakStackelberg | None = None,
) -> Solution:
    """Solve an incentive design problem and report what the leader really gets.

    Parameters
    ----------
    problem : IncentiveProblem
    method : Method, optional
        By default what is quickest for the problem, see ``solution.plan``: ``RegimeAscent()``, a
        search over best responses, where each follower has three payments at most or all share one;
        elsewhere, and where other arguments are for it alone (``parameterization``,
        ``initial_policies``, ``engine``, ``checkpoint``, ``stationarity_every``,
        ``refine=False``), ``BilevelAscent()``: Algorithm 1 with settings that need no tuning.
        ``HyperGradient()`` is for followers that answer smoothly; it, ``RegimeAscent()`` and the
        baseline ``ZerothOrder()`` start from the initial payments, the baseline ``ValuePenalty()``
        where ``BilevelAscent()`` does.
    parameterization : Direct or Softmax, optional
        By default ``Direct()``.
    initial_payments : float or array (k,), optional
        A number stands for every payment and is cut to the bounds. By default 2, and 0 where a
        budget bounds what followers are really paid.
    initial_policies : "leader-optimal", "best-response" or array (n, S, A)
        Start from the policies the leader would choose itself (local optimum), from best
        responses to the initial payments, or from given ones.
    tie_breaking : StrongStackelberg or WeakStackelberg, optional
        Which of several best responses followers take: those that are best for the leader (by
        default, Problem 1), or the worst, in which case the payments returned maximise
        ``pessimistic_objective``: the ascent is followed by a search for what can be guaranteed.
    rng : None, int or Generator
        Source of all random numbers, in place of those that the method and the search over regimes
        have in their own settings. Refused where nothing is drawn.
    polish : bool
        Move the last payments to the cheapest ones that support the response they were built for
        (an iterate can be short of a kink by rounding); the ascent's own point stays in
        ``solution.ascent``.
    refine : bool or RegimeAscent
        After the ascent, search over the followers' regimes for better payments (a stationary
        point need not be the best one), and over mixtures of tied actions (``solution.mixed``).
        What the ascent led to is kept in ``solution.refinement`` and ``solution.ascent``. With
        more than 1,000 states, where regimes are many and each is slow, only if a
        ``RegimeAscent`` is given; not for types of followers with counts above 1.
    certify : bool
        Compute an upper bound on every objective, for ``solution.upper_bound`` and
        ``solution.optimality_gap``; it covers followers that draw lots between tied actions.
    engine : Engine, optional
        Where the followers of the ascent are: ``engines.Local()``, in this process, by default, or
        ``engines.Dask(client)``, on the workers of a cluster. The iterates are the same.
    callback : callable, optional
        Called with each iterate's ``StepReport``; may raise StopIteration to stop. Policies in it
        are None where they stay with the workers of an engine.
    progress : bool
        Show a progress bar (needs the ``progress`` extra).
    checkpoint : path, optional
        Write the state there before the first iteration, every ``checkpoint_every`` iterations and
        when the run ends or is interrupted, atomically; if the file exists, go on from it. The
        result equals that of an uninterrupted run. The file is of one problem, method, start and
        parameterization; ``max_iter`` may be raised to go on.
    checkpoint_every : int
    stationarity_every : int
        Measure K of Definition 1 (``certificates.stationarity``) at every so many iterates, for
        ``solution.history.stationarity``; 0 for never: on the paper's grid a measure takes as long
        as five iterations.
    objective : StrongStackelberg or WeakStackelberg
        Old name of ``tie_breaking``, with a warning.

    Returns
    -------
    Solution

    Warns
    -----
    ConvergenceWarning
        If the ascent did not converge; ``solution.message`` says why. If there is no room for the
        lists of the search that refines: its answer is then left as it is.
    CheckpointWarning
        If the checkpoint could not be written during the run, which goes on.

    Raises
    ------
    InputError
        If an argument is not as described, the checkpoint cannot be written, or is one that this
        run cannot go on from: of another run, cut short or damaged.
    EngineError
        If the workers of an engine, or its scheduler, are gone or do not answer.
    MemoryLimitError
        If a large run needs more memory than there is, before it begins; or the lists of a method
        that searches regimes do, on its way.
    """
    asked = request_of(
        problem=problem,
        method=method,
        parameterization=parameterization,
        policies=initial_policies,
        tie_breaking=renamed_objective(tie_breaking, objective),
        refine=refine,
        rng=rng,
        engine=engine,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        stationarity_every=stationarity_every,
    )
    payments, policies = asked.start(initial_payments, initial_policies)
    history = History()
    with closing(
        Watch(history, callback, asked.method.most_iterations if progress else 0)
    ) as watch:
        end = _iterated(asked, watch, payments, policies)
        point, refinement = refined(problem, asked.refiner, asked.tie_breaking, end.report, polish)
        can = asked.method.capabilities
        if can.restarts and refinement is not None and end.status != Status.STOPPED:
            again = replace(asked, method=asked.method.restarted())
            end = _better(end, _iterated(again, watch, point.payments, policies))
    message = asked.method.messages[end.status]
    warn_unless_done(end.status, message, end.report)
    ascent = asked.method.finish(end.report)
    if ascent is not None and can.uses_policies:
        measure = stationarity(problem, ascent.payments, ascent.policies, asked.parameterization)
        ascent = replace(ascent, stationarity=measure.measure)
    least_upper = np.inf
    if certify:
        from fastincentive.certificates.bounds import upper_bound

        least_upper = upper_bound(problem)
    return Solution(
        **recovered_fields(problem, point),
        success=end.status == Status.CONVERGED,
        status=end.status,
        message=message,
        plan=asked.plan,
        nit=end.iterations,
        history=history,
        ascent=ascent,
        refinement=refinement,
        upper_bound=least_upper,
        evaluations=end.report.evaluations,
    )


class End(NamedTuple):
    """Where a method's own iterations ended, and why."""

    report: StepReport
    status: Status
    iterations: int


def _better(first: End, second: End) -> End:
    """Return the end with the larger objective, after the iterations of both."""
    larger = second.report.evaluation.objective > first.report.evaluation.objective
    best = second if larger else first
    return best._replace(iterations=first.iterations + second.iterations)


def _iterated(
    asked: Request, watch: Watch, payments: FloatArray, policies: str | FloatArray | None
) -> End:
    """Run the method from a start, or from where a checkpoint stands, to its end."""
    engine = Local() if asked.engine is None else asked.engine
    checkpoint = asked.checkpoint(payments, policies)
    before = None if checkpoint is None else checkpoint.load(watch.history)
    with closing(engine.run(asked.problem, asked.method, asked.parameterization, watch.see)) as run:
        if before is not None:
            run.load(before)
        else:
            run.start(payments, policies)
            if checkpoint is not None:
                checkpoint.begin(run.state())
        watch.begin(run.iteration)
        try:
            report, status = _stepped(asked, checkpoint, watch, run)
            if checkpoint is not None:
                checkpoint.save(run.state(), watch.history)
            theta, found = run.point()
        except BaseException:
            # Whatever ended the run, an interrupt included, it can go on from what is known.
            state = None if checkpoint is None else run.kept()
            if checkpoint is not None and state is not None:
                checkpoint.save(state, watch.history)
            raise
    return End(report._replace(theta=theta, policies=found), status, report.iteration)


def _stepped(
    asked: Request, checkpoint: Checkpoint | None, watch: Watch, run: Run
) -> tuple[StepReport, Status]:
    """Step until the method says that it is done, or the callback that it should be."""
    report = None
    while True:
        try:
            latest = run.step()
        except InputError:
            if report is None:
                raise
            # A step at discount 1 led to payments that are earned for ever.
            run.back()
            return report, Status.STALLED
        report = latest
        if asked.measure_every and report.iteration % asked.measure_every == 0:
            report = _measured(asked, run, report)
        with suppress(StopIteration):
            watch.see(report)
        status = asked.method.terminate(report)
        if watch.stopped and status in (None, Status.MAX_ITER):
            status = Status.STOPPED
        if status is not None:
            return report, status
        run.advance()
        if checkpoint is not None and run.iteration % checkpoint.every == 0:
            checkpoint.save(run.state(), watch.history)


def _measured(asked: Request, run: Run, report: StepReport) -> StepReport:
    """Return the report with K of Definition 1, wherever the policies are."""
    policies = run.point()[1] if report.policies is None else report.policies
    found = stationarity(asked.problem, report.payments, policies, asked.parameterization)
    return report._replace(stationarity=found.measure)
