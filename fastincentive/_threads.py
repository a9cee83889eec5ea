"""How many threads numba uses, where several callers share a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["limited"]


@contextmanager
def limited(threads: int | None) -> Iterator[None]:
    """Let numba use so many threads for what this Python thread calls, all if None."""
    from numba import config, get_num_threads, set_num_threads

    before = get_num_threads()
    most = vars(config)["NUMBA_NUM_THREADS"]
    set_num_threads(before if threads is None else min(threads, most))
    try:
        yield
    finally:
        set_num_threads(before)
