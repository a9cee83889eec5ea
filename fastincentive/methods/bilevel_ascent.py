"""Algorithm 1: the projected, lambda-weighted ascent on payments and policies together."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive._checks import check_fields, checked
from fastincentive._random import Rng
from fastincentive.errors import invalid
from fastincentive.followers.followers import PolicyValues, ResponseValues
from fastincentive.followers.parameterization import Parameterization, Softmax
from fastincentive.kernels import ascent_direction as kernels
from fastincentive.methods import _reference_policies as references
from fastincentive.methods._ascent_direction import (
    ROUNDING,
    Constraints,
    Iterate,
    Movement,
    constraints_at,
    next_payments_steps,
    next_theta,
    numbers_of,
    scaled_rows,
)
from fastincentive.methods._convergence import progress_steps
from fastincentive.methods._spend_budget import Target, priced_direction_steps
from fastincentive.methods._state import (
    AscentState,
    first_state,
    policy_values_steps,
    values_if_proper,
)
from fastincentive.methods.base import Capabilities, Method, Observer, Refusal, StepReport
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.passes import LeaderPass
from fastincentive.problem.queries import Across, AnyOf, Query
from fastincentive.problem.sampled_gradients import Exact, Reinforce, check_gradient

__all__ = ["BilevelAscent"]


@dataclass(frozen=True)
class BilevelAscent(Method):
    """Projected lambda-weighted ascent on f(x, theta) subject to q(x, theta) >= 0 (Algorithm 1).

    At each iteration payments and policies move along grad f + lambda grad q, lambda being the
    smallest that lets q grow by phi. The defaults are made to work untuned; the paper's literal
    text is ``BilevelAscent(geometry="ambient", multiplier="joint", barrier="gradient",
    natural_gradient=False, schedule="constant", step=..., payment_step=...)``.

    Parameters
    ----------
    geometry : "tangent" or "ambient"
        Whether lambda is chosen for the change that the feasible set allows (the projected step),
        or from the raw gradients (the closed form in the paper, which fails for direct policies
        because the normal part of grad q never vanishes).
    multiplier : "per-follower" or "joint"
        One lambda for each follower (and for each linear piece of its V*), or the paper's single
        one. Payments shared between followers couple the former; the small quadratic programme
        is then solved by sweeps.
    barrier : "gap" or "gradient"
        phi = eta (-q), or the paper's phi = eta |grad q|^2.
    response : "greedy", "boltzmann", "soft" or "inner"
        The reference V_i*: exact best response; softmax of Q* (the paper's Example 1; q can then
        be positive); entropy-regularised best response; or ``inner_steps`` projected ascent
        steps from the current policy, as in Liu et al. (2022).
    temperature : float, optional
        tau of the boltzmann and soft responses; by default the softmax's, or 0.05.
    inner_steps : int
    step, payment_step : float
        Step sizes of theta and x. With ``natural_gradient`` they are relative to each follower's
        unit of reward, else absolute (the paper's xi).
    schedule : "adaptive", "constant" or "sqrt"
        "sqrt" divides the steps by sqrt(1 + k / 100); "adaptive" doubles them while the iterates go
        straight on, and halves them when they go to and fro.
    natural_gradient : bool
        Scale each state's gradient by 1 / (visits x unit of reward).
    eta : float
        Rate at which the gaps close: an iteration closes the share step * eta, at most half.
    pieces : int
        Linear pieces of V_i* remembered for each follower (greedy response, one multiplier each).
    gradient : Exact or Reinforce
        The leader's gradient: by the three passes, or from sampled trajectories, which have noise:
        a run then ends at ``max_iter`` or when its steps have become too small.
    tolerance : float
        Converged when the residual, and each gap in units of reward, are below it.
    max_iter : int
    """

    geometry: Literal["tangent", "ambient"] = "tangent"
    multiplier: Literal["per-follower", "joint"] = "per-follower"
    barrier: Literal["gap", "gradient"] = "gap"
    response: Literal["greedy", "boltzmann", "soft", "inner"] = "greedy"
    temperature: float | None = None
    inner_steps: int = 20
    step: float = 0.1
    payment_step: float = 0.03
    schedule: Literal["adaptive", "constant", "sqrt"] = "adaptive"
    natural_gradient: bool = True
    eta: float = 2.0
    pieces: int = 6
    gradient: Exact | Reinforce = field(default_factory=Exact)
    tolerance: float = 1e-5
    max_iter: int = 2000

    def __post_init__(self) -> None:
        """Check the settings."""
        check_fields(self)
        choices = {
            "geometry": ("tangent", "ambient"),
            "multiplier": ("per-follower", "joint"),
            "barrier": ("gap", "gradient"),
            "response": ("greedy", "boltzmann", "soft", "inner"),
            "schedule": ("adaptive", "constant", "sqrt"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise invalid(name, f"one of {allowed}", repr(getattr(self, name)))
        check_gradient(self.gradient)
        for name in ("step", "payment_step", "eta", "tolerance"):
            if not getattr(self, name) > 0:
                raise invalid(name, "a number > 0", getattr(self, name))
        for name in ("inner_steps", "pieces", "max_iter"):
            if getattr(self, name) < 1:
                raise invalid(name, "a positive integer", getattr(self, name))
        if self.temperature is not None and not self.temperature > 0:
            raise invalid("temperature", "a number > 0", self.temperature)
        if self.geometry == "ambient" and self.natural_gradient:
            raise invalid(
                "natural_gradient", "False with geometry='ambient' (the paper's literal text)", True
            )

    # -- what it needs and can do -------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """Shards and types where each follower has its own multiplier and exact gradients."""
        shards: bool | Refusal = True
        types: bool | str = True
        if isinstance(self.gradient, Reinforce):
            types = "sampled trajectories"
            shards = Refusal(
                "gradient",
                "Exact() with an engine that cuts followers into shards",
                "Reinforce",
                "Joint trajectories are sampled where all followers are.",
            )
        if self.multiplier == "joint":
            types = "a joint multiplier"
            shards = Refusal(
                "multiplier",
                "'per-follower' with an engine that cuts followers into shards",
                "'joint'",
                "One multiplier over all followers is found where all of them are.",
            )
        return Capabilities(
            uses_policies=True,
            keeps_state=True,
            shards=shards,
            types=types,
            draws=isinstance(self.gradient, Reinforce),
        )

    @property
    def most_iterations(self) -> int:
        """``max_iter``."""
        return self.max_iter

    def drawing_from(self, rng: Rng) -> BilevelAscent:
        """Return the method with another source of its trajectories."""
        assert isinstance(self.gradient, Reinforce)  # for the type checker: it draws
        return replace(self, gradient=replace(self.gradient, rng=rng))

    # -- Algorithm 1 --------------------------------------------------------------------------

    @checked
    def init(
        self,
        problem: ProblemPart,
        parameterization: Parameterization,
        payments: FloatArray,
        policies: FloatArray | None,
    ) -> AscentState:
        """Return the state at the first iterate."""
        if policies is None:
            raise invalid("policies", "those to start from, (n, S, A)", None)
        self.check_suits(problem)
        planes = self.pieces if self._bundled else 1
        return first_state(problem, parameterization, payments, policies, planes)

    def step_from_steps(
        self,
        problem: ProblemPart,
        parameterization: Parameterization,
        state: AscentState,
        observe: Observer | None = None,
    ) -> Generator[Query, Any, tuple[AscentState, StepReport]]:
        """One iteration of Algorithm 1, with its line numbers; xi is the step, D a scaling."""
        state, at = yield from self._iterate_steps(problem, parameterization, state)
        planes, fresh, q = constraints_at(problem, at, state.planes, state.iteration)
        move, payment_unit = yield from self._movement_steps(problem, parameterization, state, at)
        joint = self.multiplier == "joint"

        # Line 2: the smallest lambda >= 0 at which q grows by phi along the projected step.
        multipliers = np.where(fresh, 0.0, state.multipliers)
        phi = self._growth(problem, move, q, state.unit)
        spending = self._spending_rows(problem, parameterization, state, at)
        target = Target(move, q, phi, spending, joint)
        priced = yield from priced_direction_steps(problem, at, target, state.price, multipliers)
        multipliers = priced.multipliers
        change, finite = numbers_of(priced.change)
        progress = yield from progress_steps(
            problem, state, at, move, change, payment_unit, problem.payments.shared or joint
        )

        # Line 3: x <- Proj_X[x + xi D (grad_x f + lambda grad_x q)], eq. 11 and 12.
        x = yield from next_payments_steps(problem, move, change.payments, progress.damping)

        # Line 4: theta <- Proj_Theta[theta + xi D (grad_theta f + lambda grad_theta q)],
        # eq. 7 and 13.
        theta = next_theta(
            parameterization,
            problem.followers,
            state.theta,
            move,
            change.rows,
            progress.visited,
            progress.damping,
        )
        following = state._replace(
            iteration=state.iteration + 1,
            payments=x,
            theta=theta,
            multipliers=multipliers,
            price=priced.price,
            planes=planes,
            actions=at.best.actions,
            controller=progress.controller,
        )
        report = StepReport(
            iteration=state.iteration,
            theta=state.theta,
            policies=at.policies,
            payments=at.payments,
            evaluation=problem.assemble(at.leader, progress.cost, at.start_values, at.best_values),
            multipliers=multipliers[:, 0] if joint else multipliers.sum(axis=1),
            price=priced.price,
            residual=progress.residual,
            converged=progress.residual <= self.tolerance
            and progress.largest_gap <= self.tolerance,
            stalled=progress.stalled,
            finite=finite and bool(np.isfinite(x).all() and np.isfinite(theta).all()),
            exhausted=state.iteration >= self.max_iter,
        )
        return following, report

    # -- its parts ----------------------------------------------------------------------------

    @property
    def _bundled(self) -> bool:
        """Whether several cutting planes of V_i* are kept."""
        return (
            self.response == "greedy"
            and self.multiplier == "per-follower"
            and self.geometry == "tangent"
            and self.barrier == "gap"
        )

    def _iterate_steps(
        self, problem: ProblemPart, parameterization: Parameterization, state: AscentState
    ) -> Generator[Query, Any, tuple[AscentState, Iterate]]:
        """Evaluate the state, or a proper one: values, best responses, leader and cost."""
        followers, x = problem.followers, state.payments
        rewards = problem.rewards(x)
        state, policies, values = yield from policy_values_steps(
            problem, parameterization, rewards, state
        )
        best = followers.best_responses(rewards, state.actions, state.memory, checked=True)
        reference = self._reference(problem, parameterization, rewards, policies, best, state.unit)
        reference_values, improper = values_if_proper(followers, rewards, reference)
        if problem.undiscounted and (yield AnyOf(improper)):
            reference = followers.deterministic_policies(best.actions)
            reference_values = followers.evaluate(rewards, reference, checked=True)
        assert reference_values is not None  # for the type checker
        leader: LeaderPass
        if isinstance(self.gradient, Reinforce):
            leader, values = self._sampled(problem, policies, rewards, values, state.iteration)
        else:
            leader = yield from problem.leader_pass_steps(policies)
        assert leader.gradient is not None  # for the type checker
        top = best if self.response == "greedy" else reference_values
        cost = yield from problem.cost_slopes_steps(x, policies)
        gradient = leader.gradient
        if cost.policies is not None:
            gradient = gradient - problem.cost_weight * cost.policies
        return state, Iterate(
            payments=x,
            policies=policies,
            values=values,
            best=best,
            reference=reference,
            reference_values=reference_values,
            start_values=followers.start_values(values.values),
            best_values=followers.start_values(top.values),
            leader=leader,
            cost=cost,
            objective_gradient=gradient,
        )

    def _sampled(
        self,
        problem: ProblemPart,
        policies: FloatArray,
        rewards: FloatArray,
        values: PolicyValues,
        iteration: int,
    ) -> tuple[LeaderPass, PolicyValues]:
        """Return the leader's gradient from trajectories, and what they say of the followers."""
        assert isinstance(self.gradient, Reinforce)  # for the type checker
        own = rewards if self.gradient.followers == "estimated" else None
        found, estimate = self.gradient.estimate(
            problem, policies, rewards=own, iteration=iteration
        )
        leader = LeaderPass(found.value, found.gradient, found.horizon, np.inf)
        return leader, values if estimate is None else estimate.values

    def _reference(
        self,
        problem: ProblemPart,
        parameterization: Parameterization,
        rewards: FloatArray,
        policies: FloatArray,
        best: ResponseValues,
        unit: FloatArray,
    ) -> FloatArray:
        """Return the policies (n, S, A) whose values stand for V_i*."""
        followers = problem.followers
        if self.response == "greedy":
            return references.nearest_greedy(best, policies, unit)
        if self.response == "inner":
            return references.ascended(
                followers, rewards, parameterization, policies, unit, self.step, self.inner_steps
            )
        tau = self.temperature
        if tau is None:
            tau = 0.05
            if isinstance(parameterization, Softmax):
                tau = parameterization.temperature
        if self.response == "boltzmann":
            return references.boltzmann(followers, best, tau)
        return references.soft(followers, rewards, tau, policies)

    def _movement_steps(
        self,
        problem: ProblemPart,
        parameterization: Parameterization,
        state: AscentState,
        at: Iterate,
    ) -> Generator[Query, Any, tuple[Movement, FloatArray]]:
        """Return how a step moves, and each payment's unit of reward (k,)."""
        factor = 1.0
        if self.schedule == "adaptive":
            factor = state.controller.factor
        elif self.schedule == "sqrt":
            factor = 1.0 / np.sqrt(1.0 + state.iteration / 100.0)
        step, payment_step = self.step * factor, self.payment_step * factor
        payments = problem.payments
        unit = state.unit if self.natural_gradient else np.ones(problem.followers.n)
        payment_unit = payments.most(unit)
        if payments.shared:
            payment_unit = yield Across(problem.variables, payment_unit)
        side = kernels.PaymentSide(
            payments.reach,
            payment_step / step * payment_unit,
            at.payments,
            payments.lower,
            payments.upper,
        )
        kind, rows = scaled_rows(
            parameterization,
            problem.followers,
            at,
            state.unit,
            self.natural_gradient,
            self.geometry == "ambient",
        )
        return Movement(kind, step, rows, side, self.natural_gradient), payment_unit

    def _spending_rows(
        self,
        problem: ProblemPart,
        parameterization: Parameterization,
        state: AscentState,
        at: Iterate,
    ) -> FloatArray | None:
        """How rows move along grad_theta C, where a budget bounds what followers are paid."""
        if problem.budget is None or at.cost.policies is None:
            return None
        along = at._replace(objective_gradient=at.cost.policies)
        ambient = self.geometry == "ambient"
        natural = self.natural_gradient
        followers = problem.followers
        _, rows = scaled_rows(parameterization, followers, along, state.unit, natural, ambient)
        return rows.objective

    def _growth(
        self, problem: ProblemPart, move: Movement, q: Constraints, unit: FloatArray
    ) -> FloatArray:
        """Phi (n, J): how fast each q_ij must grow."""
        allowed = ROUNDING * (unit if self.natural_gradient else np.ones(unit.size))[:, None]
        if self.barrier == "gap":
            # Each iteration closes the same share of a gap, however long its step, half at most.
            return -min(self.eta * self.step, 0.5) / move.step * q.slack - allowed
        norms = np.empty(q.slack.shape)
        kernels.constraint_norms(
            problem.followers.packed,
            move.kind,
            move.step,
            move.rows,
            q.slopes,
            move.payments,
            norms,
        )
        return self.eta * norms - allowed
