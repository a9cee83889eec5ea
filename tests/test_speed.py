"""pytest-benchmark: the cases of asv, and one iteration beside the plain NumPy twin.

``pytest tests/test_speed.py --benchmark-only`` prints the table; ``-k twin -s`` the ratio to the
twin, from alternating runs.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import reference
import twin

import fastincentive as fi
from fastincentive.bench import cases

pytestmark = pytest.mark.slow


def state_of(problem, iterations=10):
    method = fi.BilevelAscent()
    x = np.full(problem.payments.size, 2.0)
    state = method.init(problem, fi.Direct(), x, cases.answers(problem))
    for _ in range(iterations):
        state, _ = method.step_from(problem, fi.Direct(), state)
    return method, state


@pytest.mark.parametrize("name", list(cases.CHECKSUMS))
def test_iteration(benchmark, name):
    problem = cases.build(name)
    method, state = state_of(problem)
    benchmark(method.step_from, problem, fi.Direct(), state)


@pytest.mark.parametrize("name", list(cases.CHECKSUMS))
def test_leader_gradient(benchmark, name):
    problem = cases.build(name)
    policies = cases.answers(problem)
    benchmark(problem.leader_pass, policies)


@pytest.mark.parametrize("name", list(cases.CHECKSUMS))
def test_best_responses(benchmark, name):
    problem = cases.build(name)
    rewards = problem.rewards(np.full(problem.payments.size, 2.0))
    benchmark(problem.followers.best_responses, rewards)


@pytest.mark.parametrize("discount", [0.95, 0.999])
@pytest.mark.parametrize("size", [30, 100])
@pytest.mark.parametrize("what", ["best_responses", "evaluate"])
def test_grids(benchmark, what, size, discount):
    followers = fi.Followers([cases.robot_grid(size, discount)])
    policies = cases.policy(size, "near-greedy")[None]
    arguments = (policies,) if what == "evaluate" else ()
    call = getattr(followers, what)
    call(followers.rewards, *arguments)
    benchmark.pedantic(call, (followers.rewards, *arguments), rounds=3)


@pytest.mark.parametrize("case", list(cases.LEADERS))
def test_leader_gradient_of_dense_rewards(benchmark, case):
    problem, _, policies = cases.leader_case(*case, 0.95)
    problem.leader_pass(policies)
    benchmark.pedantic(problem.leader_pass, (policies,), rounds=3)


@pytest.mark.parametrize("iterations", [0, 10])
@pytest.mark.parametrize("start", ["best-response", "leader-optimal"])
def test_iteration_beside_the_plain_twin(start, iterations):
    problem = cases.build("paper")
    method, state = state_of(problem, 0)
    if start == "leader-optimal":
        policies = fi.leader_optimal_policies(problem)
        state = method.init(problem, fi.Direct(), np.full(2, 2.0), policies)
    for _ in range(iterations):
        state, _ = method.step_from(problem, fi.Direct(), state)
    arguments = twin.iteration_arguments(problem, method, state)
    ours, theirs = [], []
    for _ in range(5):
        began = time.perf_counter()
        expected = reference.ascent_iteration(**arguments)
        theirs.append(time.perf_counter() - began)
        began = time.perf_counter()
        for _ in range(20):
            following, _ = method.step_from(problem, fi.Direct(), state)
        ours.append((time.perf_counter() - began) / 20)
    np.testing.assert_allclose(following.payments, expected[0], atol=1e-6)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"\n{start}, iteration {iterations}: twin {1e3 * statistics.median(theirs):.1f} ms, "
        f"package {1e6 * statistics.median(ours):.0f} us, ratio {ratio:.0f} "
        f"({min(ratios):.0f} to {max(ratios):.0f})"
    )
    assert ratio >= 50
