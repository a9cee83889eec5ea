"""A Dask client that is asked with a time limit, and the workers that show signs of life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from fastincentive.errors import EngineError

__all__ = ["Cluster", "WorkersLostError"]

#: While answers are awaited, the workers are counted this often (seconds).
WATCH = 1.0
#: Workers are given so long to forget what they held (seconds).
FAREWELL = 5.0


class WorkersLostError(Exception):
    """Some shard is no more."""


class Cluster:
    """The scheduler and the workers behind a client; nothing is awaited for ever.

    A worker is there as long as its heartbeats arrive, however long its task takes; when none has
    come for the time-out it counts as lost, be it dead or frozen. A scheduler that does not say
    within the time-out who is there ends the run.

    Parameters
    ----------
    client : distributed.Client
    timeout : float
        Seconds.
    """

    def __init__(self, client: Any, timeout: float) -> None:
        self.client = client
        self._timeout = timeout
        self._watch = min(WATCH, timeout / 4)
        #: The last heartbeat of each worker, by the scheduler's clock, and when it was new here.
        self._beats: dict[str, tuple[float, float]] = {}
        #: Whether the scheduler answered when it was asked last.
        self._answers = True

    def workers(self) -> list[str]:
        """Return the addresses of the workers that show signs of life.

        Raises
        ------
        EngineError
            If the client is closed, or the scheduler does not answer.
        """
        self._check_open()
        self._answers = False
        try:
            found = self._within(self.client.scheduler.identity)["workers"]
        except (OSError, RuntimeError) as error:  # TimeoutError is an OSError
            self._check_open()
            raise EngineError(
                f"the Dask scheduler has not answered for {self._timeout:g} seconds: it is gone, "
                "frozen or cannot be reached; see its log, start another, or raise the timeout of "
                "engines.Dask"
            ) from error
        self._answers = True
        now = time.monotonic()
        beats = {address: float(each["last_seen"]) for address, each in found.items()}
        newest = max(beats.values(), default=0.0)
        for address, beat in beats.items():
            if self._beats.get(address, (None, now))[0] != beat:
                self._beats[address] = (beat, now)
        return sorted(
            address
            for address, beat in beats.items()
            if now - self._beats[address][1] < self._timeout and newest - beat < self._timeout
        )

    def some_workers(self) -> list[str]:
        """Return the workers, once there are any.

        Raises
        ------
        EngineError
            If there are none within the time-out, or as ``workers``.
        """
        end = time.monotonic() + self._timeout
        while not (found := self.workers()):
            if time.monotonic() > end:
                raise EngineError(
                    f"no Dask worker has shown a sign of life for {self._timeout:g} seconds; they "
                    "may have run out of memory: see their logs, start others, and solve again"
                )
            time.sleep(0.1)
        return found

    def scatter(self, payload: Any, worker: str) -> Any:
        """Send data straight to a worker."""

        async def sent() -> Any:
            return await self.client.scatter(
                payload, workers=[worker], hash=False, asynchronous=True
            )

        return self._asked(sent)

    def submit(self, worker: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Let a worker, and no other, call a function; one that is lost shows as it is waited for.

        Raises
        ------
        EngineError
            If the client is closed.
        """
        self._check_open()
        return self.client.submit(function, *arguments, workers=[worker], pure=False, retries=0)

    def collect(self, futures: Sequence[Any], homes: set[str]) -> list[Any]:
        """Wait for results.

        Raises
        ------
        WorkersLostError
            As soon as one of the workers is not there any more.
        """
        from distributed import CancelledError, KilledWorker

        async def begun() -> asyncio.Task[Any]:
            return asyncio.ensure_future(self.client.gather(list(futures), asynchronous=True))

        async def waited(task: asyncio.Task[Any]) -> bool:
            done, _ = await asyncio.wait({task}, timeout=self._watch)
            return bool(done)

        task = self._asked(begun)
        try:
            while not self._asked(waited, task):
                if not homes <= set(self.workers()):
                    raise WorkersLostError
            results: list[Any] = task.result()
        except (CancelledError, KilledWorker, asyncio.CancelledError):
            raise WorkersLostError from None
        finally:
            if not task.done():
                self._give_up(task, futures)
        return results

    def forget(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Let the workers that are there forget something, as far as they can be reached."""
        try:
            there = self.workers() if self._answers else []
            if there:
                self.client.run(
                    function,
                    *arguments,
                    workers=there,
                    on_error="ignore",
                    callback_timeout=min(FAREWELL, self._timeout),
                )
        except (EngineError, OSError):
            return

    def _give_up(self, task: asyncio.Task[Any], futures: Sequence[Any]) -> None:
        """Let nobody work on futures any more; nothing is awaited."""

        async def cancelled() -> None:
            task.cancel()
            with suppress(Exception):  # of a client that is closed or cut off
                await self.client.cancel(list(futures), force=True, asynchronous=True)

        self.client.loop.add_callback(cancelled)

    def _check_open(self) -> None:
        if self.client.status in ("closing", "closed") or self.client.scheduler is None:
            raise EngineError(
                "the Dask client is closed; give engines.Dask one that is open, and solve again"
            )

    def _asked(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a coroutine function that somebody may have to answer.

        Raises
        ------
        WorkersLostError
            If there is no answer, though the scheduler has one.
        """
        self._check_open()
        try:
            return self._within(function, *arguments)
        except (OSError, RuntimeError, KeyError, ValueError, asyncio.CancelledError):
            self.workers()
            raise WorkersLostError from None  # as far as can be told

    def _within(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a coroutine function in the client's loop, for as long as the time-out at most."""
        return self.client.sync(function, *arguments, callback_timeout=self._timeout)
