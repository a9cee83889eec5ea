"""Shards of a problem: what they have, what they lack, and that their steps find what all find."""

import pickle

import numpy as np
import pytest
from conftest import EXACT, assert_close, random_game

import fastincentive as fi
from fastincentive.engines.shards import shard_bounds, shard_of
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.queries import SequentialReduce
from fastincentive.problem.shard import ProblemShard


def counted(cost=None, payments=None, discounts=(0.9,) * 5):
    """Five followers; the leader counts who is in state 1."""
    game = random_game(np.random.default_rng(0), 5, 6, 3, 0.9, closed=1, unavailable=0.0)
    followers = [
        mdp.replace(discount=discount)
        for mdp, discount in zip(game.problem().followers, discounts, strict=True)
    ]
    if payments is None:
        payments = fi.Payments.at_states([[1], [2, 3], [3], [1], []], upper=4.0)
    labels = (np.arange(6) == 1).astype(int)
    leader = fi.CountReward(labels, np.sin(np.arange(6.0)))
    problem = fi.IncentiveProblem(followers, leader, payments, 0.9, cost=cost)
    problem.leader_side.steps_before_doubling = np.inf  # or it would be one shard
    return game.policies, problem


def together(problem, steps):
    """Run generators of shards in lockstep; those that take turns take them one by one."""
    asked = [next(each) for each in steps]
    while True:
        if isinstance(asked[0], SequentialReduce) and not asked[0].done:
            numbers = np.zeros(problem.payments.size)
            for k, each in enumerate(steps):
                asked[k] = each.send((numbers[asked[k].variables], 0.0))
                numbers[asked[k].variables] = asked[k].numbers
            continue
        answers = asked[0].answers(asked, problem)
        ends = []
        for k, (each, answer) in enumerate(zip(steps, answers, strict=True)):
            try:
                asked[k] = each.send(answer)
            except StopIteration as end:
                ends.append(end.value)
        if ends:
            return ends


PARTS = ((0, 2), (2, 5))


def test_a_shard_has_its_followers_and_payments():
    _, problem = counted()
    shard = shard_of(problem, 1, 3)
    assert isinstance(shard, ProblemShard)
    assert isinstance(shard, ProblemPart)
    assert not isinstance(shard, fi.IncentiveProblem)
    assert shard.n == 2
    assert [mdp.transition for mdp in shard.followers] == [
        problem.followers[i].transition for i in (1, 2)
    ]
    np.testing.assert_array_equal(shard.variables, [1, 2, 3])
    np.testing.assert_array_equal(shard.payments.upper, [4.0] * 3)
    x = np.array([0.5, 1.0, 2.0, 3.0, 0.25])
    np.testing.assert_array_equal(shard.rewards(x[shard.variables]), problem.rewards(x)[1:3])
    np.testing.assert_array_equal(shard.leader.labels, problem.leader.labels[1:3])


def test_a_shard_knows_what_holds_for_all_followers():
    _, problem = counted(discounts=(0.9, 0.9, 0.9, 1.0, 0.9))
    shard = shard_of(problem, 0, 2)
    assert shard.undiscounted  # follower 3, who is not in it
    assert shard.magnitude == problem.magnitude
    assert shard.leader_discount == problem.leader_discount
    assert shard.cost_weight == problem.cost_weight
    assert shard.net(2.0, 1.0) == problem.net(2.0, 1.0)


def test_all_followers_are_the_problem_itself():
    _, problem = counted()
    assert shard_of(problem, 0, 5) is problem
    np.testing.assert_array_equal(problem.variables, np.arange(5))
    np.testing.assert_array_equal(shard_bounds(problem, 2), [0, 2, 5])
    np.testing.assert_array_equal(shard_bounds(problem, 9), np.arange(6))
    assert shard_bounds(fi.models.random_problem(2, rng=0), 2).size == 2  # a small one is not cut


