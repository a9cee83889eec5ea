"""Rewards of fifty followers beside a million simulated trajectories."""

import numpy as np
import pytest
from rewards import REWARDS, Setting

import fastincentive as fi

N, STATES, SINK = 50, 6, 5
RUNS, BATCH = 1_000_000, 50_000
GAMMA = 0.8


def chances():
    """Odds (n,) of going from state 0 to 1, else 2, and (n, 2) from there to 3, else 4."""
    rng = np.random.default_rng(0)
    first, second = rng.random(N), rng.random((N, 2))
    first[:3], second[3:6] = (0.0, 1.0, 1.0), 1.0  # some are certain
    return first, second


def followers_and_policies():
    """Actions choose the branch; states 3 and 4 lead to the sink."""
    transition = np.zeros((STATES, 2, STATES))
    transition[0, 0, 1] = transition[0, 1, 2] = 1.0
    transition[1:3, 0, 3] = transition[1:3, 1, 4] = 1.0
    transition[3:, :, SINK] = 1.0
    mdp = fi.TabularMDP(transition, np.zeros((STATES, 2)), discount=0.9, initial=0)
    first, second = chances()
    policies = np.full((N, STATES, 2), 0.5)
    policies[:, 0] = np.stack([first, 1.0 - first], axis=1)
    policies[:, 1:3] = np.stack([second, 1.0 - second], axis=2)
    return [mdp] * N, policies


def trajectories(rng, runs):
    """States (runs, n) at times 0, 1 and 2."""
    first, second = chances()
    one = np.where(rng.random((runs, N)) < first, 1, 2)
    odds = np.where(one == 1, second[:, 0], second[:, 1])
    return np.zeros_like(one), one, np.where(rng.random((runs, N)) < odds, 3, 4)


def rewards():
    """Name -> reward of states, nothing being earned in the sink, and what it is by definition."""
    setting = Setting(N, STATES, 2, "states", idle=1)
    return {
        name: each.draw(np.random.default_rng(k), setting)
        for k, (name, each) in enumerate(REWARDS.items())
        if each.many
    }


@pytest.mark.slow
def test_values_lie_within_four_standard_errors_of_simulated_ones():
    followers, policies = followers_and_policies()
    cases = rewards()
    total, squares = np.zeros(len(cases)), np.zeros(len(cases))
    rng = np.random.default_rng(2)
    for _ in range(RUNS // BATCH):
        states = trajectories(rng, BATCH)
        for k, (_, earned) in enumerate(cases.values()):
            # Actions are not seen.
            value = sum(GAMMA**t * earned(now, None) for t, now in enumerate(states))
            total[k] += value.sum()
            squares[k] += (value**2).sum()
    mean = total / RUNS
    error = np.sqrt((squares / RUNS - mean**2) / RUNS)
    for k, (name, (reward, _)) in enumerate(cases.items()):
        problem = fi.IncentiveProblem(
            followers, reward, fi.Payments.everywhere(), leader_discount=GAMMA
        )
        off = abs(problem.leader_value(policies) - mean[k])
        assert off <= 4.0 * error[k] + 1e-12, (name, off / error[k])
