"""Files of arrays with a JSON header, written to a temporary name and renamed."""

from __future__ import annotations

import json
import math
import os
import secrets
import stat
from pathlib import Path
from typing import Any

import numpy as np

from fastincentive.errors import InputError, invalid, shown

__all__ = [
    "check_writable",
    "foreign",
    "json_text",
    "load_arrays",
    "save_arrays",
    "write_atomically",
]


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that readers see the old content or all of the new.

    A link stays a link, to the file that is written; who may read an old file may read the new one.
    """
    path = Path(os.path.realpath(_checked_path(path)))
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    try:
        with open(name, "xb") as file:
            if mode is not None:
                os.chmod(name, stat.S_IMODE(mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


def _checked_path(path: object) -> Path:
    """Return a path that files can have."""
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise invalid("path", "the name of a file", shown(path))
    if "\0" in str(path):
        raise invalid("path", "the name of a file", "one with a zero in it")
    return Path(path)


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
    """Return the header and the arrays of a file of this kind and version, or raise.

    Whatever else is wrong with the content ends in an InputError that names the file.
    """
    from io import BytesIO

    path = _checked_path(path)
    content = BytesIO(path.read_bytes())
    try:
        with np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(bytes(arrays.pop("header")).decode())
        found = header.get("kind"), header.get("version")
    except Exception as error:  # zip, zlib, NumPy and JSON have each their own for foreign bytes
        raise foreign(path, error) from error
    if found != (kind, version):
        raise InputError(
            f"{path}: expected a {kind} of format {version}, got {found[0]} of format {found[1]}. "
            "Remove it, or give the path of another."
        )
    return header, arrays


def foreign(path: str | Path, error: object) -> InputError:
    """Build the error for a file whose content is not what was written."""
    return InputError(
        f"{path}: not a file written by fastincentive ({error}): cut short, damaged or of another "
        "kind. Remove it, or give the path of another."
    )


def check_writable(path: str | Path, argument: str) -> None:
    """Find out whether ``write_atomically`` will work there; raise InputError if not.

    A file is made beside the path, and taken away again.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a directory")
        trial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.try")
        write_atomically(trial, b"")
        trial.unlink()
    except (OSError, ValueError) as error:
        raise invalid(argument, "a path that can be written", f"{path} ({error})") from error
