"""One follower and many payments: the integer programme against exhaustive enumeration."""

import itertools

import numpy as np
import pytest
from conftest import assert_close, random_arrays
from scipy.optimize import linprog

from fastincentive import (
    AdditiveReward,
    CustomCost,
    ExpectedSpend,
    IncentiveProblem,
    InputError,
    JointReward,
    LabelReward,
    LinearCost,
    Payments,
    QuadraticCost,
    TabularMDP,
    single_follower_optimum,
)
from fastincentive.certificates.optimum import global_optimum
from fastincentive.models import gridworld, random_problem

#: HiGHS closes the relative gap to 1e-7 of the leader's stake, and `optimal` allows 1e-6.
PROVEN = 2e-6


def reached(mdp, actions):
    """(S,) bool: states that deterministic actions come to from the start."""
    moves = mdp.dense_transition()[np.arange(mdp.n_states), actions] > 0
    mask = mdp.initial > 0
    for _ in range(mdp.n_states):
        mask = mask | moves[mask].any(axis=0)
    return mask


def least_cost(problem, actions):
    """Least C(x) for which these actions are optimal where they come, inf if there is none."""
    mdp = problem.followers[0]
    moves = mdp.dense_transition()
    size = problem.payments.size
    visited = reached(mdp, actions)
    ended = mdp.transition.absorbing & (mdp.discount == 1.0)
    rows = {True: ([], []), False: ([], [])}
    for s, a in np.argwhere(mdp.available & ~ended[:, None]):
        row = np.zeros(size + mdp.n_states)
        if problem.payments.index[0, s, a] >= 0:
            row[problem.payments.index[0, s, a]] = 1.0
        row[size:] += mdp.discount * moves[s, a]
        row[size + s] -= 1.0
        left, right = rows[bool(visited[s] and a == actions[s])]
        left.append(row)
        right.append(-mdp.reward[s, a])
    prices = problem.cost.gradient(np.zeros(size))
    if problem.budget is not None:
        rows[False][0].append(np.append(prices, np.zeros(mdp.n_states)))
        rows[False][1].append(problem.budget)
    bounds = [(0.0, upper) for upper in problem.payments.upper]
    bounds += [(0.0, 0.0) if end else (None, None) for end in ended]
    result = linprog(
        np.append(prices, np.zeros(mdp.n_states)),
        *(np.array(each) for each in rows[False]),
        *(np.array(each) for each in rows[True]),
        bounds=bounds,
    )
    return result.fun if result.success else np.inf


def enumerated(problem, proper=lambda actions: True):
    """Best objective over all deterministic policies."""
    mdp = problem.followers[0]
    best = -np.inf
    for actions in itertools.product(*[np.flatnonzero(row) for row in mdp.available]):
        if proper(actions):
            cost = least_cost(problem, np.array(actions))
            if cost < np.inf:
                value = problem.leader_value(np.eye(mdp.n_actions)[list(actions)][None])
                best = max(best, value - problem.cost_weight * cost)
    return best


def check(problem, result):
    """The result is a best response within the bounds, and says what it is worth."""
    assert (result.payments >= 0).all()
    assert (result.payments <= problem.payments.upper).all()
    assert problem.within_budget(result.payments, result.policy[None])
    spread = problem.payments.side_payments(result.payments)[0]
    assert np.array_equal(result.side_payments, spread)
    evaluation = problem.evaluate(result.payments, result.policy[None])
    assert evaluation.follower_gaps[0] <= 1e-9 * max(1.0, abs(evaluation.best_values[0]))
    assert result.objective == evaluation.objective
    assert result.objective == result.leader_value - problem.cost_weight * result.cost
    assert result.gap == result.bound - result.objective >= 0.0


def small_problem(seed, payments, **settings):
    """4 states, 2 or 3 actions, a leader that sees states or states and actions."""
    rng = np.random.default_rng(seed)
    follower = random_arrays(
        rng, 4, 2 + seed % 2, rng.choice([0.5, 0.9, 0.97]), unavailable=0.2, branching=2
    )
    table = rng.normal(size=follower.reward.shape if seed % 3 else 4) * rng.choice([1.0, 10.0])
    discount = rng.choice([0.0, 0.6, 0.97, follower.discount])
    return IncentiveProblem(
        [follower.mdp()],
        JointReward(table),
        payments,
        leader_discount=discount,
        cost_weight=rng.choice([0.05, 0.3, 1.0]),
        **settings,
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "payments",
    [
        Payments.everywhere(),
        Payments.at_states([[0, 2, 3]]),
        Payments.everywhere(upper=0.7),
        Payments.everywhere(budget=0.8),
        Payments.at_states([[1, 2]], upper=[0.5, np.inf], budget=1.0),
    ],
    ids=["everywhere", "three", "upper", "budget", "both"],
)
def test_against_enumeration(seed, payments):
    problem = small_problem(seed, payments)
    result = single_follower_optimum(problem)
    check(problem, result)
    assert result.optimal
    assert not result.restricted
    assert_close(result.objective, enumerated(problem), PROVEN)


