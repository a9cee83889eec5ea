"""Algorithm 1: one iteration against the plain twin, its options, and the paper's text."""

import numpy as np
import pytest
import reference
import twin
from conftest import assert_close
from twin import label_table

import fastincentive as fi
from fastincentive.kernels import ascent_direction as kernels
from fastincentive.methods import _step_control as step_control
from fastincentive.methods._cutting_planes import add_planes, no_planes
from fastincentive.methods.bilevel_ascent import BilevelAscent


@pytest.fixture(scope="module")
def paper():
    return fi.models.paper_gridworld()


def start(problem, method, policies, payments=2.0, parameterization=None):
    x = np.full(problem.payments.size, payments)
    return method.init(problem, parameterization or fi.Direct(), x, policies)


@pytest.mark.slow
def test_an_iteration_equals_the_plain_twin(paper):
    method = BilevelAscent()
    state = start(paper, method, fi.leader_optimal_policies(paper))
    for k in range(4):
        arguments = twin.iteration_arguments(paper, method, state)
        x, policies, value, gaps = reference.ascent_iteration(**arguments)
        following, report = method.step_from(paper, fi.Direct(), state)
        visited = paper.followers.evaluate(paper.rewards(state.payments), report.policies).visits
        mine = np.where(visited[:, :, None] > 0, following.theta, 0.0)
        other = np.where(visited[:, :, None] > 0, np.stack(policies), 0.0)
        assert_close(report.evaluation.leader_value, value, 1e-9, f"iteration {k}")
        assert_close(report.evaluation.follower_gaps, gaps, 1e-9)
        assert_close(following.payments, x, 1e-7)
        assert_close(mine, other, 1e-7)
        state = following


def test_random_problem_iteration_equals_the_plain_twin():
    problem = fi.models.random_problem(n=2, n_states=6, n_actions=3, unavailable=0.3, rng=4)
    method = BilevelAscent()
    state = start(problem, method, fi.best_response_policies(problem, np.full(4, 2.0)), 1.0)
    for _ in range(5):
        x, policies, value, _ = reference.ascent_iteration(
            **twin.iteration_arguments(problem, method, state)
        )
        state, report = method.step_from(problem, fi.Direct(), state)
        assert_close(report.evaluation.leader_value, value, 1e-9)
        assert_close(state.payments, x, 1e-6)
        assert_close(state.theta, np.stack(policies), 1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
def test_the_papers_literal_geometry_loses_feasibility_and_the_projected_one_holds(paper):
    literal = BilevelAscent(
        geometry="ambient",
        multiplier="joint",
        barrier="gradient",
        natural_gradient=False,
        schedule="constant",
        step=1e-2,
        payment_step=1e-2,
        max_iter=150,
    )
    failed = fi.solve(paper, literal, polish=False)
    assert failed.ascent.feasibility < -1.0
    # The normal part of grad q, which is why: it does not vanish at a best response.
    best = fi.best_response_policies(paper, np.array([2.0, 2.0]))
    ambient = fi.stationarity(paper, 2.0, best, geometry="ambient", multiplier="joint")
    assert abs(ambient.feasibility) < 1e-12
    held = paper.followers.evaluate(paper.rewards(np.array([2.0, 2.0])), best)
    normal = (held.visits[:, :, None] * held.q_values) ** 2
    assert normal.sum() > 1e3
    assert fi.solve(paper, BilevelAscent(), polish=False).ascent.feasibility > -1e-6


def test_multipliers_are_non_negative_and_finite(paper):
    method = BilevelAscent()
    state = start(paper, method, fi.leader_optimal_policies(paper))
    for _ in range(3):
        state, report = method.step_from(paper, fi.Direct(), state)
        assert (report.multipliers >= 0).all()
        assert (report.multipliers < kernels.LARGEST).all()


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize(
    "parameterization", [fi.Direct(), fi.Softmax(0.05)], ids=["direct", "softmax"]
)
@pytest.mark.parametrize(
    "settings",
    [
        {"multiplier": "joint"},
        {"barrier": "gradient"},
        {"multiplier": "joint", "barrier": "gradient"},
        {"response": "boltzmann"},
        {"response": "soft", "temperature": 0.1},
        {"response": "inner", "inner_steps": 5},
        {"schedule": "sqrt"},
        {"schedule": "constant"},
        {"natural_gradient": False, "step": 0.02, "payment_step": 0.02},
        {
            "geometry": "ambient",
            "natural_gradient": False,
            "multiplier": "joint",
            "barrier": "gradient",
            "step": 0.01,
            "payment_step": 0.01,
        },
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values()),
)
def test_every_option_runs_on_example1_and_reports_its_own_point(settings, parameterization):
    problem = fi.models.example1()
    method = BilevelAscent(max_iter=60, **settings)
    solution = fi.solve(problem, method, parameterization, initial_policies="best-response")
    ascent = solution.ascent
    evaluation = problem.evaluate(ascent.payments, ascent.policies)
    assert_close(evaluation.leader_value, ascent.leader_value)
    assert_close(evaluation.objective, ascent.objective)
    assert solution.feasibility >= -1e-9
    np.testing.assert_allclose(ascent.policies.sum(axis=2), 1.0, atol=1e-12)
    if settings.get("response", "greedy") == "greedy":
        assert_close(evaluation.follower_gaps, ascent.follower_gaps)


def test_boltzmann_reference_can_be_beaten():
    problem = fi.models.example1()
    best = fi.best_response_policies(problem, np.array([0.9, 1.9]))
    method = BilevelAscent(response="boltzmann", temperature=0.5)
    state = method.init(problem, fi.Direct(), np.array([0.9, 1.9]), best)
    _, report = method.step_from(problem, fi.Direct(), state)
    assert report.evaluation.feasibility > 0


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"geometry": "flat"}, "geometry"),
        ({"multiplier": "none"}, "multiplier"),
        ({"barrier": ""}, "barrier"),
        ({"response": "best"}, "response"),
        ({"schedule": "fast"}, "schedule"),
        ({"step": 0.0}, "step"),
        ({"payment_step": -1.0}, "payment_step"),
        ({"eta": 0.0}, "eta"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_iter": 0}, "max_iter"),
        ({"pieces": 0}, "pieces"),
        ({"temperature": 0.0}, "temperature"),
        ({"geometry": "ambient"}, "natural_gradient"),
    ],
)
def test_bad_settings_are_named(settings, name):
    with pytest.raises(fi.InputError, match=name):
        BilevelAscent(**settings)


