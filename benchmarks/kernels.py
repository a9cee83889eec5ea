"""asv: one call of each large kernel, warm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import fastincentive as fi
from benchmarks.common import PROBLEMS, cases, method, moved, needs


class Kernels:
    """Evaluation, best responses, and the leader's passes of small problems."""

    params = PROBLEMS
    param_names = ["case"]

    def setup(self, name: str) -> None:
        """Build the case and compile."""
        needs(cases)
        self.problem = cases.build(name)
        self.policies = cases.answers(self.problem)
        self.rewards = self.problem.rewards(np.full(self.problem.payments.size, 2.0))
        self.warm = self.problem.followers.best_responses(self.rewards).actions
        self.problem.followers.evaluate(self.rewards, self.policies)
        self.problem.leader_pass(self.policies)

    def time_evaluate(self, name: str) -> None:
        """V, Q and occupancy of every follower."""
        self.problem.followers.evaluate(self.rewards, self.policies)

    def time_best_responses_cold(self, name: str) -> None:
        """Policy iteration from the uniform start."""
        self.problem.followers.best_responses(self.rewards)

    def time_best_responses_warm(self, name: str) -> None:
        """Policy iteration from the answer."""
        self.problem.followers.best_responses(self.rewards, self.warm)

    def time_leader_value(self, name: str) -> None:
        """Forward pass and expectations."""
        self.problem.leader_pass(self.policies, gradient=False)

    def time_leader_gradient(self, name: str) -> None:
        """All three passes."""
        self.problem.leader_pass(self.policies)

    def peakmem_leader_gradient(self, name: str) -> None:
        """Memory of the process."""
        self.problem.leader_pass(self.policies)


class Grids:
    """One follower on a robot grid."""

    params = [[30, 100], [0.95, 0.999]]
    param_names = ["size", "discount"]
    timeout = 120

    def setup(self, size: int, discount: float) -> None:
        """Build the grid and compile."""
        needs(cases)
        self.followers = fi.Followers([cases.robot_grid(size, discount)])
        self.rewards = self.followers.rewards
        self.policies = cases.policy(size, "near-greedy")[None]
        self.followers.best_responses(self.rewards)
        self.followers.evaluate(self.rewards, self.policies)

    def time_best_response(self, size: int, discount: float) -> None:
        """V* from nothing."""
        self.followers.best_responses(self.rewards)

    def time_evaluate(self, size: int, discount: float) -> None:
        """V, Q and occupancy."""
        self.followers.evaluate(self.rewards, self.policies)

    def peakmem_best_response(self, size: int, discount: float) -> None:
        """Memory of the process."""
        self.followers.best_responses(self.rewards)


class Joint:
    """A dense reward on joint states: the three passes and the product-space routes."""

    params = [[(2, 6), (2, 15), (3, 6)]]
    param_names = ["followers and size"]

    def setup(self, which: tuple[int, int]) -> None:
        """Build the case and compile."""
        needs(cases)
        self.problem, _, self.policies = cases.leader_case(*which, 0.95)
        self.problem.leader_pass(self.policies)

    def time_leader_gradient(self, which: tuple[int, int]) -> None:
        """Value and gradient."""
        self.problem.leader_pass(self.policies)

    def time_joint_occupancy(self, which: tuple[int, int]) -> None:
        """Visitation of the joint states."""
        self.problem.joint_occupancy(self.policies)

    def time_joint_values(self, which: tuple[int, int]) -> None:
        """Values of the joint states."""
        method(self.problem, "joint_values")(self.policies)

    def peakmem_leader_gradient(self, which: tuple[int, int]) -> None:
        """Memory of the process."""
        self.problem.leader_pass(self.policies)


class JointOccupancy:
    """The product-space route for two followers at discount 1."""

    params = ["sum", "stein"]
    param_names = ["method"]

    def setup(self, method: str) -> None:
        """Build the paper's grid and compile."""
        needs(cases)
        self.problem = cases.build("paper")
        self.policies = cases.answers(self.problem)
        self.problem.joint_occupancy(self.policies, method=method)

    def time_joint_occupancy(self, method: str) -> None:
        """Visitation of the 37 x 37 joint states."""
        self.problem.joint_occupancy(self.policies, method=method)


class Sampling:
    """The leader's gradient from joint trajectories of the paper's grid, uniform policies."""

    params = ["total return", "reward to go, time"]
    param_names = ["form"]

    def setup(self, form: str) -> None:
        """Build the grid and compile."""
        needs(cases, getattr(fi, "Reinforce", None))
        forms = moved("studies.audit", "audit").FORMS
        uniform_policies = moved("followers.single", "response").uniform_policies

        self.problem = cases.build("paper")
        self.policies = uniform_policies(self.problem.followers)
        self.estimator = replace(forms[form], trajectories=5000)
        self.estimator.estimate(self.problem, self.policies)

    def time_reinforce(self, form: str) -> None:
        """Sample, weigh and score 5,000 trajectories, some 220,000 joint steps."""
        self.estimator.estimate(self.problem, self.policies)
