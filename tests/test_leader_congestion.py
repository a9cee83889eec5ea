"""Congestion rewards against plain convolutions and draws, at sizes beyond tables.

The threaded kernels are called with the arrays of the bound form, which are its own.
"""

import numpy as np
import pytest
from conftest import ROUNDING, STANDARD_ERRORS, assert_close
from rewards import random_marginals

from fastincentive import AdditiveReward, CongestionReward, CountReward, InputError
from fastincentive.kernels import congestion as kernels

STATES, RESOURCES = 3, 4
KINDS = ["table", "tables", "polynomial", "polynomials"]


def make(kind, rng, resources, n):
    """Make a reward with RESOURCES resources; also its functions (RESOURCES, n+1) of 0..n."""
    number = np.arange(n + 1.0)
    rows = RESOURCES if kind.endswith("s") else 1
    given = rng.normal(size=(rows, n + 1 if kind.startswith("table") else 4))
    functions = given
    if not kind.startswith("table"):
        functions = given @ number ** np.arange(4)[:, None]
    functions = np.broadcast_to(functions, (RESOURCES, n + 1))
    form = CongestionReward if kind.startswith("table") else CongestionReward.polynomial
    return form(resources, given if kind.endswith("s") else given[0]), functions


def draw_large(kind, rng, n, labels=3):
    """Draw a reward of n followers with ``labels`` states each, and (n, S) resources."""
    resources = rng.integers(-1, RESOURCES, size=(n, labels))
    resources[0, 0] = RESOURCES - 1
    reward, functions = make(kind, rng, resources, n)
    return reward.bind(n, labels, 1), resources, functions


def plain(bound, resources, functions, marginals):
    """E[R] and E[R | resource] of each follower and state: the others convolved anew each time."""
    n = len(resources)
    at = np.zeros((n, RESOURCES))
    for i, s in np.argwhere(resources >= 0):
        at[i, resources[i, s]] = marginals[i, bound.labels[i, s, 0]]
    without = np.empty((n, RESOURCES))
    whole = np.empty(RESOURCES)
    conditional = np.empty(resources.shape)
    for r, function in enumerate(functions):
        law = np.ones(1)
        for p in at[:, r]:
            law = np.convolve(law, [1 - p, p])
        whole[r] = law @ function
    for i in range(n):
        with_it = np.empty(RESOURCES)
        for r, function in enumerate(functions):
            law = np.ones(1)
            for p in np.delete(at[:, r], i):
                law = np.convolve(law, [1 - p, p])
            without[i, r], with_it[r] = law @ function[:-1], law @ function[1:]
        gains = np.append(with_it - without[i], 0.0)  # the last one for -1
        conditional[i] = without[i].sum() + gains[resources[i]]
    return whole.sum(), conditional


