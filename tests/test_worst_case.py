"""The leader's worst case over near-best responses."""

import itertools

import numpy as np
import pytest
from conftest import assert_close, random_arrays, random_policy
from scipy.optimize import linprog
from test_bounds import counting

import fastincentive as fi
from fastincentive.responses.ties import break_ties


def additive(n, leader_discount, own=None, seed=0, by_action=True):
    """Return followers (arrays) and a problem whose leader earns follower by follower."""
    rng = np.random.default_rng(seed)
    own = rng.uniform(0.6, 0.95, n) if own is None else own
    arrays = [random_arrays(rng, 5, 3, own[i], 0.2, closed=1) for i in range(n)]
    rewards = rng.normal(size=(n, 5, 3) if by_action else (n, 5))
    rewards[:, -1] = 0.0
    problem = fi.IncentiveProblem(
        [each.mdp() for each in arrays],
        fi.AdditiveReward(rewards),
        fi.Payments.at_states([[0, 2]] * n),
        leader_discount=leader_discount,
    )
    return arrays, rewards, problem


def least_by_occupancies(each, reward, earned, epsilon):
    """Least value over occupancies worth V* - epsilon: a linear programme (one discount)."""
    states, actions = reward.shape
    flow = np.repeat(np.eye(states)[:, :, None], actions, axis=2).reshape(states, -1)
    flow = flow - each.discount * each.transition.reshape(-1, states).T
    there = each.available.ravel()
    worth = np.where(each.available, reward, 0.0).ravel()[there]
    most = -linprog(-worth, A_eq=flow[:, there], b_eq=each.initial).fun
    answer = linprog(
        np.where(each.available, earned, 0.0).ravel()[there],
        A_ub=-worth[None],
        b_ub=[-(most - epsilon)],
        A_eq=flow[:, there],
        b_eq=each.initial,
    )
    return answer.fun


