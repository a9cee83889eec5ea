"""Rewards of pairs of followers against tables over the product space, and on larger graphs."""

import doctest
import itertools

import numpy as np
import pytest
from conftest import EXACT, ROUNDING, assert_close, random_game
from test_leader import contract
from test_leader_many import (
    ACTIONS,
    PAIRS,
    STATES,
    best_choice,
    joint_form,
    random_marginals,
)
from test_leader_many import draw as draw_other
from test_product import degenerate_laws
from test_product import draw as draw_product

from fastincentive import InputError, PairwiseReward
from fastincentive.kernels import pairwise
from fastincentive.leader import pairwise as leader_pairwise

LABELS = 4
SHAPES = ["states", "own", "actions"]


def random_edges(rng, n, count):
    """Draw edges (E, 2) between different followers."""
    first = rng.integers(n, size=count)
    return np.stack([first, (first + rng.integers(1, n, size=count)) % n], axis=1)


def pair_table(edges, tables, at, n):
    """What each choice (m,)*n of the followers earns, if choice k of i shows label at[i, k]."""
    choices = np.indices((at.shape[1],) * n)
    tables = np.broadcast_to(tables, (len(edges), *tables.shape[-2:]))
    total = np.zeros(choices.shape[1:])
    for (i, j), table in zip(edges, tables, strict=True):
        total += table[at[i][choices[i]], at[j][choices[j]]]
    return total


def draw(rng, n, shape="actions", shared=False, idle=0):
    """Draw a reward, and what it is by pair: a table (S*A,)*n; 0 in the last ``idle`` states."""
    edges = random_edges(rng, n, 2 * n)
    edges[-1] = edges[0, ::-1]
    count = STATES if shape == "states" else LABELS
    tables = rng.normal(size=(count, count) if shared else (len(edges), count, count))
    idle_labels = slice(count - idle, count)
    tables[..., idle_labels, idle_labels] = 0.0
    if shape == "states":
        labels = None
        full = np.arange(STATES)[None, :, None]
    else:
        size = (n, STATES, ACTIONS) if shape == "actions" else (n, STATES)
        labels = rng.integers(LABELS, size=size)
        labels[:, STATES - idle :] = LABELS - 1
        full = labels.reshape(n, STATES, -1)
    at = np.broadcast_to(full, (n, STATES, ACTIONS)).reshape(n, PAIRS)
    return PairwiseReward(edges, tables, labels), pair_table(edges, tables, at, n)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [2, 3, 4])
def test_expectations_against_the_product_space(n, shape, shared):
    rng = np.random.default_rng(n)
    reward, table = draw(rng, n, shape, shared)
    bound = reward.bind(n, STATES, ACTIONS)
    assert bound.labels.shape == (n, STATES, ACTIONS if shape == "actions" else 1)
    assert bound.n_labels == (STATES if shape == "states" else LABELS)
    labels = np.broadcast_to(bound.labels, (n, STATES, ACTIONS)).reshape(n, PAIRS)
    laws = degenerate_laws(rng, 4, n, PAIRS)
    marginals = np.einsum("tip,ipl->til", laws, np.eye(bound.n_labels)[labels])
    expected, conditional = bound.expectations(marginals)
    for t in range(len(laws)):
        assert_close(expected[t], contract(table, laws[t]), ROUNDING)
        for i in range(n):
            assert_close(conditional[t, i, labels[i]], contract(table, laws[t], i), ROUNDING)
    shown = np.zeros((n, bound.n_labels), bool)
    np.put_along_axis(shown, labels, True, axis=1)
    for size in (bound.magnitude(), bound.magnitude(shown)):
        assert size >= np.abs(table).max() * (1 - ROUNDING)


