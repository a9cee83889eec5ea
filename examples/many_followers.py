"""A crowd, a tariff, and one multiplier or many: three pictures.

Run with the ``plot`` extra: ``python examples/many_followers.py``. It writes ``crowd.png``,
``demand.png`` and ``multipliers.png`` into the current directory, in about a minute.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import fastincentive as fi


def state_laws(problem: fi.IncentiveProblem, payments: float | np.ndarray) -> np.ndarray:
    """Follow best responses: the law (T, n, S) of each follower's state, time by time."""
    return problem.forward(fi.best_response_policies(problem, payments)).laws


def crowd(path: Path, n: int = 60) -> None:
    """Draw how many are at each lesser destination, step by step."""
    problem = fi.models.crowd(n)
    solution = fi.solve(problem)
    figure = Figure((7.0, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    # A hair above the solution's payments nobody is indifferent.
    paid = np.where(solution.payments > 0.0, solution.payments + 1e-6, 0.0)
    for ax, payments, title in zip(axes, (0.0, paid), ("no payments", "payments"), strict=True):
        laws = state_laws(problem, payments)
        for cell, name in zip(problem.grid.lesser_goals, ("north-east", "south-west"), strict=True):
            there = laws[:, :, problem.grid.state(cell)].sum(axis=1)
            ax.plot(there, marker=".", label=f"{name} destination")
        ax.axhline(n / 20, color="0.6", linestyle=":", label="capacity")
        ax.set(title=title, xlabel="step", xlim=(0, 25))
    axes[0].set_ylabel("expected followers there")
    axes[0].legend(frameon=False, loc="upper right", bbox_to_anchor=(1.0, 0.88))
    before = problem.evaluate(0.0, fi.best_response_policies(problem, 0.0)).leader_value
    figure.suptitle(f"{n} followers; the leader earns {before:.1f} and {solution.leader_value:.1f}")
    figure.savefig(path, dpi=150)


def demand(path: Path, n: int = 30, count: int = 12) -> None:
    """Draw the load by slot without payments and under a posted tariff."""
    problem = fi.models.demand_response(n, slots=count)
    solution = fi.solve(problem, initial_payments=0.2)
    figure = Figure((7.0, 3.2), layout="constrained")
    ax = figure.subplots()
    slots = np.arange(count)
    nothing = fi.best_response_policies(problem, 0.0)
    for policies, shift, name in (
        (nothing, -0.2, "no payments"),
        (solution.policies, 0.2, "tariff"),
    ):
        consuming = (problem.forward(policies).laws * policies[:, :, 1]).sum(axis=(0, 1))
        ax.bar(slots + shift, consuming[:-1].reshape(count, -1).sum(axis=1), 0.4, label=name)
    ax.plot(slots, 10 * solution.payments, "k.:", label="bonus per slot, times 10")
    ax.set(xlabel="slot", ylabel="expected load", title=f"{n} households")
    ax.legend(frameon=False)
    figure.savefig(path, dpi=150)


def multipliers(path: Path) -> None:
    """Draw feasibility against iterations for one multiplier and for one per follower."""
    problem = fi.models.random_problem(n=8, n_states=20, rng=1)
    figure = Figure((5.0, 3.4), layout="constrained")
    ax = figure.subplots()
    for multiplier in ("joint", "per-follower"):
        method = fi.BilevelAscent(multiplier=multiplier, max_iter=400)
        solution = fi.solve(problem, method, refine=False)
        short = -np.array(solution.history.feasibility)
        ax.semilogy(np.maximum(short, 1e-9), label=f"{multiplier} multiplier")
    ax.set(xlabel="iteration", ylabel="sum of the followers' gaps")
    ax.set_title(f"{problem.n} random followers")
    ax.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    warnings.simplefilter("ignore", fi.ConvergenceWarning)
    crowd(Path("crowd.png"))
    demand(Path("demand.png"))
    multipliers(Path("multipliers.png"))
