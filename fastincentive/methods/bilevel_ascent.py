"""Algorithm 1: the projected, lambda-weighted ascent on payments and policies together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive.errors import ImproperPolicyError, invalid
from fastincentive.followers import Followers, PolicyValues, ResponseValues
from fastincentive.kernels import ascent as kernels
from fastincentive.large import ResponseMemory
from fastincentive.mdp import FloatArray
from fastincentive.methods import references
from fastincentive.methods.pieces import (
    Pieces,
    add_pieces,
    empty_pieces,
)
from fastincentive.methods.schedule import Pace, judge, start_pace
from fastincentive.payments import BoundPayments
from fastincentive.policy import Direct, Parameterization, Softmax
from fastincentive.problem import Evaluation, IncentiveProblem
from fastincentive.response import uniform_policies

__all__ = ["AscentState", "BilevelAscent", "StepReport"]

#: States with fewer visits count as not visited: they follow the follower alone.
SMALLEST_VISITS = 1e-6


class AscentState(NamedTuple):
    """Everything the next iteration depends on."""

    iteration: int
    payments: FloatArray  # (k,)
    theta: FloatArray  # (n, S, A)
    multipliers: FloatArray  # (n, J)
    pieces: Pieces
    actions: NDArray[np.int64]  # (n, S) last best responses, the warm start of the next
    unit: FloatArray  # (n,) spread of each follower's action values: its unit of reward
    pace: Pace
    #: Of best responses, for many states; it changes answers by rounding alone, and is not saved.
    memory: ResponseMemory | None = None


class StepReport(NamedTuple):
    """One iteration, evaluated at the state it started from."""

    theta: FloatArray
    policies: FloatArray
    evaluation: Evaluation
    multipliers: FloatArray  # (n,)
    residual: float  # largest change that the direction would make, per unit step and visit
    converged: bool
    stalled: bool


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
        problem: IncentiveProblem,
        parameterization: Parameterization,
        payments: FloatArray,
        policies: FloatArray,
    ) -> AscentState:
        """Return the state at the first iterate."""
        if self.multiplier == "joint":
            problem.refuse_types("a joint multiplier")
        followers = problem.followers
        best = followers.best_responses(problem.rewards(payments))
        reachable = np.where(followers.available, best.q_values, np.nan)
        spread = np.nanmax(reachable, axis=2) - np.nanmin(reachable, axis=2)
        widest = spread.max(axis=1)
        size = np.abs(best.values).max(axis=1)
        # A follower without a choice that matters has no spread: the size of its values will do.
        unit = np.where(widest > 1e-9 * (1.0 + size), widest, np.where(size > 0.0, size, 1.0))
        count = self.pieces if self._bundled else 1
        return AscentState(
            iteration=0,
            payments=payments.copy(),
            theta=parameterization.parameters(policies, followers),
            multipliers=np.zeros((followers.n, count)),
            pieces=empty_pieces(followers.n, count, problem.payments.reach.shape[1]),
            actions=best.actions,
            unit=unit,
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
        self, problem: IncentiveProblem, parameterization: Parameterization, state: AscentState
    ) -> tuple[AscentState, StepReport]:
        """Evaluate the state, and move."""
        followers, bound, x = problem.followers, problem.payments, state.payments
        rewards = problem.rewards(x)
        policies = parameterization.policies(state.theta, followers)
        try:
            held = followers.evaluate(rewards, policies)
        except ImproperPolicyError:
            # A step at discount 1 ended in a loop that is never left: a little of every action
            # leads out again.
            policies = 0.99 * policies + 0.01 * uniform_policies(followers)
            state = state._replace(theta=parameterization.parameters(policies, followers))
            held = followers.evaluate(rewards, policies)
        best = followers.best_responses(rewards, state.actions, state.memory)
        reference = self._reference(problem, parameterization, rewards, policies, best, state.unit)
        try:
            answered = followers.evaluate(rewards, reference)
        except ImproperPolicyError:
            reference = np.eye(followers.n_actions)[best.actions]
            answered = followers.evaluate(rewards, reference)
        leader = problem.leader_pass(policies)
        assert leader.gradient is not None  # for the type checker
        values = followers.start_values(held.values)
        top = best if self.response == "greedy" else answered
        best_values = followers.start_values(top.values)
        cost = problem.cost_pass(x, policies)
        evaluation = problem.assemble(leader, cost.value, values, best_values)
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
        own[np.abs(own) <= 1e-11 * (1.0 + np.abs(slope).max())] = 0.0

        step, payment_step = self._steps(state)
        unit = state.unit if self.natural_gradient else np.ones(followers.n)
        payment_unit = bound.most(unit)
        purse = kernels.Purse(
            bound.reach, payment_step / step * payment_unit, x, bound.lower, bound.upper
        )
        kind, rows = self._rows(parameterization, followers, policies, held, ahead, state.unit)
        target = self._targets(problem, kind, step, rows, own, slack, purse)
        # A gap may open at this rate: without it, rounding alone would call for a multiplier.
        target -= 1e-11 * unit[:, None]
        row_change = np.empty(followers.shape)
        payment_change = np.empty(bound.size)
        total = -problem.cost_weight * cost.payments
        if self.multiplier == "joint":
            own_sum = _scatter(bound.reach, own[:, 0], bound.size)
            joint = kernels.joint_direction(
                followers.packed,
                kind,
                step,
                rows,
                total,
                own_sum,
                np.arange(bound.size),
                purse,
                float(target[:, 0].sum()),
                row_change,
            )
            multipliers[:] = joint
            total += joint * own_sum
        else:
            kernels.separate_directions(
                followers.packed,
                kind,
                step,
                bound.shared,
                rows,
                total,
                own,
                pieces.active,
                purse,
                target,
                multipliers,
                row_change,
            )
        kernels.move_payments(kind, step, total, purse, payment_change)
        if bound.budget is not None and kind != kernels.LINEAR:
            payment_change = (bound.project(x + step * payment_change) - x) / step

        # How far the direction goes per unit step, in units of reward; rows count by their visits,
        # as in the norm of the gradient.
        visited = held.visits > SMALLEST_VISITS
        row_size = np.abs(row_change).max(axis=2, where=visited[:, :, None], initial=0.0)
        paid = np.abs(payment_change) / np.maximum(purse.pace, 1e-300)
        residual = float(max((row_size * np.minimum(held.visits, 1.0)).max(), paid.max()))
        gaps = evaluation.follower_gaps
        converged = residual <= self.tolerance and bool((gaps <= self.tolerance * state.unit).all())

        damping = self._damping(bound, kind, step, row_size, payment_change, unit)
        payment_damping = bound.least(damping)
        pace, stalled = judge(
            state.pace,
            state.iteration,
            residual + float((np.abs(gaps) / state.unit).max()),
            x,
            policies,
            np.maximum(payment_unit, 1e-300),
            visited,
            float((gaps / state.unit).max()),
        )
        following = AscentState(
            iteration=state.iteration + 1,
            payments=bound.project(x + step * payment_damping * payment_change),
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
        summed = multipliers[:, 0] if self.multiplier == "joint" else multipliers.sum(axis=1)
        report = StepReport(state.theta, policies, evaluation, summed, residual, converged, stalled)
        return following, report

    def _reference(
        self,
        problem: IncentiveProblem,
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
        problem: IncentiveProblem,
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
        if bound.shared or self.multiplier == "joint":
            damping[:] = damping.min()
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


def _scatter(reach: NDArray[np.int64], values: FloatArray, size: int) -> FloatArray:
    """Sum per-follower entries (n, K) into the payments (k,)."""
    held = reach >= 0
    return np.bincount(reach[held], weights=values[held], minlength=size).astype(float)
