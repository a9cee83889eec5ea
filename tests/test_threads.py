"""Results are the same to the last bit without threads, with one and with two."""

import numba
import numpy as np
import pytest
from conftest import assert_identical, random_policy

import fastincentive as fi
from fastincentive.kernels import jit

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
