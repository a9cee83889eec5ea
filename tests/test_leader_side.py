"""The leader's value, gradient and joint tables against explicit solves on the product space."""

import numpy as np
import pytest
import reference
from conftest import (
    GRADIENT,
    STANDARD_ERRORS,
    SWEEPS,
    Game,
    assert_close,
    random_game,
    random_policy,
)
from twin import label_table

from fastincentive import (
    CountReward,
    IncentiveProblem,
    InputError,
    JointReward,
    LabelReward,
    Payments,
    ProductSpaceTooLargeError,
    TabularMDP,
    evaluate_policy,
    occupancy_measure,
)
from fastincentive.kernels.packed import DENSE_STATES
from fastincentive.methods._starts import leader_optimal_policies
from fastincentive.models import grid_mdp, gridworld, random_problem
from fastincentive.problem import product_space
from fastincentive.problem.lone_pass import LonePass


def random_grid_problem(discount):
    """One follower on a grid of more than ``DENSE_STATES`` states."""
    side = 21
    rows = [["."] * side for _ in range(side)]
    rows[0][0], rows[-1][-1], rows[side // 2][0] = "S", "G", "L"
    layout = "\n".join("".join(row) for row in rows)
    return gridworld(layout, slip=0.1, discount=0.95, leader_discount=discount)


# n, S, A, leader's discount, actions seen, size of the closed class
CASES = [
    (n, states, actions, discount, by_action, closed)
    for n, states, actions in ((2, 5, 3), (3, 4, 2), (4, 3, 2))
    for discount in (0.9, 1.0)
    for by_action in (False, True)
    for closed in (1, 2)
] + [(2, 5, 3, 0.9, True, 0), (2, 5, 3, 0.0, True, 0), (1, 6, 3, 0.95, False, 0)]


@pytest.fixture(params=CASES, ids=str, scope="module")
def game(request):
    n, states, actions, discount, by_action, closed = request.param
    rng = np.random.default_rng([CASES.index(request.param), 11])
    sparse = closed == 2
    return random_game(rng, n, states, actions, discount, by_action, 0.25, closed, sparse)


def test_leader_value_equals_the_product_space(game):
    assert_close(game.problem().leader_value(game.policies), game.value())


def test_leader_gradient_equals_the_product_space(game):
    """Entry by entry: both count a reward of states as the reward of every action there."""
    gradient = game.problem().leader_gradient(game.policies)
    assert (gradient[~game.available] == 0).all()
    assert_close(gradient, np.where(game.available, game.gradient(), 0.0))


def test_joint_occupancy_equals_the_product_space(game):
    occupancy = game.problem().joint_occupancy(game.policies)
    assert_close(occupancy, game.occupancy())
    if game.discount < 1:
        assert_close((1 - game.discount) * occupancy.sum(), 1.0)
    if game.table.ndim == occupancy.ndim:
        assert_close(np.sum(occupancy * game.table), game.value())


def test_joint_values_equal_the_explicit_solve(game):
    problem = game.problem()
    values = problem.joint_values(game.policies)
    assert_close(values, game.joint_values())
    for each in reversed(game.followers):
        values = values @ each.initial
    assert_close(values, problem.leader_value(game.policies))


@pytest.mark.parametrize("count", [1, 4, 16])
@pytest.mark.parametrize("discount", [0.9, 0.999, 1.0])
def test_joint_values_do_not_depend_on_how_they_are_begun(monkeypatch, count, discount):
    rng = np.random.default_rng(3)
    game = random_game(rng, 2, 9, 2, discount, closed=1, sparse=True)
    monkeypatch.setattr(product_space, "first_steps", lambda *_: count)
    assert_close(game.problem().joint_values(game.policies), game.joint_values(), 1e-12)


def test_joint_values_of_rewards_without_a_table():
    rng = np.random.default_rng(2)
    game = random_game(rng, 3, 4, 2, 0.9)
    labels = rng.integers(2, size=(3, 4, 2))
    problem = game.problem(leader=CountReward(labels, rng.normal(size=4)))
    values = problem.joint_values(game.policies)
    for each in reversed(game.followers):
        values = values @ each.initial
    assert_close(values, problem.leader_value(game.policies))


def test_stein_doubling_equals_the_sum_over_time(game):
    problem = game.problem()
    if problem.n != 2:
        with pytest.raises(InputError, match='method: expected "sum" unless there are two'):
            problem.joint_occupancy(game.policies, method="stein")
        return
    stein = problem.joint_occupancy(game.policies, method="stein")
    assert_close(stein, game.occupancy())
    assert_close(stein, problem.joint_occupancy(game.policies, method="sum"))


def test_leader_gradient_against_finite_differences(game):
    """Along the simplices, where the perturbed policies are policies again."""
    problem = game.problem()
    policies = random_policy(np.random.default_rng(0), game.available)
    gradient = problem.leader_gradient(policies)
    rng = np.random.default_rng(1)
    step = 1e-6
    for _ in range(4):
        toward = random_policy(rng, game.available) - policies
        up = problem.leader_value(policies + step * toward)
        down = problem.leader_value(policies - step * toward)
        assert_close(np.sum(gradient * toward), (up - down) / (2 * step), GRADIENT)


def test_random_problems_equal_the_product_space():
    """The package's own generator, read back into plain arrays."""
    for n, seed, by_action in ((2, 0, False), (2, 1, True), (3, 2, False)):
        problem = random_problem(n, 4, 2, 2, rng=seed, action_dependent=by_action, unavailable=0.3)
        followers = problem.followers
        policies = random_policy(np.random.default_rng(seed), followers.available)
        labels = problem.leader.n_labels
        table = label_table(problem).reshape((4, 2) * n if labels == 8 else (4,) * n)
        assert by_action == (labels == 8)
        arguments = (
            [mdp.dense_transition() for mdp in followers],
            [mdp.initial for mdp in followers],
            list(policies),
            table,
            problem.leader_discount,
        )
        assert_close(problem.leader_value(policies), reference.kron_leader_value(*arguments))
        expected = np.where(followers.available, reference.kron_leader_gradient(*arguments), 0.0)
        assert_close(problem.leader_gradient(policies), expected)


@pytest.mark.parametrize("by_action", [False, True])
def test_monte_carlo_agrees(by_action):
    game = random_game(np.random.default_rng(8), 2, 4, 2, 0.7, by_action)
    mean, error = reference.simulate_leader_value(
        np.random.default_rng(0),
        [each.transition for each in game.followers],
        [each.initial for each in game.followers],
        list(game.policies),
        game.table,
        0.7,
        episodes=600,
        horizon=30,
    )
    assert error < 0.2  # or nothing is tested
    assert abs(game.problem().leader_value(game.policies) - mean) <= STANDARD_ERRORS * error


# Structure


@pytest.mark.parametrize("discount", [0.9, 1.0])
@pytest.mark.parametrize("by_action", [False, True])
def test_one_follower_is_an_mdp(discount, by_action):
    game = random_game(np.random.default_rng(2), 1, 7, 3, discount, by_action)
    problem = game.problem()
    (each,) = game.followers
    own = TabularMDP(each.transition, game.table, discount, each.initial, each.available)
    values, q_values = evaluate_policy(own, game.policies[0])
    occupancy = occupancy_measure(own, game.policies[0])
    visits = occupancy.sum(axis=1)
    assert_close(problem.leader_value(game.policies), each.initial @ values)
    assert_close(problem.joint_occupancy(game.policies), visits)
    slope = visits[:, None] * np.where(each.available, q_values, 0.0)  # policy gradient theorem
    assert_close(problem.leader_gradient(game.policies)[0], slope)


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("by_action", [False, True])
def test_one_follower_is_evaluated_or_summed_over_time(discount, by_action):
    rng = np.random.default_rng([4, by_action])
    for _ in range(10):
        game = random_game(rng, 1, 7, 3, discount, by_action)
        problem = game.problem()
        found = LonePass(problem.followers, problem.leader).run(game.policies, True, discount)
        summed = problem.leader_pass(game.policies)
        assert_close(found.value, summed.value, SWEEPS)
        assert_close(found.gradient, summed.gradient, GRADIENT)


def test_one_follower_that_waits_for_ever_is_summed_over_time():
    grid = random_grid_problem(1.0)
    lone = LonePass(grid.followers, grid.leader)
    going = grid.followers.deterministic_policies(
        grid.followers.best_responses(grid.rewards(np.zeros(1))).actions
    )
    assert lone.run(going, True, 1.0) is not None
    waiting = np.zeros_like(going)
    waiting[:, :, 0] = 1.0  # against a wall
    assert lone.run(waiting, True, 1.0) is None
    assert lone.run(waiting, True, 0.99) is not None
    assert lone.run(going.astype(np.float32), True, 0.99) is None


@pytest.mark.parametrize("discount", [0.95, 1.0])
def test_one_follower_of_many_states_starts_from_the_leaders_optimum(discount):
    problem = random_grid_problem(discount)
    assert problem.leader_side.lone is not None
    start = leader_optimal_policies(problem)
    values = problem.leader_value(start)
    own = problem.followers.discounted(min(discount, 0.99))
    rewards = problem.leader.label_table()[problem.leader.labels]
    best = own.best_responses(np.ascontiguousarray(np.broadcast_to(rewards, own.shape)))
    if discount < 1.0:
        assert_close(values, own.start_values(best.values)[0], SWEEPS)
    other = random_policy(np.random.default_rng(0), problem.followers.available)
    step = 1e-6
    moved = (1.0 - step) * start + step * other
    here = problem.leader_gradient(moved)
    ahead = problem.leader_value((1.0 - 2.0 * step) * start + 2.0 * step * other)
    difference = (ahead - values) / (2.0 * step)
    assert_close((here * (other - start)).sum(), difference, 1e-5)


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("by_action", [False, True])
def test_permuting_followers_permutes_the_answer(order, by_action):
    game = random_game(np.random.default_rng(3), 3, 4, 2, 1.0, by_action)
    axes = [2 * i + k for i in order for k in range(2)] if by_action else order
    other = Game(
        [game.followers[i] for i in order],
        game.table.transpose(axes),
        1.0,
        game.policies[list(order)],
    )
    one, two = game.problem(), other.problem()
    assert_close(one.leader_value(game.policies), two.leader_value(other.policies))
    gradient = one.leader_gradient(game.policies)[list(order)]
    assert_close(two.leader_gradient(other.policies), gradient)
    occupancy = one.joint_occupancy(game.policies).transpose(order)
    assert_close(two.joint_occupancy(other.policies), occupancy)


def test_a_follower_that_is_not_seen_gets_no_gradient():
    game = random_game(np.random.default_rng(4), 2, 5, 3)
    table = np.repeat(game.table[:, :1], 5, axis=1)
    gradient = game.problem(leader=JointReward(table)).leader_gradient(game.policies)
    mean = np.sum(game.policies * gradient, axis=2, keepdims=True)
    along = np.where(game.available, gradient - mean, 0.0)
    assert_close(along[1], np.zeros((5, 3)))
    assert np.abs(along[0]).max() > 0.1


def test_what_is_written_at_unavailable_actions_does_not_matter():
    game = random_game(np.random.default_rng(5), 2, 4, 3, 1.0, True, 0.4)
    first, second = game.available
    existing = first[:, :, None, None] & second[None, None]
    assert not existing.all()
    clean = game.problem(leader=JointReward(np.where(existing, game.table, 0.0)))
    spoiled = game.problem(leader=JointReward(np.where(existing, game.table, 1e3)))
    assert_close(spoiled.leader_value(game.policies), clean.leader_value(game.policies))
    assert_close(spoiled.leader_gradient(game.policies), clean.leader_gradient(game.policies))


def test_inputs_are_left_alone_and_calls_repeat():
    game = random_game(np.random.default_rng(6), 2, 5, 3)
    problem = game.problem()
    policies = game.policies.copy()
    first = problem.leader_value(policies), problem.leader_gradient(policies)
    occupancy = problem.joint_occupancy(policies)
    np.testing.assert_array_equal(policies, game.policies)
    assert problem.leader_value(policies) == first[0]
    np.testing.assert_array_equal(problem.leader_gradient(policies), first[1])
    np.testing.assert_array_equal(problem.joint_occupancy(policies), occupancy)


# The joint occupancy does not depend on what the leader earns


def one_step_game():
    """Both followers leave state 0 at once for a sink; the leader earns before that only."""
    transition = np.zeros((2, 1, 2))
    transition[:, 0, 1] = 1.0
    return TabularMDP(transition, np.zeros(2), 0.9, 0), np.ones((2, 2, 1))


@pytest.mark.parametrize("table", [[[1.0, 0.0], [0.0, 0.0]], np.zeros((2, 2)), np.ones((2, 2))])
def test_joint_occupancy_below_discount_one_counts_absorbed_states(table):
    mdp, policies = one_step_game()
    payments = Payments.at_states([[0], []])
    problem = IncentiveProblem([mdp, mdp], JointReward(table), payments, leader_discount=0.9)
    for method in ("auto", "sum", "stein"):
        occupancy = problem.joint_occupancy(policies, method=method)
        assert_close(occupancy, [[1.0, 0.0], [0.0, 9.0]])


def test_joint_occupancy_at_discount_one_without_a_reward():
    game = random_game(np.random.default_rng(9), 2, 4, 2, 1.0)
    problem = game.problem(leader=JointReward(np.zeros((4, 4))))
    assert_close(problem.joint_occupancy(game.policies), game.occupancy())


def test_memory_guard_says_how_much():
    game = random_game(np.random.default_rng(0), 3, 5, 2)
    problem = game.problem()
    need = 8 * 5**3 / 2**30
    with pytest.raises(ProductSpaceTooLargeError) as error:
        problem.joint_occupancy(game.policies, max_gib=0.9 * need)
    assert f"joint_occupancy over 5^3 joint states needs {need:.3g} GiB" in str(error.value)
    assert isinstance(error.value, MemoryError)
    problem.joint_occupancy(game.policies, max_gib=1.1 * need)
    mdp = grid_mdp(".....\n" * 3 + "S...G", 0.1)
    labels = np.zeros(21, int)
    big = IncentiveProblem(
        [mdp] * 8, LabelReward(labels, np.zeros((1,) * 8)), Payments.everywhere()
    )
    uniform = np.full((8, 21, 4), 0.25)
    assert big.leader_value(uniform) == 0.0
    with pytest.raises(ProductSpaceTooLargeError, match=r"21\^8 joint states needs 282 GiB"):
        big.joint_occupancy(uniform)


def test_memory_guard_of_joint_values():
    game = random_game(np.random.default_rng(0), 3, 5, 2)
    with pytest.raises(ProductSpaceTooLargeError, match=r"joint_values over 5\^3 joint states"):
        game.problem().joint_values(game.policies, max_gib=1e-9)


def test_joint_occupancy_method():
    game = random_game(np.random.default_rng(0), 2, 3, 2)
    with pytest.raises(InputError, match=r"method: expected .*got 'fast'"):
        game.problem().joint_occupancy(game.policies, method="fast")


# Beyond DENSE_STATES


@pytest.mark.slow
@pytest.mark.parametrize("discount", [0.95, 1.0])
def test_large_state_spaces(discount):
    rng = np.random.default_rng(7)
    cells = rng.choice(list("........F"), size=(21, 21))
    cells[0, 0], cells[20, 20], cells[12:, 3] = "S", "G", "L"
    layout = "\n".join(map("".join, cells))
    mdps = [grid_mdp(layout, 0.1), grid_mdp(layout, 0.05, (20, 0))]
    states = mdps[0].n_states
    assert states > DENSE_STATES
    labels = np.zeros(states, int)
    labels[(cells == "L").ravel().nonzero()[0]] = 1
    labels[-1] = 2
    table = np.array([[0.0, 2.0, 0.5], [2.0, 10.0, 8.0], [-0.5, 8.0, 0.0]])
    problem = IncentiveProblem(
        mdps, LabelReward(labels, table), Payments.everywhere(), leader_discount=discount
    )
    policies = random_policy(rng, problem.followers.available)
    policies[:, :, 1:3] += 1.0  # a drift to the south and east
    policies /= policies.sum(axis=2, keepdims=True)
    chains = [
        reference.policy_transition(mdp.dense_transition(), policy)
        for mdp, policy in zip(mdps, policies, strict=True)
    ]
    laws = [mdp.initial for mdp in mdps]
    reward = table[np.ix_(labels, labels)]
    value, weight = 0.0, 1.0
    for _ in range(2000):
        value += weight * (laws[0] @ reward @ laws[1])
        weight *= discount
        laws = [law @ chain for law, chain in zip(laws, chains, strict=True)]
    left = weight if discount < 1 else max(1 - law[-1] for law in laws)
    assert left < 1e-12
    assert_close(problem.leader_value(policies), value, SWEEPS)
    gradient = problem.leader_gradient(policies)
    step = 1e-6
    for _ in range(2):
        toward = random_policy(rng, problem.followers.available) - policies
        up = problem.leader_value(policies + step * toward)
        down = problem.leader_value(policies - step * toward)
        assert_close(np.sum(gradient * toward), (up - down) / (2 * step), 10 * GRADIENT)


def test_gradient_of_an_idle_follower_counts_all_time():
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1:, :, 2] = 1.0
    mdp = TabularMDP(transition, np.zeros((3, 2)), 0.9, 0)
    leader = JointReward([0.0, 1.0, 0.0])
    problem = IncentiveProblem([mdp], leader, Payments.at_states([[1]]), leader_discount=0.9)
    policies = np.zeros((1, 3, 2))
    policies[:, :, 0] = 1.0
    # Leaving now or at any later time earns 1 a step later: 0.9 / (1 - 0.9).
    assert_close(problem.leader_gradient(policies)[0, 0], [0.0, 9.0])


