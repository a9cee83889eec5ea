"""asv: scaling in the number of followers, of states, and in the leader's horizon."""

from __future__ import annotations

import numpy as np

import fastincentive as fi
from benchmarks.common import cases, needs


class Followers:
    """n robots that share a 6x6 model; the leader counts them."""

    params = [2, 8, 32, 128]
    param_names = ["n"]

    def setup(self, n: int) -> None:
        """Build the followers and compile."""
        needs(cases)
        self.problem = cases.stacked(n, 6)
        self.followers = self.problem.followers
        policy = cases.policy(6, "near-greedy")
        self.policies = np.broadcast_to(policy, self.followers.shape).copy()
        self.time_best_responses(n)
        self.time_evaluate(n)
        self.time_leader_gradient(n)

    def time_best_responses(self, n: int) -> None:
        """Of all followers."""
        self.followers.best_responses(self.followers.rewards)

    def time_evaluate(self, n: int) -> None:
        """V, Q and occupancy of all followers."""
        self.followers.evaluate(self.followers.rewards, self.policies)

    def time_leader_gradient(self, n: int) -> None:
        """Value and gradient."""
        self.problem.leader_pass(self.policies)

    def peakmem_leader_gradient(self, n: int) -> None:
        """Memory of the process."""
        self.problem.leader_pass(self.policies)


class States:
    """One robot on grids of growing size."""

    params = [37, 101, 901, 10001]
    param_names = ["S"]
    timeout = 120

    def setup(self, states: int) -> None:
        """Build the grid and compile."""
        needs(cases)
        size = round((states - 1) ** 0.5)
        self.followers = fi.Followers([cases.robot_grid(size)])
        self.policies = cases.policy(size, "near-greedy")[None]
        self.time_best_response(states)
        self.time_evaluate(states)

    def time_best_response(self, states: int) -> None:
        """V* from nothing."""
        self.followers.best_responses(self.followers.rewards)

    def time_evaluate(self, states: int) -> None:
        """V, Q and occupancy."""
        self.followers.evaluate(self.followers.rewards, self.policies)


class Horizon:
    """Two robots that idle, so that the leader's discount sets the number of steps."""

    params = [0.9, 0.95, 0.98, 0.99]
    param_names = ["leader's discount"]

    def setup(self, discount: float) -> None:
        """Build the case and compile."""
        needs(cases)
        self.problem, _, self.policies = cases.leader_case(2, 15, discount, "random")
        self.problem.leader_pass(self.policies)

    def time_leader_gradient(self, discount: float) -> None:
        """Value and gradient."""
        self.problem.leader_pass(self.policies)

    def track_steps(self, discount: float) -> int:
        """Steps of the sum over time."""
        return self.problem.leader_pass(self.policies).horizon
