"""Answers that say they are complete, on random models, beside exhaustive enumeration.

Several payments without upper bound, budgets, prices, tariffs, ties (integer rewards, sure moves).
"""

import itertools
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from conftest import assert_close
from exhaustive import (
    Model,
    breakpoints,
    guaranteed,
    leader_value,
    optimum,
    random_model,
    responses,
)
from scipy.optimize import linprog

import fastincentive as fi

#: An answer is wrong where it is worse, or better, than enumeration by this share.
WRONG = 1e-6
PRECISE = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
#: Random models of each kind, and of each in the long run.
FEW, MANY = (4 if numba.config.DISABLE_JIT else 12), 100


def models(count, **settings):
    """Return random models, numbered."""
    for seed in range(count):
        rng = np.random.default_rng([seed, 77])
        n = int(rng.integers(1, 3))
        paid = 1 if settings.get("one") else int(rng.integers(1, 4 if n == 1 else 3))
        yield seed, random_model(rng, n, paid, most=settings.get("most", 0.99))


def check(found, best, seed):
    scale = WRONG * max(1.0, abs(best))
    assert found.objective <= best + scale, seed
    if found.complete:
        assert found.objective >= best - scale, seed


def check_solution(problem, solution, best, seed, complete=True):
    """As ``check``; followers that draw lots may bring more than any deterministic responses."""
    if solution.mixed.any():
        scale = WRONG * max(1.0, abs(best))
        assert best - scale <= solution.objective <= fi.upper_bound(problem) + scale, seed
    else:
        check(SimpleNamespace(objective=solution.objective, complete=complete), best, seed)


FEW_AND_MANY = pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])


@FEW_AND_MANY
def test_certified_optima_and_bounds(count):
    complete = 0
    for seed, model in models(count):
        problem = model.problem()
        best, _ = optimum(model)
        found = fi.global_optimum(problem)
        complete += found.complete
        check(found, best, seed)
        least = best - WRONG * max(1.0, abs(best))
        assert found.bound >= least, seed
        assert fi.upper_bound(problem) >= least, seed
        assert fi.upper_bound(problem, mixed=True) >= least, seed
        if problem.n == 1:
            single = fi.single_follower_optimum(problem)
            assert single.bound >= least, seed
            check(SimpleNamespace(objective=single.objective, complete=single.optimal), best, seed)
    assert complete >= 0.95 * count


@FEW_AND_MANY
def test_one_payment_for_each_follower(count):
    for seed, model in models(count, one=True):
        problem = model.problem()
        solution = fi.solve(problem, method=fi.RegimeAscent())
        assert solution.refinement.complete
        check_solution(problem, solution, optimum(model)[0], seed)


@FEW_AND_MANY
def test_discounts_near_one(count):
    for seed, model in models(count, most=0.9999):
        check(fi.global_optimum(model.problem()), optimum(model)[0], seed)
    for seed, model in models(count, most=0.9999, one=True):
        problem = model.problem()
        solution = fi.solve(problem, method=fi.RegimeAscent())
        # Sums over time that end before they have faded cannot tell responses apart.
        complete = solution.refinement.complete
        assert complete or model.leader_discount > 0.99
        check_solution(problem, solution, optimum(model)[0], seed, complete)


@FEW_AND_MANY
def test_one_tariff_for_all(count):
    for seed in range(count):
        rng = np.random.default_rng([seed, 78])
        model = random_model(rng, int(rng.integers(2, 4)), 1, shared=True)
        problem = model.problem()
        solution = fi.solve(problem, method=fi.RegimeAscent())
        complete = solution.refinement.complete
        check_solution(problem, solution, optimum(model)[0], seed, complete)


@FEW_AND_MANY
def test_what_payments_guarantee(count):
    step = 1e-5
    for seed, model in models(count, one=True, most=0.9):
        model.budget, model.upper = None, min(model.upper, 20.0)
        lists = [responses(model, i) for i in range(len(model.rewards))]
        points = [
            np.minimum(np.concatenate([each, each + step]), model.upper)
            for each in breakpoints(model, lists)
        ]
        best = max(guaranteed(model, lists, np.array(x)) for x in itertools.product(*points))
        # A larger margin may cost more: a payment that is seldom met has to be larger for it.
        solution = fi.solve(
            model.problem(), method=fi.RegimeAscent(), tie_breaking=fi.WeakStackelberg(1e-9)
        )
        assert solution.refinement.complete
        assert solution.pessimistic_objective >= best - 1e-4, seed
        own = guaranteed(model, lists, solution.payments, 1e-13)
        assert_close(solution.pessimistic_objective, own, 1e-8, f"{seed}")


