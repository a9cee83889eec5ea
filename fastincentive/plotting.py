"""Figures: grids, occupancies, the course of a run, contours (needs the ``plot`` extra).

Every function draws into ``ax``, or into a new pyplot figure, and returns the axes; none shows
anything. Colours are those of Okabe and Ito, which most colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fastincentive.errors import InputError, invalid, missing_extra
from fastincentive.models.grid import Cell, Grid
from fastincentive.problem import IncentiveProblem
from fastincentive.solution import History, Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_contours",
    "plot_feasibility",
    "plot_grid",
    "plot_objective",
    "plot_occupancy",
    "plot_payments",
]

#: Okabe and Ito's colours without yellow and black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: More curves than this get neither a colour of their own nor a legend.
_MOST_LABELLED = len(COLOURS)
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
#: -q below this counts as zero on the logarithmic axis of ``plot_feasibility``.
_ZERO_GAP = 1e-12


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
    ax = _axes(ax)
    grid = _grid_of(problem)
    from matplotlib.patches import Patch

    lines = _cell_lines(problem, grid, payment_labels)
    size = _font_size(ax, grid, 5.2)
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
    ax = _axes(ax)
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
    ax.figure.colorbar(mesh, ax=ax, label="expected discounted visits", shrink=0.9)
    ax.set_title("State occupancy")
    return ax


def plot_payments(
    history: History | Solution, ax: Axes | None = None, *, labels: Sequence[str] | None = None
) -> Axes:
    """Draw the payments over the iterations (Figures 4, 5a, 5d).

    Parameters
    ----------
    history : History or Solution
    ax : matplotlib Axes, optional
    labels : sequence of k str, optional
        By default "payment 0", "payment 1", ...; left out when there are more than six payments.

    Returns
    -------
    matplotlib Axes
    """
    ax = _axes(ax)
    payments = _column(history, "payments")
    count = payments.shape[1]
    if labels is not None and len(labels) != count:
        raise invalid("labels", f"{count} names, one per payment", len(labels))
    few = count <= _MOST_LABELLED
    for k in range(count):
        name = f"payment {k}" if labels is None else labels[k]
        if few:
            _line(ax, payments[:, k], COLOURS[k], name, "-" if k % 2 == 0 else "--")
        else:
            ax.plot(payments[:, k], color=COLOURS[0], linewidth=0.8, alpha=0.5)
    ax.set_ylabel("payment (units of reward)")
    ax.set_ylim(bottom=min(0.0, float(payments.min(initial=0.0))))
    _finish(ax, "Payments" if few else f"Payments, {count} in all", legend=few)
    return ax


def plot_feasibility(history: History | Solution, ax: Axes | None = None) -> Axes:
    """Draw -q, the sum of the followers' gaps, on a logarithmic scale (Figures 5b, 5e).

    Parameters
    ----------
    history : History or Solution
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Notes
    -----
    Below 1e-12 the scale is linear, so that zeros, and the negative -q that a smoothed response
    can give, are shown and not dropped.
    """
    ax = _axes(ax)
    short = -_column(history, "feasibility")
    _line(ax, short, COLOURS[0], "−q", "-")
    ax.set_yscale("symlog", linthresh=_ZERO_GAP, linscale=0.5)
    top = int(np.ceil(np.log10(max(float(np.abs(short).max(initial=0.0)), 1e3 * _ZERO_GAP))))
    bottom = round(np.log10(_ZERO_GAP))
    powers = 10.0 ** np.arange(bottom, top + 1, 2 if top - bottom < 10 else 3)
    below = -powers[::2] if short.min(initial=0.0) < -_ZERO_GAP else np.empty(0)
    ax.set_yticks([*below[::-1], 0.0, *powers])
    ax.set_ylim(below.min(initial=-0.3 * _ZERO_GAP), 10.0**top)
    ax.minorticks_off()
    ax.axhline(0.0, color="0.4", linewidth=0.8, linestyle=":")
    ax.set_ylabel("−q, sum of gaps (units of reward)")
    _finish(ax, "Feasibility", legend=False)
    return ax


def plot_objective(history: History | Solution, ax: Axes | None = None) -> Axes:
    """Draw the leader's value and objective over the iterations (Figures 5c, 5f).

    Parameters
    ----------
    history : History or Solution
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = _axes(ax)
    _line(ax, _column(history, "leader_value"), COLOURS[0], "leader's value V", "-")
    _line(ax, _column(history, "objective"), COLOURS[1], "objective V − w C(x)", "--")
    ax.set_ylabel("leader's value (units of reward)")
    _finish(ax, "Leader's value and objective", legend=True)
    return ax


