"""Counts of followers against plain convolutions, at sizes beyond tables, and what they refuse."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from conftest import GRADIENT, ROUNDING, assert_close, random_game
from rewards import random_marginals

from fastincentive import (
    AdditiveReward,
    CountReward,
    InputError,
    LabelReward,
    ProductSpaceTooLargeError,
)
from fastincentive.kernels import contraction as contraction_kernels
from fastincentive.kernels import counts, label_counts
from fastincentive.leader.counts import _BoundLabelCounts

STATES, ACTIONS = 3, 2


def test_magnitude_over_possible_labels():
    count = CountReward([0, 1], [9.0, 1.0, -2.0, 8.0]).bind(3, 2, 1)
    assert count.magnitude() == 9.0
    may, must, never = [True, True], [False, True], [True, False]
    assert count.magnitude(np.array([may, must, never])) == 2.0
    assert count.magnitude(np.array([must, must, must])) == 8.0
    assert count.magnitude(np.array([never, never, never])) == 9.0
    assert count.magnitude(np.array([must, may, [False, False]])) == 0.0


def plain_count(values, probability):
    """E[R] and E[R | label] (n, 2): the law of the others convolved anew for each follower."""
    conditional = np.empty((len(probability), 2))
    for i in range(len(probability)):
        law = np.ones(1)
        for j, p in enumerate(probability):
            if j != i:
                law = np.convolve(law, [1 - p, p])
        conditional[i] = law @ values[:-1], law @ values[1:]
    p = probability[0]
    return (1 - p) * conditional[0, 0] + p * conditional[0, 1], conditional


@pytest.mark.parametrize("n", [1, 2, 3, 7, 32, 60])
def test_counts_against_plain_convolutions(n):
    rng = np.random.default_rng(n)
    probability = rng.random((6, n))
    probability[1] = rng.integers(2, size=n)
    probability[2, : n // 2] = 0.0
    probability[3, n // 2 :] = 1.0
    probability[4] **= 30
    probability[5] = 0.5
    values = rng.normal(size=n + 1)
    marginals = np.stack([1.0 - probability, probability], axis=2)
    bound = CountReward([0, 1], values).bind(n, 2, 1)
    expected, conditional = bound.expectations(marginals)
    for t in range(len(probability)):
        plain, by_label = plain_count(values, probability[t])
        assert_close(expected[t], plain, ROUNDING)
        assert_close(conditional[t], by_label, ROUNDING)
    assert expected[1] == values[int(probability[1].sum())]  # nothing is random there


@pytest.mark.parametrize("kind", ["spread", "rare", "certain", "halves"])
def test_counts_of_hundreds_against_plain_convolutions(kind):
    rng = np.random.default_rng(0)
    n = 300
    probability = rng.random(n)
    if kind == "rare":
        probability **= 60
    elif kind == "certain":
        probability = 1.0 - probability**60
    elif kind == "halves":
        probability[: n // 2], probability[n // 2 :] = 0.0, 1.0
        probability[::50] = 0.5
    values = rng.normal(size=n + 1)
    marginals = np.stack([1.0 - probability, probability], axis=1)[None]
    bound = CountReward([0, 1], values).bind(n, 2, 1)
    expected, conditional = bound.expectations(marginals)
    plain, by_label = plain_count(values, probability)
    assert_close(expected[0], plain, ROUNDING)
    assert_close(conditional[0], by_label, ROUNDING)


def plain_label_count(values, marginals):
    """Conditional rewards (n, L): the law of the others' numbers, follower by follower."""
    n, count = marginals.shape
    steps = np.vstack([np.zeros((1, count - 1), int), np.eye(count - 1, dtype=int)])
    conditional = np.empty((n, count))
    for i in range(n):
        law = {(0,) * (count - 1): 1.0}
        for j in (j for j in range(n) if j != i):
            following = {}
            for numbers, p in law.items():
                for label in range(count):
                    place = tuple(np.add(numbers, steps[label]).tolist())
                    following[place] = following.get(place, 0.0) + p * marginals[j, label]
            law = following
        for label in range(count):
            conditional[i, label] = sum(
                p * values[tuple(np.add(numbers, steps[label]))] for numbers, p in law.items()
            )
    return conditional


@pytest.mark.parametrize(("n", "count"), [(1, 3), (5, 3), (8, 3), (9, 3), (6, 4), (4, 5)])
def test_label_counts_against_plain_convolutions(n, count):
    rng = np.random.default_rng(n)
    values = rng.normal(size=(n + 1,) * (count - 1))
    marginals = rng.dirichlet(np.ones(count), size=(3, n))
    marginals[1] = np.eye(count)[rng.integers(count, size=n)]
    marginals[2, ::2] = np.eye(count)[0]
    bound = CountReward(np.arange(count), values).bind(n, count, 1)
    expected, conditional = bound.expectations(marginals)
    for t in range(3):
        plain = plain_label_count(values, marginals[t])
        assert_close(conditional[t], plain, ROUNDING)
        assert_close(expected[t], plain[0] @ marginals[t, 0], ROUNDING)


