"""Figures of runs, payments, contours and trade-offs; ``plotting.grid`` has those on maps.

Every function draws into ``ax``, or into a new pyplot figure, and returns the axes; none shows
anything. Colours are those of Okabe and Ito, which most colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fastincentive.errors import InputError, invalid
from fastincentive.plotting.grid import axes_or_new
from fastincentive.solution import History, Solution
from fastincentive.studies.pareto_front import ParetoFront

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastincentive.studies.audit import GradientAudit

__all__ = [
    "plot_contours",
    "plot_feasibility",
    "plot_gradient_audit",
    "plot_objective",
    "plot_pareto",
    "plot_payments",
]

#: Okabe and Ito's colours without yellow and black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: More curves than this get neither a colour of their own nor a legend.
_MOST_LABELLED = len(COLOURS)
#: -q below this counts as zero on the logarithmic axis of ``plot_feasibility``.
_ZERO_GAP = 1e-12
#: ``plot_pareto`` names the weight or budget of at most this many points.
_MOST_NAMED = 6


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
    ax = axes_or_new(ax)
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
    top = max(float(payments.max()), 1e-9)
    ax.set_ylim(-0.04 * top, 1.08 * top)
    _finish_curves(ax, "Payments" if few else f"Payments, {count} in all", legend=few)
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
    ax = axes_or_new(ax)
    short = -_column(history, "feasibility")
    _line(ax, short, COLOURS[0], "−q", "-")
    ax.set_yscale("symlog", linthresh=_ZERO_GAP, linscale=1.0)
    top = int(np.ceil(np.log10(max(float(np.abs(short).max(initial=0.0)), 1e3 * _ZERO_GAP))))
    bottom = round(np.log10(_ZERO_GAP))
    powers = 10.0 ** np.arange(bottom, top + 1, 2 if top - bottom < 10 else 3)
    below = -powers[::2] if short.min(initial=0.0) < -_ZERO_GAP else np.empty(0)
    ax.set_yticks([*below[::-1], 0.0, *powers])
    ax.set_ylim(below.min(initial=-0.3 * _ZERO_GAP), 10.0**top)
    ax.minorticks_off()
    ax.axhline(0.0, color="0.4", linewidth=0.8, linestyle=":")
    ax.set_ylabel("−q, sum of gaps (units of reward)")
    _finish_curves(ax, "Feasibility", legend=False)
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
    ax = axes_or_new(ax)
    _line(ax, _column(history, "leader_value"), COLOURS[0], "leader's value V", "-")
    _line(ax, _column(history, "objective"), COLOURS[1], "objective V − w C(x)", "--")
    ax.set_ylabel("leader's value (units of reward)")
    _finish_curves(ax, "Leader's value and objective", legend=True)
    return ax


def plot_gradient_audit(audit: GradientAudit, ax: Axes | None = None) -> Axes:
    """Draw how far estimates of the gradient are off, in standard errors, entry by entry.

    Parameters
    ----------
    audit : GradientAudit
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Notes
    -----
    Sorted errors against the quantiles of a normal distribution: those of an unbiased estimate with
    right standard errors lie along the diagonal.
    """
    from scipy.special import ndtri

    ax = axes_or_new(ax)
    for k, name in enumerate(audit.estimates):
        off = np.sort(audit.bias(name))
        quantiles = ndtri((np.arange(off.size) + 0.5) / max(off.size, 1))
        share = audit.variance(name) / max(audit.variance(next(iter(audit.estimates))), 1e-300)
        ax.plot(
            quantiles,
            off,
            color=COLOURS[k % len(COLOURS)],
            marker=".",
            markersize=4,
            linewidth=0.8,
            label=f"{name} (variance {share:.2g})",
        )
    ax.axline((0.0, 0.0), slope=1.0, color="0.4", linewidth=0.8, linestyle=":")
    ax.set_xlabel("normal quantile")
    ax.set_ylabel("error (standard errors)")
    ax.set_title("Estimated gradients against the exact one")
    ax.legend(fontsize="small")
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
    ax = axes_or_new(ax)
    first, second, height = np.asarray(x1), np.asarray(x2), np.asarray(values)
    if height.shape != (second.size, first.size):
        raise invalid("values", f"shape ({second.size}, {first.size})", height.shape)
    marked = np.empty((0, 2)) if points is None else np.atleast_2d(np.asarray(points, float))
    if marked.ndim != 2 or marked.shape[1] != 2:
        raise invalid("points", "an array (m, 2)", marked.shape)
    levels = np.linspace(height.min(), height.max() + 1e-9, 22)
    filled = ax.contourf(first, second, height, levels=levels, cmap="cividis")
    ax.contour(
        first,
        second,
        height,
        levels=levels,
        colors="white",
        linewidths=0.4,
        linestyles="solid",
        alpha=0.6,
    )
    bar = ax.figure.colorbar(filled, ax=ax, label="$f_m$ (units of reward)")
    bar.set_ticks([*np.arange(np.ceil(height.min()), np.floor(height.max()) + 1.0)])
    ax.plot(*marked.T, "o", color="white", markeredgecolor="black", markersize=8, clip_on=False)
    for a, b in marked:
        # To the upper right, but inwards near the right and the upper border.
        side = 1 if a <= 0.3 * first.min() + 0.7 * first.max() else -1
        up = 1 if b <= 0.1 * second.min() + 0.9 * second.max() else -1
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


def plot_pareto(
    front: ParetoFront, ax: Axes | None = None, *, expected_spend: bool = False
) -> Axes:
    """Draw the leader's value against the cost of the payments.

    Efficient points are joined by a staircase: at any cost, the value of the best point that costs
    no more. Some are labelled with the weight, the lowest if several lead to one point, or with
    the budget.

    Parameters
    ----------
    front : ParetoFront
    ax : matplotlib Axes, optional
    expected_spend : bool
        Also draw the value against what is paid out in expectation, where that is finite.

    Returns
    -------
    matplotlib Axes
    """
    ax = axes_or_new(ax)
    if not isinstance(front, ParetoFront):
        raise InputError(f"front: expected a ParetoFront, got {type(front).__name__}")
    best = front.efficient & np.isfinite(front.costs)
    order = np.lexsort((front.leader_values, front.costs))
    order = order[best[order]]
    cost, value = front.costs[order], front.leader_values[order]
    ax.step(cost, value, where="post", color=COLOURS[0], linewidth=1.8)
    ax.plot(cost, value, "o", color=COLOURS[0], label="value against cost")
    others = ~best
    if others.any():
        ax.plot(
            front.costs[others],
            front.leader_values[others],
            "o",
            markerfacecolor="white",
            color=COLOURS[0],
            label="not efficient",
        )
    if expected_spend:
        ax.plot(
            front.expected_spends[order],
            value,
            "D",
            color=COLOURS[1],
            markersize=5,
            label="value against expected spend",
        )
    by_weight = front.budgets is None
    numbers = front.weights if front.budgets is None else front.budgets
    _, first = np.unique(np.column_stack([cost, value]), axis=0, return_index=True)
    for j in _spaced_points(cost[first], value[first]):
        at = order[first[j]]
        # Below and to the right, but inwards near the right border.
        side = 1 if front.costs[at] <= 0.3 * cost.min() + 0.7 * cost.max() else -1
        ax.annotate(
            f"{'w' if by_weight else 'budget'} = {numbers[at]:.3g}",
            (front.costs[at], front.leader_values[at]),
            (6 * side, -6 if side > 0 else -14),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="top",
            fontsize=9,
        )
    ax.margins(x=0.12, y=0.1)
    ax.set_xlabel("cost C" if not expected_spend else "cost C, expected spend")
    ax.set_ylabel("leader's value V (units of reward)")
    _set_style(ax, "Value against cost", legend=expected_spend or bool(others.any()))
    return ax


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


def _finish_curves(ax: Axes, title: str, legend: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("iteration")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    _set_style(ax, title, legend)


def _spaced_points(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Pick at most ``_MOST_NAMED`` points, the ends first, that lie apart from each other."""
    span = np.array([np.ptp(x), np.ptp(y)])
    points = np.column_stack([x, y]) / np.where(span > 0.0, span, 1.0)
    chosen = [0]
    while len(chosen) < _MOST_NAMED:
        # Labels are wide: sideways it takes more room.
        off = np.abs(points[:, None] - points[chosen]) / [0.3, 0.07]
        room = off.max(axis=2).min(axis=1)
        if room.max() < 1.0:
            break
        chosen.append(int(np.argmax(room)))
    return chosen


def _set_style(ax: Axes, title: str, legend: bool) -> None:
    ax.set_title(title)
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(frameon=True, framealpha=0.85, edgecolor="0.9")
