"""Saving and loading: .npz with a JSON header, written to a temporary name and renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastincentive._arrays import as_numbers, check_shape
from fastincentive._checks import check_fields, checked
from fastincentive._files import foreign, load_arrays, save_arrays
from fastincentive.solution import Ascent, History, Refinement, Solution, Status

__all__ = ["history_arrays", "history_of", "load_solution", "save_solution"]


#: Format of a solution's file.
VERSION = 3


def history_arrays(history: History) -> dict[str, Any]:
    """Return the columns of a history, named for a file."""
    return {f"history_{name}": column for name, column in history.arrays().items()}


def history_of(arrays: dict[str, Any]) -> History:
    """Return the history that a file holds."""
    history = History()
    for name in vars(history):
        column = as_numbers(name, arrays[f"history_{name}"])
        setattr(history, name, list(column) if column.ndim > 1 else column.tolist())
    return history


@checked
def save_solution(path: str | Path, solution: Solution) -> None:
    """Write a solution to a .npz file (arrays and a JSON header; no pickles)."""
    arrays: dict[str, Any] = history_arrays(solution.history)
    header: dict[str, Any] = {"kind": "solution"}
    for prefix, part in (("", solution), *((f"{n}_", getattr(solution, n)) for n in _PARTS)):
        for name, value in ({} if part is None else vars(part)).items():
            if isinstance(value, np.ndarray):
                arrays[prefix + name] = value
            elif value is not None and not isinstance(value, (History, *_PARTS.values())):
                header[prefix + name] = value
    save_arrays(path, header, arrays, VERSION)


#: Parts of a solution that may be missing, with what their names start with in a file.
_PARTS: dict[str, type[Ascent | Refinement]] = {"ascent": Ascent, "refinement": Refinement}


@checked
def load_solution(path: str | Path) -> Solution:
    """Read what ``save_solution`` wrote.

    Raises
    ------
    InputError
        If the file is another one, or its content is not that of a solution.
    """
    header, arrays = load_arrays(path, "solution", VERSION)
    try:
        return _solution_of(header | arrays, arrays)
    except (LookupError, TypeError, ValueError) as error:
        raise foreign(path, error) from error


def _solution_of(values: dict[str, Any], arrays: dict[str, Any]) -> Solution:
    own = {name: values[name] for name in Solution.__dataclass_fields__ if name in values}
    for prefix, kind in _PARTS.items():
        fields = {name: f"{prefix}_{name}" for name in kind.__dataclass_fields__}
        known = {name: values[stored] for name, stored in fields.items() if stored in values}
        own[prefix] = kind(**known) if known else None
    own["status"] = Status(own["status"])
    solution = Solution(**own, history=history_of(arrays))
    for part in (solution, *(getattr(solution, name) for name in _PARTS)):
        if part is not None:
            check_fields(part)
    shape, size = solution.policies.shape, solution.payments.shape
    for part in (solution, solution.ascent, solution.refinement):
        for name in ("payments", "side_payments", "policies", "pessimistic_policies", "theta"):
            if hasattr(part, name):
                wanted = size if name == "payments" else shape
                check_shape(name, getattr(part, name), wanted, "as the solution's own")
        for name in ("follower_gaps", "multipliers", "margins"):
            if getattr(part, name, None) is not None:
                check_shape(name, getattr(part, name), shape[:1], "one per follower")
    if solution.mixed is not None:
        check_shape("mixed", solution.mixed, shape[:2], "one per follower and state")
    for name, column in solution.history.arrays().items():
        wanted = (len(solution.history),)
        if name == "payments" and wanted[0]:
            wanted += size
        check_shape(f"history_{name}", column, wanted, "an entry for each iteration")
    return solution
