"""Projections on simplices, their tangent cones, boxes and budgets; softmax rows."""

import numpy as np
import pytest
import reference
from conftest import EXACT, GRADIENT, ROUNDING, assert_close, random_availability, random_policy
from hypothesis import given
from hypothesis import strategies as st

from fastincentive.kernels import simplex

SEEDS = st.integers(0, 10**6)
SIZES = st.integers(1, 7)
SCALES = st.sampled_from([1e-3, 1.0, 50.0])


def project(row, available):
    out = np.full(row.shape, np.nan)
    simplex.project_row(row, available, out)
    return out


def tangent(direction, point, available):
    out = np.full(direction.shape, np.nan)
    simplex.tangent_row(direction, point, available, out)
    return out


def case(seed, size, scale):
    """A row and a mask; some entries tie, some are exactly on the simplex."""
    rng = np.random.default_rng([seed, size])
    available = random_availability(rng, 1, size, 0.3)[0]
    row = scale * rng.normal(size=size)
    if seed % 4 == 0:
        row = np.round(row / scale) * scale  # ties
    return rng, row, available


def boundary_point(rng, available):
    """A point of the simplex, usually on its boundary."""
    point = random_policy(rng, available)
    point[(rng.random(available.size) < 0.5) & (point < point.max())] = 0.0
    return point / point.sum()


# The simplex


@given(SEEDS, SIZES, SCALES)
def test_simplex_projection_matches_sorting(seed, size, scale):
    _, row, available = case(seed, size, scale)
    projected = project(row, available)
    assert_close(projected, reference.project_simplex(row, available), ROUNDING * max(1, scale))
    assert (projected >= 0).all()
    assert (projected[~available] == 0).all()
    assert abs(projected.sum() - 1) <= 1e-15 * (size + 1)


@given(SEEDS, SIZES, SCALES)
def test_simplex_projection_is_idempotent_and_does_not_expand(seed, size, scale):
    rng, row, available = case(seed, size, scale)
    once = project(row, available)
    assert_close(project(once, available), once, 1e-15)
    other = row + scale * rng.normal(size=size)
    apart = np.linalg.norm(project(other, available) - once)
    assert apart <= np.linalg.norm((other - row)[available]) * (1 + 1e-12) + 1e-15


@given(SEEDS, SIZES, SCALES)
def test_simplex_projection_is_nearest(seed, size, scale):
    """The angle to every point of the simplex is obtuse: <row - p, y - p> <= 0."""
    rng, row, available = case(seed, size, scale)
    projected = project(row, available)
    y = random_policy(rng, np.broadcast_to(available, (20, size)))
    slack = (y - projected) @ (row - projected)
    assert (slack <= 1e-12 * max(1.0, scale)).all()


def test_simplex_projection_of_extremes():
    everything = np.ones(3, bool)
    np.testing.assert_array_equal(project(np.array([1e9, 0.0, -1e9]), everything), [1, 0, 0])
    assert_close(project(np.full(3, -1e9), everything), np.full(3, 1 / 3), ROUNDING)
    only = np.array([False, True, False])
    np.testing.assert_array_equal(project(np.array([5.0, -7.0, 5.0]), only), [0, 1, 0])


# Its tangent cone


@given(SEEDS, st.integers(1, 6), SCALES)
def test_tangent_projection_matches_enumeration(seed, size, scale):
    rng, direction, available = case(seed, size, scale)
    point = boundary_point(rng, available)
    projected = tangent(direction, point, available)
    expected = reference.project_simplex_tangent(direction, point, available)
    assert_close(projected, expected, ROUNDING * max(1, scale))
    assert (projected[~available] == 0).all()
    assert (projected[available & (point == 0)] >= 0).all()
    assert abs(projected.sum()) <= 1e-14 * size * max(1, scale)


