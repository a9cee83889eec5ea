"""HyperGradient: the total derivative by the payments, for followers that answer smoothly.

The leader's problem is then single-level, max over x of V(pi(x)) - w C(x, pi(x)) under the bounds,
and SciPy's quasi-Newton methods climb it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive._checks import check_fields, checked
from fastincentive.errors import InputError, invalid
from fastincentive.followers.parameterization import Parameterization
from fastincentive.methods._kink_starts import Looked, kink_starts
from fastincentive.methods.base import Capabilities, Method, Observer, StepReport
from fastincentive.problem.costs import ExpectedSpend
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.smooth import (
    Answer,
    TotalDerivative,
    answer,
    check_model,
    differentiate,
    pull_back,
    warn_of_rounding,
)
from fastincentive.solution import MESSAGES, Status

__all__ = ["HyperGradient"]

#: Relative change of the objective below which nothing more is to be gained in double precision.
ROUNDING = 1e-14
#: Ends of climbs whose objectives differ by a smaller share are the same.
SAME_END = 1e-10
#: SLSQP keeps a budget to this share of it.
NEAR_BUDGET = 1e-6
#: SLSQP's tolerance is on changes of the objective, for each of ours on its slope.
SLSQP_TOLERANCE = 1e-5


@dataclass(frozen=True)
class HyperGradient(Method):
    """Climb the leader's objective along its hypergradient, with L-BFGS-B (SLSQP under a budget).

    Parameters
    ----------
    response : "soft" or "boltzmann"
        How followers answer: see ``follower_responses``.
    temperature : float
        tau > 0, in units of reward. The smaller, the nearer to exact best responses, and the
        steeper and flatter in turn the objective.
    continuation : sequence of float
        Temperatures gone through first, each from where the one before ended: high ones smooth the
        way to better payments.
    starts : int
        Climbs: from the initial payments, and from the most promising points a little beyond the
        kinks of the followers' exact best responses along each payment. At most 120 points are
        looked at, and none with more than 40 payments or 1,000 states. 1: from the initial payments
        alone.
    tolerance : float
        Converged when no entry of the projected hypergradient is larger, in units of the leader's
        value per payment.
    max_iter : int
        Iterations at each temperature of each climb.

    Notes
    -----
    Initial policies and parameterizations play no part. Where payments are too small to matter at
    the temperature, the hypergradient is all but -w dC/dx: hence the starts beyond kinks. With
    ``solve(..., refine=True)`` it climbs from those payments, too, that a search over regimes finds
    for exact best responses, all followers together. The best end is kept; the history has the
    climbs one after another. ``solution.ascent`` is the point found, with the smooth responses; the
    other fields are, as for every method, exact best responses.
    """

    messages: ClassVar[dict[Status, str]] = MESSAGES | {
        Status.CONVERGED: "converged: no payment can be changed for a larger objective",
        Status.STALLED: "stalled: no step along the hypergradient is better, for rounding or a "
        "kink (Boltzmann responses have some)",
        Status.MAX_ITER: "stopped at max_iter before the tolerance was met; raise max_iter",
    }

    response: str = "soft"
    temperature: float = 0.1
    continuation: tuple[float, ...] = ()
    starts: int = 4
    tolerance: float = 1e-7
    max_iter: int = 500

    def __post_init__(self) -> None:
        """Check the settings."""
        check_fields(self)
        check_model(self.response, self.temperature, smooth=True)
        object.__setattr__(self, "continuation", tuple(self.continuation))
        for each in self.continuation:
            if not (each > 0 and np.isfinite(each)):
                raise invalid("continuation", "finite numbers > 0", each)
        if not self.tolerance > 0:
            raise invalid("tolerance", "a number > 0", self.tolerance)
        for name in ("starts", "max_iter"):
            if getattr(self, name) < 1:
                raise invalid(name, "a positive integer", getattr(self, name))

    @property
    def capabilities(self) -> Capabilities:
        """It climbs from payments, with SciPy, where ``solve`` is called."""
        return Capabilities(uses_policies=False, keeps_state=False, restarts=True)

    @property
    def most_iterations(self) -> int:
        """``max_iter`` at each temperature of each climb."""
        return self.max_iter * (1 + len(self.continuation)) * self.starts

    def restarted(self) -> HyperGradient:
        """Return a climb from the payments alone that it is given."""
        return replace(self, starts=1)

    @checked
    def init(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        payments: FloatArray,
        policies: FloatArray | None,
    ) -> ClimbState:
        """Return the state before the first temperature of the first climb."""
        payments = problem.payments.check_bounds(payments)
        objective = _Objective(problem, self.response)
        objective.at_temperature(self.temperature)
        others = kink_starts(problem, payments, objective.worth, self.temperature, self.starts - 1)
        return ClimbState(0, 0, payments, objective, tuple(others), None)

    @checked
    def step_from(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        state: ClimbState,
        observe: Observer | None = None,
    ) -> tuple[ClimbState, StepReport]:
        """Climb at the state's temperature; ``observe`` is shown each of SciPy's iterates.

        The last temperature ends a climb. The best end so far is reported, then the next begins.
        """
        objective, count = state.objective, state.iteration
        stopped = False

        def after(intermediate_result: Any) -> None:
            nonlocal count, stopped
            count += 1
            if observe is not None:
                found = objective.report(np.asarray(intermediate_result.x))
                try:
                    observe(found._replace(iteration=count))
                except StopIteration:
                    stopped = True
                    raise

        temperatures = (*self.continuation, self.temperature)
        objective.at_temperature(temperatures[state.stage])
        try:
            found = self._climb(problem, objective, state.payments, after)
        except InputError:
            # It led to payments that are earned for ever; what other climbs found remains.
            if state.best is None:
                raise
            return self._following(state, count, state.best, stopped)
        x = np.clip(found.x, problem.payments.lower, problem.payments.upper)
        last = stopped or state.stage + 1 == len(temperatures)
        objective.at_temperature(self.temperature if last else objective.temperature)
        # Limits of iterations: 1 of L-BFGS-B, 9 of SLSQP.
        limited = found.status in (1, 9)
        report = objective.report(x)
        # SLSQP may find no better step where there is none to be found.
        done = bool(found.success) or report.residual <= self.tolerance
        report = report._replace(
            iteration=count,
            converged=last and not stopped and done,
            stalled=last and not (stopped or done or limited),
            exhausted=last,
        )
        if not last:
            state = state._replace(iteration=count, stage=state.stage + 1, payments=x)
            return state, report
        return self._following(state, count, _better(problem, state.best, report), stopped)

    def _following(
        self, state: ClimbState, count: int, best: StepReport, stopped: bool
    ) -> tuple[ClimbState, StepReport]:
        """Return the state of the next climb, if there is one, and the best end until now."""
        best = best._replace(iteration=count)
        over = best._replace(converged=False, stalled=False, exhausted=stopped)
        if state.waiting and not stopped:
            first, *others = state.waiting
            return ClimbState(count, 0, first, state.objective, tuple(others), best), over
        assert state.objective.found is not None  # for the type checker
        warn_of_rounding(state.objective.found, self.temperature)
        return state._replace(iteration=count), over if stopped else best

    def _climb(
        self,
        problem: IncentiveProblem,
        objective: _Objective,
        payments: FloatArray,
        after: Callable[[Any], None],
    ) -> Any:
        """Run SciPy's method from payments (k,), and return its result."""
        from scipy import optimize

        minimize: Any = optimize.minimize
        settings: dict[str, Any] = {
            "method": "L-BFGS-B",
            "options": {"gtol": self.tolerance, "ftol": ROUNDING, "maxiter": self.max_iter},
        }
        if problem.budget is not None:
            within = {
                "type": "ineq",
                "fun": lambda each: problem.budget - objective.use(each),
                "jac": lambda each: -objective.use_slope(each),
            }
            settings = {
                "method": "SLSQP",
                "constraints": [within],
                "options": {"ftol": SLSQP_TOLERANCE * self.tolerance, "maxiter": self.max_iter},
            }
        return minimize(
            objective.negative,
            payments,
            jac=True,
            bounds=np.stack([problem.payments.lower, problem.payments.upper], axis=1),
            callback=after,
            **settings,
        )


