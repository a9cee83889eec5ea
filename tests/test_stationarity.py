"""The stationarity measure K of Definition 1."""

import numpy as np
import pytest
from conftest import assert_close, random_game
from scipy.optimize import nnls

import fastincentive as fi
from fastincentive.certificates.stationarity import _reduced


@pytest.fixture(scope="module")
def example():
    return fi.models.example1()


def response(problem, payments):
    return fi.solve(problem, initial_payments=payments, initial_policies="best-response").policies


@pytest.mark.parametrize("payments", [(0.0, 0.0), (1.0, 0.0), (0.0, 2.0), (1.0, 2.0)])
def test_the_papers_four_points_are_stationary(example, payments):
    x = np.array(payments)
    # The response that the leader prefers at the tie.
    policies = np.zeros(example.followers.shape)
    policies[:, :, 0] = 1.0
    policies[0, 0] = [0.0, 1.0] if x[0] >= 1.0 else [1.0, 0.0]
    policies[1, 0] = [1.0, 0.0] if x[1] >= 2.0 else [0.0, 1.0]
    result = fi.stationarity(example, x, policies)
    assert_close(result.feasibility, 0.0, 1e-12)
    assert result.measure <= 1e-9
    assert (result.multipliers >= 0).all()


def test_other_points_are_not_stationary(example):
    policies = np.zeros(example.followers.shape)
    policies[:, :, 0] = 1.0
    policies[1, 0] = [0.0, 1.0]
    # Payments that buy nothing can be lowered: K is the slope of the cost.
    result = fi.stationarity(example, [0.5, 1.0], policies)
    assert result.measure >= 1.0
    assert fi.stationarity(example, [0.0, 0.0], policies).measure <= 1e-9


def test_infeasible_points_count_their_gap(example):
    policies = np.zeros(example.followers.shape)
    policies[:, :, 1] = 1.0
    result = fi.stationarity(example, [0.0, 0.0], policies)
    assert result.measure >= -result.feasibility > 0.5
    joint = fi.stationarity(example, [0.0, 0.0], policies, multiplier="joint")
    assert joint.measure >= result.measure - 1e-9


def test_softmax_and_bad_choices(example):
    policies = np.full(example.followers.shape, 0.5)
    result = fi.stationarity(example, 1.0, policies, fi.Softmax(0.1))
    assert np.isfinite(result.measure)
    with pytest.raises(fi.InputError, match="geometry"):
        fi.stationarity(example, 1.0, policies, geometry="curved")
    with pytest.raises(fi.InputError, match="multiplier"):
        fi.stationarity(example, 1.0, policies, multiplier="two")


def test_measure_is_a_minimum_over_multipliers():
    # No lambda on a grid does better than the reported one (joint multiplier, plain projection).
    problem = fi.models.random_problem(n=2, n_states=5, rng=11)
    rng = np.random.default_rng(0)
    policies = rng.dirichlet(np.ones(problem.followers.n_actions), size=problem.followers.shape[:2])
    x = rng.uniform(0.5, 1.5, problem.payments.size)
    result = fi.stationarity(problem, x, policies, multiplier="joint")
    held = problem.followers.evaluate(problem.rewards(x), policies)
    best = fi.best_response_policies(problem, x)
    answer = problem.followers.evaluate(problem.rewards(x), best)
    f_theta = problem.leader_gradient(policies)
    q_theta = held.visits[:, :, None] * held.q_values
    pull = problem.payments.pull_back
    q_x = pull(held.visits[:, :, None] * policies) - pull(answer.visits[:, :, None] * best)
    f_x = np.full(x.size, -problem.cost_weight)
    sizes = []
    for lam in np.linspace(0.0, 5.0, 501):
        rows = f_theta + lam * q_theta
        rows = rows - rows.mean(axis=2, keepdims=True)
        sizes.append(np.sqrt((rows**2).sum() + ((f_x + lam * q_x) ** 2).sum()))
    assert result.residual <= min(sizes) + 1e-9
    assert min(sizes) <= result.residual * (1 + 1e-3) or result.multipliers[0] > 5.0


def test_followers_are_judged_apart_or_together_alike():
    """The group of all gives the same norm and multipliers as one group per payment."""
    rng = np.random.default_rng(0)
    game = random_game(rng, 4, 5, 2, unavailable=0.0)
    index = np.full((4, 5, 2), -1)
    for i in range(4):
        index[i, 1], index[i, 2] = 2 * i, 2 * i + 1
    alone = game.problem(payments=fi.Payments.from_index(index))
    index = np.where(index >= 0, index // 4, -1)  # the first two share, and the last two
    pairs = game.problem(payments=fi.Payments.from_index(index))
    for problem in (alone, pairs):
        assert [len(group) for group in problem.payments.groups] == (
            [1] * 4 if problem is alone else [2, 2]
        )
        x = rng.random(problem.payments.size)
        policies = rng.dirichlet(np.ones(2), size=(4, 5))
        apart = fi.stationarity(problem, x, policies)
        problem.payments.groups = [np.arange(4)]
        together = fi.stationarity(problem, x, policies)
        assert apart.residual == pytest.approx(together.residual, rel=1e-9)
        assert_close(apart.multipliers, together.multipliers, 1e-6)


@pytest.mark.parametrize("tail", [0, 3, 20])
def test_least_squares_of_many_followers_are_reduced_without_loss(tail):
    """Columns reach the entries of one follower each, some all of them."""
    rng = np.random.default_rng(tail)
    size, n = 9, 6
    design = np.zeros((n * size + tail, 2 * n + 1))
    for i in range(n):
        design[i * size : (i + 1) * size, [2 * i, 2 * i + 1, -1]] = rng.normal(size=(size, 3))
    design[n * size :] = rng.normal(size=(tail, 2 * n + 1))
    target = rng.normal(size=len(design))
    small, goal = _reduced(design, target, size)
    assert len(small) < len(design)
    assert_close(small.T @ small, design.T @ design)
    assert_close(small.T @ goal, design.T @ target)
    assert_close(goal @ goal, target @ target)
    assert_close(nnls(small, goal)[0], nnls(design, target)[0])