@given(SEEDS, st.integers(1, 6), SCALES)
def test_tangent_projection_is_idempotent_and_does_not_expand(seed, size, scale):
    rng, direction, available = case(seed, size, scale)
    point = boundary_point(rng, available)
    once = tangent(direction, point, available)
    assert_close(tangent(once, point, available), once, ROUNDING * max(1, scale))
    other = direction + scale * rng.normal(size=size)
    apart = np.linalg.norm(tangent(other, point, available) - once)
    assert apart <= np.linalg.norm((other - direction)[available]) * (1 + 1e-12)


@given(SEEDS, st.integers(1, 6))
def test_tangent_projection_is_the_derivative_of_the_projection(seed, size):
    """(P(p + h d) - p) / h tends to the projection of d on the tangent cone at p."""
    rng, direction, available = case(seed, size, 1.0)
    point = boundary_point(rng, available)
    h = 1e-3 * point[point > 0].min() / (1.0 + np.abs(direction).max())
    moved = (project(point + h * direction, available) - point) / h
    assert_close(moved, tangent(direction, point, available), 1e-15 / h + EXACT)


def test_rows_of_all_followers():
    rng = np.random.default_rng(0)
    available = random_availability(rng, 10, 4, 0.3).reshape(2, 5, 4)
    model = np.array([1, 0, 1])
    rows = rng.normal(size=(3, 5, 4))
    points = np.empty_like(rows)
    simplex.project_rows(rows, available, model, points)
    cones = np.empty_like(rows)
    simplex.tangent_rows(-rows, points, available, model, cones)
    for i in range(3):
        for s in range(5):
            mask = available[model[i], s]
            expected = reference.project_simplex(rows[i, s], mask)
            assert_close(points[i, s], expected, ROUNDING)
            expected = reference.project_simplex_tangent(-rows[i, s], points[i, s], mask)
            assert_close(cones[i, s], expected, ROUNDING)


# Boxes and budgets


def bounds(rng, size):
    lower = -rng.random(size)
    upper = lower + 2 * rng.random(size)
    upper[rng.random(size) < 0.2] = np.inf
    return lower, upper


@given(SEEDS, SIZES)
def test_box_projection(seed, size):
    rng = np.random.default_rng([seed, size])
    lower, upper = bounds(rng, size)
    vector = 3 * rng.normal(size=size)
    out = np.empty(size)
    simplex.project_box(vector, lower, upper, out)
    np.testing.assert_array_equal(out, reference.project_box(vector, lower, upper))
    again = np.empty(size)
    simplex.project_box(out, lower, upper, again)
    np.testing.assert_array_equal(again, out)


def budget_case(seed, size):
    rng = np.random.default_rng([seed, size])
    lower, upper = bounds(rng, size)
    prices = rng.random(size) * (rng.random(size) > 0.2)
    budget = prices @ lower + rng.random() * 2
    return rng, lower, upper, prices, budget


def project_budget(vector, *limits):
    out = np.full(vector.shape, np.nan)
    simplex.project_budget(vector, *limits, out)
    return out


@given(SEEDS, SIZES, st.sampled_from([0.3, 3.0, 100.0]))
def test_budget_projection_matches_bisection(seed, size, scale):
    rng, *limits = budget_case(seed, size)
    vector = scale * rng.normal(size=size)
    projected = project_budget(vector, *limits)
    assert_close(projected, reference.project_budget(vector, *limits), EXACT)
    lower, upper, prices, budget = limits
    assert (projected >= lower).all()
    assert (projected <= upper).all()
    assert prices @ projected <= budget + ROUNDING * scale


@given(SEEDS, SIZES)
def test_budget_projection_is_idempotent_and_does_not_expand(seed, size):
    rng, *limits = budget_case(seed, size)
    vector, other = 3 * rng.normal(size=(2, size))
    once = project_budget(vector, *limits)
    assert_close(project_budget(once, *limits), once, ROUNDING)
    apart = np.linalg.norm(project_budget(other, *limits) - once)
    assert apart <= np.linalg.norm(other - vector) * (1 + 1e-12)


