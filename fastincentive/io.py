"""Saving and loading: .npz with a JSON header, written to a temporary name and renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastincentive._files import load_arrays, save_arrays
from fastincentive.solution import Ascent, History, Refinement, Solution, Status

__all__ = ["history_arrays", "history_of", "load_solution", "save_solution"]


#: Format of a solution's file.
VERSION = 2


def history_arrays(history: History) -> dict[str, Any]:
    """Return the columns of a history, named for a file."""
    return {f"history_{name}": column for name, column in history.arrays().items()}


def history_of(arrays: dict[str, Any]) -> History:
    """Return the history that a file holds."""
    history = History()
    for name in vars(history):
        column = arrays[f"history_{name}"]
        setattr(history, name, list(column) if column.ndim > 1 else column.tolist())
    return history


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


def load_solution(path: str | Path) -> Solution:
    """Read what ``save_solution`` wrote."""
    header, arrays = load_arrays(path, "solution", VERSION)
    values = header | arrays
    own = {name: values[name] for name in Solution.__dataclass_fields__ if name in values}
    for prefix, kind in _PARTS.items():
        fields = {name: f"{prefix}_{name}" for name in kind.__dataclass_fields__}
        known = {name: values[stored] for name, stored in fields.items() if stored in values}
        own[prefix] = kind(**known) if known else None
    own["status"] = Status(own["status"])
    return Solution(**own, history=history_of(arrays))
