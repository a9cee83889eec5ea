"""What ``fastincentive solve``, ``optimum`` and ``pareto`` print: tables, or JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive import __version__
from fastincentive._arrays import FloatArray
from fastincentive._tables import name_value_list, small, text_table
from fastincentive.certificates.optimum import GlobalOptimum
from fastincentive.problem.costs import ExpectedSpend
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.solution import Solution, lots
from fastincentive.studies.pareto_front import ParetoFront

__all__ = ["as_table", "found", "front_found", "optimum_found", "optimum_table"]

#: The table shows at most this many payments.
_MOST_PAYMENTS = 20
_TITLES = {
    "before_refinement": "before refinement",
    "ascent": "ascent's last iterate",
    "runner_up": "runner-up",
}


def found(
    model: str,
    settings: dict[str, str | None],
    problem: IncentiveProblem,
    solution: Solution,
    seconds: float,
) -> dict[str, Any]:
    """Return everything that is printed, as plain data.

    Parameters
    ----------
    model : str
        Name of the model.
    settings : dict
        ``plan``, and ``parameterization`` and ``start`` of the ascent, None where there is none.
    problem : IncentiveProblem
    solution : Solution
    seconds : float
        Time that the solution took.
    """
    x, worst = solution.payments, solution.pessimistic_policies
    before, ascent = solution.refinement, solution.ascent
    posted = {"posted": x}
    if before is not None:
        posted["before_refinement"] = before.payments
    if ascent is not None:
        posted["ascent"] = ascent.payments
    return {
        **_described(model, problem),
        "settings": {
            **settings,
            "cost_weight": problem.cost_weight,
            "leader_discount": problem.leader_discount,
        },
        "success": solution.success,
        "status": solution.status.name.lower(),
        "message": solution.message,
        "iterations": solution.nit,
        "seconds": seconds,
        "payments": _listed(problem, posted),
        "leader_value": solution.leader_value,
        "cost": solution.cost,
        "objective": solution.objective,
        "nominal_spend": solution.nominal_spend,
        "expected_spend": solution.expected_spend,
        "feasibility": solution.feasibility + 0.0,  # never -0.0
        "follower_gaps": solution.follower_gaps.tolist(),
        "pessimistic_value": solution.pessimistic_value,
        "pessimistic_cost": problem.cost_at(x, worst),
        "pessimistic_objective": solution.pessimistic_objective,
        "pessimistic_expected_spend": problem.expected_spend(x, worst),
        "mixed": lots(solution.policies, _mixed(solution)),
        "upper_bound": solution.upper_bound,
        "optimality_gap": solution.optimality_gap,
        "refinement": None
        if before is None
        else {
            "leader_value": before.leader_value,
            "objective": before.objective,
            "pessimistic_objective": before.pessimistic_objective,
            **_cost_of(problem, before.payments),
            "nominal_spend": float(before.payments.sum()),
            "improvement": before.improvement,
            "entries": before.entries,
            "sweeps": before.sweeps,
            "complete": before.complete,
        },
        "ascent": None
        if ascent is None
        else {
            "leader_value": ascent.leader_value,
            "cost": problem.cost_at(ascent.payments, ascent.policies),
            "objective": ascent.objective,
            "nominal_spend": float(ascent.payments.sum()),
            "expected_spend": problem.expected_spend(ascent.payments, ascent.policies),
            "feasibility": ascent.feasibility,
            "follower_gaps": ascent.follower_gaps.tolist(),
            "multipliers": ascent.multipliers.tolist(),
            "stationarity": ascent.stationarity,
        },
        "version": __version__,
    }


def _mixed(solution: Solution) -> NDArray[np.bool_]:
    """Return where lots are drawn (n, S)."""
    none = np.zeros(solution.policies.shape[:2], bool)
    return none if solution.mixed is None else solution.mixed


def _cost_of(problem: IncentiveProblem, payments: FloatArray) -> dict[str, float]:
    """Return the cost of payments, or nothing where it depends on the policies too."""
    if isinstance(problem.cost, ExpectedSpend):
        return {}
    return {"cost": problem.cost.value(payments)}


def _described(model: str, problem: IncentiveProblem) -> dict[str, Any]:
    """Return the model's name and sizes as plain data."""
    n, states, actions = problem.followers.shape
    size = {
        "followers": n,
        "states": states,
        "actions": actions,
        "payments": problem.payments.size,
    }
    return {"model": model, "size": size}


