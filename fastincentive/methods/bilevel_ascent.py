"""Algorithm 1: the projected, lambda-weighted ascent on payments and policies together."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import invalid
from fastincentive.followers.followers import Followers, PolicyValues, ResponseValues
from fastincentive.followers.parameterization import Direct, Parameterization, Softmax
from fastincentive.kernels import ascent as kernels
from fastincentive.methods import _reference_policies as references
from fastincentive.methods._cutting_planes import add_pieces, empty_pieces
from fastincentive.methods._state import AscentState, StepReport, evaluated, held_at
from fastincentive.methods._step_control import distance, ends_window, judge, start_pace
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.passes import LeaderPass
from fastincentive.problem.payments import BoundPayments
from fastincentive.problem.queries import (
    Across,
    AnyOf,
    Project,
    Query,
    SequentialReduce,
    Summary,
    run_single,
)
from fastincentive.problem.sampled_gradients import Exact, Reinforce, check_gradient

__all__ = ["BilevelAscent"]

#: States with fewer visits count as not visited: they follow the follower alone.
SMALLEST_VISITS = 1e-6


@dataclass(frozen=True)
class BilevelAscent:
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
        straight ahead, and halves them when they only chatter.
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

    # -- state --------------------------------------------------------------------------------

    def init(
        self,
        problem: ProblemPart,
        parameterization: Parameterization,
        payments: FloatArray,
        policies: FloatArray,
    ) -> AscentState:
        """Return the state at the first iterate."""
        if self.multiplier == "joint":
            problem.refuse_types("a joint multiplier")
        followers = problem.followers
        best = followers.best_responses(problem.rewards(payments))
        count = self.pieces if self._bundled else 1
        return AscentState(
            iteration=0,
            payments=payments.copy(),
            theta=parameterization.parameters(policies, followers),
            multipliers=np.zeros((followers.n, count)),
            pieces=empty_pieces(followers.n, count, problem.payments.reach.shape[1]),
            actions=best.actions,
            unit=references.reward_units(followers, best),
            pace=start_pace(payments, policies),
            memory=followers.response_memory(),
        )

    @property
    def _bundled(self) -> bool:
        """Whether several linear pieces of V_i* are kept."""
        return (
            self.response == "greedy"
            and self.multiplier == "per-follower"
            and self.geometry == "tangent"
            and self.barrier == "gap"
        )

    # -- one iteration ------------------------------------------------------------------------

    def step_from(
        self, problem: ProblemPart, parameterization: Parameterization, state: AscentState
    ) -> tuple[AscentState, StepReport]:
        """Evaluate the state, and move."""
        return run_single(self.stepping(problem, parameterization, state), problem)

    def stepping(
        self, problem: ProblemPart, parameterization: Parameterization, state: AscentState
    ) -> Generator[Query, Any, tuple[AscentState, StepReport]]:
        """As ``step_from``, for a shard of the followers that asks what it must know of all."""
        followers, bound, x = problem.followers, problem.payments, state.payments
        rewards = problem.rewards(x)
        state, policies, held = yield from held_at(problem, parameterization, rewards, state)
        best = followers.best_responses(rewards, state.actions, state.memory)
        reference = self._reference(problem, parameterization, rewards, policies, best, state.unit)
        answered, improper = evaluated(followers, rewards, reference)
        if problem.undiscounted and (yield AnyOf(improper)):
            reference = np.eye(followers.n_actions)[best.actions]
            answered = followers.evaluate(rewards, reference)
        assert answered is not None  # for the type checker
        leader: LeaderPass
        if isinstance(self.gradient, Reinforce):
            leader, held = self._sampled(problem, policies, rewards, held, state.iteration)
        else:
            leader = yield from problem.leader_pass_steps(policies)
        assert leader.gradient is not None  # for the type checker
        values = followers.start_values(held.values)
        top = best if self.response == "greedy" else answered
        best_values = followers.start_values(top.values)
        cost = yield from problem.cost_pass_steps(x, policies)
        ahead = leader.gradient
        if cost.policies is not None:
            ahead = ahead - problem.cost_weight * cost.policies

        # What each piece of V_i* says of q_i: its value now, and its gradient in the payments.
        spread = bound.spread(x)
        slope = bound.compress(held.visits[:, :, None] * policies)
        reference_slope = bound.compress(answered.visits[:, :, None] * reference)
        constant = best_values - (reference_slope * spread).sum(axis=1)
        pieces, fresh = add_pieces(state.pieces, constant, reference_slope, state.iteration)
        multipliers = np.where(fresh, 0.0, state.multipliers)
        slack = values[:, None] - pieces.at(spread)
        own = slope[:, None, :] - pieces.slope
        rounding = 1e-11 * (1.0 + np.abs(slope).max(axis=1, initial=0.0))
        own[np.abs(own) <= rounding[:, None, None]] = 0.0

        step, payment_step = self._steps(state)
        unit = state.unit if self.natural_gradient else np.ones(followers.n)
        payment_unit = bound.most(unit)
        if bound.shared:
            payment_unit = yield Across(problem.variables, payment_unit)
        purse = kernels.Purse(
            bound.reach, payment_step / step * payment_unit, x, bound.lower, bound.upper
        )
        kind, rows = self._rows(parameterization, followers, policies, held, ahead, state.unit)
        target = self._targets(problem, kind, step, rows, own, slack, purse)
        # A gap may open at this rate: without it, rounding alone would call for a multiplier.
        target -= 1e-11 * unit[:, None]
        total = -problem.cost_weight * cost.payments
        constraints = _Constraints(own, pieces.active, target)
        total, row_change = yield from self._direction(
            problem, kind, step, rows, total, constraints, purse, multipliers
        )
        payment_change = np.empty(bound.size)
        kernels.move_payments(kind, step, total, purse, payment_change)
        if bound.budget is not None and kind != kernels.LINEAR:
            moved = yield Project(problem.variables, x + step * payment_change)
            payment_change = (moved - x) / step

        # How far the direction goes per unit step, in units of reward; rows count by their visits,
        # as in the norm of the gradient.
        visited = held.visits > SMALLEST_VISITS
        row_size = np.abs(row_change).max(axis=2, where=visited[:, :, None], initial=0.0)
        paid = np.abs(payment_change) / np.maximum(purse.pace, 1e-300)
        damping = self._damping(bound, kind, step, row_size, payment_change, unit)
        gaps = best_values - values
        pace, here = state.pace, (x, policies)
        unit_paid = np.where(bound.counted, np.maximum(payment_unit, 1e-300), np.inf)
        moved_by = distance(here, (pace.last, pace.last_policies), unit_paid, visited)
        travelled = 0.0
        if ends_window(state.iteration):
            travelled = distance(here, (pace.anchor, pace.policy_anchor), unit_paid, visited)
        largest, summed = yield Summary(
            np.array(
                [
                    (row_size * np.minimum(held.visits, 1.0)).max(),
                    paid.max(initial=0.0),
                    (np.abs(gaps) / state.unit).max(),
                    (gaps / state.unit).max(),
                    -damping.min(),
                ]
            ),
            np.array([cost.value, moved_by, travelled]),
        )
        residual = float(largest[:2].max())
        converged = residual <= self.tolerance and bool(largest[3] <= self.tolerance)
        joint = self.multiplier == "joint"
        if bound.shared or joint:
            damping[:] = -largest[4]
        pace, stalled = judge(
            pace,
            state.iteration,
            residual + float(largest[2]),
            float(largest[3]),
            float(summed[1]),
            float(summed[2]),
            x,
            policies,
        )
        ahead_payments = x + step * bound.least(damping) * payment_change
        if bound.budget is None:
            ahead_payments = bound.project(ahead_payments)
        else:
            ahead_payments = yield Project(problem.variables, ahead_payments)
        following = AscentState(
            iteration=state.iteration + 1,
            payments=ahead_payments,
            theta=self._move(
                parameterization, followers, state.theta, rows, row_change, visited, damping, step
            ),
            multipliers=multipliers,
            pieces=pieces,
            actions=best.actions,
            unit=state.unit,
            pace=pace,
            memory=state.memory,
        )
        report = StepReport(
            theta=state.theta,
            policies=policies,
            payments=x,
            evaluation=problem.assemble(leader, float(summed[0]), values, best_values),
            multipliers=multipliers[:, 0] if joint else multipliers.sum(axis=1),
            residual=residual,
            converged=converged,
            stalled=stalled,
            finite=bool(
                np.isfinite(following.payments).all() and np.isfinite(following.theta).all()
            ),
        )
        return following, report

    def _sampled(
        self,
        problem: ProblemPart,
        policies: FloatArray,
        rewards: FloatArray,
        held: PolicyValues,
        iteration: int,
    ) -> tuple[LeaderPass, PolicyValues]:
        """Return the leader's gradient from trajectories, and what they say of the followers."""
        assert isinstance(self.gradient, Reinforce)  # for the type checker
        own = rewards if self.gradient.followers == "estimated" else None
        found, estimate = self.gradient.estimate(
            problem, policies, rewards=own, iteration=iteration
        )
        leader = LeaderPass(found.value, found.gradient, found.horizon, np.inf)
        return leader, held if estimate is None else estimate.values

    def _direction(
        self,
        problem: ProblemPart,
        kind: int,
        step: float,
        rows: kernels.Rows,
        total: FloatArray,
        constraints: _Constraints,
        purse: kernels.Purse,
        multipliers: FloatArray,
    ) -> Generator[Query, Any, tuple[FloatArray, FloatArray]]:
        """Return the payments' gradient with the multipliers in it, and the change of the rows.

        ``multipliers`` (n, J) are the last ones, and are overwritten by the new ones.
        """
        packed, bound = problem.followers.packed, problem.payments
        own, active, target = constraints
        row_change = np.empty(rows.points.shape)
        if self.multiplier == "joint":
            own_sum = _scatter(bound.reach, own[:, 0], bound.size)
            every, wanted = np.arange(bound.size), float(target[:, 0].sum())
            multipliers[:] = kernels.joint_direction(
                packed, kind, step, rows, total, own_sum, every, purse, wanted, row_change
            )
            return total + multipliers[0, 0] * own_sum, row_change
        if not bound.shared:
            kernels.add_multipliers(bound.reach, own, multipliers, total)
            kernels.separate_directions(
                packed, kind, step, rows, total, own, active, purse, target, multipliers, row_change
            )
            return total, row_change
        # Followers that share payments take turns: what one changes, the next one sees.
        total, _ = yield SequentialReduce(problem.variables, total, False)
        kernels.add_multipliers(bound.reach, own, multipliers, total)
        total, _ = yield SequentialReduce(problem.variables, total, True)
        for _ in range(kernels.SWEEPS):
            total, _ = yield SequentialReduce(problem.variables, total, False)
            change = kernels.sweep_directions(
                packed, kind, step, rows, total, own, active, purse, target, multipliers
            )
            total, change = yield SequentialReduce(problem.variables, total, True, change)
            if change <= kernels.SETTLED:
                break
        kernels.shared_directions(packed, kind, step, rows, multipliers, row_change)
        return total, row_change

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

    def _steps(self, state: AscentState) -> tuple[float, float]:
        factor = 1.0
        if self.schedule == "adaptive":
            factor = state.pace.factor
        elif self.schedule == "sqrt":
            factor = 1.0 / np.sqrt(1.0 + state.iteration / 100.0)
        return self.step * factor, self.payment_step * factor

    def _rows(
        self,
        parameterization: Parameterization,
        followers: Followers,
        policies: FloatArray,
        held: PolicyValues,
        gradient: FloatArray,
        unit: FloatArray,
    ) -> tuple[int, kernels.Rows]:
        """How rows move, and along what: D grad f, D grad q, and grad q for inner products."""
        visits = held.visits[:, :, None]
        available = followers.available
        advantage = np.where(available, held.q_values - held.values[:, :, None], 0.0)
        kind = kernels.DIRECT if isinstance(parameterization, Direct) else kernels.SOFTMAX
        if self.natural_gradient:
            scale = unit[:, None, None]
            ahead = gradient / (np.maximum(visits, SMALLEST_VISITS) * scale)
            return kind, kernels.Rows(ahead, advantage / scale, visits * advantage, policies)
        q_values = np.where(available, held.q_values, 0.0)
        ahead = parameterization.gradient(gradient, policies)
        slopes = parameterization.gradient(visits * q_values, policies)
        if self.geometry == "ambient":
            return kernels.LINEAR, kernels.Rows(ahead, slopes, slopes, policies)
        if isinstance(parameterization, Softmax):
            # The kernel moves theta / tau, and measures the change in the policies.
            tau = parameterization.temperature
            return kind, kernels.Rows(ahead / tau, slopes / tau, visits * advantage, policies)
        return kind, kernels.Rows(ahead, slopes, slopes, policies)

    def _targets(
        self,
        problem: ProblemPart,
        kind: int,
        step: float,
        rows: kernels.Rows,
        own: FloatArray,
        slack: FloatArray,
        purse: kernels.Purse,
    ) -> FloatArray:
        """Phi (n, J): how fast each q_ij must grow."""
        if self.barrier == "gap":
            # Each iteration closes the same share of a gap, however long its step, half at most.
            return -min(self.eta * self.step, 0.5) / step * slack
        norms = np.empty(slack.shape)
        kernels.constraint_norms(problem.followers.packed, kind, step, rows, own, purse, norms)
        return self.eta * norms

    def _damping(
        self,
        bound: BoundPayments,
        kind: int,
        step: float,
        row_size: FloatArray,
        payment_change: FloatArray,
        unit: FloatArray,
    ) -> FloatArray:
        """Share (n,) of the step to take: rows change by at most 0.2, payments by 0.2 units."""
        if kind == kernels.LINEAR:
            return np.ones(unit.size)
        damping = 0.2 / np.maximum(step * row_size.max(axis=1), 0.2)
        if self.natural_gradient:
            moved = np.abs(bound.spread(payment_change)).max(axis=1) * step
            damping = np.minimum(damping, 0.2 * unit / np.maximum(moved, 0.2 * unit))
        return damping

    def _move(
        self,
        parameterization: Parameterization,
        followers: Followers,
        theta: FloatArray,
        rows: kernels.Rows,
        change: FloatArray,
        visited: NDArray[np.bool_],
        damping: FloatArray,
        step: float,
    ) -> FloatArray:
        """Theta after the step; rows that are not visited follow the follower's own gradient."""
        if self.geometry == "ambient":
            return parameterization.project(theta + step * change, followers)
        factor = np.where(visited, damping[:, None], 1.0)[:, :, None]
        moved = rows.points + step * factor * change
        drift = np.zeros(theta.shape)
        if self.natural_gradient:
            drift = np.where(visited[:, :, None], 0.0, step * rows.pull)
        if isinstance(parameterization, Direct):
            return parameterization.project(moved + drift, followers)
        logits = np.log(np.maximum(moved, 1e-300)) + drift
        return parameterization.from_logits(logits, followers.available)


class _Constraints(NamedTuple):
    """How q grows with the payments, and how much it must."""

    own: FloatArray  # (n, J, K) gradient of each piece of q_i in the payments
    active: NDArray[np.bool_]  # (n, J)
    target: FloatArray  # (n, J) phi


def _scatter(reach: NDArray[np.int64], values: FloatArray, size: int) -> FloatArray:
    """Sum per-follower entries (n, K) into the payments (k,)."""
    held = reach >= 0
    return np.bincount(reach[held], weights=values[held], minlength=size).astype(float)
