"""Results are the same to the last bit without threads, with one and with two."""

import numba
import numpy as np
import pytest
from conftest import assert_identical, random_policy

import fastincentive as fi
from fastincentive.followers.best_responses import empty_recall, sweepable
from fastincentive.kernels import jit, regimes, sweeps
from fastincentive.kernels.response_memory import predicted_responses

pytestmark = pytest.mark.skipif(
    numba.config.NUMBA_NUM_THREADS < 2 or numba.config.DISABLE_JIT, reason="no second thread"
)


@pytest.fixture
def runs(monkeypatch):
    """Run a function in the serial form of the kernels, with one thread, and with two."""
    before = numba.get_num_threads()

    def each(function):
        results = []
        for size, count in ((np.inf, 1), (0, 1), (0, 2)):
            monkeypatch.setattr(jit, "THREADED_SIZE", size)
            numba.set_num_threads(count)
            results.append(function())
        return results

    yield each
    numba.set_num_threads(before)


def assert_all_identical(results):
    for other in results[1:]:
        assert_identical(results[0], other)


def test_the_comparison_sees_the_last_bit():
    with pytest.raises(AssertionError):
        assert_identical([{"x": np.array([1.0])}], [{"x": np.array([np.nextafter(1.0, 2.0)])}])
    with pytest.raises(AssertionError):
        assert_identical((0.0,), (-0.0,))


@pytest.fixture(scope="module")
def problem():
    """Five followers of different sizes of work, so that the threads finish out of order."""
    mdps = [
        fi.models.grid_mdp(fi.models.PAPER_MAP, 0.02 * (1 + i), (i % 3, 0), 0.9 + 0.01 * i)
        for i in range(5)
    ]
    labels = np.arange(37) % 3
    table = np.random.default_rng(0).normal(size=(3,) * 5)
    return fi.IncentiveProblem(
        mdps, fi.LabelReward(labels, table), fi.Payments.everywhere(), leader_discount=0.97
    )


def test_followers(problem, runs):
    followers = problem.followers
    policies = random_policy(np.random.default_rng(1), followers.available)
    assert_all_identical(runs(lambda: tuple(followers.evaluate(followers.rewards, policies))))
    assert_all_identical(runs(lambda: tuple(followers.best_responses(followers.rewards))))
    assert_all_identical(runs(lambda: [fi.soft_best_response(mdp, 0.1) for mdp in followers]))


def test_leader(problem, runs):
    policies = random_policy(np.random.default_rng(2), problem.followers.available)
    assert_all_identical(runs(lambda: problem.leader_value(policies)))
    assert_all_identical(runs(lambda: problem.leader_gradient(policies)))
    assert_all_identical(runs(lambda: problem.evaluate(0.5, policies)))


def test_joint_occupancy(runs):
    problem = fi.models.paper_gridworld()
    policies = random_policy(np.random.default_rng(3), problem.followers.available)
    for method in ("sum", "stein"):
        assert_all_identical(
            runs(lambda method=method: problem.joint_occupancy(policies, method=method))
        )


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize(
    "parameterization", [fi.Direct(), fi.Softmax(0.05)], ids=["direct", "softmax"]
)
def test_a_short_run(parameterization, runs):
    problem = fi.models.paper_gridworld()
    method = fi.BilevelAscent(max_iter=40)

    def run():
        return fi.solve(problem, method, parameterization, initial_policies="best-response")

    results = runs(run)
    assert results[0].nit > 5  # or nothing is tested
    assert_all_identical(results)


def test_threads_write_into_the_arrays_of_tuples(problem):
    # A loop of threads that only writes into arrays of a tuple may be taken for dead by Numba.
    followers = problem.followers
    packed, rewards = followers.packed, followers.rewards
    n, states, _ = followers.shape
    known = sweepable(packed, [mdp.transition for mdp in followers])
    limits = (0.0, known.budget, known.uniform)
    memory = empty_recall(n, known.ordered)
    expected = followers.best_responses(rewards)
    for kernel, first in ((sweeps.large_responses, ()), (predicted_responses, (memory,))):
        actions, values = np.full((n, states), -1), np.full((n, states), np.nan)
        q_values = np.full(followers.shape, np.nan)
        residual, goal, iterations = np.full(n, np.nan), np.full(n, np.nan), np.full(n, -1)
        written = (actions, values, q_values, residual, goal, iterations)
        kernel.threaded(packed, known.ordered, *first, rewards, limits, *written, *known.lengths)
        np.testing.assert_array_equal(actions, expected.actions)
        np.testing.assert_allclose(values, expected.values, atol=1e-9)
        np.testing.assert_allclose(q_values, expected.q_values, atol=1e-9)
        assert (residual <= goal).all()
        assert (iterations > 0).all()
    assert memory.known.all()

    listed = regimes.ResponseList(
        np.full((n, 64), np.nan),
        np.full((n, 64), np.nan),
        np.full((n, 64, states), -9),
        np.full((n, 64, states), -9),
        np.zeros((n, 2)),
    )
    found = np.zeros((n, 6), np.int64)
    equals = np.broadcast_to(np.arange(followers.shape[2]), followers.shape).copy()
    lines = regimes.Lines(
        rewards, np.zeros(followers.shape), equals, np.full(followers.shape[:2], -1), np.ones(n)
    )
    start = (expected.actions.copy(), expected.values.copy())
    tied, margin = np.empty(followers.shape, bool), np.full(n, np.nan)
    regimes.walk_lines.threaded(packed, lines, *start, tied, margin, 2e-11, listed, found)
    assert not np.isnan(margin).any()
    assert (found[:, 0] > 0).all()
    np.testing.assert_array_equal(listed.lower[:, 0], 0.0)
    np.testing.assert_array_equal(listed.upper[:, 0], 1.0)
    assert (listed.visited[:, 0] >= -1).all()
    assert (listed.full[:, 0] >= 0).all()
