"""Smooth responses, their total derivatives, and the climb along them."""

import numpy as np
import pytest
import reference
from conftest import EXACT, GRADIENT, ROUNDING, assert_close, random_game

import fastincentive as fi
from fastincentive.engines import Local
from fastincentive.errors import InputError
from fastincentive.followers.followers import Followers
from fastincentive.followers.single import uniform_policies
from fastincentive.methods._kink_starts import Looked, kink_starts
from fastincentive.responses.smooth import answer

SMOOTH = ("soft", "boltzmann")


def paid_game(seed, n=2, states=4, actions=3, discount=0.9, **settings):
    """A random game with payments at some pairs, and payments that are not tiny."""
    rng = np.random.default_rng([seed, n])
    game = random_game(rng, n, states, actions, discount, bool(seed % 2), closed=1)
    mask = game.available & (rng.random(game.available.shape) < 0.3)
    mask[:, -1] = False
    mask[0, 0] = game.available[0, 0]
    settings = {"cost_weight": 0.3, "tail_tolerance": 1e-14} | settings
    problem = game.problem(payments=fi.Payments.at_pairs(mask), **settings)
    return game, problem, rng.uniform(0.1, 1.0, problem.payments.size)


def differences(function, x, step=1e-5):
    """Central differences (k,) of a function of payments."""
    found = np.empty(x.size)
    for k in range(x.size):
        moved = step * (np.arange(x.size) == k)
        found[k] = (function(x + moved) - function(x - moved)) / (2.0 * step)
    return found


def assert_derivative(problem, x, response, temperature):
    found = fi.hypergradient(problem, x, response, temperature)

    def objective(at):
        return fi.hypergradient(problem, at, response, temperature).objective

    expected = differences(objective, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.gradient, expected, rtol=0.0, atol=GRADIENT * scale)
    return found


# The models


def test_soft_responses_are_those_of_log_domain_value_iteration():
    game, problem, x = paid_game(0)
    found = fi.follower_responses(problem, x, "soft", 0.3)
    rewards = problem.rewards(x)
    for i, each in enumerate(game.followers):
        policy, values, q_values = reference.soft_best_response(
            each.transition, rewards[i], each.discount, each.available, 0.3, each.sinks
        )
        assert_close(found.policies[i], policy, 1e-9)
        assert_close(found.model_values[i], values, 1e-9)
        shown = each.available
        assert_close(found.q_values[i][shown], q_values[shown], 1e-9)


@pytest.mark.parametrize("response", ["greedy", *SMOOTH])
def test_values_are_those_of_the_policies_without_entropy(response):
    game, problem, x = paid_game(1)
    temperature = None if response == "greedy" else 0.4
    found = fi.follower_responses(problem, x, response, temperature)
    rewards = problem.rewards(x)
    for i, each in enumerate(game.followers):
        values, _ = reference.evaluate_policy(
            each.transition,
            rewards[i],
            each.discount,
            found.policies[i],
            each.absorbing if each.discount == 1.0 else None,
        )[:2]
        assert_close(found.values[i], values, EXACT)
        assert found.start_values[i] == pytest.approx(each.initial @ values)
        assert_close(found.occupancy[i], each.occupancy(found.policies[i]), EXACT)
    best = fi.follower_responses(problem, x)
    assert (found.start_values <= best.start_values + 1e-10).all()


def test_boltzmann_is_the_softmax_of_the_best_action_values():
    game, problem, x = paid_game(2)
    found = fi.follower_responses(problem, x, "boltzmann", 0.4)
    best = problem.followers.best_responses(problem.rewards(x))
    for i, each in enumerate(game.followers):
        expected = reference.softmax_policy(
            np.where(each.available, best.q_values[i], 0.0), 0.4, each.available
        )
        assert_close(found.policies[i], expected, ROUNDING)
    assert_close(found.model_values, best.values, EXACT)


def test_the_derivative_of_soft_values_is_the_occupancy():
    _, problem, x = paid_game(3)

    def regularized(at):
        found = fi.follower_responses(problem, at, "soft", 0.3)
        return problem.followers.start_values(found.model_values).sum()

    found = fi.follower_responses(problem, x, "soft", 0.3)
    slope = problem.payments.pull_back(found.occupancy)
    assert_close(slope, differences(regularized, x), GRADIENT)