def shared_problem(budget=None, upper=np.inf):
    """Two followers of the paper's grid paid by one posted tariff for each lesser goal."""
    paper = fi.models.paper_gridworld()
    index = np.full(paper.followers.shape, -1)
    index[:, 29] = 0
    index[:, 10] = 1
    labels = paper.leader.labels[:, :, 0]
    leader = fi.LabelReward(labels, label_table(paper))
    payments = fi.Payments.from_index(index, upper=upper, budget=budget)
    return fi.IncentiveProblem(paper.followers, leader, payments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
def test_shared_payments_couple_the_multipliers():
    problem = shared_problem()
    assert problem.payments.shared
    solution = fi.solve(problem, BilevelAscent(max_iter=400))
    assert solution.ascent.follower_gaps.max() <= 1e-3
    assert solution.feasibility >= -1e-9
    x = solution.side_payments
    assert (x[0] == x[1]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
def test_bounds_and_budget_are_kept():
    problem = shared_problem(budget=3.0, upper=2.5)
    solution = fi.solve(problem, BilevelAscent(max_iter=150))
    for x in [solution.payments, *solution.history.payments]:
        assert (x >= 0).all()
        assert (x <= 2.5 + 1e-12).all()
        assert x.sum() <= 3.0 + 1e-9


def test_pieces_replace_the_least_recent_and_know_their_equals():
    pieces = no_planes(1, 2, 1)
    for k, (c, d) in enumerate([(0.0, 1.0), (1.0, 0.5), (0.0, 1.0), (2.0, 0.0)]):
        pieces, fresh = add_planes(pieces, np.array([c]), np.array([[d]]), k)
        assert fresh.sum() == (0 if k == 2 else 1)
    assert sorted(pieces.constant[0]) == [0.0, 2.0]
    assert_close(np.sort(pieces.at(np.array([[3.0]]))[0]), [2.0, 3.0])


def run_controller(points, gap=0.0):
    """Walk through payments (T, 1); returns the factors, and whether the run stalled."""
    none = np.zeros((1, 1, 1))
    controller, last = step_control.first_controller(points[0], none), points[0]
    factors, stalls = [], False
    for k, x in enumerate(points):
        step, travelled = np.abs(x - last).sum(), np.abs(x - controller.anchor).sum()
        controller, stalled = step_control.controlled(
            controller, k, 1.0, gap, step, travelled, x, none
        )
        last, stalls = x, stalls or stalled
        factors.append(controller.factor)
    return factors, stalls


def test_steps_grow_with_straight_stretches_and_shrink_where_iterates_go_to_and_fro():
    straight = np.linspace(0.0, 1.0, 30)[:, None]
    factors, stalls = run_controller(straight)
    assert factors[3] == 1.0
    assert factors[4::5] == [2.0, 4.0, 8.0, 16.0, 16.0, 16.0]
    assert not stalls
    bent = np.cumsum(np.where(np.arange(50) % 5 == 4, -0.05, 0.1))[:, None]
    assert run_controller(bent)[0] == [1.0] * 50  # neither straight nor to and fro
    assert max(run_controller(straight, gap=1e-3)[0]) == 1.0  # gaps must close first
    to_and_fro = np.arange(400.0)[:, None] % 2
    factors, stalls = run_controller(to_and_fro)
    assert factors[-1] == step_control.SHORTEST
    assert stalls


@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("at_the_flat", [True, False])
def test_the_multiplier_is_the_smallest_root_whatever_rounding_says(at_the_flat, seed):
    """Piecewise linear functions with one flat part, known up to a few units of rounding."""
    rng = np.random.default_rng(seed)
    widths = rng.exponential(size=6) * 10.0 ** rng.integers(-2, 4)
    knots = np.concatenate([[0.0], np.cumsum(widths)])
    slopes = rng.exponential(size=7)
    flat = rng.integers(1, 6)
    slopes[flat] = 0.0
    heights = np.concatenate([[0.0], np.cumsum(slopes[:-1] * widths)])
    target, root = heights[flat], knots[flat]
    if not at_the_flat:
        target = rng.uniform(0.0, 1.0 + heights[-1])
        piece = np.flatnonzero(heights <= target)[-1]
        root = knots[piece] + (target - heights[piece]) / slopes[piece]
    # The method lowers its targets by more than rounding.
    target -= 1e-13 * (1.0 + target)
    known = kernels.unbounded()
    for _ in range(100):
        piece = np.flatnonzero(knots <= known.guess)[-1]
        value = heights[piece] + slopes[piece] * (known.guess - knots[piece])
        noise, growth = 4e-16 * rng.normal() * target, slopes[piece] + 1e-17 * rng.random()
        known = kernels.narrow(known, value + noise - target, growth, target)
        if known.done:
            break
    assert known.done
    assert (
        abs(known.guess - root) <= 1e-8 * root + 1e-11 * (1.0 + target) / slopes[slopes > 0].min()
    )
