"""What the leader really gets: payments to post, exact best responses, ties broken both ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive.kernels import bellman
from fastincentive.problem.evaluation import Evaluation
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.cheapest import supporting_payments
from fastincentive.responses.ties import break_ties

__all__ = ["Recovered", "recover"]


@dataclass(frozen=True)
class Recovered:
    """Payments as posted and exact best responses, ties broken for and against the leader."""

    payments: FloatArray
    policies: FloatArray
    evaluation: Evaluation
    pessimistic_policies: FloatArray
    pessimistic: Evaluation


def recover(
    problem: IncentiveProblem, payments: FloatArray, policies: FloatArray, polish: bool = True
) -> Recovered:
    """Recover a feasible point near (payments, policies).

    Followers answer the payments exactly. Near a kink an iterate that is short of it by rounding
    would lose the response it was built for, so with ``polish`` the cheapest payments that make
    the (rounded) policies exact best responses are tried as well; the best objective is kept.
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
    found = []
    for posted, start in candidates:
        answer = break_ties(problem, posted, 1.0, start)
        value = problem.leader_pass(answer, gradient=False).value
        cost = problem.cost_pass(posted, answer, gradient=False).value
        value = problem.net_objective(value, cost)
        found.append((value, -float(np.abs(posted - payments).sum()), posted, answer))
    # The best objective; of equal ones the nearest to the iterate.
    top = max(value for value, *_ in found)
    least = top - 1e-9 * max(1.0, abs(top)) if np.isfinite(top) else top
    equal = [each for each in found if each[0] >= least]
    _, _, posted, answer = max(equal, key=lambda each: each[1])
    worst = break_ties(problem, posted, -1.0, answer)
    return Recovered(
        payments=posted,
        policies=answer,
        evaluation=problem.evaluate(posted, answer),
        pessimistic_policies=worst,
        pessimistic=problem.evaluate(posted, worst),
    )