def _listed(problem: IncentiveProblem, columns: dict[str, FloatArray]) -> list[dict[str, Any]]:
    """Return one record per payment: where it is paid, and its size in each named (k,) array."""
    return [
        {
            "where": problem.payments.describe(k),
            **{name: float(x[k]) for name, x in columns.items()},
        }
        for k in range(problem.payments.size)
    ]


def as_table(found: dict[str, Any]) -> str:
    """Lay out what ``solve`` found."""
    settings = found["settings"]
    head = [("model", _model_line(found)), ("plan", settings["plan"])]
    if settings["parameterization"] is not None:
        way = f"{settings['parameterization']} parameterization, {settings['start']} start"
        head.append(("ascent", way))
    head += [
        ("status", found["message"]),
        ("iterations", f"{found['iterations']} in {found['seconds']:.1f} s"),
    ]
    search, ascent = found["refinement"], found["ascent"]
    if search is not None:
        head.append(
            (
                "refinement",
                f"adds {search['improvement']:.6f} to the objective; "
                f"{search['entries']} responses priced",
            )
        )
    if found["mixed"]:
        head.append(("followers to be told", found["mixed"]))
    if found["upper_bound"] < math.inf:
        head.append(
            ("upper bound", f"{found['upper_bound']:.6f}, gap {found['optimality_gap']:.6f}")
        )
    against = {
        "leader_value": found["pessimistic_value"],
        "cost": found["pessimistic_cost"],
        "objective": found["pessimistic_objective"],
        "nominal_spend": found["nominal_spend"],
        "expected_spend": found["pessimistic_expected_spend"],
    }
    columns = {"ties for the leader": found, "ties against it": against}
    if search is not None:
        columns["before refinement"] = search
    if ascent is not None:
        columns["ascent's last iterate"] = ascent
    return "\n\n".join(
        [
            name_value_list(head),
            _payment_table(found["payments"]),
            "The payments as posted, answered by exact best responses"
            + ("; and the ascent itself" if ascent is not None else "")
            + "\n"
            + text_table(("", *columns), _rows(columns), "l" + "r" * len(columns)),
        ]
    )


def _rows(columns: dict[str, dict[str, Any]]) -> list[list[str]]:
    """One row for each figure that some column has."""
    rows = [
        [name, *(f"{each[key]:.6f}" if key in each else "" for each in columns.values())]
        for key, name in (
            ("leader_value", "leader's value"),
            ("cost", "cost"),
            ("objective", "objective"),
            ("nominal_spend", "nominal spend"),
            ("expected_spend", "expected spend"),
        )
    ]
    for key, name in (
        ("feasibility", "feasibility q"),
        ("follower_gaps", "largest follower gap"),
        ("stationarity", "stationarity K"),
    ):
        values = [np.max(each[key]) if key in each else None for each in columns.values()]
        if values.count(None) < len(values):
            rows.append([name, *("" if value is None else small(value) for value in values)])
    return rows


