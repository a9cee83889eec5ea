"""asv: scaling in the number of followers, of states, and in the leader's horizon."""

from __future__ import annotations

from time import perf_counter

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


class Crowds:
    """Up to 100,000 robots that share a 6x6 model, and rewards whose cost grows with their number.

    ``track_exponent`` is the slope of log(time) over log(n) from 100 robots to 100,000.
    """

    params = ["additive", "congestion", "product"]
    param_names = ["reward"]
    timeout = 300

    def setup(self, reward: str) -> None:
        """Build 10,000 robots and compile."""
        needs(cases)
        self.problem, self.policies = self._crowd(10_000, reward)
        self.problem.leader_pass(self.policies)

    def _crowd(self, n: int, reward: str) -> tuple[fi.IncentiveProblem, np.ndarray]:
        try:
            problem = cases.stacked(n, 6, reward)
        except TypeError as error:  # a commit with the count alone
            raise NotImplementedError from error
        policy = cases.policy(6, "near-greedy")
        return problem, np.broadcast_to(policy, problem.followers.shape).copy()

    def time_leader_gradient(self, reward: str) -> None:
        """Value and gradient."""
        self.problem.leader_pass(self.policies)

    def peakmem_leader_gradient(self, reward: str) -> None:
        """Memory of the process."""
        self.problem.leader_pass(self.policies)

    def track_exponent(self, reward: str) -> float:
        """Exponent of the time in n; 1 is a cost per robot that does not grow."""
        sizes = (100, 1000, 10_000, 100_000)
        seconds = []
        for n in sizes:
            problem, policies = self._crowd(n, reward)
            samples = []
            for _ in range(1 if n == sizes[-1] else 3):
                began = perf_counter()
                problem.leader_pass(policies)
                samples.append(perf_counter() - began)
            seconds.append(min(samples))
        return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


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
