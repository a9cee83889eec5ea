"""Value against cost: a consistent curve, within budget, and exact where the optimum is known."""

import sys

import numpy as np
import pytest
from conftest import assert_close, random_game

import fastincentive as fi
from fastincentive.errors import InputError, MissingExtraError
from fastincentive.methods._regime_search import regime_search
from fastincentive.responses.recovery import recover

#: Two searches of the same problem agree up to rounding.
SAME = 1e-9


def own_payments(game, count=1):
    """``count`` payments of its own for each follower."""
    states = [list(range(i, i + count)) for i in range(len(game.followers))]
    return fi.Payments.at_states(states)


def two_followers(seed, cost=None, count=1, **settings):
    game = random_game(np.random.default_rng(seed), 2, 5, 3, 0.9, unavailable=0.2)
    settings = {"cost_weight": 0.2, **settings}
    return game.problem(own_payments(game, count), cost=cost, **settings)


def check(front, problem):
    """What every front obeys: it is what its payments bring, and the curve is consistent."""
    for x, w, objective in zip(front.payments, front.weights, front.objectives, strict=True):
        free = problem.replace(cost_weight=w, budget=None)
        answer = recover(free, x, fi.best_response_policies(free, x), polish=False)
        if problem.budget is None and front.budgets is None:
            assert_close(objective, answer.evaluation.objective, SAME)
        else:  # ties may have to be broken for the budget
            assert objective <= answer.evaluation.objective + SAME
    assert (front.pessimistic_values <= front.leader_values + SAME).all()
    assert_close(front.nominal_spends, front.payments.sum(axis=1))
    assert_close(front.objectives, front.leader_values - front.weights * front.costs)
    if front.budgets is None:
        assert (np.diff(front.weights) >= 0.0).all()
        assert (np.diff(front.costs) <= SAME).all()
        assert (np.diff(front.leader_values) <= SAME).all()
        # No point is better at another's weight than that one itself.
        repriced = front.leader_values - front.weights[:, None] * front.costs
        assert (repriced <= front.objectives[:, None] + SAME).all()
    else:
        assert (front.costs <= front.budgets * (1.0 + SAME)).all()
        assert (np.diff(front.objectives) >= -SAME).all()


@pytest.fixture(scope="module")
def grid():
    return fi.models.paper_gridworld((0.1, 0.05))


@pytest.fixture(scope="module")
def front(grid):
    return fi.pareto(grid)


# Weights


@pytest.mark.slow
def test_default_weights_span_the_papers_grid(grid, front):
    check(front, grid)
    assert front.budgets is None
    assert front.payments.shape == (12, 2)
    assert front.costs[-1] == 0.0  # no payment is worth it
    free = fi.global_optimum(grid.replace(cost_weight=0.0))
    assert front.leader_values[0] >= free.leader_value - 2e-3 * abs(free.leader_value)
    assert np.unique(front.costs).size >= 5
    assert front.efficient.all()


@pytest.mark.slow
def test_the_papers_weight_gives_the_certified_optimum(grid):
    front = fi.pareto(grid, 0.1)
    optimum = fi.global_optimum(grid)
    assert_close(front.objectives, [optimum.objective], SAME)
    assert_close(front.payments[0], optimum.payments, SAME)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "cost"),
    [
        (0, None),
        (1, fi.LinearCost([1.0, 3.0])),
        (2, fi.QuadraticCost(0.5, [1.0, 0.1])),
        (3, fi.ExpectedSpend([2.0, 1.0])),
    ],
)
def test_every_weight_agrees_with_the_global_optimum(seed, cost):
    problem = two_followers(seed, cost)
    weights = np.geomspace(3.0, 1e-3, 7)
    front = fi.pareto(problem, weights)
    check(front, problem)
    np.testing.assert_array_equal(front.weights, weights[::-1])
    for w, objective in zip(front.weights, front.objectives, strict=True):
        assert_close(objective, fi.global_optimum(problem.replace(cost_weight=w)).objective, SAME)
    again = fi.pareto(problem, weights, start=1.0)
    assert_close(again.objectives, front.objectives, SAME)


