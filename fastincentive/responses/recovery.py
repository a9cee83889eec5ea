"""What the leader really gets: payments to post, exact best responses, ties broken both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive.kernels import bellman
from fastincentive.problem.evaluation import Evaluation
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.cheapest import supporting_payments
from fastincentive.responses.ties import break_ties

__all__ = ["Recovered", "recover"]

#: Points between no payments and those that are beyond the budget.
HALVINGS = 12


@dataclass(frozen=True)
class Recovered:
    """Payments as posted and exact best responses, ties broken for and against the leader."""

    payments: FloatArray
    policies: FloatArray
    evaluation: Evaluation
    pessimistic_policies: FloatArray
    pessimistic: Evaluation


class _Answered(NamedTuple):
    """Best responses to payments, ties broken for the leader."""

    objective: float  # -inf beyond the budget
    payments: FloatArray  # (k,)
    policies: FloatArray  # (n, S, A)


def _answered(
    problem: IncentiveProblem, payments: FloatArray, start: FloatArray | None = None
) -> _Answered:
    answer = break_ties(problem, payments, 1.0, start)
    value = problem.leader_pass(answer, gradient=False).value
    cost = problem.cost_pass(payments, answer, gradient=False).value
    return _Answered(problem.net_objective(value, cost), payments, answer)


def _towards_budget(problem: IncentiveProblem, beyond: _Answered) -> list[_Answered]:
    """Go back towards no payments, until what followers do keeps the budget."""
    if beyond.objective > -np.inf:
        return []
    lower, within = problem.payments.lower, []
    least, most = 0.0, 1.0
    for _ in range(HALVINGS):
        share = 0.5 * (least + most)
        trial = _answered(problem, lower + share * (beyond.payments - lower))
        if trial.objective > -np.inf:
            least = share
            within.append(trial)
        else:
            most = share
    return within


def recover(
    problem: IncentiveProblem, payments: FloatArray, policies: FloatArray, polish: bool = True
) -> Recovered:
    """Recover a feasible point near (payments, policies).

    Followers answer the payments exactly. Near a kink an iterate that is short of it by rounding
    would lose the response it was built for, so with ``polish`` the cheapest payments that make
    the (rounded) policies exact best responses are tried as well, and so are no payments at all,
    and smaller ones where followers would be paid more than the budget; the best objective is kept.
    """
    followers = problem.followers
    best = followers.best_responses(problem.rewards(payments))
    unit = followers.units(best)
    candidates: list[tuple[FloatArray, FloatArray | None]] = [(payments, None)]
    if polish:
        seen: list[FloatArray] = []
        for slack in (1e-9, 1e-6, 1e-4, 1e-2):
            near = np.empty(followers.shape)
            bellman.near_greedy_policies(best.q_values, best.values, slack * unit, policies, near)
            rounded = followers.deterministic_policies(np.argmax(near, axis=2))
            for target in (rounded, near):
                if any(np.array_equal(target, other) for other in seen):
                    continue
                seen.append(target)
                if not followers.is_proper(target, problem.moving):
                    continue
                posted, supported = supporting_payments(problem, target, payments)
                # At the same payments all tied responses are compared anyway.
                new = not any(np.array_equal(posted, other) for other, _ in candidates)
                if supported.any() and new:
                    answer = np.where(supported[:, None, None], target, near)
                    candidates.append((posted, answer))
        if not np.array_equal(payments, problem.payments.lower):
            candidates.append((problem.payments.lower, None))
    found = [_answered(problem, posted, start) for posted, start in candidates]
    if polish and problem.budget is not None:
        found += _towards_budget(problem, found[0])
    # The best objective; of equal ones the nearest to the iterate.
    top = max(each.objective for each in found)
    least = top - 1e-9 * max(1.0, abs(top)) if np.isfinite(top) else top
    equal = [each for each in found if each.objective >= least]
    _, posted, answer = min(equal, key=lambda each: float(np.abs(each.payments - payments).sum()))
    worst = break_ties(problem, posted, -1.0, answer)
    return Recovered(
        payments=posted,
        policies=answer,
        evaluation=problem.evaluate(posted, answer, unbounded=True),
        pessimistic_policies=worst,
        pessimistic=problem.evaluate(posted, worst, unbounded=True),
    )
