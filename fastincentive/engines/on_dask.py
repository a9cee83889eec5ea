"""Followers in shards on the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._threads import limited
from fastincentive.engines.run import Engine, Run
from fastincentive.engines.shard import Done, Shard
from fastincentive.engines.shards import shard_bounds, shard_of
from fastincentive.errors import invalid, missing_extra
from fastincentive.followers.parameterization import Parameterization
from fastincentive.methods._state import AscentState
from fastincentive.methods.base import Method, Observer, StepReport
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.problem.queries import Query

__all__ = ["Dask", "Traffic"]

#: Answers of more bytes than this go straight to their worker, not through the scheduler.
DIRECT_BYTES = 2**20
#: While answers are awaited, the workers are counted this often (seconds).
WATCH = 1.0
#: A run ends after losing workers so many times in a row without an iteration in between.
MOST_LOSSES = 5


@dataclass
class Traffic:
    """What a run moved between the client and the workers.

    Attributes
    ----------
    iterations : int
        Iterations that were counted, repeated ones after a loss included.
    iteration_bytes : int
        Bytes of arrays that these moved, both ways: label marginals and conditional rewards
        (T, n, L), a few numbers per follower and time, and the payments.
    exchanges : int
        Times that these went to and fro.
    start_bytes : int
        Bytes that the search for a start moved.
    state_bytes : int
        Bytes of the states that were copied for the case of a loss, and of the last one.
    losses : int
        Times that a worker was lost and the shards were rebuilt.
    """

    iterations: int = 0
    iteration_bytes: int = 0
    exchanges: int = 0
    start_bytes: int = 0
    state_bytes: int = 0
    losses: int = 0

    @property
    def bytes_per_iteration(self) -> float:
        """Bytes of arrays that an iteration moves, both ways."""
        return self.iteration_bytes / max(self.iterations, 1)

    def __str__(self) -> str:
        """Return a sentence."""
        return (
            f"{self.bytes_per_iteration / 2**20:.3f} MiB an iteration in "
            f"{self.exchanges / max(self.iterations, 1):.1f} exchanges, "
            f"{self.start_bytes / 2**20:.3f} MiB for the start, "
            f"{self.state_bytes / 2**20:.3f} MiB of states, losses: {self.losses}"
        )


class Dask(Engine):
    """Followers in shards on the workers of a Dask cluster.

    Models and policies stay on the workers. In each iteration they send label marginals and a few
    numbers, and get the leader's conditional rewards; nothing that grows with the number of states.
    The iterates are those of a run in one process, for any number of workers, and when workers are
    lost. The search for a start runs on the workers, too; recovery, the measure of stationarity
    and refinement after the ascent run where ``solve`` was called.

    Parameters
    ----------
    client : distributed.Client
    shards : int, optional
        By default as many as there are workers when a run begins.
    checkpoint_every : int or None
        Iterations after which the state is copied to the client. When a worker is lost, all shards
        go back to the last copy and on from there; with None they start again.

    Attributes
    ----------
    traffic : Traffic
        What the last run moved.

    Raises
    ------
    MissingExtraError
        Without the ``distributed`` extra.
    InputError
        If there is no Dask client, or when a run begins, with a joint multiplier.

    Examples
    --------
    >>> from distributed import Client, LocalCluster  # doctest: +SKIP
    >>> client = Client(LocalCluster(n_workers=4, threads_per_worker=1))  # doctest: +SKIP
    >>> engine = fi.engines.Dask(client)  # doctest: +SKIP
    >>> solution = fi.solve(fi.models.crowd(1000), engine=engine)  # doctest: +SKIP
    """

    here = False

    def __init__(
        self, client: Any, shards: int | None = None, checkpoint_every: int | None = 50
    ) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise missing_extra("distributed", "distributed") from None
        if not isinstance(client, Client):
            raise invalid("client", "a distributed.Client", type(client).__name__)
        if getattr(client, "asynchronous", False):
            raise invalid("client", "a synchronous client", "an asynchronous one")
        if checkpoint_every is not None and checkpoint_every < 1:
            raise invalid("checkpoint_every", "a positive integer or None", checkpoint_every)
        self.client = client
        self.shards = shards
        self.checkpoint_every = checkpoint_every
        self.traffic = Traffic()

    def run(
        self,
        problem: IncentiveProblem,
        method: Method,
        parameterization: Parameterization,
        observe: Observer | None = None,
    ) -> Run:
        """Cut the problem into shards, for one run; their steps make one iterate each."""
        count = self.count()
        method.check_shards(count)
        self.traffic = Traffic()
        bounds = shard_bounds(problem, count)
        parts = _DaskParts(self.client, problem, (method, parameterization), bounds, self.traffic)
        return _WatchedRun(problem, parts, bounds, self.checkpoint_every, self.traffic)

    def count(self) -> int:
        """Return into how many shards followers are cut, at most: one per worker by default."""
        return len(_workers(self.client)) if self.shards is None else self.shards


class WorkersLostError(Exception):
    """Some shard is no more."""


class _WatchedRun(Run):
    """A run that goes on when workers are lost."""

    def __init__(
        self,
        problem: IncentiveProblem,
        parts: _DaskParts,
        bounds: NDArray[np.int64],
        checkpoint_every: int | None,
        traffic: Traffic,
    ) -> None:
        super().__init__(problem, parts, bounds)
        self._shards = parts
        self._every = checkpoint_every
        self._traffic = traffic
        #: Task and arguments that bring new shards to where the last copy was taken.
        self._origin: tuple[str, Sequence[tuple[Any, ...]]] | None = None
        self._copied = 0
        #: Iteration that was evaluated last, -1 before the first.
        self._evaluated = -1

    def start(self, payments: FloatArray, policies: str | FloatArray | None) -> None:
        super().start(payments, policies)
        self._copied, self._evaluated = 0, -1

    def load(self, state: AscentState) -> None:
        super().load(state)
        self._copied, self._evaluated = state.iteration, -1

    def step(self) -> StepReport:
        report = super().step()
        self._evaluated = self.iteration
        if self._every is not None and self.iteration - self._copied >= self._every:
            self._origin = ("load", self._split(super().state()))
            self._copied = self.iteration
        return report

    def close(self) -> None:
        self._shards.close()

    def _do(self, task: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        if task in ("start", "load"):
            self._origin = (task, arguments)
            self._evaluated = -1
        losses = 0
        while True:
            try:
                if not self._shards.placed:
                    self._restore(task)
                return self._counted(task, arguments)
            except WorkersLostError:
                losses += 1
                self._traffic.losses += 1
                self._shards.placed = False
                if losses > MOST_LOSSES:
                    raise RuntimeError(
                        f"workers were lost {losses} times in a row without an iteration in "
                        "between; they may have run out of memory: see their logs, use more of "
                        "them, or more shards"
                    ) from None

    def _restore(self, task: str) -> None:
        """Build the shards, and bring them to where the run stands."""
        self._shards.place()
        if task in ("start", "load"):
            return
        assert self._origin is not None  # for the type checker
        self._counted(*self._origin)
        for iteration in range(self._copied, self._evaluated + 1):
            advance = iteration > self._copied
            self._counted("light_step", [(advance,)] * len(self._ranges))

    def _counted(self, task: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        traffic, steps = self._traffic, task.endswith("step")
        before, exchanges = self._shards.moved, self._shards.exchanges
        found = super()._do(task, arguments)
        if steps:
            traffic.iterations += 1
            traffic.iteration_bytes += self._shards.moved - before
            traffic.exchanges += self._shards.exchanges - exchanges
        elif task == "start":
            traffic.start_bytes += self._shards.moved - before
        else:
            traffic.state_bytes += self._shards.moved - before
        return found


class _Call(NamedTuple):
    """One message to a shard."""

    key: str  # of the run, and of the time that its shards were built
    number: int
    tick: int  # how many messages the shard got before
    verb: str
    arguments: tuple[Any, ...]


class _DaskParts:
    """The shards of a run on the workers of a client."""

    def __init__(
        self,
        client: Any,
        problem: IncentiveProblem,
        settings: tuple[Method, Parameterization],
        bounds: NDArray[np.int64],
        traffic: Traffic,
    ) -> None:
        self._client = client
        self._problem = problem
        self._settings = settings
        self._ranges = list(pairwise(bounds.tolist()))
        self._name = f"fastincentive-{secrets.token_hex(8)}"
        self._key = ""
        self._times = 0
        self._homes: list[str] = []
        self._ticks = [0] * len(self._ranges)
        self.placed = False
        #: Bytes of arrays and exchanges so far.
        self.moved = 0
        self.exchanges = 0

    def place(self) -> None:
        """Build the shards on the workers that there are.

        Raises
        ------
        WorkersLostError
            If one is lost meanwhile.
        """
        self.close()
        self._client.wait_for_workers(1, timeout=60)
        workers = _workers(self._client)
        self._times += 1
        self._key = f"{self._name}-{self._times}"
        count = len(self._ranges)
        self._homes = [workers[k * len(workers) // count % len(workers)] for k in range(count)]
        self._ticks = [0] * count
        futures = []
        for k, (first, last) in enumerate(self._ranges):
            shard = shard_of(self._problem, first, last)
            futures.append(self._submit(k, _build, (self._key, k), (shard, *self._settings)))
        self._collected(futures)
        self.placed = True

    def begin(self, task: str, arguments: Sequence[tuple[Any, ...]]) -> list[Query | Done]:
        found = self._call("begin", {k: (task, *each) for k, each in enumerate(arguments)})
        return [found[k] for k in range(len(arguments))]

    def go_on(self, answers: Mapping[int, Any]) -> dict[int, Query | Done]:
        return self._call("go_on", {k: (answer,) for k, answer in answers.items()})

    def close(self) -> None:
        """Let go of the shards, wherever they still are."""
        self.placed = False
        if self._times and _workers(self._client):
            self._client.run(_drop, self._name, on_error="ignore")

    def _call(self, verb: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        futures = []
        for k, each in arguments.items():
            call = _Call(self._key, k, self._ticks[k], verb, ())
            self._ticks[k] += 1
            self.moved += _bytes(each)
            futures.append(self._submit(k, _advance, call, each))
        self.exchanges += 1
        results = self._collected(futures)
        if any(isinstance(result, _Gone) for result in results):
            raise WorkersLostError
        self.moved += sum(_bytes(result) for result in results)
        return dict(zip(arguments, results, strict=True))

    def _submit(self, k: int, function: Any, call: Any, payload: tuple[Any, ...]) -> Any:
        """Send a task to the worker of a shard, large arrays straight to it."""
        home = [self._homes[k]]
        given: Any = payload
        if _bytes(payload) > DIRECT_BYTES:
            from distributed.comm.core import CommClosedError

            try:
                given = self._client.scatter(payload, workers=home, hash=False)
            except (OSError, CommClosedError, KeyError, ValueError, TimeoutError):
                raise WorkersLostError from None  # as far as can be told
        # Strictly there: a task that waits for a lost worker is noticed by counting the workers.
        return self._client.submit(function, call, given, workers=home, pure=False, retries=0)

    def _collected(self, futures: Sequence[Any]) -> list[Any]:
        """Wait for results; raises WorkersLostError as soon as a worker is not there any more."""
        from distributed import CancelledError, KilledWorker

        client, homes = self._client, set(self._homes)

        async def begun() -> asyncio.Task[Any]:
            return asyncio.ensure_future(client.gather(list(futures), asynchronous=True))

        async def waited(task: asyncio.Task[Any]) -> bool:
            done, _ = await asyncio.wait({task}, timeout=WATCH)
            return bool(done)

        task = client.sync(begun)
        try:
            while not client.sync(waited, task):
                if not homes <= set(_workers(client)):
                    raise WorkersLostError
            results: list[Any] = task.result()
        except (CancelledError, KilledWorker, asyncio.CancelledError):
            raise WorkersLostError from None
        finally:
            if not task.done():
                client.cancel(list(futures), force=True)
                client.sync(waited, task)
        return results


# -- on the workers ------------------------------------------------------------------------------

_shards: dict[tuple[str, int], _Housed] = {}


class _Gone(NamedTuple):
    """The answer for a shard that is not here."""


class _Housed:
    """A shard, and how many messages it got."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.ticks = 0


