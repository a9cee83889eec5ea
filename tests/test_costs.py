"""Costs of the leader: their gradients, budgets on them, and the ascent with them."""

import numpy as np
import pytest
import reference
from conftest import EXACT, GRADIENT, ROUNDING, assert_close, random_game, random_policy
from hypothesis import given
from hypothesis import strategies as st
from paid import SHAPE, mixed_payments, rebuilt, two_followers
from scipy.optimize import minimize

import fastincentive as fi
from fastincentive.certificates.stationarity import _Cone
from fastincentive.kernels import simplex
from fastincentive.problem.bound_payments import ROUNDING as BUDGET_ROUNDING

# Costs of the payments alone


def test_linear_cost():
    payments = np.array([1.0, 2.0, 4.0])
    assert fi.LinearCost().value(payments) == 7.0
    np.testing.assert_array_equal(fi.LinearCost().gradient(payments), [1, 1, 1])
    cost = fi.LinearCost([0.0, 0.5, 2.0])
    assert cost.value(payments) == 9.0
    gradient = cost.gradient(payments)
    np.testing.assert_array_equal(gradient, [0.0, 0.5, 2.0])
    gradient[:] = 5.0  # the caller's own array
    assert cost.value(payments) == 9.0
    assert fi.LinearCost(3.0).value(payments) == 21.0


def test_quadratic_cost():
    payments = np.array([1.0, 2.0, 4.0])
    assert fi.QuadraticCost().value(payments) == 7.0 + 21.0
    cost = fi.QuadraticCost([0.0, 0.5, 2.0], [1.0, 0.0, 0.25])
    assert cost.value(payments) == 0 + 1 + 8 + 1 + 0 + 4
    np.testing.assert_array_equal(cost.gradient(payments), [2.0, 0.5, 4.0])
    flat = fi.QuadraticCost([0.0, 0.5, 2.0], 0.0)
    assert flat.value(payments) == fi.LinearCost([0.0, 0.5, 2.0]).value(payments)


COSTS = {
    "linear": fi.LinearCost([0.0, 0.5, 2.0]),
    "quadratic": fi.QuadraticCost([0.0, 0.5, 2.0], [1.0, 0.0, 0.25]),
    "custom": fi.CustomCost(lambda x: np.exp(x).sum(), np.exp),
}


@pytest.mark.parametrize("kind", COSTS)
def test_cost_gradients_against_finite_differences(kind):
    game, problem = two_followers(0, 0.9, COSTS[kind])
    x = np.array([1.0, 2.0, 0.5])
    assert problem.cost_at(x, game.policies) == COSTS[kind].value(x)
    in_payments, in_policies = problem.cost_gradient(x, game.policies)
    slope = reference.finite_difference(lambda y: problem.cost_at(y, game.policies), x)
    assert_close(in_payments, slope, GRADIENT)
    assert in_policies is None
    evaluation = problem.evaluate(x, game.policies)
    assert evaluation.cost == COSTS[kind].value(x)
    assert evaluation.objective == evaluation.leader_value - 0.3 * evaluation.cost


# Budgets


def budget_set(seed, size):
    rng = np.random.default_rng([seed, size])
    prices = rng.random(size) * (rng.random(size) > 0.3)
    curvature = rng.random(size) * (rng.random(size) > 0.3)
    upper = np.where(rng.random(size) < 0.3, np.inf, 3 * rng.random(size))
    return rng, np.zeros(size), upper, prices, curvature, 0.05 + 2 * rng.random()


def project(vector, *limits):
    out = np.full(vector.shape, np.nan)
    simplex.project_quadratic_budget(vector, *limits, out)
    return out


