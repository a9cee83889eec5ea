"""Methods: what each of them finds on models of the package, from one start, and how soon.

Nothing is searched on after a method (``refine=False``). Its last payments are moved to the
cheapest that support the response they were built for, as ``solve`` does by default, and the
objective is that of exact best responses to them. That is much for some methods, so a second
objective, "as it ended", leaves this move out.
"""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any

from fastincentive.bench import cases
from fastincentive.bench.case import Case
from fastincentive.bench.timing import Contender, Trial
from fastincentive.errors import ConvergenceWarning
from fastincentive.followers.parameterization import Softmax
from fastincentive.methods import (
    BilevelAscent,
    HyperGradient,
    RegimeAscent,
    ValuePenalty,
    ZerothOrder,
)
from fastincentive.methods.zeroth_order import exact_objective
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.problem.sampled_gradients import Reinforce
from fastincentive.solution import Solution
from fastincentive.solver.loop import solve

__all__ = ["METHODS", "SUITE", "gain_shares", "method_cases", "method_rows"]

#: The suite's name.
SUITE = "methods"
#: What is compared: a name, and what ``solve`` is given besides the problem.
METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("BilevelAscent, direct", {"method": BilevelAscent()}),
    ("BilevelAscent, softmax", {"method": BilevelAscent(), "parameterization": Softmax(0.05)}),
    (
        "BilevelAscent, REINFORCE",
        {"method": BilevelAscent(gradient=Reinforce(500, exploration=0.02), max_iter=200)},
    ),
    ("HyperGradient, soft", {"method": HyperGradient("soft", 0.1)}),
    ("RegimeAscent", {"method": RegimeAscent()}),
    ("ValuePenalty, direct", {"method": ValuePenalty()}),
    ("ValuePenalty, softmax", {"method": ValuePenalty(), "parameterization": Softmax(0.05)}),
    ("ZerothOrder", {"method": ZerothOrder()}),
)
#: Objective at the last payments as the method left them.
AS_ENDED = "as it ended"
FACTS = ("objective", AS_ENDED)
#: A best objective this little above that of no payments is no gain to have a share of.
NO_GAIN = 1e-9


def method_cases() -> list[Case]:
    """One case per model, the quick ones first."""
    return [Case(name, profile, partial(_model, name)) for name, profile in cases.MODELS.items()]


def _model(name: str) -> Trial:
    problem = cases.model(name)
    contenders = [Contender(each, partial(_solve, problem, settings)) for each, settings in METHODS]
    unpaid = exact_objective(problem, problem.payments.lower)
    return Trial(contenders, partial(_error, problem), 1e-8, facts=partial(_facts, problem, unpaid))


def _solve(problem: IncentiveProblem, settings: dict[str, Any]) -> Solution:
    with warnings.catch_warnings():
        # That a run did not converge is in the table.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return solve(problem, refine=False, **settings)


def _error(problem: IncentiveProblem, solution: Solution) -> float:
    """Return what followers could still gain, or how far the objective is off, if that is more."""
    at = problem.evaluate(solution.payments, solution.policies)
    return max(float(at.follower_gaps.max()), abs(at.objective - solution.objective))


def _facts(problem: IncentiveProblem, unpaid: float, solution: Solution) -> dict[str, Any]:
    ascent = solution.ascent
    return {
        "objective": solution.objective,
        "unpaid": unpaid,
        AS_ENDED: solution.objective
        if ascent is None
        else exact_objective(problem, ascent.payments),
        "largest gap": None if ascent is None else float(ascent.follower_gaps.max()),
        "iterations": solution.nit,
        "evaluations": solution.evaluations,
        "converged": solution.success,
    }


def gain_shares(
    records: list[dict[str, Any]], fact: str = "objective"
) -> dict[str, dict[str, float | None]]:
    """Share of each method in the best gain over no payments at all, by model and method.

    None where no method gains anything; negative where a method loses. The best gain is that of
    the objectives, whichever ``fact`` is asked for.
    """
    found: dict[str, dict[str, float | None]] = {}
    for each in records:
        told = {c["name"]: c["facts"] for c in each["contenders"] if c.get("facts")}
        if each["suite"] != SUITE or not told:
            continue
        best = max(facts["objective"] - facts["unpaid"] for facts in told.values())
        found[each["case"]] = {
            name: (facts[fact] - facts["unpaid"]) / best if best > NO_GAIN else None
            for name, facts in told.items()
        }
    return found


def method_rows(record: dict[str, Any]) -> tuple[list[str], list[list[str]], str]:
    """Header, rows and alignment of one model's table; seconds are medians, compiled before."""
    header = ["method", "objective", "gain", AS_ENDED, "gain", "gap", "seconds", "steps"]
    shares = [gain_shares([record], fact).get(record["case"], {}) for fact in FACTS]
    rows = []
    for each in record["contenders"]:
        facts = each.get("facts")
        if not facts:
            rows.append([each["name"], each["message"] or each["status"], *[""] * 6])
            continue
        row = [each["name"]]
        for fact, share in zip(FACTS, shares, strict=True):
            row += [f"{facts[fact]:.4f}", _percent(share[each["name"]])]
        gap, evaluations = facts["largest gap"], facts["evaluations"]
        steps = f"{evaluations} ev" if evaluations else f"{facts['iterations']} it"
        row += [
            "" if gap is None else f"{gap:.0e}",
            f"{each['quartiles'][1]:.2g}",
            steps + ("" if facts["converged"] else " *"),
        ]
        rows.append(row)
    return header, rows, "lrrrrrrr"


def _percent(share: float | None) -> str:
    return "" if share is None or not math.isfinite(share) else f"{round(100.0 * share)} %"
