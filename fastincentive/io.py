"""Saving and loading: .npz with a JSON header, written to a temporary name and renamed."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from fastincentive.errors import InputError
from fastincentive.methods.ascent_state import AscentState
from fastincentive.methods.pieces import Pieces
from fastincentive.methods.schedule import Pace
from fastincentive.solution import Ascent, History, Refinement, Solution, Status

__all__ = [
    "load_checkpoint",
    "load_solution",
    "save_checkpoint",
    "save_solution",
    "write_atomically",
]

VERSION = 2


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that readers see the old content or all of the new."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with open(name, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


def _save(path: str | Path, header: dict[str, Any], arrays: dict[str, Any]) -> None:
    from io import BytesIO

    buffer = BytesIO()
    text = np.frombuffer(json.dumps({"version": VERSION, **header}).encode(), np.uint8)
    np.savez_compressed(buffer, header=text, **arrays)
    write_atomically(path, buffer.getvalue())


def _load(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(bytes(arrays.pop("header")).decode())
    except (ValueError, KeyError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise InputError(f"{path}: not a file written by fastincentive ({error})") from error
    if header.get("kind") != kind or header.get("version") != VERSION:
        raise InputError(
            f"{path}: expected a {kind} of format {VERSION}, got {header.get('kind')} of format "
            f"{header.get('version')}"
        )
    return header, arrays


def _history_arrays(history: History) -> dict[str, Any]:
    return {f"history_{name}": column for name, column in history.arrays().items()}


def _history(arrays: dict[str, Any]) -> History:
    history = History()
    for name in vars(history):
        column = arrays[f"history_{name}"]
        setattr(history, name, list(column) if column.ndim > 1 else column.tolist())
    return history


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
    _save(path, header, arrays | _history_arrays(history))


def load_checkpoint(path: str | Path, settings: str) -> tuple[AscentState, History]:
    """Read what ``save_checkpoint`` wrote; the settings must be the same."""
    header, arrays = _load(path, "checkpoint")
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
    return AscentState(**fields), _history(arrays)


def save_solution(path: str | Path, solution: Solution) -> None:
    """Write a solution to a .npz file (arrays and a JSON header; no pickles)."""
    arrays: dict[str, Any] = _history_arrays(solution.history)
    header: dict[str, Any] = {"kind": "solution"}
    for prefix, part in (("", solution), *((f"{n}_", getattr(solution, n)) for n in _PARTS)):
        for name, value in ({} if part is None else vars(part)).items():
            if isinstance(value, np.ndarray):
                arrays[prefix + name] = value
            elif value is not None and not isinstance(value, (History, *_PARTS.values())):
                header[prefix + name] = value
    _save(path, header, arrays)


#: Parts of a solution that may be missing, with what their names start with in a file.
_PARTS: dict[str, type[Ascent | Refinement]] = {"ascent": Ascent, "refinement": Refinement}


def load_solution(path: str | Path) -> Solution:
    """Read what ``save_solution`` wrote."""
    header, arrays = _load(path, "solution")
    values = header | arrays
    own = {name: values[name] for name in Solution.__dataclass_fields__ if name in values}
    for prefix, kind in _PARTS.items():
        fields = {name: f"{prefix}_{name}" for name in kind.__dataclass_fields__}
        known = {name: values[stored] for name, stored in fields.items() if stored in values}
        own[prefix] = kind(**known) if known else None
    own["status"] = Status(own["status"])
    return Solution(**own, history=_history(arrays))
