"""Large state spaces: sweeps beside SciPy's sparse solves, and kernels beside plain twins."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from conftest import assert_close
from scipy import sparse

import fastincentive as fi
from fastincentive.followers import best_responses as large
from fastincentive.followers import evaluation
from fastincentive.followers.best_responses import ResponseMemory
from fastincentive.followers.followers import Followers
from fastincentive.kernels import occupancy, sweep_order, sweeps
from fastincentive.kernels.response_memory import DIRECTIONS, ENTRIES, broyden_update, predict

#: Kinds of graphs. Sweeps are compiled for each pair of a number of actions and one of successors:
#: two pairs, 4 and 3 as on grids, and 4 and 1, keep this short.
KINDS = ["sparse", "ring", "local", "absorbing", "deterministic"]
ACTIONS = 4


def random_mdp(kind, seed, states=None, discount=None):
    """A random MDP with rows of equal length; more states than dense factors are used for."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    S = int(rng.integers(401, 700)) if states is None else states
    A = ACTIONS
    gamma = rng.choice([0.9, 0.99, 0.999, 0.9999]) if discount is None else discount
    here = np.arange(S)[:, None, None]
    if kind == "sparse":
        successors = rng.integers(0, S, (S, A, 3))
    elif kind == "ring":  # periodic, or nearly
        successors = (here + np.arange(1, A + 1)[None, :, None] + np.arange(3)) % S
    elif kind == "deterministic":
        successors = rng.integers(0, S, (S, A, 1))
    else:
        successors = np.clip(here + rng.integers(-2, 3, (S, A, 3)), 0, S - 1)
        if kind == "absorbing":
            successors[0] = 0
    probabilities = rng.dirichlet(np.full(successors.shape[2], 0.5), (S, A))
    reward = rng.normal(size=(S, A)) * rng.choice([1e-3, 1.0, 100.0])
    if kind == "absorbing":
        reward[0] = 0.0
    return fi.TabularMDP.from_successors(successors, probabilities, reward, gamma, initial=S // 2)


def matrix(mdp):
    """The transitions as a sparse matrix (S*A, S)."""
    model = mdp.transition
    shape = (mdp.n_states * mdp.n_actions, mdp.n_states)
    return sparse.csr_array((model.probability, model.successor, model.row_start), shape=shape)


def bellman_residual(mdp, values, reward=None):
    reward = mdp.reward if reward is None else reward
    q = reward + mdp.discount * (matrix(mdp) @ values).reshape(reward.shape)
    return np.abs(np.where(mdp.available, q, -np.inf).max(axis=1) - values).max()


def under(mdp, policy):
    """P^pi (S, S) and R^pi (S,)."""
    S, A = policy.shape
    choose = sparse.csr_array(
        (policy.reshape(-1), np.arange(S * A), np.arange(S + 1) * A), shape=(S, S * A)
    )
    return choose @ matrix(mdp), (policy * mdp.reward).sum(axis=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.slow
def test_best_responses_leave_no_residual(kind, seed):
    mdp = random_mdp(kind, seed)
    unit = np.abs(mdp.reward).max()
    answer = fi.best_response(mdp)
    assert (
        bellman_residual(mdp, answer.values) <= 2e-14 * np.abs(answer.values).max() + 1e-13 * unit
    )
    loose = fi.best_response(mdp, tolerance=1e-6 * unit)
    assert bellman_residual(mdp, loose.values) <= 1.001e-6 * unit
    np.testing.assert_allclose(loose.residual, bellman_residual(mdp, loose.values), rtol=1e-3)
    # The policy returned earns what the values promise.
    P, R = under(mdp, answer.policy)
    earned = sparse.linalg.spsolve((sparse.eye_array(R.size) - mdp.discount * P).tocsc(), R)
    np.testing.assert_allclose(earned, answer.values, atol=1e-10 * np.abs(earned).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("route", evaluation.ROUTES)
@pytest.mark.slow
def test_evaluation_and_occupancy(kind, route):
    mdp = random_mdp(kind, 10, discount=0.99)
    policy = np.random.default_rng(3).dirichlet(np.ones(mdp.n_actions), mdp.n_states)
    followers = Followers([mdp])
    found = followers.evaluate(followers.rewards, policy[None], route)
    P, R = under(mdp, policy)
    size = np.abs(found.values).max()
    np.testing.assert_allclose(
        R + mdp.discount * (P @ found.values[0]), found.values[0], atol=1e-13 * size
    )
    # The flow equation, and the value as the occupancy's mean reward.
    inflow = mdp.initial + mdp.discount * (P.T @ found.visits[0])
    np.testing.assert_allclose(inflow, found.visits[0], atol=1e-10)
    assert found.visits.sum() == pytest.approx(1.0 / (1.0 - mdp.discount), rel=1e-10)
    assert found.visits[0] @ R == pytest.approx(mdp.initial @ found.values[0], rel=1e-9)


def test_routes_are_checked():
    mdp = random_mdp("sparse", 0, states=5, discount=0.9)
    policy = np.full((5, mdp.n_actions), 1.0 / mdp.n_actions)
    with pytest.raises(fi.InputError, match=r"route: expected one of .* got 'fast'"):
        fi.evaluate_policy(mdp, policy, route="fast")


@pytest.mark.slow
def test_several_followers_share_a_model_and_do_not_mix():
    mdp = random_mdp("absorbing", 4, states=450, discount=0.95)
    rng = np.random.default_rng(0)
    mdps = [mdp.replace(discount=g, initial=s) for g, s in ((0.9, 3), (0.95, 100), (0.99, 449))]
    followers = Followers(mdps)
    assert followers.sweepable.ordered.successor.shape[0] == 1
    rewards = followers.rewards + rng.normal(size=followers.shape)
    together = followers.best_responses(rewards)
    policies = rng.dirichlet(np.ones(mdp.n_actions), (3, 450))
    found = followers.evaluate(rewards, policies)
    for i in range(3):
        alone = Followers([mdps[i]])
        single = alone.best_responses(rewards[i : i + 1])
        np.testing.assert_array_equal(single.values[0], together.values[i])
        np.testing.assert_array_equal(single.actions[0], together.actions[i])
        one = alone.evaluate(rewards[i : i + 1], policies[i : i + 1])
        np.testing.assert_array_equal(one.visits[0], found.visits[i])


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
def test_memory_predicts_and_certifies(tolerance):
    # Rewards beside which the moves are small.
    mdp = random_mdp("absorbing", 11, states=600, discount=0.99)
    followers = Followers([mdp])
    memory = ResponseMemory()
    size = np.abs(followers.best_responses(followers.rewards).values).max()
    goal = max(tolerance, 4e-15 * size)
    rounds = []
    for k in range(8):
        rewards = followers.rewards.copy()
        rewards[0, 7, 0] += 2.0 + 1e-3 * k
        rewards[0, 300, 1] += 1.0 + 1e-3 * (k % 3)
        answer = followers.best_responses(rewards, memory=memory, tolerance=tolerance)
        assert bellman_residual(mdp, answer.values[0], rewards[0]) <= 1.001 * goal
        cold = followers.best_responses(rewards)
        np.testing.assert_allclose(answer.values, cold.values, atol=200.0 * goal)
        np.testing.assert_array_equal(
            np.take_along_axis(answer.q_values, answer.actions[:, :, None], 2)[:, :, 0],
            answer.q_values.max(axis=2),
        )
        rounds.append(int(answer.iterations[0]))
    # Two directions are learnt; then no improvement is needed, only the certificate.
    assert rounds[0] > 2
    assert rounds[4:] == [0] * 4
    # Another problem's rewards do not disturb it.
    other = random_mdp("sparse", 6, states=450, discount=0.9)
    alone = Followers([other])
    again = alone.best_responses(alone.rewards, memory=memory, tolerance=1e-9)
    assert bellman_residual(other, again.values[0]) <= 1.001e-9


@pytest.mark.slow
def test_memory_of_several_followers_and_moves_of_every_kind():
    mdp = random_mdp("local", 7, states=450, discount=0.98)
    rng = np.random.default_rng(1)
    followers = Followers([mdp, mdp.replace(discount=0.9), mdp.replace(initial=3)])
    memory = ResponseMemory()
    rewards = followers.rewards.copy()
    for k in range(12):
        if k % 4 == 1:  # more entries than are told apart
            rewards = rewards + 0.1 * rng.normal(size=rewards.shape)
        elif k % 4 == 2:  # many directions
            rewards[:, rng.integers(0, 450, 5), 0] += rng.normal(size=5)
        elif k % 4 == 3:  # the largest reward falls
            rewards[:, 5, 0] = 1e3 if k == 3 else 0.0
        kept = deepcopy(memory)
        answer = followers.best_responses(rewards, memory=memory)
        for i in range(3):
            found = bellman_residual(followers[i], answer.values[i], rewards[i])
            assert found <= 1e-13 * np.abs(rewards[i]).max() * 10
        # What is remembered decides; what was passed as a copy answers alike.
        again = followers.best_responses(rewards, memory=kept)
        np.testing.assert_array_equal(again.values, answer.values)
        np.testing.assert_array_equal(again.actions, answer.actions)


@pytest.mark.slow
def test_memory_follows_where_policy_iteration_takes_over(monkeypatch):
    monkeypatch.setattr(large, "PATIENCE_FACTORISATIONS", 0.0)
    mdp = random_mdp("ring", 1, discount=0.9999)
    followers, memory = Followers([mdp]), ResponseMemory()
    rewards = followers.rewards.copy()
    for _ in range(3):
        rewards[0, 11, 0] += 1e-3
        answer = followers.best_responses(rewards, memory=memory)
        size = np.abs(answer.values).max()
        assert bellman_residual(mdp, answer.values[0], rewards[0]) <= 1e-13 * size


@pytest.mark.slow
def test_warm_actions_alone_are_evaluated_first():
    mdp = random_mdp("absorbing", 8, states=500, discount=0.999)
    followers = Followers([mdp])
    cold = followers.best_responses(followers.rewards)
    warm = followers.best_responses(followers.rewards, cold.actions)
    np.testing.assert_array_equal(warm.actions, cold.actions)
    assert warm.iterations[0] < cold.iterations[0]


@pytest.mark.slow
def test_policy_iteration_takes_over(monkeypatch):
    monkeypatch.setattr(large, "PATIENCE_FACTORISATIONS", 0.0)
    mdp = random_mdp("ring", 1, discount=0.9999)
    answer = fi.best_response(mdp)
    assert bellman_residual(mdp, answer.values) <= 1e-13 * np.abs(answer.values).max()


def test_ragged_rows_are_not_padded():
    transition = np.full((12, 2, 12), 0.0)
    transition[:, :, 0] = 1.0
    transition[3, 0] = 1.0 / 12
    mdp = fi.TabularMDP(transition.repeat(1, axis=0), np.ones((12, 2)), 0.9)
    assert mdp.transition.ordered is not None  # small: nothing is wasted
    big = sparse.lil_array((600, 600))
    big[:, 0] = 1.0
    big[5] = 1.0 / 600
    hub = fi.TabularMDP([big.tocsr()], np.arange(600.0), 0.9)
    assert hub.transition.ordered is None
    assert bellman_residual(hub, fi.best_response(hub).values) <= 1e-9


# -- the kernels beside plain twins ------------------------------------------------------------


def small_model(seed=0, S=9, A=3, K=2):
    rng = np.random.default_rng(seed)
    successors = rng.integers(0, S, (S, A, K))
    successors[0] = 0
    probabilities = rng.dirichlet(np.ones(K), (S, A))
    return fi.TabularMDP.from_successors(successors, probabilities, rng.normal(size=(S, A)), 0.9)


def test_order_is_a_permutation_by_distance():
    mdp = fi.models.grid_mdp("S..\n.F.\n..G", slip=0.0, discount=0.9)
    found = mdp.transition.ordered.order[0]
    assert sorted(found) == list(range(mdp.n_states))
    distance = {mdp.n_states - 1: 0}
    dense = mdp.dense_transition()
    reached = dense.max(axis=1) > 0
    for k in range(1, mdp.n_states):
        near = [s for s, d in distance.items() if d == k - 1]
        for s in range(mdp.n_states):
            if s not in distance and reached[s, near].any():
                distance[s] = k
    assert [distance[s] for s in found] == sorted(distance.values())
    levels = np.bincount(sorted(distance.values()))
    assert mdp.transition.breadth == levels[1:].max()


@pytest.mark.parametrize("states", [1, 50, 101, 250, 401])
@pytest.mark.parametrize("discount", [0.9, 0.99])
def test_states_that_are_never_left(states, discount):
    rewards = np.random.default_rng(states).normal(size=(states, ACTIONS))
    stays = np.broadcast_to(np.arange(states)[:, None, None], (*rewards.shape, 1))
    mdp = fi.TabularMDP.from_successors(stays, np.ones(stays.shape), rewards, discount)
    assert mdp.transition.breadth == 1
    best = fi.best_response(mdp)
    assert_close(best.values, rewards.max(axis=1) / (1.0 - discount))
    assert_close(fi.evaluate_policy(mdp, best.policy)[0], best.values)


def test_ordered_rows_hold_the_model():
    mdp = small_model()
    ordered = mdp.transition.ordered
    S, A = mdp.n_states, mdp.n_actions
    dense = np.zeros((S, A, S))
    for k in range(S):
        for a in range(A):
            for c, p in zip(ordered.successor[0, k, a], ordered.probability[0, k, a], strict=True):
                dense[ordered.order[0, k], a, ordered.order[0, c]] += p
    np.testing.assert_allclose(dense, mdp.dense_transition(), atol=1e-15)


def rows_of(seed, S=8):
    """Rows W with spectral radius below 1, in the kernels' storage, and dense."""
    rng = np.random.default_rng(seed)
    column = rng.integers(0, S, (S, 3)).astype(np.uint32)
    weight = rng.dirichlet(np.ones(3), S) * 0.9
    weight[column == np.arange(S)[:, None]] = 0.0
    dense = np.zeros((S, S))
    for s in range(S):
        np.add.at(dense[s], column[s], weight[s])
    return column, weight, dense, rng.normal(size=S)


@pytest.mark.parametrize("width", [(), (0, 0, 0)])
@pytest.mark.parametrize("mix", [True, False])
def test_settled_values_solve_the_equation(width, mix):
    column, weight, dense, earned = rows_of(1)
    values = np.zeros(8)
    scratch = sweeps.Scratch(np.empty((3, 8)), np.empty(8))
    count, change = sweeps.settle_values(
        sweeps.PolicyRows(column, weight, earned), values, scratch, 1e-13, 500, mix, width
    )
    assert 1 < count < 1000
    assert change <= 1e-13
    np.testing.assert_allclose(values, np.linalg.solve(np.eye(8) - dense, earned), atol=1e-11)


@pytest.mark.parametrize("width", [(), (0, 0, 0)])
def test_what_all_values_lack_alike_is_found(width):
    column, weight, dense, earned = rows_of(1)
    weight *= (0.9999 / weight.sum(axis=1))[:, None]
    dense *= (0.9999 / dense.sum(axis=1))[:, None]
    exact = np.linalg.solve(np.eye(8) - dense, earned)
    values = exact - 7.0 + 1e-4 * np.random.default_rng(2).random(8)
    assert sweeps.remove_common_error(column, weight, earned, values, np.empty(8), width)
    assert np.abs(values - exact).max() < 0.7
    # A chain that goes round for ever does not level out.
    around = np.roll(np.arange(8), -1).astype(np.uint32)[:, None]
    values = np.array([1.0, -1.0] * 4)
    once = np.full((8, 1), 0.9999)
    assert not sweeps.remove_common_error(around, once, np.zeros(8), values, np.empty(8), width[:1])
    assert np.abs(values).max() <= 1.0


@pytest.mark.parametrize("width", [(), (0, 0, 0)])
def test_one_sweep_is_gauss_seidel(width):
    column, weight, dense, earned = rows_of(2)
    start = np.random.default_rng(0).normal(size=8)
    expected = start.copy()
    for s in range(8):
        expected[s] = earned[s] + dense[s] @ expected
    values = start.copy()
    change = sweeps.sweep(column, weight, earned, values, width)
    np.testing.assert_allclose(values, expected, atol=1e-14)
    assert change == pytest.approx(np.abs(expected - start).max())


@pytest.mark.parametrize("width", [(), (0, 0, 0)])
def test_pushed_occupancy_obeys_its_flow(width):
    column, weight, dense, _ = rows_of(3)
    initial = np.full(8, 0.125)
    visits, pending = np.zeros(8), initial.copy()
    occupancy.transposed_sweep(column, weight, pending, visits, width)
    # What is pending is the residual of the flow equation, after one sweep as at the end.
    np.testing.assert_allclose(pending, initial + dense.T @ visits - visits, atol=1e-14)
    scratch = np.empty((8, 8))
    _, left = occupancy.settle_occupancy(
        column, weight, pending, visits, scratch[:4], scratch[4:], 1e-13, 500, width
    )
    assert left <= 1e-13
    np.testing.assert_allclose(visits, np.linalg.solve(np.eye(8) - dense.T, initial), atol=1e-11)
    over = initial.copy()
    occupancy.occupancy_residual(column, weight, visits, over)
    np.testing.assert_allclose(over, initial + dense.T @ visits - visits, atol=1e-15)


def test_the_mixture_cancels_two_modes():
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(2, 30))
    residuals = np.stack([first * 0.9**k + second * 0.5**k for k in range(3)])
    weights = sweeps.extrapolation_weights(residuals)
    assert sum(weights) == pytest.approx(1.0)
    np.testing.assert_allclose(np.array(weights) @ residuals, 0.0, atol=1e-9)
    alone = np.stack([first * 0.9**k for k in range(3)])
    np.testing.assert_allclose(
        np.array(sweeps.extrapolation_weights(alone)) @ alone, 0.0, atol=1e-9
    )
    assert sweeps.extrapolation_weights(np.zeros((3, 4))) == (0.0, 0.0, 1.0)


def test_policy_rows():
    rng = np.random.default_rng(5)
    dense = rng.random((6, 6)) * (rng.random((6, 6)) < 0.5)
    dense *= 0.8 / dense.sum(axis=1, keepdims=True).clip(1e-9)
    rows = sparse.csr_array(dense)
    start = rows.indptr.astype(np.int64)
    at = rng.permutation(6)
    reward = rng.normal(size=6)
    width = int(np.diff(start).max())
    row = np.empty(6, np.int64)
    places, weights = np.empty((6, width), np.uint32), np.empty((6, width))
    earned, scale = np.empty(6), np.empty(6)
    column = rows.indices.astype(np.int64)
    occupancy.policy_rows(start, column, rows.data, at, reward, row, places, weights, earned, scale)
    np.testing.assert_array_equal(row[at], np.arange(6))
    again = np.zeros((6, 6))
    for k in range(6):
        np.add.at(again[k], places[k], weights[k])
    loop = dense.diagonal()[at]
    np.testing.assert_allclose(scale, 1.0 / (1.0 - loop))
    expected = (dense[np.ix_(at, at)] - np.diag(loop)) * scale[:, None]
    np.testing.assert_allclose(again, expected, atol=1e-15)
    np.testing.assert_allclose(earned, scale * reward[at])


def test_moves_along_known_directions_are_predicted():
    rng = np.random.default_rng(6)
    truth = rng.normal(size=(5, 30))  # response of 30 values to 5 rewards
    direction = np.zeros((DIRECTIONS, ENTRIES))
    response = np.zeros((DIRECTIONS, 30))
    coefficient, applied = np.empty(DIRECTIONS), np.empty(30)
    move = np.zeros(ENTRIES)
    lines = rng.normal(size=(3, 5)) * 1e-3
    rank = 0
    for k in range(12):
        if k < 3:
            move[:5] = lines[k] + (lines[0] if k else 0.0)
        else:
            move[:5] = rng.normal(size=3) @ lines
        expected = move[:5] @ truth
        rank, new = predict(direction, response, rank, 5, move, coefficient, applied)
        assert new == (k < 3)
        assert rank == min(k + 1, 3)
        if k >= 3:
            np.testing.assert_allclose(applied, expected, atol=1e-12)
        broyden_update(response, rank, new, coefficient, expected - applied)
        known = direction[:rank, :5]
        np.testing.assert_allclose(known @ known.T, np.eye(rank), atol=1e-10)
    # A policy that changes makes other responses: they are learnt from what was missed.
    truth = rng.normal(size=(5, 30))
    for _ in range(2):
        move[:5] = lines[1]
        rank, new = predict(direction, response, rank, 5, move, coefficient, applied)
        broyden_update(response, rank, new, coefficient, lines[1] @ truth - applied)
    np.testing.assert_allclose(applied, lines[1] @ truth, atol=1e-12)


def test_more_directions_than_are_kept_begin_anew():
    rng = np.random.default_rng(7)
    most, size = DIRECTIONS, DIRECTIONS + 1
    truth = rng.normal(size=(size, 4))
    direction, response = np.zeros((most, ENTRIES)), np.zeros((most, 4))
    coefficient, applied = np.empty(most), np.empty(4)
    move = np.zeros(ENTRIES)
    rank = 0
    for k in range(size):
        move[:size] = np.eye(size)[k] + np.eye(size)[0]
        rank, new = predict(direction, response, rank, size, move, coefficient, applied)
        assert new
        assert rank == (k + 1 if k < most else 1)
        broyden_update(response, rank, new, coefficient, move[:size] @ truth - applied)
    rank, new = predict(direction, response, rank, size, move, coefficient, applied)
    assert not new
    np.testing.assert_allclose(applied, move[:size] @ truth, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("uniform", [True, False])
def test_the_certificate_is_the_bellman_residual(kind, uniform):
    mdp = random_mdp(kind, 3, states=20, discount=0.9)
    followers = Followers([mdp])
    values = np.random.default_rng(0).normal(size=20)
    q, actions = np.empty((20, mdp.n_actions)), np.full(20, -1)
    width = mdp.transition.ordered.successor.shape[3]
    found = sweeps.certify(
        followers.packed,
        0,
        followers.rewards,
        values,
        q,
        actions,
        uniform,
        ((0,) * mdp.n_actions, (0,) * width),
    )
    expected = mdp.reward + 0.9 * mdp.dense_transition() @ values
    np.testing.assert_allclose(q, expected, atol=1e-12)
    best = expected.max(axis=1)
    assert found == pytest.approx(np.abs(best - values).max(), abs=1e-12)
    # The first of those that rounding alone tells apart.
    ties = expected >= best[:, None] - 1e-13
    np.testing.assert_array_equal(actions, ties.argmax(axis=1))


def test_the_order_starts_anew_where_a_component_ends():
    # Two rings that never meet, no sink.
    successors = np.array([1, 2, 0, 4, 3]).reshape(5, 1, 1)
    mdp = fi.TabularMDP.from_successors(successors, np.ones((5, 1, 1)), np.ones(5), 0.9)
    places = np.empty(5, np.int64)
    model = mdp.transition
    sweep_order.backward_order(model.row_start, model.successor, model.sink, places)
    assert list(places) == [0, 2, 1, 3, 4]


def test_the_first_of_tied_actions_whatever_the_route():
    # Two ways round a square grid without slips tie everywhere.
    for rows in (12, 25):  # exact factors after sweeps; sweeps alone
        layout = "\n".join(
            ["S" + "." * (rows - 1)] + ["." * rows] * (rows - 2) + ["." * (rows - 1) + "G"]
        )
        mdp = fi.models.grid_mdp(layout, slip=0.0, discount=0.9)
        answer = fi.best_response(mdp)
        ties = answer.q_values >= answer.values[:, None] - 1e-12
        np.testing.assert_array_equal(answer.policy.argmax(axis=1), ties.argmax(axis=1))


@pytest.mark.slow
def test_tight_goals_do_not_wait_for_held_actions():
    # A held action that is worse by less than the slack moves values by as much: the slack must
    # stay below the goal, or sweeps never end.
    mdp = random_mdp("local", 3, states=3000, discount=0.95)
    followers = Followers([mdp])
    size = np.abs(followers.best_responses(followers.rewards).values).max()
    for tolerance in (1e-10, 1e-12, 1e-14):
        answer = followers.best_responses(followers.rewards, tolerance=tolerance * size)
        assert answer.residual[0] <= tolerance * size
        assert answer.iterations[0] < 200
