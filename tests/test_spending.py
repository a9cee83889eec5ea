"""What followers are really paid: its value, its gradients, and a budget on it."""

import numpy as np
import pytest
import reference
from conftest import GRADIENT, assert_close, random_game, random_policy
from paid import SHAPE, mixed_payments, rebuilt, two_followers

import fastincentive as fi
from fastincentive.problem.costs import PATIENCE_STEPS


def test_a_cost_of_payments_runs_no_kernel(monkeypatch):
    game, problem = two_followers(0, 0.9)
    monkeypatch.setattr("fastincentive.problem.spending.expected_payouts", None)
    assert problem.cost_at(1.0, game.policies) == 3.0
    problem.cost_gradient(1.0, game.policies)
    with pytest.raises(TypeError):
        problem.expected_spend(1.0, game.policies)


def spend_by_time(game, x, gamma, steps=4000):
    """Step every follower's law forward and add up what it is paid; x (n, S, A)."""
    total = 0.0
    for i, each in enumerate(game.followers):
        chain = reference.policy_transition(each.transition, game.policies[i])
        paid = (game.policies[i] * x[i]).sum(axis=1)
        law = each.initial.copy()
        for t in range(steps):
            total += gamma**t * law @ paid
            law = law @ chain
    return total


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_expected_spend_is_the_sum_over_time(seed, discount):
    prices = np.array([1.0, 0.5, 2.0])
    game, problem = two_followers(seed, discount, fi.ExpectedSpend(prices))
    x = np.array([0.7, 1.3, 0.4])
    spread = problem.payments.side_payments(x)
    assert_close(problem.expected_spend(x, game.policies), spend_by_time(game, spread, discount))
    priced = problem.payments.side_payments(prices * x)
    expected = spend_by_time(game, priced, discount)
    assert_close(problem.cost_at(x, game.policies), expected)
    assert_close(problem.evaluate(x, game.policies).cost, expected)
    # The same by one linear solve per follower.
    solved = sum(
        each.initial
        @ reference.evaluate_policy(
            each.transition, priced[i], discount, game.policies[i], each.absorbing
        )[0]
        for i, each in enumerate(game.followers)
    )
    assert_close(problem.cost_at(x, game.policies), solved)


@pytest.mark.parametrize("cost", [None, fi.QuadraticCost(2.0)])
def test_expected_spend_has_unit_prices_whatever_the_cost(cost):
    game, problem = two_followers(3, 0.9, cost)
    x = np.array([0.7, 1.3, 0.4])
    expected = spend_by_time(game, problem.payments.side_payments(x), 0.9)
    assert_close(problem.expected_spend(x, game.policies), expected)


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_spend_gradients_against_finite_differences(discount):
    game, problem = two_followers(4, discount, fi.ExpectedSpend([1.0, 0.5, 2.0]))
    x = np.array([0.7, 1.3, 0.4])
    in_payments, in_policies = problem.cost_gradient(x, game.policies)
    slope = reference.finite_difference(lambda y: problem.cost_at(y, game.policies), x)
    assert_close(in_payments, slope, GRADIENT)
    # Linear in the payments.
    assert_close(problem.cost_at(x, game.policies), in_payments @ x)
    assert (in_policies[~game.available] == 0).all()
    rng = np.random.default_rng(1)
    step = 1e-6
    for _ in range(4):
        toward = random_policy(rng, game.available) - game.policies
        up = problem.cost_at(x, game.policies + step * toward)
        down = problem.cost_at(x, game.policies - step * toward)
        assert_close(np.sum(in_policies * toward), (up - down) / (2 * step), GRADIENT)


@pytest.mark.slow
def test_large_followers_are_solved_by_sweeps():
    problem = fi.models.random_problem(1, 450, 2, 3, rng=0, n_payments=3)
    problem = rebuilt(problem, fi.ExpectedSpend())
    policies = random_policy(np.random.default_rng(0), problem.followers.available)
    mdp = problem.followers[0]
    paid = problem.payments.side_payments(np.ones(3))[0]
    values, _ = reference.evaluate_policy(mdp.dense_transition(), paid, 0.9, policies[0])
    assert_close(problem.cost_at(1.0, policies), mdp.initial @ values, 1e-9)


# Paid for ever at the leader's discount 1


