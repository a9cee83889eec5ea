"""What ``solve`` chooses to do, and that the quick way is as good as the long one."""

import warnings

import numba
import numpy as np
import pytest
from conftest import assert_close
from mixed_problems import COSTS, FORMS, mixed_problem

import fastincentive as fi
from fastincentive.engines import Local

#: One payment each, three of two followers, and one for all.
QUICK = [0, 6, 12, 18, 24, 30, 36, 1, 8, 4, 16, 22]
LISTED = "RegimeAscent: each follower has one payment at most, and all responses to it are listed"


@pytest.fixture
def example():
    return fi.models.example1()


def test_one_payment_each_is_searched_at_once(example):
    found = fi.solve(example)
    assert found.plan == LISTED
    assert found.ascent is None
    assert str(found).splitlines()[0].split(None, 1) == ["plan", LISTED]
    assert fi.solve(example, refine=fi.RegimeAscent(starts=0)).plan == LISTED


def test_one_payment_for_all_is_searched_along_its_line():
    one = "RegimeAscent: there is one payment, and all breakpoints of all followers are priced"
    assert fi.solve(mixed_problem(16).problem).plan == one
    assert fi.solve(fi.models.demand_response(2, 2, work=1)).plan.startswith("BilevelAscent, then")


def test_a_few_payments_each_are_searched_along_lines():
    problem = fi.models.random_problem(2, 6, rng=0, n_payments=3)
    few = "RegimeAscent: lines through the payments of each follower, 3 at most, are searched"
    assert fi.solve(problem).plan == few
    spent = fi.IncentiveProblem(
        problem.followers,
        fi.AdditiveReward(np.arange(6.0)),
        fi.Payments.from_index(problem.payments.index, budget=0.5),
        0.9,
        cost=fi.ExpectedSpend(),
    )
    assert fi.solve(spent).plan == "BilevelAscent, then RegimeAscent"


@pytest.mark.parametrize(
    "given",
    [
        {"parameterization": fi.Direct()},
        {"initial_policies": "best-response"},
        {"engine": Local()},
        {"refine": False},
        {"stationarity_every": 5},
        {"method": fi.BilevelAscent()},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_is_for_algorithm_1_alone_asks_for_it(example, given):
    found = fi.solve(example, **given)
    assert found.ascent is not None
    then = "" if "refine" in given else ", then RegimeAscent"
    assert found.plan == "BilevelAscent" + then


def test_a_checkpoint_is_one_of_algorithm_1(example, tmp_path):
    assert fi.solve(example, checkpoint=tmp_path / "run.npz").ascent is not None


def test_what_is_not_listed_is_climbed(monkeypatch):
    several = fi.models.random_problem(2, 6, rng=0, n_payments=4)
    assert fi.solve(several).plan == "BilevelAscent, then RegimeAscent"
    types = fi.IncentiveProblem(
        fi.Followers(list(several.followers), [2, 3]),
        fi.AdditiveReward(np.arange(6.0)),
        fi.Payments.at_states([[0], [1]]),
        0.9,
        0.2,
    )
    expected = "BilevelAscent: types of followers are not searched by regimes"
    assert fi.solve(types).plan == expected
    for part in ("solver.plan", "problem.memory"):
        monkeypatch.setattr(f"fastincentive.{part}.REFINED_STATES", 2)
    expected = "BilevelAscent: more than 2 states are not searched by regimes"
    assert fi.solve(fi.models.example1()).plan == expected


def test_long_lists_are_not_made_first(example, monkeypatch):
    monkeypatch.setattr("fastincentive.problem.memory.MOST_BYTES", 0)
    assert fi.solve(example).plan == "BilevelAscent, then RegimeAscent"


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="minutes without compiled kernels")
@pytest.mark.parametrize("seed", QUICK)
def test_the_quick_way_is_as_good_as_the_long_one(seed):
    problem = mixed_problem(seed).problem
    quick = fi.solve(problem)
    assert quick.plan.startswith("RegimeAscent: ")
    assert quick.success
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fi.ConvergenceWarning)
        long = fi.solve(problem, fi.BilevelAscent(max_iter=200))
    assert quick.objective >= long.objective - 1e-9 * max(1.0, abs(long.objective))
    assert_close(quick.feasibility, 0.0)


def test_a_leader_who_earns_only_when_all_are_paid_finds_it():
    """Twelve followers, none of whom is worth a payment by itself."""
    mdps, states = [], []
    for _ in range(12):
        transition = np.zeros((3, 2, 3))
        transition[0, 0, 2] = transition[0, 1, 1] = transition[1, :, 2] = transition[2, :, 2] = 1.0
        reward = np.array([[0.5, 0.0], [0.0, 0.0], [0.0, 0.0]])
        mdps.append(fi.TabularMDP(transition, reward, 1.0, 0))
        states.append([1])
    problem = fi.IncentiveProblem(
        mdps, fi.ProductReward([[0.0, 1.0, 0.0]], [100.0]), fi.Payments.at_states(states), 0.9, 1.0
    )
    found = fi.solve(problem)
    assert_close(found.objective, 0.9 * 100.0 - 12 * 0.5)


def test_mixed_problems_are_of_every_kind():
    drawn = [mixed_problem(seed) for seed in range(len(FORMS) * len(COSTS))]
    kinds = [each.kind for each in drawn]
    for name in (*FORMS, *COSTS, "budget", "discount 1"):
        assert any(name in kind for kind in kinds), name
    assert {type(each.parameterization) for each in drawn} == {fi.Direct, fi.Softmax}
    again = mixed_problem(3).problem
    assert again.fingerprint() == drawn[3].problem.fingerprint()
