"""What a sweep found, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastincentive._tables import text_table

__all__ = [
    "Failure",
    "Sweep",
    "SweepItem",
    "first_traceback",
    "number_cell",
    "outcome_cell",
    "short_cell",
]

#: What the table shows of a setting or a message is cut to so many characters.
WIDTH = 40


class Failure(NamedTuple):
    """The exception that ended an item, as text."""

    type: str
    message: str
    traceback: str


@dataclass(frozen=True)
class SweepItem:
    """One solve of a sweep.

    Attributes
    ----------
    index : int
        Position in the sweep.
    settings : dict
        The keyword arguments, common ones and the item's own seed included:
        ``solve(problem, **item.settings)`` is the same run.
    solution : Solution or None
        What ``solve`` returned; None if it failed.
    error : Failure or None
        Type, message and traceback of the exception, if it failed.
    seconds : float
        Time where it ran; nan if the worker was lost.
    """

    index: int
    settings: dict[str, Any]
    solution: Any
    error: Failure | None
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """What became of each item, in the order in which they were given.

    Attributes
    ----------
    items : tuple of SweepItem
    """

    items: tuple[SweepItem, ...]

    @property
    def solutions(self) -> list[Any]:
        """The solutions of the items that did not fail, in order."""
        return [item.solution for item in self.items if item.error is None]

    @property
    def failures(self) -> list[SweepItem]:
        """The items that failed, in order."""
        return [item for item in self.items if item.error is not None]

    @property
    def best_item(self) -> SweepItem:
        """The item whose solution has the largest objective, the first of equal ones.

        Raises
        ------
        ValueError
            If every item failed.
        """
        solved = [item for item in self.items if item.error is None]
        if not solved:
            raise ValueError(f"no item was solved; the first failed with\n{first_traceback(self)}")
        return max(solved, key=lambda item: float(item.solution.objective))

    @property
    def best(self) -> Any:
        """The solution with the largest objective, see ``best_item``."""
        return self.best_item.solution

    def __str__(self) -> str:
        """Return a table, one row per item, with the settings in which items differ."""
        names = list(dict.fromkeys(name for item in self.items for name in item.settings))
        columns = {
            name: [short_cell(item.settings.get(name, "")) for item in self.items] for name in names
        }
        columns = {name: shown for name, shown in columns.items() if len(set(shown)) > 1}
        rows = [
            [
                str(item.index),
                *(shown[k] for shown in columns.values()),
                number_cell(getattr(item.solution, "objective", None)),
                number_cell(getattr(item.solution, "leader_value", None)),
                f"{item.seconds:.3f}",
                outcome_cell(item),
            ]
            for k, item in enumerate(self.items)
        ]
        header = ["item", *columns, "objective", "leader value", "seconds", "outcome"]
        return text_table(header, rows, "r" * (len(header) - 1) + "l")


def first_traceback(found: Sweep) -> str:
    """Return the traceback of the first failure."""
    error = found.failures[0].error
    return "" if error is None else error.traceback


def number_cell(value: object) -> str:
    """Write a number for a table; anything else is left out."""
    return f"{value:.6f}" if isinstance(value, (float, np.floating)) else ""


def outcome_cell(item: SweepItem) -> str:
    """Status of a solution, or the error."""
    if item.error is not None:
        return _shortened(f"{item.error.type}: {item.error.message}", 2 * WIDTH)
    status = getattr(item.solution, "status", None)
    return getattr(status, "name", "done").lower().replace("_", " ")


def short_cell(value: object) -> str:
    """Show a setting in a few characters."""
    if isinstance(value, str):
        return _shortened(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, np.ndarray):
        return _shortened(np.array2string(value, precision=4, threshold=4, edgeitems=2))
    return _shortened(repr(value))


def _shortened(text: str, width: int = WIDTH) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."