@pytest.mark.parametrize(("discount", "expected"), [(1.0, 2.0 / 3.0), (0.95, None)])
def test_gradient_beside_a_follower_that_cycles(discount, expected):
    first = np.zeros((3, 2, 3))
    first[0, 0, 2] = first[0, 1, 1] = first[2, :, 2] = 1.0
    first[1, :, 1] = first[1, :, 2] = 0.5
    second = np.zeros((3, 2, 3))
    second[0, :, 1] = second[1, :, 0] = second[2, :, 0] = 1.0
    mdps = [TabularMDP(each, np.zeros((3, 2)), 0.9, 0) for each in (first, second)]
    table = np.zeros((3, 3))
    table[1, 0] = 1.0
    problem = IncentiveProblem(
        mdps, JointReward(table), Payments.at_states([[0], []]), leader_discount=discount
    )
    policies = np.zeros((2, 3, 2))
    policies[:, :, 0] = 1.0
    # Follower 1 is in state 1 at times 1, 2, ... with chance 1, 1/2, 1/4, ...; the other is at 0
    # at even times.
    total = sum(discount**t * 0.5 ** (t - 1) for t in range(2, 200, 2))
    assert expected is None or abs(total - expected) < 1e-12
    assert_close(problem.leader_gradient(policies)[0, 0], [0.0, total])
