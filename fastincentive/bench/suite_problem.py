"""Kernels that belong to a whole problem: one iteration, projections, joint occupancy, threads."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fastincentive._arrays import FloatArray
from fastincentive.bench import cases
from fastincentive.bench.case import Case
from fastincentive.bench.certificates import bellman_residual, policy_matrix
from fastincentive.bench.timing import Contender, Trial
from fastincentive.followers.parameterization import Direct
from fastincentive.methods import BilevelAscent

__all__ = ["problem_cases", "state_of"]


def problem_cases() -> list[Case]:
    """One iteration of the ascent, projections, joint occupancy, and many followers in threads."""
    found = [
        Case(f"iteration/{name}", "smoke", partial(_iteration, name)) for name in cases.CHECKSUMS
    ]
    found += [
        Case(f"project/{rows}x4", profile, partial(_projection, rows))
        for rows, profile in ((74, "smoke"), (100_000, "regular"))
    ]
    found.append(Case("joint-occupancy/2x37/0.95", "smoke", _joint_occupancy))
    found += [
        Case(f"threads/{n}x{size * size + 1}", profile, partial(_threads, n, size))
        for n, size, profile in ((8, 30, "smoke"), (8, 100, "regular"))
    ]
    return found


def state_of(name: str, iterations: int = 10) -> tuple[Any, BilevelAscent, Any]:
    """Build a problem, a method, and the method's state some way into a run."""
    problem, method = cases.build(name), BilevelAscent()
    x = np.full(problem.payments.size, 2.0)
    state = method.init(problem, Direct(), x, cases.answers(problem))
    for _ in range(iterations):
        state, _ = method.step_from(problem, Direct(), state)
    return problem, method, state


def _off_the_simplex(policies: FloatArray) -> float:
    return float(max(np.abs(policies.sum(axis=-1) - 1.0).max(), -policies.min()))


def _iteration(name: str) -> Trial:
    """Certified only as far as that the next point is a feasible one; tests compare it whole."""
    problem, method, state = state_of(name)

    def error(answer: Any) -> float:
        following = answer[0]
        below = float(max(0.0, -following.payments.min()))
        return max(_off_the_simplex(following.theta), below)

    ours = Contender("fastincentive", lambda: method.step_from(problem, Direct(), state))
    return Trial([ours], error, 1e-9)


def _projection(rows: int) -> Trial:
    """Rows on the simplex, certified by the optimality conditions."""
    from fastincentive.kernels.simplex import project_rows

    given = np.random.default_rng(rows).normal(size=(1, rows, 4))
    available, model = np.ones((1, rows, 4), bool), np.zeros(1, np.int64)
    out = np.empty_like(given)

    def run() -> FloatArray:
        project_rows(given, available, model, out)
        return out

    def error(answer: FloatArray) -> float:
        # y - x is the same wherever x > 0, and no larger elsewhere.
        gap = given - answer
        level = np.where(answer > 0, gap, -np.inf).max(axis=2, keepdims=True)
        uneven = np.where(answer > 0, level - gap, np.maximum(gap - level, 0.0))
        return max(_off_the_simplex(answer), float(uneven.max()))

    return Trial([Contender("fastincentive", run)], error, 1e-12)


def _joint_occupancy() -> Trial:
    """Both routes, certified by the Stein equation."""
    case = cases.leader_case(2, 6, 0.95)
    problem = case.problem
    first, second = (
        policy_matrix(mdp, policy)
        for mdp, policy in zip(problem.followers, case.policies, strict=True)
    )
    starts = problem.followers.packed.initial

    def error(table: FloatArray) -> float:
        carried = second.T @ (first.T @ table).T
        residual = np.outer(starts[0], starts[1]) + 0.95 * carried.T - table
        return float(np.abs(residual).max())

    ways = [
        Contender(method, partial(problem.joint_occupancy, case.policies, method=method))
        for method in ("sum", "stein")
    ]
    return Trial(ways, error, 1e-10)


def _threads(n: int, size: int) -> Trial:
    """Best responses of followers that share a model, on all threads and on one."""
    import numba

    followers = cases.stacked(n, size).followers
    most = numba.get_num_threads()

    def run(threads: int) -> Any:
        numba.set_num_threads(threads)
        try:
            return followers.best_responses(followers.rewards)
        finally:
            numba.set_num_threads(most)

    def error(answer: Any) -> float:
        return max(
            bellman_residual(mdp, values, actions)
            for mdp, values, actions in zip(followers, answer.values, answer.actions, strict=True)
        )

    ways = [
        Contender(f"{threads} thread{'s' if threads > 1 else ''}", partial(run, threads))
        for threads in dict.fromkeys((most, 1))
    ]
    return Trial(ways, error, 1e-10)
