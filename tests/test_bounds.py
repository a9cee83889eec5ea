"""Upper bounds on the objective, and the control problem that they relax to."""

import itertools

import numba
import numpy as np
import pytest
from conftest import assert_close, random_arrays

import fastincentive as fi
from fastincentive.certificates.joint_control import (
    Control,
    find_losses,
    lasting_pairs,
)
from fastincentive.followers.followers import Followers
from fastincentive.models import example1, paper_gridworld, random_problem


def control_twin(followers, table, discount, losses, multipliers, horizon):
    """Plain dynamic programming over all pairs of states and actions; 0 at the horizon.

    ``table`` (S, A) * n is what the controller earns; returns the value from the start.
    """
    n = len(followers)
    value = np.zeros([len(each.initial) for each in followers])
    for t in range(horizon - 1, -1, -1):
        if n == 1:
            (one,) = followers
            ahead = np.einsum("sap,p->sa", one.transition, value)
            now = discount**t * table - multipliers[0] * one.discount**t * losses[0]
            now = np.where(one.available, now, -np.inf)
            value = (now + ahead).max(axis=1)
        else:
            one, two = followers
            ahead = np.einsum("sap,tbq,pq->satb", one.transition, two.transition, value)
            now = discount**t * table
            now = now - multipliers[0] * one.discount**t * losses[0][:, :, None, None]
            now = now - multipliers[1] * two.discount**t * losses[1][None, None]
            there = one.available[:, :, None, None] & two.available[None, None]
            value = np.where(there, now + ahead, -np.inf).max(axis=(1, 3))
    for each in reversed(followers):
        value = value @ each.initial
    return float(value)


@pytest.mark.parametrize("discounts", [(0.9, 0.8, 0.95), (0.7, 0.7, 0.5), (1.0, 0.8, 1.0)])
@pytest.mark.parametrize("n", [1, 2])
def test_control_against_plain_dynamic_programming(n, discounts):
    rng = np.random.default_rng(n)
    leader, *own = discounts
    arrays = [random_arrays(rng, 4, 2, own[i], 0.2, closed=1) for i in range(n)]
    shape = (4, 2) * n
    table = rng.normal(size=shape)
    table[(-1, slice(None)) * n] = 0.0
    problem = fi.IncentiveProblem(
        [each.mdp() for each in arrays],
        fi.JointReward(table),
        fi.Payments.at_states([[0]] + [[] for _ in arrays[1:]]),
        leader_discount=leader,
    )
    losses = find_losses(problem, problem.payments.lower)
    control = Control(
        problem.followers,
        range(n),
        problem.leader.labels,
        problem.leader.label_table().reshape(problem.leader.n_labels, -1),
        leader,
        losses.loss,
        problem.followers.available,
    )
    for multipliers in (np.zeros(n), np.array([0.5, 2.0])[:n], np.array([30.0, 0.1])[:n]):
        value, lost = control.maximum(multipliers)
        assert_close(
            value, control_twin(arrays, table, leader, losses.loss, multipliers, 700), 1e-11
        )
        assert (lost >= 0).all()
        # Minus the losses is a subgradient of the maximum, which is convex.
        for other in (multipliers + 0.3, 0.5 * multipliers):
            assert control.maximum(other)[0] >= value - lost @ (other - multipliers) - 1e-10
    # Multipliers that large leave no loss, and nothing but best responses.
    value, lost = control.maximum(np.full(n, 1e6))
    assert lost.max() < 1e-6


def test_earning_for_ever_is_no_bound():
    # The follower may stay in state 0, where the leader earns, at a loss that fades.
    mdp = fi.TabularMDP.from_successors(
        np.array([[[0], [1]], [[1], [1]]]),
        np.ones((2, 2, 1)),
        [[0.0, 1.0], [0.0, 0.0]],
        0.9,
        initial=0,
    )
    staying = fi.Payments.at_pairs([[[True, False], [False, False]]])
    for discount, expected in ((1.0, np.inf), (0.9, 10.0 - 0.1 * 0.1)):
        problem = fi.IncentiveProblem([mdp], fi.JointReward([1.0, 0.0]), staying, discount)
        # Staying for ever takes a payment of 0.1: at a discount of 0.9 the bound is tight.
        assert_close(fi.upper_bound(problem, mixed=True), expected, 1e-12)


