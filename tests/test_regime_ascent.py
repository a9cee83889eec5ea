"""Search over regimes: what it returns is as good as it says, and nothing tried beats it."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import reference
from conftest import Arrays, assert_close

import fastincentive as fi
from fastincentive.methods._regime_search import regime_search
from fastincentive.methods.regime_ascent import RegimeAscent
from fastincentive.models.grid import Grid, grid_mdp
from fastincentive.responses.menus import collect, coordinate_lines
from fastincentive.responses.search import Search

STATES, ACTIONS = 6, 3


def as_arrays(mdp):
    return Arrays(
        mdp.dense_transition(), mdp.reward, mdp.discount, mdp.initial, np.array(mdp.available)
    )


class Case:
    """A random problem whose leader's reward is known as a table of joint states and actions."""

    def __init__(self, n, seed, leader="table", paid=1, weight=0.1, upper=np.inf, **settings):
        base = fi.models.random_problem(n, STATES, ACTIONS, rng=seed, n_payments=paid)
        rng = np.random.default_rng(seed)
        self.arrays = [as_arrays(mdp) for mdp in base.followers]
        reward, self.table = LEADERS[leader](rng, n)
        sites = [np.flatnonzero((index >= 0).any(axis=1)).tolist() for index in base.payments.index]
        self.problem = fi.IncentiveProblem(
            base.followers,
            reward,
            fi.Payments.at_states(sites, upper, settings.pop("budget", None)),
            leader_discount=0.9,
            cost_weight=weight,
            **settings,
        )

    def responses(self, payments):
        """Best responses (n,S,A), the first where tied."""
        rewards = self.problem.rewards(payments)
        return np.stack(
            [
                fi.best_response(mdp.replace(reward=reward)).policy
                for mdp, reward in zip(self.problem.followers, rewards, strict=True)
            ]
        )

    def value(self, policies):
        """V by Kronecker products."""
        return reference.kron_leader_value(
            [each.transition for each in self.arrays],
            [each.initial for each in self.arrays],
            list(policies),
            self.table,
            0.9,
        )


def table_reward(rng, n):
    table = rng.random((STATES,) * n)
    return fi.JointReward(table), table


def action_reward(rng, n):
    table = rng.random((STATES, ACTIONS) * n)
    return fi.JointReward(table), table


def additive_reward(rng, n):
    rewards = rng.normal(size=(n, STATES, ACTIONS))
    table = np.zeros((STATES, ACTIONS) * n)
    for i in range(n):
        shape = [1] * (2 * n)
        shape[2 * i : 2 * i + 2] = STATES, ACTIONS
        table = table + rewards[i].reshape(shape)
    return fi.AdditiveReward(rewards), table


def count_reward(rng, n):
    seen, values = rng.random((n, STATES)) < 0.4, rng.normal(size=n + 1)
    count = sum(
        seen[i].reshape([-1 if j == i else 1 for j in range(n)]).astype(int) for i in range(n)
    )
    return fi.CountReward(seen.astype(int), values), values[count]


def sum_reward(rng, n):
    (first, table), (second, other) = count_reward(rng, n), additive_reward(rng, n)
    for i in range(n):
        table = np.expand_dims(table, 2 * i + 1)
    return first + 0.5 * second, table + 0.5 * other


def label_reward(rng, n):
    labels, table = rng.integers(3, size=(n, STATES)), rng.random((3,) * n)
    return fi.LabelReward(labels, table), table[np.ix_(*labels)]


LEADERS = {
    "table": table_reward,
    "actions": action_reward,
    "additive": additive_reward,
    "count": count_reward,
    "sum": sum_reward,
    "labels": label_reward,
}


def smooth_max(x):
    return float(np.sqrt(1.0 + x @ x) - 1.0)


COSTS = {
    "linear": lambda k: fi.LinearCost(np.linspace(0.5, 1.5, k)),
    "quadratic": lambda k: fi.QuadraticCost(np.linspace(0.0, 1.0, k), np.linspace(1.0, 0.2, k)),
    "custom": lambda k: fi.CustomCost(smooth_max, lambda x: x / np.sqrt(1.0 + x @ x)),
    "spend": lambda k: fi.ExpectedSpend(np.linspace(0.5, 1.5, k)),
}


