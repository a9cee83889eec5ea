"""The certified optimum, mixing, and ties, against enumeration."""

import itertools
import time

import numpy as np
import pytest
import reference
from conftest import Arrays, assert_close
from twin import label_table

import fastincentive as fi
from fastincentive.certificates.mixing import search_mixing
from fastincentive.certificates.optimum import global_optimum
from fastincentive.methods._regime_search import regime_search
from fastincentive.methods.regime_ascent import RegimeAscent
from fastincentive.models.grid import Grid, grid_mdp, lesser_goal_reward
from fastincentive.responses.menus import collect, coordinate_lines
from fastincentive.responses.search import Search
from fastincentive.responses.ties import break_ties, broken_ties

TOP = 40.0


def as_arrays(mdp):
    return Arrays(
        mdp.dense_transition(), mdp.reward, mdp.discount, mdp.initial, np.array(mdp.available)
    )


def priced_policies(arrays, line, top):
    """[(cheapest payment, policy)] of all deterministic policies that are optimal somewhere.

    Each is optimal where its line is the upper envelope of all lines.
    """
    _, actions = arrays.reward.shape
    choices = [np.flatnonzero(row) for row in arrays.available]
    policies = [np.eye(actions)[list(pick)] for pick in itertools.product(*choices)]
    reward = np.where(arrays.available, arrays.reward, 0.0)
    visits = np.array([arrays.occupancy(policy) for policy in policies])
    constant = (visits * reward).sum(axis=(1, 2))
    slope = (visits * line).sum(axis=(1, 2))
    found = []
    for policy, c, d in zip(policies, constant, slope, strict=True):
        rise = d - slope
        with np.errstate(divide="ignore", invalid="ignore"):
            cross = (constant - c) / rise
        low = max(0.0, cross[rise > 1e-12].max(initial=0.0))
        high = min(top, cross[rise < -1e-12].min(initial=top))
        flat = np.abs(rise) <= 1e-12
        if low <= high + 1e-12 and (constant[flat] <= c + 1e-12).all():
            found.append((low, policy))
    return found


def brute_force(problem, table):
    """Best two (objective, payments) over all combinations, by the reference's values."""
    arrays = [as_arrays(mdp) for mdp in problem.followers]
    menus = [
        priced_policies(each, (index >= 0).astype(float), TOP)
        for each, index in zip(arrays, problem.payments.index, strict=True)
    ]
    # Policies that differ in unvisited states only are one response.
    for i, menu in enumerate(menus):
        seen = {arrays[i].occupancy(policy).round(12).tobytes(): (x, policy) for x, policy in menu}
        menus[i] = list(seen.values())
    found = []
    for combination in itertools.product(*menus):
        x = np.array([price for price, _ in combination])
        value = reference.kron_leader_value(
            [each.transition for each in arrays],
            [each.initial for each in arrays],
            [policy for _, policy in combination],
            table,
            problem.leader_discount,
        )
        found.append((value - problem.cost_weight * problem.cost.value(x), x))
    found.sort(key=lambda each: -each[0])
    return found, [len(menu) for menu in menus]


def small_problem(n, seed, states=4, actions=3, **settings):
    """A random problem with one payment each, and the leader's table."""
    base = fi.models.random_problem(n, states, actions, rng=seed, n_payments=1)
    table = np.random.default_rng(seed).random((states,) * n)
    sites = [np.flatnonzero((index >= 0).any(axis=1)).tolist() for index in base.payments.index]
    budget = settings.pop("budget", None)
    problem = fi.IncentiveProblem(
        base.followers,
        fi.JointReward(table),
        fi.Payments.at_states(sites, settings.pop("upper", TOP), budget),
        **({"leader_discount": 0.9, "cost_weight": 0.1} | settings),
    )
    return problem, table


