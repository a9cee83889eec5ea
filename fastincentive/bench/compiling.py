"""Seconds that compiling takes, kernel by kernel, in a process that finds no compiled code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

__all__ = ["compile_seconds", "kernel_names"]

#: What a new process runs. Kernels that a kernel calls are taken out of it, numba's own are not.
_WORKLOAD = """
import json, time
import numpy as np
from numba.core import event
spent, open_ = {}, []

class Listener(event.Listener):
    def on_start(self, each):
        open_.append([time.perf_counter(), 0.0])
    def on_end(self, each):
        began, nested = open_.pop()
        seconds = time.perf_counter() - began
        function = each.data["dispatcher"].py_func
        if function.__module__.startswith("fastincentive."):
            name = function.__name__.removesuffix("_serial")
            spent[name] = spent.get(name, 0.0) + seconds - nested
            nested = seconds
        if open_:
            open_[-1][1] += nested

import fastincentive as fi
problem = fi.models.paper_gridworld()
with event.install_listener("numba:compile", Listener()):
    fi.solve(problem)
    policies = fi.best_response_policies(problem, [2.0, 2.0])
    problem.joint_occupancy(policies)
    problem.joint_occupancy(policies, method="stein")
    # Many states.
    rows = ["." * 21] * 19
    mdp = fi.models.grid_mdp(chr(10).join(["S" + "." * 20, *rows, "." * 20 + "G"]))
    large = fi.Followers([mdp])
    memory = fi.ResponseMemory()
    for _ in range(2):
        large.best_responses(large.rewards, memory=memory)
    large.best_responses(large.rewards)
    for route in ("sweeps", "direct"):
        large.evaluate(large.rewards, np.full(large.shape, 0.25), route)
    # Many followers.
    labels = np.arange(37) % 3
    for leader in (
        fi.CountReward(labels > 1, np.arange(4.0)),
        fi.CountReward(labels, np.ones((4, 4))),
        fi.CongestionReward(labels, np.arange(4.0)),
        fi.CongestionReward.polynomial(labels, [0.0, 1.0, -0.1]),
        fi.ProductReward(labels[None] / 2.0),
        fi.PairwiseReward([(0, 1), (1, 2)], np.eye(37)),
    ):
        many = fi.IncentiveProblem(
            [problem.followers[0]] * 3, leader, fi.Payments.everywhere(), leader_discount=0.9
        )
        many.leader_gradient(np.full((3, 37, 4), 0.25))
print(json.dumps(spent))
"""


def compile_seconds() -> dict[str, float]:
    """Compile what solves of all sizes need, and return each kernel's own seconds.

    Raises
    ------
    RuntimeError
        If the process fails.
    """
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", _WORKLOAD],
            capture_output=True,
            text=True,
            env={**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": path},
        )
    if done.returncode:
        raise RuntimeError(f"compiling failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def kernel_names() -> list[str]:
    """Names of the package's kernels, read from their sources."""
    names = set()
    for path in (Path(__file__).parents[1] / "kernels").glob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for before, line in pairwise(lines):
            if before in ("@jit", "@parallel_jit") and line.startswith("def "):
                names.add(line[4 : line.index("(")])
    return sorted(names)
