"""Many independent solves: starts, weights, problems; in this process or on any executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from inspect import signature
from typing import Any

import numpy as np

from fastincentive._checks import checked
from fastincentive._progress import progress_bar
from fastincentive._random import check_rng
from fastincentive.errors import InputError, Interrupted, invalid
from fastincentive.methods import Method
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.solver.loop import solve
from fastincentive.studies.sweep_items import Sweep, SweepItem
from fastincentive.studies.sweep_workers import Outcome, Parcel, Runs, run_elsewhere, run_here

__all__ = ["sweep"]


@checked
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
        Called as ``solve(problem, **settings)``, such as ``fi.solve`` or ``fi.global_optimum``.
        For other processes it must be a function of a module.
    threads_per_item : int, optional
        Numba's threads for one item, no more than its worker has: by default one on an executor,
        all without.
    progress : bool
        Show a progress bar (needs the ``progress`` extra).
    **common
        Keyword arguments for all items; an item's own settings come first. An int or Generator
        ``rng`` is a seed for the whole sweep: item j gets the j-th child of its ``SeedSequence``,
        as an int; so it is with a Generator in the settings, or in a method among them.

    Returns
    -------
    Sweep
        ``.items`` in the order given, ``.solutions``, ``.failures``, ``.best``, and a table as
        ``str``. The same numbers to the last bit whatever the executor and the threads.

    Raises
    ------
    InputError
        If problems and settings do not pair up, ``solve`` does not take a setting, or the executor
        or ``rng`` is none.
    Interrupted
        A KeyboardInterrupt whose ``results`` is the ``Sweep`` of what was finished. Items that have
        not begun are cancelled first, busy processes of a pool are ended.

    Notes
    -----
    What an item raises is kept in ``item.error``; a worker that dies fails the items that a broken
    pool leaves undone. Warnings are issued where the items run. A problem is pickled once, and kept
    by each worker until the next one comes. Start processes by "spawn" or "forkserver": one forked
    after numba has started threads of OpenMP runs without threads. NumPy's linear algebra has
    threads of its own: set ``OPENBLAS_NUM_THREADS=1`` in the environment of the workers.

    Examples
    --------
    >>> import fastincentive as fi
    >>> problem = fi.models.example1()
    >>> starts = [{"initial_payments": x} for x in (0.0, [1.0], 2.0)]  # the second cannot work
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
    _check_executor(executor, threads_per_item)
    check_rng(common.get("rng"))
    each, own = _paired(problems, settings)
    chosen = _seeded(own, common)
    _check_settings(solve, each, chosen, common)
    threads = 1 if threads_per_item is None and executor is not None else threads_per_item
    shared = Parcel(problems) if isinstance(problems, IncentiveProblem) else None
    tasks = (
        (solve, shared or Parcel(problem), arguments, threads)
        for problem, arguments in zip(each, chosen, strict=True)
    )
    runs = run_here(tasks) if executor is None else run_elsewhere(executor, tasks)
    return _collected(runs, chosen, progress_bar(len(each)) if progress else None)


def _check_executor(executor: object, threads: int | None) -> None:
    if executor is not None and not isinstance(executor, Executor):
        raise invalid(
            "executor",
            "a concurrent.futures.Executor",
            type(executor).__name__,
            None,
            "A dask client has one: client.get_executor().",
        )
    if threads is not None and threads < 1:
        raise invalid("threads_per_item", "a positive integer", threads)


def _collected(runs: Runs, chosen: list[dict[str, Any]], bar: Any) -> Sweep:
    """Run all items, in whatever order they end; the bar, if there is one, is closed."""
    outcomes: dict[int, Outcome] = {}

    def finished() -> Sweep:
        return Sweep(tuple(SweepItem(j, chosen[j], *outcomes[j]) for j in sorted(outcomes)))

    try:
        for j, outcome in runs:
            outcomes[j] = outcome
            if bar is not None:
                bar.update(1)
    except KeyboardInterrupt as interrupt:
        if not outcomes:
            raise
        text = f"{len(outcomes)} of {len(chosen)} items"
        raise Interrupted(text, finished()) from interrupt
    finally:
        runs.close()
        if bar is not None:
            bar.close()
    return finished()


def _paired(
    problems: object, settings: object
) -> tuple[list[IncentiveProblem], list[dict[str, Any]]]:
    """Problems and settings item by item."""
    each = [problems] if isinstance(problems, IncentiveProblem) else _as_list("problems", problems)
    for j, problem in enumerate(each):
        if not isinstance(problem, IncentiveProblem):
            raise invalid("problems", "IncentiveProblems", type(problem).__name__, f"item {j}")
    if not each:
        raise invalid("problems", "at least one", "none")
    if settings is None or isinstance(settings, Mapping):
        given: list[Any] = [{} if settings is None else settings] * len(each)
    else:
        given = _as_list("settings", settings)
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


def _as_list(argument: str, value: object) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise invalid(argument, "a sequence", type(value).__name__)
    return list(value)


def _seeded(own: list[dict[str, Any]], common: dict[str, Any]) -> list[dict[str, Any]]:
    """Join common and own arguments, with a seed for each item if there is one for all.

    Generators become seeds as well, those of methods and searches among the settings, too: one
    that is shared, or copied to a process, would be drawn from in an order that depends on the
    executor.
    """
    chosen = [{**common, **arguments} for arguments in own]
    if common.get("rng") is not None:
        for arguments, given, seed in zip(
            chosen, own, _seeds(common["rng"], len(own)), strict=True
        ):
            if given.get("rng") is None:
                arguments["rng"] = seed
    for arguments in chosen:
        arguments |= {name: _without_generator(value) for name, value in arguments.items()}
    return chosen


def _without_generator(value: Any) -> Any:
    """Return a seed for a generator, and settings of a method with one in its place."""
    if isinstance(value, np.random.Generator):
        return _seeds(value, 1)[0]
    if isinstance(value, Method) and value.capabilities.draws:
        own = getattr(value, "rng", None)
        if isinstance(own, np.random.Generator):
            return value.drawing_from(_seeds(own, 1)[0])
    return value


def _seeds(rng: Any, count: int) -> list[int]:
    sequence: Any = np.random.default_rng(rng).bit_generator.seed_seq
    return [int(child.generate_state(1, np.uint64)[0]) for child in sequence.spawn(count)]


def _check_settings(
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