def plain_pairs(edges, tables, marginals):
    """E[R] (T,) and E[R | label] (T, n, L): the edges of the others added up for each follower."""
    horizon, n, labels = marginals.shape
    tables = np.broadcast_to(tables, (len(edges), labels, labels))
    values = np.array(
        [
            np.einsum("tk,kl,tl->t", marginals[:, i], table, marginals[:, j])
            for (i, j), table in zip(edges, tables, strict=True)
        ]
    ).reshape(len(edges), horizon)
    conditional = np.zeros(marginals.shape)
    for k in range(n):
        for (i, j), table, value in zip(edges, tables, values, strict=True):
            if k == i:
                conditional[:, k] += marginals[:, j] @ table.T
            elif k == j:
                conditional[:, k] += marginals[:, i] @ table
            else:
                conditional[:, k] += value[:, None]
    return values.sum(axis=0), conditional


GRAPHS = {
    "none": (3, np.empty((0, 2), int)),
    "one": (2, np.array([[1, 0]])),
    "repeated": (3, np.array([[0, 1], [0, 1], [1, 0], [0, 1]])),
    "ring": (8, np.array([(i, (i + 1) % 8) for i in range(8)])),
    "all": (6, np.array(list(itertools.permutations(range(6), 2)))),
    "star": (9, np.array([(0, i) if i % 2 else (i, 0) for i in range(1, 8)])),  # 8 is alone
}


@pytest.mark.parametrize("labels", [1, 3, 9])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_against_plain_sums(graph, shared, labels):
    n, edges = GRAPHS[graph]
    rng = np.random.default_rng(n)
    tables = rng.normal(size=(labels, labels) if shared else (len(edges), labels, labels))
    bound = PairwiseReward(edges, tables).bind(n, labels, 1)
    marginals = degenerate_laws(rng, 5, n, labels)
    expected, conditional = bound.expectations(marginals)
    plain, by_follower = plain_pairs(edges, tables, marginals)
    assert_close(expected, plain, ROUNDING)
    assert_close(conditional, by_follower, ROUNDING)
    certain = [marginals[:, i][None] for i in range(n)]
    assert_close(bound.relaxed(certain, np.ones(5)), plain.sum(), ROUNDING)


