"""asv: one iteration of Algorithm 1, and whole runs to the certified tolerance."""

from __future__ import annotations

import numpy as np

import fastincentive as fi
from benchmarks.common import PROBLEMS, cases, needs


class Iteration:
    """Everything an iteration does: evaluations, best responses, gradients, projections."""

    params = PROBLEMS
    param_names = ["case"]

    def setup(self, name: str) -> None:
        """Compile, and go some way into a run."""
        needs(cases)
        self.problem = cases.build(name)
        self.method = fi.BilevelAscent()
        x = np.full(self.problem.payments.size, 2.0)
        state = self.method.init(self.problem, fi.Direct(), x, cases.answers(self.problem))
        for _ in range(10):
            state, _ = self.method.step_from(self.problem, fi.Direct(), state)
        self.state = state

    def time_iteration(self, name: str) -> None:
        """One iteration."""
        self.method.step_from(self.problem, fi.Direct(), self.state)


class PaperRuns:
    """The paper's experiment from each start, direct and softmax."""

    params = [["best-response", "leader-optimal"], ["direct", "softmax"]]
    param_names = ["start", "parameterization"]

    def setup(self, start: str, parameterization: str) -> None:
        """Compile, and refuse to time a run that is not certified."""
        needs(cases)
        self.problem = cases.build("paper")
        self.parameterization = fi.Direct() if parameterization == "direct" else fi.Softmax(0.05)
        self.run(start)

    def run(self, start: str) -> fi.Solution:
        """Solve; raise unless converged and feasible."""
        solution = fi.solve(
            self.problem, parameterization=self.parameterization, initial_policies=start
        ).raise_if_failed()
        if solution.feasibility < -1e-9:
            raise RuntimeError(f"infeasible: {solution.feasibility}")
        return solution

    def time_solve(self, start: str, parameterization: str) -> None:
        """Time of a whole run, recovery and certificate included."""
        self.run(start)

    def track_iterations(self, start: str, parameterization: str) -> int:
        """Iterations to the tolerance."""
        return self.run(start).nit

    def track_objective(self, start: str, parameterization: str) -> float:
        """Recovered objective: a change of figure is a change of behaviour."""
        return self.run(start).objective


class LargeGrid:
    """One follower on a grid of 10,001 states with a lesser goal that can be paid."""

    timeout = 120

    def setup(self) -> None:
        """Build the grid and compile."""
        rows = [["."] * 100 for _ in range(100)]
        rows[0][0], rows[-1][-1], rows[50][0] = "S", "G", "L"
        layout = "\n".join("".join(row) for row in rows)
        self.problem = fi.models.gridworld(layout, slip=0.1, discount=0.95)
        fi.solve(self.problem)

    def time_solve(self) -> None:
        """Time of a whole run, recovery included."""
        fi.solve(self.problem).raise_if_failed()

    def track_iterations(self) -> int:
        """Iterations to the tolerance."""
        return fi.solve(self.problem).nit


class Hypergradient:
    """Objective and total derivative for soft followers, beside an iteration of Algorithm 1."""

    params = PROBLEMS
    param_names = ["case"]

    def setup(self, name: str) -> None:
        """Build the case and compile."""
        needs(cases, getattr(fi, "hypergradient", None))
        self.problem = cases.build(name)
        self.payments = np.full(self.problem.payments.size, 2.0)
        fi.hypergradient(self.problem, self.payments, "soft", 0.1)

    def time_hypergradient(self, name: str) -> None:
        """Responses from nothing, three passes, one adjoint solve per follower."""
        fi.hypergradient(self.problem, self.payments, "soft", 0.1)
