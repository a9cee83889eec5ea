"""How kernels are compiled, kept and run: the flags, the cache on disk, and the threads.

All of it in one place, so that every kernel can do without the cache where none can be written, and
no call of a kernel with threads ends the process.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from threading import Lock
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba.core import sigutils
from numba.core.caching import FunctionCache
from numba.np.ufunc import threading_layer

__all__ = ["THREADED_SIZE", "Switch", "fused_jit", "jit", "parallel_jit"]

#: Kernels use threads from this many entries of their largest array on.
THREADED_SIZE = 20_000
#: Beside matrix products threads must save this many steps for each of those entries.
STEPS_PER_SIZE = 100


class _Cache(FunctionCache):
    """Numba's cache on disk, without which a kernel still runs.

    Two processes that fill one cache at the same time may leave an index that leads to the code of
    other types, which numba would run.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # a damaged file is as good as none
            return None
        wanted, _ = sigutils.normalize_signature(sig)
        return found if found is None or tuple(found.signature.args) == tuple(wanted) else None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # no space left, no right to write any more
            self.disable()
            _say_uncached(str(error))


def _say_uncached(reason: str) -> None:
    """Warn, once in a process, that compiled code is not kept."""
    if not _said:
        _said.append(reason)
        warnings.warn(
            f"Compiled kernels are not kept on disk ({reason}): every process compiles them anew. "
            "Set the environment variable NUMBA_CACHE_DIR to a folder that can be written.",
            RuntimeWarning,
            stacklevel=2,
        )


_said: list[str] = []


def _compiled(function: Callable[..., Any], **flags: Any) -> Any:
    """Compile at the first call, with what all kernels have in common and these flags."""
    kernel = numba.njit(error_model="numpy", nogil=True, **flags)(function)
    if kernel is not function:  # else kernels are run as plain Python
        try:
            kernel._cache = _Cache(function)
        except RuntimeError as error:  # no folder can be written, neither the package's nor a home
            _say_uncached(str(error))
    return kernel


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile once, cache on disk; division by zero gives inf as in NumPy; no fast math."""
    return _compiled(function)


def fused_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """As ``jit``; products may be added in one instruction, with one rounding instead of two.

    For the innermost loops of eliminations, where it saves half of the arithmetic and its error.
    """
    return _compiled(function, fastmath={"contract"})


@cache
def _layer() -> str:
    """Numba's threading layer, which it chooses when threads are first wanted."""
    numba.get_num_threads()
    return str(threading_layer())


class _Threads:
    """What a process must know of its threads."""

    #: The layer "workqueue" ends the process if two Python threads use it at once: they take turns.
    turn = Lock()
    #: GNU's OpenMP ends a process that was forked from one with threads: that one does without.
    lost = False

    @classmethod
    def forked(cls) -> None:
        """Begin as a child whose parent may have had threads, one of them in its turn."""
        cls.turn = Lock()
        with suppress(ValueError):  # the parent had none
            cls.lost = threading_layer() == "omp"


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_Threads.forked)


class Switch:
    """A kernel compiled twice at need: with threads, and without for small inputs.

    Waking threads costs more than a small problem, and waiting ones spin: on a busy machine that
    slows every call. The two forms compute the same numbers in the same order.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        # The copy has a name of its own: compiled code is cached by name.
        serial = FunctionType(
            function.__code__, function.__globals__, function.__name__ + "_serial"
        )
        serial.__qualname__ = function.__qualname__ + "_serial"
        serial.__module__ = function.__module__
        self.serial = jit(serial)
        self._parallel = _compiled(function, parallel=True)
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any) -> Any:
        """Run the form that suits the size of the largest array."""
        for argument in args:
            if isinstance(argument, np.ndarray) and argument.size >= THREADED_SIZE:
                return self.threaded(*args)
        return self.serial(*args)

    def threaded(self, *args: Any) -> Any:
        """Run the form with threads, whoever else is running one, unless there can be none."""
        if _Threads.lost:
            return self.serial(*args)
        if _layer() != "workqueue":
            return self._parallel(*args)
        with _Threads.turn:
            return self._parallel(*args)

    def sized(self, size: int) -> Any:
        """Choose a form by the size of the largest array, where arrays are passed in tuples."""
        return self.threaded if size >= THREADED_SIZE else self.serial

    def suited(self, steps: float, tasks: int) -> Any:
        """Choose a form by the work: so many short steps, split over so many tasks.

        For kernels between matrix products, whose threads and ours, both awake, stall each other
        for longer than a small kernel takes.
        """
        saved = steps * (1.0 - 1.0 / tasks)
        return self.threaded if saved >= STEPS_PER_SIZE * THREADED_SIZE else self.serial


def parallel_jit(function: Callable[..., Any]) -> Switch:
    """As ``jit``, with ``prange`` over independent outputs (never a reduction over threads).

    Only to be called from Python: small inputs run without threads.
    """
    return Switch(function)