@pytest.mark.parametrize("seed", range(20))
def test_quadratic_projection_matches_slsqp(seed):
    rng, lower, upper, prices, curvature, budget = budget_set(seed, 4)
    vector = 3 * rng.normal(size=4)
    projected = project(vector, lower, upper, prices, curvature, budget)
    found = minimize(
        lambda x: 0.5 * np.sum((x - vector) ** 2),
        np.zeros(4),
        jac=lambda x: x - vector,
        bounds=np.stack([lower, upper], axis=1),
        constraints={
            "type": "ineq",
            "fun": lambda x: budget - prices @ x - curvature @ x**2,
            "jac": lambda x: -prices - 2 * curvature * x,
        },
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    assert_close(projected, found.x, 1e-5)


@given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from([0.3, 3.0, 1e4]))
def test_quadratic_projection_is_a_projection(seed, size, scale):
    rng, *limits = budget_set(seed, size)
    lower, upper, prices, curvature, budget = limits
    vector, other = scale * rng.normal(size=(2, size))
    once = project(vector, *limits)
    assert (once >= lower).all()
    assert (once <= upper).all()
    assert prices @ once + curvature @ once**2 <= budget * (1 + ROUNDING)
    assert_close(project(once, *limits), once, ROUNDING)
    # Obtuse to every point of the convex set, here to another projection.
    inside = project(other, *limits)
    assert (vector - once) @ (inside - once) <= EXACT * scale**2
    straight = np.empty(size)
    simplex.project_budget(vector, lower, upper, prices, budget, straight)
    assert_close(project(vector, lower, upper, prices, np.zeros(size), budget), straight, EXACT)


def test_a_quadratic_budget_of_nothing():
    limits = np.zeros(3), np.full(3, np.inf), np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    projected = project(np.array([2.0, 2.0, 2.0]), *limits, 0.0)
    assert_close(projected, [0.0, 0.0, 2.0])


@pytest.mark.parametrize(
    "cost", [fi.LinearCost([2.0, 0.5, 0.0]), fi.QuadraticCost([2.0, 0.5, 0.0], [0.0, 1.0, 0.5])]
)
def test_a_budget_bounds_the_cost(cost):
    game = random_game(np.random.default_rng(0), *SHAPE, 0.9, unavailable=0.3)
    where = mixed_payments(game, upper=10.0, budget=3.0)
    problem = game.problem(where, cost=cost)
    bound = problem.payments
    rng = np.random.default_rng(2)
    for vector in 4 * rng.normal(size=(20, 3)):
        projected = bound.check(bound.project(vector))
        assert cost.value(projected) <= 3.0 * (1 + ROUNDING)
        assert_close(bound.budget_use(projected), cost.value(projected), ROUNDING)
        slope = cost.gradient(projected)
        np.testing.assert_array_equal(bound.budget_slope(projected), slope)
    for k in range(2):
        alone = np.zeros(3)
        alone[k] = bound.upper[k]
        assert_close(cost.value(alone), 3.0, 2 * BUDGET_ROUNDING)
    over = np.array([1.5, 0.5, 0.0])
    with pytest.raises(fi.InputError, match="expected a cost of at most the budget 3, got"):
        bound.check(over)
    assert problem.within_budget(0.0, game.policies)
    assert not problem.within_budget(over, game.policies)
    assert problem.within_budget(over, game.policies, slack=0.3)
    assert problem.cost_at(over, game.policies) == cost.value(over)


def test_largest_payments_without_a_budget_or_a_price():
    game = random_game(np.random.default_rng(0), *SHAPE, 0.9)
    free = mixed_payments(game, upper=2.0)
    np.testing.assert_array_equal(game.problem(free).payments.upper, [2, 2, 2])
    limited = mixed_payments(game, budget=4.0)
    cost = fi.QuadraticCost([0.0, 2.0, 3.0], [0.0, 0.0, 1.0])
    problem = game.problem(limited, cost=cost)
    assert_close(problem.payments.upper[1:], [2.0, 1.0], 2 * BUDGET_ROUNDING)
    assert problem.payments.upper[0] == np.inf
    # Another budget brings another bound, none the one that was stated.
    assert_close(problem.replace(budget=1.0).payments.upper[1], 0.5, 2 * BUDGET_ROUNDING)
    np.testing.assert_array_equal(problem.replace(budget=None).payments.upper, [np.inf] * 3)


# The ascent


def improves(problem, payments, parameterization=None):
    """Run, and return a solution that is better than best responses to the first payments."""
    method = fi.BilevelAscent(max_iter=400)
    start = fi.best_response_policies(problem, payments)
    before = problem.evaluate(payments, start).objective
    solution = fi.solve(problem, method, parameterization, payments, polish=False)
    after = problem.evaluate(solution.payments, solution.policies)
    assert after.feasibility >= -1e-9
    assert after.objective == pytest.approx(solution.objective)
    assert after.objective > before + 1e-3
    return solution


ASCENT_COSTS = {
    "quadratic": fi.QuadraticCost(0.5, 0.2),
    "spend": fi.ExpectedSpend(0.5),
}


