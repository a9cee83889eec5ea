"""Direct and softmax parameters: round trips, gradients, and parameters of any size."""

import numpy as np
import pytest
import reference
from conftest import GRADIENT, ROUNDING, assert_close, random_arrays, random_game, random_policy
from hypothesis import given
from hypothesis import strategies as st

from fastincentive import Direct, Followers, InputError, Softmax

SHAPE = (3, 4, 3)


def some_followers():
    rng = np.random.default_rng(0)
    mdps = [random_arrays(rng, 4, 3, 0.9, 0.3).mdp() for _ in range(2)]
    return Followers([*mdps, mdps[0]])


def draw_policies(seed, sparse=False):
    followers = some_followers()
    return followers, random_policy(np.random.default_rng(seed), followers.available, sparse)


@given(st.integers(0, 10**6), st.booleans())
def test_direct_parameters_are_the_policies(seed, sparse):
    followers, policies = draw_policies(seed, sparse)
    theta = Direct().parameters(policies, followers)
    np.testing.assert_array_equal(theta, policies)
    assert not np.shares_memory(theta, policies)
    np.testing.assert_array_equal(Direct().policies(theta, followers), policies)
    gradient = np.random.default_rng(seed).normal(size=SHAPE)
    np.testing.assert_array_equal(Direct().gradient(gradient, policies), gradient)


@given(st.integers(0, 10**6))
def test_direct_projection_gives_policies(seed):
    followers = some_followers()
    theta = np.random.default_rng(seed).normal(size=SHAPE)
    before = theta.copy()
    projected = Direct().project(theta, followers)
    np.testing.assert_array_equal(theta, before)
    followers.check_policies(projected)
    for i in range(3):
        for s in range(4):
            mask = followers.available[i, s]
            expected = reference.project_simplex(theta[i, s], mask)
            assert_close(projected[i, s], expected, ROUNDING)


@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.5, 20.0]))
def test_softmax_round_trip(seed, tau):
    followers, policies = draw_policies(seed)
    softmax = Softmax(tau, floor=1e-300)
    theta = softmax.parameters(policies, followers)
    assert np.isfinite(theta).all()
    assert (theta <= 0).all()
    top = np.where(followers.available, theta, -np.inf).max(axis=2)
    assert (top == 0).all()
    assert (theta[~followers.available] == 0).all()
    assert_close(softmax.policies(theta, followers), policies, ROUNDING)
    followers.check_policies(softmax.policies(theta, followers))
    assert softmax.project(theta, followers) is theta


@given(st.integers(0, 10**6))
def test_deterministic_policies_are_raised_to_the_floor(seed):
    followers, policies = draw_policies(seed, sparse=True)
    softmax = Softmax(0.1, floor=1e-3)
    back = softmax.policies(softmax.parameters(policies, followers), followers)
    followers.check_policies(back)
    raised = np.where(followers.available, np.maximum(policies, 1e-3), 0.0)
    assert_close(back, raised / raised.sum(axis=2, keepdims=True), ROUNDING)
    assert (back[followers.available] >= 1e-3 / (1 + 2e-3)).all()


@pytest.mark.parametrize("tau", [0.3, 2.0])
def test_softmax_gradient_against_finite_differences(tau):
    game = random_game(np.random.default_rng(2), 2, 4, 3, 0.9, True, 0.3)
    problem = game.problem()
    followers, softmax = problem.followers, Softmax(tau)
    theta = np.random.default_rng(0).normal(size=followers.shape)

    def value(parameters):
        return problem.leader_value(softmax.policies(parameters, followers))

    policies = softmax.policies(theta, followers)
    gradient = softmax.gradient(problem.leader_gradient(policies), policies)
    slope = reference.finite_difference(value, theta, followers.available)
    assert_close(gradient, slope, GRADIENT)
    assert (gradient[~followers.available] == 0).all()
    assert_close(gradient.sum(axis=2), np.zeros((2, 4)), 1e-12)