def least_over_time(moves, reward, earned, discounts, epsilon):
    """Least leader value of all policies, of each follower one, worth V* - epsilon to it.

    An occupancy for each time up to where both discounts have faded; with one discount, one for
    all times. ``discounts`` are the leader's and the follower's.
    """
    leader, own = discounts
    states, actions = reward.shape
    count = states * actions
    flow = np.repeat(np.eye(states), actions, axis=1)
    step = moves.reshape(count, states).T
    if leader == own:
        equal, steps = flow - own * step, 1
        start = np.eye(states)[0]
    else:
        steps = int(np.ceil(np.log(1e-9) / np.log(max(leader, own))))
        equal = np.kron(np.eye(steps), flow) - np.kron(np.eye(steps, k=-1), step)
        start = np.zeros(steps * states)
        start[0] = 1.0
    worth = np.kron(own ** np.arange(steps), reward.ravel())
    gain = np.kron(leader ** np.arange(steps), earned.ravel())
    most = -linprog(-worth, A_eq=equal, b_eq=start, options=PRECISE).fun
    rows = {"A_ub": -worth[None], "b_ub": [epsilon - most], "A_eq": equal, "b_eq": start}
    return linprog(gain, **rows, options=PRECISE).fun


@FEW_AND_MANY
def test_worst_near_responses_at_all_discounts(count):
    for seed in range(count):
        rng = np.random.default_rng([seed, 79])
        model = random_model(rng, 1, 1, most=0.99)
        own = float(rng.choice([0.3, 0.6, 0.8]))
        leader = float(rng.choice([own, own, 0.0, 0.3, 0.5, 0.8, own + 1e-12]))
        if rng.random() < 0.3:
            own = leader = float(rng.choice([0.9, 0.99, 0.999]))
        model.discounts, model.leader_discount = [own], leader
        earned = np.round(rng.normal(size=(3, 2)), 1)
        problem = fi.IncentiveProblem(
            [fi.TabularMDP(model.transitions[0], model.rewards[0], own, 0)],
            fi.AdditiveReward(earned[None]),
            fi.Payments.at_states([[0]]),
            leader_discount=leader,
        )
        epsilon = float(rng.choice([1e-3, 0.1, 1.0, 3.0]))
        near = fi.worst_near_response(problem, 0.0, epsilon)
        least = least_over_time(
            model.transitions[0], model.rewards[0], earned, (leader, own), epsilon
        )
        assert near.leader_value <= least + 1e-6 * max(1.0, abs(least)), seed
        if near.exact:
            assert_close(near.leader_value, least, 1e-6, f"{seed}")


# -- single cases --------------------------------------------------------------------------------


def chooser(weight=1.0, discount=1.0, n=1, own=4.0, **limits):
    """Followers choose A (0 to them, 10 to the leader) or B (``own``, 5); both may be paid."""
    successors = np.array([[[1], [2]], [[3], [3]], [[3], [3]], [[3], [3]]])
    reward = np.zeros((4, 2))
    reward[0, 1] = own
    mdp = fi.TabularMDP.from_successors(successors, np.ones(successors.shape), reward, discount, 0)
    cost = limits.pop("cost", None)
    return fi.IncentiveProblem(
        [mdp] * n,
        fi.AdditiveReward([0.0, 10.0, 5.0, 0.0]),
        fi.Payments.at_states([[1, 2]] * n, **limits),
        leader_discount=1.0,
        cost_weight=weight,
        cost=cost,
    )


@pytest.mark.parametrize("n", [1, 2])
def test_payments_may_cost_more_than_they_bring_net(n):
    # Paying 4 of the 5 that A brings more than B: more than the gain of 1 that is left.
    found = fi.global_optimum(chooser(n=n))
    assert found.complete
    assert_close(found.objective, 6.0 * n)


def test_prices_count_in_what_payments_can_be_worth():
    # At a price of 0.01 a payment of 400 costs 4.
    for cost in (fi.LinearCost(0.01), fi.LinearCost([0.01, 5.0])):
        problem = chooser(own=400.0, cost=cost)
        found = fi.global_optimum(problem)
        assert found.complete
        assert_close(found.objective, 6.0)
        assert_close(fi.solve(problem).objective, 6.0)


@pytest.mark.parametrize("budget", [4.0, 3.999])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_budget_bounds_the_payments(budget, weight):
    found = fi.global_optimum(chooser(weight, budget=budget))
    right = 10.0 - 4.0 * weight if budget == 4.0 else 5.0
    assert found.complete
    assert_close(found.objective, right)
    assert_close(fi.single_follower_optimum(chooser(weight, budget=budget)).objective, right)


def test_a_response_that_begins_where_payments_end_is_found():
    # Paid a step later, 4 now needs 4 / discount, up to rounding.
    rng = np.random.default_rng(0)
    for discount in rng.uniform(0.5, 0.99, 20):
        need = 4.0 / discount
        for limits in ({"upper": need}, {"budget": need}):
            problem = chooser(0.0, discount, **limits)
            assert_close(fi.global_optimum(problem).objective, 10.0)


