"""Algorithm 1: the projected, lambda-weighted ascent on payments and policies together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive.errors import invalid
from fastincentive.followers import PolicyValues, ResponseValues
from fastincentive.kernels import ascent as kernels
from fastincentive.kernels import bellman
from fastincentive.mdp import FloatArray
from fastincentive.methods.pieces import (
    Pieces,
    add_pieces,
    compress,
    empty_pieces,
    spread_payments,
)
from fastincentive.policy import Direct, Parameterization, Softmax
from fastincentive.problem import Evaluation, IncentiveProblem
from fastincentive.response import soft_responses

__all__ = ["AscentState", "BilevelAscent", "StepReport"]

#: Softmax parameters stay within this many temperatures of the row's largest.
LOGIT_RANGE = 30.0
#: Progress is judged over this many iterations.
WINDOW = 100
#: Smallest factor to which the adaptive schedule shrinks the steps.
SMALLEST_SHRINK = 2.0**-12


class AscentState(NamedTuple):
    """Everything the next iteration depends on."""

    iteration: int
    payments: FloatArray  # (k,)
    theta: FloatArray  # (n, S, A)
    multipliers: FloatArray  # (n, J)
    pieces: Pieces
    actions: NDArray[np.int64]  # (n, S) last best responses, the warm start of the next
    scale: FloatArray  # (n,) spread of each follower's action values, its unit of reward
    shrink: float  # factor on both steps
    merit: float  # smallest residual in the windows of iterations before this one
    window_merit: float  # and in this one
    anchor: FloatArray  # (k,) payments at the start of this window
    path: float  # length of the payments' path since then


class StepReport(NamedTuple):
    """One iteration, evaluated at the state it started from."""

    policies: FloatArray
    evaluation: Evaluation
    multipliers: FloatArray  # (n,)
    residual: float  # largest change per unit step that the direction would make
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
        "sqrt" divides the steps by sqrt(1 + k / 100); "adaptive" halves them when 100 iterations
        neither reduced the residual nor moved the payments.
    natural_gradient : bool
        Scale each state's gradient by 1 / (visits x unit of reward).
    eta : float
        Rate at which the gaps close; step * eta < 1.
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
        followers = problem.followers
        best = followers.best_responses(problem.rewards(payments))
        reachable = np.where(followers.available, best.q_values, np.nan)
        spread = np.nanmax(reachable, axis=2) - np.nanmin(reachable, axis=2)
        scale = np.maximum(spread.max(axis=1), 1e-9 * (1.0 + np.abs(best.values).max(axis=1)))
        count = self.pieces if self._bundled else 1
        return AscentState(
            iteration=0,
            payments=payments.copy(),
            theta=parameterization.parameters(policies, followers),
            multipliers=np.zeros((followers.n, count)),
            pieces=empty_pieces(followers.n, count, problem.payments.reach.shape[1]),
            actions=best.actions,
            scale=scale,
            shrink=1.0,
            merit=np.inf,
            window_merit=np.inf,
            anchor=payments.copy(),
            path=0.0,
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
        followers, bound = problem.followers, problem.payments
        x = state.payments
        policies = parameterization.policies(state.theta, followers)
        rewards = problem.rewards(x)
        held = followers.evaluate(rewards, policies)
        best = followers.best_responses(rewards, state.actions)
        reference, reference_values = self._respond(
            problem, parameterization, rewards, policies, best, state.scale
        )
        leader = problem.leader_pass(policies)
        assert leader.gradient is not None  # for the type checker
        values = followers.start_values(held.values)
        best_values = followers.start_values(reference_values.values)
        evaluation = problem.assemble(x, leader, values, best_values)

        slope = compress(bound, held.visits[:, :, None] * policies)
        reference_slope = compress(bound, reference_values.visits[:, :, None] * reference)
        spread = spread_payments(bound, x)
        pieces = Pieces(*[array.copy() for array in state.pieces])
        constant = best_values - np.einsum("ik,ik->i", reference_slope, spread)
        fresh = add_pieces(pieces, constant, reference_slope, state.iteration)
        multipliers = np.where(fresh, 0.0, state.multipliers)
        slack = values[:, None] - pieces.constant - np.einsum("ijk,ik->ij", pieces.slope, spread)
        own = slope[:, None, :] - pieces.slope
        own[np.abs(own) <= 1e-11 * (1.0 + np.abs(slope).max())] = 0.0

        step, payment_step = self._steps(state)
        kind, ahead, pull, slopes, points = self._rows(
            parameterization, followers.available, policies, held, leader.gradient, state.scale
        )
        unit = state.scale if self.natural_gradient else np.ones(followers.n)
        reached = np.where(bound.reaches, unit[:, None], 0.0).max(axis=0)
        pace = payment_step / step * reached
        row_change = np.empty(followers.shape)
        payment_change = np.empty(bound.size)
        cost_slope = -problem.cost_weight * problem.cost.gradient(x)
        target = self._targets(problem, kind, step, pull, slopes, points, own, slack, pace, x)
        target[np.abs(target) <= 1e-13 * self.eta * unit[:, None]] = 0.0
        if self.multiplier == "joint":
            joint = kernels.joint_direction(
                followers.packed,
                kind,
                step,
                ahead,
                pull,
                slopes,
                points,
                np.arange(bound.size),
                cost_slope,
                _scatter(bound.reach, own[:, 0], bound.size),
                pace,
                x,
                bound.lower,
                bound.upper,
                float(target[:, 0].sum()),
                row_change,
                payment_change,
            )
            multipliers[:] = joint
        else:
            kernels.separate_directions(
                followers.packed,
                kind,
                step,
                bound.shared,
                ahead,
                pull,
                slopes,
                points,
                bound.reach,
                cost_slope,
                own,
                pieces.active,
                pace,
                x,
                bound.lower,
                bound.upper,
                target,
                multipliers,
                row_change,
                payment_change,
            )
        summed = multipliers[:, 0] if self.multiplier == "joint" else multipliers.sum(axis=1)

        # How far the direction goes, per unit step and in units of reward; unvisited rows are
        # left out, they change nothing.
        visited = held.visits > 1e-9
        row_size = np.abs(row_change).max(axis=2, where=visited[:, :, None], initial=0.0)
        change = step * row_size.max(axis=1)
        residual = float(
            max((change / step).max(), np.max(np.abs(payment_change) / np.maximum(pace, 1e-300)))
        )
        gaps = evaluation.follower_gaps
        converged = bool(
            residual <= self.tolerance * (1.0 + problem.cost_weight)
            and (gaps <= self.tolerance * state.scale).all()
        )

        # A step changes a visited row by at most 0.2, a payment by at most 0.2 units of reward.
        damping = np.minimum(1.0, 0.2 / np.maximum(change, 1e-300))
        if self.natural_gradient:
            moved = np.abs(spread_payments(bound, payment_change)).max(axis=1) * step
            damping = np.minimum(damping, 0.2 * unit / np.maximum(moved, 1e-300))
        if bound.shared or self.multiplier == "joint":
            damping[:] = damping.min()
        if kind == kernels.LINEAR:
            damping[:] = 1.0
        payment_damping = np.where(bound.reaches, damping[:, None], np.inf).min(axis=0)
        new_payments = bound.project(x + step * payment_damping * payment_change)
        new_theta = self._move(
            parameterization,
            problem,
            state.theta,
            policies,
            row_change,
            pull,
            visited,
            damping,
            step,
        )
        merit = residual + float((np.abs(gaps) / state.scale).max())
        shrink, window, stalled = self._adapt(state, merit, new_payments)
        report = StepReport(policies, evaluation, summed, residual, converged, stalled)
        following = AscentState(
            iteration=state.iteration + 1,
            payments=new_payments,
            theta=new_theta,
            multipliers=multipliers,
            pieces=pieces,
            actions=best.actions,
            scale=state.scale,
            shrink=shrink,
            merit=window[0],
            window_merit=window[1],
            anchor=window[2],
            path=window[3],
        )
        return following, report

    def _respond(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        rewards: FloatArray,
        policies: FloatArray,
        best: ResponseValues,
        scale: FloatArray,
    ) -> tuple[FloatArray, PolicyValues]:
        """Return the reference policies whose values stand for V_i*, and their evaluation."""
        followers = problem.followers
        reference = np.empty(followers.shape)
        if self.response == "greedy":
            # The best response nearest to the current policy: any optimal policy gives a
            # subgradient of V_i*, and this one is zero where the follower is indifferent.
            bellman.near_greedy_policies(
                best.q_values, best.values, 1e-11 * scale, policies, reference
            )
        elif self.response == "boltzmann":
            bellman.boltzmann_policies(
                followers.packed, best.q_values, self._tau(parameterization), reference
            )
        elif self.response == "soft":
            reference = soft_responses(
                followers, rewards, self._tau(parameterization), np.maximum(policies, 0.0)
            )[0]
        else:
            reference = self._inner(problem, parameterization, rewards, policies, scale)
        return reference, followers.evaluate(rewards, reference)

    def _tau(self, parameterization: Parameterization) -> float:
        if self.temperature is not None:
            return self.temperature
        return parameterization.temperature if isinstance(parameterization, Softmax) else 0.05

    def _inner(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        rewards: FloatArray,
        policies: FloatArray,
        scale: FloatArray,
    ) -> FloatArray:
        """``inner_steps`` ascent steps on the followers' own values from the current policy."""
        followers = problem.followers
        theta = parameterization.parameters(policies, followers)
        none = np.zeros(followers.shape)
        change = np.empty(followers.shape)
        for _ in range(self.inner_steps):
            current = parameterization.policies(theta, followers)
            held = followers.evaluate(rewards, current)
            kind, _, pull, _, points = self._rows(
                parameterization, followers.available, current, held, none, scale
            )
            kernels.rows_along(followers.packed, kind, self.step, pull, points, change)
            theta = self._move(
                parameterization,
                problem,
                theta,
                current,
                change,
                pull,
                np.ones(held.visits.shape, bool),
                np.ones(followers.n),
                self.step,
            )
        return parameterization.policies(theta, followers)

    def _steps(self, state: AscentState) -> tuple[float, float]:
        factor = state.shrink if self.schedule == "adaptive" else 1.0
        if self.schedule == "sqrt":
            factor = 1.0 / np.sqrt(1.0 + state.iteration / 100.0)
        return self.step * factor, self.payment_step * factor

    def _rows(
        self,
        parameterization: Parameterization,
        available: NDArray[np.bool_],
        policies: FloatArray,
        held: PolicyValues,
        leader_gradient: FloatArray,
        scale: FloatArray,
    ) -> tuple[int, FloatArray, FloatArray, FloatArray, FloatArray]:
        """How rows move: kind, D grad f, D grad q, grad q (for the pairing), and the policies."""
        visits = held.visits[:, :, None]
        advantage = np.where(available, held.q_values - held.values[:, :, None], 0.0)
        direct = isinstance(parameterization, Direct)
        if self.natural_gradient:
            unit = scale[:, None, None]
            ahead = leader_gradient / (np.maximum(visits, 1e-6) * unit)
            pull = advantage / unit
            kind = kernels.DIRECT if direct else kernels.SOFTMAX
            return kind, ahead, pull, visits * advantage, policies
        if direct:
            slopes = visits * np.where(available, held.q_values, 0.0)
            kind = kernels.LINEAR if self.geometry == "ambient" else kernels.DIRECT
            return kind, leader_gradient, slopes, slopes, policies
        assert isinstance(parameterization, Softmax)  # for the type checker
        ahead = parameterization.gradient(leader_gradient, policies)
        slopes = parameterization.gradient(visits * advantage, policies)
        if self.geometry == "ambient":
            return kernels.LINEAR, ahead, slopes, slopes, policies
        tau = parameterization.temperature
        return kernels.SOFTMAX, ahead / tau, slopes / tau, visits * advantage, policies

    def _targets(
        self,
        problem: IncentiveProblem,
        kind: int,
        step: float,
        pull: FloatArray,
        slopes: FloatArray,
        points: FloatArray,
        own: FloatArray,
        slack: FloatArray,
        pace: FloatArray,
        x: FloatArray,
    ) -> FloatArray:
        """Phi (n, J): how fast each q_ij must grow."""
        if self.barrier == "gap":
            return -self.eta * slack
        bound = problem.payments
        norms = np.empty(slack.shape)
        kernels.constraint_norms(
            problem.followers.packed,
            kind,
            step,
            pull,
            slopes,
            points,
            bound.reach,
            own,
            pace,
            x,
            bound.lower,
            bound.upper,
            norms,
        )
        return self.eta * norms

    def _move(
        self,
        parameterization: Parameterization,
        problem: IncentiveProblem,
        theta: FloatArray,
        policies: FloatArray,
        change: FloatArray,
        pull: FloatArray,
        visited: NDArray[np.bool_],
        damping: FloatArray,
        step: float,
    ) -> FloatArray:
        """Theta after the step; rows that are not visited follow the follower's own gradient."""
        if not self.natural_gradient and self.geometry == "ambient":
            return parameterization.project(theta + step * change, problem.followers)
        factor = np.where(visited, damping[:, None], 1.0)[:, :, None]
        moved = policies + step * factor * change
        drift = np.where(visited[:, :, None] | (not self.natural_gradient), 0.0, step * pull)
        if isinstance(parameterization, Direct):
            return parameterization.project(moved + drift, problem.followers)
        available = problem.followers.available
        logits = np.where(available, np.log(np.maximum(moved, 1e-300)) + drift, -np.inf)
        logits -= logits.max(axis=2, keepdims=True)
        return parameterization.temperature * np.where(
            available, np.maximum(logits, -LOGIT_RANGE), 0.0
        )

    def _adapt(
        self, state: AscentState, merit: float, payments: FloatArray
    ) -> tuple[float, tuple[float, float, FloatArray, float], bool]:
        """Shrink the steps when a window of iterations neither settled nor got anywhere.

        Returns the factor on the steps, the next window, and whether the run has stalled.
        """
        best = min(state.window_merit, merit)
        path = state.path + float(np.abs(payments - state.payments).sum())
        if (state.iteration + 1) % WINDOW:
            return state.shrink, (state.merit, best, state.anchor, path), False
        shrink, stalled = state.shrink, False
        travelled = float(np.abs(payments - state.anchor).sum())
        if best > 0.7 * state.merit and travelled <= 0.3 * path:
            stalled = shrink <= SMALLEST_SHRINK or self.schedule != "adaptive"
            shrink = max(0.5 * shrink, SMALLEST_SHRINK)
        return shrink, (min(best, state.merit), np.inf, payments, 0.0), stalled


def _scatter(reach: NDArray[np.int64], values: FloatArray, size: int) -> FloatArray:
    """Sum per-follower entries (n, K) into the payments (k,)."""
    held = reach >= 0
    return np.bincount(reach[held], weights=values[held], minlength=size)
