"""Tasks of a sweep, here or in other processes."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    as_completed,
)
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastincentive._threads import limited
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.studies.sweep_items import Failure

__all__ = ["Outcome", "Parcel", "Runs", "run_elsewhere", "run_here"]

#: What a worker that is gone may have died of.
HINT = (
    "The worker process may have run out of memory; or it was forked (the default of Python up to "
    "3.13 on Linux) while a library had threads: use ProcessPoolExecutor(mp_context="
    "multiprocessing.get_context('spawn'))."
)


class Parcel:
    """A problem that is pickled once for all items, and unpickled once by each process.

    Nothing is pickled for threads.
    """

    def __init__(self, problem: IncentiveProblem) -> None:
        self.problem = problem
        self._data: bytes | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self._data is None:
            try:
                self._data = pickle.dumps(self.problem, pickle.HIGHEST_PROTOCOL)
            except (pickle.PicklingError, AttributeError, TypeError):
                return Parcel, (self.problem,)  # dask's pickles can do more, others say why not
        return _unpacked, (self._data,)


@lru_cache(maxsize=1)
def _unpacked(data: bytes) -> Parcel:
    return Parcel(pickle.loads(data))


_Task = tuple[Callable[..., Any], Parcel, dict[str, Any], int | None]


class Outcome(NamedTuple):
    """What a worker sends back."""

    solution: Any
    error: Failure | None
    seconds: float


#: Items' numbers and outcomes, as they come.
Runs = Generator[tuple[int, Outcome], None, None]


def run_here(tasks: Iterable[_Task]) -> Runs:
    """Run tasks one after the other in this process."""
    for j, task in enumerate(tasks):
        yield j, _attempt(*task)


def run_elsewhere(executor: Executor, tasks: Iterable[_Task]) -> Runs:
    """Outcomes as they come.

    If the caller or an interrupt ends it, what has not begun is not, and processes are ended.
    """
    place: dict[Future[Outcome], int] = {}
    try:
        for j, task in enumerate(tasks):
            try:
                place[executor.submit(_attempt, *task)] = j
            except BrokenExecutor as error:
                yield j, _lost(error)
        for future in as_completed(place):
            raised = CancelledError() if future.cancelled() else future.exception()
            if isinstance(raised, KeyboardInterrupt):
                raise raised
            yield place[future], future.result() if raised is None else _lost(raised)
    except BaseException:
        running = [future for future in place if not future.cancel() and not future.done()]
        if running and isinstance(executor, ProcessPoolExecutor):
            _end_processes(executor)
        raise


def _end_processes(executor: ProcessPoolExecutor) -> None:
    """End the processes of a pool: it waits for what they are at otherwise, and so its user."""
    if hasattr(executor, "terminate_workers"):  # from Python 3.14 on
        executor.terminate_workers()
        return
    for process in list((executor._processes or {}).values()):
        process.terminate()


def _attempt(
    solve: Callable[..., Any], parcel: Parcel, arguments: dict[str, Any], threads: int | None
) -> Outcome:
    """Run one item, in whatever process and thread this is called."""
    start = time.perf_counter()
    solution, failure = None, None
    try:
        with limited(threads):
            solution = solve(parcel.problem, **arguments)
    except Exception as error:
        failure = _failure(error)
    return Outcome(solution, failure, time.perf_counter() - start)


def _lost(error: BaseException) -> Outcome:
    """Outcome of an item of which the executor says no more than this."""
    failure = _failure(error)
    if isinstance(error, BrokenExecutor):
        failure = failure._replace(message=f"{failure.message} {HINT}")
    return Outcome(None, failure, np.nan)


def _failure(error: BaseException) -> Failure:
    return Failure(type(error).__name__, str(error), "".join(traceback.format_exception(error)))
