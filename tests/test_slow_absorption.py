"""Policies that are absorbed slowly or never: what the leader's sums over time make of them."""

import time
import warnings

import numpy as np
import pytest
from conftest import (
    EXACT,
    SWEEPS,
    Arrays,
    Game,
    assert_close,
)
from waiting import waiting_policies, waiting_problem, waiting_room

from fastincentive import (
    ImproperPolicyError,
    IncentiveProblem,
    InputError,
    JointReward,
    Payments,
    TruncationWarning,
)


def test_a_loop_where_the_leader_earns_nothing_is_exact():
    table = np.zeros((3, 3))
    table[0, 1] = 5.0  # follower 2 passes state 1 once, whatever follower 1 does
    table[1, 2] = 7.0
    problem = waiting_problem(table, leader_discount=1.0)
    policies = waiting_policies(1.0, 0.0)
    answer = problem.evaluate(0.0, policies)
    assert answer.leader_value == 5.0
    assert answer.truncation <= 1e-10
    assert answer.horizon < 100
    assert problem.leader_value(policies) == 5.0
    assert problem.leader_value(waiting_policies(1.0, 1.0)) == 0.0
    slow = waiting_policies(1.0, 0.5)  # follower 2 waits twice on average
    assert_close(problem.leader_value(slow), 5.0)
    step = 1e-6
    changed = problem.leader_value(
        slow + step * np.array([[[0, 0]] * 3, [[1, -1], [0, 0], [0, 0]]])
    )
    assert_close(changed, 5.0)
    along = problem.leader_gradient(slow)[1, 0]
    assert_close(along[0] - along[1], 0.0)


@pytest.mark.parametrize("earned", [1.0, -2.0])
def test_a_loop_where_the_leader_earns_for_ever_is_refused(earned):
    table = np.zeros((3, 3))
    table[0, 2] = earned  # follower 1 waits, follower 2 is absorbed
    problem = waiting_problem(table, leader_discount=1.0)
    policies = waiting_policies(1.0, 0.0)
    start = time.perf_counter()
    for ask in (
        problem.leader_value,
        problem.leader_gradient,
        lambda policies: problem.evaluate(0.0, policies),
    ):
        with pytest.raises(InputError, match=rf"{earned:g} a step .* follower 0, .* states 0\."):
            ask(policies)
    assert time.perf_counter() - start < 20.0
    answer = problem.evaluate(0.0, policies, unbounded=True)
    assert answer.leader_value == np.copysign(np.inf, earned)
    assert answer.truncation == 0.0
    waits = waiting_policies(1.0, 0.99995)  # it has not been absorbed by then
    with pytest.warns(TruncationWarning, match="bounded by inf"):
        assert np.isfinite(problem.leader_value(waits))


def test_warnings_point_to_the_callers_line():
    problem = waiting_problem([1.0, 0.0, 0.0], leader_discount=1.0, max_horizon=500)
    policies = waiting_policies(0.999)
    for ask in (
        problem.leader_value,
        problem.leader_gradient,
        problem.joint_occupancy,
        lambda policies: problem.evaluate(0.0, policies),
    ):
        with pytest.warns(TruncationWarning, match="cut after 500 steps") as caught:
            ask(policies)
        assert {each.filename for each in caught} == {__file__}


def test_slow_absorption_gives_a_finite_bound_that_holds():
    leave = 1e-3
    problem = waiting_problem([1.0, 0.0, 0.0], leader_discount=1.0, max_horizon=500)
    with pytest.warns(TruncationWarning, match="cut after 500 steps"):
        answer = problem.evaluate(0.0, waiting_policies(1 - leave))
    missing = 1 / leave - answer.leader_value
    assert_close(answer.leader_value, (1 - (1 - leave) ** 500) / leave)
    assert missing <= answer.truncation <= 1.1 * missing
    longer = waiting_problem([1.0, 0.0, 0.0], leader_discount=1.0, max_horizon=50_000)
    answer = longer.evaluate(0.0, waiting_policies(1 - leave))
    assert_close(answer.leader_value, 1 / leave)
    assert answer.horizon < 50_000


@pytest.mark.parametrize("waits", [(0.9999, 0.99999), (0.5, 0.999999)])
@pytest.mark.parametrize("discount", [1.0, 0.9999])
def test_two_followers_that_are_absorbed_slowly(discount, waits):
    """A million steps are not summed one by one; the answer is exact all the same."""
    rng = np.random.default_rng(5)
    table = rng.normal(size=(3, 3))
    table[2, 2] = 0.0
    problem = waiting_problem(table, leader_discount=discount)
    policies = waiting_policies(*waits)
    (mdp, _) = problem.followers
    arrays = Arrays(mdp.dense_transition(), mdp.reward, 0.9, mdp.initial, mdp.available)
    game = Game([arrays, arrays], table, discount, policies)
    start = time.perf_counter()
    answer = problem.evaluate(0.0, policies)
    gradient = problem.leader_gradient(policies)
    assert time.perf_counter() - start < 20.0
    # a condition number of 1e6 in the reference, against which nothing can be closer
    assert_close(answer.leader_value, game.value(), SWEEPS)
    assert_close(gradient, game.gradient(), SWEEPS)


