"""Sums and weights of rewards."""

import numpy as np
import pytest
from conftest import EXACT, ROUNDING, assert_close, random_game
from rewards import REWARDS, Setting, best_choice, random_marginals

from fastincentive import (
    AdditiveReward,
    CountReward,
    InputError,
    JointReward,
    LeaderReward,
    SumReward,
)

STATES, ACTIONS = 3, 2


def test_sums_of_all_kinds():
    n, rng = 3, np.random.default_rng(0)
    setting = Setting(n, STATES, ACTIONS)
    drawn = [each.draw(rng, setting) for each in REWARDS.values()]
    bound = SumReward([each.reward for each in drawn]).bind(n, STATES, ACTIONS)
    states, actions = rng.integers(STATES, size=(30, n)), rng.integers(ACTIONS, size=(30, n))
    labels = np.broadcast_to(bound.labels, (n, STATES, ACTIONS))[np.arange(n), states, actions]
    earned = sum(each.earned(states, actions) for each in drawn)
    assert_close(bound.sampled(labels), earned, ROUNDING)
    assert_close(bound.expectations(np.eye(bound.n_labels)[labels])[0], earned, ROUNDING)
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


def test_labels_are_the_combinations_that_occur():
    both = AdditiveReward([0.0, 3.0, 3.0]) + CountReward([1, 0, 0], np.zeros(4))
    assert both.bind(3, STATES, ACTIONS).n_labels == 2


def test_magnitude_over_possible_labels():
    must, never = [False, True], [True, False]
    both = (CountReward([0, 1], [0.0, 1.0, 2.0]) + AdditiveReward([0.0, 5.0])).bind(2, 2, 1)
    assert both.magnitude() == 12.0
    assert both.magnitude(np.array([never, never])) == 0.0
    assert both.magnitude(np.array([must, never])) == 6.0


def test_discount_one_wants_nothing_earned_when_absorbed():
    game = random_game(np.random.default_rng(1), 2, STATES, ACTIONS, 1.0)
    uncounted = CountReward([1, 1, 0], [0.0, 2.0, 3.0])
    idle = AdditiveReward([1.0, -1.0, 0.0])
    game.problem(leader=uncounted + 3.0 * idle)
    for leader in (
        CountReward([1, 1, 0], [1.0, 2.0, 3.0]),
        CountReward([1, 1, 1], [0.0, 2.0, 3.0]),
        uncounted + AdditiveReward([0.0, 0.0, 1.0]),
    ):
        with pytest.raises(InputError, match="leader: expected reward 0 once every follower"):
            game.problem(leader=leader)
    # Of two that count for ever, only the reward of exactly two matters.
    game.problem(leader=CountReward([0, 1, 1], [1.0, 2.0, 0.0]))


def test_sums_are_flat_and_weights_reach_the_parts():
    first, second = AdditiveReward([1.0, 0.0]), CountReward([0, 1], [0.0, 1.0, 4.0])
    third = JointReward(np.eye(2))
    reward = 2.0 * ((first + second) + third * 0.5)
    assert isinstance(reward, SumReward)
    assert [type(part) for part in reward.parts] == [AdditiveReward, CountReward, JointReward]
    np.testing.assert_array_equal(reward.parts[0].rewards, [2.0, 0.0])
    np.testing.assert_array_equal(reward.parts[1].values, [0.0, 2.0, 8.0])
    np.testing.assert_array_equal(reward.parts[2].table, np.eye(2))
    np.testing.assert_array_equal(first.rewards, [1.0, 0.0])
    one = SumReward([third]).bind(2, 2, 1)
    assert one.magnitude() == 1.0


@pytest.mark.parametrize("weight", [2, 2.0, np.float64(2), np.float32(2), np.int64(2)])
def test_any_real_number_is_a_weight(weight):
    for reward in (weight * AdditiveReward([1.0]), AdditiveReward([1.0]) * weight):
        assert isinstance(reward, LeaderReward)
        np.testing.assert_array_equal(reward.rewards, [2.0])


# Errors


ERRORS = {
    "no parts": (lambda: SumReward([]), "parts: expected at least one LeaderReward, got none"),
    "other parts": (
        lambda: SumReward([AdditiveReward([0.0]), 1.0]),
        r"parts\[1\]: expected a LeaderReward, got float",
    ),
    "weight": (
        lambda: np.nan * AdditiveReward([0.0]),
        "weight: expected a number, got nan",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    make, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda reward: reward + 1.0,
        lambda reward: reward * reward,
        lambda reward: reward * "2",
        lambda reward: np.ones(2) * reward,
    ],
)
def test_what_is_no_sum_or_weight(make):
    with pytest.raises(TypeError):
        make(AdditiveReward([0.0]))
