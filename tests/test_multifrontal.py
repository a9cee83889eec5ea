"""Sparse factors beside dense solves: ordering, layout, elimination, and both solves."""

from __future__ import annotations

import numpy as np
import pytest
from random_mdps import chain_of, random_policy
from scipy import sparse

import fastincentive as fi
from fastincentive.bench.random_mdps import KINDS, random_mdp
from fastincentive.followers.followers import Followers
from fastincentive.kernels import dense_lu, multifrontal, symbolic_factorization
from fastincentive.kernels.minimum_degree import minimum_degree


def pattern(mdp):
    """Symmetric pattern of all actions, dense, with a full diagonal."""
    found = mdp.dense_transition().max(axis=1) > 0
    return found | found.T | np.eye(mdp.n_states, dtype=bool)


def filled(mask):
    """Pattern of the factors where pivots are taken in the order given."""
    mask = mask.copy()
    for k in range(mask.shape[0]):
        later = np.flatnonzero(mask[k, k + 1 :]) + k + 1
        mask[np.ix_(later, later)] = True
    return mask


def adjacency(mdp):
    model = mdp.transition
    return symbolic_factorization.neighbours(model.row_start, model.successor, mdp.n_states)


@pytest.mark.parametrize("kind", KINDS)
def test_the_pattern_and_its_fill(kind):
    mdp = random_mdp(kind, 3, 30, 0.9)
    start, neighbour = adjacency(mdp)
    mask = pattern(mdp)
    for s in range(30):
        expected = np.flatnonzero(mask[s] & (np.arange(30) != s))
        np.testing.assert_array_equal(np.sort(neighbour[start[s] : start[s + 1]]), expected)
    order, found = minimum_degree(start, neighbour, 1000, 1e9)
    assert found
    assert sorted(order) == list(range(30))
    order = order[
        symbolic_factorization.postorder(
            symbolic_factorization.elimination_tree(start, neighbour, order)
        )
    ]
    parent = symbolic_factorization.elimination_tree(start, neighbour, order)
    count = symbolic_factorization.column_counts(start, neighbour, order, parent)
    fill = np.tril(filled(mask[np.ix_(order, order)]))
    np.testing.assert_array_equal(count, fill.sum(axis=0))
    for k in range(30):
        below = np.flatnonzero(fill[k + 1 :, k]) + k + 1
        assert parent[k] == (below[0] if below.size else -1)


