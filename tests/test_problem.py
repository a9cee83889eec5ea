"""The problem itself: evaluate(), its settings and its parts."""

import numpy as np
import pytest
import reference
from conftest import (
    EXACT,
    ROUNDING,
    assert_close,
    random_game,
)
from waiting import waiting_problem, waiting_room

from fastincentive import (
    IncentiveProblem,
    InputError,
    JointReward,
    LinearCost,
    Payments,
)


def test_evaluation_fields_belong_together():
    rng = np.random.default_rng(12)
    game = random_game(rng, 3, 4, 2, 0.9, unavailable=0.3)
    payments = Payments.at_states([[0, 2], [1], [3]])
    prices = np.array([1.0, 2.0, 0.5, 0.0])
    problem = game.problem(payments, cost_weight=0.3, cost=LinearCost(prices))
    x = np.array([0.5, 1.5, 0.0, 2.0])
    answer = problem.evaluate(x, game.policies)
    assert_close(answer.leader_value, game.value())
    assert answer.leader_value == problem.leader_value(game.policies)
    assert answer.cost == pytest.approx(3.5, rel=ROUNDING)
    assert answer.objective == pytest.approx(answer.leader_value - 0.3 * 3.5, rel=1e-12)
    paid = [{0: 0.5, 2: 1.5}, {1: 0.0}, {3: 2.0}]
    for i, each in enumerate(game.followers):
        reward = each.reward.copy()
        for s, amount in paid[i].items():
            reward[s] += amount
        values, _ = reference.evaluate_policy(
            each.transition, reward, each.discount, game.policies[i]
        )
        _, best, _ = reference.best_response(each.transition, reward, each.discount, each.available)
        assert_close(answer.follower_values[i], each.initial @ values)
        assert_close(answer.best_values[i], each.initial @ best)
    gaps = answer.best_values - answer.follower_values
    np.testing.assert_array_equal(answer.follower_gaps, gaps)
    assert answer.feasibility == -gaps.sum() < 0
    assert 0 < answer.horizon < 1000
    assert 0 <= answer.truncation <= 1e-11 * np.abs(game.table).max()
    best = np.eye(2)[problem.followers.best_responses(problem.rewards(x)).actions]
    assert abs(problem.evaluate(x, best).feasibility) <= EXACT


def test_rewards_add_the_side_payments():
    game = random_game(np.random.default_rng(1), 2, 4, 2, unavailable=0.3)
    problem = game.problem(Payments.at_states([[2], [0]]))
    expected = problem.followers.rewards.copy()
    expected[0, 2][game.available[0, 2]] += 3.0
    expected[1, 0][game.available[1, 0]] += 0.25
    np.testing.assert_array_equal(problem.rewards(np.array([3.0, 0.25])), expected)


def test_a_scalar_stands_for_every_payment():
    game = random_game(np.random.default_rng(1), 2, 4, 2)
    problem = game.problem(Payments.at_states([[2], [0]]))
    one, other = problem.evaluate(1.5, game.policies), problem.evaluate([1.5, 1.5], game.policies)
    assert (one.objective, one.feasibility) == (other.objective, other.feasibility)


def test_the_net_objective_is_of_affordable_costs():
    game = random_game(np.random.default_rng(1), 2, 4, 2)
    problem = game.problem(Payments.at_states([[2], [0]], budget=2.0), cost_weight=0.5)
    assert problem.net_objective(7.0, 2.0) == problem.net(7.0, 2.0) == 6.0
    assert problem.net_objective(7.0, 2.1) == -np.inf
    assert problem.replace(budget=None).net_objective(7.0, 4.0) == 5.0
    assert problem.replace(cost_weight=0.0, budget=None).net_objective(7.0, np.inf) == 7.0


def test_what_is_replaced_is_bound_anew_and_the_rest_shared():
    game = random_game(np.random.default_rng(1), 2, 4, 2)
    problem = game.problem(Payments.at_states([[2], [0]], upper=3.0))
    problem.grid = "map"
    cheap = problem.replace(cost_weight=0.0)
    assert cheap.leader_side is problem.leader_side
    assert cheap.spending is problem.spending
    others = [mdp.replace(discount=0.5) for mdp in problem.followers]
    both = problem.replace(followers=others, budget=1.0)
    assert both.leader is problem.leader
    assert both.passes.followers is both.followers
    assert both.spending.followers is both.followers
    assert (both.budget, both.payments.budget, both.grid) == (1.0, 1.0, "map")
    np.testing.assert_array_equal(both.payments.stated_upper, [3.0, 3.0])
    assert problem.budget is None
    with pytest.raises(InputError, match="followers: expected those of"):
        problem.replace(followers=others[:1])
    with pytest.raises(InputError, match="budget: expected a number >= 0"):
        problem.replace(budget=-1.0)
    with pytest.raises(InputError, match=r"cost_weight: expected a (finite )?number"):
        problem.replace(cost_weight=np.nan)


def test_policies_are_checked():
    game = random_game(np.random.default_rng(1), 2, 4, 2)
    problem = game.problem()
    spoiled = game.policies * 2
    for function in (
        problem.leader_value,
        problem.leader_gradient,
        problem.joint_occupancy,
        lambda p: problem.evaluate(0.0, p),
    ):
        with pytest.raises(InputError, match="policies: expected rows that sum to 1"):
            function(spoiled)


SETTING_ERRORS = {
    "leader_discount": [1.1, -0.1, np.nan],
    "cost_weight": [-1.0, np.inf, np.nan],
    "tail_tolerance": [0.0, -1.0, np.nan],
    "max_horizon": [0, -3],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in SETTING_ERRORS.items() for value in values],
)
def test_setting_errors(name, value):
    mdp = waiting_room()
    settings = {"leader_discount": 0.9, name: value}
    with pytest.raises(InputError, match=f"{name}: expected .*, got {value}"):
        IncentiveProblem([mdp], JointReward(np.zeros(3)), Payments.at_states([[0]]), **settings)


def test_parts_of_the_wrong_kind():
    mdp = waiting_room()
    with pytest.raises(InputError, match="leader: expected a LeaderReward, got ndarray"):
        IncentiveProblem([mdp], np.zeros(3), Payments.everywhere())
    with pytest.raises(InputError, match="payments: expected a Payments, got list"):
        IncentiveProblem([mdp], JointReward(np.zeros(3)), [[0]])
    with pytest.raises(InputError, match=r"followers\[0\]: expected a TabularMDP, got str"):
        IncentiveProblem(["one"], JointReward(np.zeros(3)), Payments.everywhere())


def test_repr():
    problem = waiting_problem(np.zeros((3, 3)), leader_discount=0.9)
    assert repr(problem) == (
        "IncentiveProblem(n=2, n_states=3, n_actions=2, n_payments=1, leader_discount=0.9, "
        "cost_weight=0.1)"
    )
