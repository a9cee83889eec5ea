"""Algorithm 1 as the paper prints it: its three lines, each against the formula in plain NumPy.

docs/equations.md says where every other equation is checked.
"""

from itertools import pairwise

import numpy as np
import pytest
import reference
from conftest import assert_close

import fastincentive as fi

ETA, XI = 5.0, 1e-3


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize("seed", range(3))
def test_algorithm_1_line_by_line(seed):
    problem = fi.models.random_problem(n=2, n_states=5, n_actions=3, rng=seed)
    followers = problem.followers
    literal = fi.BilevelAscent(
        geometry="ambient",
        multiplier="joint",
        barrier="gradient",
        natural_gradient=False,
        schedule="constant",
        eta=ETA,
        step=XI,
        payment_step=XI,
        max_iter=5,
    )
    seen = []
    fi.solve(problem, literal, polish=False, refine=False, callback=seen.append)
    assert len(seen) == literal.max_iter + 1  # the last state is evaluated, too
    multipliers = []
    for now, then in pairwise(seen):
        x, policies = now.payments, now.policies
        rewards = problem.rewards(x)
        held = followers.evaluate(rewards, policies)
        best = np.eye(followers.n_actions)[followers.best_responses(rewards).actions]
        answered = followers.evaluate(rewards, best)
        f_x = -problem.cost_weight * np.ones(x.size)  # eq. 11
        f_theta = problem.leader_gradient(policies)  # eq. 7
        q_x = problem.payments.pull_back(  # eq. 12
            held.visits[:, :, None] * policies - answered.visits[:, :, None] * best
        )
        q_theta = held.visits[:, :, None] * np.where(followers.available, held.q_values, 0.0)
        dot = f_x @ q_x + (f_theta * q_theta).sum()
        norm = q_x @ q_x + (q_theta * q_theta).sum()
        multiplier = max(ETA - dot / norm, 0.0)
        assert_close(now.multipliers, np.full(problem.n, multiplier), 1e-9)
        lower, upper = problem.payments.lower, problem.payments.upper
        moved = np.clip(x + XI * (f_x + multiplier * q_x), lower, upper)
        assert_close(then.payments, moved, 1e-11)
        theta = policies + XI * (f_theta + multiplier * q_theta)
        for i, s in np.ndindex(theta.shape[:2]):
            row = reference.project_simplex(theta[i, s], followers.available[i, s])
            assert_close(then.policies[i, s], row, 1e-11)
        multipliers.append(multiplier)
    assert max(multipliers) > 0