def test_end_components():
    successors = np.array([[[0], [1]], [[2], [3]], [[1], [3]], [[3], [3]]])
    mdp = fi.TabularMDP.from_successors(successors, np.ones((4, 2, 1)), np.zeros((4, 2)), 0.9)
    followers = Followers([mdp])
    allowed = np.ones((4, 2), bool)
    expected = [[True, False], [True, False], [True, False], [True, True]]
    assert lasting_pairs(followers, 0, allowed).tolist() == expected
    allowed[2, 0] = False
    expected = [[True, False], [False, False], [False, False], [True, True]]
    assert lasting_pairs(followers, 0, allowed).tolist() == expected


def rewards_of(bound, combinations):
    """R at combinations of labels (m, n)."""
    return bound.expectations(np.eye(bound.n_labels)[combinations])[0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("kind", ["additive", "table", "count", "sum"])
def test_majorants_are_never_below(kind, sign):
    rng = np.random.default_rng(0)
    n, states = 4, 3
    labels = rng.integers(2, size=(n, states))
    labels[:2, 2], labels[2:, 2] = 0, 1
    # Earning nothing while all are in the last state: at discount 1 it may last for ever.
    values = rng.normal(size=n + 1)
    values[2] = 0.0
    table = rng.normal(size=(states,) * n)
    table[(2,) * n] = 0.0
    reward = {
        "additive": fi.AdditiveReward(rng.normal(size=states)),
        "count": fi.CountReward(labels, values),
        "table": fi.LabelReward(np.arange(states), table),
    }
    reward["sum"] = reward["count"] + 0.5 * reward["table"]
    bound = reward[kind].bind(n, states, 2)
    possible = np.zeros((n, bound.n_labels), bool)
    lasting = np.zeros_like(possible)
    for i in range(n):
        possible[i, bound.labels[i, :, 0]] = True
        lasting[i, bound.labels[i, 2, 0]] = kind != "additive"
    seen = possible * rng.dirichlet(np.ones(bound.n_labels), size=n)
    reference = seen / seen.sum(axis=1, keepdims=True)
    u = bound.majorant(sign, possible, lasting, reference)
    combinations = np.array(
        list(itertools.product(*[np.unique(bound.labels[i]) for i in range(n)]))
    )
    gap = u[np.arange(n), combinations].sum(axis=1) - sign * rewards_of(bound, combinations)
    assert gap.min() >= -1e-12
    assert gap.min() <= 1e-9
    assert (u[lasting] <= 0.0).all()


def test_rewards_too_large_to_fit_are_bounded_by_a_constant(monkeypatch):
    monkeypatch.setattr("fastincentive.leader.majorants.MOST_ROWS", 5)
    table = np.random.default_rng(0).normal(size=(2, 2, 2))
    bound = fi.LabelReward([0, 1], table).bind(3, 2, 1)
    possible = np.ones((3, 2), bool)
    reference = np.full((3, 2), 0.5)
    u = bound.majorant(1.0, possible, ~possible, reference)
    assert_close(u, np.full((3, 2), np.abs(table).max() / 3), 1e-12)
    assert bound.majorant(1.0, possible, possible, reference) is None


def test_earning_for_ever_in_many_followers():
    # No sum of rewards that are <= 0 for ever is above a count that pays for ever.
    problem = counting(3)
    own = problem.leader.majorant(
        1.0, np.ones((3, 2), bool), np.ones((3, 2), bool), np.full((3, 2), 0.5)
    )
    assert own is None


#: Random payments tried; fewer where the kernels run as plain Python.
TRIES = 10 if numba.config.DISABLE_JIT else 200


def largest(problem, rng, tries=TRIES, scale=3.0):
    """Largest objective at random payments, with best responses that suit the leader."""
    best = -np.inf
    for _ in range(tries):
        x = scale * rng.random(problem.payments.size) * (rng.random(problem.payments.size) < 0.6)
        x = problem.payments.project(x)
        policies = np.eye(problem.followers.n_actions)[
            problem.followers.best_responses(problem.rewards(x)).actions
        ]
        value = problem.leader_pass(policies, gradient=False).value
        best = max(best, problem.net(value, problem.cost_pass(x, policies, False).value))
    return best


def counting(n, discount=0.9, by_action=False, costs=None):
    """Return n followers that the leader wants in state 1, though not too many."""
    rng = np.random.default_rng(n)
    arrays = [random_arrays(rng, 5, 2, rng.uniform(0.7, 0.95), closed=1) for _ in range(n)]
    values = 2.0 * np.minimum(np.arange(n + 1), max(n - 2, 1))
    labels = np.zeros((n, 5), int)
    labels[:, 1] = 1
    return fi.IncentiveProblem(
        [each.mdp() for each in arrays],
        fi.CountReward(labels, values),
        fi.Payments.at_states([[i % 3, 3] for i in range(n)]),
        leader_discount=discount,
        cost=costs,
    )


def shared(n):
    problem = random_problem(n, 6, 2, rng=5)
    index = np.full(problem.followers.shape, -1)
    index[:, 1], index[:, 2, 0], index[0, 3] = 0, 1, 2
    return fi.IncentiveProblem(
        problem.followers,
        fi.AdditiveReward([0.0, 1.0, 3.0, 0.0, 0.0, 1.0]),
        fi.Payments.from_index(index),
        leader_discount=0.9,
        cost_weight=0.5,
    )


CASES = {
    "one": lambda: random_problem(1, 8, 3, rng=1),
    "two": lambda: random_problem(2, 8, 3, rng=2, action_dependent=True),
    "three": lambda: random_problem(3, 6, 2, rng=3),
    "one payment": lambda: random_problem(3, 4, 2, rng=3, n_payments=1, cost_weight=0.5),
    "shared two": lambda: shared(2),
    "shared three": lambda: shared(3),
    "count": lambda: counting(6),
    "count at discount 1": lambda: counting(6, 1.0),
    "quadratic": lambda: counting(2, costs=fi.QuadraticCost(0.5, 2.0)),
    "spend": lambda: counting(2, 0.99, costs=fi.ExpectedSpend()),
    "custom": lambda: counting(
        2, costs=fi.CustomCost(lambda x: float(np.sqrt(x.sum())), lambda x: 0.0 * x)
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_nothing_exceeds_the_bound(case):
    problem = CASES[case]()
    bound = fi.upper_bound(problem)
    found = largest(problem, np.random.default_rng(0))
    assert np.isfinite(bound)
    assert bound >= found - 1e-9
    mixed = fi.upper_bound(problem, mixed=True)
    assert mixed >= bound - 1e-9


@pytest.mark.slow
def test_nothing_exceeds_the_bound_at_solutions():
    for problem in (random_problem(2, 6, 2, rng=7, n_payments=1), counting(3)):
        solution = fi.solve(problem)
        assert fi.upper_bound(problem) >= solution.objective - 1e-9


@pytest.mark.slow
def test_paper_grid():
    problem = paper_gridworld()
    bound = fi.upper_bound(problem)
    mixed = fi.upper_bound(problem, mixed=True)
    print(f"paper grid: {bound:.6f}, {mixed:.6f} with mixing")
    # The certified optimum over deterministic best responses.
    assert_close(bound, 7.746418, 1e-6)
    assert bound <= mixed < 9.0


def test_tight_where_payments_are_free():
    problem = example1()
    free = fi.IncentiveProblem(
        problem.followers,
        fi.AdditiveReward([[0.0, 1.0, 3.0, 0.0], [0.0, 2.0, 1.0, 0.0]]),
        fi.Payments.at_states([[2], [1]]),
        cost_weight=0.0,
    )
    # Each follower can be paid to go where the leader earns most.
    assert_close(fi.upper_bound(free, mixed=True), 5.0, 1e-12)


def test_followers_without_payments_answer_as_they_like():
    problem = counting(2)
    unpaid = fi.IncentiveProblem(
        problem.followers,
        fi.CountReward(problem.leader.labels[:, :, 0], [0.0, 2.0, 3.0]),
        fi.Payments.at_states([[0], []]),
        leader_discount=0.9,
        cost_weight=1e3,
    )
    # At this price nothing is worth paying for: the bound is what comes without payments.
    responses = np.eye(2)[unpaid.followers.best_responses(unpaid.followers.rewards).actions]
    assert_close(fi.upper_bound(unpaid, mixed=True), unpaid.leader_value(responses), 1e-9)
