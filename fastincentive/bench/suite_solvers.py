"""Solvers: time to the certified tolerance, and how many iterations that takes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from fastincentive.bench import cases
from fastincentive.bench.case import Case
from fastincentive.bench.timing import Contender, Trial
from fastincentive.certificates.optimum import global_optimum
from fastincentive.followers.parameterization import Direct, Softmax
from fastincentive.methods import RegimeAscent
from fastincentive.solver.loop import solve

__all__ = ["OPTIMUM", "solver_cases"]

#: Certified optimum of the paper's grid.
OPTIMUM = 7.746418484647
PARAMETERIZATIONS: dict[str, Direct | Softmax] = {"direct": Direct(), "softmax": Softmax(0.05)}


def solver_cases() -> list[Case]:
    """List the paper's runs, the search over regimes, and the certified optimum."""
    found = [
        Case(
            f"solve/paper/{start}/{name}",
            "smoke" if (start, name) == ("leader-optimal", "direct") else "regular",
            partial(_paper, start, name),
        )
        for start in ("best-response", "leader-optimal")
        for name in PARAMETERIZATIONS
    ]
    found.append(Case("regime-ascent/paper", "smoke", partial(_regimes, 2)))
    found += [
        Case(f"regime-ascent/fleet-{n}", profile, partial(_regimes, n))
        for n, profile in ((100, "regular"), (1000, "large"))
    ]
    found.append(Case("global-optimum/paper", "smoke", _optimum))
    return found


def _error(solution: Any) -> float:
    """Whatever the followers could still gain; infinite unless the run converged."""
    return max(0.0, -solution.feasibility) if solution.success else math.inf


def _facts(solution: Any) -> dict[str, Any]:
    return {"iterations": solution.nit, "objective": solution.objective}


def _paper(start: str, name: str) -> Trial:
    problem, parameterization = cases.build("paper"), PARAMETERIZATIONS[name]
    ours = Contender(
        "fastincentive",
        lambda: solve(problem, parameterization=parameterization, initial_policies=start),
    )
    return Trial([ours], _error, 1e-9, facts=_facts)


def _regimes(n: int) -> Trial:
    problem = cases.build("paper") if n == 2 else cases.fleet(n)
    method = RegimeAscent(starts=0)
    ours = Contender("fastincentive", lambda: solve(problem, method, initial_payments=0.0))
    return Trial([ours], _error, 1e-9, facts=_facts)


def _optimum() -> Trial:
    problem = cases.build("paper")

    def error(optimum: Any) -> float:
        return abs(optimum.objective - OPTIMUM) if optimum.complete else math.inf

    ours = Contender("fastincentive", lambda: global_optimum(problem))
    return Trial([ours], error, 1e-9, facts=lambda found: {"evaluated": found.evaluated})