@pytest.mark.parametrize("n", [7, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_against_plain_convolutions(kind, n):
    rng = np.random.default_rng(n)
    bound, resources, functions = draw_large(kind, rng, n)
    marginals = random_marginals(rng, 3, bound)
    marginals[1] = np.eye(bound.n_labels)[rng.integers(bound.n_labels, size=n)]
    marginals[2, : n // 2] = np.eye(bound.n_labels)[0]
    expected, conditional = bound.expectations(marginals)
    for t in range(len(marginals)):
        value, given = plain(bound, resources, functions, marginals[t])
        assert_close(expected[t], value, ROUNDING)
        shown = np.take_along_axis(conditional[t], bound.labels[:, :, 0], axis=1)
        assert_close(shown, given, ROUNDING)


@pytest.mark.parametrize("degree", [1, 2, 4, 6])
@pytest.mark.parametrize("spread", ["any", "certain", "mostly one", "nearly one", "rare"])
def test_polynomials_keep_their_digits(degree, spread):
    """Against the laws of the others: positive sums, whose own error is 1e-13 at most."""
    n = 300
    rng = np.random.default_rng(degree)
    p = {
        "any": rng.random(n),
        "certain": rng.integers(2, size=n).astype(float),
        "mostly one": np.where(np.arange(n) % 5, 1.0, rng.random(n)),
        "nearly one": 1.0 - 1e-9 * rng.random(n),
        "rare": 1e-9 * rng.random(n),
    }[spread]
    bound = CongestionReward.polynomial([-1, 0], np.ones(degree + 1)).bind(n, 2, 1)
    marginals = np.stack([1.0 - p, p], axis=1)[None]
    expected, conditional = bound.expectations(marginals)
    values = (np.arange(n + 1.0)[:, None] ** np.arange(degree + 1)).sum(axis=1)
    for i in (0, n // 2, n - 1):
        law = np.ones(1)
        for q in np.delete(p, i):
            law = np.convolve(law, [1.0 - q, q])
        with np.errstate(under="ignore"):
            given = np.array([law @ values[:-1], law @ values[1:]])
        np.testing.assert_allclose(conditional[0, i], given, rtol=3e-13)
        np.testing.assert_allclose(expected[0], (1.0 - p[i]) * given[0] + p[i] * given[1], 3e-13)


def test_against_draws():
    n, states, count, draws = 50, 4, 10, 100_000
    rng = np.random.default_rng(5)
    resources = rng.integers(-1, count, size=(n, states))
    coefficients = -rng.random((count, 4))
    bound = CongestionReward.polynomial(resources, coefficients).bind(n, states, 1)
    laws = rng.dirichlet(np.ones(states), size=n)
    marginals = np.einsum("is,isl->il", laws, np.eye(bound.n_labels)[bound.labels[:, :, 0]])
    expected, conditional = bound.expectations(marginals[None])
    drawn = (rng.random((n, draws, 1)) > np.cumsum(laws, axis=1)[:, None, :-1]).sum(axis=2)
    where = np.take_along_axis(resources, drawn, axis=1)
    earned = np.zeros(draws)
    for r in range(count):
        earned += np.polynomial.polynomial.polyval((where == r).sum(axis=0), coefficients[r])
    error = earned.std() / np.sqrt(draws)
    assert abs(earned.mean() - expected[0]) <= STANDARD_ERRORS * error
    for i in range(0, n, 5):
        for s in range(states):
            seen = earned[where[i] == resources[i, s]]
            error = seen.std() / np.sqrt(len(seen))
            given = conditional[0, i, bound.labels[i, s, 0]]
            assert abs(seen.mean() - given) <= STANDARD_ERRORS * error


@pytest.mark.parametrize("degree", [0, 1, 2, 5, 12])
def test_both_forms_agree(degree):
    n = 9
    rng = np.random.default_rng(degree)
    resources = rng.integers(-1, RESOURCES, size=(n, STATES))
    coefficients = rng.normal(size=(RESOURCES, degree + 1)) / n ** np.arange(degree + 1.0)
    values = coefficients @ np.arange(n + 1.0) ** np.arange(degree + 1)[:, None]
    powers = CongestionReward.polynomial(resources, coefficients).bind(n, STATES, 1)
    tables = CongestionReward(resources, values).bind(n, STATES, 1)
    marginals = random_marginals(rng, 4, powers)
    marginals[0] = np.eye(powers.n_labels)[rng.integers(powers.n_labels, size=n)]
    np.testing.assert_array_equal(powers.labels, tables.labels)
    for one, other in zip(
        powers.expectations(marginals), tables.expectations(marginals), strict=True
    ):
        assert_close(one, other, 1e-11)
    turns = [np.stack(list(bound.turns(marginals))) for bound in (powers, tables)]
    assert_close(turns[0], turns[1], 1e-11)
    assert_close(powers.magnitude(), tables.magnitude(), 1e-11)
    candidates = [rng.dirichlet(np.ones(powers.n_labels), size=(2, 3)) for _ in range(n)]
    bounds = [bound.relaxed(candidates, np.ones(3)) for bound in (powers, tables)]
    assert_close(bounds[0], bounds[1], 1e-11)


def test_lines_are_additive_and_one_resource_is_a_count():
    n = 6
    rng = np.random.default_rng(0)
    resources = rng.integers(RESOURCES, size=(n, STATES))
    slopes = rng.normal(size=RESOURCES)
    lines = CongestionReward.polynomial(resources, np.stack([0.0 * slopes, slopes], axis=1))
    additive = AdditiveReward(slopes[resources])
    counts = np.arange(n + 1.0)
    square = CongestionReward.polynomial([-1, 0, -1], [2.0, -3.0, 1.5])
    count = CountReward([0, 1, 0], 2.0 - 3.0 * counts + 1.5 * counts**2)
    laws = rng.dirichlet(np.ones(STATES), size=(3, n))
    for one, other in ((lines, additive), (square, count)):
        given = []
        for bound in (one.bind(n, STATES, 1), other.bind(n, STATES, 1)):
            labels = bound.labels[:, :, 0]
            marginals = np.einsum("tis,isl->til", laws, np.eye(bound.n_labels)[labels])
            expected, conditional = bound.expectations(marginals)
            shown = np.take_along_axis(conditional, np.tile(labels, (3, 1, 1)), axis=2)
            given.append((expected, shown, bound.magnitude()))
        for first, second in zip(*given, strict=True):
            assert_close(first, second, ROUNDING)


def test_labels_are_each_followers_own():
    resources = np.array([[7, 7, 2], [-1, 9, 3], [5, 5, 5]])
    bound = CongestionReward(resources, np.zeros(4)).bind(3, 3, 2)
    np.testing.assert_array_equal(bound.labels[:, :, 0], [[1, 1, 0], [0, 2, 1], [0, 0, 0]])
    assert bound.n_labels == 3
    # What is at a label that a follower lacks is at no resource.
    values = CongestionReward(resources, [0.0, 1.0, 1.0, 1.0]).bind(3, 3, 2)
    marginals = np.zeros((1, 3, 3))
    marginals[:, :, 2] = 1.0
    expected, conditional = values.expectations(marginals)
    assert expected == [1.0]
    np.testing.assert_array_equal(conditional[0, 2], [2.0, 1.0, 1.0])


@pytest.mark.parametrize("form", [CongestionReward, CongestionReward.polynomial])
def test_what_is_earned_where_nobody_is(form):
    rng = np.random.default_rng(0)
    marginals = rng.dirichlet(np.ones(2), size=(3, 2))
    # Resources 0 and 1 are out of reach; they have their rows, or a number below the largest.
    for rows in ([3.0, 0.0, 0.0], [[3.0, 0.0, 0.0]] * 3):
        bound = form([2, -1], rows).bind(2, 2, 1)
        alone = 1.0 if form == CongestionReward.polynomial else marginals[:, :, 0].prod(axis=1)
        assert_close(bound.expectations(marginals)[0], np.full(3, 6.0) + 3.0 * alone, ROUNDING)
        assert bound.magnitude() == 9.0
    # Nobody is anywhere.
    idle = form([-1, -1], [3.0, 1.0, 1.0]).bind(2, 2, 1)
    assert idle.n_labels == 1
    assert idle.magnitude() == 0.0
    marginals = np.ones((2, 2, 1))
    expected, conditional = idle.expectations(marginals)
    assert not expected.any()
    assert not conditional.any()
    assert [each.tolist() for each in idle.turns(marginals)] == [[[0.0], [0.0]]] * 2
    assert idle.relaxed([marginals[:1]] * 2, np.ones(2)) == 0.0
    rows = form([-1, -1], [[3.0, 1.0, 1.0]] * 2).bind(2, 2, 1)
    assert_close(rows.expectations(marginals)[0], [6.0, 6.0])
    assert rows.magnitude() == 6.0


def test_degrees_above_the_number_of_followers():
    marginals = np.full((1, 2, 1), 1.0)
    coefficients = np.zeros(301)
    coefficients[300] = 1.0
    bound = CongestionReward.polynomial([0], coefficients).bind(2, 1, 1)
    np.testing.assert_allclose(bound.expectations(marginals)[0], [2.0**300], rtol=1e-14)
    np.testing.assert_allclose(bound.magnitude(), 2.0**300, rtol=1e-14)


def test_kernels_are_the_same_with_threads():
    rng = np.random.default_rng(0)
    horizon, n = 5, 6
    forms = {}
    for kind in ("tables", "polynomials"):
        bound = draw_large(kind, rng, n)[0]
        # Private: what the kernels are given.
        members, shape = bound._layout.members, (horizon, n * bound.n_labels)
        marginals = random_marginals(rng, horizon, bound).reshape(shape)
        outputs = [(horizon, bound._layout.used.size), shape]
        forms[kind] = bound, members, marginals, outputs
    bound, members, marginals, outputs = forms["tables"]
    calls = [(kernels.table_differences, (members, bound._values, marginals), outputs)]
    bound, members, marginals, outputs = forms["polynomials"]
    calls.append(
        (kernels.polynomial_differences, (members, bound._coefficients, marginals), outputs)
    )
    functions, probability = rng.normal(size=(horizon, 4)), rng.random((horizon, n))
    calls.append((kernels.average_polynomials, (functions, probability), [functions.shape]))
    for kernel, given, shapes in calls:
        results = []
        for form in (kernel.serial, kernel.threaded):
            out = [np.full(shape, np.nan) for shape in shapes]
            form(*given, *out)
            results.append([each.tobytes() for each in out])
            assert all(np.isfinite(each).all() for each in out)
        assert results[0] == results[1]


@pytest.mark.parametrize("kind", ["table", "polynomial"])
def test_turns_forget_what_was_far_larger(kind):
    n = 20
    power = np.zeros(11)
    power[10] = 1.0
    form = CongestionReward.polynomial if kind == "polynomial" else CongestionReward
    given = power if kind == "polynomial" else np.arange(n + 1.0) ** 10
    bound = form(np.arange(n + 1)[None] * np.ones((n, 1), int), given).bind(n, n + 1, 1)
    marginals = np.zeros((1, n, n + 1))
    marginals[:, :, n] = 1.0
    for i, conditional in enumerate(bound.turns(marginals)):
        fresh = bound.expectations(marginals)[1][:, i]
        assert_close(conditional, fresh, ROUNDING)
        marginals[:, i] = np.eye(n + 1)[i]
    # All stand alone by now, the last one has the choice: 20^10 was 1e13.
    np.testing.assert_allclose(conditional[0, -1], 20.0, rtol=1e-12)
    np.testing.assert_allclose(conditional[0, 0], 19.0 - 1.0 + 2.0**10, rtol=1e-12)


def test_magnitude_over_possible_labels():
    reward = CongestionReward([-1, 0, 1], [[0.0, 1.0, -2.0, 8.0], [0.0, -3.0, 0.0, 0.0]])
    bound = reward.bind(3, 3, 1)
    none, first, second = np.eye(3, dtype=bool)
    assert bound.magnitude() == 8.0
    assert bound.magnitude(np.array([first, first, first])) == 8.0
    assert bound.magnitude(np.array([none, none, none])) == 0.0
    # 0..2 at the first resource, at the second for certain: -3, -2 or -5.
    assert bound.magnitude(np.array([none | first, second, none | first])) == 5.0
    # 2 at least at the first.
    assert bound.magnitude(np.array([first, none | first, first])) == 8.0
    assert bound.magnitude(np.array([first, none | second, first])) == 5.0
    assert bound.magnitude(np.array([first, none & first, first])) == 0.0


def test_magnitude_counts_every_follower_once():
    """All of the followers cannot be everywhere."""
    n = 10
    bound = CongestionReward.polynomial(np.arange(6), [0.0, 0.0, -1.0]).bind(n, 6, 1)
    assert_close(bound.magnitude(), n**2, ROUNDING)
    mixed = CongestionReward.polynomial(np.arange(6), [5.0, 0.0, -1.0]).bind(n, 6, 1)
    assert_close(mixed.magnitude(), n**2 - 30.0, ROUNDING)


def test_arrays_are_copied():
    resources, values = np.zeros(2, int), np.ones(3)
    rewards = CongestionReward(resources, values), CongestionReward.polynomial(resources, values)
    resources[:] = values[:] = 5
    assert [reward.bind(2, 2, 1).magnitude() for reward in rewards] == [1.0, 7.0]


# Errors


POLYNOMIAL = CongestionReward.polynomial


ERRORS = {
    "resources kind": (
        lambda: CongestionReward([0.0, 1.0], np.zeros(3)),
        "resources: expected integers of shape .*, got float64",
    ),
    "resources axes": (
        lambda: CongestionReward(1, np.zeros(3)),
        r"resources: expected integers of shape \(S,\), \(n, S\) or \(n, S, A\), got int64 \(\)",
    ),
    "resources below": (
        lambda: POLYNOMIAL([[[0, 1]], [[0, -2]]], np.zeros(3)),
        r"resources: expected -1 \(none\) or a number from 0 on, got -2 at follower 1, "
        "state 0, action 1",
    ),
    "resources rows": (
        lambda: CongestionReward([0, 2, 1], np.zeros((2, 4))),
        r"resources: expected -1 \(none\) or the number of a row of values, 0\.\.1, got 2 "
        "at state 1",
    ),
    "resources states": (
        lambda: CongestionReward([0, 1], np.zeros(3)).bind(2, 3, 2),
        r"resources: expected shape \(3,\), .* got \(2,\)",
    ),
    "values axes": (
        lambda: CongestionReward([0, 1], np.zeros((3, 1, 1))),
        r"values: expected shape \(n\+1,\) or \(R, n\+1\), got \(3, 1, 1\)",
    ),
    "values finite": (
        lambda: CongestionReward([0, 1], [[0.0, 1.0], [0.0, np.nan]]),
        "values: expected finite numbers, got nan at resource 1, count 1",
    ),
    "values number": (
        lambda: CongestionReward([0, 1], np.zeros((2, 2))).bind(2, 2, 1),
        r"values: expected shape \(3,\) or \(R, 3\), rewards for 0\.\.2 followers, got \(2, 2\)",
    ),
    "coefficients none": (
        lambda: POLYNOMIAL([0, 1], []),
        r"coefficients: expected shape \(D\+1,\) or \(R, D\+1\), got \(0,\)",
    ),
    "coefficients finite": (
        lambda: POLYNOMIAL([0, 1], [0.0, np.inf]),
        "coefficients: expected finite numbers, got inf at power 1",
    ),
    "coefficients large": (
        lambda: POLYNOMIAL([0], np.full(201, 1e-300)).bind(100, 1, 1),
        "coefficients: expected polynomials that are finite for 100 followers, got degree 200",
    ),
    "weight": (
        lambda: np.inf * CongestionReward([0], [0.0, 1.0]),
        "weight: expected a finite number of at most .*, got inf",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    make, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        make()
