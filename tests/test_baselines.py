"""The baselines: a growing penalty on the gaps, and a search without derivatives.

The penalty's weight after 10^9 iterations is asked of ``_sigma``: no run gets there.
"""

import numpy as np
import pytest
from conftest import EXACT, GRADIENT, assert_close, random_game, random_policy

import fastincentive as fi
from fastincentive.engines import Local
from fastincentive.errors import InputError
from fastincentive.methods.value_penalty import slopes_at
from fastincentive.methods.zeroth_order import ZerothOrder, exact_objective

#: Certified optimum of the paper's grid, and of Example 1.
PAPER, EXAMPLE = 7.746418484647, 4.0
METHODS = {
    "penalty": fi.ValuePenalty(),
    "zeroth-order": fi.ZerothOrder(),
    "two-point": fi.ZerothOrder(evaluations=600, pairs=1),
}


def drawn(seed, **settings):
    """A random problem in which both followers are paid, and a random point of it."""
    rng = np.random.default_rng(seed)
    game = random_game(rng, 2, 5, 3)
    index = np.full((2, 5, 3), -1)
    index[0, 0], index[0, 2], index[1, 1] = 0, 1, 2
    index[~game.available] = -1
    used = np.unique(index[index >= 0])
    index[index >= 0] = np.searchsorted(used, index[index >= 0])
    problem = game.problem(fi.Payments.from_index(index), cost_weight=0.2, **settings)
    return problem, rng.uniform(0.1, 1.0, used.size), game.policies


def typed(seed):
    """Types of followers with counts above 1."""
    rng = np.random.default_rng(seed)
    problem = fi.models.crowd(7, rng=seed, size=5, types=3)
    policies = random_policy(rng, problem.followers.available)
    return problem, rng.uniform(0.1, 1.0, problem.payments.size), policies


def tariff(seed):
    """Payments that all followers share, at a cost that depends on the policies, discount 1."""
    rng = np.random.default_rng(seed)
    problem = fi.models.demand_response(3, slots=4, rng=seed, work=2)
    policies = random_policy(rng, problem.followers.available)
    return problem, rng.uniform(0.1, 1.0, problem.payments.size), policies


# The penalty


def penalised(problem, payments, policies, sigma):
    at = problem.evaluate(payments, policies)
    return at.objective - float((sigma * problem.followers.counts) @ at.follower_gaps)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "build",
    [drawn, lambda seed: drawn(seed, cost=fi.ExpectedSpend()), typed, tariff],
    ids=["prices", "expected spend", "types", "tariff"],
)
def test_slopes_are_those_of_the_penalised_objective(build, seed):
    problem, x, policies = build(seed)
    followers, rewards = problem.followers, problem.rewards(x)
    sigma = np.random.default_rng(seed).uniform(0.5, 3.0, followers.n)
    held, best = followers.evaluate(rewards, policies), followers.best_responses(rewards)
    at = slopes_at(problem, x, policies, held, best)
    assert_close(at.evaluation.objective, problem.evaluate(x, policies).objective, EXACT)
    weight = sigma * followers.counts
    h = 1e-6

    def along(payments, moved):
        ends = [penalised(problem, x + s * payments, policies + s * moved, sigma) for s in (h, -h)]
        return (ends[0] - ends[1]) / (2.0 * h)

    for k, axis in enumerate(np.eye(x.size)):
        reached = problem.payments.reach == k
        expected = at.payments[k] + (weight[:, None] * at.own)[reached].sum()
        assert_close(along(axis, 0.0 * policies), expected, GRADIENT)
    # Towards other policies: within the simplex, where a constant in a row plays no part.
    other = random_policy(np.random.default_rng(seed + 9), followers.available)
    inside = 0.5 * (other - policies)
    slope = at.policies + (weight[:, None] * held.visits)[:, :, None] * at.advantage
    assert_close(along(0.0 * x, inside), (slope * inside).sum(), GRADIENT)


@pytest.mark.parametrize("parameterization", [fi.Direct(), fi.Softmax(0.5)], ids=type)
@pytest.mark.parametrize("seed", range(4))
def test_a_short_step_climbs(seed, parameterization):
    problem, x, policies = drawn(seed)
    method = fi.ValuePenalty(weight=2.0, step=1e-4, payment_step=1e-4)
    state = method.init(problem, parameterization, x, policies)
    following, report = method.step_from(problem, parameterization, state)
    ahead = parameterization.policies(following.theta, problem.followers)
    before, after = (
        penalised(problem, *point, report.multipliers)
        for point in ((x, report.policies), (following.payments, ahead))
    )
    assert after > before


