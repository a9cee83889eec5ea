"""Rewards of fifty followers beside a million simulated trajectories."""

import numpy as np
import pytest

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
    """Name -> reward, and what it is of states (runs, n), told apart from the package's code."""
    rng = np.random.default_rng(1)
    worth = np.r_[rng.normal(size=STATES - 1), 0.0]
    by_count = np.r_[0.0, rng.normal(size=N)]
    both = rng.normal(size=(N + 1, N + 1))
    both[0, 0] = 0.0
    table = np.r_[0.0, rng.normal(size=N)]
    curve = np.array([0.0, 1.0, 0.0, -2e-3, 1e-5])
    factors = rng.uniform(0.9, 1.1, size=(2, STATES))
    factors[:, SINK] = 1.0
    edges = np.array([(i, (7 * i + 3) % N) for i in range(N) if (7 * i + 3) % N != i])
    pair = rng.normal(size=(STATES, STATES))
    pair[SINK] = pair[:, SINK] = 0.0

    def at(states, *marked):
        return np.isin(states, marked).sum(axis=1)

    def congestion(states):
        return table[at(states, 1, 4)] + table[at(states, 2)]

    def polynomial(states):
        return sum(np.polynomial.polynomial.polyval(at(states, s), curve) for s in (1, 2, 3))

    def product(states):
        return factors[0][states].prod(axis=1) - factors[1][states].prod(axis=1)

    resources = np.array([-1, 0, 1, -1, 0, -1])
    links = np.array([-1, 0, 1, 2, -1, -1])
    found = {
        "additive": (fi.AdditiveReward(worth), lambda s: worth[s].sum(axis=1)),
        "count": (
            fi.CountReward([0, 1, 0, 1, 0, 0], by_count),
            lambda s: by_count[at(s, 1, 3)],
        ),
        "labels": (
            fi.CountReward([0, 1, 2, 2, 1, 0], both),
            lambda s: both[at(s, 1, 4), at(s, 2, 3)],
        ),
        "congestion": (fi.CongestionReward(resources, table), congestion),
        "polynomial": (fi.CongestionReward.polynomial(links, curve), polynomial),
        "product": (fi.ProductReward(factors, [1.0, -1.0]), product),
        "pairwise": (
            fi.PairwiseReward(edges, pair),
            lambda s: pair[s[:, edges[:, 0]], s[:, edges[:, 1]]].sum(axis=1),
        ),
    }
    parts = list(found.values())[:3]
    found["sum"] = (
        parts[0][0] + 0.5 * parts[1][0] + parts[2][0],
        lambda s: parts[0][1](s) + 0.5 * parts[1][1](s) + parts[2][1](s),
    )
    return found


@pytest.mark.slow
def test_values_lie_within_four_standard_errors_of_simulated_ones():
    followers, policies = followers_and_policies()
    cases = rewards()
    total, squares = np.zeros(len(cases)), np.zeros(len(cases))
    rng = np.random.default_rng(2)
    for _ in range(RUNS // BATCH):
        states = trajectories(rng, BATCH)
        for k, (_, earned) in enumerate(cases.values()):
            value = sum(GAMMA**t * earned(now) for t, now in enumerate(states))
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