def test_the_order_fills_in_little():
    # No fill at all on a tree, whatever its numbering; much less than by rows on a grid.
    rng = np.random.default_rng(0)
    label = rng.permutation(60)
    successors = np.empty((60, 1, 2), int)
    for s in range(60):
        successors[label[s], 0] = label[(s - 1) // 2 if s else 0], label[s]
    tree = fi.TabularMDP.from_successors(successors, np.full((60, 1, 2), 0.5), np.ones(60), 0.9)
    layout = tree.transition.fronts()
    assert sum(np.diff(layout.first)) == 60
    start, neighbour = adjacency(tree)
    assert minimum_degree(start, neighbour, 59, 1e9)[1]
    assert not minimum_degree(start, neighbour, 58, 1e9)[1]
    assert not minimum_degree(start, neighbour, 59, 10.0)[1]
    grid = fi.models.grid_mdp("\n".join(["S" + "." * 14, *["." * 15] * 13, "." * 14 + "G"]), 0.1)
    start, neighbour = adjacency(grid)
    by_rows = np.arange(grid.n_states)
    counts = []
    for order in (minimum_degree(start, neighbour, 10**6, 1e9)[0], by_rows):
        parent = symbolic_factorization.elimination_tree(start, neighbour, order)
        counts.append(symbolic_factorization.column_counts(start, neighbour, order, parent).sum())
    assert counts[0] < 0.6 * counts[1]


def dense_factors(layout, factors):
    """L and U in places, from the fronts."""
    states = layout.order.size
    lower, upper = np.eye(states), np.zeros((states, states))
    for f in range(layout.parent.size):
        w = layout.first[f + 1] - layout.first[f]
        member = layout.member[layout.begin[f] : layout.begin[f + 1]].astype(int)
        m = member.size
        block = factors[layout.factor[f] : layout.factor[f + 1]]
        top, left = block[: w * m].reshape(w, m), block[w * m :].reshape(m - w, w)
        upper[np.ix_(member[:w], member)] += np.triu(top)
        lower[np.ix_(member[:w], member[:w])] += np.tril(top[:, :w], -1)
        lower[np.ix_(member[w:], member[:w])] += left
    return lower, upper


@pytest.mark.parametrize("discount", [0.95, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_factors_multiply_to_the_matrix(kind, discount):
    mdp = random_mdp(kind, 4, 45, discount)
    policy = random_policy(mdp, 0)
    layout = mdp.transition.fronts()
    packed = Followers([mdp]).packed
    factors, stack = np.full(layout.factor[-1], np.nan), np.full(layout.stack[-1], np.nan)
    multifrontal.write_matrix(layout, packed, 0, discount, policy, factors)
    assert multifrontal.factorize_fronts(layout, factors, stack) == -1
    lower, upper = dense_factors(layout, factors)
    moves, reward, _ = chain_of(mdp, policy)
    system = np.eye(45) - moves.toarray()
    order = layout.order
    np.testing.assert_allclose(lower @ upper, system[np.ix_(order, order)], atol=1e-14)
    value, visit = reward[order], mdp.initial[order]
    multifrontal.solve_fronts(layout, factors, value, visit)
    np.testing.assert_allclose(system[np.ix_(order, order)] @ value, reward[order], atol=1e-12)
    np.testing.assert_allclose(visit @ system[np.ix_(order, order)], mdp.initial[order], atol=1e-12)


@pytest.mark.parametrize(("w", "m"), [(1, 1), (1, 6), (3, 3), (5, 12), (9, 9), (12, 20), (70, 77)])
def test_a_front_is_eliminated_as_by_gauss(w, m):
    rng = np.random.default_rng([w, m])
    front = np.eye(m) - 0.95 * rng.dirichlet(np.ones(m), m)
    expected = front.copy()
    for k in range(w):
        expected[k + 1 :, k] /= expected[k, k]
        expected[k + 1 :, k + 1 :] -= np.outer(expected[k + 1 :, k], expected[k, k + 1 :])
    factors = np.concatenate([front[:w].ravel(), front[w:, :w].ravel()])
    rest = front[w:, w:].ravel().copy()
    assert dense_lu.eliminate(factors, rest, w, m) == -1
    np.testing.assert_allclose(factors[: w * m].reshape(w, m), expected[:w], atol=1e-14)
    np.testing.assert_allclose(factors[w * m :].reshape(m - w, w), expected[w:, :w], atol=1e-14)
    np.testing.assert_allclose(rest.reshape(m - w, m - w), expected[w:, w:], atol=1e-14)


def test_a_pivot_that_vanishes_is_told():
    front = np.eye(6) - np.roll(np.eye(6), 1, axis=1)  # a cycle that is never left
    assert dense_lu.eliminate(front.ravel(), np.empty(0), 6, 6) == 5


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 31])
def test_products_are_sums(count):
    rng = np.random.default_rng(count)
    row, vector = rng.normal(size=(2, 40))
    expected = row[3 + 2 : 3 + 2 + count] @ vector[2 : 2 + count]
    assert dense_lu.product(row, 3, vector, 2, 2 + count) == pytest.approx(expected, abs=1e-13)


def test_layouts_are_refused_and_kept():
    mdp = random_mdp("sparse", 0, 60, 0.9)
    model = mdp.transition
    assert model.fronts(1.0) is None
    assert model.fronts(1.0) is None
    layout = model.fronts()
    assert layout.work > 1.0
    assert model.fronts(1.0) is layout


def test_further_followers_have_their_own_transitions():
    # The second model's transitions come after the first's in the packed arrays.
    mdps = [random_mdp("sparse", seed, 40, 0.9) for seed in (1, 1)]
    one, other = mdps[0], random_mdp("local", 2, 40, 0.9)
    if one.n_actions != other.n_actions:
        actions = min(one.n_actions, other.n_actions)
        one, other = (
            fi.TabularMDP(m.dense_transition()[:, :actions], m.reward[:, :actions], 0.9)
            for m in (one, other)
        )
    packed = Followers([one, other]).packed
    policy = random_policy(other, 1)
    values, q_values, visits = np.empty(40), np.empty(policy.shape), np.empty(40)
    layout = other.transition.fronts()
    out = (values, q_values, visits)
    assert multifrontal.evaluate_fronts(layout, packed, 1, other.reward, policy, *out) == -1
    moves, reward, pairs = chain_of(other, policy)
    system = sparse.eye_array(40).toarray() - moves.toarray()
    np.testing.assert_allclose(values, np.linalg.solve(system, reward), rtol=1e-11)
    np.testing.assert_allclose(visits, np.linalg.solve(system.T, other.initial), rtol=1e-11)
    expected = other.reward + 0.9 * (pairs @ values).reshape(policy.shape)
    np.testing.assert_allclose(q_values, expected, atol=1e-12 * np.abs(values).max())