@pytest.mark.parametrize("epsilon", [0.0, 0.02, 0.3, 2.0])
def test_additive_against_the_occupancy_programme(epsilon):
    arrays, earned, problem = additive(3, 0.9, [0.9] * 3)
    x = np.linspace(0.0, 1.0, problem.payments.size)
    near = fi.worst_near_response(problem, x, epsilon)
    rewards = problem.rewards(x)
    expected = sum(
        least_by_occupancies(each, rewards[i], earned[i], epsilon) for i, each in enumerate(arrays)
    )
    assert near.exact
    assert_close(near.leader_value, expected, 1e-8)
    assert_close(near.objective, near.leader_value - 0.1 * x.sum(), 1e-12)
    assert near.epsilon.tolist() == [epsilon] * 3
    if 0.0 < epsilon < 2.0:
        # The multipliers are the rate at which the value falls.
        further = fi.worst_near_response(problem, x, epsilon + 1e-5).leader_value
        assert_close((near.leader_value - further) / 1e-5, near.multipliers.sum(), 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("leader_discount", [0.5, 0.98, 1.0])
def test_sampled_near_responses_are_no_worse(leader_discount):
    rng = np.random.default_rng(3)
    for kind in ("additive", "two", "many"):
        if kind == "additive":
            problem = additive(2, leader_discount)[2]
        else:
            problem = counting(2 if kind == "two" else 4, leader_discount)
        x = rng.random(problem.payments.size)
        rewards = problem.rewards(x)
        best = problem.followers.best_responses(rewards)
        top = problem.followers.start_values(best.values)
        greedy = np.eye(problem.followers.n_actions)[best.actions]
        for _ in range(8):
            other = random_policy(rng, problem.followers.available, sparse=True)
            share = rng.random((problem.n, problem.followers.n_states, 1)) ** 4
            policies = (1.0 - share) * greedy + share * other
            gaps = top - problem.followers.start_values(
                problem.followers.evaluate(rewards, policies).values
            )
            value = problem.leader_value(policies)
            near = fi.worst_near_response(problem, x, np.maximum(gaps, 0.0) + 1e-12)
            assert near.leader_value <= value + 1e-8
            assert near.exact == (kind == "additive")


def test_best_responses_only_against_enumeration():
    rng = np.random.default_rng(5)
    for trial in range(6):
        arrays = [random_arrays(rng, 4, 2, 0.8) for _ in range(2)]
        # Few distinct rewards, and action 1 twice action 0 in two states: many ties.
        for each in arrays:
            each.transition[:2, 1] = each.transition[:2, 0]
            each.reward[:2, 1] = each.reward[:2, 0]
        earned = rng.normal(size=(2, 4, 2))
        problem = fi.IncentiveProblem(
            [each.mdp() for each in arrays],
            fi.AdditiveReward(earned),
            fi.Payments.at_states([[0], [1]]),
            leader_discount=0.7,
        )
        near = fi.worst_near_response(problem, 0.5, 0.0)
        rewards = problem.rewards(np.full(2, 0.5))
        best = problem.followers.best_responses(rewards)
        tied = best.q_values >= best.values[:, :, None] - 1e-9
        assert tied.sum() == 12
        least = np.inf
        for pick in itertools.product(*[np.flatnonzero(row) for row in tied.reshape(8, 2)]):
            policies = np.eye(2)[np.array(pick).reshape(2, 4)]
            least = min(least, problem.leader_value(policies))
        assert near.exact
        assert_close(near.leader_value, least, 1e-10, f"trial {trial}")
        assert np.isnan(near.multipliers).all()


@pytest.mark.parametrize(
    "kind",
    [
        "additive",
        pytest.param("two", marks=pytest.mark.slow),
        pytest.param("many", marks=pytest.mark.slow),
    ],
)
def test_order_and_limits(kind):
    problem = additive(2, 0.9)[2] if kind == "additive" else counting(2 if kind == "two" else 4)
    x = np.full(problem.payments.size, 0.3)
    pessimistic = problem.leader_value(break_ties(problem, x, -1.0))
    optimistic = problem.leader_value(break_ties(problem, x, 1.0))
    values = [
        fi.worst_near_response(problem, x, epsilon).leader_value
        for epsilon in (0.0, 1e-3, 0.03, 0.5, 3.0, 1e3)
    ]
    assert values[0] <= pessimistic + 1e-9
    assert pessimistic <= optimistic
    assert (np.diff(values) <= 1e-8).all()
    least = fi.worst_near_response(problem, x, 1e4)
    assert_close(least.leader_value, values[-1], 1e-9)
    assert not least.multipliers.any()


def test_one_follower_may_be_exact_and_the_other_not():
    problem = counting(2)
    x = np.full(problem.payments.size, 0.3)
    some = fi.worst_near_response(problem, x, [0.0, 0.4])
    assert np.isnan(some.multipliers).tolist() == [True, False]
    none = fi.worst_near_response(problem, x, 0.0)
    both = fi.worst_near_response(problem, x, 0.4)
    assert both.leader_value <= some.leader_value <= none.leader_value


def test_a_mixture_of_rewards_is_exact_if_all_parts_add_up():
    arrays, earned, problem = additive(2, 0.9, by_action=False)
    summed = fi.IncentiveProblem(
        [each.mdp() for each in arrays],
        fi.AdditiveReward(0.25 * earned) + 0.75 * fi.AdditiveReward(earned),
        fi.Payments.at_states([[0, 2]] * 2),
        leader_discount=0.9,
    )
    one, other = (fi.worst_near_response(each, 0.4, 0.2) for each in (problem, summed))
    assert one.exact
    assert other.exact
    assert_close(one.leader_value, other.leader_value, 1e-8)


def test_losing_for_ever():
    # The follower waits at no cost to itself, or for a fading loss, while the leader pays.
    for discount, cost, epsilon, expected in (
        (0.9, 0.0, 0.0, -np.inf),
        (0.9, 1.0, 0.5, -np.inf),
        (0.9, 1.0, 0.0, -1.0),
        # Waiting that costs the follower 1 a step can go on for half a step.
        (1.0, 1.0, 0.5, -1.5),
        (1.0, 1.0, 4.0, -5.0),
    ):
        mdp = fi.TabularMDP.from_successors(
            np.array([[[0], [1]], [[1], [1]]]),
            np.ones((2, 2, 1)),
            [[-cost, -cost if discount == 1.0 else 0.0], [0.0, 0.0]],
            discount,
            initial=0,
        )
        problem = fi.IncentiveProblem(
            [mdp],
            fi.AdditiveReward([-1.0, 0.0]),
            fi.Payments.at_pairs([[[False, True], [False, False]]]),
        )
        near = fi.worst_near_response(problem, 0.0, epsilon)
        assert_close(near.leader_value, expected, 1e-9, f"{discount} {cost} {epsilon}")
        # Whether policies that are never absorbed attain it is not looked into.
        assert near.exact == (epsilon == 0.0 and cost > 0.0)


def test_inputs():
    problem = counting(2)
    with pytest.raises(fi.InputError, match="epsilon: expected a number or shape"):
        fi.worst_near_response(problem, 0.0, [0.1, 0.1, 0.1])
    with pytest.raises(fi.InputError, match="epsilon: expected finite numbers >= 0"):
        fi.worst_near_response(problem, 0.0, -0.1)
    with pytest.raises(fi.InputError, match="payments"):
        fi.worst_near_response(problem, -1.0, 0.1)
    spend = counting(2, costs=fi.ExpectedSpend())
    with pytest.raises(fi.InputError, match="cost: expected a cost of the payments alone"):
        fi.worst_near_response(spend, 0.0, 0.1)
