"""No random MDP misses its residuals, whatever its graph, discount and route."""

from __future__ import annotations

import numpy as np
import pytest
from random_mdps import chain_of, random_policy, residuals
from scipy import sparse

import fastincentive as fi
from fastincentive.bench.random_mdps import KINDS, random_mdp
from fastincentive.followers import evaluation
from fastincentive.followers.followers import Followers
from fastincentive.kernels import occupancy, policy_chain

DISCOUNTS = (0.5, 0.9, 0.99, 0.9999, 1.0)


def check(mdp, policy, route="auto", bound=1e-10):
    """Both equations, Q, and the value of the start as the occupancy's mean reward."""
    followers = Followers([mdp])
    found = followers.evaluate(followers.rewards, policy[None], route)
    values, visits = found.values[0], found.visits[0]
    size = max(float(np.abs(values).max()), float(np.abs(mdp.reward).max()))
    missed_value, missed_visit = residuals(mdp, policy, values, visits)
    assert missed_value <= bound * size
    assert missed_visit <= bound
    moves, reward, pairs = chain_of(mdp, policy)
    assert visits.min() >= -bound
    assert abs(visits @ reward - mdp.initial @ values) <= 1e-9 * size * max(1.0, visits.sum())
    if mdp.discount < 1.0:
        assert visits.sum() == pytest.approx(1.0 / (1.0 - mdp.discount), rel=1e-8)
    expected = mdp.reward + mdp.discount * (pairs @ values).reshape(policy.shape)
    if mdp.discount == 1.0:
        expected[-1] = mdp.reward[-1]
    np.testing.assert_allclose(found.q_values[0], expected, atol=1e-12 * size)
    # And the solution itself, as far as the equation determines it.
    system = sparse.csc_array(sparse.eye_array(mdp.n_states) - moves)
    solved = sparse.linalg.spsolve(system, reward)
    np.testing.assert_allclose(values, solved, atol=1e-7 * size)