def test_softmax_gradient_of_the_followers_own_values():
    """dV/dtheta = visits * pi / tau * advantage; unavailable Q-values of -inf do not spread."""
    followers = some_followers()
    softmax = Softmax(0.5)
    theta = np.random.default_rng(1).normal(size=SHAPE)

    def value(parameters):
        held = followers.evaluate(followers.rewards, softmax.policies(parameters, followers))
        return followers.start_values(held.values).sum()

    policies = softmax.policies(theta, followers)
    held = followers.evaluate(followers.rewards, policies)
    gradient = softmax.gradient(held.visits[:, :, None] * held.q_values, policies)
    slope = reference.finite_difference(value, theta, followers.available)
    assert_close(gradient, slope, GRADIENT)


@pytest.mark.parametrize("size", [1e3, 1e100, 1e300])
@pytest.mark.parametrize("tau", [1e-6, 0.05])
def test_huge_parameters(size, tau):
    followers = some_followers()
    softmax = Softmax(tau)
    order = np.random.default_rng(0).permuted(np.tile([-1.0, 0.0, 1.0], (3, 4, 1)), axis=2)
    policies = softmax.policies(size * order, followers)
    masked = np.where(followers.available, order, -np.inf)
    top = masked == masked.max(axis=2, keepdims=True)
    np.testing.assert_array_equal(policies, top.astype(float))
    gradient = softmax.gradient(order, policies)
    np.testing.assert_array_equal(gradient, np.zeros(SHAPE))


def test_unavailable_parameters_do_not_matter():
    followers = some_followers()
    theta = np.random.default_rng(0).normal(size=SHAPE)
    spoiled = np.where(followers.available, theta, 1e6)
    for parameterization in (Softmax(0.1), Direct()):
        clean = parameterization.project(theta, followers)
        other = parameterization.project(spoiled, followers)
        one = parameterization.policies(clean, followers)
        np.testing.assert_array_equal(one, parameterization.policies(other, followers))
        assert (one[~followers.available] == 0).all()


@given(st.integers(0, 10**6), st.sampled_from([0.01, 1.0, 30.0]))
def test_natural_gradient_steps(seed, step):
    """Direct: a projected step. Softmax: theta / tau moves along the slope, whatever tau."""
    followers, policies = draw_policies(seed)
    slope = np.random.default_rng(seed).normal(size=SHAPE)
    slope[~followers.available] = 0.0
    moved = Direct().step(policies, slope, step, followers)
    np.testing.assert_array_equal(moved, Direct().project(policies + step * slope, followers))
    softmax = Softmax(0.3, floor=1e-300)
    theta = softmax.parameters(policies, followers) + 0.3 * step * slope
    expected = softmax.policies(theta, followers)
    assert_close(softmax.step(policies, slope, step, followers), expected, ROUNDING * 30)


def test_softmax_step_of_a_deterministic_policy():
    """An action that is never taken may look far better: its weight of 0 stays 0."""
    followers = some_followers()
    policies = np.zeros(SHAPE)
    first = followers.available.argmax(axis=2)
    np.put_along_axis(policies, first[:, :, None], 1.0, axis=2)
    slope = np.where(policies > 0, -1e4, 0.0)
    moved = Softmax().step(policies, slope, 1.0, followers)
    np.testing.assert_array_equal(moved, policies)


@pytest.mark.parametrize("temperature", [0.0, -0.1, np.nan])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(InputError, match="temperature: expected a number"):
        Softmax(temperature)


@pytest.mark.parametrize("floor", [0.0, -1.0, 0.1, 0.5, np.nan])
def test_floor_must_be_small(floor):
    with pytest.raises(InputError, match="floor: expected a number"):
        Softmax(floor=floor)


def test_parameterizations_are_values():
    assert Softmax(0.1) == Softmax(0.1) != Softmax(0.2)
    assert Direct() == Direct()
    assert repr(Softmax(0.1)) == "Softmax(temperature=0.1, floor=1e-06)"
