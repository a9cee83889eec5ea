"""A digest that tells problems apart."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from fastincentive.problem.costs import ExpectedSpend
from fastincentive.problem.part import ProblemPart

__all__ = ["fingerprint"]


def fingerprint(problem: ProblemPart) -> str:
    """Return a digest of all that a problem's values depend on: equal for equal problems.

    The leader's reward enters through its expectations at a few label marginals.
    """
    shape = (4, problem.n, problem.leader.n_labels)
    marginals = np.random.default_rng(0).dirichlet(np.ones(shape[2]), size=shape[:2])
    payments = problem.payments
    if isinstance(problem.cost, ExpectedSpend):
        spend = "expected spend"
        cost = [np.broadcast_to(problem.cost.prices, payments.size)]
    else:
        spend = ""
        cost = [
            np.asarray(function(np.linspace(low, 1.0, payments.size)), float)
            for low in (0.0, 1.0)
            for function in (problem.cost.gradient, problem.cost.value)
        ]
    side = problem.leader_side
    numbers = (side.discount, problem.cost_weight, spend, side.tail_tolerance, side.max_horizon)
    digest = sha256(repr(numbers).encode())
    for array in (
        *problem.followers.packed,
        problem.followers.rewards,
        problem.leader.labels,
        *problem.leader.expectations(marginals),
        payments.index,
        payments.lower,
        payments.stated_upper,
        np.array(np.inf if problem.budget is None else problem.budget),
        *cost,
        *([problem.followers.counts] if problem.has_types else []),
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