def check(problem, optimum):
    """What is returned holds together at the returned point."""
    evaluation = problem.evaluate(optimum.payments, optimum.policies)
    assert_close(evaluation.objective, optimum.objective)
    assert_close(evaluation.leader_value, optimum.leader_value)
    assert_close(evaluation.cost, optimum.cost)
    assert abs(evaluation.feasibility) <= 1e-8
    assert optimum.bound >= optimum.objective - 1e-9
    assert optimum.gap == max(optimum.bound - optimum.objective, 0.0)
    assert optimum.combinations == np.prod(optimum.responses.astype(object))
    if optimum.runner_up is not None:
        assert optimum.runner_up.objective <= optimum.objective + 1e-9
    mixed = problem.evaluate(optimum.mixing.payments, optimum.mixing.policies)
    assert optimum.mixing.gain >= 0.0
    assert_close(mixed.objective, optimum.mixing.objective)
    assert abs(mixed.feasibility) <= 1e-8


@pytest.mark.slow
def test_paper_grid():
    problem = fi.models.paper_gridworld()
    optimum = global_optimum(problem)
    check(problem, optimum)
    assert optimum.objective == pytest.approx(7.746418, abs=1e-6)
    assert optimum.payments == pytest.approx([9.2300, 5.4449], abs=1e-4)
    assert optimum.complete
    assert optimum.gap <= 1e-9
    assert optimum.evaluated == optimum.combinations
    assert optimum.runner_up.objective < optimum.objective
    text = str(optimum)
    for word in ("payments", "objective", "bound", "runner-up", "complete", "yes"):
        assert word in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "seed"), [(1, s) for s in range(5)] + [(2, s) for s in range(5)] + [(3, 0), (3, 1)]
)
def test_against_all_combinations(n, seed):
    problem, table = small_problem(n, seed, actions=3 if n < 3 else 2)
    expected, sizes = brute_force(problem, table)
    optimum = global_optimum(problem)
    check(problem, optimum)
    assert optimum.complete
    assert_close(optimum.objective, expected[0][0], 1e-9)
    assert_close(optimum.bound, expected[0][0], 1e-9)
    assert optimum.responses.tolist() == sizes
    assert_close(problem.payments.project(optimum.payments), optimum.payments)
    if len(expected) > 1:
        assert_close(optimum.runner_up.objective, expected[1][0], 1e-9)
        if expected[1][0] - expected[min(2, len(expected) - 1)][0] > 1e-8:
            assert_close(optimum.runner_up.payments, expected[1][1], 1e-8)
    if expected[0][0] - expected[1][0] > 1e-8:
        assert_close(optimum.payments, expected[0][1], 1e-8)


def full_enumeration(problem):
    """Best objective over all entries of all menus, two followers at a time."""
    from fastincentive.responses.menus import collect, coordinate_lines
    from fastincentive.responses.search import Search

    menus = collect(problem, coordinate_lines(problem, np.zeros(problem.payments.size)))
    search = Search(problem, menus)
    picks = itertools.product(*[range(a, b) for a, b in itertools.pairwise(menus.first)])
    return sorted((search.objective(np.array(pick)) for pick in picks), reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "seed"), [(3, 3), (3, 4), (3, 5), (4, 3), (4, 4)])