def test_under_a_boltzmann_response_feasibility_may_be_positive():
    _, problem, x = paid_game(4)
    start = fi.follower_responses(problem, x, "boltzmann", 1.0).start_values
    best = fi.follower_responses(problem, x).start_values
    assert (best > start + 1e-3).all()  # q of an exact best response is positive
    solution = fi.solve(
        problem,
        fi.BilevelAscent(response="boltzmann", temperature=1.0),
        fi.Softmax(0.05),
        initial_policies="best-response",
        refine=False,
    )
    assert solution.success
    assert solution.ascent.feasibility > 1e-3
    assert abs(solution.feasibility) < 1e-9  # of exact best responses


# The hypergradient


@pytest.mark.parametrize("response", SMOOTH)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_hypergradients_are_those_of_central_differences(n, response):
    for seed in range(20):
        cost = fi.ExpectedSpend() if seed % 3 == 0 else None
        discount = 1.0 if seed % 4 == 1 else 0.9
        _, problem, x = paid_game(seed, n, 3 if n == 5 else 5, 2, discount, cost=cost)
        assert_derivative(problem, x, response, 0.3)


def shared_tariff(problem):
    """The same problem with three payments that followers share."""
    index = problem.payments.index
    shared = np.where(index >= 0, index % 3, -1)
    return fi.IncentiveProblem(
        problem.followers,
        fi.AdditiveReward([1.0, -0.5, 2.0, 0.0]) + fi.CountReward([0, 1, 1, 0], [0.0, 1.0, -2.0]),
        fi.Payments.from_index(shared),
        leader_discount=0.9,
        tail_tolerance=1e-14,
    )


@pytest.mark.parametrize("response", SMOOTH)
def test_hypergradients_of_shared_payments_and_quadratic_costs(response):
    _, problem, _ = paid_game(0)
    shared = shared_tariff(problem)
    assert_derivative(shared, np.array([0.4, 0.7, 0.2]), response, 0.5)
    _, problem, x = paid_game(5, cost=fi.QuadraticCost(1.0, 0.5))
    assert_derivative(problem, x, response, 0.5)


@pytest.mark.parametrize("response", SMOOTH)
def test_hypergradients_of_types_are_those_of_all_their_followers(response):
    _, problem, _ = paid_game(0)
    mdps, counts = list(problem.followers), np.array([2, 3])
    leader = fi.CountReward([0, 1, 1, 0], [0.0, 1.0, -2.0, 0.5, 1.0, 3.0])
    index = np.full(problem.followers.shape, -1)
    index[:, 0], index[:, 1] = 0, np.array([[1], [2]])
    index[~problem.followers.available] = -1
    settings = {"leader_discount": 0.9, "tail_tolerance": 1e-14}
    types = fi.IncentiveProblem(
        Followers(mdps, counts), leader, fi.Payments.from_index(index), **settings
    )
    each = np.repeat(np.arange(2), counts)
    spread = fi.IncentiveProblem(
        [mdps[i] for i in each], leader, fi.Payments.from_index(index[each]), **settings
    )
    x = np.array([0.5, 1.0, 0.2])
    one, all_of_them = (fi.hypergradient(p, x, response, 0.5) for p in (types, spread))
    assert one.objective == pytest.approx(all_of_them.objective, rel=1e-12)
    assert_close(one.gradient, all_of_them.gradient, EXACT)


@pytest.mark.parametrize("response", SMOOTH)
@pytest.mark.parametrize("temperature", [1e-4, 1e-2, 1.0, 1e3, 1e6])
def test_large_rewards_and_small_temperatures_stay_in_range(response, temperature):
    for seed in range(4):
        game, problem, x = paid_game(seed, discount=1.0 if seed % 2 else 0.9)
        for each in game.followers:
            each.reward[:] *= 1e3
        problem = game.problem(payments=fi.Payments.from_index(problem.payments.index))
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            found = fi.follower_responses(problem, 1e3 * x, response, temperature)
            slope = fi.hypergradient(problem, 1e3 * x, response, temperature)
        assert (found.policies >= 0.0).all()
        assert_close(found.policies.sum(axis=2), np.ones(found.values.shape), ROUNDING)
        for array in (found.values, found.model_values, found.occupancy, slope.gradient):
            assert np.isfinite(array).all()
        best = fi.follower_responses(problem, 1e3 * x)
        if temperature == 1e-4:
            assert_close(found.start_values, best.start_values, 1e-6)


