"""Sums over followers: what is particular to them, and what they refuse."""

import numpy as np
import pytest

from fastincentive import AdditiveReward, InputError

STATES, ACTIONS = 3, 2


def test_labels_are_as_few_as_the_distinct_values():
    rewards = np.array([[1.0, 0.0, 1.0], [0.5, 0.5, 0.5], [-1.0, 0.0, 1.0]])
    bound = AdditiveReward(rewards).bind(3, STATES, ACTIONS)
    assert bound.n_labels == 3
    # The labels that followers 0 and 1 lack earn nothing and are no part of the bound.
    assert bound.magnitude() == 2.5


def test_magnitude_over_possible_labels():
    additive = AdditiveReward([-2.0, 0.0, 1.0]).bind(2, STATES, ACTIONS)
    some = np.array([[True, True, False], [False, True, True]])
    assert additive.magnitude() == 4.0
    assert additive.magnitude(some) == 2.0
    some[0] = False
    assert additive.magnitude(some) == 0.0


def test_arrays_are_copied():
    rewards = np.ones(2)
    additive = AdditiveReward(rewards)
    rewards[:] = 7
    assert additive.bind(2, 2, 1).magnitude() == 2.0


ERRORS = {
    "rewards axes": (
        lambda: AdditiveReward(0.0),
        r"rewards: expected shape \(S,\), \(n, S\) or \(n, S, A\), got \(\)",
    ),
    "rewards finite": (
        lambda: AdditiveReward([[0.0, 1.0], [np.inf, 0.0]]),
        "rewards: expected finite numbers, got inf at follower 1, state 0",
    ),
    "rewards states": (
        lambda: AdditiveReward(np.zeros(4)).bind(2, 3, 2),
        r"rewards: expected shape \(3,\), \(2, 3\) or \(2, 3, 2\), got \(4,\)",
    ),
    "rewards followers": (
        lambda: AdditiveReward(np.zeros((3, 3))).bind(2, 3, 2),
        r"rewards: expected shape .* got \(3, 3\)",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    make, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        make()
