"""asv: one call of each large kernel, warm."""

from __future__ import annotations

import numpy as np

from benchmarks import cases


class Kernels:
    """Evaluation, best responses, and the leader's passes."""

    params = list(cases.CHECKSUMS)
    param_names = ["case"]

    def setup(self, name: str) -> None:
        """Build the case and compile."""
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


class JointOccupancy:
    """The product-space route for two followers."""

    params = ["sum", "stein"]
    param_names = ["method"]

    def setup(self, method: str) -> None:
        """Build the paper's grid and compile."""
        self.problem = cases.build("paper")
        self.policies = cases.answers(self.problem)
        self.problem.joint_occupancy(self.policies, method=method)

    def time_joint_occupancy(self, method: str) -> None:
        """Visitation of the 37 x 37 joint states."""
        self.problem.joint_occupancy(self.policies, method=method)
