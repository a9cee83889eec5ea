"""The report of ``reproduce``: tables for the terminal, and ``report.md``."""

from __future__ import annotations

from typing import Any

from fastincentive._tables import markdown_table, small, text_table

__all__ = ["markdown", "summary"]

_ASCENT_HEADER = (
    "source",
    "initialisation",
    "x1",
    "x2",
    "feasibility q",
    "leader's value",
    "objective",
    "largest gap",
    "K",
    "iterations",
    "seconds",
    "status",
)
_RECOVERED_HEADER = (
    "source",
    "initialisation",
    "x1",
    "x2",
    "feasibility q",
    "leader's value",
    "objective",
    "value, ties against",
    "objective, ties against",
)
_REPLICATED_HEADER = ("", "converged", "x1", "x2", "objective", "iterations")
_REPLICATED_ALIGN = "l" + "r" * 5
_RATE_HEADER = ("barrier", "step", "iterations", "least K", "slope", "c", "s")
_RATE_ALIGN = "l" + "r" * 6
_ASCENT_ALIGN = "ll" + "r" * 9 + "l"
_RECOVERED_ALIGN = "ll" + "r" * 7


def summary(result: dict[str, Any]) -> str:
    """Return the tables as text for a terminal."""
    return "\n".join(
        [
            "Last iterate (x, theta) of the ascent, and the paper's Table 1",
            text_table(_short(_ASCENT_HEADER), _ascent_rows(result), _ASCENT_ALIGN),
            "",
            "Recovered: payments as posted, exact best responses, ties broken for the leader",
            text_table(
                _short(_RECOVERED_HEADER), _recovered_rows(result, "recovered"), _RECOVERED_ALIGN
            ),
            "",
            "After the search over regimes from there (no part of the paper), and the certified "
            "optimum",
            text_table(_short(_RECOVERED_HEADER), _refined_rows(result), _RECOVERED_ALIGN),
            *_certificate(result),
            "",
            "Figure 5: where replications from initialisation 2 with other starts end, mean "
            "[quantiles]",
            text_table(_REPLICATED_HEADER, _replicated_rows(result), _REPLICATED_ALIGN),
            "",
            "Theorem 1: least K of constant steps, its slope over the last decade of iterations "
            "(the rate: -0.5)",
            text_table(_RATE_HEADER, _rate_rows(result), _RATE_ALIGN),
        ]
    )


