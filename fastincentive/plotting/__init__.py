"""Figures: grids, occupancies, runs, contours, trade-offs (needs the ``plot`` extra).

Every function draws into ``ax``, or into a new pyplot figure, and returns the axes; none shows
anything. Colours are those of Okabe and Ito, which most colour-blind readers can tell apart.
"""

from fastincentive.plotting.grid import plot_grid, plot_occupancy
from fastincentive.plotting.solutions import (
    plot_contours,
    plot_feasibility,
    plot_gradient_audit,
    plot_objective,
    plot_pareto,
    plot_payments,
)

__all__ = [
    "plot_contours",
    "plot_feasibility",
    "plot_gradient_audit",
    "plot_grid",
    "plot_objective",
    "plot_occupancy",
    "plot_pareto",
    "plot_payments",
]