def test_branch_and_bound_equals_full_enumeration(n, seed):
    problem, _ = small_problem(n, seed, states=5, actions=2)
    optimum = global_optimum(problem)
    check(problem, optimum)
    values = full_enumeration(problem)
    assert len(values) == optimum.combinations
    assert optimum.complete
    assert_close(optimum.objective, values[0], 1e-9)
    assert_close(optimum.bound, values[0], 1e-9)
    assert_close(optimum.runner_up.objective, values[1], 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("leader", ["count", "additive", "both"])
def test_branch_and_bound_for_other_rewards(leader):
    base, _ = small_problem(4, 6, states=6, actions=2)
    rng = np.random.default_rng(4)
    count = fi.CountReward(rng.integers(2, size=(4, 6)), rng.normal(size=5))
    additive = fi.AdditiveReward(rng.normal(size=(4, 6)))
    reward = {"count": count, "additive": additive, "both": count + additive}[leader]
    sites = [np.flatnonzero((index >= 0).any(axis=1)).tolist() for index in base.payments.index]
    problem = fi.IncentiveProblem(
        base.followers, reward, fi.Payments.at_states(sites), leader_discount=0.9
    )
    optimum = global_optimum(problem)
    check(problem, optimum)
    assert_close(optimum.objective, full_enumeration(problem)[0], 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_bound_holds_at_random_payments(n):
    problem, _ = small_problem(n, 20 + n, states=5)
    optimum = global_optimum(problem)
    check(problem, optimum)
    rng = np.random.default_rng(n)
    known = {}
    for _ in range(1000):
        x = rng.uniform(0.0, rng.choice([0.3, 2.0, 10.0]), n)
        actions = problem.followers.best_responses(problem.rewards(x)).actions
        key = actions.tobytes()
        if key not in known:
            known[key] = problem.leader_value(np.eye(3)[actions])
        assert known[key] - 0.1 * x.sum() <= optimum.bound + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_search_never_beats_the_optimum(n):
    problem, _ = small_problem(n, 30 + n, states=4, actions=2)
    found = regime_search(problem, RegimeAscent())
    assert found.objective <= global_optimum(problem).objective + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("cost", ["quadratic", "custom", "spend"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_other_costs(n, cost):
    costs = {
        "quadratic": fi.QuadraticCost(0.5, 1.0),
        "custom": fi.CustomCost(
            lambda x: float(np.sqrt(1.0 + x @ x) - 1.0), lambda x: x / np.sqrt(1.0 + x @ x)
        ),
        "spend": fi.ExpectedSpend(),
    }
    problem, _ = small_problem(n, 40 + n, actions=2, cost=costs[cost], cost_weight=0.3)
    if cost == "custom" and n > 2:
        # No bound is known for parts of such a cost; an error that says so is as good.
        try:
            optimum = global_optimum(problem)
        except fi.InputError as error:
            assert "cost" in str(error)  # noqa: PT017
            return
    else:
        optimum = global_optimum(problem)
    check(problem, optimum)
    assert_close(optimum.objective, full_enumeration(problem)[0], 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("budget", [0.0, 0.2, 1.0])
def test_budgets(n, budget):
    problem, _ = small_problem(n, 50 + n, actions=2, budget=budget, cost_weight=0.01)
    optimum = global_optimum(problem)
    check(problem, optimum)
    assert optimum.payments.sum() <= budget * (1.0 + 1e-9)
    assert_close(optimum.objective, full_enumeration(problem)[0], 1e-9)


@pytest.mark.slow
def test_followers_without_payments():
    base, table = small_problem(3, 60)
    problem = fi.IncentiveProblem(
        base.followers,
        fi.JointReward(table),
        fi.Payments.at_states([[], [1], []]),
        leader_discount=0.9,
    )
    optimum = global_optimum(problem)
    check(problem, optimum)
    assert optimum.responses[[0, 2]].tolist() == [1, 1]
    expected, _ = brute_force_unpaid(problem, table)
    assert_close(optimum.objective, expected, 1e-9)


def brute_force_unpaid(problem, table):
    arrays = [as_arrays(mdp) for mdp in problem.followers]
    fixed = [fi.best_response(mdp).policy for mdp in problem.followers]
    line = (problem.payments.index[1] >= 0).astype(float)
    best, at = -np.inf, None
    for x, policy in priced_policies(arrays[1], line, TOP):
        value = reference.kron_leader_value(
            [each.transition for each in arrays],
            [each.initial for each in arrays],
            [fixed[0], policy, fixed[2]],
            table,
            0.9,
        )
        if value - 0.1 * x > best:
            best, at = value - 0.1 * x, x
    return best, at


@pytest.mark.slow
def test_time_limit_leaves_the_bound_open():
    problem, _ = small_problem(4, 70, states=5, actions=3)
    stopped = global_optimum(problem, time_limit=1e-9)
    assert not stopped.complete
    assert stopped.bound >= stopped.objective
    assert stopped.gap > 0
    evaluation = problem.evaluate(stopped.payments, stopped.policies)
    assert_close(evaluation.objective, stopped.objective)
    # Whatever was left out, no payments beat the bound.
    assert regime_search(problem, RegimeAscent()).objective <= stopped.bound + 1e-9


@pytest.mark.slow
def test_time_limit_covers_all_of_the_search():
    problem, _ = small_problem(5, 70, states=6, actions=3)
    global_optimum(small_problem(3, 70)[0])  # compiled
    began = time.perf_counter()
    assert not global_optimum(problem, time_limit=0.5).complete
    assert time.perf_counter() - began <= 10.0


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"time_limit": 0.0}, "time_limit"),
        ({"time_limit": -1.0}, "time_limit"),
        ({"time_limit": np.nan}, "time_limit"),
    ],
)
def test_bad_arguments_are_named(arguments, match):
    problem, _ = small_problem(1, 0)
    with pytest.raises(fi.InputError, match=match):
        global_optimum(problem, **arguments)


def test_shared_payments_and_other_costs_of_several_are_refused():
    base, table = small_problem(2, 0)
    several = fi.IncentiveProblem(
        base.followers,
        fi.JointReward(table),
        fi.Payments.at_states([[0, 1], [0]]),
        0.9,
        cost=fi.QuadraticCost(),
    )
    with pytest.raises(fi.InputError, match="LinearCost"):
        global_optimum(several)
    index = np.full(base.followers.shape, -1)
    index[:, 0] = 0
    shared = fi.IncentiveProblem(
        base.followers, fi.JointReward(table), fi.Payments.from_index(index), 0.9
    )
    with pytest.raises(fi.InputError, match="shared"):
        global_optimum(shared)


# Grids


def random_grids(seed):
    """Two followers on a random 6x6 map, one payment each at a lesser goal."""
    rng = np.random.default_rng(seed)
    cells = np.full(36, ".")
    places = rng.permutation(36)
    cells[places[:2]], cells[places[2:4]] = "G", "L"
    cells[places[4 : 4 + rng.integers(2, 7)]] = "F"
    grid = Grid.parse("\n".join("".join(row) for row in cells.reshape(6, 6)))
    mdps = [
        grid_mdp(
            grid,
            float(rng.choice([0.02, 0.05, 0.1, 0.15])),
            divmod(int(start), 6),
            float(rng.choice([0.9, 0.95, 0.98])),
        )
        for start in rng.choice(places[10:], 2)
    ]
    lesser = [grid.state(cell) for cell in grid.lesser_goals]
    paid = [[int(s)] for s in rng.permutation(lesser)]
    return fi.IncentiveProblem(mdps, lesser_goal_reward(grid, 2), fi.Payments.at_states(paid))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::fastincentive.TruncationWarning")
@pytest.mark.parametrize(
    # At 15 payments beyond those that are followed must be bounded.
    "seed",
    [*range(12), 15, *(pytest.param(s, marks=pytest.mark.slow) for s in range(12, 60) if s != 15)],
)
def test_solve_finds_the_optimum_on_random_grids(seed):
    problem = random_grids(seed)
    optimum = global_optimum(problem)
    # At discount 1 what very large payments could bring cannot always be bounded.
    assert optimum.complete or np.isinf(fi.upper_bound(problem, mixed=True))
    solution = fi.solve(problem)
    assert abs(solution.objective - optimum.objective) <= 1e-6


# Mixing


def meeting_problem():
    """Two followers, each indifferent between two places; the leader wants one at each."""
    transition = np.zeros((4, 2, 4))
    transition[0, 0, 1] = transition[0, 1, 2] = 1.0
    transition[1:, :, 3] = 1.0
    mdps = [fi.TabularMDP(transition, np.zeros((4, 2)), 0.9, 0)] * 2
    table = np.zeros((4, 4))
    table[1, 2] = table[2, 1] = 1.0
    return fi.IncentiveProblem(
        mdps, fi.JointReward(table), fi.Payments.at_states([[3], [3]]), 0.9, 0.0
    )


def appointment(waiters):
    """Followers that are to arrive together at time 2, told by a clock; they may wait or leave.

    Waiting earns 1 a step, worth 2 at discount 1/2, and so does leaving: all ways are optimal. To
    leave at time 1 is to wait once and then not, in the same state: only a mixture does.
    """
    transition = np.zeros((4, 2, 4))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1, :, 2] = transition[2:, :, 3] = 1.0
    waiter = fi.TabularMDP(transition, [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], 0.5, 0)
    ticks = np.zeros((4, 2, 4))
    ticks[[0, 1, 2, 3], :, [1, 2, 3, 3]] = 1.0
    clock = fi.TabularMDP(ticks, np.zeros((4, 2)), 0.5, 0)
    n = waiters + 1
    table = np.zeros((4,) * n)
    table[(1,) * waiters + (2,)] = 1.0
    return fi.IncentiveProblem(
        [waiter] * waiters + [clock],
        fi.JointReward(table),
        fi.Payments.at_states([[3]] * n, upper=0.0),
        0.9,
    )


