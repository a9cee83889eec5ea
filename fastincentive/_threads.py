"""How many threads numba uses, where several callers share a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import RLock

__all__ = ["limited"]

#: Numba's threading layer "workqueue" ends the process if two threads use it at once.
_turn = RLock()


@contextmanager
def limited(threads: int | None) -> Iterator[None]:
    """Let numba use so many threads, all if None."""
    from numba import config, get_num_threads, set_num_threads
    from numba.np.ufunc import threading_layer

    before = get_num_threads()  # starts the threading layer, if that has not been done
    most = vars(config)["NUMBA_NUM_THREADS"]
    with _turn if threading_layer() == "workqueue" else nullcontext():
        set_num_threads(before if threads is None else min(threads, most))
        try:
            yield
        finally:
            set_num_threads(before)
