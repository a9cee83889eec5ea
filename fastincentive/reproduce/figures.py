"""Figures 2 to 6 of the paper, and one of Theorem 1, each as one matplotlib Figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from fastincentive import plotting
from fastincentive._arrays import FloatArray
from fastincentive.followers.single import occupancy_measure
from fastincentive.methods._starts import best_response_policies
from fastincentive.models import example1_objective
from fastincentive.plotting.solutions import COLOURS
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.reproduce.example1 import stationary_points
from fastincentive.reproduce.rate import BARRIERS, theorem_rate
from fastincentive.reproduce.replications import LEVELS, Replications
from fastincentive.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["drawings", "png"]

_LABELS = ("$x_1$ (robot 1)", "$x_2$ (robot 2)")
_DPI = 120
#: -q and K below this are drawn as this: the rest is rounding.
_LEAST = 1e-10

Solutions = Mapping[tuple[str, int], Solution]


def png(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def drawings(
    problem: IncentiveProblem,
    solutions: Solutions,
    repeats: Mapping[str, Replications],
    rates: Sequence[Mapping[str, Any]],
) -> dict[str, Callable[[], Figure]]:
    """Return what draws each figure, by file name.

    Parameters
    ----------
    problem : IncentiveProblem
        The paper's gridworld.
    solutions : mapping from (parameterization, initialisation) to Solution
        With initialisation 2 of each parameterization.
    repeats : mapping from parameterization to Replications
    rates : sequence of what ``measured_rates`` found
    """
    name = _names(solutions)[0]
    return {
        "figure2_example1.png": example1,
        "figure3_grid.png": lambda: grid(problem),
        "figure4_payments.png": lambda: payments(solutions),
        "figure5_convergence.png": lambda: convergence(repeats),
        "figure6_occupancy.png": lambda: occupancies(problem, solutions[name, 2], name),
        "theorem1_rate.png": lambda: rate(rates),
    }


def example1() -> Figure:
    """Figure 2: f_m of Example 1 under both parameterizations, with its stationary points."""
    figure = Figure((11.0, 4.6), layout="constrained")
    x1, x2 = np.linspace(0.0, 3.0, 301), np.linspace(0.0, 4.0, 401)
    mesh = np.stack(np.meshgrid(x1, x2), axis=-1)
    for ax, name in zip(figure.subplots(1, 2), ("direct", "softmax"), strict=True):
        found = stationary_points(name)
        peaks = [p["payments"] for p in found if p["kind"] == "maximum"]
        others = [p["payments"] for p in found if p["kind"] != "maximum"]
        plotting.plot_contours(x1, x2, example1_objective(mesh, name), peaks, ax)
        if others:
            ax.plot(
                *np.transpose(others), "X", color="white", markeredgecolor="black", clip_on=False
            )
        notes = {
            "direct": "stationary points (dots)",
            "softmax": "local maxima (dots), other stationary points (crosses)",
        }
        ax.set_title(f"Example 1, {name} parameterization:\n{notes[name]}", fontsize=11)
    return figure


def grid(problem: IncentiveProblem) -> Figure:
    """Figure 3: the grid."""
    figure = Figure((6.2, 6.2), layout="constrained")
    ax = plotting.plot_grid(problem, figure.subplots(), payment_labels=("$x_1$", "$x_2$"))
    ax.set_title("The 6 × 6 gridworld; rewards for acting in a cell")
    return figure


def payments(solutions: Solutions) -> Figure:
    """Figure 4: the payments from the three initialisations, one row per parameterization."""
    names = _names(solutions)
    numbers = sorted({number for _, number in solutions})
    figure = Figure((11.0, 3.2 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), len(numbers), squeeze=False)
    for row, name in zip(axes, names, strict=True):
        for ax, number in zip(row, numbers, strict=True):
            plotting.plot_payments(solutions[name, number], ax, labels=_LABELS)
            ax.set_title(f"{name}, initialisation {number}")
    return figure


def convergence(repeats: Mapping[str, Replications]) -> Figure:
    """Figure 5: payments, feasibility, value and objective over the replications."""
    figure = Figure((11.0, 3.4 * len(repeats)), layout="constrained")
    axes = figure.subplots(len(repeats), 3, squeeze=False)
    for row, (name, found) in zip(axes, repeats.items(), strict=True):
        for k, label in enumerate(_LABELS):
            _band(row[0], found.payments[:, :, k], COLOURS[k], label)
        _band(row[1], np.maximum(-found.feasibility, _LEAST), COLOURS[0], "−q")
        row[1].set_yscale("log")
        _band(row[2], found.leader_value, COLOURS[0], "leader's value V")
        _band(row[2], found.objective, COLOURS[1], "objective V − w C(x)")
        quantities = ("payment", "−q, sum of gaps", "leader's value")
        for ax, what in zip(row, quantities, strict=True):
            ax.set_title(f"{name}: {len(found.iterations)} replications")
            ax.set_ylabel(f"{what} (units of reward)")
            ax.set_xlabel("iteration")
            _finish(ax)
    figure.suptitle(f"Means, and bands from the {LEVELS[0]:.0%} to the {LEVELS[1]:.0%} quantile")
    return figure


def rate(rates: Sequence[Mapping[str, Any]]) -> Figure:
    """Theorem 1: least K over the iterations, for each barrier and step, beside its rate."""
    figure = Figure((11.0, 4.6), layout="constrained")
    for ax, (barrier, formula) in zip(figure.subplots(1, 2), BARRIERS.items(), strict=True):
        rows = [row for row in rates if row["barrier"] == barrier]
        # One constant for all steps: the theorem's depends on the step, but is not given.
        constant = max(row["constant"] for row in rows)
        for row, colour in zip(rows, COLOURS, strict=False):
            k, step = np.array(row["iterations"], float), row["step"]
            label = f"ξ = {step:g}, slope {row['slope']:.2f}"
            ax.loglog(k, np.maximum(row["least"], _LEAST), color=colour, linewidth=1.8, label=label)
            ax.loglog(k, constant * theorem_rate(step, k), ":", color=colour, linewidth=1.0)
        ax.set_title(f"{formula}; dotted: {constant:.3g} (√ξ + 1/√(ξk))")
        ax.set_xlabel("iteration k")
        ax.set_ylabel("least K up to k")
        _finish(ax)
    figure.suptitle("Theorem 1: direct parameterization, tangent geometry, constant steps ξ")
    return figure


def _band(ax: Axes, values: FloatArray, colour: str, label: str) -> None:
    """Draw the mean over the rows (runs, nit), and the band between their quantiles."""
    low, high = np.quantile(values, LEVELS, axis=0)
    ax.fill_between(np.arange(values.shape[1]), low, high, color=colour, alpha=0.25, linewidth=0.0)
    ax.plot(values.mean(axis=0), color=colour, linewidth=1.8, label=label)


def _finish(ax: Axes) -> None:
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize="small", framealpha=0.85, edgecolor="0.9")


def occupancies(problem: IncentiveProblem, solution: Solution, name: str) -> Figure:
    """Figure 6: where each robot's best response goes, at the first and the posted payments."""
    first = solution.history.payments[0]
    # At the posted payments robots are indifferent by design; the solution's policies are the
    # leader's choice among the best responses.
    stages = (
        ("first payments", first, best_response_policies(problem, first)),
        ("posted payments", solution.payments, solution.policies),
    )
    visits = [
        [_visits(problem, policies, i) for _, _, policies in stages] for i in range(problem.n)
    ]
    top = max(float(v[:-1].max()) for row in visits for v in row)
    figure = Figure((10.0, 4.3 * problem.n), layout="constrained")
    axes = figure.subplots(problem.n, len(stages), squeeze=False)
    for i, row in enumerate(axes):
        for ax, (stage, x, _), shown in zip(row, stages, visits[i], strict=True):
            plotting.plot_occupancy(problem, shown, ax, maximum=top)
            ax.set_title(f"robot {i + 1}, {stage}: $x_{i + 1}$ = {x[i]:.4g}")
    figure.suptitle(f"Best responses, initialisation 2, {name} parameterization")
    return figure


def _visits(problem: IncentiveProblem, policies: FloatArray, i: int) -> FloatArray:
    """State occupancy (S,) of follower i."""
    return np.asarray(occupancy_measure(problem.followers[i], policies[i]).sum(axis=1))


def _names(solutions: Solutions) -> list[str]:
    return list(dict.fromkeys(name for name, _ in solutions))