def markdown(result: dict[str, Any]) -> str:
    """Return the text of report.md."""
    settings = result["settings"]
    seconds = result["seconds"]
    names = list(settings["parameterizations"])
    slips = " and ".join(f"{slip:g}" for slip in settings["slips"])
    levels = settings["replications"]["levels"]
    method = ", ".join(f"{k}={v!r}" for k, v in settings["method"].items() if k != "name")
    parts = [
        "# The paper's experiment, reproduced",
        "*Incentive Design for Multi-Agent Systems: A Bilevel Optimization Framework for "
        "Coordinating Independent Agents and Convergence Analysis*, Sections 3.3 and 4. Written by "
        "`fastincentive reproduce`; all numbers in full precision are in "
        "[table1.json](table1.json).",
        "**Read the comparison with care.** The paper does not print the robots' slip "
        "probabilities, their discount factors, the grid's layout, or the policies of its "
        f"initialisations. Here the slips are {slips}, the discounts "
        f"{settings['follower_discounts'][0]:g}, and the layout is the research group's published "
        "6 × 6 grid. So the figures differ from the paper's; how the method behaves can be "
        "compared, not the digits.",
        "## Table 1",
        "The leader may pay robot 1 at the lesser goal (4, 5), the payment x1, and robot 2 at the "
        "lesser goal (1, 4), the payment x2; all runs start from x1 = x2 = "
        f"{settings['first_payments'][0]:g}. The cost is x1 + x2 with weight w = "
        f"{settings['cost_weight']:g}. Initialisations: "
        + "; ".join(f"({k}) {text}" for k, text in _starts(result).items())
        + ".",
        "The rows named *paper* are its Table 1 (direct parameterization); the others are the last "
        "iterate (x, θ) of the ascent, at which the policies need not be best responses to the "
        "last digit. *Feasibility* q = Σ (V_i − V_i*) is 0, up to rounding, at best responses; "
        "*largest gap* is the largest V_i* − V_i; K is the stationarity measure of Definition 1, "
        "projected on the tangent cone.",
        markdown_table(_ASCENT_HEADER, _ascent_rows(result), _ASCENT_ALIGN),
        "### What the leader really gets",
        "After the ascent the payments are moved to the cheapest ones that support the response "
        "they were built for, and every robot's exact best response to them is computed. At such "
        "payments a robot is indifferent: *objective* has ties broken for the leader (strong "
        "Stackelberg), *ties against* breaks them against it (weak Stackelberg).",
        markdown_table(_RECOVERED_HEADER, _recovered_rows(result, "recovered"), _RECOVERED_ALIGN),
        *_notes(result),
        "### After the search over regimes",
        "No part of the paper. From the payments above, an exact search over the robots' best "
        "responses looks for payments with a better objective: the ascent stops at stationary "
        "points, which need not be optimal. The row named *optimum* lists all best responses of "
        "both robots to all payments and takes the best pair. Ties go to the leader, as above.",
        markdown_table(_RECOVERED_HEADER, _refined_rows(result), _RECOVERED_ALIGN),
        " ".join(_certificate(result)),
        "## Example 1 (Figure 2)",
        "f_m(x), the leader's objective at the followers' response to x, in closed form. Under the "
        "direct parameterization it is linear between jumps; under softmax (temperature "
        f"{settings['example1_temperature']:g}) it is smooth, and the jumps become steep slopes.",
        "![Contours of Example 1's objective](figure2_example1.png)",
        markdown_table(
            ("parameterization", "x1", "x2", "f_m", "kind"), _example_rows(result), "lrrrl"
        ),
        "## The grid (Figure 3)",
        "Robots start at (2, 0), counted (row, column) from the top left. A move slips to either "
        "side with the robot's slip probability. Both kinds of goals end the walk.",
        "![The gridworld](figure3_grid.png)",
        "## Convergence (Figures 4 and 5)",
        "Payments of the ascent from the three initialisations:",
        "![Payments over the iterations](figure4_payments.png)",
        "Initialisation 2, replicated. The paper does not say what differs between its "
        f"replications; here {settings['replications']['share']:.0%} of random policies are mixed "
        "into the first ones. Lines are means over the runs, bands go from the "
        f"{levels[0]:.0%} to the {levels[1]:.0%} quantile, and a run that has ended stays where it "
        "is. Each point is evaluated at that iteration's own (x, θ).",
        "![Payments, feasibility, value and objective](figure5_convergence.png)",
        "Where the runs end, mean and [quantiles]:",
        markdown_table(_REPLICATED_HEADER, _replicated_rows(result), _REPLICATED_ALIGN),
        *_rate_section(result),
        "## Occupancy measures (Figure 6)",
        "Each robot's best response to the first payments and to the posted ones, from "
        f"initialisation 2 ({names[0]} parameterization): expected discounted visits Σ γ^t Pr(s), "
        "not normalised, the Sink left out. Letters mark start (S), goals (G), lesser goals (L) "
        "and fires (F). Ties at the posted payments are broken for the leader.",
        "![Occupancy heat maps](figure6_occupancy.png)",
        "## Settings and versions",
        f"`{settings['method']['name']}({method})`",
        markdown_table(("what", "value"), _versions(result), "ll"),
        f"Compiling or loading {seconds['compiling']:.1f} s, runs {seconds['runs']:.1f} s, search "
        f"{seconds['search']:.1f} s, replications {seconds['replications']:.1f} s, rate "
        f"{seconds['rate']:.1f} s, figures {seconds['figures']:.1f} s.",
    ]
    return "\n\n".join(parts) + "\n"


def _short(header: tuple[str, ...]) -> list[str]:
    """Shorten column names, for a terminal's width."""
    names = {
        "source": "",
        "initialisation": "init",
        "feasibility q": "q",
        "leader's value": "value",
        "largest gap": "gap",
        "iterations": "iter",
        "seconds": "s",
        "value, ties against": "value (against)",
        "objective, ties against": "objective (against)",
    }
    return [names.get(name, name) for name in header]


def _paper_rows(result: dict[str, Any], width: int) -> list[list[str]]:
    rows = []
    for row in result["paper_table1"]:
        cells = ["paper", str(row["initialisation"]), *_point(row)]
        rows.append(cells + [""] * (width - len(cells)))
    return rows


def _point(values: dict[str, Any]) -> list[str]:
    return [
        *(f"{x:.4f}" for x in values["payments"]),
        small(values["feasibility"], 2),
        f"{values['leader_value']:.4f}",
        f"{values['objective']:.4f}",
    ]


def _ascent_rows(result: dict[str, Any]) -> list[list[str]]:
    rows = _paper_rows(result, len(_ASCENT_HEADER))
    for run in result["runs"]:
        ascent = run["ascent"]
        rows.append(
            [
                run["parameterization"],
                str(run["initialisation"]),
                *_point(ascent),
                small(ascent["largest_gap"]),
                small(ascent["stationarity"]),
                str(run["iterations"]),
                f"{run['seconds']:.1f}",
                run["status"],
            ]
        )
    return rows