@pytest.mark.slow
def test_many_states_are_differentiated_by_sweeps():
    rng = np.random.default_rng(0)
    states = 450
    mdp = fi.TabularMDP.from_successors(
        (np.arange(states)[:, None, None] + [[[0, 1, 7]], [[3, 5, 11]]][0:1]) % states
        + np.zeros((1, 2, 1), int),
        np.full((states, 2, 3), 1.0 / 3.0),
        rng.normal(size=(states, 2)),
        discount=0.9,
        initial=0,
    )
    problem = fi.IncentiveProblem(
        [mdp],
        fi.AdditiveReward(rng.normal(size=states)),
        fi.Payments.at_pairs(rng.random((1, states, 2)) < 0.005),
        leader_discount=0.9,
        tail_tolerance=1e-14,
    )
    x = rng.uniform(0.5, 1.0, problem.payments.size)
    for response in SMOOTH:
        assert_derivative(problem, x, response, 0.3)


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_occupancies_from_any_sources_solve_the_transposed_equation(discount):
    rng = np.random.default_rng(3)
    game = random_game(rng, 2, 6, 3, discount, closed=1)
    followers = game.problem().followers
    sources = rng.normal(size=(2, 6)) * [[1e6], [1e-6]]
    found = followers.occupancy_from(sources, game.policies)
    for i, each in enumerate(game.followers):
        chain = reference.policy_transition(each.transition, game.policies[i])
        assert_close(
            (found[i] - each.discount * found[i] @ chain) / np.abs(sources[i]).max(),
            sources[i] / np.abs(sources[i]).max(),
            EXACT,
        )
    assert (followers.occupancy_from(np.zeros((2, 6)), game.policies) == 0.0).all()


# The climb


def rebuilt(problem, payments, **settings):
    """The same followers and leader, other payments."""
    table = problem.leader.joint_table(uniform_policies(problem.followers))
    return fi.IncentiveProblem(
        problem.followers,
        fi.JointReward(table),
        payments,
        leader_discount=problem.leader_discount,
        cost_weight=problem.cost_weight,
        **settings,
    )


def scanned(problem, response, temperature, most=4.0):
    """Largest objective over a fine mesh of one or two payments."""
    line = np.linspace(0.0, most, 81)
    mesh = np.stack(np.meshgrid(*[line] * problem.payments.size), axis=-1)
    return max(
        fi.hypergradient(problem, x, response, temperature).objective
        for x in mesh.reshape(-1, problem.payments.size)
    )


@pytest.mark.slow
@pytest.mark.parametrize("response", SMOOTH)
def test_the_climb_finds_the_best_payment_of_a_scan(response):
    problem = fi.models.example1()
    found = fi.solve(problem, fi.HyperGradient(response, 0.1))
    assert found.success
    best = scanned(problem, response, 0.1)
    assert found.ascent.objective >= best - 1e-9
    assert found.ascent.objective <= best + 0.05  # the mesh is that fine
    assert found.ascent.stationarity < 1e-6
    smooth = fi.hypergradient(problem, found.ascent.payments, response, 0.1)
    assert smooth.objective == pytest.approx(found.ascent.objective, rel=1e-12)
    assert_close(found.ascent.policies, smooth.policies, 1e-9)
    assert (found.ascent.follower_gaps >= -1e-12).all()
    assert found.objective == pytest.approx(fi.global_optimum(problem).objective)


def test_histories_rise_and_callbacks_stop():
    problem = fi.models.paper_gridworld()
    method = fi.HyperGradient(temperature=0.1, starts=1)
    found = fi.solve(problem, method, initial_payments=4.0, refine=False)
    history = found.history.arrays()
    assert len(found.history) == found.nit > 2
    assert (np.diff(history["objective"]) > -1e-9).all()
    assert found.ascent.objective == pytest.approx(history["objective"][-1])

    def stop(report):
        raise StopIteration

    stopped = fi.solve(problem, method, initial_payments=4.0, callback=stop)
    assert stopped.status.name == "STOPPED"
    assert stopped.nit == 1


def test_a_search_over_regimes_gives_the_climb_another_start():
    problem = fi.models.paper_gridworld()
    alone = fi.solve(problem, fi.HyperGradient(temperature=0.1, starts=1), refine=False)
    assert alone.payments.max() == 0.0  # payments of 2 are not noticed
    both = fi.solve(problem, fi.HyperGradient(temperature=0.1, starts=1))
    assert both.ascent.objective > 7.6
    assert both.objective == pytest.approx(7.746418484647611)
    assert both.nit > alone.nit


