"""How kernels are compiled: the flags, in one place, and the choice of threads."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
import numpy as np

__all__ = ["THREADED_SIZE", "Switch", "fused_jit", "jit", "parallel_jit"]

#: Kernels use threads from this many entries of their largest array on.
THREADED_SIZE = 20_000
#: Beside matrix products threads must save this many steps for each of those entries.
STEPS_PER_SIZE = 100


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile once, cache on disk; division by zero gives inf as in NumPy; no fast math."""
    return numba.njit(cache=True, error_model="numpy", nogil=True)(function)


def fused_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """As ``jit``; products may be added in one instruction, with one rounding instead of two.

    For the innermost loops of eliminations, where it saves half of the arithmetic and its error.
    """
    return numba.njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})(function)


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
        self.threaded = numba.njit(cache=True, error_model="numpy", nogil=True, parallel=True)(
            function
        )
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any) -> Any:
        """Run the form that suits the size of the largest array."""
        for argument in args:
            if isinstance(argument, np.ndarray) and argument.size >= THREADED_SIZE:
                return self.threaded(*args)
        return self.serial(*args)

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