def test_tied_payments_prices_and_free_payments():
    index = np.array([[[0, 1, -1], [1, 2, 0], [-1, -1, 2], [0, 0, 1]]])
    rng = np.random.default_rng(5)
    follower = random_arrays(rng, 4, 3, 0.9, branching=2).mdp()
    for seed in range(4):
        problem = IncentiveProblem(
            [follower],
            AdditiveReward(np.random.default_rng(seed).normal(size=(1, 4, 3))),
            Payments.from_index(index, upper=[np.inf, 2.0, np.inf]),
            leader_discount=0.8,
            cost_weight=0.2,
            cost=LinearCost([0.5, 0.0, 2.0]),
        )
        result = single_follower_optimum(problem)
        check(problem, result)
        assert_close(result.objective, enumerated(problem), PROVEN)


def test_against_global_optimum():
    for seed in range(6):
        problem = random_problem(1, 8, 3, rng=seed, n_payments=1, action_dependent=seed % 2 == 0)
        result = single_follower_optimum(problem)
        check(problem, result)
        assert_close(result.objective, global_optimum(problem).objective, PROVEN)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_leader_discount_1(discount, sign):
    # Every policy leaves for the last state, so nothing is left out.
    for seed in range(4):
        follower = random_arrays(np.random.default_rng(seed), 4, 2, discount, closed=1)
        table = np.append(np.random.default_rng(9 + seed).normal(size=3), 0.0)
        table = np.abs(table) if sign > 0 else table
        payments = Payments.at_states([[0, 1, 2]])
        problem = IncentiveProblem([follower.mdp()], JointReward(table), payments, 1.0, 0.2)
        result = single_follower_optimum(problem)
        check(problem, result)
        assert not result.restricted
        assert_close(result.objective, enumerated(problem), PROVEN)


def test_follower_discount_1_excludes_loops():
    # Two rooms with a way out of one: going round for ever is no answer at discount 1.
    moves = np.zeros((3, 2, 3))
    moves[0, 0, 1] = moves[0, 1, 2] = moves[1, 0, 0] = moves[1, 1, 0] = 1.0
    moves[2, :, 2] = 1.0
    mdp = TabularMDP(moves, [[-0.5, -1.0], [0.2, 0.1], [0.0, 0.0]], 1.0, 0)
    payments = Payments.at_states([[1]], upper=0.2)
    for leader_discount in (0.9, 1.0):
        problem = IncentiveProblem(
            [mdp], JointReward([0.0, 1.0, 0.0]), payments, leader_discount, 0.1
        )
        result = single_follower_optimum(problem)
        check(problem, result)
        assert result.restricted
        assert result.optimal
        assert_close(result.objective, 0.0)


@pytest.mark.parametrize("loss", [0.0, 1.0])
def test_settling_where_the_leader_earns_nothing(loss):
    # Waiting in state 0 pays the follower for ever; state 1 is what the leader wants, or shuns.
    moves = np.zeros((3, 2, 3))
    moves[0, 0, 0] = moves[0, 1, 1] = 1.0
    moves[1:, :, 2] = 1.0
    mdp = TabularMDP(moves, [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], 0.9, 0)
    payments = Payments.at_states([[1]], upper=20.0)
    table = [0.0, -1.0 if loss else 3.0, 0.0]
    problem = IncentiveProblem([mdp], JointReward(table), payments, 1.0, 0.1)
    result = single_follower_optimum(problem)
    check(problem, result)
    assert result.restricted
    # Waiting is worth 10, so moving on takes 10 / 0.9.
    assert_close(result.objective, 0.0 if loss else 3.0 - 0.1 * 10.0 / 0.9, PROVEN)
    assert result.optimal