def test_one_table_for_all_is_as_good_in_blocks_of_times(monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(leader_pairwise, "SCRATCH", 200)
    n, labels, horizon = 5, 9, 11
    edges, table = random_edges(rng, n, 12), rng.normal(size=(labels, labels))
    bound = PairwiseReward(edges, table).bind(n, labels, 1)
    marginals = random_marginals(rng, horizon, bound)
    expected, conditional = bound.expectations(marginals)
    plain, by_follower = plain_pairs(edges, table, marginals)
    assert_close(expected, plain, ROUNDING)
    assert_close(conditional, by_follower, ROUNDING)


@pytest.mark.parametrize("shared", [False, True])
def test_large_edges_leave_nothing_behind(shared):
    # Only followers 0 and 1 show label 8, and what they have then would drown the other edges.
    labels, n = 9, 6
    rng = np.random.default_rng(0)
    edges = np.array([[2, 3], [0, 1], [4, 2], [1, 0], [5, 3]])
    table = rng.normal(size=(labels, labels))
    table[8, 8] = 1e17 / 3
    tables = table if shared else np.repeat(table[None], len(edges), axis=0)
    marginals = rng.dirichlet(np.ones(labels - 1), size=(3, n))
    marginals = np.concatenate([marginals, np.zeros((3, n, 1))], axis=2)
    marginals[:, :2] = np.eye(labels)[8] * 0.7 + np.eye(labels)[7] * 0.3
    bound = PairwiseReward(edges, tables).bind(n, labels, 1)
    _, conditional = bound.expectations(marginals)
    others, _ = plain_pairs(edges[[0, 2, 4]], table, marginals)
    own = 0.7 * (table[:, 8] + table[8]) + 0.3 * (table[:, 7] + table[7])
    assert_close(conditional[:, 0, :8], others[:, None] + own[:8], ROUNDING)
    turns = bound.turns(marginals)
    assert_close(next(turns)[:, :8], others[:, None] + own[:8], ROUNDING)
    marginals[:, 0] = np.eye(labels)[0]  # the large reward is gone
    remaining, by_follower = plain_pairs(edges, table, marginals)
    assert np.abs(remaining).max() < 100.0
    for i, piece in enumerate(turns, 1):
        assert_close(piece, by_follower[:, i], ROUNDING)


def test_magnitude_over_possible_labels():
    tables = np.array([[[1.0, -2.0], [0.5, 0.0]], [[0.0, 3.0], [-4.0, 1.0]]])
    bound = PairwiseReward([[0, 1], [2, 1]], tables).bind(4, 2, 1)
    may, first, last, none = [True, True], [True, False], [False, True], [False, False]
    assert bound.magnitude() == 6.0
    assert bound.magnitude(np.array([may, first, may, may])) == 5.0
    assert bound.magnitude(np.array([last, last, last, may])) == 1.0
    assert bound.magnitude(np.array([last, last, first, first])) == 3.0
    assert bound.magnitude(np.array([may, may, may, none])) == 0.0
    one = PairwiseReward([[0, 1], [1, 2], [0, 2]], tables[0]).bind(3, 2, 1)
    assert one.magnitude() == 6.0
    assert one.magnitude(np.array([last, may, may])) == 3.0


def test_kernels_are_the_same_with_threads():
    rng = np.random.default_rng(0)
    n, labels, horizon = 5, 3, 4
    edges = random_edges(rng, n, 7)
    tables, marginals = rng.normal(size=(7, 3, 3)), rng.dirichlet(np.ones(3), size=(horizon, n))
    chosen = np.flatnonzero((edges == 2).any(axis=1))
    both = (horizon,), marginals.shape
    calls = [
        (pairwise.edge_rewards, (edges, tables, marginals), both),
        (
            pairwise.shared_rewards,
            (edges, marginals @ tables[0].T, marginals @ tables[0], marginals),
            both,
        ),
        (pairwise.add_edges, (edges, tables, np.arange(7), marginals), [(horizon, 2)]),
        (
            pairwise.take_edges,
            (edges, tables, chosen, 2, marginals),
            [(horizon, 2), (horizon, labels)],
        ),
    ]
    for kernel, given, shapes in calls:
        results = []
        for form in (kernel.serial, kernel.threaded):
            out = [np.zeros(shape) for shape in shapes]
            form(*given, *out)
            results.append([each.tobytes() for each in out])
            assert all(each.any() for each in out)
        assert results[0] == results[1]


# Turns and bounds


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("n", [2, 3, 4, 12])
def test_turns_see_the_changes_made_on_the_way(n, shared):
    rng = np.random.default_rng(n)
    edges = random_edges(rng, n, 3 * n)
    edges = edges[(edges != n // 2).all(axis=1)] if n > 2 else edges  # one is alone
    tables = rng.normal(size=(STATES, STATES) if shared else (len(edges), STATES, STATES))
    bound = PairwiseReward(edges, tables).bind(n, STATES, ACTIONS)
    marginals = random_marginals(rng, 4, bound)
    seen = []
    for i, conditional in enumerate(bound.turns(marginals)):
        fresh = bound.expectations(marginals)[1][:, i]
        assert_close(conditional, fresh, ROUNDING)
        seen.append((conditional, fresh))
        if i != 1:
            marginals[:, i] = degenerate_laws(rng, 4, 1, STATES)[:, 0]
    assert len(seen) == n
    for conditional, fresh in seen:  # each turn's array is its own
        assert_close(conditional, fresh, ROUNDING)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_relaxed_bounds_every_choice(n, shared):
    rng = np.random.default_rng(n)
    weights = 0.9 ** np.arange(5)
    gaps = []
    for _ in range(8):
        bound = draw(rng, n, shared=shared)[0].bind(n, STATES, ACTIONS)
        candidates = [
            rng.dirichlet(np.ones(LABELS), size=(rng.integers(1, 4), 5)) for _ in range(n)
        ]
        gaps.append(bound.relaxed(candidates, weights) - best_choice(bound, candidates, weights))
        single = [each[:1] for each in candidates]
        assert_close(bound.relaxed(single, weights), best_choice(bound, single, weights), ROUNDING)
    assert min(gaps) >= -EXACT


def test_relaxed_is_exact_for_one_edge():
    rng = np.random.default_rng(0)
    bound = PairwiseReward([[2, 0]], rng.normal(size=(STATES, STATES))).bind(3, STATES, 1)
    candidates = [rng.dirichlet(np.ones(STATES), size=(3, 5)) for _ in range(3)]
    weights = rng.random(5)
    best = best_choice(bound, candidates, weights)
    assert_close(bound.relaxed(candidates, weights), best, ROUNDING)


# Sums, weights, problems


def test_weights_reach_the_tables():
    reward = PairwiseReward([[0, 1]], np.eye(2), [1, 0])
    scaled = -2.0 * reward
    np.testing.assert_array_equal(scaled.tables, -2.0 * np.eye(2))
    np.testing.assert_array_equal(scaled.labels, [1, 0])
    np.testing.assert_array_equal(reward.tables, np.eye(2))
    both, once = (0.5 * reward + reward * 3.0).bind(3, 2, 1), reward.bind(3, 2, 1)
    marginals = random_marginals(np.random.default_rng(0), 4, once)
    expected, conditional = once.expectations(marginals[:, :, ::-1])
    total, by_label = both.expectations(marginals[:, :, ::-1])
    assert_close(total, 3.5 * expected, ROUNDING)
    assert_close(by_label, 3.5 * conditional, ROUNDING)


def test_arrays_are_copied():
    edges, tables, labels = np.array([[0, 1]]), np.ones((2, 2)), np.array([0, 1])
    reward = PairwiseReward(edges, tables, labels)
    edges[:] = tables[:] = labels[:] = 7
    assert reward.bind(2, 2, 1).magnitude() == 1.0


@pytest.mark.parametrize("discount", [0.9, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [2, 3])
def test_problems_equal_those_with_the_explicit_table(n, shape, discount):
    rng = np.random.default_rng(n)
    by_action = shape == "actions"
    game = random_game(rng, n, STATES, ACTIONS, discount, closed=1)
    reward, table = draw(rng, n, shape, idle=1)
    one_table, shared = draw(rng, n, shape, shared=True, idle=1)
    product, products = draw_product(rng, n, "actions" if by_action else "states", idle=1)
    other, others = draw_other("sum", rng, n, by_action, idle=1)
    kinds = reward + -0.5 * one_table + 2.0 * product + other
    for leader, expected in (
        (reward, table),
        (one_table, shared),
        (kinds, table - 0.5 * shared + 2.0 * products + others),
    ):
        problem = game.problem(leader=leader)
        explicit = game.problem(leader=joint_form(expected, n, by_action))
        value = explicit.leader_value(game.policies)
        assert_close(problem.leader_value(game.policies), value)
        gradient = explicit.leader_gradient(game.policies)
        assert_close(problem.leader_gradient(game.policies), gradient)
        if not by_action:
            problem.leader_side.steps_before_doubling = 1  # by doubling on the product space
            assert_close(problem.leader_value(game.policies), value)


def test_turns_and_bounds_of_sums_of_all_kinds():
    n, rng = 3, np.random.default_rng(0)
    rewards = draw(rng, n)[0], 2.0 * draw_product(rng, n)[0], draw_other("sum", rng, n)[0]
    bound = (rewards[0] + rewards[1] + rewards[2]).bind(n, STATES, ACTIONS)
    marginals = random_marginals(rng, 4, bound)
    for i, conditional in enumerate(bound.turns(marginals)):
        assert_close(conditional, bound.expectations(marginals)[1][:, i], ROUNDING)
        marginals[:, i] = random_marginals(rng, 4, bound)[:, i]
    candidates = [rng.dirichlet(np.ones(bound.n_labels), size=(3, 4)) for _ in range(n)]
    weights = rng.random(4)
    best = best_choice(bound, candidates, weights)
    assert bound.relaxed(candidates, weights) >= best - EXACT
    single = [each[:1] for each in candidates]
    assert_close(bound.relaxed(single, weights), best_choice(bound, single, weights), ROUNDING)


# Documentation and errors


def test_docstring_examples():
    result = doctest.testmod(leader_pairwise)
    assert result.attempted
    assert not result.failed


ERRORS = {
    "edges kind": (
        lambda: PairwiseReward([[0.0, 1.0]], np.eye(2)),
        r"edges: expected integers of shape \(E, 2\), got float64 \(1, 2\)",
    ),
    "edges axes": (
        lambda: PairwiseReward([0, 1], np.eye(2)),
        r"edges: expected integers of shape \(E, 2\), got int64 \(2,\)",
    ),
    "edges columns": (
        lambda: PairwiseReward([[0, 1, 2]], np.eye(2)),
        r"edges: expected integers of shape \(E, 2\), got int64 \(1, 3\)",
    ),
    "loop": (
        lambda: PairwiseReward([[0, 1], [2, 2]], np.eye(2)),
        r"edges: expected two different followers, got \[2, 2\] at edge 1",
    ),
    "edges followers": (
        lambda: PairwiseReward([[0, 1], [3, 1]], np.eye(2)).bind(3, 2, 1),
        r"edges: expected followers in 0\.\.2, got \[3, 1\] at edge 1",
    ),
    "edges negative": (
        lambda: PairwiseReward([[0, -1]], np.eye(2)).bind(3, 2, 1),
        r"edges: expected followers in 0\.\.2, got \[0, -1\] at edge 0",
    ),
    "tables axes": (
        lambda: PairwiseReward([[0, 1]], [1.0, 2.0]),
        r"tables: expected shape \(1, L, L\) or \(L, L\), got \(2,\)",
    ),
    "tables square": (
        lambda: PairwiseReward([[0, 1]], np.ones((2, 3))),
        r"tables: expected shape \(1, L, L\) or \(L, L\), got \(2, 3\)",
    ),
    "tables empty": (
        lambda: PairwiseReward([[0, 1]], np.ones((0, 0))),
        r"tables: expected shape \(1, L, L\) or \(L, L\), got \(0, 0\)",
    ),
    "tables number": (
        lambda: PairwiseReward([[0, 1], [1, 0]], np.ones((3, 2, 2))),
        r"tables: expected shape \(2, L, L\) or \(L, L\), got \(3, 2, 2\)",
    ),
    "tables finite": (
        lambda: PairwiseReward([[0, 1]], [[[0.0, 1.0], [np.inf, 0.0]]]),
        "tables: expected finite numbers, got inf at edge 0, labels 1, 0",
    ),
    "tables finite shared": (
        lambda: PairwiseReward([[0, 1]], [[0.0, np.nan], [1.0, 0.0]]),
        "tables: expected finite numbers, got nan at labels 0, 1",
    ),
    "tables states": (
        lambda: PairwiseReward([[0, 1]], np.eye(2)).bind(2, 3, 1),
        r"tables: expected last axes \(3, 3\), .*, got \(2, 2\)\. Give labels",
    ),
    "labels kind": (
        lambda: PairwiseReward([[0, 1]], np.eye(2), [0.0, 1.0]),
        r"labels: expected integers of shape .*, got float64 \(2,\)",
    ),
    "labels axes": (
        lambda: PairwiseReward([[0, 1]], np.eye(2), 1),
        r"labels: expected integers of shape .*, got int64 \(\)",
    ),
    "labels states": (
        lambda: PairwiseReward([[0, 1]], np.eye(2), [0, 1]).bind(2, 3, 1),
        r"labels: expected shape \(3,\), .* got \(2,\)",
    ),
    "labels numbers": (
        lambda: PairwiseReward([[0, 1]], np.eye(2), [0, 2, 1]).bind(2, 3, 1),
        r"labels: expected numbers in 0\.\.1, the size of the tables' axes, got 2 at state 1",
    ),
    "labels negative": (
        lambda: PairwiseReward([[0, 1]], np.eye(2), [[[0, 1]], [[0, -1]]]).bind(2, 1, 2),
        r"labels: expected .*, got -1 at follower 1, state 0, action 1",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    make, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        make()