def test_the_weight_grows_until_no_gap_is_left():
    problem = fi.models.example1()
    found = fi.solve(problem, fi.ValuePenalty(), refine=False)
    assert found.success
    assert found.ascent.follower_gaps.max() <= 1e-4
    weights = found.history.arrays()["multiplier"]
    assert (np.diff(weights) >= 0.0).all()
    assert_close(weights[[49, 50, 100]] / weights[0], [1.0, 2.0, 4.0], 1e-12)
    with pytest.warns(fi.ConvergenceWarning, match="max_iter"):
        short = fi.solve(problem, fi.ValuePenalty(max_iter=20), refine=False)
    assert (short.nit, short.status) == (20, fi.Status.MAX_ITER)


def test_the_weight_stays_a_number():
    method = fi.ValuePenalty(growth=1e6, round_length=1)
    assert 1e11 < method._sigma(10**9) < 1e13
    assert fi.ValuePenalty(weight=1e15)._sigma(10**9) == pytest.approx(1e15)


def test_a_penalty_run_resumes(tmp_path):
    problem, path = fi.models.example1(), tmp_path / "run.npz"
    whole = fi.solve(problem, fi.ValuePenalty(), refine=False)

    def stop(report, count=[0]):  # noqa: B006
        count[0] += 1
        if count[0] == 130:
            raise StopIteration

    settings = {"refine": False, "checkpoint": path}
    fi.solve(problem, fi.ValuePenalty(), callback=stop, **settings)
    resumed = fi.solve(problem, fi.ValuePenalty(), **settings)
    assert resumed.nit == whole.nit
    assert resumed.history.objective == whole.history.objective
    assert (resumed.ascent.theta == whole.ascent.theta).all()


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
def test_policies_that_never_end_are_led_out_again():
    free = fi.models.gridworld("S.L #.G", slip=0.0, discount=1.0)
    (mdp,) = free.followers
    # Each step costs something: who never arrives loses without end.
    cost = np.where(mdp.transition.absorbing, 0.0, 0.1)[:, None]
    paid = free.payments.index >= 0
    problem = fi.IncentiveProblem(
        [mdp.replace(reward=mdp.reward - cost)],
        fi.AdditiveReward(np.where(paid, 1.0, 0.0)),
        fi.Payments.from_index(free.payments.index),
        leader_discount=1.0,
    )
    stays = np.zeros(problem.followers.shape)
    stays[:, :, 0] = 1.0  # up, into the wall
    with pytest.raises(fi.ImproperPolicyError):
        problem.evaluate(0.0, stays)
    found = fi.solve(problem, fi.ValuePenalty(max_iter=200), initial_policies=stays, refine=False)
    assert found.feasibility >= -1e-9
    assert np.isfinite(found.history.objective).all()


# The search without derivatives


@pytest.mark.parametrize("build", [drawn, tariff], ids=["prices", "tariff"])
@pytest.mark.parametrize("seed", range(3))
def test_the_objective_is_that_of_exact_best_responses(build, seed):
    problem, x, _ = build(seed)
    strong = fi.stackelberg_values(problem, x)
    assert_close(exact_objective(problem, x), strong.optimistic.objective, EXACT)


def test_ties_are_broken_for_the_leader():
    # Followers are indifferent at exactly these payments, and do the leader's will.
    problem = fi.models.example1()
    assert_close(exact_objective(problem, np.array([1.0, 2.0])), 3.0, EXACT)
    assert exact_objective(problem, np.array([1.0 - 1e-6, 2.0])) < 2.1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