def test_losses_cannot_be_escaped_by_draining():
    # From state 0 the follower goes to 1, where the leader loses, or pays to have it wait.
    moves = np.zeros((3, 2, 3))
    moves[0, 0, 0] = moves[0, 1, 1] = 1.0
    moves[1:, :, 2] = 1.0
    mdp = TabularMDP(moves, [[0.0, 0.0], [2.0, 2.0], [0.0, 0.0]], 0.5, 0)
    for weight, objective in ((0.1, -0.05), (10.0, -1.0)):
        problem = IncentiveProblem(
            [mdp],
            JointReward([0.0, -1.0, 0.0]),
            Payments.at_pairs(np.array([[[True, False], [False, False], [False, False]]])),
            1.0,
            weight,
        )
        result = single_follower_optimum(problem)
        check(problem, result)
        assert_close(result.objective, objective, PROVEN)


def test_grid():
    sites = [[(0, 2), (1, 1), (2, 1)]]
    problem = gridworld("S.L ..F .G.", slip=0.1, paid=sites)
    result = single_follower_optimum(problem)
    check(problem, result)
    assert result.optimal
    assert result.restricted
    alone = gridworld("S.L ..F .G.", slip=0.1)
    single = single_follower_optimum(alone)
    assert_close(single.objective, global_optimum(alone).objective, PROVEN)
    assert result.objective >= single.objective - 1e-9


def test_actions_that_nobody_can_tell_apart():
    moves = np.zeros((2, 4, 2))
    moves[0, :2, 0] = moves[0, 2:, 1] = moves[1, :, 0] = 1.0
    mdp = TabularMDP(moves, [[1.0, 1.0, 0.0, 0.0], [0.0] * 4], 0.9, 0)
    problem = IncentiveProblem([mdp], JointReward([0.0, 1.0]), Payments.everywhere(), 0.9, 0.1)
    result = single_follower_optimum(problem)
    check(problem, result)
    assert (result.payments > 0).sum() == 1
    assert_close(result.objective, enumerated(problem), PROVEN)


def test_nothing_to_choose():
    mdp = TabularMDP(np.full((2, 1, 2), 0.5), [[1.0], [0.0]], 0.9)
    problem = IncentiveProblem([mdp], JointReward([1.0, -1.0]), Payments.everywhere(), 0.9, 0.1)
    result = single_follower_optimum(problem)
    assert result.optimal
    assert_close(result.objective, 0.0)
    assert "objective" in str(result)


def test_time_limit_leaves_a_bound():
    problem = gridworld("S...L ..F.. .FF.. ..... .L..G")
    result = single_follower_optimum(problem, time_limit=0.01)
    check(problem, result)
    assert not result.optimal
    assert "time limit" in result.message
    assert result.gap > 0


def test_errors():
    two = random_problem(2, 4, 2, rng=0)
    with pytest.raises(InputError, match=r"one follower, got 2.*global_optimum"):
        single_follower_optimum(two)
    one = random_problem(1, 4, 2, rng=0)
    for cost in (ExpectedSpend(), QuadraticCost(), CustomCost(np.sum, np.ones_like)):
        problem = IncentiveProblem(
            [one.followers[0]],
            JointReward(np.ones(4)),
            Payments.at_states([[0, 1]]),
            0.9,
            cost=cost,
        )
        with pytest.raises(InputError, match="LinearCost, because the programme is linear"):
            single_follower_optimum(problem)
    with pytest.raises(InputError, match="time_limit"):
        single_follower_optimum(one, time_limit=0.0)
    with pytest.raises(InputError, match="max_visits"):
        single_follower_optimum(one, max_visits=np.inf)
    free = IncentiveProblem(
        [one.followers[0]],
        JointReward(np.arange(4.0)),
        Payments.at_states([[0, 1]]),
        0.9,
        cost_weight=0.0,
    )
    with pytest.raises(InputError, match=r"an upper bound on each payment.*payment 0"):
        single_follower_optimum(free)


def test_payments_that_could_be_earned_for_ever():
    # Upper bounds of 1 on staying put at discount 1, against a step cost of 0.5.
    moves = np.zeros((2, 2, 2))
    moves[0, 0, 0] = moves[0, 1, 1] = moves[1, :, 1] = 1.0
    mdp = TabularMDP(moves, [[-0.5, 0.0], [0.0, 0.0]], 1.0, 0)
    reward = LabelReward([0, 1], [1.0, 0.0])
    problem = IncentiveProblem([mdp], reward, Payments.at_states([[0]], upper=1.0), 0.9, 0.1)
    with pytest.raises(InputError, match="bounded best total reward"):
        single_follower_optimum(problem)