def check_point(problem, point):
    """The objective is that of the point, which is a best response within all bounds."""
    evaluation = problem.evaluate(point.payments, point.policies)
    assert_close(point.objective, evaluation.objective)
    assert abs(evaluation.feasibility) <= 1e-8
    assert (point.payments >= 0).all()
    assert (point.payments <= problem.payments.upper).all()
    assert problem.affords(evaluation.cost)
    assert (np.diff(point.trace) >= 0).all()
    assert_close(point.trace[-1], point.objective)


def scan(case, point, count, rng, top=8.0):
    """Best objective over random payments to one follower, the others as they are."""
    problem, best = case.problem, -np.inf
    for i in range(problem.n):
        mdp, known = problem.followers[i], {}
        mine = problem.payments.reaches[i]
        most = np.minimum(problem.payments.upper[mine], top)
        for t in rng.random((count, int(mine.sum()))):
            x = point.payments.copy()
            x[mine] = t * most
            reward = problem.rewards(x)[i]
            policy = fi.best_response(mdp.replace(reward=reward)).policy
            policies = point.policies.copy()
            policies[i] = policy
            key = policy.tobytes()
            if key not in known:
                known[key] = problem.leader_value(policies)
            cost = problem.cost_pass(x, policies, gradient=False).value
            if problem.affords(cost):
                best = max(best, problem.net(known[key], cost))
    return best


# One payment each: unilaterally optimal


@pytest.mark.slow
@pytest.mark.parametrize("n", range(1, 6))
def test_unilaterally_optimal(n):
    case = Case(n, seed=n, leader="labels")
    point = regime_search(case.problem, RegimeAscent())
    check_point(case.problem, point)
    assert point.complete
    assert scan(case, point, 2000, np.random.default_rng(n)) <= point.objective + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("leader", LEADERS)
@pytest.mark.parametrize("n", [2, 3])
def test_leader_rewards(leader, n):
    if leader == "actions" and n == 3:
        n = 1  # the reference's table would be too large
    case = Case(n, seed=10 + n, leader=leader)
    point = regime_search(case.problem, RegimeAscent())
    check_point(case.problem, point)
    cost = case.problem.cost.value(point.payments)
    assert_close(point.objective, case.value(point.policies) - 0.1 * cost, 1e-9)
    assert scan(case, point, 300, np.random.default_rng(n)) <= point.objective + 1e-9


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("n", [2, 3])
def test_costs(cost, n):
    case = Case(n, seed=20 + n, cost=COSTS[cost](n), weight=0.2)
    point = regime_search(case.problem, RegimeAscent())
    check_point(case.problem, point)
    assert scan(case, point, 300, np.random.default_rng(n)) <= point.objective + 1e-9


def sampled_entries(case, i, top, count):
    """Responses of follower i to a grid of its only payment: [(payment, policy)], cheapest first.

    The payment is refined by bisection down to the breakpoint.
    """
    problem = case.problem
    mdp, base = problem.followers[i], np.array(problem.followers[i].reward)
    line = (problem.payments.index[i] >= 0).astype(float)

    def answer(t):
        return fi.best_response(mdp.replace(reward=base + t * line)).policy

    found = [(0.0, answer(0.0))]
    for t in np.linspace(0.0, top, count)[1:]:
        policy = answer(t)
        if not np.array_equal(policy, found[-1][1]):
            low, high = t - top / (count - 1), t
            while high - low > 1e-13 * top:
                middle = 0.5 * (low + high)
                if np.array_equal(answer(middle), policy):
                    high = middle
                else:
                    low = middle
            found.append((high, policy))
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cost", COSTS)
def test_two_followers_against_all_combinations(seed, cost):
    case = Case(2, seed=30 + seed, cost=COSTS[cost](2), weight=0.3, upper=6.0)
    menus = [sampled_entries(case, i, 6.0, 400) for i in range(2)]
    best = -np.inf
    for (x1, first), (x2, second) in itertools.product(*menus):
        policies, x = np.stack([first, second]), np.array([x1, x2])
        worth = case.problem.cost_pass(x, policies, gradient=False).value
        best = max(best, case.value(policies) - 0.3 * worth)
    point = regime_search(case.problem, RegimeAscent())
    check_point(case.problem, point)
    assert point.objective >= best - 1e-9
    # Breakpoints closer than the grid are all that may be missing.
    assert point.objective <= best + 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("cost", ["linear", "quadratic", "spend"])
@pytest.mark.parametrize("budget", [0.0, 0.1, 1.0])
def test_budgets_are_kept(n, cost, budget):
    case = Case(n, seed=40 + n, cost=COSTS[cost](n), weight=0.01, budget=budget, leader="labels")
    point = regime_search(case.problem, RegimeAscent())
    check_point(case.problem, point)
    assert case.problem.cost_pass(
        point.payments, point.policies, gradient=False
    ).value <= budget * (1.0 + 1e-9)
    assert scan(case, point, 100, np.random.default_rng(n)) <= point.objective + 1e-9