@pytest.mark.parametrize("kind", ASCENT_COSTS)
def test_a_step_goes_along_the_gradient_of_the_objective(kind):
    """A tiny step from inside the simplices, where no gap opens too fast."""
    problem = rebuilt(fi.models.random_problem(2, 5, 2, rng=5), ASCENT_COSTS[kind])
    policies = random_policy(np.random.default_rng(0), problem.followers.available)
    x = np.full(problem.payments.size, 1.0)
    step = 1e-7
    method = fi.BilevelAscent(
        natural_gradient=False, step=step, payment_step=step, schedule="constant", eta=1e-12
    )
    state = method.init(problem, fi.Direct(), x, policies)
    following, report = method.step_from(problem, fi.Direct(), state)
    change = (following.payments - x) / step, (following.theta - policies) / step
    in_payments, in_policies = problem.cost_gradient(x, policies)
    slope = problem.leader_gradient(policies)
    if in_policies is not None:
        slope = slope - problem.cost_weight * in_policies
    assert not report.multipliers.any()
    assert_close(change[0], -problem.cost_weight * in_payments, GRADIENT)
    assert_close(change[1], slope - slope.mean(axis=2, keepdims=True), GRADIENT)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize("kind", ASCENT_COSTS)
def test_the_ascent_on_a_random_problem(kind):
    problem = rebuilt(fi.models.random_problem(rng=5), ASCENT_COSTS[kind])
    improves(problem, 0.1)
    improves(problem, 0.1, fi.Softmax(0.05))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize("kind", ASCENT_COSTS)
def test_the_ascent_on_the_papers_grid(kind):
    problem = rebuilt(fi.models.paper_gridworld(), ASCENT_COSTS[kind])
    solution = improves(problem, 2.0)
    assert solution.objective > 5.0
    ascent = solution.ascent
    assert ascent.feasibility >= -1e-6
    # Stationary: the direction of the ascent is the gradient that the certificate takes.
    assert fi.stationarity(problem, ascent.payments, ascent.policies).measure <= 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize(
    "cost", [fi.LinearCost([2.0, 0.5, 1.0, 1.0]), fi.QuadraticCost(0.5, 0.4)], ids=["linear", "q"]
)
def test_the_ascent_keeps_a_budget(cost):
    problem = rebuilt(fi.models.random_problem(rng=5, cost_weight=0.01), cost, budget=0.3)
    solution = fi.solve(problem, fi.BilevelAscent(max_iter=100), initial_payments=0.0, polish=False)
    for x in [solution.payments, *solution.history.payments]:
        assert cost.value(x) <= 0.3 * (1 + 1e-9)
    assert max(cost.value(x) for x in solution.history.payments) > 0.29  # it binds


def test_stationarity_counts_how_policies_change_the_spend():
    """A follower that does not care, a leader that earns nothing: only the spend is left."""
    mdp = fi.TabularMDP(
        np.full((2, 2, 2), 0.5), np.array([[0.0, 1.0], [0.0, 0.0]]), 0.5, np.array([1.0, 0.0])
    )
    mask = np.zeros((1, 2, 2), bool)
    mask[0, 0, 0] = True
    problem = fi.IncentiveProblem(
        [mdp],
        fi.JointReward(np.zeros(2)),
        fi.Payments.at_pairs(mask),
        leader_discount=0.5,
        cost_weight=1.0,
        cost=fi.ExpectedSpend(),
    )
    halves = np.full((1, 2, 2), 0.5)
    x = np.array([1.0])  # the follower is indifferent
    found = fi.stationarity(problem, x, halves, geometry="ambient", multiplier="joint")
    in_payments, in_policies = problem.cost_gradient(x, halves)
    raw = np.sqrt(np.sum(in_policies**2) + np.sum(in_payments**2))
    assert abs(found.feasibility) < 1e-12
    assert 0 < found.residual <= raw
    # Feasible change: less of the paid action, as far as the follower does not mind.
    assert fi.stationarity(problem, x, halves).residual > 0.1
    unpaid = np.zeros((1, 2, 2))
    unpaid[:, :, 1] = 1.0
    assert fi.stationarity(problem, 0.0, unpaid).measure <= 1e-9


