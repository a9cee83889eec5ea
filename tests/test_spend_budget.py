"""Budgets on what followers are paid, inside Algorithm 1, and what recovery makes of its end."""

import warnings

import numba
import numpy as np
import pytest
from conftest import assert_close
from mixed_problems import mixed_problem

import fastincentive as fi
from fastincentive.methods import _shared_line_search as lines
from fastincentive.methods._regime_search import regime_search
from fastincentive.responses.ties import break_ties
from fastincentive.solver.request import request_of

#: An ascent ends near the optimum, not at it.
NEAR = 1e-3


def paid_worker(budget, weight=1.0):
    """One follower loses 1 by working once, for which the leader earns 10."""
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 2] = transition[0, 1, 1] = transition[1, :, 2] = transition[2, :, 2] = 1.0
    mdp = fi.TabularMDP(transition, [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], 1.0, 0)
    paid = np.zeros((1, 3, 2), bool)
    paid[0, 0, 1] = True
    return fi.IncentiveProblem(
        [mdp],
        fi.AdditiveReward([0.0, 10.0, 0.0]),
        fi.Payments.at_pairs(paid, upper=3.0, budget=budget),
        1.0,
        weight,
        cost=fi.ExpectedSpend(),
    )


@pytest.mark.parametrize("budget", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("parameterization", [fi.Direct(), fi.Softmax(0.05)])
def test_the_ascent_shares_out_a_budget_and_finds_its_price(budget, parameterization):
    problem = paid_worker(budget)
    found = fi.solve(problem, fi.BilevelAscent(), parameterization, refine=False)
    ascent = found.ascent
    # It works with the probability that the budget pays for: each time it earns 10 - 1 for 1.
    assert_close(ascent.objective, 9.0 * budget, NEAR)
    assert_close(ascent.price, 9.0, 9.0 * NEAR)
    assert problem.cost_at(ascent.payments, ascent.policies) <= budget * (1.0 + NEAR)
    assert ascent.follower_gaps.max() < NEAR
    assert ascent.stationarity < NEAR


def test_a_budget_that_is_not_used_up_has_no_price():
    found = fi.solve(paid_worker(2.0), fi.BilevelAscent(), refine=False)
    assert found.ascent.price == 0.0
    assert_close(found.objective, 9.0)
    free = fi.solve(paid_worker(None), fi.BilevelAscent(), refine=False)
    assert free.ascent.price == 0.0
    assert_close(free.objective, 9.0)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="minutes without compiled kernels")
@pytest.mark.parametrize("seed", [2, 6, 13, 15, 30, 31, 45, 51, 63])
def test_recovery_keeps_budgets_and_does_no_worse_than_no_payments(seed):
    problem, parameterization, _ = mixed_problem(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fi.ConvergenceWarning)
        found = fi.solve(problem, fi.BilevelAscent(max_iter=150), parameterization, refine=False)
    assert problem.within_budget(found.payments, found.policies)
    none = problem.payments.lower
    least = problem.evaluate(none, break_ties(problem, none, 1.0)).objective
    assert found.objective >= least - 1e-9 * max(1.0, abs(least))


def test_a_checkpoint_keeps_the_price(tmp_path):
    problem = paid_worker(0.5)
    whole = fi.solve(problem, fi.BilevelAscent(), refine=False)
    path = tmp_path / "run.npz"

    def stop(report):
        if report.iteration == 12:
            raise StopIteration

    fi.solve(problem, fi.BilevelAscent(), refine=False, callback=stop, checkpoint=path)
    resumed = fi.solve(problem, fi.BilevelAscent(), refine=False, checkpoint=path)
    assert resumed.ascent.price == whole.ascent.price
    assert resumed.history.objective == whole.history.objective


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_responses_on_a_line_are_priced_as_their_policies_are(discount, monkeypatch):
    household = fi.models.demand_response(6, 5, work=2).replace(budget=0.6)
    problem = fi.IncentiveProblem(
        household.followers,
        fi.CongestionReward.polynomial(household.leader.labels - 1, [0.0, 0.0, -1.0 / 6]),
        fi.Payments.from_index(household.payments.index, budget=0.6),
        discount,
        0.5,
        cost=fi.ExpectedSpend([1.0, 2.0, 0.5, 1.0, 1.0]),
    )
    found = regime_search(problem, fi.RegimeAscent(rounds=2))
    calls = []
    monkeypatch.setattr(lines, "_spent_along", lambda *given: calls.append(given))
    plain = regime_search(problem, fi.RegimeAscent(rounds=2))
    assert calls
    assert_close(found.objective, plain.objective)
    assert_close(found.payments, plain.payments)


def test_a_follower_paid_for_ever_is_priced_by_its_policy():
    transition = np.zeros((2, 2, 2))
    transition[0, :, 0] = transition[1, :, 1] = 1.0
    mdp = fi.TabularMDP(transition, [[0.0, -0.1], [0.0, 0.0]], 0.9, 0)
    index = np.full((2, 2, 2), -1)
    index[:, 0, 1] = 0
    problem = fi.IncentiveProblem(
        [mdp, mdp],
        fi.AdditiveReward(np.array([[[0.0, 1.0], [0.0, 0.0]]] * 2)),
        fi.Payments.from_index(index, budget=3.0),
        0.9,
        0.1,
        cost=fi.ExpectedSpend(),
    )
    found = fi.solve(problem)
    assert_close(found.payments, [0.1])
    assert_close(found.objective, 2 * 10.0 - 0.1 * 2 * 0.1 * 10.0)


def test_many_households_with_a_tariff_are_climbed_from_nothing():
    problem = fi.models.demand_response(90, 13).replace(budget=1.0)
    asked = request_of(
        **dict.fromkeys(
            ("method", "parameterization", "tie_breaking", "rng", "engine", "checkpoint")
        ),
        problem=problem,
        policies="leader-optimal",
        refine=True,
        checkpoint_every=1,
        stationarity_every=0,
    )
    assert asked.method == fi.BilevelAscent(max_iter=60)
    assert asked.refiner is None
    assert "so many followers share" in asked.plan
    assert (asked.start(None, "leader-optimal")[0] == 0.0).all()
    free = fi.models.demand_response(5, 4)
    with pytest.warns(fi.ConvergenceWarning):
        found = fi.solve(free, fi.BilevelAscent(max_iter=1), refine=False)
    assert (found.history.payments[0] == 2.0).all()
