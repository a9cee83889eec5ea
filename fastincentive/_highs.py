"""SciPy's linear and mixed-integer programmes, kept off standard output.

HiGHS, which solves them, now and then prints a line whatever it is told. It prints through the C
library, so its stream is exchanged there: what Python writes meanwhile, in this thread or another,
goes where it should.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

__all__ = ["linprog", "milp"]


class _Stream(NamedTuple):
    output: ctypes.c_void_p  # the C library's variable stdout
    original: int | None  # where it leads to
    nowhere: int | None  # a stream to nowhere


#: How many calls are under way; the stream is exchanged by the first and put back by the last.
_calls = 0
_lock = Lock()


@cache
def _stream() -> _Stream | None:
    """Return the stream to exchange, None where the C library has it as a constant."""
    try:
        if sys.platform == "linux" and not os.confstr("CS_GNU_LIBC_VERSION"):
            return None
        library = ctypes.CDLL(None)
        name = "__stdoutp" if sys.platform == "darwin" else "stdout"
        output = ctypes.c_void_p.in_dll(library, name)
        library.fopen.restype = ctypes.c_void_p
        nowhere = library.fopen(os.fsencode(os.devnull), b"w")
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return _Stream(output, output.value, nowhere) if nowhere else None


@contextmanager
def _silent() -> Iterator[None]:
    global _calls
    stream = _stream()
    with _lock:
        _calls += 1
        if stream is not None:
            stream.output.value = stream.nowhere
    try:
        yield
    finally:
        with _lock:
            _calls -= 1
            if stream is not None and _calls == 0:
                stream.output.value = stream.original


def linprog(*args: Any, **options: Any) -> Any:
    """Call ``scipy.optimize.linprog`` in silence."""
    from scipy.optimize import linprog

    with _silent():
        return linprog(*args, **options)


def milp(*args: Any, **options: Any) -> Any:
    """Call ``scipy.optimize.milp`` in silence."""
    from scipy.optimize import milp

    with _silent():
        return milp(*args, **options)