def test_stationarity_where_a_priced_budget_binds():
    """The projection on the budget's tangent cone: nothing is left along its normal."""
    cost = fi.QuadraticCost([2.0, 0.5, 1.0, 1.0], 0.3)
    problem = rebuilt(fi.models.random_problem(rng=5, cost_weight=0.5), cost, budget=1.0)
    x = problem.payments.project(np.full(4, 5.0))
    assert_close(cost.value(x), 1.0)
    policies = fi.best_response_policies(problem, x)
    cone = _Cone(problem, fi.Direct(), x, policies, "tangent")
    normal = cost.gradient(x)
    rng = np.random.default_rng(0)
    rows = np.zeros(policies.size)
    low = x <= 1e-4
    for change in rng.normal(size=(30, 4)):
        projected, face = cone.project(np.concatenate([rows, change]))
        moved = projected[policies.size :]
        assert normal @ moved <= 1e-12
        assert (moved[low] >= 0).all()
        assert_close((change - moved) @ moved, 0.0, 1e-12)  # of a cone
        assert_close(face(projected), projected, 1e-12)
        for other in rng.normal(size=(5, 4)):
            inside, _ = cone.project(np.concatenate([rows, other]))
            assert (change - moved) @ (inside[policies.size :] - moved) <= 1e-12


# Theory, fingerprints, errors


def test_step_bound_of_a_quadratic_cost():
    base = fi.models.random_problem(rng=0)
    steep = fi.QuadraticCost(1.0, [1.0, 5e9, 2.0, 3.0])
    problem = rebuilt(base, steep, upper=1.0)
    assert fi.theory.step_bound(problem, fi.Direct()) == pytest.approx(1 / (0.1 * 1e10))
    # A budget bounds the payments through their prices.
    tight = rebuilt(base, fi.LinearCost(4.0), budget=2.0)
    loose = rebuilt(base, fi.LinearCost(4.0), upper=0.5)
    bounds = [fi.theory.step_bound(each, fi.Direct()) for each in (tight, loose)]
    assert_close(bounds[0], bounds[1], BUDGET_ROUNDING)


def test_fingerprints_tell_costs_apart():
    base = fi.models.random_problem(rng=0)
    costs = [
        None,
        fi.LinearCost(2.0),
        fi.QuadraticCost(1.0, 1.0),
        fi.QuadraticCost(1.0, 2.0),
        fi.ExpectedSpend(),
        fi.ExpectedSpend(2.0),
    ]
    prints = [rebuilt(base, cost).fingerprint() for cost in costs]
    prints += [rebuilt(base, cost, budget=2.0).fingerprint() for cost in costs]
    assert len(set(prints)) == len(prints)
    assert rebuilt(base, fi.LinearCost(1.0)).fingerprint() == prints[0]


@pytest.mark.parametrize("prices", [-1.0, [1.0, -0.5], np.nan, np.inf])
@pytest.mark.parametrize("kind", [fi.LinearCost, fi.QuadraticCost, fi.ExpectedSpend])
def test_prices_must_not_be_negative(kind, prices):
    with pytest.raises(fi.InputError, match="prices: expected numbers >= 0"):
        kind(prices)


def test_arguments_of_costs():
    with pytest.raises(fi.InputError, match="curvature: expected numbers >= 0"):
        fi.QuadraticCost(1.0, -1.0)
    with pytest.raises(fi.InputError, match=r"prices: expected a number or shape \(k,\)"):
        fi.LinearCost(np.ones((2, 2)))


@pytest.mark.parametrize(
    "cost",
    [
        fi.LinearCost([1.0, 2.0, 3.0]),
        fi.QuadraticCost(1.0, [1.0, 2.0, 3.0]),
        fi.ExpectedSpend([1.0, 2.0, 3.0]),
        fi.CustomCost(np.sum, lambda x: 1.0),
    ],
)
@pytest.mark.parametrize("budget", [None, 1.0])
def test_a_cost_of_another_size_is_refused_when_the_problem_is_built(cost, budget):
    with pytest.raises(fi.InputError, match=r"cost: expected a gradient of shape \(2,\)"):
        rebuilt(fi.models.paper_gridworld(), cost, budget)


def test_what_is_no_cost():
    with pytest.raises(fi.InputError, match=r"cost: expected an object with value.*got str"):
        rebuilt(fi.models.paper_gridworld(), "linear")


def test_a_budget_needs_a_cost_that_can_have_one():
    paper = fi.models.paper_gridworld()
    cost = fi.CustomCost(np.sum, np.ones_like)
    rebuilt(paper, cost)
    with pytest.raises(fi.InputError, match=r"budget: expected a linear or quadratic.*CustomCost"):
        rebuilt(paper, cost, budget=1.0)