def optimum_found(model: str, problem: IncentiveProblem, optimum: GlobalOptimum) -> dict[str, Any]:
    """Return what ``fastincentive optimum`` prints, as plain data."""
    second, mixing = optimum.runner_up, optimum.mixing
    posted = {"posted": optimum.payments}
    if second is not None:
        posted["runner_up"] = second.payments
    return {
        **_described(model, problem),
        "settings": {
            "cost_weight": problem.cost_weight,
            "leader_discount": problem.leader_discount,
        },
        "payments": _listed(problem, posted),
        "leader_value": optimum.leader_value,
        "cost": optimum.cost,
        "objective": optimum.objective,
        "nominal_spend": float(optimum.payments.sum()),
        "expected_spend": problem.expected_spend(optimum.payments, optimum.policies),
        "bound": optimum.bound,
        "gap": optimum.gap,
        "runner_up_objective": None if second is None else second.objective,
        "responses": optimum.responses.tolist(),
        "combinations": optimum.combinations,
        "evaluated": optimum.evaluated,
        "mixing": {
            "searched": mixing.searched,
            "helped": mixing.helped,
            "gain": mixing.gain,
            "objective": mixing.objective,
        },
        "complete": optimum.complete,
        "seconds": optimum.seconds,
        "version": __version__,
    }


def optimum_table(found: dict[str, Any]) -> str:
    """Lay out what ``optimum`` found."""
    mixing, second = found["mixing"], found["runner_up_objective"]
    mixed = (
        f"adds {mixing['gain']:.6f}" if mixing["helped"] else "adds nothing that the search found"
    )
    responses = " x ".join(str(count) for count in found["responses"][:_MOST_PAYMENTS])
    if len(found["responses"]) > _MOST_PAYMENTS:
        responses += " x ..."
    rows = [
        ("leader's value", f"{found['leader_value']:.6f}"),
        ("cost", f"{found['cost']:.6f}"),
        ("objective", f"{found['objective']:.6f}"),
        ("upper bound", f"{found['bound']:.6f}, gap {small(found['gap'])}"),
        ("runner-up", "none" if second is None else f"{second:.6f}"),
        ("nominal spend", f"{found['nominal_spend']:.6f}"),
        ("expected spend", f"{found['expected_spend']:.6f}"),
        ("responses", f"{responses} = {found['combinations']} combinations"),
        (
            "evaluated",
            f"{found['evaluated']}, the others excluded by bounds"
            if found["evaluated"] < found["combinations"]
            else "all of them",
        ),
        ("mixing ties", f"{mixed} ({mixing['searched']} points with ties searched)"),
        ("complete", "yes" if found["complete"] else "no: the bound holds for what was listed"),
        ("seconds", f"{found['seconds']:.1f}"),
    ]
    return "\n\n".join(
        [
            name_value_list(
                [("model", _model_line(found)), ("best over", "all deterministic best responses")]
            ),
            _payment_table(found["payments"]),
            name_value_list(rows),
        ]
    )


def front_found(
    model: str, problem: IncentiveProblem, front: ParetoFront, seconds: float
) -> dict[str, Any]:
    """Return what ``fastincentive pareto`` prints, as plain data."""
    columns = {
        name: None if value is None else value.tolist() for name, value in vars(front).items()
    }
    return {
        **_described(model, problem),
        "payment_places": [problem.payments.describe(k) for k in range(problem.payments.size)],
        **columns,
        "efficient": front.efficient.tolist(),
        "seconds": seconds,
        "version": __version__,
    }


def _model_line(found: dict[str, Any]) -> str:
    """Name a model, its sizes and the weight of the cost."""
    size = ", ".join(f"{count} {name}" for name, count in found["size"].items())
    return f"{found['model']}: {size}, w = {found['settings']['cost_weight']:g}"


def _payment_table(payments: list[dict[str, Any]]) -> str:
    """Lay out what ``_listed`` returned, the first of them if there are many."""
    names = [name for name in payments[0] if name != "where"]
    shown = payments[:_MOST_PAYMENTS]
    rows = [[each["where"], *(f"{each[name]:.6f}" for name in names)] for each in shown]
    left_out = len(payments) - len(shown)
    if left_out:
        rows.append([f"and {left_out} more (--json shows all)", *([""] * len(names))])
    titles = [_TITLES.get(name, name) for name in names]
    return text_table(("payment", *titles), rows, "l" + "r" * len(names))
