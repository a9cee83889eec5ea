"""Spoiled arguments of every public function: a typed error or an answer, never anything else.

``hostile.py`` spoils the calls of ``hostile_calls.py``; cases run in processes of their own: one
that ends its process must be seen, and not end the tests.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import hostile

#: Seconds after which a process is ended whose case does not end by itself.
PATIENCE = 3 * hostile.SECONDS + 60.0
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


if __name__ == "__main__":
    begun = time.time()
    for line in run_cases(int(sys.argv[1]), int(sys.argv[2])):
        print(line)
    print(time.time() - begun, file=sys.stderr)
