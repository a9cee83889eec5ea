"""Types of followers with counts beside the same followers one by one."""

import numpy as np
import pytest
from conftest import EXACT, ROUNDING, assert_close, random_game

import fastincentive as fi

COUNTS = np.array([2, 1, 3])


def both(leader_discount=0.9, cost=None, kind="sum", seed=0):
    """A problem of three types, and that of their six followers, payments shared within a type."""
    rng = np.random.default_rng(seed)
    n = int(COUNTS.sum())
    game = random_game(rng, 3, 5, 2, 0.9, closed=1, unavailable=0.0)
    kinds = {
        "additive": fi.AdditiveReward([0.3, -1.0, 0.5, 2.0, 0.0]),
        "count": fi.CountReward([0, 1, 0, 1, 0], np.r_[0.0, rng.normal(size=n)]),
        "product": fi.ProductReward(rng.uniform(0.5, 1.5, size=(2, 3, 5)), [1.0, -0.4]),
        "own count": fi.CountReward(rng.integers(2, size=(3, 5, 2)), rng.normal(size=n + 1)),
        "labels": fi.CountReward([0, 1, 2, 1, 0], rng.normal(size=(n + 1, n + 1))),
        "table": fi.CongestionReward([0, 1, 2, -1, -1], np.r_[0.0, rng.normal(size=n)]),
        "congestion": fi.CongestionReward.polynomial([0, 1, 2, -1, -1], [0.0, 1.0, -0.2, 0.01]),
    }
    if leader_discount == 1.0:  # nothing is earned for ever
        kinds["own count"].labels[:, 4] = 0
        kinds["product"].factors[:, 0, 4] = 0.0
        for each in ("own count", "labels"):
            kinds[each].values.flat[0] = 0.0
    kinds["sum"] = kinds["additive"] + 0.5 * kinds["count"] + kinds["congestion"]
    leader = kinds[kind]
    index = np.full((3, 5, 2), -1)
    index[:, 1], index[:, 2, 0] = np.array([0, 2, 4])[:, None], [1, 3, 5]
    mdps = list(game.problem().followers)
    settings = {"leader_discount": leader_discount, "cost_weight": 0.3}
    types = fi.IncentiveProblem(
        fi.Followers(mdps, COUNTS), leader, fi.Payments.from_index(index), cost=cost, **settings
    )
    each = np.repeat(np.arange(3), COUNTS)
    listed = leader
    if kind == "own count":
        listed = fi.CountReward(leader.labels[each], leader.values)
    elif kind == "product":
        listed = fi.ProductReward(leader.factors[:, each], leader.weights)
    alone = fi.IncentiveProblem(
        [mdps[i] for i in each], listed, fi.Payments.from_index(index[each]), cost=cost, **settings
    )
    return types, alone, each, rng


@pytest.mark.parametrize("leader_discount", [0.9, 1.0])
@pytest.mark.parametrize(
    "kind",
    ["additive", "count", "own count", "labels", "table", "congestion", "product", "sum"],
)
def test_value_and_gradient(kind, leader_discount):
    types, alone, each, rng = both(leader_discount, kind=kind)
    policies = rng.dirichlet(np.ones(2), size=(3, 5))
    assert types.leader_value(policies) == pytest.approx(alone.leader_value(policies[each]))
    gradient = alone.leader_gradient(policies[each])
    total = np.array([gradient[each == i].sum(axis=0) for i in range(3)])
    assert_close(types.leader_gradient(policies), total, EXACT)
    assert types.magnitude == pytest.approx(alone.magnitude)
    assert types.followers.population == alone.n == 6


@pytest.mark.parametrize("cost", [None, fi.ExpectedSpend()])
def test_both_levels(cost):
    types, alone, each, rng = both(cost=cost)
    policies = rng.dirichlet(np.ones(2), size=(3, 5))
    x = rng.random(6)
    here, there = types.evaluate(x, policies), alone.evaluate(x, policies[each])
    for name in ("leader_value", "cost", "objective", "feasibility"):
        assert getattr(here, name) == pytest.approx(getattr(there, name), rel=1e-10), name
    assert_close(here.follower_gaps[each], there.follower_gaps, ROUNDING)
    slopes, others = types.cost_gradient(x, policies), alone.cost_gradient(x, policies[each])
    assert_close(slopes[0], others[0], ROUNDING)
    if cost is not None:
        total = np.array([others[1][each == i].sum(axis=0) for i in range(3)])
        assert_close(slopes[1], total, ROUNDING)
        assert types.expected_spend(x, policies) == pytest.approx(here.cost)


@pytest.mark.parametrize("cost", [None, fi.ExpectedSpend()])
def test_solutions_hold_for_the_followers_one_by_one(cost):
    types, alone, each, _ = both(cost=cost)
    solution = fi.solve(types, initial_payments=1.0)
    assert solution.success
    assert solution.refinement is None
    evaluation = alone.evaluate(solution.payments, solution.policies[each])
    assert evaluation.objective == pytest.approx(solution.objective)
    assert np.abs(evaluation.follower_gaps).max() < 1e-9
    listed = fi.solve(alone, initial_payments=1.0, refine=False)
    assert solution.objective == pytest.approx(listed.objective, rel=1e-6)
    assert_close(solution.payments, listed.payments, 1e-5)
    assert solution.ascent.stationarity == pytest.approx(listed.ascent.stationarity, abs=1e-4)


def test_ties_are_broken_type_by_type():
    """Both followers of a type are indifferent; together they would be one too many."""
    mdp = fi.TabularMDP(
        np.array([[[0, 1, 0, 0], [0, 0, 1, 0]]] + [[[0, 0, 0, 1.0]] * 2] * 3),
        np.zeros((4, 2)),
        discount=0.9,
        initial=0,
    )
    for values, expected in (([0.0, 5.0, 1.0], 1.0), ([0.0, 1.0, -2.0], 0.0)):
        problem = fi.IncentiveProblem(
            fi.Followers([mdp], [2]),
            fi.CountReward([0, 1, 0, 0], values),
            fi.Payments.at_states([[1]]),
        )
        found = fi.stackelberg_values(problem, 0.0)
        assert found.optimistic.leader_value == pytest.approx(expected)


def test_errors():
    types, *_ = both()
    mdps = list(types.followers)
    for counts, message in (
        ([1, 2], r"counts: expected shape \(3,\), one per type, got \(2,\)"),
        ([1, 0, 2], "counts: expected positive integers, got 0 at type 1"),
        ([1.0, 2.0, 1.0], "counts: expected positive integers"),
    ):
        with pytest.raises(fi.InputError, match=message):
            fi.Followers(mdps, counts)
    for leader in (
        fi.JointReward(np.zeros((5, 5))),
        fi.PairwiseReward([(0, 1)], np.eye(5)) + fi.AdditiveReward(np.zeros(5)),
    ):
        with pytest.raises(fi.InputError, match="leader: expected a reward that is the same which"):
            fi.IncentiveProblem(types.followers, leader, fi.Payments.everywhere(), 0.9)
    for call in (
        lambda: fi.global_optimum(types),
        lambda: fi.upper_bound(types),
        lambda: fi.solve(types, fi.RegimeAscent()),
        lambda: fi.solve(types, fi.BilevelAscent(multiplier="joint")),
        lambda: fi.worst_near_response(types, 0.0, 0.1),
        lambda: types.joint_occupancy(np.full((3, 5, 2), 0.5)),
        lambda: types.joint_values(np.full((3, 5, 2), 0.5)),
    ):
        with pytest.raises(fi.InputError, match="6 followers of 3 types"):
            call()
