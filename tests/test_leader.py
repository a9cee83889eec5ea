"""Leader rewards: tables over labels, what they expect, and what they refuse."""

import itertools
import string

import numpy as np
import pytest
from conftest import ROUNDING, assert_close, random_game

from fastincentive import InputError, JointReward, LabelReward

STATES, ACTIONS = 5, 3


def label_marginals(rng, horizon, n, labels):
    return rng.dirichlet(np.ones(labels), size=(horizon, n))


def contract(table, marginals, keep=None):
    """E[R | label_keep] (L,) or E[R] () by one einsum over all axes."""
    letters = string.ascii_lowercase[: table.ndim]
    weights = [m for i, m in enumerate(marginals) if i != keep]
    axes = [letter for i, letter in enumerate(letters) if i != keep]
    left = letters if keep is None else letters[keep]
    return np.einsum(
        ",".join([letters, *axes]) + "->" + ("" if keep is None else left), table, *weights
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_expected_and_conditional_rewards(n):
    rng = np.random.default_rng(n)
    table = rng.normal(size=(STATES,) * n)
    bound = JointReward(table).bind(n, STATES, ACTIONS)
    assert bound.n_labels == STATES
    np.testing.assert_array_equal(bound.labels[:, :, 0], np.tile(np.arange(STATES), (n, 1)))
    marginals = label_marginals(rng, 6, n, STATES)
    expected, conditional = bound.expectations(marginals)
    for t in range(6):
        assert_close(expected[t], contract(table, marginals[t]), ROUNDING)
        for i in range(n):
            assert_close(conditional[t, i], contract(table, marginals[t], i), ROUNDING)


def test_conditional_rewards_average_to_the_expected_one():
    rng = np.random.default_rng(0)
    bound = JointReward(rng.normal(size=(STATES,) * 3)).bind(3, STATES, ACTIONS)
    marginals = label_marginals(rng, 4, 3, STATES)
    expected, conditional = bound.expectations(marginals)
    for i in range(3):
        assert_close((marginals[:, i] * conditional[:, i]).sum(axis=1), expected, ROUNDING)


def test_tables_with_a_number_of_labels_per_follower():
    rng = np.random.default_rng(1)
    labels = np.stack([rng.integers(2, size=STATES), rng.integers(4, size=STATES)])
    table = 0.01 * rng.normal(size=(2, 4))
    bound = LabelReward(labels, table).bind(2, STATES, ACTIONS)
    assert bound.n_labels == 4
    assert bound.magnitude() == np.abs(table).max()
    marginals = label_marginals(rng, 3, 2, 4)
    marginals[:, 0, 2:] = 0.0
    expected, conditional = bound.expectations(marginals)
    for t in range(3):
        assert_close(expected[t], marginals[t, 0, :2] @ table @ marginals[t, 1], ROUNDING)
        assert_close(conditional[t, 0, :2], table @ marginals[t, 1], ROUNDING)
        assert_close(conditional[t, 1], marginals[t, 0, :2] @ table, ROUNDING)


def test_magnitude_is_the_largest_reward_over_the_possible_labels():
    table = np.array([[1.0, -9.0], [3.0, 4.0]])
    bound = JointReward(table).bind(2, 2, 1)
    assert bound.magnitude() == 9.0
    first_is_one = np.array([[False, True], [True, True]])
    assert bound.magnitude(first_is_one) == 4.0
    assert bound.magnitude(np.array([[False, True], [True, False]])) == 3.0
    assert bound.magnitude(np.array([[False, False], [True, True]])) == 0.0


def joint_table(labels, table, by_action):
    """The table over joint states, or states and actions, that labels stand for."""
    n = len(labels)
    shape = (STATES, ACTIONS) * n if by_action else (STATES,) * n
    out = np.empty(shape)
    for index in itertools.product(*map(range, shape)):
        if by_action:
            chosen = tuple(labels[i, index[2 * i], index[2 * i + 1]] for i in range(n))
        else:
            chosen = tuple(labels[i, index[i]] for i in range(n))
        out[index] = table[chosen]
    return out


@pytest.mark.parametrize("discount", [0.9, 1.0])
@pytest.mark.parametrize("by_action", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_label_reward_equals_the_joint_table(n, by_action, discount):
    rng = np.random.default_rng(n)
    game = random_game(rng, n, STATES, ACTIONS, discount, by_action, closed=1)
    labels = rng.integers(3, size=(n, STATES, ACTIONS) if by_action else (n, STATES))
    labels[:, -1] = 2  # the sink is seen
    table = rng.normal(size=(3,) * n)
    table[(2,) * n] = 0.0
    seen = game.problem(leader=LabelReward(labels, table))
    full = game.problem(leader=JointReward(joint_table(labels, table, by_action)))
    assert_close(seen.leader_value(game.policies), full.leader_value(game.policies))
    assert_close(seen.leader_gradient(game.policies), full.leader_gradient(game.policies))
    assert seen.leader.n_labels == 3 < full.leader.n_labels


def test_one_row_of_labels_stands_for_all_followers():
    rng = np.random.default_rng(4)
    game = random_game(rng, 2, STATES, ACTIONS)
    labels, table = rng.integers(3, size=STATES), rng.normal(size=(3, 3))
    one = game.problem(leader=LabelReward(labels, table))
    each = game.problem(leader=LabelReward(np.stack([labels, labels]), table))
    assert one.leader_value(game.policies) == each.leader_value(game.policies)


def test_tables_are_copied():
    table, labels = np.ones((2, 2)), np.zeros(2, int)
    reward, seen = JointReward(table), LabelReward(labels, table)
    table[:] = np.nan
    labels[:] = 7
    assert reward.bind(2, 2, 1).magnitude() == 1.0
    seen.bind(2, 2, 1)


# Errors


@pytest.mark.parametrize("kind", [JointReward, lambda t: LabelReward([0, 1], t)])
def test_table_must_be_finite(kind):
    table = np.zeros((2, 2))
    table[1, 0] = np.nan
    with pytest.raises(
        InputError, match=r"table: expected finite numbers, got nan at index \(1, 0\)"
    ):
        kind(table)


@pytest.mark.parametrize("shape", [(5,), (5, 4), (5, 5, 5), (5, 3), (3, 5, 3, 5)])
def test_joint_table_must_fit_the_followers(shape):
    message = r"table: expected shape \(5, 5\) \(joint states\) or \(5, 3, 5, 3\).*, got "
    with pytest.raises(InputError, match=message):
        JointReward(np.zeros(shape)).bind(2, STATES, ACTIONS)


LABEL_ERRORS = {
    "dtype": (np.zeros(5), (2, 2), r"labels: expected integers .*, got float64 \(5,\)"),
    "axes": (np.zeros((1, 2, 5, 3), int), (2, 2), "labels: expected integers of shape"),
    "states": (np.zeros(4, int), (2, 2), r"labels: expected shape \(5,\), \(2, 5\).*got \(4,\)"),
    "followers": (np.zeros((3, 5), int), (2, 2), r"labels: expected shape .*got \(3, 5\)"),
    "actions": (np.zeros((2, 5, 2), int), (2, 2), r"labels: expected shape .*got \(2, 5, 2\)"),
    "table axes": (np.zeros(5, int), (2,), "table: expected one axis per follower, 2, got 1 axes"),
    "too large": (
        np.array([[0, 0, 0, 1, 2], [0, 0, 3, 0, 4]]),
        (3, 3),
        r"labels: expected numbers in 0\.\.2, the size of table axis 1, got 3 at follower 1, "
        "state 2",
    ),
    "negative": (np.array([0, 0, 0, 0, -1]), (2, 2), "got -1 at follower 0, state 4"),
}


@pytest.mark.parametrize("case", LABEL_ERRORS)
def test_label_errors(case):
    labels, shape, message = LABEL_ERRORS[case]
    with pytest.raises(InputError, match=message):
        LabelReward(labels, np.zeros(shape)).bind(2, STATES, ACTIONS)
