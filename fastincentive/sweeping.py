"""Many independent solves: starts, weights, problems; in this process or on any executor."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, as_completed
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from fastincentive.errors import InputError, invalid
from fastincentive.loop import _bar, solve
from fastincentive.problem import IncentiveProblem
from fastincentive.tables import text_table
from fastincentive.threads import limited

__all__ = ["Failure", "Sweep", "SweepItem", "sweep"]

#: What the table shows of a setting or a message is cut to so many characters.
WIDTH = 40
#: What a worker that is gone may have died of.
HINT = (
    "The worker process may have run out of memory; or it was forked (the default of Python up to "
    "3.13 on Linux) after numba had started threads: use ProcessPoolExecutor(mp_context="
    "multiprocessing.get_context('spawn'))."
)


class Failure(NamedTuple):
    """The exception that ended an item, as text."""

    type: str
    message: str
    traceback: str


@dataclass(frozen=True)
class SweepItem:
    """One solve of a sweep.

    Attributes
    ----------
    index : int
        Position in the sweep.
    settings : dict
        The keyword arguments, common ones and the item's own seed included:
        ``solve(problem, **item.settings)`` is the same run.
    solution : Solution or None
        What ``solve`` returned; None if it failed.
    error : Failure or None
        Type, message and traceback of the exception, if it failed.
    seconds : float
        Time where it ran; nan if the worker was lost.
    """

    index: int
    settings: dict[str, Any]
    solution: Any
    error: Failure | None
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """What became of each item, in the order in which they were given.

    Attributes
    ----------
    items : tuple of SweepItem
    """

    items: tuple[SweepItem, ...]

    @property
    def solutions(self) -> list[Any]:
        """The solutions of the items that did not fail, in order."""
        return [item.solution for item in self.items if item.error is None]

    @property
    def failures(self) -> list[SweepItem]:
        """The items that failed, in order."""
        return [item for item in self.items if item.error is not None]

    @property
    def best_item(self) -> SweepItem:
        """The item whose solution has the largest objective, the first of equal ones.

        Raises
        ------
        ValueError
            If every item failed.
        """
        solved = [item for item in self.items if item.error is None]
        if not solved:
            raise ValueError(f"no item was solved; the first failed with\n{_traceback(self)}")
        return max(solved, key=lambda item: float(item.solution.objective))

    @property
    def best(self) -> Any:
        """The solution with the largest objective, see ``best_item``."""
        return self.best_item.solution

    def __str__(self) -> str:
        """Return a table, one row per item, with the settings in which items differ."""
        names = list(dict.fromkeys(name for item in self.items for name in item.settings))
        columns = {
            name: [_short(item.settings.get(name, "")) for item in self.items] for name in names
        }
        columns = {name: shown for name, shown in columns.items() if len(set(shown)) > 1}
        rows = [
            [
                str(item.index),
                *(shown[k] for shown in columns.values()),
                _number(getattr(item.solution, "objective", None)),
                _number(getattr(item.solution, "leader_value", None)),
                f"{item.seconds:.3f}",
                _outcome(item),
            ]
            for k, item in enumerate(self.items)
        ]
        header = ["item", *columns, "objective", "leader value", "seconds", "outcome"]
        return text_table(header, rows, "r" * (len(header) - 1) + "l")


def sweep(
    problems: IncentiveProblem | Sequence[IncentiveProblem],
    settings: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    *,
    executor: Executor | None = None,
    solve: Callable[..., Any] = solve,
    threads_per_item: int | None = None,
    progress: bool = False,
    **common: Any,
) -> Sweep:
    """Run independent solves and report on each; one that fails does not end the others.

    Parameters
    ----------
    problems : IncentiveProblem or sequence of m of them
        One problem is solved under all settings. For a sweep over weights:
        ``[problem.replace(cost_weight=w) for w in weights]``.
    settings : dict or sequence of m dicts, optional
        Keyword arguments for ``solve``, item by item: ``[{"initial_payments": 1.0}, ...]``. One
        dict is for all problems.
    executor : concurrent.futures.Executor, optional
        Where the items run: a ``ThreadPoolExecutor``, ``ProcessPoolExecutor``, mpi4py's
        ``MPIPoolExecutor``, dask's ``client.get_executor()``. By default they run in this process,
        one after the other. It is left open.
    solve : callable
        Called as ``solve(problem, **settings)``; ``fi.solve``, or another function of a problem
        such as ``fi.global_optimum``. For other processes it must be a function of a module.
    threads_per_item : int, optional
        Numba's threads for one item, no more than its worker has: by default one on an executor,
        all without.
    progress : bool
        Show a progress bar (needs the ``progress`` extra).
    **common
        Keyword arguments for all items; an item's own settings come first. An int or Generator
        ``rng`` is a seed for the whole sweep: item j gets the j-th child of its ``SeedSequence``,
        as an int.

    Returns
    -------
    Sweep
        ``.items`` in the order given, ``.solutions``, ``.failures``, ``.best``, and a table as
        ``str``. The same numbers to the last bit whatever the executor and the threads.

    Raises
    ------
    InputError
        If problems and settings do not pair up, ``solve`` does not take a setting, or the executor
        is none.
    KeyboardInterrupt
        Items that have not begun are cancelled first.

    Notes
    -----
    What an item raises is kept in ``item.error``; a worker that dies fails the items that a broken
    pool leaves undone. Warnings are issued where the items run.

    A problem is pickled once, without what can be derived from it (21 kB for the paper's), and
    kept by each worker until the next one comes. Compiled kernels are read from numba's cache on
    disk. Processes should be started by "spawn" or "forkserver": one forked after numba has
    started threads is killed at its first threaded kernel. NumPy's linear algebra has threads of
    its own: set ``OPENBLAS_NUM_THREADS=1`` (and ``NUMBA_NUM_THREADS``, if a worker should never
    have more) in the environment that the workers inherit.

    Examples
    --------
    Three starts, of which the second cannot work:

    >>> import fastincentive as fi
    >>> problem = fi.models.example1()
    >>> starts = [{"initial_payments": x} for x in (0.0, [1.0], 2.0)]
    >>> found = fi.sweep(problem, starts, method=fi.RegimeAscent())
    >>> [item.error is None for item in found.items]
    [True, False, True]
    >>> float(round(found.best.objective, 6))
    4.0

    On two processes (a script needs ``if __name__ == "__main__":`` around it)::

        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=spawn) as pool:
            print(fi.sweep(problem, starts, executor=pool))
    """
    if executor is not None and not isinstance(executor, Executor):
        raise invalid(
            "executor",
            "a concurrent.futures.Executor",
            type(executor).__name__,
            None,
            "A dask client has one: client.get_executor().",
        )
    if threads_per_item is not None and threads_per_item < 1:
        raise invalid("threads_per_item", "a positive integer", threads_per_item)
    each, own = _paired(problems, settings)
    chosen = _seeded(own, common)
    _check(solve, each, chosen, common)
    threads = 1 if threads_per_item is None and executor is not None else threads_per_item
    shared = _Parcel(problems) if isinstance(problems, IncentiveProblem) else None
    tasks = (
        (solve, shared or _Parcel(problem), arguments, threads)
        for problem, arguments in zip(each, chosen, strict=True)
    )
    outcomes: dict[int, _Outcome] = {}
    bar = _bar(len(each), 0) if progress else None
    runs = _here(tasks) if executor is None else _elsewhere(executor, tasks)
    try:
        for j, outcome in runs:
            outcomes[j] = outcome
            if bar is not None:
                bar.update(1)
    finally:
        runs.close()
        if bar is not None:
            bar.close()
    return Sweep(tuple(SweepItem(j, arguments, *outcomes[j]) for j, arguments in enumerate(chosen)))


# -- what is to be run --------------------------------------------------------------------------


def _paired(
    problems: object, settings: object
) -> tuple[list[IncentiveProblem], list[dict[str, Any]]]:
    """Problems and settings item by item."""
    each = [problems] if isinstance(problems, IncentiveProblem) else _listed("problems", problems)
    for j, problem in enumerate(each):
        if not isinstance(problem, IncentiveProblem):
            raise invalid("problems", "IncentiveProblems", type(problem).__name__, f"item {j}")
    if not each:
        raise invalid("problems", "at least one", "none")
    if settings is None or isinstance(settings, Mapping):
        given: list[Any] = [{} if settings is None else settings] * len(each)
    else:
        given = _listed("settings", settings)
        if isinstance(problems, IncentiveProblem):
            each *= len(given)
    for j, arguments in enumerate(given):
        if not isinstance(arguments, Mapping) or not all(isinstance(k, str) for k in arguments):
            raise invalid(
                "settings", "dicts of keyword arguments", type(arguments).__name__, f"item {j}"
            )
    if not given or len(given) != len(each):
        raise invalid(
            "settings",
            f"one dict for each of {len(each)} problems" if given else "at least one dict",
            len(given) or "none",
            None,
            "One problem or one dict, not in a list, is taken for all items.",
        )
    return each, [dict(arguments) for arguments in given]


def _listed(argument: str, value: object) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise invalid(argument, "a sequence", type(value).__name__)
    return list(value)


def _seeded(own: list[dict[str, Any]], common: dict[str, Any]) -> list[dict[str, Any]]:
    """Join common and own arguments, with a seed for each item if there is one for all.

    Generators become seeds as well: one that is shared, or copied to a process, would be drawn
    from in an order that depends on the executor.
    """
    chosen = [{**common, **arguments} for arguments in own]
    if common.get("rng") is not None:
        for arguments, given, seed in zip(
            chosen, own, _seeds(common["rng"], len(own)), strict=True
        ):
            if given.get("rng") is None:
                arguments["rng"] = seed
    for arguments in chosen:
        if isinstance(arguments.get("rng"), np.random.Generator):
            (arguments["rng"],) = _seeds(arguments["rng"], 1)
    return chosen


def _seeds(rng: Any, count: int) -> list[int]:
    sequence: Any = np.random.default_rng(rng).bit_generator.seed_seq
    return [int(child.generate_state(1, np.uint64)[0]) for child in sequence.spawn(count)]


def _check(
    solve: Callable[..., Any],
    problems: list[IncentiveProblem],
    chosen: list[dict[str, Any]],
    common: dict[str, Any],
) -> None:
    """Refuse what could not work for any item."""
    if not callable(solve):
        raise invalid("solve", "a function of a problem", type(solve).__name__)
    if common.get("checkpoint") is not None and len(chosen) > 1:
        raise InputError(
            "checkpoint: expected one file for each item, in its own settings, got one for all"
        )
    try:
        form = signature(solve)
    except ValueError:  # not every compiled function has one
        return
    for j, (problem, arguments) in enumerate(zip(problems, chosen, strict=True)):
        try:
            form.bind(problem, **arguments)
        except TypeError as error:
            name = getattr(solve, "__name__", "solve")
            raise invalid(
                "settings", f"keyword arguments of {name}", str(error), f"item {j}"
            ) from None


class _Parcel:
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
                return _Parcel, (self.problem,)  # dask's pickles can do more, others say why not
        return _unpacked, (self._data,)


@lru_cache(maxsize=1)
def _unpacked(data: bytes) -> _Parcel:
    return _Parcel(pickle.loads(data))


# -- running it ---------------------------------------------------------------------------------

_Task = tuple[Callable[..., Any], _Parcel, dict[str, Any], int | None]


class _Outcome(NamedTuple):
    """What a worker sends back."""

    solution: Any
    error: Failure | None
    seconds: float


_Runs = Generator[tuple[int, _Outcome], None, None]


def _here(tasks: Iterable[_Task]) -> _Runs:
    for j, task in enumerate(tasks):
        yield j, _attempt(*task)


def _elsewhere(executor: Executor, tasks: Iterable[_Task]) -> _Runs:
    """Outcomes as they come; if the caller or an interrupt ends it, what has not begun is not."""
    place: dict[Future[_Outcome], int] = {}
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
        for future in place:
            future.cancel()
        raise


def _attempt(
    solve: Callable[..., Any], parcel: _Parcel, arguments: dict[str, Any], threads: int | None
) -> _Outcome:
    """Run one item, in whatever process and thread this is called."""
    start = time.perf_counter()
    solution, failure = None, None
    try:
        with limited(threads):
            solution = solve(parcel.problem, **arguments)
    except Exception as error:
        failure = _failure(error)
    return _Outcome(solution, failure, time.perf_counter() - start)


def _lost(error: BaseException) -> _Outcome:
    """Outcome of an item of which the executor says no more than this."""
    failure = _failure(error)
    if isinstance(error, BrokenExecutor):
        failure = failure._replace(message=f"{failure.message} {HINT}")
    return _Outcome(None, failure, np.nan)


def _failure(error: BaseException) -> Failure:
    return Failure(type(error).__name__, str(error), "".join(traceback.format_exception(error)))


# -- the table ----------------------------------------------------------------------------------


def _traceback(found: Sweep) -> str:
    error = found.failures[0].error
    return "" if error is None else error.traceback


def _number(value: object) -> str:
    return f"{value:.6f}" if isinstance(value, (float, np.floating)) else ""


def _outcome(item: SweepItem) -> str:
    """Status of a solution, or the error."""
    if item.error is not None:
        return _cut(f"{item.error.type}: {item.error.message}", 2 * WIDTH)
    status = getattr(item.solution, "status", None)
    return getattr(status, "name", "done").lower().replace("_", " ")


def _short(value: object) -> str:
    """Show a setting in a few characters."""
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, np.ndarray):
        return _cut(np.array2string(value, precision=4, threshold=4, edgeitems=2))
    return _cut(repr(value))


def _cut(text: str, width: int = WIDTH) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."
