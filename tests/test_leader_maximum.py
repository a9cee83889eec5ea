"""The largest value over followers at sizes beyond tables, at extremes, and what it refuses.

Its kernel is the file's own, and is called directly to compare its threaded and serial forms.
"""

from time import perf_counter

import numba
import numpy as np
import pytest
from conftest import EXACT, ROUNDING, assert_close
from rewards import random_laws, random_marginals

from fastincentive import InputError, MaxReward
from fastincentive.leader import maximum


def plain_maxima(values, marginals):
    """E[max] (T,) and E[max | label] (T, n, L): the others' law formed anew for each follower."""
    n, count = values.shape
    cuts = np.unique(values)
    under = np.einsum("til,ilk->tik", marginals, values[:, :, None] <= cuts)
    conditional = np.empty(marginals.shape)
    for i in range(n):
        others = np.delete(under, i, axis=1).prod(axis=1)
        law = np.diff(others, axis=1, prepend=0.0)
        for label in range(count):
            conditional[:, i, label] = law @ np.maximum(cuts, values[i, label])
    return np.diff(under.prod(axis=1), axis=1, prepend=0.0) @ cuts, conditional


def bound_of(values, smallest=False):
    n, count = values.shape
    return MaxReward(np.arange(count), values, smallest=smallest).bind(n, count, 1)


@pytest.mark.parametrize("smallest", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 32, 61])
def test_maxima_against_plain_laws(n, smallest):
    rng = np.random.default_rng(n)
    marginals = random_laws(rng, 6, n, 4)
    marginals[1] = marginals[1] ** 20
    marginals[1] /= marginals[1].sum(axis=1, keepdims=True)
    few = np.repeat(rng.normal(size=(1, 4)), n, axis=0)
    for values in (rng.normal(size=(n, 4)), rng.integers(3, size=(n, 4)) - 1.0, few, few + 9.0):
        expected, conditional = bound_of(values, smallest).expectations(marginals)
        sign = -1.0 if smallest else 1.0
        plain, by_label = plain_maxima(sign * values, marginals)
        assert_close(expected, sign * plain, ROUNDING)
        assert_close(conditional, sign * by_label, ROUNDING)
        certain = np.arange(n), marginals[-1].argmax(axis=1)
        choose = np.min if smallest else np.max
        assert_close(expected[-1], choose(values[certain]), ROUNDING)


def test_types_of_many_stand_for_all():
    counts = np.array([40, 1, 7])
    rng = np.random.default_rng(0)
    values, marginals = rng.normal(size=(3, 3)), random_laws(rng, 5, 3, 3)
    marginals[0] = marginals[0] * 1e-3 + [0.0, 0.0, 0.999]  # nearly certain
    reward = MaxReward(np.arange(3), values)
    expected, conditional = reward.bind_types(counts, 3, 1).expectations(marginals)
    each = np.repeat(np.arange(3), counts)
    alone, given = bound_of(values[each]).expectations(marginals[:, each])
    assert_close(expected, alone, ROUNDING)
    assert_close(conditional, given[:, np.cumsum(counts) - 1], ROUNDING)
    million = reward.bind_types(np.array([10**6] * 3), 3, 1).expectations(marginals)[0]
    assert (million <= values.max()).all()
    assert (million >= expected - EXACT).all()


def test_values_that_hardly_occur_drown_nothing():
    # The largest is never there, and the smallest always beaten.
    values = np.array([[-1e17, 1.0, 2.0, 1e17], [-3.0, 0.5, 0.25, 1e300]])
    marginals = np.array([[[0.3, 0.3, 0.4, 0.0], [0.5, 0.25, 0.25, 0.0]]])
    expected, conditional = bound_of(values).expectations(marginals)
    largest = 0.3 * np.array([-3.0, 0.5, 0.25]) @ [0.5, 0.25, 0.25] + 0.3 * 1.0 + 0.4 * 2.0
    assert_close(expected, [largest], ROUNDING)
    assert_close(conditional[0, 0, :3], [0.5 * -3.0 + 0.25 * 0.75, 1.0, 2.0], ROUNDING)
    assert conditional[0, 0, 3] == 1e17
    assert conditional[0, 1, 3] == 1e300
    # One in 1e20 shows 1e20: it counts as much as 1.
    rare = np.array([[1.0 - 1e-20, 1e-20], [1.0, 0.0]])[None]
    expected, _ = bound_of(np.array([[0.0, 1e20], [0.0, 5.0]])).expectations(rare)
    assert_close(expected, [1.0], ROUNDING)


def test_the_largest_floats():
    top = np.finfo(float).max
    values = np.array([[-top, top], [-top, 0.0], [-top, 5e-324]])
    marginals = np.array([np.full((3, 2), 0.5), [[1.0, 0.0]] * 3, [[0.0, 1.0]] * 3])
    for smallest in (False, True):
        bound = bound_of(values, smallest)
        expected, conditional = bound.expectations(marginals)
        assert np.isfinite(expected).all()
        assert np.isfinite(conditional).all()
        assert bound.magnitude() == top
    expected, _ = bound_of(values).expectations(marginals)
    np.testing.assert_array_equal(expected[1:], [-top, top])
    assert_close(expected[0] / top, 0.5 - 0.125, ROUNDING)