@pytest.mark.slow
@pytest.mark.parametrize("waiters", [1, 2])
def test_mixing_where_one_waits_and_leaves(waiters):
    problem = appointment(waiters)
    optimum = global_optimum(problem)
    check(problem, optimum)
    # Waiting with chance p, one arrives at time 2 with chance p (1 - p).
    assert_close(optimum.objective, 0.0)
    assert optimum.mixing.helped
    assert optimum.mixing.searched >= 1
    assert_close(optimum.mixing.gain, 0.81 * 0.25**waiters, 1e-6)
    assert_close(optimum.mixing.policies[:-1, 0], np.full((waiters, 2), 0.5), 1e-2)
    arrays = [as_arrays(mdp) for mdp in problem.followers]
    value = reference.kron_leader_value(
        [each.transition for each in arrays],
        [each.initial for each in arrays],
        list(optimum.mixing.policies),
        label_table(problem),
        0.9,
    )
    assert_close(optimum.mixing.objective, value)


def test_mixing_may_be_left_out():
    problem = appointment(1)
    optimum = global_optimum(problem, mixing=0)
    assert optimum.mixing.searched == 0
    assert optimum.mixing.gain == 0.0
    for bad in (-1, 0.5):
        with pytest.raises(fi.InputError, match="mixing"):
            global_optimum(problem, mixing=bad)