@pytest.mark.parametrize("waits", [(0.9999, 0.99999), (0.5, 0.999999)])
@pytest.mark.parametrize("discount", [1.0, 0.9999])
def test_joint_values_of_followers_that_are_absorbed_slowly(discount, waits):
    rng = np.random.default_rng(5)
    table = rng.normal(size=(3, 3))
    table[2, 2] = 0.0
    problem = waiting_problem(table, leader_discount=discount)
    policies = waiting_policies(*waits)
    (mdp, _) = problem.followers
    arrays = Arrays(mdp.dense_transition(), mdp.reward, 0.9, mdp.initial, mdp.available)
    game = Game([arrays, arrays], table, discount, policies)
    assert_close(problem.joint_values(policies), game.joint_values(), SWEEPS)


@pytest.mark.parametrize("waits", [[0.99999], [0.9999, 0.5], [0.999, 0.5, 0.99999]])
@pytest.mark.parametrize("discount", [1.0, 0.99999])
def test_slow_absorption_is_doubled_for_any_number_of_followers(discount, waits):
    rng = np.random.default_rng(6)
    n = len(waits)
    table = rng.normal(size=(3,) * n)
    table[(2,) * n] = 0.0
    problem = waiting_problem(table, leader_discount=discount)
    policies = waiting_policies(*waits)
    mdp = problem.followers[0]
    arrays = Arrays(mdp.dense_transition(), mdp.reward, 0.9, mdp.initial, mdp.available)
    game = Game([arrays] * n, table, discount, policies)
    found = problem.leader_pass(policies)
    assert found.horizon < 5000  # and not a hundred thousand steps
    assert_close(found.value, game.value(), SWEEPS)
    assert_close(found.gradient, game.gradient(), SWEEPS)
    assert problem.leader_pass(policies, gradient=False).value == pytest.approx(found.value)


def test_joint_values_of_a_loop():
    table = np.zeros((3, 3))
    table[0, 1] = 5.0  # follower 2 passes state 1 once, while follower 1 waits for ever
    policies = waiting_policies(1.0, 0.0)
    values = waiting_problem(table, leader_discount=1.0).joint_values(policies)
    expected = np.zeros((3, 3))
    expected[0, :2] = 5.0
    assert_close(values, expected)
    table[0, 2] = 1.0  # now it earns for ever
    with pytest.warns(TruncationWarning, match="joint values was cut after .* bounded by inf"):
        waiting_problem(table, leader_discount=1.0).joint_values(policies)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_bound_on_the_rest_holds_at_every_horizon(n):
    rng = np.random.default_rng(n)
    table = rng.normal(size=(3,) * n)
    table[(2,) * n] = 0.0
    policies = waiting_policies(*[0.9] * n)
    exact = waiting_problem(table, leader_discount=1.0).leader_value(policies)
    for horizon in (1, 2, 5, 20, 80):
        problem = waiting_problem(table, leader_discount=1.0, max_horizon=horizon)
        cut = problem.leader_pass(policies, gradient=False)
        assert cut.horizon == horizon
        assert abs(exact - cut.value) <= cut.truncation * (1 + 1e-12) + EXACT
        assert cut.truncation <= np.abs(table).max() * n * 20


def test_a_loop_below_discount_one_is_exact_without_a_warning():
    table = np.zeros((3, 3))
    table[0, 2] = 1.0
    problem = waiting_problem(table, leader_discount=0.9)
    answer = problem.evaluate(0.0, waiting_policies(1.0, 0.0))
    assert_close(answer.leader_value, 0.9**2 / 0.1)
    assert answer.truncation <= 1e-12


@pytest.mark.parametrize("method", ["sum", "stein"])
def test_joint_occupancy_of_a_loop_at_discount_one_is_not_silent(method):
    """It is infinite: an error, or at least a warning, but no number that looks like an answer."""
    table = np.zeros((3, 3))
    table[0, 1] = 5.0
    problem = waiting_problem(table, leader_discount=1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            occupancy = problem.joint_occupancy(waiting_policies(1.0, 0.0), method=method)
        except ImproperPolicyError:
            return
    said = any(issubclass(each.category, TruncationWarning) for each in caught)
    assert said or occupancy[0, 2] == np.inf


def test_followers_at_discount_one_may_wait_for_nothing():
    mdp = waiting_room().replace(discount=1.0)
    table = np.zeros(3)
    table[1] = 1.0
    problem = IncentiveProblem([mdp], JointReward(table), Payments.at_states([[1]]))
    waits = problem.evaluate(0.0, waiting_policies(1.0))
    assert waits.follower_values[0] == waits.leader_value == 0.0
    assert problem.evaluate(2.0, waiting_policies(0.5)).follower_values[0] == pytest.approx(2.0)


def test_leader_that_earns_for_ever_is_refused_at_discount_one():
    table = np.zeros((3, 3))
    table[2, 2] = -4.0
    with pytest.raises(InputError) as error:
        waiting_problem(table, leader_discount=1.0)
    assert str(error.value).startswith(
        "leader: expected reward 0 once every follower is in a closed class of states, because "
        "the leader's discount is 1, got up to 4 a step for ever. Use leader_discount below 1"
    )
    waiting_problem(table, leader_discount=0.999)