class ClimbState(NamedTuple):
    """Where the climbs stand."""

    iteration: int  # of SciPy's methods so far
    stage: int  # number of the temperature
    payments: FloatArray  # (k,)
    objective: _Objective  # remembers its last point
    waiting: tuple[FloatArray, ...]  # payments from which to climb later
    best: StepReport | None  # of the climbs that have ended


def _better(problem: IncentiveProblem, first: StepReport | None, second: StepReport) -> StepReport:
    """Return the end of a climb with the larger objective; of equal ones, one that converged.

    Ends outside the budget, where SLSQP gave up, are the worst.
    """
    if first is None:
        return second
    ends = (first.evaluation, second.evaluation)
    inside = [problem.affords(each.cost, NEAR_BUDGET) for each in ends]
    if inside[0] != inside[1]:
        return second if inside[1] else first
    gain = ends[1].objective - ends[0].objective
    if abs(gain) <= SAME_END * (1.0 + abs(ends[0].objective)):
        return second if second.converged and not first.converged else first
    return second if gain > 0.0 else first


class _Objective:
    """F and dF/dx at payments; the last point is remembered, and responses start from it."""

    def __init__(self, problem: IncentiveProblem, response: str) -> None:
        self.problem = problem
        self.response = response
        self.temperature = 0.0
        self.evaluations = 0
        self.payments: FloatArray | None = None
        self.found: Answer | None = None
        self.at: TotalDerivative | None = None

    def at_temperature(self, temperature: float) -> None:
        """Forget what was evaluated at another temperature."""
        self.temperature, self.at = temperature, None

    def look(self, payments: FloatArray) -> TotalDerivative:
        """Evaluate, unless this is where it was evaluated last."""
        held = self.payments
        if self.at is None or held is None or not np.array_equal(payments, held):
            self.payments = payments.copy()
            warm = None if self.found is None else self.found.policies
            rewards = self.problem.rewards(payments)
            followers = self.problem.followers
            self.found = answer(followers, rewards, self.response, self.temperature, warm)
            self.at = differentiate(self.problem, payments, self.found, self.temperature)
            self.evaluations += 1
        return self.at

    def worth(self, payments: FloatArray) -> Looked | None:
        """Return what payments are worth, or None where they are not allowed or unbounded."""
        try:
            found, budget = self.look(payments), self.problem.budget
            if budget is not None and self.use(payments) > budget:
                return None
        except InputError:
            return None
        return Looked(found.leader_value, found.objective)

    def negative(self, payments: FloatArray) -> tuple[float, FloatArray]:
        """Return what SciPy minimises."""
        found = self.look(payments)
        return -found.objective, -found.gradient

    def use(self, payments: FloatArray) -> float:
        """Return what the budget bounds."""
        if isinstance(self.problem.cost, ExpectedSpend):
            return self.look(payments).cost
        return self.problem.payments.budget_use(payments)

    def use_slope(self, payments: FloatArray) -> FloatArray:
        """Return its total derivative (k,)."""
        problem = self.problem
        if not isinstance(problem.cost, ExpectedSpend):
            return problem.payments.budget_slope(payments)
        found = self.look(payments)
        cost = problem.cost_pass(payments, found.policies)
        assert self.found is not None  # for the type checker
        assert cost.policies is not None
        return cost.payments + pull_back(problem, self.found, cost.policies, self.temperature)

    def report(self, payments: FloatArray) -> StepReport:
        """Evaluate both levels: gaps are to exact best responses."""
        problem, found = self.problem, self.look(payments)
        rewards, followers = problem.rewards(payments), problem.followers
        own = followers.start_values(
            followers.evaluate(rewards, found.policies, checked=True).values
        )
        best = followers.start_values(followers.best_responses(rewards).values)
        leader = problem.leader_pass(found.policies, gradient=False)
        return StepReport(
            iteration=0,
            theta=found.policies,
            policies=found.policies,
            payments=payments.copy(),
            evaluation=problem.assemble(leader, found.cost, own, best),
            multipliers=np.zeros(problem.n),
            residual=self.residual(payments),
        )

    def residual(self, payments: FloatArray) -> float:
        """Largest entry of the projected hypergradient; under a budget that of a step of size 1."""
        slope = self.look(payments).gradient
        moved = self.problem.payments.project(payments + slope)
        return float(np.abs(moved - payments).max(initial=0.0))