def test_a_start_beyond_the_budget_is_left():
    case = Case(2, seed=3, weight=0.01, budget=0.5)
    free = Case(2, seed=3, weight=0.01)
    menus = collect(case.problem, coordinate_lines(case.problem, np.zeros(2)))
    search = Search(case.problem, menus)
    trace = []
    pick, value = search.climb(menus.first[1:] - 1, True, trace)
    assert np.isfinite(value)
    assert case.problem.affords(case.problem.cost.value(search.payments(pick)))
    best = regime_search(free.problem, RegimeAscent())
    assert value <= best.objective + 1e-12


@pytest.mark.parametrize("n", [1, 2, 4])
def test_upper_bounds_are_kept(n):
    case = Case(n, seed=50 + n, upper=0.3, weight=0.01, leader="labels")
    point = regime_search(case.problem, RegimeAscent())
    check_point(case.problem, point)
    assert scan(case, point, 300, np.random.default_rng(n)) <= point.objective + 1e-9
    free = regime_search(Case(n, seed=50 + n, weight=0.01, leader="labels").problem, RegimeAscent())
    assert free.objective >= point.objective - 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("paid", [[[0], []], [[], [0]], [[], [0], []]])
def test_followers_without_payments(paid):
    base = Case(len(paid), seed=7)
    problem = fi.IncentiveProblem(
        base.problem.followers,
        fi.JointReward(base.table),
        fi.Payments.at_states(paid),
        leader_discount=0.9,
    )
    point = regime_search(problem, RegimeAscent())
    check_point(problem, point)
    case = SimpleNamespace(problem=problem)
    assert scan_paid(case, point, 300) <= point.objective + 1e-9


def scan_paid(case, point, count, top=8.0):
    """As ``scan`` over all payments together, all followers answering."""
    problem, rng, best = case.problem, np.random.default_rng(5), -np.inf
    width = problem.payments.size
    for k, t in enumerate(rng.random((count, width))):
        # Near the point as well as far from it.
        x = point.payments + 0.3 * (2 * t - 1) if k % 3 == 0 else t * top * rng.random()
        x = np.clip(x, 0.0, problem.payments.upper)
        if problem.budget is not None and problem.payments.budget is not None:
            x = problem.payments.project(x)
        actions = problem.followers.best_responses(problem.rewards(x)).actions
        policies = np.eye(problem.followers.n_actions)[actions]
        cost = problem.cost_pass(x, policies, gradient=False).value
        if problem.affords(cost):
            best = max(best, problem.net(problem.leader_value(policies), cost))
    return best


# Several payments per follower, and shared ones


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("cost", COSTS)
def test_several_payments(n, cost):
    case = Case(n, seed=60 + n, leader="labels", paid=3, cost=COSTS[cost](3 * n), weight=0.3)
    start = np.random.default_rng(n).uniform(0.0, 2.0, 3 * n)
    point = regime_search(case.problem, RegimeAscent(), start)
    check_point(case.problem, point)
    assert scan_paid(case, point, 500) <= point.objective + 1e-9
    at_start = case.problem.evaluate(start, case.responses(start))
    assert at_start.objective <= point.objective + 1e-9


@pytest.mark.slow
def test_several_payments_under_a_budget_and_bounds():
    case = Case(2, seed=70, leader="labels", paid=3, weight=0.01, budget=1.0, upper=0.7)
    point = regime_search(case.problem, RegimeAscent())
    check_point(case.problem, point)
    assert scan_paid(case, point, 500) <= point.objective + 1e-9


@pytest.mark.parametrize("seed", [182, 185])
@pytest.mark.parametrize("cost", COSTS)
def test_objective_never_falls_from_round_to_round(seed, cost):
    # Whatever the cost, of two payments for one response the really cheaper one must stay.
    case = Case(2, seed=seed, leader="labels", paid=3, cost=COSTS[cost](6), weight=0.3)
    point = regime_search(case.problem, RegimeAscent(directions=4))
    check_point(case.problem, point)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cost", ["linear", "quadratic", "spend"])