def plot_contours(
    x1: ArrayLike,
    x2: ArrayLike,
    values: ArrayLike,
    points: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw contours of a function of two payments, and points on it (Figure 2).

    Parameters
    ----------
    x1 : array (a,)
    x2 : array (b,)
    values : array (b, a)
        ``values[j, i]`` at (x1[i], x2[j]).
    points : array (m, 2), optional
        Marked, and labelled with their coordinates.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = _axes(ax)
    first, second, height = np.asarray(x1), np.asarray(x2), np.asarray(values)
    if height.shape != (second.size, first.size):
        raise invalid("values", f"shape ({second.size}, {first.size})", height.shape)
    marked = np.empty((0, 2)) if points is None else np.atleast_2d(np.asarray(points, float))
    if marked.ndim != 2 or marked.shape[1] != 2:
        raise invalid("points", "an array (m, 2)", marked.shape)
    levels = np.linspace(height.min(), height.max() + 1e-9, 22)
    filled = ax.contourf(first, second, height, levels=levels, cmap="cividis")
    ax.contour(first, second, height, levels=levels, colors="white", linewidths=0.4, alpha=0.6)
    bar = ax.figure.colorbar(filled, ax=ax, label="$f_m$ (units of reward)")
    bar.set_ticks(np.arange(np.ceil(height.min()), np.floor(height.max()) + 1.0))
    ax.plot(*marked.T, "o", color="white", markeredgecolor="black", markersize=8, clip_on=False)
    middle_1, middle_2 = first.mean(), second.mean()
    for a, b in marked:
        # Towards the middle of the axes, so that labels stay inside.
        side, up = (1 if a <= middle_1 else -1), (1 if b <= middle_2 else -1)
        ax.annotate(
            f"({a:.3g}, {b:.3g})",
            (a, b),
            (7 * side, 9 * up),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="bottom" if up > 0 else "top",
            fontsize=9,
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "alpha": 0.8, "linewidth": 0},
        )
    ax.set_xlabel("payment $x_1$ (units of reward)")
    ax.set_ylabel("payment $x_2$ (units of reward)")
    ax.set_title("Leader's objective $f_m(x)$")
    return ax


# -- pieces --------------------------------------------------------------------------------------


def _axes(ax: Axes | None) -> Axes:
    """Return the axes, or those of a new figure; name the extra if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise missing_extra("matplotlib", "plot") from None
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(layout="constrained")
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
    lines: dict[Cell, list[str]] = {}
    everyone = len(set(grid.starts)) <= 1
    for r, c in np.ndindex(*grid.shape):
        kind = grid.rows[r][c]
        text = [] if kind in ".S#" else _KINDS[kind][0].split()
        who = [i for i, cell in enumerate(grid.starts) if cell == (r, c)]
        if who:
            text.append("start" if everyone else "start of\n" + _list(who))
        lines[r, c] = text
    if not isinstance(problem, IncentiveProblem):
        return lines
    bound = problem.payments
    if payment_labels is not None and len(payment_labels) != bound.size:
        raise invalid("payment_labels", f"{bound.size} names", len(payment_labels))
    rewards = problem.followers.rewards
    for (r, c), text in lines.items():
        state = grid.shape[1] * r + c
        common = rewards[0, state, 0]
        if text and common and (rewards[:, state] == common).all():
            text[-1] += f" {common:+g}".replace("-", "−")
        paid = np.unique(bound.index[:, state])
        paid = paid[paid >= 0].tolist()
        if paid and payment_labels is not None:
            text.append("+ " + _list([payment_labels[k] for k in paid]))
        elif paid:
            text.append("pay " + _list(paid))
    return lines


def _list(items: Sequence[object]) -> str:
    return ", ".join(str(item) for item in items[:3]) + (", …" if len(items) > 3 else "")


def _font_size(ax: Axes, grid: Grid, ems: float) -> float:
    """Return the size in points at which ``ems`` letters fit a cell, at most 10."""
    figure = ax.get_figure(root=True)
    assert figure is not None  # for the type checker
    box = ax.get_position()
    points = 72.0 * figure.get_size_inches()
    cell = min(box.width * points[0] / grid.shape[1], box.height * points[1] / grid.shape[0])
    return min(cell / ems, 10.0)


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


def _column(history: History | Solution, name: str) -> np.ndarray:
    """One column of a run's history: (nit,), or (nit, k) for the payments."""
    record = history.history if isinstance(history, Solution) else history
    if not isinstance(record, History):
        raise InputError(f"history: expected a History or a Solution, got {type(history).__name__}")
    if len(record) == 0:
        raise invalid("history", "at least one iteration", "none")
    return record.arrays()[name]


def _line(ax: Axes, values: np.ndarray, colour: str, name: str, style: str) -> None:
    """Draw a curve over the iterations, its end marked (a single point would be invisible)."""
    ax.plot(
        values,
        style,
        color=colour,
        linewidth=1.8,
        label=name,
        marker="o",
        markevery=[len(values) - 1],
    )


def _finish(ax: Axes, title: str, legend: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("iteration")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.set_title(title)
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(frameon=True, framealpha=0.85, edgecolor="0.9")
