"""Rewards given by tables: what is particular to them, and what they refuse."""

import tracemalloc

import numpy as np
import pytest
from conftest import ROUNDING, assert_close, random_game
from rewards import random_laws

from fastincentive import InputError, JointReward, LabelReward

STATES, ACTIONS = 5, 3


@pytest.mark.parametrize("n", [1, 2, 3])
def test_states_are_the_labels_of_joint_tables(n):
    bound = JointReward(np.zeros((STATES,) * n)).bind(n, STATES, ACTIONS)
    assert bound.n_labels == STATES
    np.testing.assert_array_equal(bound.labels[:, :, 0], np.tile(np.arange(STATES), (n, 1)))


def test_tables_with_a_number_of_labels_per_follower():
    rng = np.random.default_rng(1)
    labels = np.stack([rng.integers(2, size=STATES), rng.integers(4, size=STATES)])
    table = 0.01 * rng.normal(size=(2, 4))
    bound = LabelReward(labels, table).bind(2, STATES, ACTIONS)
    assert bound.n_labels == 4
    assert bound.magnitude() == np.abs(table).max()
    marginals = random_laws(rng, 3, 2, 4)
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


def test_a_table_over_uneven_labels_takes_the_room_of_its_own_numbers():
    shape = (2, 2, 2, 300)  # 300 labels for everybody would be 8.1e9 combinations
    table = np.random.default_rng(0).random(shape)
    labels = np.array([[0, 1, 1], [1, 0, 1], [0, 1, 0], [17, 299, 5]])
    tracemalloc.start()
    bound = LabelReward(labels, table).bind(4, 3, 1)
    marginals = np.zeros((5, 4, 300))
    marginals[:, :, :2] = 0.5
    expected, conditional = bound.expectations(marginals)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert_close(expected, np.full(5, table[..., :2].mean()))
    assert_close(conditional[0, 3], table.mean(axis=(0, 1, 2)))
    assert bound.magnitude() == np.abs(table).max()


def test_a_large_table_is_not_copied_to_be_bound():
    table = np.random.default_rng(1).random((30,) * 4)
    reward = JointReward(table)
    tracemalloc.start()
    bound = reward.bind(4, 30, 2)
    every = np.ones((4, 30), bool)
    some = every.copy()
    some[0, 3:] = False
    largest = bound.magnitude(), bound.magnitude(every), bound.magnitude(some)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.1 * table.nbytes
    assert largest == (table.max(), table.max(), table[:3].max())


@pytest.mark.parametrize(("i", "j"), [(0, 1), (0, 3), (2, 1), (1, 2), (3, 0)])
def test_pairs_of_followers_of_a_large_table(i, j):
    rng = np.random.default_rng(2)
    table = rng.random((17,) * 4)
    bound = JointReward(table).bind(4, 17, 1)
    marginals = rng.dirichlet(np.ones(17), size=(3, 4))
    others = [k for k in range(4) if k not in (i, j)]
    letters = "abcd"
    given = ",".join(["abcd", *["t" + letters[k] for k in others]])
    expected = np.einsum(
        f"{given}->t{letters[i]}{letters[j]}", table, *[marginals[:, k] for k in others]
    )
    assert_close(bound.pair(marginals, i, j), expected, ROUNDING)