@pytest.mark.slow
def test_a_random_problem_with_several_payments_each():
    problem = two_followers(4, count=2)
    front = fi.pareto(problem, method=fi.RegimeAscent(rounds=3, directions=4))
    check(front, problem)
    assert front.costs[-1] == 0.0
    assert front.costs[0] > 0.0


@pytest.mark.slow
def test_a_posted_tariff():
    game = random_game(np.random.default_rng(5), 2, 5, 3, 0.9, unavailable=0.2)
    index = np.full((2, 5, 3), -1)
    index[:, 1] = 0
    index[~game.available] = -1
    problem = game.problem(fi.Payments.from_index(index))
    front = fi.pareto(problem, [1e-3, 0.1, 1.0])
    check(front, problem)


def test_what_is_paid_for_ever():
    # Paid in state 1 the follower tries to go there and stays, which costs without end.
    mdp = fi.TabularMDP.from_successors(
        np.array([[[1, 2], [2, 2]], [[1, 1], [2, 2]], [[2, 2], [2, 2]]]),
        np.full((3, 2, 2), 0.5),
        np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]),
        discount=0.5,
        initial=0,
    )
    problem = fi.IncentiveProblem(
        [mdp],
        fi.JointReward(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])),
        fi.Payments.at_states([[1]]),
        leader_discount=1.0,
        cost=fi.ExpectedSpend(),
    )
    free = fi.pareto(problem, [0.0])
    assert (free.leader_values[0], free.objectives[0]) == (1.0, 1.0)
    assert free.costs[0] == free.expected_spends[0] == np.inf
    front = fi.pareto(problem)  # not worth it at any weight, so there is no range of weights
    assert_close(front.weights, [problem.cost_weight])
    assert_close(front.payments, [[0.0]])


def test_free_value_is_bought_as_cheaply_as_it_can_be():
    # Follower 1's payment changes nothing for the leader: at weight 0 it is still not paid.
    game = random_game(np.random.default_rng(6), 2, 5, 3, 0.9)
    game.table[:] = game.table[:, :1]
    problem = game.problem(own_payments(game))
    front = fi.pareto(problem, [0.0])
    assert front.payments[0, 0] > 0.0
    assert front.payments[0, 1] == 0.0


def test_a_budget_of_the_problem_is_kept_under_every_weight():
    problem = two_followers(0)
    most = float(fi.pareto(problem, [1e-3]).costs[0])
    bounded = problem.replace(budget=0.5 * most)
    front = fi.pareto(bounded, [1e-3, 0.1])
    assert (front.costs <= 0.5 * most * (1.0 + SAME)).all()


# Budgets


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "cost"),
    [
        (0, None),
        (1, fi.LinearCost([1.0, 3.0])),
        (2, fi.QuadraticCost(0.5, [1.0, 0.1])),
        (3, fi.ExpectedSpend([2.0, 1.0])),
    ],
)
@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_budgets_are_kept_and_agree_with_the_global_optimum(seed, cost, weight):
    problem = two_followers(seed, cost, cost_weight=weight)
    most = float(fi.pareto(problem, [1e-4]).costs[0])
    assert most > 0.0
    front = fi.pareto(problem, budgets=np.array([1.5, 1.0, 0.6, 0.3, 0.0]) * most)
    check(front, problem)
    np.testing.assert_array_equal(front.weights, np.full(5, weight))
    for b, objective in zip(front.budgets, front.objectives, strict=True):
        assert_close(objective, fi.global_optimum(problem.replace(budget=b)).objective, SAME)


def test_a_budget_that_is_just_met():
    problem = two_followers(0)
    free = fi.pareto(problem, [1e-3])
    short = float(free.costs[0]) * (1.0 - 1e-10)  # as if printed and typed in again
    front = fi.pareto(problem.replace(cost_weight=0.0), budgets=[short])
    assert_close(front.leader_values, free.leader_values, SAME)


@pytest.mark.slow
def test_budgets_find_points_that_weights_do_not(grid):
    front = fi.pareto(grid.replace(cost_weight=0.0), budgets=[0, 5, 10, 15])
    check(front, grid)
    assert front.efficient.all()
    assert (np.diff(front.leader_values) > 0.0).all()


# The problem's copies


