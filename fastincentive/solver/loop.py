"""The loop: start, iterate a method, stop for a stated reason, recover, refine, report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from fastincentive._arrays import FloatArray
from fastincentive._machine import UNGUARDED
from fastincentive._progress import progress_bar, show_step
from fastincentive.certificates.stationarity import stationarity
from fastincentive.engines import Dask, Engine, Local
from fastincentive.errors import InputError, invalid
from fastincentive.followers.parameterization import Direct, Parameterization, Softmax
from fastincentive.methods._starts import best_response_policies
from fastincentive.methods._state import StepReport
from fastincentive.methods.bilevel_ascent import BilevelAscent
from fastincentive.methods.hyper_gradient import HyperGradient, hyper_search
from fastincentive.methods.regime_ascent import RegimeAscent
from fastincentive.methods.value_penalty import ValuePenalty
from fastincentive.methods.zeroth_order import ZerothOrder, zeroth_order_search
from fastincentive.problem.memory import ASCENT_ARRAYS
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.recovery import recover
from fastincentive.solution import MESSAGES, Ending, History, Solution, Status
from fastincentive.solver.assembly import assemble_solution, last_iterate, record, warn_unless_done
from fastincentive.solver.checkpoints import load_checkpoint, save_checkpoint
from fastincentive.solver.objectives import StrongStackelberg, WeakStackelberg
from fastincentive.solver.refinement import recovered, refined

__all__ = ["solve"]

#: What ``solve`` takes for a method.
Method = BilevelAscent | HyperGradient | RegimeAscent | ValuePenalty | ZerothOrder
#: Beyond this many states the search over regimes is not run unless it is asked for.
REFINED_STATES = 1000


def solve(
    problem: IncentiveProblem,
    method: Method | None = None,
    parameterization: Parameterization | None = None,
    initial_payments: ArrayLike = 2.0,
    initial_policies: str | ArrayLike = "leader-optimal",
    *,
    objective: StrongStackelberg | WeakStackelberg | None = None,
    rng: int | np.random.Generator | None = None,
    polish: bool = True,
    refine: bool | RegimeAscent = True,
    certify: bool = False,
    engine: Engine | None = None,
    callback: Callable[[StepReport], None] | None = None,
    progress: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 200,
) -> Solution:
    """Solve an incentive design problem and report what the leader really gets.

    Parameters
    ----------
    problem : IncentiveProblem
    method : BilevelAscent, HyperGradient, RegimeAscent, ValuePenalty or ZerothOrder, optional
        By default ``BilevelAscent()``: Algorithm 1 with settings that need no tuning.
        ``HyperGradient()`` is for followers that answer smoothly. ``RegimeAscent()`` searches over
        regimes alone. Both start from the initial payments, and so does the baseline
        ``ZerothOrder()``; the baseline ``ValuePenalty()`` starts where ``BilevelAscent()`` does.
    parameterization : Direct or Softmax, optional
        By default ``Direct()``.
    initial_payments : float or array (k,)
        A number stands for every payment and is cut to the bounds.
    initial_policies : "leader-optimal", "best-response" or array (n, S, A)
        Start from the policies the leader would choose itself (local optimum), from best
        responses to the initial payments, or from given ones.
    objective : StrongStackelberg or WeakStackelberg, optional
        Which of several best responses followers take: those that are best for the leader (by
        default, Problem 1), or the worst, in which case the payments returned maximise
        ``pessimistic_objective``: the ascent is followed by a search for what can be guaranteed.
    rng : int or Generator, optional
        Randomness of methods that sample. Exact gradients draw nothing.
    polish : bool
        Move the last payments to the cheapest ones that support the response they were built for
        (an iterate can be short of a kink by rounding); the ascent's own point stays in
        ``solution.ascent``.
    refine : bool or RegimeAscent
        After the ascent, search over the followers' regimes for better payments (a stationary
        point need not be the best one). What the ascent led to is kept in
        ``solution.refinement`` and ``solution.ascent``. With more than 1,000 states, where regimes
        are many and each is slow, only if a ``RegimeAscent`` is given; not for types of followers
        with counts above 1.
    certify : bool
        Compute an upper bound on every objective, for ``solution.upper_bound`` and
        ``solution.optimality_gap``.
    engine : Engine, optional
        Where the followers of the ascent are: ``engines.Local()``, in this process, by default, or
        ``engines.Dask(client)``, on the workers of a cluster. The iterates are the same.
    callback : callable, optional
        Called with each iteration's ``StepReport``; may raise StopIteration to stop. Policies in it
        are None where they stay with the workers of an engine.
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

    Raises
    ------
    InputError
        If an argument is not as described.
    MemoryLimitError
        If a large run needs more memory than there is, before it begins.
    """
    if not isinstance(problem, IncentiveProblem):
        raise InputError(f"problem: expected an IncentiveProblem, got {type(problem).__name__}")
    method = BilevelAscent() if method is None else method
    if not isinstance(method, Method):
        raise InputError(
            "method: expected a BilevelAscent, HyperGradient, RegimeAscent, ValuePenalty or "
            f"ZerothOrder, got {type(method).__name__}"
        )
    if not isinstance(refine, (bool, RegimeAscent)):
        raise InputError(f"refine: expected a bool or a RegimeAscent, got {type(refine).__name__}")
    parameterization = Direct() if parameterization is None else parameterization
    if not isinstance(parameterization, (Direct, Softmax)):
        raise InputError(
            f"parameterization: expected Direct() or Softmax(tau), "
            f"got {type(parameterization).__name__}"
        )
    if checkpoint_every < 1:
        raise invalid("checkpoint_every", "a positive integer", checkpoint_every)
    objective = StrongStackelberg() if objective is None else objective
    if not isinstance(objective, (StrongStackelberg, WeakStackelberg)):
        raise InputError(
            f"objective: expected StrongStackelberg() or WeakStackelberg(), "
            f"got {type(objective).__name__}"
        )
    if engine is not None and not isinstance(engine, Engine):
        raise InputError(
            f"engine: expected engines.Local() or engines.Dask(client), got {type(engine).__name__}"
        )
    np.random.default_rng(rng)  # a bad seed is refused before any work
    # On workers the passes look for themselves.
    if not isinstance(engine, Dask) and (
        ASCENT_ARRAYS * problem.followers.rewards.nbytes > UNGUARDED
    ):
        problem.memory_estimate().raise_if_too_large()
    if not isinstance(method, BilevelAscent):
        name = type(method).__name__
        if checkpoint is not None and not isinstance(method, ValuePenalty):
            raise InputError(f"checkpoint: expected none with {name}, which keeps no state")
        if engine is not None:
            raise InputError(f"engine: expected none with {name}, which runs in this process")
    if isinstance(method, RegimeAscent):
        x = _payments(problem, initial_payments)
        return _by_regimes(problem, method, objective, x, certify)
    refiner = refine if isinstance(refine, RegimeAscent) else None
    if refine is True and problem.followers.n_states <= REFINED_STATES and not problem.has_types:
        refiner = RegimeAscent()
    history = History()
    if isinstance(method, (HyperGradient, ZerothOrder)):
        rounds = 1 + len(method.continuation) if isinstance(method, HyperGradient) else 1
        bar = progress_bar(method.max_iter * rounds, 0) if progress else None

        def after(report: StepReport) -> None:
            record(history, report)
            show_step(bar, report)
            if callback is not None:
                callback(report)

        climb: Callable[[FloatArray], tuple[StepReport, Ending]]
        if isinstance(method, HyperGradient):
            climb = partial(hyper_search, problem, method, callback=after)
        else:
            climb = partial(zeroth_order_search, problem, method, callback=after)
        with closing(bar) if bar is not None else nullcontext():
            point, ending = climb(_payments(problem, initial_payments))
            found = recovered(problem, point, polish, objective, refiner)
            stopped = ending.status == Status.STOPPED
            if isinstance(method, HyperGradient) and found.refinement is not None and not stopped:
                again, other = climb(found.point.payments)
                count = ending.iterations + other.iterations
                if again.evaluation.objective > point.evaluation.objective:
                    point, ending = again, other
                ending = ending._replace(iterations=count)
        ascent = last_iterate(point, point.residual)
        warn_unless_done(ending, point)
        return assemble_solution(problem, ending, ascent, found, history, certify)
    settings = f"{problem!r} {problem.fingerprint()} {method!r} {parameterization!r}"
    if isinstance(method, ValuePenalty):
        run = Local().run(problem, method, parameterization)
    else:
        run = (Local() if engine is None else engine).run(problem, method, parameterization)
    with closing(run):
        if checkpoint is not None and Path(checkpoint).exists():
            state, history = load_checkpoint(checkpoint, settings)
            run.load(state)
        else:
            x = _payments(problem, initial_payments)
            run.start(x, _policies(problem, initial_policies))
        bar = progress_bar(method.max_iter, run.iteration) if progress else None
        status, report = Status.MAX_ITER, None
        try:
            while True:
                try:
                    latest = run.step()
                except InputError:
                    if report is None:
                        raise
                    # A step at discount 1 led to payments that are earned for ever.
                    run.back()
                    status = Status.STALLED
                    break
                report = latest
                if len(history) == run.iteration:
                    record(history, report)
                show_step(bar, report)
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
                if run.iteration >= method.max_iter:
                    break
                if not report.finite:
                    status = Status.STALLED
                    break
                run.advance()
                if checkpoint is not None and run.iteration % checkpoint_every == 0:
                    save_checkpoint(checkpoint, settings, run.state(), history)
        finally:
            if bar is not None:
                bar.close()
            if checkpoint is not None:
                # Whatever ended the run, an interrupt included, it can go on from here.
                save_checkpoint(checkpoint, settings, run.state(), history)
        theta, policies = run.point()
    assert policies is not None  # for the type checker
    measure = stationarity(problem, report.payments, policies, parameterization).measure
    report = report._replace(theta=theta, policies=policies)
    found = recovered(problem, report, polish, objective, refiner)
    ending = Ending(status, MESSAGES[status], run.iteration)
    warn_unless_done(ending, report)
    return assemble_solution(
        problem, ending, last_iterate(report, measure), found, history, certify
    )


def _by_regimes(
    problem: IncentiveProblem,
    method: RegimeAscent,
    objective: StrongStackelberg | WeakStackelberg,
    x: FloatArray,
    certify: bool,
) -> Solution:
    """RegimeAscent alone: from best responses to the given payments."""
    start = recover(problem, x, best_response_policies(problem, x), polish=False)
    found = refined(problem, method, objective, start)
    assert found.refinement is not None  # for the type checker
    message = "converged: no payment on any line searched is better"
    ending = Ending(Status.CONVERGED, message, found.refinement.sweeps)
    return assemble_solution(problem, ending, None, found, History(), certify)


def _payments(problem: IncentiveProblem, initial: ArrayLike) -> FloatArray:
    bound = problem.payments
    if np.ndim(initial) == 0:
        value = np.full(bound.size, np.asarray(initial, float))
        if not np.isfinite(value).all():
            raise invalid("initial_payments", "a finite number", initial)
        return bound.project(value)
    return bound.check(initial, "initial_payments")


def _policies(problem: IncentiveProblem, initial: str | ArrayLike) -> str | FloatArray:
    """Return the name of a start, or policies (n, S, A), or raise."""
    if isinstance(initial, str):
        if initial not in ("leader-optimal", "best-response"):
            raise invalid(
                "initial_policies", '"leader-optimal", "best-response" or an array', repr(initial)
            )
        return initial
    return problem.followers.check_policies(initial, "initial_policies")