def test_two_labels_of_three_are_two():
    n = 12
    rng = np.random.default_rng(0)
    values = rng.normal(size=n + 1)
    both = np.add.outer(np.arange(n + 1), np.arange(n + 1))
    merged = CountReward([0, 1, 2], values[np.minimum(both, n)]).bind(n, 3, 1)
    plain = CountReward([0, 1, 1], values).bind(n, 3, 1)
    marginals = rng.dirichlet(np.ones(3), size=(2, n))
    sums = np.stack([marginals[:, :, 0], marginals[:, :, 1:].sum(axis=2)], axis=2)
    expected, conditional = merged.expectations(marginals)
    assert_close(expected, plain.expectations(sums)[0], ROUNDING)
    assert_close(conditional[:, :, :2], plain.expectations(sums)[1], ROUNDING)
    assert_close(conditional[:, :, 2], conditional[:, :, 1], ROUNDING)


def test_too_many_label_counts_are_refused():
    with pytest.raises(ProductSpaceTooLargeError, match=r"3000 followers .* GiB per thread"):
        # Private: the values that would be given are too many as well.
        _BoundLabelCounts(np.zeros((3000, 1, 1), np.int64), np.zeros((1, 1, 1)))


@pytest.mark.slow
def test_counts_of_a_thousand_followers():
    n = 1000
    probability = np.random.default_rng(0).random((2, n))
    probability[1, ::3] = 0.0
    marginals = np.stack([1.0 - probability, probability], axis=2)
    bound = CountReward([0, 1], np.arange(n + 1.0) ** 2).bind(n, 2, 1)
    expected, conditional = bound.expectations(marginals)
    variances = probability * (1 - probability)
    assert_close(expected, variances.sum(axis=1) + probability.sum(axis=1) ** 2, 1e-12)
    mean = probability.sum(axis=1, keepdims=True) - probability
    rest = variances.sum(axis=1, keepdims=True) - variances
    assert_close(conditional[:, :, 0], rest + mean**2, 1e-12)
    assert_close(conditional[:, :, 1], rest + (mean + 1) ** 2, 1e-12)
    turns = np.stack(list(bound.turns(marginals)), axis=1)
    assert_close(turns, conditional, 1e-12)


def test_kernels_are_the_same_with_threads():
    rng = np.random.default_rng(0)
    n, horizon = 6, 5
    values, probability = rng.normal(size=n + 1), rng.random((horizon, n))
    marginals = rng.dirichlet(np.ones(2), size=(horizon, n))
    laws = np.empty((horizon, n + 1))
    counts.count_laws(probability, laws)
    longer, table = rng.normal(size=(horizon, n + 3)), rng.normal(size=2**n)
    low, high = 0.5 * probability[:, 1:], probability[:, 1:].copy()
    # Private: the layout that the kernel is given.
    simplices = _BoundLabelCounts(np.zeros((n, 1, 1), np.int64), np.zeros((n + 1,) * 2))._simplices
    calls = [
        (counts.count_rewards, (values, probability), [(horizon,), (horizon, n, 2)]),
        (counts.count_laws, (probability,), [(horizon, n + 1)]),
        (counts.average_counts, (longer, laws), [(horizon, 3)]),
        (counts.count_bounds, (values, low, high), [(horizon, 2)]),
        (
            label_counts.label_count_rewards,
            (
                rng.normal(size=(n + 1) ** 2),
                rng.dirichlet(np.ones(3), size=(horizon, n)),
                simplices,
            ),
            [(horizon,), (horizon, n, 3)],
        ),
        (contraction_kernels.one_conditional, (table, marginals, 2), [(horizon, 2)]),
    ]
    for kernel, given, shapes in calls:
        results = []
        for form in (kernel.serial, kernel.threaded):
            out = [np.full(shape, np.nan) for shape in shapes]
            form(*given, *out)
            results.append([each.tobytes() for each in out])
            assert np.isfinite(out[0]).all()
        assert results[0] == results[1]


