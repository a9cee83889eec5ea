"""What an engine does when workers or the scheduler freeze or die, and when it is interrupted."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from conftest import assert_identical

import fastincentive as fi
from fastincentive.engines import Dask, Local

distributed = pytest.importorskip("distributed")

#: Seconds without a sign of life, of workers that have loaded all they need.
TIMEOUT = 3.0
#: Seconds that all else may take on a busy machine.
REST = 15.0
METHOD = fi.BilevelAscent(max_iter=12)


@pytest.fixture(autouse=True)
def _never_small(monkeypatch):
    """Small problems would be one shard."""
    monkeypatch.setattr(fi.IncentiveProblem, "small", property(lambda self: False))


@pytest.fixture(scope="module")
def problem():
    problem = fi.models.crowd(6, rng=1, size=5)
    problem.leader_side.steps_before_doubling = np.inf
    return problem


def solved(problem, engine=None, callback=None, method=METHOD, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fi.ConvergenceWarning)
        return fi.solve(
            problem,
            method,
            initial_policies="best-response",
            refine=False,
            polish=False,
            engine=engine,
            callback=callback,
            **settings,
        )


def at(iteration, what):
    """A callback that does something once, at an iteration."""

    def callback(report):
        if report.iteration == iteration and not callback.done:
            callback.done = True
            callback.since = time.monotonic()
            what()

    callback.done = False
    return callback


@contextmanager
def process(*arguments, **settings):
    """A process of Dask's, which is no more afterwards, frozen or not."""
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, **settings) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.fixture
def cluster(tmp_path, problem):
    """A scheduler and two workers, each a process, and a client."""
    file = tmp_path / "scheduler.json"
    where = ("--scheduler-file", file)
    quiet = ("--no-dashboard",)
    with ExitStack() as stack:
        scheduler = stack.enter_context(
            process("distributed.cli.dask_scheduler", "--port", "0", *where, *quiet)
        )
        workers = [
            stack.enter_context(
                process(
                    *("distributed.cli.dask_worker", *where, *quiet, "--no-nanny"),
                    *("--nthreads", "1", "--local-directory", tmp_path),
                )
            )
            for _ in range(2)
        ]
        client = distributed.Client(scheduler_file=str(file), timeout=30)
        client.wait_for_workers(2, timeout=30)
        solved(problem, Dask(client))
        yield client, scheduler, workers
        for each in (scheduler, *workers):
            each.send_signal(signal.SIGCONT)
        client.close(timeout=2)


@pytest.mark.slow
def test_a_frozen_worker_is_left_alone(cluster, problem):
    client, _, workers = cluster
    expected = solved(problem)
    engine = Dask(client, timeout=TIMEOUT, checkpoint_every=2)
    freeze = at(5, lambda: workers[0].send_signal(signal.SIGSTOP))
    found = solved(problem, engine, freeze)
    assert time.monotonic() - freeze.since < 2 * TIMEOUT + REST
    assert engine.traffic.losses >= 1
    assert_identical(found.history, expected.history)
    assert_identical(found.ascent, expected.ascent)
    # The other one as well: nobody is left.
    freeze = at(3, lambda: workers[1].send_signal(signal.SIGSTOP))
    with pytest.raises(fi.EngineError, match="no Dask worker has shown a sign of life for 3 sec"):
        solved(problem, engine, freeze)
    assert time.monotonic() - freeze.since < 2 * TIMEOUT + REST
    # They wake up, and the next run finds them.
    for each in workers:
        each.send_signal(signal.SIGCONT)
    assert_identical(solved(problem, engine).history, expected.history)


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_ends_the_run(cluster, problem, tmp_path):
    client, scheduler, workers = cluster
    path = tmp_path / "run.npz"
    engine = Dask(client, timeout=TIMEOUT, checkpoint_every=2)
    freeze = at(5, lambda: scheduler.send_signal(signal.SIGSTOP))
    with pytest.raises(fi.EngineError, match="scheduler has not answered for 3 seconds"):
        solved(problem, engine, freeze, checkpoint=path)
    assert time.monotonic() - freeze.since < 2 * TIMEOUT + REST
    scheduler.send_signal(signal.SIGCONT)
    # What was copied last is there to go on from.
    assert_resumes(problem, path, at_least=4)
    for each in workers:
        each.kill()
    with pytest.raises(fi.EngineError, match="no Dask worker has shown a sign of life"):
        solved(problem, engine)
    client.close()
    with pytest.raises(fi.EngineError, match="the Dask client is closed"):
        solved(problem, engine)


