"""Leader rewards for many followers against tables over the product space, and their bounds."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from conftest import EXACT, GRADIENT, ROUNDING, assert_close, random_game
from test_leader import contract

from fastincentive import (
    AdditiveReward,
    CountReward,
    InputError,
    JointReward,
    LabelReward,
    LeaderReward,
    ProductSpaceTooLargeError,
    SumReward,
)
from fastincentive.kernels import contraction as contraction_kernels
from fastincentive.kernels import counts, label_counts
from fastincentive.leader.counts import _BoundLabelCounts

STATES, ACTIONS = 3, 2
PAIRS = STATES * ACTIONS


def draw(kind, rng, n, by_action=True, idle=0):
    """Draw a reward, and what it is by pair: a table (S*A,)*n; 0 in the last ``idle`` states."""
    shape = (n, STATES, ACTIONS) if by_action else (n, STATES)
    joint = np.indices((PAIRS,) * n).reshape(n, -1)
    busy = np.arange(STATES) < STATES - idle
    busy = busy[:, None] if by_action else busy

    def at_pairs(array):
        full = np.broadcast_to(array.reshape(n, STATES, -1), (n, STATES, ACTIONS))
        return np.take_along_axis(full.reshape(n, PAIRS), joint, axis=1)

    if kind == "additive":
        rewards = rng.normal(size=3)[rng.integers(3, size=shape)] * busy  # few distinct values
        reward, flat = AdditiveReward(rewards), at_pairs(rewards).sum(axis=0)
    elif kind == "count":
        labels = rng.integers(2, size=shape) * busy
        values = rng.normal(size=n + 1)
        values[0] = 0.0
        reward, flat = CountReward(labels, values), values[at_pairs(labels).sum(axis=0)]
    elif kind == "labels":
        labels = rng.integers(3, size=shape) * busy
        values = rng.normal(size=(n + 1, n + 1))
        values[0, 0] = 0.0
        numbers = [(at_pairs(labels) == label).sum(axis=0) for label in (1, 2)]
        reward, flat = CountReward(labels, values), values[tuple(numbers)]
    elif kind == "table":
        labels = rng.integers(1, 3, size=shape) * busy
        table = rng.normal(size=(3,) * n)
        table[(0,) * n] = 0.0
        reward, flat = LabelReward(labels, table), table[tuple(at_pairs(labels))]
    else:
        parts = [
            draw("additive", rng, n, by_action, idle),
            draw("count", rng, n, False, idle),
            draw("table", rng, n, by_action, idle),
        ]
        reward = 2.0 * parts[0][0] + parts[1][0] * -1.5 + -0.5 * parts[2][0]
        flat = (2.0 * parts[0][1] - 1.5 * parts[1][1] - 0.5 * parts[2][1]).reshape(-1)
    return reward, flat.reshape((PAIRS,) * n)


def random_marginals(rng, horizon, bound):
    return rng.dirichlet(np.ones(bound.n_labels), size=(horizon, len(bound.labels)))


KINDS = ["additive", "count", "labels", "table", "sum"]


@pytest.mark.parametrize("by_action", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_expectations_against_the_product_space(kind, n, by_action):
    rng = np.random.default_rng(n)
    reward, table = draw(kind, rng, n, by_action)
    bound = reward.bind(n, STATES, ACTIONS)
    labels = np.broadcast_to(bound.labels, (n, STATES, ACTIONS)).reshape(n, PAIRS)
    assert bound.labels.shape == (n, STATES, ACTIONS if by_action else 1)
    laws = rng.dirichlet(np.ones(PAIRS), size=(2, n))
    marginals = np.einsum("tip,ipl->til", laws, np.eye(bound.n_labels)[labels])
    expected, conditional = bound.expectations(marginals)
    for t in range(2):
        assert_close(expected[t], contract(table, laws[t]), ROUNDING)
        for i in range(n):
            assert_close(conditional[t, i, labels[i]], contract(table, laws[t], i), ROUNDING)
    shown = np.zeros((n, bound.n_labels), bool)
    np.put_along_axis(shown, labels, True, axis=1)
    for size in (bound.magnitude(), bound.magnitude(shown)):
        assert size >= np.abs(table).max() * (1 - ROUNDING)
    if kind != "sum":
        assert_close(bound.magnitude(shown), np.abs(table).max(), ROUNDING)


def test_labels_are_as_few_as_the_distinct_values():
    rewards = np.array([[1.0, 0.0, 1.0], [0.5, 0.5, 0.5], [-1.0, 0.0, 1.0]])
    bound = AdditiveReward(rewards).bind(3, STATES, ACTIONS)
    assert bound.n_labels == 3
    # The labels that followers 0 and 1 lack earn nothing and are no part of the bound.
    assert bound.magnitude() == 2.5
    both = AdditiveReward([0.0, 3.0, 3.0]) + CountReward([1, 0, 0], np.zeros(4))
    assert both.bind(3, STATES, ACTIONS).n_labels == 2


def test_magnitude_over_possible_labels():
    additive = AdditiveReward([-2.0, 0.0, 1.0]).bind(2, STATES, ACTIONS)
    some = np.array([[True, True, False], [False, True, True]])
    assert additive.magnitude() == 4.0
    assert additive.magnitude(some) == 2.0
    some[0] = False
    assert additive.magnitude(some) == 0.0

    count = CountReward([0, 1], [9.0, 1.0, -2.0, 8.0]).bind(3, 2, 1)
    assert count.magnitude() == 9.0
    may, must, never = [True, True], [False, True], [True, False]
    assert count.magnitude(np.array([may, must, never])) == 2.0
    assert count.magnitude(np.array([must, must, must])) == 8.0
    assert count.magnitude(np.array([never, never, never])) == 9.0
    assert count.magnitude(np.array([must, may, [False, False]])) == 0.0

    both = (CountReward([0, 1], [0.0, 1.0, 2.0]) + AdditiveReward([0.0, 5.0])).bind(2, 2, 1)
    assert both.magnitude() == 12.0
    assert both.magnitude(np.array([never, never])) == 0.0
    assert both.magnitude(np.array([must, never])) == 6.0


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


# Turns


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_turns_see_the_changes_made_on_the_way(kind, n):
    rng = np.random.default_rng(n)
    bound = draw(kind, rng, n)[0].bind(n, STATES, ACTIONS)
    marginals = random_marginals(rng, 4, bound)
    seen = []
    for i, conditional in enumerate(bound.turns(marginals)):
        fresh = bound.expectations(marginals)[1][:, i]
        assert_close(conditional, fresh, ROUNDING)
        seen.append((conditional, fresh))
        if i != 1:
            marginals[:, i] = random_marginals(rng, 4, bound)[:, i]
    assert len(seen) == n
    for conditional, fresh in seen:  # each turn's array is its own
        assert_close(conditional, fresh, ROUNDING)


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


# Bounds


def best_choice(bound, candidates, weights):
    """Return the largest weighted reward over all choices of one candidate per follower."""
    return max(
        float(weights @ bound.expectations(np.stack(choice, axis=1))[0])
        for choice in itertools.product(*candidates)
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_relaxed_bounds_every_choice(kind, n):
    rng = np.random.default_rng(n)
    weights = 0.9 ** np.arange(5)
    gaps = []
    for _ in range(8):
        bound = draw(kind, rng, n)[0].bind(n, STATES, ACTIONS)
        candidates = [
            rng.dirichlet(np.ones(bound.n_labels), size=(rng.integers(1, 4), 5)) for _ in range(n)
        ]
        best = best_choice(bound, candidates, weights)
        gaps.append(bound.relaxed(candidates, weights) - best)
        single = [each[:1] for each in candidates]
        one = best_choice(bound, single, weights)
        assert_close(bound.relaxed(single, weights), one, ROUNDING)
    assert min(gaps) >= -EXACT
    if kind == "additive" or (n == 1 and kind != "sum"):
        assert max(gaps) <= EXACT


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


def joint_form(table, n, by_action):
    """A table (S*A,)*n as the joint reward it stands for."""
    table = table.reshape((STATES, ACTIONS) * n)
    return JointReward(table if by_action else table[(slice(None), 0) * n])


@pytest.mark.parametrize("discount", [0.9, 1.0])
@pytest.mark.parametrize("by_action", [False, True])
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_problems_equal_those_with_the_explicit_table(kind, n, by_action, discount):
    rng = np.random.default_rng(n)
    game = random_game(rng, n, STATES, ACTIONS, discount, closed=1)
    reward, table = draw(kind, rng, n, by_action, idle=1)
    problem = game.problem(leader=reward)
    explicit = game.problem(leader=joint_form(table, n, by_action))
    assert_close(problem.leader_value(game.policies), explicit.leader_value(game.policies))
    gradient = problem.leader_gradient(game.policies)
    assert_close(gradient, explicit.leader_gradient(game.policies))
    assert problem.fingerprint() != explicit.fingerprint()


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_leaders_by_doubling(kind, n):
    rng = np.random.default_rng(0)
    game = random_game(rng, n, STATES, ACTIONS)
    problem = game.problem(leader=draw(kind, rng, n, by_action=False)[0])
    value, gradient = problem.leader_value(game.policies), problem.leader_gradient(game.policies)
    problem.leader_side.steps_before_doubling = 1
    assert_close(problem.leader_value(game.policies), value)
    assert_close(problem.leader_gradient(game.policies), gradient)


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


# Sums and weights


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


def test_arrays_are_copied():
    rewards, labels, values = np.ones(2), np.ones(2, int), np.ones(3)
    additive, count = AdditiveReward(rewards), CountReward(labels, values)
    rewards[:] = labels[:] = values[:] = 7
    assert additive.bind(2, 2, 1).magnitude() == 2.0
    assert count.bind(2, 2, 1).magnitude() == 1.0


# Errors


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
    "no parts": (lambda: SumReward([]), "parts: expected at least one LeaderReward, got none"),
    "other parts": (
        lambda: SumReward([AdditiveReward([0.0]), 1.0]),
        r"parts\[1\]: expected a LeaderReward, got float",
    ),
    "weight": (
        lambda: np.nan * AdditiveReward([0.0]),
        "weight: expected a finite number, got nan",
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