def _build(place: tuple[str, int], given: tuple[Any, ...]) -> None:
    _shards[place] = _Housed(Shard(*given))


def _advance(call: _Call, arguments: tuple[Any, ...]) -> Any:
    """Give a shard its message, and return what it says."""
    housed = _shards.get((call.key, call.number))
    if housed is None or housed.ticks != call.tick:
        return _Gone()
    housed.ticks += 1
    with limited(_threads()):
        return getattr(housed.shard, call.verb)(*arguments)


def _threads() -> int:
    """Count the threads that are this worker's."""
    from distributed import get_worker

    return max(1, int(get_worker().state.nthreads))


def _drop(name: str) -> None:
    """Forget the shards of a run."""
    for place in [each for each in _shards if each[0].startswith(name)]:
        del _shards[place]


def _workers(client: Any) -> list[str]:
    """Return the addresses of the workers that there are."""
    return sorted(client.nthreads())


def _bytes(given: Any) -> int:
    """Bytes of the arrays in a message."""
    if isinstance(given, np.ndarray):
        return int(given.nbytes)
    if isinstance(given, (tuple, list)):
        return sum(_bytes(each) for each in given)
    if hasattr(given, "__dict__") and type(given).__module__.startswith("fastincentive."):
        return sum(_bytes(each) for each in vars(given).values())
    return 0