def test_shared_payments(seed, cost):
    base = Case(3, seed=90 + seed, leader="labels")
    rng = np.random.default_rng(seed)
    index = np.full(base.problem.followers.shape, -1)
    index[:, rng.integers(STATES)] = 0
    index[:2, (np.flatnonzero((index[0] < 0).all(axis=1)))[0]] = 1
    problem = fi.IncentiveProblem(
        base.problem.followers,
        LEADERS["labels"](np.random.default_rng(90 + seed), 3)[0],
        fi.Payments.from_index(index, upper=5.0),
        leader_discount=0.9,
        cost=COSTS[cost](2),
    )
    assert problem.payments.shared
    point = regime_search(problem, RegimeAscent())
    check_point(problem, point)
    assert scan_paid(SimpleNamespace(problem=problem), point, 500) <= point.objective + 1e-9


def test_shared_payments_under_a_budget():
    base = Case(3, seed=90, leader="labels")
    index = np.full(base.problem.followers.shape, -1)
    index[:, 1] = 0
    index[:2, 2] = 1
    problem = fi.IncentiveProblem(
        base.problem.followers,
        LEADERS["labels"](np.random.default_rng(90), 3)[0],
        fi.Payments.from_index(index, budget=0.5),
        leader_discount=0.9,
        cost_weight=0.001,
    )
    point = regime_search(problem, RegimeAscent(), np.array([0.2, 0.2]))
    check_point(problem, point)
    assert scan_paid(SimpleNamespace(problem=problem), point, 300) <= point.objective + 1e-9


def test_one_payment_given_as_shared_is_found_as_well():
    # A tariff that reaches one follower only is no tariff; two copies of a follower make it one.
    base = Case(1, seed=4, leader="labels")
    mdp = base.problem.followers[0]
    index = np.where(base.problem.payments.index >= 0, 0, -1)
    reward = fi.AdditiveReward(np.random.default_rng(0).random(STATES))
    settings = {"leader_discount": 0.9, "cost_weight": 0.2}
    alone = fi.IncentiveProblem([mdp], reward, fi.Payments.from_index(index), **settings)
    both = fi.IncentiveProblem(
        [mdp, mdp], reward, fi.Payments.from_index(np.repeat(index, 2, axis=0)), **settings
    )
    one, two = (regime_search(each, RegimeAscent()) for each in (alone, both))
    cost = 0.2 * two.payments.sum()
    assert two.objective >= 2.0 * one.objective + 0.2 * one.payments.sum() - 1e-9
    assert_close(both.leader_value(two.policies) - cost, two.objective)


# Through solve


def test_same_seed_same_answer():
    case = Case(3, seed=5, leader="labels", paid=2)
    first, second = (regime_search(case.problem, RegimeAscent(rng=3)) for _ in range(2))
    assert (first.payments == second.payments).all()
    assert (first.policies == second.policies).all()
    assert first.trace == second.trace


def test_solve_by_regimes_alone(tmp_path):
    case = Case(3, seed=6, leader="labels")
    solution = fi.solve(case.problem, RegimeAscent(), initial_payments=1.0)
    assert solution.success
    assert solution.ascent is None
    assert len(solution.history) == solution.nit == 1  # one round: each follower has one payment
    point = regime_search(case.problem, RegimeAscent(), np.ones(3))
    assert_close(solution.objective, point.objective)
    assert solution.refinement.objective <= solution.objective
    assert_close(solution.refinement.payments, np.ones(3))
    assert_close(
        solution.refinement.improvement, solution.objective - solution.refinement.objective
    )
    assert solution.refinement.complete
    text = str(solution)
    assert "before refinement" in text
    assert "stationarity" not in text
    assert solution.pessimistic_objective <= solution.objective + 1e-12
    check_round_trip(solution, tmp_path / "solution.npz")
    with pytest.raises(fi.InputError, match="checkpoint"):
        fi.solve(case.problem, RegimeAscent(), checkpoint=tmp_path / "run.npz")