def assert_resumes(problem, path, at_least=0, method=METHOD):
    """The file's history is that of its state, and the run goes on to the same end."""
    with np.load(path) as file:
        iteration = int(file["state_iteration"])
        assert len(file["history_objective"]) in (iteration, iteration + 1)
    assert iteration >= at_least
    expected = solved(problem, method=method)
    found = solved(problem, Local(2), method=method, checkpoint=path)
    assert_identical(found.history, expected.history)
    assert_identical(found.ascent, expected.ascent)


@pytest.mark.slow
def test_closed_clients_and_interrupts(problem, tmp_path):
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        client = distributed.Client(cluster)
        solved(problem, Dask(client))
        engine = Dask(client, timeout=TIMEOUT, checkpoint_every=3)

        def interrupt():
            raise KeyboardInterrupt

        def signalled():
            # Somewhere in the steps that follow.
            threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT)).start()

        longer = fi.BilevelAscent(max_iter=10_000, tolerance=1e-300)
        for k, what in enumerate((interrupt, signalled)):
            path = tmp_path / f"{k}.npz"
            with pytest.raises(KeyboardInterrupt):
                solved(problem, engine, at(7, what), longer, checkpoint=path)
            with np.load(path) as file:
                stands = int(file["state_iteration"])
            method = fi.BilevelAscent(max_iter=stands + 4, tolerance=1e-300)
            assert_resumes(problem, path, at_least=6, method=method)
        client.close()
        with pytest.raises(fi.EngineError, match="the Dask client is closed"):
            solved(problem, engine)
        with distributed.Client(cluster) as client:
            closing = at(4, client.close)
            with pytest.raises(fi.EngineError, match="the Dask client is closed"):
                solved(problem, Dask(client), closing)
            assert time.monotonic() - closing.since < REST


INTERRUPTED = """
    import sys
    import numpy as np
    from distributed import Client, LocalCluster
    import fastincentive as fi

    def tell(report):
        if report.iteration == 5:
            print("running", flush=True)

    if __name__ == "__main__":
        fi.IncentiveProblem.small = property(lambda self: False)
        problem = fi.models.crowd(6, rng=1, size=5)
        problem.leader_side.steps_before_doubling = np.inf
        method = fi.BilevelAscent(max_iter=10_000, tolerance=1e-300)
        with LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster, Client(cluster) as client:
            engine = fi.engines.Dask(client, checkpoint_every=2)
            fi.solve(problem, method, initial_policies="best-response", refine=False, engine=engine,
                     callback=tell, checkpoint=sys.argv[1])
"""


@pytest.mark.slow
def test_an_interrupt_of_all_processes_leaves_a_file(problem, tmp_path):
    path, script = tmp_path / "run.npz", tmp_path / "script.py"
    script.write_text(textwrap.dedent(INTERRUPTED))
    with subprocess.Popen(
        [sys.executable, script, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as started:
        try:
            assert started.stdout.readline() == b"running\n"
            os.killpg(started.pid, signal.SIGINT)
            started.wait(60)
        finally:
            with warnings.catch_warnings():
                started.kill()
    assert started.returncode != 0
    with np.load(path) as file:
        stands = int(file["state_iteration"])
    method = fi.BilevelAscent(max_iter=stands + 4, tolerance=1e-300)
    assert_resumes(problem, path, at_least=2, method=method)