def _recovered_rows(result: dict[str, Any], part: str) -> list[list[str]]:
    """Rows of what was ``recovered`` or ``refined``."""
    return [
        [
            run["parameterization"],
            str(run["initialisation"]),
            *_point(run[part]),
            f"{run[part]['pessimistic_value']:.4f}",
            f"{run[part]['pessimistic_objective']:.4f}",
        ]
        for run in result["runs"]
    ]


def _refined_rows(result: dict[str, Any]) -> list[list[str]]:
    best = result["optimum"]
    row = [
        "optimum",
        "",
        *(f"{x:.4f}" for x in best["payments"]),
        "",
        f"{best['leader_value']:.4f}",
        f"{best['objective']:.4f}",
        "",
        "",
    ]
    return [*_recovered_rows(result, "refined"), row]


def _certificate(result: dict[str, Any]) -> list[str]:
    """Say in a few sentences what proves the optimum."""
    best = result["optimum"]
    pairs = f"The optimum is the best of {best['combinations']} pairs of best responses"
    if best["runner_up"] is not None:
        pairs += f"; the second best has objective {best['runner_up']['objective']:.4f}"
    if not best["complete"]:
        pairs += ". Not all responses were listed"
    return [
        f"{pairs}.",
        f"No deterministic best responses to any payments have more than {best['bound']:.4f}.",
    ]


def _replicated_rows(result: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, found in result["replications"].items():
        ends = found["ends"]

        def cell(key: str, digits: int = 3, ends: dict[str, Any] = ends) -> str:
            low, high = ends[key]["quantiles"]
            return f"{ends[key]['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

        numbers = [cell("x1"), cell("x2"), cell("objective"), cell("iterations", 0)]
        rows.append([name, f"{found['converged']} of {found['count']}", *numbers])
    return rows


def _rate_rows(result: dict[str, Any]) -> list[list[str]]:
    return [
        [
            row["barrier"],
            f"{row['step']:g}",
            str(row["iterations"][-1]),
            small(row["least"][-1]),
            f"{row['slope']:.2f}",
            f"{row['constant']:.1f}",
            f"{row['seconds']:.1f}",
        ]
        for row in result["rate"]
    ]


def _rate_section(result: dict[str, Any]) -> list[str]:
    """Say what Theorem 1 promises, and what is measured."""
    return [
        "## The rate of Theorem 1",
        "For a constant step ξ the theorem bounds the least stationarity K over the first k "
        "iterations by a multiple of √ξ + 1/√(ξk): on logarithmic axes a line of slope −1/2 that "
        "levels off. Measured from initialisation 2 with the joint multiplier and absolute steps, "
        f"K at every {result['settings']['rate_every']}th iterate, gradients and K on the tangent "
        "cone (the ambient K does not vanish at a solution). *Slope* is fitted over the last "
        "decade of iterations; *c* is the least factor for which the bound holds at all of them.",
        markdown_table(_RATE_HEADER, _rate_rows(result), _RATE_ALIGN),
        "![Least K over the iterations](theorem1_rate.png)",
        "With the barrier as printed, φ = η |∇q|², the gap stops falling where robots seldom come: "
        "there |∇q|² is far smaller than the gap, and the inequality of Corollary 3 holds with "
        "next to no constant (`certificates.theory.pl_constant`). With φ = η (−q) the gap falls "
        "geometrically, faster than the rate. A plateau at K = w = "
        f"{result['settings']['cost_weight']:g} is a payment on its way down at constant speed, "
        "which ends where a robot is indifferent; there q has a kink, where the theorem says "
        "nothing.",
    ]


def _example_rows(result: dict[str, Any]) -> list[list[str]]:
    return [
        [name, *(f"{x:.4f}" for x in point["payments"]), f"{point['objective']:.4f}", point["kind"]]
        for name, points in result["example1"].items()
        for point in points
    ]


def _starts(result: dict[str, Any]) -> dict[int, str]:
    return {run["initialisation"]: run["start"] for run in result["runs"]}


def _notes(result: dict[str, Any]) -> list[str]:
    """Return what the runs that did not converge, or that warned, have to say."""
    lines = []
    for run in result["runs"]:
        said = ([] if run["success"] else [run["message"]]) + run["notes"]
        name = f"{run['parameterization']}, initialisation {run['initialisation']}"
        lines += [f"- {name}: {text}" for text in said]
    return ["\n".join(lines)] if lines else []


def _versions(result: dict[str, Any]) -> list[list[str]]:
    found = result["environment"]
    extras = {name: version or "not installed" for name, version in found["extras"].items()}
    rows = {**found["versions"], **extras, **found["threads"], **found["machine"]}
    return [[name.replace("_", " "), str(value)] for name, value in rows.items()]
