"""Spoiled arguments of every public function: a typed error or an answer, never anything else.

``hostile.py`` spoils the calls of ``hostile_calls.py``; cases run in processes of their own: one
that ends its process must be seen, and not end the tests.
"""

from __future__ import annotations

import inspect
import os
import selectors
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import is_dataclass
from itertools import chain

import hostile
import pytest
from hostile_calls import calls

import fastincentive as fi

#: Seconds after which a process is ended whose case does not end by itself.
PATIENCE = 600.0
COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


def run_cases(first: int, last: int) -> list[str]:
    """Run the cases first..last-1 in processes, and return what was wrong with which."""
    wrong = []
    while first < last:
        given = ""
        command = [sys.executable, hostile.__file__, str(first), str(last)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            for line in _lines(process):
                kind, seed, *rest = line.split("\t")
                if kind == "begin":
                    given = " ".join(rest)
                    continue
                first = int(seed) + 1
                if rest[0] not in ("answer", "typed"):
                    wrong.append(f"case {seed}: {rest[0]} {rest[1]} | {given}")
                given = ""
            process.kill()
            said = process.stderr.read().decode(errors="replace")[-300:]
        if first < last:
            wrong.append(f"case {first}: ended its process ({process.returncode}) {given} {said}")
            assert given, f"the worker could not begin: {said}"
            first += 1
    return wrong


def _lines(process):
    """Yield what a process writes, until it ends or has been silent for too long."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        held, until = b"", time.monotonic() + PATIENCE
        while selector.select(max(until - time.monotonic(), 0.0)):
            read = os.read(process.stdout.fileno(), 2**16)
            if not read:
                process.wait()
                return
            until = time.monotonic() + PATIENCE
            *lines, held = (held + read).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)


def run_many(count: int) -> list[str]:
    """Run so many cases in as many processes as there are processors, at most four."""
    workers = min(os.cpu_count() or 1, 4)
    ends = [count * k // workers for k in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        return list(chain.from_iterable(pool.map(run_cases, ends[:-1], ends[1:])))


@pytest.mark.skipif(not COMPILED, reason="kernels as plain Python take too long, and cannot crash")
def test_spoiled_arguments_end_in_a_typed_error_or_an_answer():
    """20,000 cases where ``HOSTILE_CASES`` says so, see ``CONTRIBUTING.md``."""
    wrong = run_many(int(os.environ.get("HOSTILE_CASES", "2000")))
    assert not wrong, "\n".join(["", *wrong])


@pytest.mark.parametrize("apart", [False, True])
def test_a_case_that_ends_its_process_is_told(apart, monkeypatch):
    """The gate fails where it should: on a signal, a raw error, NaN, and a changed argument."""
    monkeypatch.setenv("HOSTILE_FAULTS", "1")
    if apart:
        monkeypatch.setenv("HOSTILE_APART", "1")
    kinds = [each.split()[2] for each in run_cases(0, 5)]
    assert sorted(kinds) == ["changed", "ended", "hang", "nan", "raw"]


def test_every_public_name_is_called(tmp_path):
    names = {call.name.split()[0].split(".")[0] for call in calls(tmp_path)}
    results = {
        name
        for name in fi.__all__
        if inspect.isclass(kind := getattr(fi, name)) and "__post_init__" not in vars(kind)
        if is_dataclass(kind) or issubclass(kind, (tuple, BaseException, int))
    }
    other = {"LeaderReward", "ResponseMemory", "StrongStackelberg"}
    assert set(fi.__all__) - results - other <= names


def test_every_public_function_is_checked():
    public = [getattr(fi, name) for name in fi.__all__]
    functions = {each.__name__: each for each in public if inspect.isfunction(each)}
    # Its argument is looked at by the first thing that it does, in less time.
    del functions["best_response"]
    assert [name for name, each in functions.items() if not hasattr(each, "__wrapped__")] == []


if __name__ == "__main__":
    begun = time.time()
    for line in run_cases(int(sys.argv[1]), int(sys.argv[2])):
        print(line)
    print(time.time() - begun, file=sys.stderr)