def test_it_never_ends_below_its_start(seed):
    problem, x, _ = drawn(seed)
    method = ZerothOrder(evaluations=60, rng=seed)
    found = fi.solve(problem, method, initial_payments=x, refine=False)
    start = exact_objective(problem, x)
    history = found.history.arrays()["objective"]
    assert (np.diff([start, *history]) >= -1e-12).all()
    assert found.objective >= found.ascent.objective - 1e-12 >= start - 2e-12
    assert_close(found.ascent.objective, exact_objective(problem, found.ascent.payments), EXACT)
    assert found.ascent.follower_gaps.max() <= 1e-9
    assert len(history) == found.nit == method.max_iter
    assert found.evaluations == 1 + 9 * found.nit <= 60


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
def test_bounds_and_budgets_are_kept():
    upper, budget = np.array([1.5, 0.7]), 1.8
    seen = []
    index = fi.models.example1().payments.index
    for cost in (fi.LinearCost(), fi.QuadraticCost(0.0, 1.0), fi.ExpectedSpend()):
        example = fi.models.example1()
        problem = fi.IncentiveProblem(
            example.followers,
            fi.AdditiveReward(np.ones(example.followers.shape[:2]) * [0.0, 1.0, 2.0, 0.0]),
            fi.Payments.from_index(index, upper, budget),
            leader_discount=0.9,
            cost_weight=0.1,
            cost=cost,
        )
        for method in (ZerothOrder(evaluations=200), fi.ValuePenalty(max_iter=100)):
            found = fi.solve(
                problem,
                method,
                initial_payments=0.5,
                refine=False,
                polish=False,
                callback=lambda report: seen.append(report.payments),
            )
            assert (found.payments >= 0.0).all()
            assert (found.payments <= upper).all()
            if isinstance(method, ZerothOrder):
                assert problem.within_budget(found.payments, found.policies)
    assert (np.array(seen) >= 0.0).all()
    assert (np.array(seen) <= upper).all()


def test_the_same_seed_gives_the_same_run():
    problem = fi.models.example1()
    runs = [
        fi.solve(problem, ZerothOrder(evaluations=300, rng=rng), refine=False) for rng in (3, 3, 4)
    ]
    assert (runs[0].payments == runs[1].payments).all()
    assert runs[0].history.objective == runs[1].history.objective
    assert runs[0].history.objective != runs[2].history.objective


def test_whether_it_goes_on_rising_is_said():
    problem = fi.models.example1()
    assert fi.solve(problem, ZerothOrder(), refine=False).success
    method = ZerothOrder(evaluations=100, radius=0.1, last_radius=0.1, tolerance=1e-3)
    with pytest.warns(fi.ConvergenceWarning, match="raise evaluations"):
        found = fi.solve(problem, method, initial_payments=4.0, refine=False)
    assert not found.success
    assert found.status == fi.Status.MAX_ITER


def test_a_callback_stops_the_search():
    def stop(report):
        raise StopIteration

    found = fi.solve(fi.models.example1(), ZerothOrder(), callback=stop)
    assert (found.status, found.nit, found.evaluations) == (fi.Status.STOPPED, 1, 10)


def test_payments_that_are_earned_for_ever_are_not_posted():
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, :, 1] = 1.0
    mdp = fi.TabularMDP(transition, [[-1.0, 0.0], [0.0, 0.0]], 1.0, 0)
    mask = np.zeros((1, 2, 2), bool)
    mask[0, 0, 0] = True
    problem = fi.IncentiveProblem(
        [mdp], fi.LabelReward([0, 1], [1.0, 0.0]), fi.Payments.at_pairs(mask), 0.9, 0.1
    )
    assert exact_objective(problem, np.array([0.5])) == pytest.approx(0.95)
    assert exact_objective(problem, np.array([1.5])) == -np.inf
    found = fi.solve(problem, ZerothOrder(evaluations=200), initial_payments=0.5, refine=False)
    assert found.payments[0] <= 1.0
    with pytest.raises(InputError, match="bounded best total reward"):
        fi.solve(problem, ZerothOrder(), initial_payments=[1.5], refine=False)


# Both


@pytest.mark.parametrize("name", list(METHODS))
def test_example1(name):
    problem = fi.models.example1()
    found = fi.solve(problem, METHODS[name], refine=False)
    # (1, 2) is stationary, (1, 0) is the best: 3 and 4.
    assert_close(found.objective, 3.0 if name == "penalty" else EXAMPLE, 1e-9)
    assert found.feasibility >= -1e-9
    # What is reported is what is there.
    at = problem.evaluate(found.payments, found.policies)
    assert_close(at.objective, found.objective, 1e-12)
    assert_close(at.follower_gaps, found.follower_gaps, 1e-12)
    last = problem.evaluate(found.ascent.payments, found.ascent.policies)
    assert_close(last.objective, found.ascent.objective, 1e-12)
    assert found.refinement is None