def test_budget_of_nothing_and_a_loose_budget():
    zero, one = np.zeros(3), np.ones(3)
    vector = np.array([3.0, -1.0, 0.5])
    np.testing.assert_array_equal(project_budget(vector, zero, one, one, 0.0), zero)
    np.testing.assert_array_equal(project_budget(vector, zero, one, one, 1.5), [1.0, 0.0, 0.5])
    unbounded = np.full(3, np.inf)
    assert_close(project_budget(vector, zero, unbounded, one, 1.5), [1.5, 0.0, 0.0], ROUNDING)
    assert_close(project_budget(np.full(3, 5.0), zero, unbounded, one, 1.5), 0.5 * one, ROUNDING)


# Softmax rows


def softmax(theta, tau, available):
    out = np.full(theta.shape, np.nan)
    simplex.softmax_policies(theta, tau, available, np.arange(len(theta)), out)
    return out


def softmax_case(seed):
    rng = np.random.default_rng(seed)
    available = random_availability(rng, 8, 3, 0.3).reshape(2, 4, 3)
    return rng, rng.normal(size=(2, 4, 3)), available


@given(SEEDS, st.sampled_from([0.01, 0.3, 5.0]))
def test_softmax_rows(seed, tau):
    rng, theta, available = softmax_case(seed)
    policies = softmax(theta, tau, available)
    assert_close(policies, reference.softmax_policy(theta, tau, available), ROUNDING)
    assert (policies[~available] == 0).all()
    shifted = theta + rng.normal(size=(2, 4, 1))
    assert_close(softmax(shifted, tau, available), policies, 1e-12 / tau)


@given(SEEDS, st.sampled_from([0.05, 0.3, 5.0]))
def test_softmax_gradients(seed, tau):
    rng, theta, available = softmax_case(seed)
    policies = softmax(theta, tau, available)
    slopes = rng.normal(size=theta.shape)
    slopes[~available] = -np.inf  # as Q-values are there
    gradient = np.full(theta.shape, np.nan)
    simplex.softmax_gradients(slopes, policies, tau, gradient)
    finite = np.where(available, slopes, 0.0)
    assert_close(
        gradient, reference.softmax_jacobian_product(finite, policies, tau), ROUNDING / tau
    )
    assert (gradient[~available] == 0).all()
    assert_close(gradient.sum(axis=2), np.zeros((2, 4)), ROUNDING / tau)
    if tau >= 0.3:  # third derivatives grow as 1 / tau**3

        def value(t):
            return np.sum(finite * reference.softmax_policy(t, tau, available))

        assert_close(gradient, reference.finite_difference(value, theta, available), GRADIENT)


@pytest.mark.parametrize("size", [1e3, 1e100, 1e300])
def test_softmax_of_huge_parameters(size):
    available = np.ones((1, 3, 3), bool)
    available[0, 2] = [True, True, False]
    theta = size * np.array([[[1.0, -1.0, 0.0], [-1.0, -1.0, -1.0], [-1.0, -1.5, 1.0]]])
    policies = softmax(theta, 0.05, available)
    np.testing.assert_array_equal(policies[0], [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [1, 0, 0]])
    gradient = np.empty_like(theta)
    simplex.softmax_gradients(theta / size, policies, 0.05, gradient)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1e12, 1e16, 1e18, 1e100, 1e300])
def test_rows_in_which_a_unit_is_lost(size):
    rows = size * np.array([[0.5, 0.7, -1.0], [0.7, 0.6, 0.5], [-2.0, -1.0, -1.5]])
    allowed = np.array([[True, True, True], [True, True, True], [True, False, True]])
    out = np.empty((1, 3, 3))
    simplex.project_rows(rows[None], allowed[None], np.zeros(1, np.int64), out)
    np.testing.assert_array_equal(out[0], [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