@pytest.mark.parametrize("n", [13, 40])
def test_turns_of_many(n):
    rng = np.random.default_rng(n)
    late = CountReward(rng.integers(2, size=(n, STATES, ACTIONS)), rng.normal(size=n + 1))
    reward = late + AdditiveReward(rng.normal(size=STATES)) * 0.5
    bound = reward.bind(n, STATES, ACTIONS)
    marginals = random_marginals(rng, 3, bound)
    for i, conditional in enumerate(bound.turns(marginals)):
        assert_close(conditional, bound.expectations(marginals)[1][:, i], ROUNDING)
        marginals[:, i] = np.eye(bound.n_labels)[rng.integers(bound.n_labels, size=3)]
    assert i == n - 1


@pytest.mark.parametrize("n", [1, 2, 4])
def test_relaxed_counts_equal_the_relaxed_table(n):
    rng = np.random.default_rng(n)
    values = rng.normal(size=n + 1)
    table = values[np.indices((2,) * n).sum(axis=0)]
    count = CountReward([0, 1], values).bind(n, 2, 1)
    explicit = LabelReward([0, 1], table).bind(n, 2, 1)
    candidates = [rng.dirichlet(np.ones(2), size=(3, 6)) for _ in range(n)]
    weights = rng.random(6)
    both = [bound.relaxed(candidates, weights) for bound in (count, explicit)]
    assert_close(both[0], both[1], ROUNDING)


# Within a problem


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_gradient_against_finite_differences(discount):
    n = 6
    rng = np.random.default_rng(0)
    game = random_game(rng, 1, STATES, ACTIONS, discount, unavailable=0.0, closed=1)
    late = CountReward([1, 0, 0], rng.normal(size=n + 1) * (np.arange(n + 1) > 0))
    reward = late + AdditiveReward([0.5, -1.0, 0.0])
    problem = replace(game, followers=game.followers * n).problem(leader=reward)
    policies = rng.dirichlet(np.ones(ACTIONS), size=(n, STATES))
    gradient = problem.leader_gradient(policies)
    step = 1e-6
    for i, s in itertools.product(range(n), range(STATES - 1)):
        move = np.zeros_like(policies)
        move[i, s] = step, -step
        ahead, behind = problem.leader_value(policies + move), problem.leader_value(policies - move)
        slope = gradient[i, s, 0] - gradient[i, s, 1]
        assert_close((ahead - behind) / (2 * step), slope, GRADIENT)


def test_a_thousand_followers_make_a_problem():
    n = 1000
    game = random_game(np.random.default_rng(0), 1, STATES, ACTIONS)
    problem = replace(game, followers=game.followers * n).problem(
        leader=CountReward([0, 1, 0], np.linspace(0.0, 1.0, n + 1))
    )
    policies = np.repeat(game.policies, n, axis=0)
    alone = game.problem(leader=AdditiveReward([0.0, 1.0, 0.0]))
    assert problem.leader_value(policies) == pytest.approx(alone.leader_value(game.policies))
    with pytest.raises(ProductSpaceTooLargeError, match=r"3\^1000 joint states needs inf GiB"):
        problem.joint_occupancy(policies)


def test_arrays_are_copied():
    labels, values = np.ones(2, int), np.ones(3)
    count = CountReward(labels, values)
    labels[:] = values[:] = 7
    assert count.bind(2, 2, 1).magnitude() == 1.0


# Errors


ERRORS = {
    "labels numbers": (
        lambda: CountReward([0, 2, 1], np.zeros(3)),
        r"labels: expected 0 \(does not count\) or 1 \(counts\), got 2 at state 1",
    ),
    "labels negative": (
        lambda: CountReward([[[0, 1]], [[0, -1]]], np.zeros(3)),
        "got -1 at follower 1, state 0, action 1",
    ),
    "labels kind": (
        lambda: CountReward([0.0, 1.0], np.zeros(3)),
        "labels: expected integers or bools, got float64",
    ),
    "labels axes": (
        lambda: CountReward(True, np.zeros(3)),
        r"labels: expected shape \(S,\), \(n, S\) or \(n, S, A\), got \(\)",
    ),
    "labels states": (
        lambda: CountReward([0, 1], np.zeros(3)).bind(2, 3, 2),
        r"labels: expected shape \(3,\), .* got \(2,\)",
    ),
    "values axes": (
        lambda: CountReward([0, 1], np.zeros((3, 1))),
        r"values: expected shape \(n\+1,\)\*\(L-1\) for L labels, got \(3, 1\)",
    ),
    "values finite": (
        lambda: CountReward([0, 1], [0.0, np.nan]),
        "values: expected finite numbers, got nan at count 1",
    ),
    "values number": (
        lambda: CountReward([0, 1], np.zeros(2)).bind(2, 2, 1),
        r"values: expected shape \(3,\), a reward for each of 0\.\.2 followers, got \(2,\)",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    make, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        make()
