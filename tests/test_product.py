"""Products over followers against tables over the product space, and at sizes beyond them."""

import doctest

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

from fastincentive import InputError, ProductReward, SumReward
from fastincentive.kernels import products
from fastincentive.leader import product as leader_product

SHAPES = ["shared", "states", "actions"]


def draw(rng, n, shape="actions", terms=3, idle=0):
    """Draw a reward, and what it is by pair: a table (S*A,)*n; 0 in the last ``idle`` states."""
    size = {"shared": (STATES,), "states": (n, STATES), "actions": (n, STATES, ACTIONS)}[shape]
    values = np.array([-1.5, 0.0, 0.25, 1.0, 3.0])  # few, so that states share labels
    factors = values[rng.integers(len(values), size=(terms, *size))]
    busy = np.arange(STATES) < STATES - idle
    factors *= busy[:, None] if shape == "actions" else busy
    weights = rng.normal(size=terms)
    full = factors if shape != "shared" else np.repeat(factors[:, None], n, axis=1)
    full = np.broadcast_to(full.reshape(terms, n, STATES, -1), (terms, n, STATES, ACTIONS))
    outers = [outer(each) for each in full.reshape(terms, n, PAIRS)]
    table = sum(weight * each for weight, each in zip(weights, outers, strict=True))
    return ProductReward(factors, weights), table


def outer(vectors):
    """Outer product (L,)*n of n vectors (n, L)."""
    table = np.ones(())
    for each in vectors:
        table = np.multiply.outer(table, each)
    return table