def check_round_trip(solution, path):
    fi.save_solution(path, solution)
    loaded = fi.load_solution(path)
    for name in vars(solution):
        kept, read = getattr(solution, name), getattr(loaded, name)
        if name in ("ascent", "refinement"):
            assert (kept is None) == (read is None)
            if kept is None:
                continue
            assert type(read) is type(kept)
            for part in vars(kept):
                np.testing.assert_array_equal(getattr(read, part), getattr(kept, part))
        elif name == "history":
            for column in vars(kept):
                np.testing.assert_array_equal(getattr(read, column), getattr(kept, column))
        else:
            np.testing.assert_array_equal(read, kept)
    assert loaded.status is solution.status
    assert str(loaded) == str(solution)


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize("refine", [True, False, RegimeAscent(starts=2, pairs=0)])
def test_solve_and_refine(refine, tmp_path):
    case = Case(2, seed=8, leader="labels")
    solution = fi.solve(case.problem, fi.BilevelAscent(max_iter=60), refine=refine)
    assert solution.ascent is not None
    assert (solution.refinement is None) == (refine is False)
    plain = fi.solve(case.problem, fi.BilevelAscent(max_iter=60), refine=False)
    assert solution.objective >= plain.objective - 1e-12
    if refine:
        assert solution.refinement.objective <= solution.objective
        assert_close(solution.refinement.objective, plain.objective)
        assert_close(solution.refinement.payments, plain.payments)
        assert_close(solution.refinement.pessimistic_objective, plain.pessimistic_objective)
    evaluation = case.problem.evaluate(solution.payments, solution.policies)
    assert_close(evaluation.objective, solution.objective)
    assert abs(solution.feasibility) <= 1e-9
    check_round_trip(solution, tmp_path / "solution.npz")


def test_certified_bound_is_kept():
    case = Case(2, seed=9, leader="labels")
    solution = fi.solve(case.problem, RegimeAscent(), certify=True)
    assert solution.upper_bound >= solution.objective - 1e-9
    assert solution.optimality_gap == max(solution.upper_bound - solution.objective, 0.0)
    assert "upper bound" in str(solution)
    assert fi.solve(case.problem, RegimeAscent()).upper_bound == np.inf


@pytest.mark.parametrize("name", ["starts", "pairs", "directions", "rounds", "repriced", "rng"])
@pytest.mark.parametrize("value", [-1, 0.5])
def test_settings_are_checked(name, value):
    with pytest.raises(fi.InputError, match=name):
        RegimeAscent(**{name: value})


def test_bad_refine_is_named():
    with pytest.raises(fi.InputError, match="refine"):
        fi.solve(Case(1, seed=0).problem, refine="yes")


def test_without_any_extras():
    case = Case(3, seed=11, leader="labels", paid=2)
    least = RegimeAscent(starts=0, pairs=0, directions=0, rounds=0, repriced=0)
    point = regime_search(case.problem, least)
    check_point(case.problem, point)
    assert point.objective <= regime_search(case.problem, RegimeAscent()).objective + 1e-9


# Many followers


def random_grid(rng):
    """A 6x6 map with two goals, two lesser goals and four fires."""
    cells = np.full(36, ".")
    places = rng.permutation(36)
    cells[places[:2]], cells[places[2:4]], cells[places[4:8]] = "G", "L", "F"
    return Grid.parse("\n".join("".join(row) for row in cells.reshape(6, 6))), places[8:]


@pytest.mark.slow
def test_a_hundred_followers_on_grids():
    rng = np.random.default_rng(12)
    mdps, paid = [], []
    for _ in range(100):
        grid, free = random_grid(rng)
        start = divmod(int(rng.choice(free)), 6)
        mdps.append(
            grid_mdp(
                grid,
                float(rng.choice([0.02, 0.05, 0.1, 0.15])),
                start,
                float(rng.choice([0.9, 0.95, 0.98])),
            )
        )
        paid.append([grid.state(grid.lesser_goals[0])])
    there = np.zeros((100, 37), int)
    there[np.arange(100), np.concatenate(paid)] = 1
    waiting = np.full(37, -0.02)
    waiting[36] = 0.0
    leader = fi.CountReward(there, np.minimum(np.arange(101), 5.0)) + fi.AdditiveReward(waiting)
    problem = fi.IncentiveProblem(
        mdps, leader, fi.Payments.at_states(paid), leader_discount=0.98, cost_weight=0.05
    )
    point = regime_search(problem, RegimeAscent())
    check_point(problem, point)
    assert point.complete
    base = problem.leader_pass(point.policies, gradient=False).value
    for i in rng.choice(100, 15, replace=False):
        known = {}
        for t in rng.uniform(0.0, 15.0, 30):
            x = point.payments.copy()
            x[i] = t
            policy = fi.best_response(problem.followers[i].replace(reward=problem.rewards(x)[i]))
            key = policy.policy.tobytes()
            if key not in known:
                policies = point.policies.copy()
                policies[i] = policy.policy
                known[key] = problem.leader_pass(policies, gradient=False).value - base
            gained = known[key] - 0.05 * (t - point.payments[i])
            assert gained <= 1e-8