def test_replace(grid):
    other = grid.replace(cost_weight=0.5, budget=7.0)
    assert (other.cost_weight, other.budget, other.payments.budget) == (0.5, 7.0, 7.0)
    assert (grid.cost_weight, grid.budget, grid.payments.budget) == (0.1, None, None)
    assert other.followers is grid.followers
    assert other.leader is grid.leader
    assert other.grid is grid.grid
    assert other.replace(budget=None, cost_weight=0.1).fingerprint() == grid.fingerprint()
    assert other.replace(cost_weight=0.1).budget == 7.0
    direct = two_followers(2, fi.QuadraticCost(0.5, 1.0))
    bounded = direct.replace(budget=2.0)
    assert_close(bounded.payments.prices, [0.5, 0.5])
    assert_close(bounded.payments.curvature, [1.0, 1.0])
    spent = two_followers(3, fi.ExpectedSpend()).replace(budget=2.0)
    assert (spent.budget, spent.payments.budget) == (2.0, None)
    with pytest.raises(InputError, match="cost_weight: expected a finite number >= 0, got -1"):
        grid.replace(cost_weight=-1.0)
    with pytest.raises(InputError, match="budget: expected a number >= 0, got -1"):
        grid.replace(budget=-1.0)
    custom = two_followers(0, fi.CustomCost(np.sum, np.ones_like))
    with pytest.raises(InputError, match="budget: expected a linear or quadratic cost"):
        custom.replace(budget=1.0)


# What is returned


def test_efficient():
    costs, values = np.array([0.0, 1.0, 1.0, 2.0, 2.0, 3.0]), np.array([0, 1, 1, 1, 2, 2.0])
    front = fi.ParetoFront(costs, None, costs[:, None], values, *([costs] * 4), values)
    assert front.efficient.tolist() == [True, True, True, False, True, False]


@pytest.mark.slow
def test_table(front):
    lines = str(front).splitlines()
    assert len(lines) == 1 + len(front.weights)
    assert lines[0].split()[:4] == ["weight", "w", "x0", "x1"]
    assert lines[1].endswith("yes")
    many = two_followers(4, count=4)
    assert "x0" not in str(fi.pareto(many, [5.0], method=fi.RegimeAscent(rounds=0, directions=0)))
    assert str(fi.pareto(two_followers(0), budgets=1.0)).lstrip().startswith("budget")


def test_errors(grid, monkeypatch):
    for arguments, message in (
        ({"weights": [1.0], "budgets": [1.0]}, "budgets: expected weights or budgets, got both"),
        ({"weights": [0.1, -1.0]}, "weights: expected finite numbers >= 0, got -1.0 at position 1"),
        ({"budgets": [np.inf]}, "budgets: expected finite numbers >= 0, got inf at position 0"),
        ({"weights": []}, r"weights: expected a list of numbers, got shape \(0,\)"),
        ({"start": [1.0]}, r"start: expected a number or shape \(2,\)"),
        ({"method": fi.BilevelAscent()}, "method: expected a RegimeAscent, got BilevelAscent"),
    ):
        with pytest.raises(InputError, match=message):
            fi.pareto(grid, **arguments)
    with pytest.raises(InputError, match="problem: expected an IncentiveProblem, got int"):
        fi.pareto(3)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(MissingExtraError, match=r"fastincentive\[progress\]"):
        fi.pareto(grid, [1.0], progress=True)


def test_progress(grid, capsys):
    pytest.importorskip("tqdm")
    fi.pareto(grid, [1.0, 2.0], progress=True)
    assert "0/2" in capsys.readouterr().err


def test_an_interrupt_keeps_the_points_found(monkeypatch):
    problem = two_followers(0)
    whole = fi.pareto(problem, weights=[0.1, 0.2])
    calls = []

    def search(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return regime_search(*arguments)

    monkeypatch.setattr("fastincentive.studies.pareto_front.regime_search", search)
    with pytest.raises(fi.Interrupted, match="2 of 3 points") as caught:
        fi.pareto(problem, weights=[0.1, 0.2, 0.3])
    assert_close(caught.value.results.weights, [0.1, 0.2])
    assert_close(caught.value.results.objectives, whole.objectives)
    calls[:] = [1, 1]
    with pytest.raises(KeyboardInterrupt) as nothing:
        fi.pareto(problem, budgets=[0.1])
    assert not isinstance(nothing.value, fi.Interrupted)
