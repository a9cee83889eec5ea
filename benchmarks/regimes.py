"""asv: regimes along a line, the search over them, certified optima, cheapest payments."""

from __future__ import annotations

import numpy as np

import fastincentive as fi
from benchmarks.common import cases, needs


class Lines:
    """All regimes of one follower of the paper's grid."""

    def setup(self) -> None:
        """Compile."""
        needs(cases)
        self.mdp = cases.build("paper").followers[1]
        fi.follower_regimes(self.mdp, 10, 20.0)

    def time_follower_regimes(self) -> None:
        """Parametric policy iteration over payments from 0 to 20."""
        fi.follower_regimes(self.mdp, 10, 20.0)


class Optimum:
    """The certified optimum of the paper's grid."""

    def setup(self) -> None:
        """Compile, and refuse to time a wrong answer."""
        needs(cases)
        self.problem = cases.build("paper")
        if abs(self.track_objective() - 7.746418484647) > 1e-9:
            raise RuntimeError("not the certified optimum")

    def time_global_optimum(self) -> None:
        """Every combination of responses, the search over mixtures included."""
        fi.global_optimum(self.problem)

    def track_objective(self) -> float:
        """Certified objective: a change of figure is a change of behaviour."""
        return fi.global_optimum(self.problem).objective


class Fleet:
    """Many followers, one payment each, a count-like reward."""

    params = [100]  # 1000 is a case of the bench command's large profile
    param_names = ["n"]
    timeout = 600

    def setup(self, n: int) -> None:
        """Build the followers and compile."""
        needs(cases)
        self.problem = cases.fleet(n)
        self.method = fi.RegimeAscent(starts=0)
        fi.solve(cases.fleet(100), self.method, initial_payments=0.0)
        self.policies = cases.answers(self.problem)

    def time_regime_ascent(self, n: int) -> None:
        """Line searches until no payment to one follower is better."""
        fi.solve(self.problem, self.method, initial_payments=0.0)

    def time_cheapest_payments(self, n: int) -> None:
        """Cheapest payments for the best responses to payments of 2."""
        fi.cheapest_payments(self.problem, self.policies)

    def peakmem_regime_ascent(self, n: int) -> None:
        """Memory of the process."""
        fi.solve(self.problem, self.method, initial_payments=0.0)


class Everywhere:
    """Payments for every state and action: linear programmes."""

    def setup(self) -> None:
        """Build the paper's grid with payments everywhere, and policies to buy."""
        needs(cases)
        paper = cases.build("paper")
        self.problem = fi.IncentiveProblem(
            paper.followers,
            fi.AdditiveReward(np.zeros(paper.followers.n_states)),
            fi.Payments.everywhere(),
        )
        self.policies = cases.answers(paper)
        fi.cheapest_payments(self.problem, self.policies)

    def time_cheapest_payments(self) -> None:
        """One programme for each follower."""
        fi.cheapest_payments(self.problem, self.policies)
