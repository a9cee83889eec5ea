"""ValuePenalty: ascent on the leader's objective less a growing penalty on the followers' gaps.

A baseline: one weight sigma on all gaps V_i* - V_i, raised again and again until no gap pays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive._checks import check_fields, checked
from fastincentive.errors import invalid
from fastincentive.followers.followers import PolicyValues, ResponseValues
from fastincentive.followers.parameterization import Direct, Parameterization
from fastincentive.methods._state import (
    SMALLEST_VISITS,
    AscentState,
    first_state,
    policy_values_steps,
)
from fastincentive.methods.base import Capabilities, Method, Observer, StepReport
from fastincentive.problem.bound_payments import BoundPayments
from fastincentive.problem.evaluation import Evaluation
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.queries import run_single
from fastincentive.problem.sampled_gradients import centred

__all__ = ["Slopes", "ValuePenalty", "slopes_at"]

#: A row changes by about this at most in one iteration: probabilities, or a softmax's logits.
LARGEST_CHANGE = 0.5
#: The relative weight grows no further: hardly a digit of the leader's gradient would be left.
LARGEST_WEIGHT = 1e12


@dataclass(frozen=True)
class ValuePenalty(Method):
    """Projected gradient ascent on V - w C - sum_i sigma_i (V_i* - V_i), in x and theta jointly.

    The value penalty of Shen, Yang and Chen (2024), "Principled penalty-based methods for bilevel
    reinforcement learning and RLHF", for any number of followers, with exact gradients and exact
    best responses, and with a weight that grows geometrically.

    Parameters
    ----------
    weight : float
        sigma of the first round, in relative units: sigma_i = sigma L / unit_i, where L bounds the
        leader's reward of one step and unit_i is follower i's unit of reward (the spread of its
        action values).
    growth : float
        Factor > 1 on sigma after each round.
    round_length : int
        Iterations of a round.
    step : float
        Step of the policies along the natural gradient (each state's gradient over its visits), in
        units of L.
    payment_step : float
        Step of the payments in units of reward; divided by 1 + sigma.
    tolerance : float
        Converged when, at the end of a round, no payment has moved by more since the end of the
        last one and no gap is larger, in units of reward.
    max_iter : int

    Notes
    -----
    Two safeguards make these settings serve all the package's models. A row of a policy changes by
    at most 0.5 in one iteration. And a gap moves payments no further than to where it closes, to
    first order (a Polyak step), so that they do not swing about a kink of V_i* when sigma is large.
    """

    weight: float = 1.0
    growth: float = 2.0
    round_length: int = 50
    step: float = 0.3
    payment_step: float = 0.1
    tolerance: float = 1e-5
    max_iter: int = 1500

    def __post_init__(self) -> None:
        """Check the settings."""
        check_fields(self)
        for name in ("weight", "step", "payment_step", "tolerance"):
            value = getattr(self, name)
            if not (value > 0 and np.isfinite(value)):
                raise invalid(name, "a finite number > 0", value)
        if not (self.growth > 1 and np.isfinite(self.growth)):
            raise invalid("growth", "a finite number > 1", self.growth)
        for name in ("round_length", "max_iter"):
            value = getattr(self, name)
            if not (isinstance(value, (int, np.integer)) and value >= 1):
                raise invalid(name, "a positive integer", repr(value))

    @property
    def capabilities(self) -> Capabilities:
        """One weight on all gaps: it runs where all followers are."""
        return Capabilities(uses_policies=True, keeps_state=True)

    @property
    def most_iterations(self) -> int:
        """``max_iter``."""
        return self.max_iter

    @checked
    def init(
        self,
        problem: ProblemPart,
        parameterization: Parameterization,
        payments: FloatArray,
        policies: FloatArray | None,
    ) -> AscentState:
        """Return the state at the first iterate; no cutting planes are kept."""
        if policies is None:
            raise invalid("policies", "those to start from, (n, S, A)", None)
        return first_state(problem, parameterization, payments, policies)

    @checked
    def step_from(
        self,
        problem: ProblemPart,
        parameterization: Parameterization,
        state: AscentState,
        observe: Observer | None = None,
    ) -> tuple[AscentState, StepReport]:
        """Evaluate the state, and move payments and policies along the penalised gradient."""
        followers, payments = problem.followers, problem.payments
        x, unit = state.payments, state.unit
        rewards = problem.rewards(x)
        state, policies, values = run_single(
            policy_values_steps(problem, parameterization, rewards, state), problem
        )
        best = followers.best_responses(rewards, state.actions, state.memory, checked=True)
        at = slopes_at(problem, x, policies, values, best)
        gaps = at.evaluation.follower_gaps
        size = problem.magnitude if problem.magnitude > 0.0 else 1.0
        sigma = self._sigma(state.iteration)
        weights = sigma * size / unit

        # Each row's gradient over its visits, up to a constant that no policy notices.
        visited = (values.visits > SMALLEST_VISITS)[:, :, None]
        visits = np.maximum(values.visits, SMALLEST_VISITS)[:, :, None]
        pull = (weights * followers.counts)[:, None, None] * at.advantage
        direction = pull + np.where(visited, at.policies / visits, 0.0)
        direction = self.step / size * centred(direction, followers.available)
        longest = np.abs(direction).max(axis=2, keepdims=True)
        direction *= LARGEST_CHANGE / np.maximum(longest, LARGEST_CHANGE)

        payment_unit = payments.most(unit)
        rate = self.payment_step / (1.0 + sigma)
        pull_rate = np.minimum(rate * sigma * unit * followers.counts, _closing(at.own, gaps))
        change = _average(payments, pull_rate[:, None] * at.own)
        change += rate * payment_unit**2 / size * at.payments
        next_payments = payments.project(x + change)

        anchor = state.controller.anchor
        moved = np.abs(x - anchor) / np.maximum(payment_unit, 1e-300)
        residual = float(moved.max(initial=0.0))
        ends = (state.iteration + 1) % self.round_length == 0
        closed = bool((gaps <= self.tolerance * unit).all())
        following = state._replace(
            iteration=state.iteration + 1,
            payments=next_payments,
            theta=_moved(problem, parameterization, policies, state.theta, direction),
            multipliers=weights[:, None],
            actions=best.actions,
            controller=state.controller._replace(anchor=x) if ends else state.controller,
        )
        report = StepReport(
            iteration=state.iteration,
            theta=state.theta,
            policies=policies,
            payments=x,
            evaluation=at.evaluation,
            multipliers=weights,
            residual=residual,
            converged=ends and closed and residual <= self.tolerance,
            exhausted=state.iteration >= self.max_iter,
            finite=bool(np.isfinite(next_payments).all() and np.isfinite(following.theta).all()),
        )
        return following, report

    def _sigma(self, iteration: int) -> float:
        """Weight at an iteration, in relative units."""
        rounds = iteration // self.round_length
        # Logarithms, for the power alone may be no finite number.
        most = np.log(max(self.weight, LARGEST_WEIGHT))
        return float(np.exp(min(np.log(self.weight) + rounds * np.log(self.growth), most)))


class Slopes(NamedTuple):
    """What the penalised objective f + sum_i sigma_i c_i q_i changes by, in parts; c are counts."""

    evaluation: Evaluation
    payments: FloatArray  # (k,) df/dx at fixed policies, -w dC/dx
    policies: FloatArray  # (n, S, A) df/dpi, every entry a free variable
    own: FloatArray  # (n, K) dq_i/dx of the payments that reach each follower, as ``reach``
    advantage: FloatArray  # (n, S, A) dq_i/dpi over the visits, up to a constant in each row


def slopes_at(
    problem: ProblemPart,
    payments: FloatArray,
    policies: FloatArray,
    values: PolicyValues,
    best: ResponseValues,
) -> Slopes:
    """Differentiate f and each q_i = V_i - V_i* in payments (k,) and policies (n, S, A).

    ``values`` and ``best`` are the policies' values and best responses under the payments. dV_i/dx
    is the unnormalised occupancy of follower i's policy, dV_i*/dx that of its best response (a
    subgradient where several are optimal).
    """
    followers = problem.followers
    leader = problem.leader_pass(policies)
    assert leader.gradient is not None  # for the type checker
    cost = problem.cost_pass(payments, policies)
    gradient = leader.gradient
    if cost.policies is not None:
        gradient = gradient - problem.cost_weight * cost.policies
    answer = followers.deterministic_policies(best.actions)
    answered = followers.evaluate(problem.rewards(payments), answer, checked=True)
    occupancies = values.visits[:, :, None] * policies - answered.visits[:, :, None] * answer
    own, top = (followers.start_values(each.values) for each in (values, best))
    return Slopes(
        evaluation=problem.assemble(leader, cost.value, own, top),
        payments=-problem.cost_weight * cost.payments,
        policies=gradient,
        own=problem.payments.compress(occupancies),
        advantage=np.where(followers.available, values.q_values - values.values[:, :, None], 0.0),
    )


def _closing(own: FloatArray, gaps: FloatArray) -> FloatArray:
    """How far (n,) payments go along dq_i/dx (n, K) until the gap (n,) is closed, to first order.

    0 where no payment changes the gap.
    """
    square = (own**2).sum(axis=1)
    return np.where(square > 0.0, np.maximum(gaps, 0.0) / np.where(square > 0.0, square, 1.0), 0.0)


def _average(payments: BoundPayments, changes: FloatArray) -> FloatArray:
    """Mean (k,) of the changes (n, K) by the followers that want a payment changed.

    Together they would move a shared payment beyond where any of them wants it.
    """
    wanted = (payments.reach >= 0) & (changes != 0.0)
    where = payments.reach[wanted]
    total = np.bincount(where, weights=changes[wanted], minlength=payments.size)
    return total / np.maximum(np.bincount(where, minlength=payments.size), 1)


def _moved(
    problem: ProblemPart,
    parameterization: Parameterization,
    policies: FloatArray,
    theta: FloatArray,
    direction: FloatArray,
) -> FloatArray:
    """Theta after policies (Direct) or logits (Softmax) have moved along ``direction``."""
    followers = problem.followers
    if isinstance(parameterization, Direct):
        return parameterization.project(policies + direction, followers)
    logits = theta / parameterization.temperature + direction
    return parameterization.from_logits(logits, followers.available)