def corridor(payable, initial=0, cost=None):
    """Start 0; action 0 waits, action 1 goes on 0 -> 1 -> sink 2; discount 0.9, leader's 1."""
    transition = np.zeros((3, 2, 3))
    transition[[0, 1, 2], 0, [0, 1, 2]] = 1.0
    transition[[0, 1, 2], 1, [1, 2, 2]] = 1.0
    mdp = fi.TabularMDP(transition, np.zeros((3, 2)), 0.9, initial)
    return fi.IncentiveProblem(
        [mdp],
        fi.JointReward(np.zeros(3)),
        fi.Payments.at_states([payable]),
        cost=fi.ExpectedSpend() if cost is None else cost,
    )


def waiting(*chances):
    return np.array([[[each, 1.0 - each] for each in chances]])


def test_a_policy_that_is_paid_for_ever_costs_infinitely_much():
    problem = corridor([0, 1])
    idle = waiting(0.0, 1.0, 0.0)  # waits in state 1 for ever
    assert problem.cost_at([1.0, 0.0], idle) == 1.0
    assert problem.cost_at([1.0, 0.5], idle) == np.inf
    assert problem.evaluate([1.0, 0.5], idle).objective == -np.inf
    assert not np.isfinite(problem.expected_spend([0.0, 1e-3], idle))
    # Almost idle is finite, and so is an idle state that is not reached.
    assert_close(problem.cost_at([1.0, 0.5], waiting(0.0, 1.0 - 1e-3, 0.0)), 501.0, 1e-9)
    assert corridor([0, 1], 2).cost_at([1.0, 0.5], idle) == 0.0
    # So small a chance to leave is none.
    assert problem.cost_at([1.0, 0.5], waiting(0.0, 1.0 - 1e-15, 0.0)) == np.inf


def test_gradients_count_a_finite_time_of_what_is_paid_for_ever():
    problem = corridor([0, 1])
    idle = waiting(0.0, 1.0, 0.0)
    in_payments, in_policies = problem.cost_gradient([1.0, 0.0], idle)
    assert in_payments[0] == 1.0
    assert in_payments[1] == pytest.approx(PATIENCE_STEPS, rel=2e-3)
    assert_close(in_policies[0], [[2.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    in_payments, in_policies = problem.cost_gradient([1.0, 0.5], idle)
    assert in_payments[1] == pytest.approx(PATIENCE_STEPS, rel=2e-3)
    assert np.isfinite(in_policies).all()
    assert in_policies[0, 1, 0] > in_policies[0, 1, 1] > 0  # leaving is cheaper
    free = corridor([0, 1])
    free.cost_weight = 0.0
    assert free.evaluate([1.0, 0.5], idle).objective == 0.0


def test_payments_in_an_absorbing_state_are_for_ever():
    problem = corridor([0, 2])
    through = waiting(0.5, 0.0, 1.0)
    assert_close(problem.cost_at([1.0, 0.0], through), 2.0)
    assert problem.cost_at([1.0, 0.1], through) == np.inf
    in_payments, in_policies = problem.cost_gradient([1.0, 0.0], through)
    assert_close(in_payments[0], 2.0)
    assert in_payments[1] == pytest.approx(PATIENCE_STEPS, rel=5e-3)
    assert_close(in_policies[0, :2], [[6.0, 2.0], [0.0, 0.0]])  # 2 visits x (1 + 2, 1)
    plain = corridor([0])
    assert_close(plain.cost_gradient([1.0], through)[1][0, :2], in_policies[0, :2])


def test_a_budget_on_the_expected_spend():
    game = random_game(np.random.default_rng(0), *SHAPE, 0.9, unavailable=0.3)
    where = mixed_payments(game, upper=10.0, budget=3.0)
    problem = game.problem(where, cost=fi.ExpectedSpend())
    assert problem.budget == 3.0
    x = np.array([10.0, 10.0, 10.0])
    np.testing.assert_array_equal(problem.payments.project(2 * x), x)
    problem.evaluate(x, game.policies)
    spend = problem.expected_spend(x, game.policies)
    assert spend > 3.0
    assert not problem.within_budget(x, game.policies)
    assert problem.within_budget(x * 3.0 / spend, game.policies)
    assert not problem.within_budget(x * 3.0 / spend * (1 + 1e-6), game.policies)
    assert game.problem(cost=fi.ExpectedSpend()).within_budget(1e9, game.policies)


def test_points_are_checked():
    game, problem = two_followers(0, 0.9)
    for function in (
        problem.cost_at,
        problem.cost_gradient,
        problem.expected_spend,
        game.problem(mixed_payments(game, budget=1.0)).within_budget,
    ):
        with pytest.raises(fi.InputError, match="payments: expected a finite payment"):
            function(-1.0, game.policies)
        with pytest.raises(fi.InputError, match="policies: expected rows that sum to 1"):
            function(1.0, game.policies * 2)
