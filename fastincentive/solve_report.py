"""What ``fastincentive solve`` prints: a table, or JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from fastincentive import __version__
from fastincentive.problem import IncentiveProblem
from fastincentive.solution import Solution
from fastincentive.tables import small, text_table

__all__ = ["as_json", "as_table", "found"]

#: The table shows at most this many payments.
_MOST_PAYMENTS = 20


def found(
    model: str,
    settings: dict[str, str],
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
        ``method``, ``parameterization`` and ``start``, by name.
    problem : IncentiveProblem
    solution : Solution
    seconds : float
        Time that the solution took.
    """
    ascent = solution.ascent
    n, states, actions = problem.followers.shape
    return {
        "model": model,
        "size": {
            "followers": n,
            "states": states,
            "actions": actions,
            "payments": problem.payments.size,
        },
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
        "payments": [
            {"where": problem.payments.describe(k), "posted": float(posted), "ascent": float(last)}
            for k, (posted, last) in enumerate(zip(solution.payments, ascent.payments, strict=True))
        ],
        "leader_value": solution.leader_value,
        "cost": solution.cost,
        "objective": solution.objective,
        "feasibility": solution.feasibility + 0.0,  # never -0.0
        "follower_gaps": solution.follower_gaps.tolist(),
        "pessimistic_value": solution.pessimistic_value,
        "pessimistic_objective": solution.pessimistic_objective,
        "ascent": {
            "leader_value": ascent.leader_value,
            "cost": problem.cost.value(ascent.payments),
            "objective": ascent.objective,
            "feasibility": ascent.feasibility,
            "follower_gaps": ascent.follower_gaps.tolist(),
            "multipliers": ascent.multipliers.tolist(),
            "stationarity": ascent.stationarity,
        },
        "version": __version__,
    }


def as_table(found: dict[str, Any]) -> str:
    """Lay out what ``solve`` found."""
    size, settings, ascent = found["size"], found["settings"], found["ascent"]
    head = [
        [
            "model",
            f"{found['model']}: {size['followers']} followers, {size['states']} states, "
            f"{size['actions']} actions, {size['payments']} payments, "
            f"w = {settings['cost_weight']:g}",
        ],
        [
            "method",
            f"{settings['method']}, {settings['parameterization']} parameterization, "
            f"{settings['start']} start",
        ],
        ["status", found["message"]],
        ["iterations", f"{found['iterations']} in {found['seconds']:.1f} s"],
    ]
    shown = found["payments"][:_MOST_PAYMENTS]
    paid = [[p["where"], f"{p['posted']:.6f}", f"{p['ascent']:.6f}"] for p in shown]
    left_out = len(found["payments"]) - len(shown)
    if left_out:
        paid.append([f"and {left_out} more (--json shows all)", "", ""])
    rows = [
        [
            "leader's value",
            f"{found['leader_value']:.6f}",
            f"{found['pessimistic_value']:.6f}",
            f"{ascent['leader_value']:.6f}",
        ],
        ["cost", f"{found['cost']:.6f}", f"{found['cost']:.6f}", f"{ascent['cost']:.6f}"],
        [
            "objective",
            f"{found['objective']:.6f}",
            f"{found['pessimistic_objective']:.6f}",
            f"{ascent['objective']:.6f}",
        ],
        ["feasibility q", small(found["feasibility"]), "", small(ascent["feasibility"])],
        [
            "largest follower gap",
            small(max(found["follower_gaps"])),
            "",
            small(max(ascent["follower_gaps"])),
        ],
        ["stationarity K", "", "", small(ascent["stationarity"])],
    ]
    columns = ("ties for the leader", "ties against it", "ascent's last iterate")
    return "\n\n".join(
        [
            "\n".join(f"{name:<10}  {text}" for name, text in head),
            text_table(("payment", "posted", "ascent's last iterate"), paid, "lrr"),
            "The payments as posted, answered by exact best responses; and the ascent itself\n"
            + text_table(("", *columns), rows, "lrrr"),
        ]
    )


def as_json(found: dict[str, Any]) -> str:
    """Write it as JSON; what JSON cannot say, infinities and NaN, becomes null."""
    return json.dumps(_finite(found), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    """Replace what JSON cannot say, infinities and NaN, by null."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
