"""Where a run stands, saved and loaded: to go on from with ``solve(..., checkpoint=path)``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from fastincentive._files import load_arrays, save_arrays
from fastincentive.errors import InputError
from fastincentive.io import history_arrays, history_of
from fastincentive.methods._cutting_planes import CuttingPlanes
from fastincentive.methods._state import AscentState
from fastincentive.methods._step_control import StepController
from fastincentive.solution import History

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

#: Format of the file.
VERSION = 3
#: Parts of a state that are groups of arrays.
_GROUPS: dict[str, Any] = {"planes": CuttingPlanes, "controller": StepController}


class Checkpoint(NamedTuple):
    """A file that a run's state is kept in."""

    path: Path
    settings: str  # of the problem and the method: what the state belongs to
    every: int  # iterations

    def exists(self) -> bool:
        """Whether an earlier run left it."""
        return self.path.exists()

    def save(self, state: AscentState, history: History) -> None:
        """Write the state and what led to it."""
        save_checkpoint(self.path, self.settings, state, history)

    def load(self, history: History) -> AscentState:
        """Return the state, and fill an empty history with what led to it."""
        state, before = load_checkpoint(self.path, self.settings)
        for name, column in vars(before).items():
            getattr(history, name).extend(column)
        return state


def save_checkpoint(path: str | Path, settings: str, state: AscentState, history: History) -> None:
    """Write a method's state; its memory of best responses is left out."""
    arrays: dict[str, Any] = {}
    for name, value in state._asdict().items():
        if name in _GROUPS:
            arrays |= {f"{name}_{part}": array for part, array in value._asdict().items()}
        elif name != "memory":
            arrays[f"state_{name}"] = value
    header = {"kind": "checkpoint", "settings": settings}
    save_arrays(path, header, arrays | history_arrays(history), VERSION)


def load_checkpoint(path: str | Path, settings: str) -> tuple[AscentState, History]:
    """Read what ``save_checkpoint`` wrote; the settings must be the same.

    Raises
    ------
    InputError
        If the file is another one, or its settings are others.
    """
    header, arrays = load_arrays(path, "checkpoint", VERSION)
    if header["settings"] != settings:
        raise InputError(
            f"{path}: the checkpoint was written by another problem or method: expected "
            f"{settings}, got {header['settings']}. Remove the file to start afresh."
        )

    def plain(value: Any) -> Any:
        return value if value.ndim else value.item()

    fields: dict[str, Any] = {}
    for name in AscentState._fields:
        if name in _GROUPS:
            group = _GROUPS[name]
            fields[name] = group(*[plain(arrays[f"{name}_{part}"]) for part in group._fields])
        elif name != "memory":
            fields[name] = plain(arrays[f"state_{name}"])
    return AscentState(**fields), history_of(arrays)