def test_certain_followers_and_ties():
    values = np.array([[1.0, 1.0, 3.0], [3.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    marginals = np.eye(3)[[[0, 1, 2], [2, 0, 0]]]
    expected, conditional = bound_of(values).expectations(marginals)
    np.testing.assert_array_equal(expected, [2.0, 3.0])
    np.testing.assert_array_equal(conditional[0], [[2, 2, 3], [3, 2, 2], [2, 2, 2]])
    np.testing.assert_array_equal(conditional[1], np.full((3, 3), 3.0))


def test_one_type_of_label_each():
    bound = MaxReward([0, 0], [[-1.0], [-4.0]]).bind(2, 2, 1)
    expected, conditional = bound.expectations(np.ones((2, 2, 1)))
    np.testing.assert_array_equal(expected, [-1.0, -1.0])
    np.testing.assert_array_equal(conditional, np.full((2, 2, 1), -1.0))


def test_labels_that_nobody_shows_are_no_part_of_the_bound():
    bound = MaxReward([0, 1], [1.0, -2.0, 50.0]).bind(3, 2, 1)
    assert bound.magnitude() == 2.0
    some = np.array([[False, True, False], [True, True, False], [False, True, False]])
    assert bound.magnitude(some) == 2.0
    assert bound.magnitude(some | [True, False, False]) == 2.0
    assert bound.magnitude(some | [False, False, True]) == 50.0
    first = np.array([[True, False, False]] * 3)
    assert bound.magnitude(first) == 1.0


def test_weights_below_zero_turn_largest_to_smallest():
    reward = MaxReward([0, 1], [1.0, -2.0])
    turned = -2.0 * reward
    np.testing.assert_array_equal(turned.values, [-2.0, 4.0])
    assert turned.smallest
    assert not reward.smallest
    assert not (-1.0 * turned).smallest
    assert (2.0 * turned).smallest
    marginals = random_laws(np.random.default_rng(0), 4, 3, 2)
    one = reward.bind(3, 2, 1).expectations(marginals)[1]
    assert_close(turned.bind(3, 2, 1).expectations(marginals)[1], -2.0 * one, ROUNDING)


def test_arrays_are_copied():
    labels, values = np.array([0, 1]), np.ones(2)
    reward = MaxReward(labels, values)
    labels[:] = values[:] = 7
    assert reward.bind(2, 2, 1).magnitude() == 1.0


def test_kernels_are_the_same_with_threads():
    rng = np.random.default_rng(0)
    bound = bound_of(rng.normal(size=(9, 3)))
    marginals = random_marginals(rng, 5, bound)
    results = []
    # Private: the kernel and what it is given.
    for form in (maximum._maxima.serial, maximum._maxima.threaded):
        out = np.full(5, np.nan), np.full(marginals.shape, np.nan)
        form(bound._tree, marginals, *out)
        assert np.isfinite(out[1]).all()
        results.append([each.tobytes() for each in out])
    assert results[0] == results[1]


def test_thousands_of_followers_take_milliseconds():
    rng = np.random.default_rng(0)
    held, took = [], []
    for n in (1000, 20_000):
        bound = bound_of(rng.normal(size=(n, 3)))
        marginals = rng.dirichlet(np.ones(3), size=(2, n))
        expected, conditional = bound.expectations(marginals)
        mean = (marginals[:, 7] * conditional[:, 7]).sum(axis=1)
        assert_close(mean, expected, ROUNDING)
        held.append(bound.scratch_bytes(2))  # as many as there are steps
        began = perf_counter()
        bound.expectations(marginals)
        took.append(perf_counter() - began)
    assert held[1] < 20 * 1.5 * held[0]
    if not numba.config.DISABLE_JIT:
        assert took[0] < 0.5
        assert took[1] < 1.5  # all others for each follower: 2.4e9 steps at each time


# Errors


ERRORS = {
    "labels kind": (
        lambda: MaxReward([0.0, 1.0], [1.0, 2.0]),
        r"labels: expected integers of shape .*, got float64 \(2,\)",
    ),
    "labels axes": (
        lambda: MaxReward(1, [1.0, 2.0]),
        r"labels: expected integers of shape .*, got int64 \(\)",
    ),
    "labels numbers": (
        lambda: MaxReward([0, 2], [1.0, 2.0]),
        r"labels: expected numbers in 0\.\.1, which have values, got 2 at state 1",
    ),
    "labels negative": (
        lambda: MaxReward([[[0, 1]], [[0, -1]]], [1.0, 2.0]),
        r"labels: expected .*, got -1 at follower 1, state 0, action 1",
    ),
    "labels states": (
        lambda: MaxReward([0, 1], [1.0, 2.0]).bind(2, 3, 1),
        r"labels: expected shape \(3,\), .* got \(2,\)",
    ),
    "values axes": (
        lambda: MaxReward([0, 1], 1.0),
        r"values: expected shape \(L,\) or \(n, L\), got \(\)",
    ),
    "values none": (
        lambda: MaxReward([0, 1], []),
        r"values: expected shape \(L,\) or \(n, L\), got \(0,\)",
    ),
    "values finite": (
        lambda: MaxReward([0, 1], [[1.0, 2.0], [np.nan, 0.0]]),
        "values: expected finite numbers, got nan at follower 1, label 0",
    ),
    "values finite shared": (
        lambda: MaxReward([0, 1], [1.0, np.inf]),
        "values: expected finite numbers, got inf at label 1",
    ),
    "values followers": (
        lambda: MaxReward([0, 1], np.zeros((3, 2))).bind(2, 2, 1),
        r"values: expected shape \(2,\) or \(2, 2\), got \(3, 2\)",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    make, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        make()
