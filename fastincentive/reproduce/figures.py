"""Figures 2 to 6 of the paper, each as one matplotlib Figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure

from fastincentive import plotting
from fastincentive._arrays import FloatArray
from fastincentive.followers.single import occupancy_measure
from fastincentive.methods._starts import best_response_policies
from fastincentive.models import example1_objective
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.reproduce.example1 import stationary_points
from fastincentive.solution import Solution

__all__ = ["drawings", "png"]

_LABELS = ("$x_1$ (robot 1)", "$x_2$ (robot 2)")
_DPI = 120

Solutions = Mapping[tuple[str, int], Solution]


def png(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def drawings(problem: IncentiveProblem, solutions: Solutions) -> dict[str, Callable[[], Figure]]:
    """Return what draws each figure, by file name.

    Parameters
    ----------
    problem : IncentiveProblem
        The paper's gridworld.
    solutions : mapping from (parameterization, initialisation) to Solution
        With initialisation 2 of each parameterization.
    """
    name = _names(solutions)[0]
    return {
        "figure2_example1.png": example1,
        "figure3_grid.png": lambda: grid(problem),
        "figure4_payments.png": lambda: payments(solutions),
        "figure5_convergence.png": lambda: convergence(solutions),
        "figure6_occupancy.png": lambda: occupancies(problem, solutions[name, 2], name),
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


def convergence(solutions: Solutions) -> Figure:
    """Figure 5: payments, feasibility, value and objective from initialisation 2."""
    names = _names(solutions)
    figure = Figure((11.0, 3.2 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 3, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        solution = solutions[name, 2]
        plotting.plot_payments(solution, row[0], labels=_LABELS).set_title(f"{name}: payments")
        plotting.plot_feasibility(solution, row[1]).set_title(f"{name}: feasibility")
        plotting.plot_objective(solution, row[2]).set_title(f"{name}: value and objective")
    return figure


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
