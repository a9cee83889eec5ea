"""Where a run stands, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastincentive._files import load_arrays, save_arrays
from fastincentive.errors import InputError
from fastincentive.io import history_arrays, history_of
from fastincentive.methods._cutting_planes import Pieces
from fastincentive.methods._state import AscentState
from fastincentive.methods._step_control import Pace
from fastincentive.solution import History

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(path: str | Path, settings: str, state: AscentState, history: History) -> None:
    """Write a method's state, to go on from with ``solve(..., checkpoint=path)``."""
    arrays: dict[str, Any] = {}
    for name, value in state._asdict().items():
        if name == "memory":
            continue
        if isinstance(value, (Pieces, Pace)):
            arrays |= {f"{name}_{part}": held for part, held in value._asdict().items()}
        else:
            arrays[f"state_{name}"] = value
    header = {"kind": "checkpoint", "settings": settings}
    save_arrays(path, header, arrays | history_arrays(history))


def load_checkpoint(path: str | Path, settings: str) -> tuple[AscentState, History]:
    """Read what ``save_checkpoint`` wrote; the settings must be the same."""
    header, arrays = load_arrays(path, "checkpoint")
    if header["settings"] != settings:
        raise InputError(
            f"{path}: the checkpoint was written by another problem or method: expected "
            f"{settings}, got {header['settings']}. Remove the file to start afresh."
        )

    def plain(value: Any) -> Any:
        return value if value.ndim else value.item()

    fields: dict[str, Any] = {}
    groups: dict[str, Any] = {"pieces": Pieces, "pace": Pace}
    for name in AscentState._fields:
        if name == "memory":
            continue
        if name in groups:
            group = groups[name]
            fields[name] = group(*[plain(arrays[f"{name}_{part}"]) for part in group._fields])
        else:
            fields[name] = plain(arrays[f"state_{name}"])
    return AscentState(**fields), history_of(arrays)
