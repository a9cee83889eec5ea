"""The frozen cases that asv and pytest-benchmark share, with checksums of their inputs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

import fastincentive as fi

if TYPE_CHECKING:
    from fastincentive.problem import IncentiveProblem

#: Name -> checksum of the inputs; a case whose inputs change is another case.
CHECKSUMS = {
    "paper": "99eb420352c0aaf6",
    "random-2x50": "505e57862fb9b0a8",
    "random-8x10": "b4d4d766190b8333",
}


def build(name: str) -> IncentiveProblem:
    """Build a case and check that its inputs are the frozen ones."""
    if name == "paper":
        problem = fi.models.paper_gridworld()
    elif name == "random-2x50":
        problem = fi.models.random_problem(n=2, n_states=50, n_actions=4, branching=4, rng=1)
    elif name == "random-8x10":
        problem = fi.models.random_problem(n=8, n_states=10, n_actions=3, branching=3, rng=2)
    else:
        raise KeyError(name)
    found = checksum(problem)
    if found != CHECKSUMS[name]:
        raise ValueError(f"case {name}: the inputs have checksum {found}, not {CHECKSUMS[name]}")
    return problem


def checksum(problem: IncentiveProblem) -> str:
    """Digest of everything a case is made of."""
    digest = hashlib.sha256()
    for array in (
        *problem.followers.packed,
        problem.followers.rewards,
        problem.leader.labels,
        problem.payments.index,
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def uniform(problem: IncentiveProblem) -> np.ndarray:
    """Uniform policies over the available actions."""
    available = problem.followers.available
    return available / available.sum(axis=2, keepdims=True)


def answers(problem: IncentiveProblem) -> np.ndarray:
    """Best responses to payments of 2."""
    return fi.best_response_policies(problem, np.full(problem.payments.size, 2.0))