@pytest.mark.parametrize("discount", DISCOUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_few_states(kind, discount):
    states = 20 + 7 * KINDS.index(kind)
    mdp = random_mdp(kind, 0, states, discount)
    check(mdp, random_policy(mdp, 0), bound=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("discount", DISCOUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_many_states(kind, discount):
    for seed, states in ((1, 130), (2, 450), (3, 1200)):
        if kind == "dense" and states > 450:
            continue
        mdp = random_mdp(kind, seed, states, discount)
        check(mdp, random_policy(mdp, seed), bound=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("route", ["sweeps", "direct"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_route_where_it_is_asked_for(kind, route):
    for discount in (0.95, 1.0):
        mdp = random_mdp(kind, 5, 420, discount)
        check(mdp, random_policy(mdp, 5), route)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sparse", "ragged", "local"])
def test_three_thousand_states(kind):
    mdp = random_mdp(kind, 6, 3000, 0.999)
    check(mdp, random_policy(mdp, 6))


@pytest.mark.slow
def test_sweeps_that_last_too_long_give_way(monkeypatch):
    mdp = random_mdp("deterministic", 7, 500, 0.999)
    policy = random_policy(mdp, 7)
    monkeypatch.setattr(evaluation, "SWEEPS", 1e-3)
    check(mdp, policy)
    # Without room for factors, sweeps go on until they are there.
    monkeypatch.setattr(type(mdp.transition), "fronts", lambda *_: None)
    check(mdp, policy)
    with pytest.raises(fi.InputError, match='route: expected "auto" or "sweeps"'):
        fi.evaluate_policy(mdp, policy, route="direct")


@pytest.mark.slow
def test_tolerances_bound_what_sweeps_leave():
    mdp = random_mdp("local", 8, 600, 0.99)
    policy = random_policy(mdp, 8)
    followers = Followers([mdp])
    tolerance = 1e-5 * np.abs(mdp.reward).max()
    found = followers.evaluate(followers.rewards, policy[None], "sweeps", tolerance)
    missed_value, missed_visit = residuals(mdp, policy, found.values[0], found.visits[0])
    assert 1e-9 * tolerance < missed_value <= 1.001 * tolerance
    assert missed_visit <= 1.001 * tolerance


@pytest.mark.slow
def test_a_policy_that_is_never_absorbed_is_refused():
    rng = np.random.default_rng(0)
    successors = np.empty((500, 2, 1), int)
    successors[:, 0, 0] = np.minimum(np.arange(500) + 1, 499)
    successors[:, 1, 0] = np.maximum(np.arange(500) - 1, 0)
    successors[499] = 499
    reward = rng.normal(size=(500, 2))
    reward[499] = 0.0
    mdp = fi.TabularMDP.from_successors(successors, np.ones((500, 2, 1)), reward, 1.0)
    policy = np.zeros((500, 2))
    policy[:, 0] = 1.0
    assert fi.evaluate_policy(mdp, policy)[0][0] == pytest.approx(reward[:, 0].sum(), abs=1e-10)
    policy[250] = [0.0, 1.0]  # 249 and 250 send each other back
    with pytest.raises(fi.ImproperPolicyError, match="class around state 0"):
        fi.evaluate_policy(mdp, policy)


def test_who_is_never_absorbed_beside_a_closure():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        mask = (rng.random((12, 12)) < 0.12) | np.eye(12, dtype=bool)
        dense = mask * rng.random((12, 12)) * (rng.random((12, 12)) < 0.8)
        absorbing = np.arange(12) < 2
        reach = np.linalg.matrix_power(np.eye(12) + (dense > 0), 12) > 0
        expected = ~reach[:, :2].any(axis=1)
        rows = sparse.csr_array(mask.astype(float))  # stored zeros lead nowhere
        never = np.empty(12, np.bool_)
        start, column = rows.indptr.astype(np.int64), rows.indices.astype(np.int64)
        weight = dense[np.repeat(np.arange(12), np.diff(start)), column]
        assert (
            policy_chain.mark_never_absorbed(start, column, weight, absorbing, never)
            == expected.any()
        )
        np.testing.assert_array_equal(never, expected)


@pytest.mark.parametrize("width", [2, 3, 4, 8])
def test_long_rows_are_split_without_a_trace(width):
    rng = np.random.default_rng(width)
    dense = rng.random((9, 9)) * (rng.random((9, 9)) < 0.6)
    dense *= 0.9 / dense.sum(axis=1, keepdims=True).clip(1e-9)
    rows = sparse.csr_array(dense)
    start, column = rows.indptr.astype(np.int64), rows.indices.astype(np.int64)
    count = occupancy.count_rows(start, column, width)
    lengths = (dense - np.diag(dense.diagonal()) > 0).sum(axis=1)
    further = np.ceil((lengths - width).clip(0) / (width - 1)).sum()
    assert count == 9 + further
    order, reward = rng.permutation(9), rng.normal(size=9)
    row = np.empty(9, np.int64)
    places, weights = np.empty((count, width), np.uint32), np.empty((count, width))
    earned, scale = np.empty(count), np.empty(count)
    occupancy.policy_rows(
        start, column, rows.data, order, reward, row, places, weights, earned, scale
    )
    again = np.zeros((count, count))
    for k in range(count):
        np.add.at(again[k], places[k], weights[k])
    values = np.linalg.solve(np.eye(count) - again, earned)
    np.testing.assert_allclose(values[row], np.linalg.solve(np.eye(9) - dense, reward), atol=1e-12)
    initial = np.zeros(count)
    initial[row] = 1.0 / 9
    visits = scale * np.linalg.solve(np.eye(count) - again.T, initial)
    expected = np.linalg.solve(np.eye(9) - dense.T, np.full(9, 1.0 / 9))
    np.testing.assert_allclose(visits[row], expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_dense_factors_keep_to_the_envelope(seed):
    rng = np.random.default_rng(seed)
    states = int(rng.integers(5, 40))
    reach = int(rng.integers(1, states))
    band = np.abs(np.arange(states)[:, None] - np.arange(states)) <= reach
    dense = rng.random((states, states)) * band
    dense *= 0.95 / dense.sum(axis=1, keepdims=True)
    rows = sparse.csr_array(dense)
    start, column = rows.indptr.astype(np.int64), rows.indices.astype(np.int64)
    lu, last = np.empty((states, states)), np.empty(states, np.int64)
    assert policy_chain.factorize(start, column, rows.data, lu, last) == -1
    system = np.eye(states) - dense
    np.testing.assert_allclose((np.tril(lu, -1) + np.eye(states)) @ np.triu(lu), system, atol=1e-14)
    right = rng.normal(size=states)
    out = right.copy()
    policy_chain.solve_factored(lu, last, out)
    np.testing.assert_allclose(system @ out, right, atol=1e-12)
    out = right.copy()
    policy_chain.solve_factored_transposed(lu, last, out)
    np.testing.assert_allclose(system.T @ out, right, atol=1e-12)