@pytest.mark.parametrize(
    "name",
    ["leader_value", "leader_gradient", "joint_values", "evaluate", "replace", "grid", "forward"],
)
def test_values_of_all_followers_are_not_to_be_had_in_a_shard(name):
    _, problem = counted()
    assert hasattr(problem, name)
    with pytest.raises(AttributeError, match=f"'ProblemShard' object has no attribute '{name}'"):
        getattr(shard_of(problem, 0, 2), name)


def test_a_shard_does_not_know_the_leaders_reward():
    policies, problem = counted()
    shard = shard_of(problem, 0, 2)
    message = "knows the labels of the leader's reward and not the reward"
    for ask in (
        lambda: shard.leader.magnitude(),
        lambda: shard.leader.expectations(np.full((1, 2, 2), 0.5)),
        lambda: shard.leader_pass(policies[:2]),
    ):
        with pytest.raises(NotImplementedError, match=message):
            ask()


@pytest.mark.parametrize("gradient", [True, False])
def test_leader_passes_of_shards_find_what_all_find(gradient):
    policies, problem = counted()
    expected = problem.leader_pass(policies, gradient)
    shards = [shard_of(problem, *each) for each in PARTS]
    found = together(
        problem,
        [
            shard.leader_pass_steps(policies[first:last], gradient)
            for shard, (first, last) in zip(shards, PARTS, strict=True)
        ],
    )
    for each, (first, last) in zip(found, PARTS, strict=True):
        assert each.horizon == expected.horizon
        assert_close(each.value, expected.value, EXACT)
        if gradient:
            np.testing.assert_array_equal(each.gradient, expected.gradient[first:last])


def shared():
    index = np.full((5, 6, 3), -1)
    index[:3, 2], index[2:, 3, 0], index[3, 4] = 0, 1, 2
    return fi.Payments.from_index(index)


COSTS = {
    "linear": lambda: counted(fi.LinearCost([1.0, 0.5, 2.0, 1.0, 3.0])),
    "quadratic": lambda: counted(fi.QuadraticCost(0.5, [1.0, 0.5, 2.0, 1.0, 3.0])),
    "custom": lambda: counted(fi.CustomCost(lambda x: float(x @ x) / 2, lambda x: x)),
    "spend": lambda: counted(fi.ExpectedSpend([1.0, 0.5, 2.0, 1.0, 3.0])),
    "shared, linear": lambda: counted(fi.LinearCost(2.0), shared()),
    "shared, spend": lambda: counted(fi.ExpectedSpend([1.0, 0.5, 2.0]), shared()),
}


@pytest.mark.parametrize("kind", COSTS)
def test_shards_know_the_slopes_of_costs(kind):
    policies, problem = COSTS[kind]()
    x = np.linspace(0.5, 2.0, problem.payments.size)
    expected = problem.cost_pass(x, policies)
    shards = [shard_of(problem, *each) for each in PARTS]
    steps = [
        shard.cost_slopes_steps(x[shard.variables], policies[first:last])
        for shard, (first, last) in zip(shards, PARTS, strict=True)
    ]
    if kind in ("linear", "quadratic", "spend"):  # nothing is asked
        found = []
        for each in steps:
            with pytest.raises(StopIteration) as end:
                next(each)
            found.append(end.value.value)
    else:
        found = together(problem, steps)
    if found[0].spent is not None:
        assert np.concatenate([each.spent for each in found]).sum() == expected.value
    for each, shard, (first, last) in zip(found, shards, PARTS, strict=True):
        np.testing.assert_array_equal(each.payments, expected.payments[shard.variables])
        if expected.policies is not None:
            np.testing.assert_array_equal(each.policies, expected.policies[first:last])


def test_a_shard_is_pickled_without_the_rest_of_the_problem():
    policies, problem = counted()
    problem.grid = "x" * 10**6
    shard = shard_of(problem, 1, 2)
    sent = pickle.dumps(shard)
    assert len(sent) < 10_000
    other = pickle.loads(sent)
    np.testing.assert_array_equal(other.variables, shard.variables)
    np.testing.assert_array_equal(other.rewards(np.ones(2)), shard.rewards(np.ones(2)))
    first, expected = (next(each.leader_pass_steps(policies[1:2])) for each in (other, shard))
    assert first == expected
