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


#: Number of followers -> checksum of the inputs of ``fleet``.
FLEETS = {100: "4f9c0459046c0392", 1000: "33e935b67d4ee4cc"}


def fleet(n: int) -> IncentiveProblem:
    """n robots on random 6x6 grids, one payment each; the leader wants an eighth at lesser goals.

    A count-like reward (steep up to n / 8, falling beyond) plus an additive one.
    """
    rng = np.random.default_rng(n)
    layouts = []
    for _ in range(20):
        cells = rng.permutation(36)
        drawn = np.full(36, ".")
        drawn[cells[0]], drawn[cells[1:3]], drawn[cells[3:8]] = "G", "L", "F"
        grid = "\n".join("".join(row) for row in drawn.reshape(6, 6))
        start = divmod(int(cells[8]), 6)
        models = [fi.models.grid_mdp(grid, slip, start) for slip in (0.02, 0.05, 0.1, 0.15)]
        layouts.append((cells, models))
    mdps, sites = [], []
    labels = np.zeros((n, 37), np.int64)
    bonus = np.zeros((n, 37))
    for i in range(n):
        cells, models = layouts[i % 20]
        mdps.append(
            models[rng.integers(4)].replace(
                discount=rng.choice([0.9, 0.95, 0.98]), initial=int(cells[8 + rng.integers(20)])
            )
        )
        sites.append([int(cells[1])])
        labels[i, cells[1:3]] = 1
        bonus[i, cells[1:3]] = rng.uniform()
    counts = np.arange(n + 1)
    values = 2.0 * np.minimum(counts, n / 8) - np.maximum(counts - n / 8, 0.0)
    problem = fi.IncentiveProblem(
        mdps,
        fi.CountReward(labels, values) + fi.AdditiveReward(bonus),
        fi.Payments.at_states(sites),
        leader_discount=0.98,
    )
    found = checksum(problem)
    if found != FLEETS[n]:
        raise ValueError(f"fleet of {n}: the inputs have checksum {found}, not {FLEETS[n]}")
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
