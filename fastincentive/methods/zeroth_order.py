"""ZerothOrder: search over payments alone, with exact best responses and no derivatives.

A baseline. V at exact best responses is constant between kinks and jumps at them, so its gradient
is of no use; what is climbed is its mean over random payments nearby, whose radius shrinks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import check_fields, checked
from fastincentive._random import Rng, check_rng
from fastincentive.errors import InputError, invalid
from fastincentive.followers.followers import ResponseValues
from fastincentive.followers.parameterization import Parameterization
from fastincentive.methods._reference_policies import reward_units
from fastincentive.methods.base import Capabilities, Method, Observer, StepReport
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.regimes import alike
from fastincentive.responses.ties import break_ties
from fastincentive.solution import MESSAGES, Status

__all__ = ["ZerothOrder", "exact_objective"]

#: Share of the evaluations, at the end, that must have gained next to nothing.
LAST = 0.25


@dataclass(frozen=True)
class ZerothOrder(Method):
    """Evolution strategy on the leader's objective under exact best responses.

    At each iteration the objective is evaluated at antithetic pairs of random payments, x + r u and
    x - r u, u normal; x moves along the mean of u times the pairs' differences, which are brought
    to size 1 first (Salimans et al., 2017, "Evolution strategies as a scalable alternative to
    reinforcement learning"). With ``pairs=1`` this is the two-point method of Nesterov and
    Spokoiny (2017), "Random gradient-free minimization of convex functions". It goes on from the
    best payments seen so far.

    Parameters
    ----------
    evaluations : int
        Of the objective, in all; each takes one best response of every follower and one pass for
        the leader's value.
    pairs : int
        Antithetic pairs in each iteration.
    radius, last_radius : float
        r in units of reward (the spread of the followers' action values), first and last; it
        shrinks geometrically.
    step : float
        Length of a step, relative to r.
    tolerance : float
        Converged when the last quarter of the evaluations gained no more than this share of what
        all of them gained.
    rng : None, int or Generator
        Source of the random payments.

    Notes
    -----
    A first radius below the distance to a kink that pays sees a slope of -w dC/dx, and nothing
    else. A local search: nothing certifies the result. Initial policies and parameterizations play
    no part. Ties are broken in the leader's favour at every evaluation.
    """

    messages: ClassVar[dict[Status, str]] = MESSAGES | {
        Status.CONVERGED: "converged: the last quarter of the evaluations gained next to nothing",
        Status.MAX_ITER: "stopped when all evaluations were spent and the objective still rose; "
        "raise evaluations",
    }

    evaluations: int = 2000
    pairs: int = 4
    radius: float = 1.0
    last_radius: float = 1e-3
    step: float = 1.0
    tolerance: float = 0.01
    rng: Rng = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_fields(self)
        for name in ("radius", "last_radius", "step", "tolerance"):
            value = getattr(self, name)
            if not (value > 0 and np.isfinite(value)):
                raise invalid(name, "a finite number > 0", value)
        if self.last_radius > self.radius:
            raise invalid("last_radius", f"at most the radius {self.radius:g}", self.last_radius)
        for name, least in (("evaluations", 1), ("pairs", 1)):
            value = getattr(self, name)
            if not (isinstance(value, (int, np.integer)) and value >= least):
                raise invalid(name, f"an integer >= {least}", repr(value))
        check_rng(self.rng)
        least = 2 + 2 * self.pairs
        if self.evaluations < least:
            raise invalid(
                "evaluations",
                f"at least {least} with pairs={self.pairs}: the start's, and one iteration's",
                self.evaluations,
            )

    @property
    def capabilities(self) -> Capabilities:
        """It knows payments and best responses only, and draws random payments."""
        return Capabilities(uses_policies=False, keeps_state=False, draws=True)

    @property
    def max_iter(self) -> int:
        """Iterations that the evaluations are enough for, the start's taken off."""
        return (self.evaluations - 1) // (2 * self.pairs + 1)

    @property
    def most_iterations(self) -> int:
        """``max_iter``."""
        return self.max_iter

    def drawing_from(self, rng: Rng) -> ZerothOrder:
        """Return the method with another source of random payments."""
        return replace(self, rng=rng)

    @checked
    def init(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        payments: FloatArray,
        policies: FloatArray | None,
    ) -> EvolutionState:
        """Evaluate the first payments."""
        rng = np.random.default_rng(self.rng)
        objective = _Objective(problem)
        _, first = objective.respond(payments)
        unit = problem.payments.most(reward_units(problem.followers, first))
        return EvolutionState(0, payments, [objective(payments)], self.radius, unit, rng, objective)

    @checked
    def step_from(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        state: EvolutionState,
        observe: Observer | None = None,
    ) -> tuple[EvolutionState, StepReport]:
        """Evaluate random pairs around the best payments so far, and a step along their slope."""
        payments, objective = problem.payments, state.objective
        x, radius, unit = state.payments, state.radius, state.unit
        draws = state.rng.standard_normal((self.pairs, payments.size))
        trials = [
            payments.project(x + sign * radius * unit * u) for u in draws for sign in (1.0, -1.0)
        ]
        values = np.array([objective(trial) for trial in trials])
        slope = _slope(draws, values.reshape(-1, 2))
        trials.append(payments.project(x + self.step * radius * unit * slope))
        values = np.append(values, objective(trials[-1]))
        best, top = int(np.argmax(values)), state.gains[-1]
        if values[best] > top:
            x, top = trials[best], float(values[best])
        gains = [*state.gains, top]
        last = state.iteration + 1 >= self.max_iter
        report = objective.report(x, radius)._replace(
            iteration=state.iteration + 1,
            exhausted=last,
            converged=last and self._settled(gains),
            evaluations=objective.evaluations,
        )
        shrink = (self.last_radius / self.radius) ** (1.0 / max(self.max_iter - 1, 1))
        following = state._replace(
            iteration=state.iteration + 1, payments=x, gains=gains, radius=radius * shrink
        )
        return following, report

    def _settled(self, gains: list[float]) -> bool:
        """Whether the last quarter gained next to nothing; of the best at first and since."""
        before = gains[-1 - max(int(LAST * self.max_iter), 1)]
        # No gain at all is none either; from -inf on every gain is all there is.
        late = gains[-1] - before if np.isfinite(before) else np.inf
        return bool(np.isfinite(gains[-1]) and late <= self.tolerance * (gains[-1] - gains[0]))


class EvolutionState(NamedTuple):
    """Where the search stands."""

    iteration: int
    payments: FloatArray  # (k,) the best so far
    gains: list[float]  # the best objective at first, and after each iteration
    radius: float
    unit: FloatArray  # (k,) of reward
    rng: np.random.Generator  # is drawn from
    objective: _Objective  # counts its evaluations


class _Objective:
    """The objective at payments; counts its evaluations and starts from the last responses."""

    def __init__(self, problem: IncentiveProblem) -> None:
        self.problem = problem
        self.evaluations = 0
        self._equals = alike(problem.followers, problem.payments.index, problem.leader.labels)
        self._actions: NDArray[np.int64] | None = None
        self._memory = problem.followers.response_memory()

    def respond(self, payments: FloatArray) -> tuple[FloatArray, ResponseValues]:
        """Best responses (n, S, A), ties broken for the leader, and what is known of them."""
        problem, followers = self.problem, self.problem.followers
        rewards = problem.rewards(payments)
        best = followers.best_responses(rewards, self._actions, self._memory, checked=True)
        self._actions = best.actions
        policies = followers.deterministic_policies(best.actions)
        tied = self._tied(payments, best)
        # Ties where nobody comes change nothing, and those are most.
        if (
            tied.any()
            and (tied & (followers.evaluate(rewards, policies, checked=True).visits > 0.0)).any()
        ):
            policies = break_ties(problem, payments, 1.0)
        return policies, best

    def _tied(self, payments: FloatArray, best: ResponseValues) -> NDArray[np.bool_]:
        """States (n, S) where several actions, different ones to anybody, are optimal."""
        optimal = self.problem.optimal_actions(payments, best).tied
        first = np.where(optimal, self._equals, np.iinfo(np.int64).max).min(axis=2)
        last = np.where(optimal, self._equals, -1).max(axis=2)
        return np.asarray(first != last)

    def __call__(self, payments: FloatArray) -> float:
        """V - w C, -inf beyond the budget or where a follower would earn for ever."""
        self.evaluations += 1
        problem = self.problem
        try:
            policies, _ = self.respond(payments)
        except InputError:
            return -np.inf
        cost = problem.cost_pass(payments, policies, gradient=False).value
        if not problem.affords(cost):
            return -np.inf
        return problem.net(problem.leader_pass(policies, gradient=False).value, cost)

    def report(self, payments: FloatArray, radius: float) -> StepReport:
        """Evaluate both levels at payments at which followers can be answered for."""
        problem, followers = self.problem, self.problem.followers
        policies, best = self.respond(payments)
        values = followers.evaluate(problem.rewards(payments), policies, checked=True).values
        return StepReport(
            iteration=0,
            theta=policies,
            policies=policies,
            payments=payments.copy(),
            evaluation=problem.assemble(
                problem.leader_pass(policies, gradient=False),
                problem.cost_pass(payments, policies, gradient=False).value,
                followers.start_values(values),
                followers.start_values(best.values),
            ),
            multipliers=np.zeros(problem.n),
            residual=radius,
        )


def exact_objective(problem: IncentiveProblem, payments: FloatArray) -> float:
    """V - w C at payments (k,) and exact best responses, ties broken in the leader's favour.

    -inf beyond the budget, and where payments make a follower's total reward unbounded.
    """
    return _Objective(problem)(payments)


def _slope(draws: FloatArray, values: FloatArray) -> FloatArray:
    """Mean of the draws (m, k), each times its pair's difference; values (m, 2).

    The differences are brought to a mean square of 1: how large the objective is does not matter.
    What cannot be posted counts as the worst that can.
    """
    finite = np.isfinite(values)
    values = np.where(finite, values, values.min(where=finite, initial=np.inf))
    if not finite.any():
        return np.zeros(draws.shape[1])
    difference = values[:, 0] - values[:, 1]
    size = float(np.sqrt(np.mean(difference**2)))
    return difference @ draws / (size * len(draws)) if size > 0.0 else np.zeros(draws.shape[1])