def degenerate_laws(rng, horizon, n, size):
    """Random laws (T, n, size), the last ones with probabilities 0 and 1."""
    laws = rng.dirichlet(np.ones(size), size=(horizon, n))
    laws[-1] = np.eye(size)[rng.integers(size, size=n)]
    laws[-2, ::2] = np.eye(size)[rng.integers(size, size=(n + 1) // 2)]
    return laws


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("terms", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_expectations_against_the_product_space(n, terms, shape):
    rng = np.random.default_rng(n)
    reward, table = draw(rng, n, shape, terms)
    bound = reward.bind(n, STATES, ACTIONS)
    assert bound.labels.shape == (n, STATES, ACTIONS if shape == "actions" else 1)
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
    assert bound.magnitude() == bound.magnitude(shown)
    assert bound.magnitude() >= np.abs(table).max() * (1 - ROUNDING)
    if terms == 1:
        assert_close(bound.magnitude(), np.abs(table).max(), ROUNDING)


def test_labels_are_the_distinct_columns_of_each_follower():
    factors = np.array([[[1.0, 0.0, 1.0], [2.0, 2.0, 2.0]], [[0.0, 0.0, 0.0], [1.0, 3.0, -1.0]]])
    bound = ProductReward(factors).bind(2, 3, 1)
    np.testing.assert_array_equal(bound.labels[:, :, 0], [[1, 0, 1], [1, 2, 0]])
    assert bound.n_labels == 3
    # The label that follower 0 lacks is no part of the bound, nor of any product.
    assert bound.magnitude() == 2.0
    assert ProductReward([[1.0, -0.0, 0.0]]).bind(2, 3, 1).n_labels == 2


def test_magnitude_over_possible_labels():
    bound = ProductReward([[-1.0, 2.0]]).bind(2, 2, 1)
    may, low, high, none = [True, True], [True, False], [False, True], [False, False]
    assert bound.magnitude() == 4.0
    assert bound.magnitude(np.array([may, low])) == 2.0
    assert bound.magnitude(np.array([low, low])) == 1.0
    assert bound.magnitude(np.array([none, high])) == 0.0
    # Terms that cancel for certain cancel in the bound.
    some_left = ProductReward([[1.0, 1.0], [0.0, 1.0]], [1.0, -1.0]).bind(3, 2, 1)
    assert some_left.magnitude() == 1.0
    assert some_left.magnitude(np.array([high, high, high])) == 0.0
    assert some_left.magnitude(np.array([high, low, high])) == 1.0


def plain_products(factors, weights, marginals):
    """E[R] (T,) and E[R | label] (T, n, L): the others' product formed anew for each follower."""
    means = np.einsum("til,kil->tik", marginals, factors)
    conditional = np.empty(marginals.shape)
    for i in range(marginals.shape[1]):
        others = np.delete(means, i, axis=1).prod(axis=1)
        conditional[:, i] = (weights * others) @ factors[:, i]
    return means.prod(axis=1) @ weights, conditional


@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_products_against_plain_ones(n):
    rng = np.random.default_rng(n)
    factors = rng.choice([-1.0, 1.0], size=(3, n, 4)) * rng.uniform(0.8, 1.2, size=(3, n, 4))
    weights = rng.normal(size=3)
    bound = ProductReward(factors, weights).bind(n, 4, 1)
    order = np.argsort(bound.labels[:, :, 0], axis=1)
    by_label = np.take_along_axis(factors, order[None], axis=2)
    marginals = degenerate_laws(rng, 5, n, 4)
    expected, conditional = bound.expectations(marginals)
    plain, by_follower = plain_products(by_label, weights, marginals)
    scale = np.abs(by_follower).max()
    assert_close(expected / scale, plain / scale, ROUNDING)
    assert_close(conditional / scale, by_follower / scale, ROUNDING)


@pytest.mark.parametrize("zeros", [[], [3], [0], [8], [2, 6], [0, 8]])
def test_expected_factors_of_zero_leave_the_others_exact(zeros):
    n = 9
    rng = np.random.default_rng(len(zeros))
    # Small multiples of powers of two: every product is exact.
    factors = np.array([[[-1.0, 1.0, 2.0]], [[0.5, 1.5, -0.5]]]) * np.ones((2, n, 1))
    marginals = np.array([[0.25, 0.5, 0.25], [0.0, 0.0, 1.0]])[rng.integers(2, size=(2, n))]
    marginals[:, zeros] = 0.5, 0.5, 0.0
    factors[1, zeros] = 1.0, -1.0, 0.0
    bound = ProductReward(factors).bind(n, 3, 1)
    order = np.argsort(bound.labels[:, :, 0], axis=1)
    by_label = np.take_along_axis(factors, order[None], axis=2)
    marginals = np.take_along_axis(marginals, order[None], axis=2)
    expected, conditional = bound.expectations(marginals)
    plain, by_follower = plain_products(by_label, np.ones(2), marginals)
    np.testing.assert_array_equal(expected, plain)
    np.testing.assert_array_equal(conditional, by_follower)
    if len(zeros) == 1:
        assert (np.abs(conditional).max(axis=2) > 0).sum() == 2  # theirs alone, at both times
    elif zeros:
        assert not conditional.any()


@pytest.mark.parametrize("falling", [False, True])
def test_products_that_under_and_overflow_on_the_way(falling):
    n = 2000
    sizes = np.repeat([1e3, 1e-3] if falling else [1e-3, 1e3], n // 2)
    factors = np.stack([sizes, -sizes], axis=1)[None]
    bound = ProductReward(factors).bind(n, 2, 1)
    assert_close(bound.magnitude(), 1.0, EXACT)
    share = np.full(n, 1.0)
    share[[1, -2]] = 0.75
    first = np.argmax(bound.labels[:, :, 0] == 0, axis=1)  # the state that shows label 0
    marginals = np.empty((1, n, 2))
    marginals[0, np.arange(n), bound.labels[:, 0, 0]] = share
    marginals[0, np.arange(n), bound.labels[:, 1, 0]] = 1.0 - share
    expected, conditional = bound.expectations(marginals)
    assert_close(expected, [0.25], EXACT)
    sign = np.where(first == 0, 1.0, -1.0)
    others = np.where(share == 1.0, 0.25, 0.5)
    assert_close(conditional[0], (sign * others)[:, None] * [1.0, -1.0], EXACT)
    turns = np.stack(list(bound.turns(marginals)), axis=1)
    assert_close(turns, conditional, EXACT)
    certain = [marginals[:, i][None] for i in range(n)]
    assert_close(bound.relaxed(certain, np.ones(1)), 0.25, EXACT)


def test_products_of_many_may_vanish():
    n = 3000
    bound = ProductReward([[0.5, 1.0]]).bind(n, 2, 1)
    marginals = np.full((2, n, 2), 0.5)
    marginals[1] = 0.0, 1.0
    expected, conditional = bound.expectations(marginals)
    np.testing.assert_array_equal(expected, [0.0, 1.0])
    np.testing.assert_array_equal(conditional[0], 0.0)
    np.testing.assert_array_equal(conditional[1], np.tile([0.5, 1.0], (n, 1)))
    # Weights and bounds far from 1 are no reason to lose anything.
    tiny = ProductReward([[0.5, 1.0]], [1e-300]).bind(1, 2, 1)
    np.testing.assert_array_equal(tiny.expectations(marginals[:, :1])[1][0, 0], [5e-301, 1e-300])
    large = ProductReward([[1e154, -1e154]], [1e-300]).bind(3, 2, 1)
    assert_close(large.magnitude() / 1e162, 1.0, ROUNDING)


def test_kernels_are_the_same_with_threads():
    rng = np.random.default_rng(0)
    factors, weights = rng.normal(size=(6, 3, 4)), rng.normal(size=4)
    marginals = rng.dirichlet(np.ones(3), size=(5, 6))
    results = []
    for form in (products.product_rewards.serial, products.product_rewards.threaded):
        out = np.full(5, np.nan), np.full(marginals.shape, np.nan)
        form(factors, weights, marginals, *out)
        assert np.isfinite(out[1]).all()
        results.append([each.tobytes() for each in out])
    assert results[0] == results[1]


# Turns and bounds


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 17])
def test_turns_see_the_changes_made_on_the_way(n):
    rng = np.random.default_rng(n)
    factors = rng.uniform(-1.0, 1.0, size=(3, n, STATES)) * 1.5
    bound = ProductReward(factors).bind(n, STATES, ACTIONS)
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


@pytest.mark.parametrize("terms", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_relaxed_bounds_every_choice(n, terms):
    rng = np.random.default_rng(n)
    weights = 0.9 ** np.arange(5)
    gaps = []
    for _ in range(8):
        bound = draw(rng, n, terms=terms)[0].bind(n, STATES, ACTIONS)
        candidates = [
            rng.dirichlet(np.ones(bound.n_labels), size=(rng.integers(1, 4), 5)) for _ in range(n)
        ]
        gaps.append(bound.relaxed(candidates, weights) - best_choice(bound, candidates, weights))
        single = [each[:1] for each in candidates]
        assert_close(bound.relaxed(single, weights), best_choice(bound, single, weights), ROUNDING)
    assert min(gaps) >= -EXACT
    if n == 1:
        assert max(gaps) <= EXACT


# Sums, weights, problems


def test_weights_reach_the_terms():
    reward = ProductReward([[2.0, 0.0], [1.0, 3.0]])
    np.testing.assert_array_equal((reward * -2.0).weights, [-2.0, -2.0])
    np.testing.assert_array_equal((reward * -2.0).factors, reward.factors)
    np.testing.assert_array_equal(reward.weights, [1.0, 1.0])
    both = (0.5 * reward + reward * 3.0).bind(3, 2, 1)
    once = reward.bind(3, 2, 1)
    marginals = random_marginals(np.random.default_rng(0), 4, once)
    expected, conditional = once.expectations(marginals)
    total, by_label = both.expectations(marginals)
    assert_close(total, 3.5 * expected, ROUNDING)
    assert_close(by_label, 3.5 * conditional, ROUNDING)
    assert isinstance(reward + reward, SumReward)


def test_arrays_are_copied():
    factors, weights = np.ones((1, 2)), np.ones(1)
    reward = ProductReward(factors, weights)
    factors[:] = weights[:] = 7
    assert reward.bind(2, 2, 1).magnitude() == 1.0


@pytest.mark.parametrize("discount", [0.9, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [2, 3])
def test_problems_equal_those_with_the_explicit_table(n, shape, discount):
    rng = np.random.default_rng(n)
    by_action = shape == "actions"
    game = random_game(rng, n, STATES, ACTIONS, discount, closed=1)
    reward, table = draw(rng, n, shape, idle=1)
    other, other_table = draw_other("sum", rng, n, by_action, idle=1)
    for leader, expected in ((reward, table), (reward + 0.5 * other, table + 0.5 * other_table)):
        problem = game.problem(leader=leader)
        explicit = game.problem(leader=joint_form(expected, n, by_action))
        assert_close(problem.leader_value(game.policies), explicit.leader_value(game.policies))
        assert_close(
            problem.leader_gradient(game.policies), explicit.leader_gradient(game.policies)
        )
        if not by_action:
            problem.leader_side.steps_before_doubling = 1  # by doubling on the product space
            assert_close(problem.leader_value(game.policies), explicit.leader_value(game.policies))


def test_discount_one_wants_nothing_earned_when_absorbed():
    game = random_game(np.random.default_rng(1), 3, STATES, ACTIONS, 1.0)
    arrived = [0.0, 0.0, 1.0]
    # 1 until all are absorbed; each term alone earns for ever.
    game.problem(leader=ProductReward([np.ones(3), arrived], [1.0, -1.0]))
    with pytest.raises(InputError, match="leader: expected reward 0 once every follower"):
        game.problem(leader=ProductReward([arrived]))


# Documentation and errors


def test_docstring_examples():
    result = doctest.testmod(leader_product)
    assert result.attempted
    assert not result.failed


ERRORS = {
    "axes": (
        lambda: ProductReward([1.0, 0.0]),
        r"factors: expected shape \(K, S\), \(K, n, S\) or \(K, n, S, A\), got \(2,\)",
    ),
    "no term": (
        lambda: ProductReward(np.ones((0, 3))),
        r"factors: expected at least one term, got \(0, 3\)",
    ),
    "finite": (
        lambda: ProductReward([[[0.0, 1.0], [0.0, np.inf]]]),
        "factors: expected finite numbers, got inf at term 0, follower 1, state 1",
    ),
    "finite shared": (
        lambda: ProductReward([[0.0, 1.0], [np.nan, 0.0]]),
        "factors: expected finite numbers, got nan at term 1, state 0",
    ),
    "states": (
        lambda: ProductReward(np.ones((5, 4))).bind(2, 3, 2),
        r"factors\[k\]: expected shape \(3,\), \(2, 3\) or \(2, 3, 2\), got \(4,\)",
    ),
    "followers": (
        lambda: ProductReward(np.ones((5, 3, 3))).bind(2, 3, 2),
        r"factors\[k\]: expected shape .* got \(3, 3\)",
    ),
    "weights": (
        lambda: ProductReward(np.ones((2, 3)), [1.0]),
        r"weights: expected shape \(2,\), one per term, got \(1,\)",
    ),
    "weights finite": (
        lambda: ProductReward(np.ones((2, 3)), [1.0, np.nan]),
        "weights: expected finite numbers, got nan at term 1",
    ),
    "overflow": (
        lambda: ProductReward([[0.0, 1.0], [0.5, 2.0]]).bind(2000, 2, 1),
        r"factors: expected a bound .*, got inf at 2000 followers, term 1 the largest\. Scale",
    ),
    "overflow of the sum": (
        lambda: ProductReward([[1e153, 1.0]] * 50).bind(2, 2, 1),
        r"factors: expected a bound .* of at most 1e\+307, got 5",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    make, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        make()


def test_a_term_that_is_always_zero_never_overflows():
    factors = np.full((2, 2000, 2), 2.0)
    factors[0], factors[1, 7] = 1.0, 0.0
    bound = ProductReward(factors).bind(2000, 2, 1)
    assert bound.magnitude() == 1.0
    marginals = np.full((1, 2000, bound.n_labels), 1.0 / bound.n_labels)
    np.testing.assert_array_equal(bound.expectations(marginals)[1], 1.0)
