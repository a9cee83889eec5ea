"""Files of arrays with a JSON header, written to a temporary name and renamed."""

from __future__ import annotations

import json
import math
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from fastincentive.errors import InputError

__all__ = ["json_text", "load_arrays", "save_arrays", "write_atomically"]


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


def json_text(value: Any, indent: int = 2) -> str:
    """Write plain data as JSON; what JSON cannot say, infinities and NaN, becomes null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_arrays(
    path: str | Path, header: dict[str, Any], arrays: dict[str, Any], version: int
) -> None:
    """Write arrays and a header, with the version of their format."""
    from io import BytesIO

    buffer = BytesIO()
    text = np.frombuffer(json.dumps({"version": version, **header}).encode(), np.uint8)
    np.savez_compressed(buffer, header=text, **arrays)
    write_atomically(path, buffer.getvalue())


def load_arrays(path: str | Path, kind: str, version: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the arrays of a file of this kind and version, or raise."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(bytes(arrays.pop("header")).decode())
    except (ValueError, KeyError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise InputError(f"{path}: not a file written by fastincentive ({error})") from error
    if header.get("kind") != kind or header.get("version") != version:
        raise InputError(
            f"{path}: expected a {kind} of format {version}, got {header.get('kind')} of format "
            f"{header.get('version')}"
        )
    return header, arrays