def test_a_heavier_first_weight_finds_the_optimum_of_example1():
    found = fi.solve(fi.models.example1(), fi.ValuePenalty(weight=3.0), refine=False)
    assert_close(found.objective, EXAMPLE, 1e-9)


def test_a_search_over_regimes_goes_on_from_the_baselines():
    problem = fi.models.example1()
    found = fi.solve(problem, fi.ValuePenalty())
    assert_close([found.refinement.objective, found.objective], [3.0, EXAMPLE], 1e-9)
    found = fi.solve(problem, ZerothOrder(evaluations=10, last_radius=1.0))
    assert_close(found.objective, EXAMPLE, 1e-9)


@pytest.mark.slow
def test_the_paper_grid():
    problem = fi.models.paper_gridworld()
    for parameterization in (fi.Direct(), fi.Softmax(0.05)):
        found = fi.solve(problem, fi.ValuePenalty(), parameterization, refine=False)
        assert found.success
        assert 6.5 < found.objective <= PAPER + 1e-9
    for seed in range(3):
        found = fi.solve(problem, ZerothOrder(rng=seed), refine=False)
        assert 7.7 < found.objective <= PAPER + 1e-9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize("method", [fi.ValuePenalty(), ZerothOrder(evaluations=500)], ids=type)
def test_the_size_of_the_leaders_reward_plays_no_part(method):
    game = random_game(np.random.default_rng(5), 2, 5, 3)
    found = []
    for size in (1.0, 1024.0):
        leader = fi.JointReward(size * game.table)
        problem = game.problem(leader=leader, cost_weight=0.02 * size)
        found.append(fi.solve(problem, method, refine=False))
    assert_close(found[1].ascent.payments, found[0].ascent.payments, 1e-6)


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize("method", [fi.ValuePenalty(max_iter=60), ZerothOrder(evaluations=100)])
@pytest.mark.parametrize("build", [typed, tariff], ids=["types", "tariff"])
def test_types_and_tariffs(build, method):
    problem, x, _ = build(1)
    found = fi.solve(problem, method, initial_payments=x, refine=False)
    assert found.feasibility >= -1e-9
    assert np.isfinite(found.objective)


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (fi.ValuePenalty, {"weight": 0.0}, "weight: expected a finite number > 0"),
        (fi.ValuePenalty, {"growth": 1.0}, "growth: expected a finite number > 1"),
        (fi.ValuePenalty, {"growth": np.inf}, "growth: expected"),
        (fi.ValuePenalty, {"step": -1.0}, "step: expected"),
        (fi.ValuePenalty, {"payment_step": np.nan}, "payment_step: expected"),
        (fi.ValuePenalty, {"round_length": 0}, "round_length: expected a positive integer"),
        (fi.ValuePenalty, {"max_iter": 1.5}, "max_iter: expected"),
        (fi.ValuePenalty, {"tolerance": 0.0}, "tolerance: expected"),
        (ZerothOrder, {"evaluations": 9}, "evaluations: expected at least 10 with pairs=4"),
        (ZerothOrder, {"evaluations": 1e3}, "evaluations: expected an integer"),
        (ZerothOrder, {"pairs": 0}, "pairs: expected an integer >= 1"),
        (ZerothOrder, {"radius": 0.0}, "radius: expected"),
        (ZerothOrder, {"last_radius": 2.0}, "last_radius: expected at most the radius 1, got 2"),
        (ZerothOrder, {"step": np.inf}, "step: expected"),
        (ZerothOrder, {"rng": -1}, "rng: expected None, an integer >= 0"),
    ],
)
def test_bad_settings_are_named(build, settings, message):
    with pytest.raises(InputError, match=message):
        build(**settings)


def test_what_plays_no_part_is_refused(tmp_path):
    problem = fi.models.example1()
    for method in (fi.ValuePenalty(), ZerothOrder()):
        with pytest.raises(InputError, match="engine: expected none with"):
            fi.solve(problem, method, engine=Local())
    with pytest.raises(InputError, match="checkpoint: expected none with ZerothOrder"):
        fi.solve(problem, ZerothOrder(), checkpoint=tmp_path / "run.npz")
    with pytest.raises(InputError, match="shards: expected 1 with ValuePenalty"):
        Local(shards=2).run(problem, fi.ValuePenalty(), fi.Direct())
