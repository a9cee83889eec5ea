"""Drawings on the map of a gridworld: its cells, and occupancies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fastincentive.errors import InputError, invalid, missing_extra
from fastincentive.models.grid import Cell, Grid
from fastincentive.problem.problem import IncentiveProblem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["axes_or_new", "plot_grid", "plot_occupancy"]

#: Name and background of a cell, by its character on the map.
_KINDS = {
    "F": ("fire", "#F2B8A0"),
    "G": ("goal", "#A6DCC8"),
    "L": ("lesser goal", "#BFDDF2"),
    "#": ("wall", "#6B6B6B"),
    ".": ("free", "#FFFFFF"),
    "S": ("free", "#FFFFFF"),
}
_START = "#F7E9B0"


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the axes, or those of a new figure; name the extra if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise missing_extra("matplotlib", "plot") from None
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(layout="constrained")
    return ax


def plot_grid(
    problem: IncentiveProblem | Grid,
    ax: Axes | None = None,
    *,
    payment_labels: Sequence[str] | None = None,
) -> Axes:
    """Draw a map: fires, goals, lesser goals, starts and walls (Figure 3).

    Parameters
    ----------
    problem : IncentiveProblem or Grid
        A problem made by ``models.gridworld`` or ``models.paper_gridworld`` also shows rewards and
        where the leader may pay.
    ax : matplotlib Axes, optional
    payment_labels : sequence of k str, optional
        Names of the payments; by default "pay 0", "pay 1", ...

    Returns
    -------
    matplotlib Axes
    """
    ax = axes_or_new(ax)
    grid = _grid_of(problem)
    from matplotlib.patches import Patch

    lines = _cell_lines(problem, grid, payment_labels)
    longest = max((len(part) for text in lines.values() for part in text), default=0)
    size = _font_size(ax, grid, max(5.2, 0.55 * longest))
    spelled = size >= 5.0
    size = size if spelled else _font_size(ax, grid, 1.6)
    used = set()
    for r, row in enumerate(grid.rows):
        for c, kind in enumerate(row):
            start = (r, c) in grid.starts
            name, colour = _KINDS[kind]
            if start and kind in ".S":
                name, colour = "start", _START
            _draw_cell(ax, (r, c), colour, wall=kind == "#")
            if name != "free":
                used.add((name, colour))
            if spelled and lines[r, c]:
                ax.text(c, r, "\n".join(lines[r, c]), ha="center", va="center", fontsize=size)
            elif not spelled and name not in ("free", "wall"):
                ax.text(c, r, name[0].upper(), ha="center", va="center", fontsize=size)
    if not spelled:
        handles = [
            Patch(facecolor=colour, edgecolor="0.5", label=name) for name, colour in sorted(used)
        ]
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    _frame(ax, grid)
    ax.set_title(f"Gridworld, {grid.shape[0]} × {grid.shape[1]} cells")
    return ax


def plot_occupancy(
    problem: IncentiveProblem | Grid,
    occupancy: ArrayLike,
    ax: Axes | None = None,
    *,
    maximum: float | None = None,
) -> Axes:
    """Draw one follower's state occupancy as a heat map over the grid (Figure 6).

    Parameters
    ----------
    problem : IncentiveProblem or Grid
        A problem made by ``models.gridworld`` or ``models.paper_gridworld``.
    occupancy : array (S,)
        Visits of each state, for example ``occupancy_measure(mdp, policy).sum(axis=1)``; those of
        the Sink are left out.
    ax : matplotlib Axes, optional
    maximum : float, optional
        Where the colour scale ends, to share it between panels; by default the largest entry.

    Returns
    -------
    matplotlib Axes
    """
    ax = axes_or_new(ax)
    grid = _grid_of(problem)
    visits = np.asarray(occupancy, float)
    if visits.shape != (grid.sink + 1,):
        raise invalid("occupancy", f"shape ({grid.sink + 1},), cells and Sink", visits.shape)
    height, width = grid.shape
    table = np.ma.masked_array(visits[:-1].reshape(height, width), np.zeros(grid.shape, bool))
    for cell in grid.walls:
        table[cell] = np.ma.masked
    top = float(table.max()) if maximum is None else float(maximum)
    top = top if top > 0 else 1.0
    mesh = ax.pcolormesh(
        np.arange(width + 1) - 0.5,
        np.arange(height + 1) - 0.5,
        table,
        cmap="YlGnBu",
        vmin=0.0,
        vmax=top,
        edgecolors="0.85",
        linewidth=0.5,
    )
    size = _font_size(ax, grid, 3.6)
    for r, c in np.ndindex(height, width):
        kind = grid.rows[r][c]
        if kind == "#":
            _draw_cell(ax, (r, c), _KINDS["#"][1], wall=True)
            continue
        ink = "white" if table[r, c] > 0.55 * top else "black"
        if size >= 4.0 and table[r, c] >= 0.005:
            ax.text(c, r, f"{table[r, c]:.2f}", ha="center", va="center", color=ink, fontsize=size)
        letters = ("S" if (r, c) in grid.starts else "") + (kind if kind in "FGL" else "")
        if size >= 4.0 and letters:
            ax.text(
                c - 0.44, r - 0.42, letters, ha="left", va="top", color=ink, fontsize=0.75 * size
            )
    _frame(ax, grid)
    shrink = 0.9 * min(1.0, height / width)
    ax.figure.colorbar(mesh, ax=ax, label="expected discounted visits", shrink=shrink)
    ax.set_title("State occupancy")
    return ax


def _grid_of(problem: IncentiveProblem | Grid) -> Grid:
    grid = problem if isinstance(problem, Grid) else getattr(problem, "grid", None)
    if not isinstance(grid, Grid):
        raise InputError(
            "problem: expected a Grid, or a problem with one, such as models.gridworld() makes; "
            f"got {type(problem).__name__} without a grid"
        )
    return grid


def _cell_lines(
    problem: IncentiveProblem | Grid, grid: Grid, payment_labels: Sequence[str] | None
) -> dict[Cell, list[str]]:
    """Text of each cell: what it is, what it pays the followers, what the leader may add."""
    if isinstance(problem, IncentiveProblem):
        rewards, paid = problem.followers.rewards, problem.payments.index
        names = [str(k) for k in range(problem.payments.size)]
        if payment_labels is not None and len(payment_labels) != len(names):
            raise invalid("payment_labels", f"{len(names)} names", len(payment_labels))
        names = names if payment_labels is None else list(payment_labels)
    else:
        rewards, paid, names = np.zeros((1, grid.sink, 1)), np.full((1, grid.sink, 1), -1), []
    lines: dict[Cell, list[str]] = {}
    together = len(set(grid.starts)) <= 1
    for r, c in np.ndindex(*grid.shape):
        kind, state = grid.rows[r][c], grid.shape[1] * r + c
        text = [] if kind in ".S#" else _KINDS[kind][0].split()
        common = rewards[0, state, 0]
        if text and common and (rewards[:, state] == common).all():
            text[-1] += f" {common:+g}".replace("-", "−")
        who = [str(i) for i, cell in enumerate(grid.starts) if cell == (r, c)]
        if who:
            text += ["start"] if together else ["start of", _list(who)]
        reach = [names[k] for k in np.unique(paid[:, state]) if k >= 0]
        if reach:
            text.append(("pay " if payment_labels is None else "+ ") + _list(reach))
        lines[r, c] = text
    return lines


def _list(items: Sequence[str]) -> str:
    return ", ".join(items[:3]) + (", …" if len(items) > 3 else "")


def _font_size(ax: Axes, grid: Grid, ems: float) -> float:
    """Return the size in points at which ``ems`` letters fit a cell, at most 10."""
    figure = ax.get_figure(root=True)
    assert figure is not None  # for the type checker
    box = ax.get_position()
    points = 72.0 * figure.get_size_inches()
    cell = min(box.width * points[0] / grid.shape[1], box.height * points[1] / grid.shape[0])
    return float(min(cell / ems, 10.0))


def _draw_cell(ax: Axes, cell: Cell, colour: str, wall: bool) -> None:
    from matplotlib.patches import Rectangle

    corner = (cell[1] - 0.5, cell[0] - 0.5)
    hatch = "///" if wall else None
    ax.add_patch(
        Rectangle(corner, 1, 1, facecolor=colour, edgecolor="0.6", linewidth=0.7, hatch=hatch)
    )


def _frame(ax: Axes, grid: Grid) -> None:
    height, width = grid.shape
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.set_xticks(range(0, width, 1 + width // 20))
    ax.set_yticks(range(0, height, 1 + height // 20))
    ax.tick_params(length=0)
    ax.set_xlabel("column")
    ax.set_ylabel("row")