def test_a_follower_tied_all_along_takes_the_best_at_each_breakpoint_of_another():
    moves = [[[1, 0], [3, 2], [3, 0], [3, 1]], [[3, 3], [1, 3], [0, 3], [3, 2]]]
    rewards = [
        [[-2.0, 0], [0, -2], [2, 1], [1, 1]],
        [[-1.0, -1], [1, -1], [0, -1], [-2, 2]],
    ]
    table = np.array(
        [
            [4.39, -0.63, -0.37, -4.44],
            [1.13, -2.7, -1.01, 0.0],
            [2.85, -6.59, 3.45, -1.39],
            [2.51, 4.58, -1.1, 2.11],
        ]
    )
    index = np.full((2, 4, 2), -1)
    index[0, 2] = index[1, 1] = 0
    model = Model(
        [np.eye(4)[np.array(each)] for each in moves],
        [np.array(each) for each in rewards],
        [0.9, 0.5],
        table,
        0.9,
        index,
        np.ones(1),
        0.5,
        40.0,
        None,
    )
    solution = fi.solve(model.problem())
    assert solution.refinement.complete
    assert_close(solution.objective, optimum(model)[0], 1e-9)
    assert_close(solution.payments, [7 / 3], 1e-9)


def test_a_margin_hidden_by_rounding_is_paid_once_not_half_the_regime():
    moves = [[[1, 0], [1, 3], [3, 2], [1, 0]], [[1, 3], [3, 2], [1, 3], [0, 3]]]
    rewards = [[[1.0, 1], [1, 0], [-2, 0], [-2, 0]], [[-1.0, 1], [1, 1], [-2, 2], [0, 0]]]
    table = np.array(
        [
            [-2.2, -6.07, -0.88, 0.77],
            [-4.93, -0.83, -3.05, 1.51],
            [-3.28, 4.32, 1.28, 1.84],
            [-1.84, -0.84, -1.79, -2.42],
        ]
    )
    index = np.full((2, 4, 2), -1)
    index[0, 0], index[1, 3] = 0, 1
    model = Model(
        [np.eye(4)[np.array(each)] for each in moves],
        [np.array(each) for each in rewards],
        [0.5, 0.9],
        table,
        0.9,
        index,
        np.ones(2),
        0.5,
        40.0,
        None,
    )
    solution = fi.solve(model.problem(), tie_breaking=fi.WeakStackelberg())
    lists = [responses(model, i) for i in range(2)]
    alone = guaranteed(model, lists, np.array([0.0, 1.00001]))
    assert solution.pessimistic_objective >= alone - 1e-5
    assert max(leader_value(model, each) for each in itertools.product(*lists)) >= alone


def test_a_tariff_within_the_budget_lets_ties_go_the_leaders_way():
    # Two followers share the payment, which is paid for once; at 4 they are indifferent.
    index = np.full((2, 4, 2), -1)
    index[:, 1] = 0
    for worth in ([0.0, 10.0, 5.0, 0.0], [0.0, 5.0, 10.0, 0.0]):
        problem = fi.IncentiveProblem(
            chooser(n=2).followers,
            fi.AdditiveReward(worth),
            fi.Payments.from_index(index, budget=4.0),
            leader_discount=1.0,
            cost_weight=1.0,
        )
        assert_close(fi.stackelberg_values(problem, 4.0).optimistic.objective, 16.0)
    assert_close(fi.solve(problem).objective, 20.0)


def test_a_loss_is_counted_for_ever_where_leader_and_follower_share_a_discount():
    mdp = fi.TabularMDP(np.ones((1, 2, 1)), [[1.0, 0.0]], 0.9)
    for discount in (0.9, 0.8999, 0.9001):
        problem = fi.IncentiveProblem(
            [mdp],
            fi.JointReward(np.array([[0.0, -1.0]])),
            fi.Payments.everywhere(),
            leader_discount=discount,
        )
        near = fi.worst_near_response(problem, 0.0, 1.0)
        assert near.exact
        if discount == 0.9:
            assert_close(near.leader_value, -1.0, 1e-9)
            assert_close(near.multipliers, [1.0], 1e-6)


def test_what_too_many_steps_leave_open_is_not_called_exact():
    mdp = fi.TabularMDP(np.ones((1, 2, 1)), [[1.0, 0.0]], 1.0 - 1e-7)
    problem = fi.IncentiveProblem(
        [mdp],
        fi.JointReward(np.array([[0.0, -1.0]])),
        fi.Payments.everywhere(),
        leader_discount=1.0 - 2e-7,
    )
    near = fi.worst_near_response(problem, 0.0, 1.0)
    assert not near.exact
    assert near.leader_value <= -1.0 + 1e-6


def test_vertices_that_rounding_moves_are_not_all_there_is():
    # At discount 1 - 1e-6 a payment of 4 for which a response ties is known up to 1e-9.
    rng = np.random.default_rng([6113, 77])
    rng.integers(1, 3)
    model = random_model(rng, 2, int(rng.integers(1, 3)), most=1.0)
    check(fi.global_optimum(model.problem()), optimum(model)[0], 6113)


def test_vertices_are_exact_where_values_are_large():
    # At discount 0.9999 a payment off by 1e-12 of the largest one buys nothing.
    rng = np.random.default_rng([5109, 77])
    rng.integers(1, 3)
    model = random_model(rng, 1, int(rng.integers(1, 4)), most=0.9999)
    found = fi.global_optimum(model.problem())
    assert found.complete
    assert_close(found.objective, optimum(model)[0], 1e-9)