def random_grid(seed):
    """A map of the kind of ``gridworld`` with slips, one or two followers and lesser goals."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(4, 6, 2).tolist()
    n = 1 + seed % 2
    cells = np.full(rows * columns, ".")
    spots = rng.permutation(rows * columns)
    marks = "GG" + "L" * (1 + n) + "FFF" + "#" + "S" * n
    cells[spots[: len(marks)]] = list(marks)
    return fi.models.gridworld(
        " ".join("".join(row) for row in cells.reshape(rows, columns)),
        slip=rng.choice([0.05, 0.1, 0.2], n).tolist(),
        starts=[divmod(int(spot), columns) for spot in spots[len(marks) - n : len(marks)]],
        discount=float(rng.choice([0.8, 0.9, 0.95])),
        cost_weight=float(rng.choice([0.1, 0.3, 1.0])),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
def test_the_default_is_as_good_as_random_restarts():
    missed, alone = [], 0
    for seed in range(8):
        problem = random_grid(seed)
        rng = np.random.default_rng(seed)
        single = fi.HyperGradient(starts=1)
        ends = []
        for _ in range(8):
            x = rng.uniform(0.0, 15.0, problem.payments.size)
            ends.append(fi.solve(problem, single, initial_payments=x, refine=False))
        best = max(each.ascent.objective for each in ends)
        least = best - 1e-6 * max(1.0, abs(best))
        if fi.solve(problem, fi.HyperGradient()).ascent.objective < least:
            missed.append(seed)
        alone += fi.solve(problem, fi.HyperGradient(), refine=False).ascent.objective >= least
    assert len(missed) <= 1, missed  # by less than 1e-4, among six payments
    assert alone >= 6  # without the search over regimes, which moves followers together


def test_climbs_start_beyond_kinks():
    """From payments that nobody notices, by the climbs' own starts."""
    problem = fi.models.example1()
    looks = []

    def look(x):
        looks.append(x)
        found = fi.hypergradient(problem, x, "soft", 0.05)
        return Looked(found.leader_value, found.objective)

    starts = kink_starts(problem, np.zeros(2), look, 0.05, 3)
    # Kinks are at 1 and 2; the first payment alone is best.
    assert_close(starts[0], [1.15, 0.0], 1e-9)
    assert len(starts) == 3
    assert len(looks) <= 120
    assert kink_starts(problem, np.zeros(2), look, 0.05, 0) == []
    assert kink_starts(problem, np.zeros(2), lambda x: None, 0.05, 3) == []
    low = {"initial_payments": 0.0, "refine": False}
    single, several = (
        fi.solve(problem, fi.HyperGradient(temperature=0.05, starts=k), **low).ascent
        for k in (1, 4)
    )
    assert several.objective > single.objective + 0.5
    # Bounds and budgets hold at every start.
    bounded = rebuilt(problem, fi.Payments.from_index(problem.payments.index, upper=1.5))
    assert (np.array(kink_starts(bounded, np.zeros(2), look, 0.05, 3)) <= 1.5).all()
    tight = rebuilt(problem, fi.Payments.from_index(problem.payments.index, budget=1.2))
    found = fi.solve(tight, fi.HyperGradient(temperature=0.05), **low).ascent
    assert found.payments.sum() <= 1.2 + 1e-9


def test_climbs_that_fail_leave_what_others_found(monkeypatch):
    """A climb to payments that are earned for ever, and one that a callback stops."""
    problem = fi.models.example1()
    method = fi.HyperGradient(temperature=0.05)
    expected = fi.solve(problem, method, refine=False).ascent
    climb, begun = fi.HyperGradient._climb, []

    def unbounded_later(self, *args):
        begun.append(1)
        if len(begun) > 2:
            raise InputError("payments: expected a bounded best total reward")
        return climb(self, *args)

    monkeypatch.setattr(fi.HyperGradient, "_climb", unbounded_later)
    found = fi.solve(problem, method, refine=False)
    assert len(begun) > 3
    assert found.success
    assert found.ascent.objective <= expected.objective + 1e-12
    monkeypatch.undo()

    def stop(report):
        if report.iteration == found.nit - 1:
            raise StopIteration

    stopped = fi.solve(problem, method, refine=False, callback=stop)
    assert stopped.status.name == "STOPPED"
    assert stopped.nit == found.nit - 1


