"""Figure 5's replicated experiments: the ascent from many starts near initialisation 2."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastincentive import solve
from fastincentive._arrays import FloatArray
from fastincentive.errors import ConvergenceWarning
from fastincentive.followers.parameterization import Parameterization
from fastincentive.methods import BilevelAscent
from fastincentive.methods._starts import leader_optimal_policies
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["LEVELS", "SHARE", "Replications", "replicated"]

#: Of random policies in each replication's start. The paper does not say what it varies.
SHARE = 0.1
#: The bands are between these quantiles.
LEVELS = (0.1, 0.9)


class Replications(NamedTuple):
    """The runs of one parameterization, a row for each; a run that has ended stays where it is."""

    payments: FloatArray  # (runs, nit, k)
    feasibility: FloatArray  # (runs, nit)
    leader_value: FloatArray  # (runs, nit)
    objective: FloatArray  # (runs, nit)
    iterations: FloatArray  # (runs,)
    converged: FloatArray  # (runs,), 1 or 0
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Return the mean and the quantiles of what runs end with, as plain data."""
        ends = {
            **{f"x{k + 1}": self.payments[:, -1, k] for k in range(self.payments.shape[2])},
            "feasibility": self.feasibility[:, -1],
            "leader_value": self.leader_value[:, -1],
            "objective": self.objective[:, -1],
            "iterations": self.iterations,
        }
        return {
            "count": len(self.iterations),
            "converged": int(self.converged.sum()),
            "seconds": self.seconds,
            "ends": {
                name: {
                    "mean": float(column.mean()),
                    "quantiles": np.quantile(column, LEVELS).tolist(),
                    "runs": column.tolist(),
                }
                for name, column in ends.items()
            },
        }


def replicated(
    problem: IncentiveProblem,
    parameterization: Parameterization,
    method: BilevelAscent,
    payment: float,
    seeds: range,
    before: Callable[[int], None],
) -> Replications:
    """Run the ascent once for each seed.

    Starts are initialisation 2's policies with a share of random ones mixed in, drawn uniformly
    from the policies; payments start from ``payment``. A method that draws takes the same seed.
    """
    began = time.perf_counter()
    base = leader_optimal_policies(problem)
    solutions = []
    for seed in seeds:
        before(seed)
        rng = np.random.default_rng(seed)
        noise = np.where(problem.followers.available, rng.standard_exponential(base.shape), 0.0)
        start = (1.0 - SHARE) * base + SHARE * noise / noise.sum(axis=2, keepdims=True)
        own = method.drawing_from(seed) if method.capabilities.draws else method
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            solutions.append(
                solve(problem, own, parameterization, payment, start, refine=False, polish=False)
            )
    longest = max(len(each.history) for each in solutions)

    def column(name: str) -> FloatArray:
        rows = [each.history.arrays()[name] for each in solutions]
        return np.stack([row[np.minimum(np.arange(longest), len(row) - 1)] for row in rows])

    return Replications(
        payments=column("payments"),
        feasibility=column("feasibility"),
        leader_value=column("leader_value"),
        objective=column("objective"),
        iterations=np.array([each.nit for each in solutions], float),
        converged=np.array([each.success for each in solutions], float),
        seconds=time.perf_counter() - began,
    )
