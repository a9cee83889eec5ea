"""Followers in shards on the workers of a Dask cluster."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._threads import limited
from fastincentive.engines.cluster import Cluster, WorkersLostError
from fastincentive.engines.run import Engine, Run
from fastincentive.engines.shard import Done, Shard
from fastincentive.engines.shards import shard_bounds, shard_of
from fastincentive.errors import EngineError, invalid, missing_extra
from fastincentive.followers.parameterization import Parameterization
from fastincentive.methods._state import AscentState, join_states
from fastincentive.methods.base import Method, Observer, StepReport
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.problem.queries import Query

__all__ = ["Dask", "Traffic"]

#: Answers of more bytes than this go straight to their worker, not through the scheduler.
DIRECT_BYTES = 2**20
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
    timeout : float
        Seconds without a sign of life, at least 1. A worker of which no heartbeat has come for so
        long, be it dead or frozen, is left alone, and its shards are built elsewhere; when there is
        no other, or the scheduler does not answer, the run ends with an ``EngineError``. How long
        a worker takes for its task does not matter. Set it well above the interval of Dask's
        heartbeats, from half a second to some seconds with a thousand workers.

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

    @checked
    def __init__(
        self,
        client: Any,
        shards: int | None = None,
        checkpoint_every: int | None = 50,
        timeout: float = 30.0,
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
        if not 1.0 <= timeout < np.inf:
            raise invalid("timeout", "a finite number of seconds >= 1", timeout)
        self.client = client
        self.timeout = timeout
        self._cluster = Cluster(client, timeout)
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
        parts = _DaskParts(self._cluster, problem, (method, parameterization), bounds)
        return _WatchedRun(problem, parts, bounds, self.checkpoint_every, self.traffic)

    def count(self) -> int:
        """Return into how many shards followers are cut, at most: one per worker by default."""
        return len(self._cluster.some_workers()) if self.shards is None else self.shards


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
        #: The last state that came here.
        self._copy: AscentState | None = None
        #: Iteration that was evaluated last, -1 before the first.
        self._evaluated = -1

    def start(self, payments: FloatArray, policies: str | FloatArray | None) -> None:
        super().start(payments, policies)
        self._copied, self._evaluated = 0, -1

    def load(self, state: AscentState) -> None:
        super().load(state)
        self._copied, self._evaluated, self._copy = state.iteration, -1, state

    def step(self) -> StepReport:
        report = super().step()
        self._evaluated = self.iteration
        if self._every is not None and self.iteration - self._copied >= self._every:
            self._origin = ("load", self._split(self.state()))
            self._copied = self.iteration
        return report

    def state(self) -> AscentState:
        self._copy = super().state()
        return self._copy

    def kept(self) -> AscentState | None:
        if self._shards.placed and self._shards.idle:
            # Those that died of the interrupt, or do not know of it yet, are not built again.
            with suppress(WorkersLostError, EngineError):
                arguments = [(self._advance,)] * len(self._ranges)
                parts = super()._do("gather", arguments)
                return join_states(parts, self._variables, self._problem.payments)
        return self._copy

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
                    raise EngineError(
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
        cluster: Cluster,
        problem: IncentiveProblem,
        settings: tuple[Method, Parameterization],
        bounds: NDArray[np.int64],
    ) -> None:
        self._cluster = cluster
        self._problem = problem
        self._settings = settings
        self._ranges = list(pairwise(bounds.tolist()))
        self._name = f"fastincentive-{secrets.token_hex(8)}"
        self._key = ""
        self._times = 0
        self._homes: list[str] = []
        self._ticks = [0] * len(self._ranges)
        self.placed = False
        #: Whether every shard has answered, so that all of them stand at the same point.
        self.idle = False
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
        workers = self._cluster.some_workers()
        self._times += 1
        self._key = f"{self._name}-{self._times}"
        count = len(self._ranges)
        self._homes = [workers[k * len(workers) // count % len(workers)] for k in range(count)]
        self._ticks = [0] * count
        futures = []
        for k, (first, last) in enumerate(self._ranges):
            shard = shard_of(self._problem, first, last)
            futures.append(self._submit(k, _build, (self._key, k), (shard, *self._settings)))
        self._cluster.collect(futures, set(self._homes))
        self.placed = self.idle = True

    def begin(self, task: str, arguments: Sequence[tuple[Any, ...]]) -> list[Query | Done]:
        found = self._call("begin", {k: (task, *each) for k, each in enumerate(arguments)})
        return [found[k] for k in range(len(arguments))]

    def go_on(self, answers: Mapping[int, Any]) -> dict[int, Query | Done]:
        return self._call("go_on", {k: (answer,) for k, answer in answers.items()})

    def close(self) -> None:
        """Let go of the shards, wherever they still are."""
        self.placed = False
        if self._times:
            self._cluster.forget(_drop, self._name)

    def _call(self, verb: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        futures, self.idle = [], False
        for k, each in arguments.items():
            call = _Call(self._key, k, self._ticks[k], verb, ())
            self._ticks[k] += 1
            self.moved += _bytes(each)
            futures.append(self._submit(k, _advance, call, each))
        self.exchanges += 1
        results = self._cluster.collect(futures, set(self._homes))
        if any(isinstance(result, _Gone) for result in results):
            raise WorkersLostError
        self.idle = True
        self.moved += sum(_bytes(result) for result in results)
        return dict(zip(arguments, results, strict=True))

    def _submit(self, k: int, function: Any, call: Any, payload: tuple[Any, ...]) -> Any:
        """Send a task to the worker of a shard, large arrays straight to it."""
        given: Any = payload
        home = self._homes[k]
        if _bytes(payload) > DIRECT_BYTES:
            given = self._cluster.scatter(payload, home)
        return self._cluster.submit(home, function, call, given)


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


def _bytes(given: Any) -> int:
    """Bytes of the arrays in a message."""
    if isinstance(given, np.ndarray):
        return int(given.nbytes)
    if isinstance(given, (tuple, list)):
        return sum(_bytes(each) for each in given)
    if hasattr(given, "__dict__") and type(given).__module__.startswith("fastincentive."):
        return sum(_bytes(each) for each in vars(given).values())
    return 0