def test_rounding_is_named():
    problem = fi.models.example1()
    mdps = [mdp.replace(reward=1e3 * mdp.reward) for mdp in problem.followers]
    large = problem.replace(followers=mdps)
    with pytest.warns(fi.RoundingWarning, match=r"temperature: 1e-10 is so small .* of 2e\+03"):
        fi.hypergradient(large, [900.0, 1900.0], "soft", 1e-10)
    with pytest.warns(fi.RoundingWarning, match="temperature: 1e-10"):
        fi.solve(large, fi.HyperGradient(temperature=1e-10), refine=False)
    fi.hypergradient(large, [900.0, 1900.0], "soft", 1e-8)
    fi.hypergradient(problem, [0.9, 1.9], "boltzmann", 1e-10)


@pytest.mark.slow
def test_continuation_ends_at_the_last_temperature():
    problem = fi.models.paper_gridworld()
    method = fi.HyperGradient(temperature=0.01, continuation=[0.3, 0.1, 0.03])
    found = fi.solve(problem, method, initial_payments=4.0, refine=False)
    assert found.ascent.objective == pytest.approx(7.7128, abs=1e-3)
    at = fi.hypergradient(problem, found.ascent.payments, "soft", 0.01)
    assert at.objective == pytest.approx(found.ascent.objective, rel=1e-12)


@pytest.mark.parametrize(
    "cost", [fi.LinearCost(), fi.QuadraticCost(1.0, 0.1), fi.ExpectedSpend()], ids=type
)
def test_a_budget_binds(cost):
    problem = fi.models.example1()
    free = fi.solve(problem, fi.HyperGradient(temperature=0.3)).ascent
    unbounded = rebuilt(problem, fi.Payments.from_index(problem.payments.index), cost=cost)
    budget = 0.6 * unbounded.cost_at(free.payments, free.policies)
    payments = fi.Payments.from_index(problem.payments.index, budget=budget)
    bounded = rebuilt(problem, payments, cost=cost)
    found = fi.solve(bounded, fi.HyperGradient(temperature=0.3), initial_payments=0.5)
    spent = bounded.cost_at(found.ascent.payments, found.ascent.policies)
    assert spent == pytest.approx(budget, rel=1e-6)
    mesh = [[a, b] for a in np.linspace(0.0, 3.0, 41) for b in np.linspace(0.0, 3.0, 41)]
    looks = [fi.hypergradient(bounded, x, "soft", 0.3) for x in mesh]
    best = max(each.objective for each in looks if each.cost <= budget)
    assert best - 1e-9 <= found.ascent.objective <= best + 0.15  # of the mesh


def test_bounds_are_kept():
    problem = fi.models.paper_gridworld()
    bounded = rebuilt(problem, fi.Payments.at_states([[29], [10]], upper=[8.0, 6.0]))
    found = fi.solve(
        bounded, fi.HyperGradient(temperature=0.1), initial_payments=5.0, refine=False
    ).ascent
    assert (found.payments <= [8.0, 6.0]).all()
    assert found.payments.max() > 5.0


@pytest.mark.parametrize("warm", [False, True])
def test_responses_do_not_depend_on_where_they_start(warm):
    _, problem, x = paid_game(6)
    rewards = problem.rewards(x)
    start = None
    if warm:
        start = answer(problem.followers, problem.rewards(2.0 * x), "soft", 0.2).policies
    found = answer(problem.followers, rewards, "soft", 0.2, start)
    assert_close(found.policies, fi.follower_responses(problem, x, "soft", 0.2).policies, 1e-10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"response": "greedy"}, "response: expected one of"),
        ({"temperature": 0.0}, "temperature: expected a finite number > 0"),
        ({"temperature": np.inf}, "temperature: expected"),
        ({"continuation": (0.5, -1.0)}, "continuation: expected finite numbers > 0, got -1"),
        ({"tolerance": 0.0}, "tolerance: expected"),
        ({"max_iter": 0}, "max_iter: expected"),
        ({"starts": 0}, "starts: expected a positive integer"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        fi.HyperGradient(**settings)


def test_what_plays_no_part_is_refused(tmp_path):
    problem = fi.models.example1()
    for name, value in (("checkpoint", tmp_path / "run.npz"), ("engine", Local())):
        with pytest.raises(InputError, match=f"{name}: expected none with HyperGradient"):
            fi.solve(problem, fi.HyperGradient(), **{name: value})
    with pytest.raises(InputError, match="temperature: expected"):
        fi.follower_responses(problem, 0.0, "soft")
    with pytest.raises(InputError, match="response: expected one of"):
        fi.follower_responses(problem, 0.0, "best")
    with pytest.raises(InputError, match="payments: expected"):
        fi.hypergradient(problem, -1.0)