def test_mixing_at_separate_states_never_helps():
    # Seen once each, the value is linear in each follower's choice: a corner is best.
    problem = meeting_problem()
    optimum = global_optimum(problem)
    check(problem, optimum)
    assert_close(optimum.objective, 0.9)
    assert optimum.mixing.gain <= 1e-9
    assert optimum.mixing.searched >= 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_mixing_is_never_worse(seed):
    problem, _ = small_problem(2, 80 + seed)
    optimum = global_optimum(problem)
    point = (optimum.payments, optimum.policies)
    mixed = search_mixing(problem, point, optimum.objective, [point])
    assert mixed.objective >= optimum.objective
    evaluation = problem.evaluate(mixed.payments, mixed.policies)
    assert_close(evaluation.objective, mixed.objective)
    assert abs(evaluation.feasibility) <= 1e-8


def endless_wait():
    """Discount 1: waiting is free, and tied with leaving for 5; the leader likes waiting."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, :, 1] = 1.0
    mdp = fi.TabularMDP(transition, [[0.0, 5.0], [0.0, 0.0]], 1.0, 0)
    mask = np.zeros((1, 2, 2), bool)
    mask[0, 0, 1] = True
    return fi.IncentiveProblem([mdp], fi.JointReward([1.0, 0.0]), fi.Payments.at_pairs(mask), 0.9)


def test_mixing_does_not_wait_for_ever():
    # Waiting with chance p < 1 earns the follower 5 and the leader up to 10; p = 1 earns nothing.
    problem = endless_wait()
    optimum = global_optimum(problem)
    check(problem, optimum)
    assert_close(optimum.objective, 1.0)
    assert optimum.mixing.objective < 10.0


def test_mixing_keeps_a_budget_on_what_is_spent():
    problem, _ = small_problem(2, 90, cost=fi.ExpectedSpend(), budget=0.3, cost_weight=0.01)
    optimum = global_optimum(problem)
    check(problem, optimum)
    for payments, policies in (
        (optimum.payments, optimum.policies),
        (optimum.mixing.payments, optimum.mixing.policies),
    ):
        assert problem.affords(problem.cost_pass(payments, policies, gradient=False).value)


# Ties


def tied_problem(rng, n, states=4, actions=2, discount=0.5):
    """Small whole numbers: many ties at no payment."""
    mdps = []
    for _ in range(n):
        successors = rng.integers(states, size=(states, actions, 2))
        reward = rng.integers(0, 2, size=(states, actions))
        mdps.append(
            fi.TabularMDP.from_successors(
                successors, np.full(successors.shape, 0.5), reward, discount, 0
            )
        )
    table = rng.normal(size=(states,) * n)
    problem = fi.IncentiveProblem(
        mdps, fi.JointReward(table), fi.Payments.at_states([[0]] * n), 0.9
    )
    return problem, table


def optimal_policies(arrays):
    """All deterministic policies with the best value from the start."""
    choices = [np.flatnonzero(row) for row in arrays.available]
    policies = [np.eye(arrays.reward.shape[1])[list(pick)] for pick in itertools.product(*choices)]
    values = np.array([arrays.initial @ arrays.evaluate(policy)[0] for policy in policies])
    return [p for p, v in zip(policies, values, strict=True) if v >= values.max() - 1e-10]


@pytest.mark.parametrize("seed", range(25))
def test_ties_against_enumeration(seed):
    rng = np.random.default_rng(seed)
    n = 1 + seed % 3
    problem, table = tied_problem(rng, n, states=4 if n < 3 else 3)
    arrays = [as_arrays(mdp) for mdp in problem.followers]
    values = [
        reference.kron_leader_value(
            [each.transition for each in arrays],
            [each.initial for each in arrays],
            list(policies),
            table,
            0.9,
        )
        for policies in itertools.product(*[optimal_policies(each) for each in arrays])
    ]
    x = np.zeros(n)
    for sign, expected in ((1.0, max(values)), (-1.0, min(values))):
        answer = broken_ties(problem, x, sign)
        assert answer.exact
        assert_close(problem.leader_value(answer.policies), expected)
        assert abs(problem.evaluate(x, answer.policies).feasibility) <= 1e-9
        start = np.stack([optimal_policies(each)[-1] for each in arrays])
        kept = break_ties(problem, x, sign, start)
        assert_close(problem.leader_value(kept), expected)


def many_tied(n, rng):
    """n followers, each indifferent between two ways; the leader counts who takes the first."""
    transition = np.zeros((4, 2, 4))
    transition[0, 0, 1] = transition[0, 1, 2] = 1.0
    transition[1:, :, 3] = 1.0
    mdps = []
    for _ in range(n):
        reward = np.zeros(4)
        reward[1] = reward[2] = rng.integers(1, 4)
        mdps.append(fi.TabularMDP(transition, reward, 0.9, 0))
    # Not monotone: best at some number between.
    values = -((np.arange(n + 1) - 0.37 * n) ** 2) / n
    own = np.zeros((n, 4))
    own[:, 1] = rng.normal(size=n)
    leader = fi.CountReward([0, 1, 0, 0], values - values[0]) + fi.AdditiveReward(own)
    problem = fi.IncentiveProblem(mdps, leader, fi.Payments.at_states([[1]] * n), 0.9)
    return problem, values - values[0], own[:, 1]


@pytest.mark.slow
def test_ties_of_many_followers_bracket_every_sample():
    rng = np.random.default_rng(2)
    problem, _, _ = many_tied(30, rng)
    x = np.zeros(30)
    best, worst = (broken_ties(problem, x, sign) for sign in (1.0, -1.0))
    assert not best.exact
    high, low = (problem.leader_value(each.policies) for each in (best, worst))
    for _ in range(300):
        policies = np.zeros(problem.followers.shape)
        policies[:, 1:, 0] = 1.0
        policies[np.arange(30), 0, (rng.random(30) < rng.random()).astype(int)] = 1.0
        assert low - 1e-9 <= problem.leader_value(policies) <= high + 1e-9
    for each in (best, worst):
        assert abs(problem.evaluate(x, each.policies).feasibility) <= 1e-9


@pytest.mark.slow
def test_ties_of_many_followers_against_the_exact_answer():
    # Sorted by what each adds of its own, the best and the worst sets of each size are known.
    rng = np.random.default_rng(3)
    problem, values, own = many_tied(30, rng)
    order = np.sort(own)[::-1]
    sums = np.concatenate([[0.0], np.cumsum(order)])
    least = np.concatenate([[0.0], np.cumsum(order[::-1])])
    x = np.zeros(30)
    best = problem.leader_value(break_ties(problem, x, 1.0))
    worst = problem.leader_value(break_ties(problem, x, -1.0))
    assert best <= 0.9 * (values + sums).max() + 1e-9
    assert_close(best, 0.9 * (values + sums).max(), 1e-2)
    assert worst >= 0.9 * (values + least).min() - 1e-9
    assert_close(worst, 0.9 * (values + least).min(), 1e-2)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_loops_that_never_end_are_not_chosen(sign):
    problem = endless_wait()
    policies = break_ties(problem, np.zeros(1), sign)
    assert_close(policies[0, 0], [0.0, 1.0])
    assert_close(problem.evaluate(np.zeros(1), policies).follower_values, [5.0])
    # Two states that send each other on are such a loop as well.
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1] = transition[1, 0, 0] = 1.0
    transition[:2, 1, 2] = transition[2, :, 2] = 1.0
    mdp = fi.TabularMDP(transition, [[0.0, 5.0], [0.0, 5.0], [0.0, 0.0]], 1.0, 0)
    for rewards in ([1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]):
        pair = fi.IncentiveProblem(
            [mdp], fi.JointReward(rewards), fi.Payments.at_states([[0]]), 0.9
        )
        answer = break_ties(pair, np.zeros(1), sign)
        evaluation = pair.evaluate(np.zeros(1), answer)
        assert_close(evaluation.follower_values, [5.0])
        # Leave at once, or after one step: the leader's choice of the two.
        values = [rewards[0], rewards[0] * 1.9]
        expected = max(values) if sign > 0 else min(values)
        assert_close(evaluation.leader_value, expected)


def test_a_start_is_kept_if_nothing_is_better():
    problem = meeting_problem()
    x = np.zeros(2)
    apart = break_ties(problem, x, 1.0)
    value = problem.leader_value(apart)
    other = apart[::-1].copy()  # the other way round is as good
    kept = break_ties(problem, x, 1.0, other)
    assert_close(problem.leader_value(kept), value)
    assert_close(kept[:, 0], other[:, 0])
    # One that is not a best response is not kept.
    paid = np.array([0.0, 1.0])
    problem = fi.IncentiveProblem(
        problem.followers,
        fi.JointReward(label_table(problem)),
        fi.Payments.at_states([[1], [1]]),
        0.9,
    )
    answer = break_ties(problem, paid, -1.0, apart)
    assert abs(problem.evaluate(paid, answer).feasibility) <= 1e-9
    assert_close(answer[1, 0], [1.0, 0.0])


# Several payments per follower


def several(scale=1.0, states=((0, 3), (1, 4)), upper=np.inf):
    base = fi.models.random_problem(2, n_states=6, rng=3)
    table = np.random.default_rng(1).random((6, 6))
    return fi.IncentiveProblem(
        [mdp.replace(reward=mdp.reward * scale) for mdp in base.followers],
        fi.JointReward(table * scale),
        fi.Payments.at_states(states, upper=upper),
        leader_discount=0.9,
    )


@pytest.mark.slow
def test_several_payments_have_no_scale_of_their_own():
    first = global_optimum(several())
    assert first.complete
    for scale in (1e-6, 1e6):
        other = global_optimum(several(scale))
        assert other.complete
        assert_close(other.objective / scale, first.objective, 1e-9)
        assert_close(other.payments / scale, first.payments, 1e-7)


@pytest.mark.slow
def test_several_payments_next_to_none_and_payments_without_room():
    for problem in (
        several(states=((0, 3), ())),
        several(upper=[0.0, 5.0, 5.0, 0.0]),
        several(upper=[0.0, 0.0, 5.0, 5.0]),
    ):
        optimum = global_optimum(problem)
        assert optimum.complete
        found = fi.solve(problem, method=fi.RegimeAscent()).objective
        assert found <= optimum.bound + 1e-9
        rng = np.random.default_rng(0)
        high = np.minimum(problem.payments.upper, 5.0)
        for _ in range(200):
            x = rng.uniform(0.0, high) * (rng.random(high.size) < 0.7)
            policies = fi.best_response_policies(problem, x)
            assert problem.evaluate(x, policies).objective <= optimum.bound + 1e-9


def test_payments_everywhere_are_searched_along_lines():
    base = fi.models.random_problem(1, n_states=8, n_actions=2, rng=0)
    problem = fi.IncentiveProblem(
        base.followers,
        fi.AdditiveReward(np.random.default_rng(0).random(8)),
        fi.Payments.from_index(np.arange(16).reshape(1, 8, 2), upper=2.0),
        leader_discount=0.9,
        cost_weight=0.05,
    )
    found = global_optimum(problem)
    assert not found.complete
    lines = Search(problem, collect(problem, coordinate_lines(problem, np.zeros(16))))
    assert found.objective >= lines.single_values().max() - 1e-9


def test_a_cost_that_falls_leaves_the_certificate_incomplete():
    base, _ = small_problem(1, 0)
    cost = fi.CustomCost(lambda x: float(((x - 3.0) ** 2).sum()), lambda x: 2.0 * (x - 3.0))
    problem = fi.IncentiveProblem(
        base.followers, fi.JointReward(np.ones(base.followers.n_states)),
        fi.Payments.at_states([[0]], upper=10.0), leader_discount=0.9, cost=cost,
    )  # fmt: skip
    assert not global_optimum(problem).complete


def test_three_followers_with_little_time():
    problem = fi.models.random_problem(
        3, n_states=3, n_actions=2, branching=2, rng=2, discounts=(0.3, 0.5), leader_discount=0.5,
        n_payments=1,
    )  # fmt: skip
    optimum = global_optimum(problem)
    assert optimum.complete
    assert optimum.gap <= 1e-9
    assert optimum.evaluated <= optimum.combinations
    assert "combinations" in str(optimum)
    found = fi.solve(problem, method=RegimeAscent(starts=2), certify=True)
    assert_close(found.objective, optimum.objective, 1e-9)
    assert optimum.bound <= found.upper_bound + 1e-9
