"""The paper's models as printed, gridworlds from maps, and random problems.

Where a move leads on a map is looked up in ``maps._neighbours``, before chance comes in.
"""

import inspect
import itertools
from time import perf_counter

import numpy as np
import pytest
from conftest import assert_close

import fastincentive as fi
from fastincentive.errors import InputError, MemoryLimitError
from fastincentive.followers.followers import Followers
from fastincentive.followers.parameterization import Softmax
from fastincentive.followers.single import best_response, evaluate_policy, soft_best_response
from fastincentive.models import (
    EXAMPLE_MAP,
    MODELS,
    PAPER_MAP,
    crowd,
    demand_response,
    example1,
    example1_objective,
    grid_mdp,
    gridworld,
    paper_gridworld,
    paper_initial_policies,
    random_problem,
)
from fastincentive.models.grid import Grid
from fastincentive.models.maps import _neighbours

GOALS = {(3, 4), (5, 0)}
LESSER = {(1, 4), (4, 5)}
FIRES = {(0, 4), (1, 2), (2, 3), (3, 3), (5, 4)}
SINK = 36


def leader_table(problem, follower_states):
    """R_l at one joint state, through the interface that the three passes use."""
    leader = problem.leader
    marginals = np.zeros((1, problem.n, leader.n_labels))
    for i, s in enumerate(follower_states):
        marginals[0, i, leader.labels[i, s, 0]] = 1.0
    return leader.expectations(marginals)[0][0]


# The paper's grid


def paper_transition(slip):
    """P (37, 4, 37) written out from the text, with none of the package's code."""
    moves = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    out = np.zeros((37, 4, 37))
    out[SINK, :, SINK] = 1.0
    for row, column, a in itertools.product(range(6), range(6), range(4)):
        s = 6 * row + column
        if (row, column) in GOALS | LESSER:
            out[s, a, SINK] = 1.0
            continue
        for turn, p in ((0, 1 - 2 * slip), (1, slip), (-1, slip)):
            dr, dc = moves[(a + turn) % 4]
            inside = 0 <= row + dr < 6 and 0 <= column + dc < 6
            out[s, a, 6 * (row + dr) + column + dc if inside else s] += p
    return out


def test_paper_grid_is_the_one_of_the_text():
    problem = paper_gridworld()
    reward = np.zeros(37)
    for cells, value in ((GOALS, 10.0), (LESSER, 8.0), (FIRES, -5.0)):
        for row, column in cells:
            reward[6 * row + column] = value
    for mdp, slip in zip(problem.followers, (0.1, 0.05), strict=True):
        np.testing.assert_allclose(mdp.dense_transition(), paper_transition(slip), atol=1e-15)
        np.testing.assert_array_equal(mdp.reward, np.repeat(reward[:, None], 4, axis=1))
        assert mdp.discount == 0.95
        assert mdp.initial[12] == 1.0
    assert problem.leader_discount == 1.0
    assert problem.cost_weight == 0.1
    x = problem.payments.side_payments(np.array([1.0, 2.0]))
    assert x[0, 29].tolist() == [1.0] * 4
    assert x[1, 10].tolist() == [2.0] * 4
    assert x.sum() == 12.0
    assert problem.cost.value(np.array([1.0, 2.0])) == 3.0


def test_paper_leader_reward_on_every_joint_state():
    problem = paper_gridworld()
    lesser = {6 * row + column for row, column in LESSER}
    for joint in itertools.product(range(37), repeat=2):
        there = [s in lesser for s in joint]
        if all(there):
            expected = 10.0
        elif any(there):
            expected = 8.0 if SINK in joint else 2.0
        else:
            expected = 0.0
        assert leader_table(problem, joint) == expected, joint


def test_optimal_values_of_the_published_single_robot():
    mdp = grid_mdp(PAPER_MAP, 0.1, (2, 0), 0.95)
    assert best_response(mdp).values[12] == pytest.approx(8.0946301, abs=1e-7)
    assert soft_best_response(mdp, 0.1).values[12] == pytest.approx(8.2423109, abs=1e-7)


@pytest.mark.parametrize("bracket", [(1.7, 1.9), (4.32, 4.5), (5.4, 5.5)])
def test_breakpoints_of_follower_two(bracket):
    mdp = grid_mdp(PAPER_MAP, 0.05, (2, 0), 0.95)
    followers = Followers([mdp])

    def visits(x):
        rewards = mdp.reward[None].copy()
        rewards[0, 10] += x
        policy = np.eye(4)[followers.best_responses(rewards).actions]
        return followers.evaluate(rewards, policy).visits[0]

    low, high = bracket
    before, after = visits(low), visits(high)
    assert np.abs(before - after).max() > 1e-5  # reachable states notice
    while high - low > 1e-6:
        middle = 0.5 * (low + high)
        at = visits(middle)
        same = np.abs(at - before).max() < 1e-9
        assert same or np.abs(at - after).max() < 1e-9  # nothing else changes in between
        low, high = (middle, high) if same else (low, middle)
    expected = {1.7: 1.8152, 4.32: 4.3600, 5.4: 5.4449}[bracket[0]]
    assert low == pytest.approx(expected, abs=1e-4)


def test_third_initialisation():
    problem = paper_gridworld()
    policies = problem.followers.check_policies(paper_initial_policies(problem))
    reached = []
    for mdp, policy in zip(problem.followers, policies, strict=True):
        indicator = np.zeros(37)
        indicator[[10, 29]] = 1.0
        chance, _ = evaluate_policy(mdp.replace(reward=indicator, discount=1.0), policy)
        reached.append(chance[12])
    assert reached[0] == pytest.approx(0.8786, abs=1e-3)
    assert reached[1] < 1e-4


# Grids from maps


def test_neighbours_on_random_maps():
    rng = np.random.default_rng(0)
    for _ in range(30):
        height, width = rng.integers(1, 7, size=2)
        rows = ["".join(rng.choice(list("..S#FGL"), width)) for _ in range(height)]
        grid = Grid.parse(" ".join(rows))
        assert grid.starts == tuple(
            (r, c) for r in range(height) for c in range(width) if rows[r][c] == "S"
        )
        entered = _neighbours(grid)
        assert (entered[grid.sink] == grid.sink).all()
        for r, c in itertools.product(range(height), range(width)):
            for a, (dr, dc) in enumerate([(-1, 0), (0, 1), (1, 0), (0, -1)]):
                inside = 0 <= r + dr < height and 0 <= c + dc < width
                if rows[r][c] in "GL#":
                    expected = grid.sink
                elif inside and rows[r + dr][c + dc] != "#":
                    expected = grid.state((r + dr, c + dc))
                else:
                    expected = grid.state((r, c))
                assert entered[width * r + c, a] == expected


def test_gridworld_of_the_papers_map_is_the_papers():
    one = paper_gridworld(slips=(0.1, 0.05), discount=0.9, cost_weight=0.3, start=(2, 0))
    other = gridworld(
        PAPER_MAP, slip=(0.1, 0.05), discount=0.9, paid=[[(4, 5)], [(1, 4)]], cost_weight=0.3
    )
    for a, b in zip(one.followers.packed, other.followers.packed, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.followers.rewards, other.followers.rewards)
    np.testing.assert_array_equal(one.payments.index, other.payments.index)
    assert one.grid == other.grid
    assert one.grid.starts == ((2, 0), (2, 0))


def test_equal_slips_share_a_model():
    assert paper_gridworld().followers.n_models == 2
    assert paper_gridworld(slips=(0.1, 0.1), discount=(0.9, 0.95)).followers.n_models == 1
    assert gridworld().followers.n_models == 1


def test_walls_and_borders_bounce():
    mdp = grid_mdp("S#G ..F", 0.25, (0, 0), 0.9, rewards={".": -1.0, "G": 3.0})
    p = mdp.dense_transition()
    assert p[0, 1].tolist() == [0.75, 0, 0, 0.25, 0, 0, 0]  # E: wall, N: border, S: free
    assert p[0, 2].tolist() == [0.5, 0, 0, 0.5, 0, 0, 0]  # S; both sides bounce
    assert p[5, 0].tolist() == [0, 0, 0.5, 0, 0.25, 0.25, 0]
    assert p[2, :, 6].tolist() == [1.0] * 4
    assert p[:, :, 1].sum() == 0.0  # nobody enters the wall
    assert mdp.reward[:, 0].tolist() == [-1.0, 0.0, 3.0, -1.0, -1.0, -5.0, 0.0]
    assert mdp.discount == 0.9


def test_grid_describes_the_map():
    grid = paper_gridworld().grid
    assert isinstance(grid, Grid)
    assert grid.shape == (6, 6)
    assert grid.sink == SINK
    assert set(grid.goals) == GOALS
    assert set(grid.lesser_goals) == LESSER
    assert set(grid.fires) == FIRES
    assert grid.walls == ()
    assert grid.cell(29) == (4, 5)
    assert grid.state((4, 5)) == 29
    walled = gridworld().grid
    assert walled.walls == ((0, 3), (1, 3), (3, 3))
    assert walled.starts == ((0, 0), (2, 0), (4, 0))


def test_leader_of_many_followers_is_the_mean_over_pairs():
    problem = gridworld("S.L .LG", slip=[0.0] * 4)
    lesser, free, sink = 2, 0, 6
    assert leader_table(problem, [lesser] * 4) == pytest.approx(10.0)
    assert leader_table(problem, [lesser, 4, sink, free]) == pytest.approx(
        (10 + 2 * 8 + 2 * 2 + 0) / 6
    )
    assert leader_table(problem, [free, sink, free, sink]) == 0.0
    alone = gridworld("S.L ..G")
    assert alone.n == 1
    assert leader_table(alone, [lesser]) == 10.0
    assert leader_table(alone, [free]) == 0.0


def test_default_paid_cells_are_the_lesser_goals():
    problem = gridworld(starts=[(0, 0), (4, 6)], upper=3.0, budget=4.0)
    assert problem.payments.size == 2
    assert problem.payments.upper.tolist() == [3.0, 3.0]
    assert problem.payments.budget == 4.0
    cell = problem.grid.lesser_goals[0]
    for i in range(2):
        assert (problem.payments.index[i, problem.grid.state(cell)] == i).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Grid.parse("..\n..."), "layout.*2 cells.*got 3 at row 1"),
        (lambda: Grid.parse("..\n.X"), "layout.*'X' at row 1, column 1"),
        (lambda: Grid.parse("  \n "), "layout.*at least one row"),
        (lambda: Grid.parse(["..", ".."]), "layout: expected text, got list"),
        (lambda: gridworld("..L"), "starts.*Mark it with S"),
        (lambda: grid_mdp("..L"), "start.*S on the map"),
        (lambda: gridworld("S.G"), "paid.*lesser goals with L"),
        (lambda: gridworld("S.L", starts=(0, 1)), r"starts\[0\]: expected a sequence, got int"),
        (lambda: gridworld("S#L", starts=[(0, 1)]), "starts.*not a wall"),
        (lambda: gridworld("S.L", starts=[(1, 0)]), "starts.*1x3 map"),
        (lambda: gridworld("S.L", slip=0.6), r"slip.*\[0, 0.5\]"),
        (lambda: gridworld("S.L", slip=(0.1, 0.2), discount=[0.9] * 3), "slip.*1 or 3"),
        (lambda: gridworld("S.L", rewards={"x": 1.0}), "rewards.*'x'"),
        (lambda: gridworld("S.L", slip=[0.1] * 13), "leader.*12 followers"),
        (lambda: paper_gridworld(slips=(0.1,)), "slips.*two"),
        (lambda: paper_gridworld().grid.cell(SINK), "state.*0..35"),
    ],
)
def test_grid_errors(call, words):
    with pytest.raises(InputError, match=words):
        call()


# Example 1


def test_example1_leader_reward():
    problem = example1()
    earned = {
        joint: leader_table(problem, joint)
        for joint in itertools.product(range(4), repeat=2)
        if leader_table(problem, joint)
    }
    assert earned == {(2, 1): 6.0, (2, 2): 5.0, (1, 1): 5.0}


def test_example1_softmax_formula():
    problem = example1()
    rng = np.random.default_rng(20)
    points = rng.uniform(0.0, 4.0, (1000, 2))
    softmax = Softmax(0.05)
    followers = problem.followers
    formula = example1_objective(points, "softmax", 0.05)
    assert formula.shape == (1000,)
    for x, expected in zip(points, formula, strict=True):
        q_values = followers.best_responses(problem.rewards(x)).q_values
        value = problem.leader_value(softmax.policies(q_values, followers))
        assert value - x.sum() == pytest.approx(expected, abs=1e-12)
    # Stable far outside the range in which exp(20 x) is finite.
    assert example1_objective([[1e6, 1e6]], "softmax")[0] == pytest.approx(6.0 - 2e6)


def test_example1_direct_formula():
    problem = example1()
    rng = np.random.default_rng(21)
    points = [*rng.uniform(0.0, 4.0, (40, 2)), *itertools.product((0.0, 1.0), (0.0, 2.0))]
    choices = np.zeros((4, 2, 4, 2))  # both followers' four combinations of actions in state 0
    choices[:, :, 1:, 0] = 1.0
    for k, (a, b) in enumerate(itertools.product(range(2), repeat=2)):
        choices[k, 0, 0, a] = choices[k, 1, 0, b] = 1.0
    for x in points:
        results = [problem.evaluate(x, policies) for policies in choices]
        best = max(r.objective for r in results if r.feasibility >= -1e-12)
        assert best == pytest.approx(example1_objective(x), abs=1e-12)


def test_example1_stationary_points():
    rng = np.random.default_rng(22)
    steps = np.array([1e-1, 1e-3, 1e-6])
    angles = rng.uniform(0.0, 2.0 * np.pi, 500)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def rises(x):
        """Whether f_m rises at once along some feasible direction, one-sided."""
        moved = x + steps[:, None, None] * directions
        higher = (example1_objective(moved) > example1_objective(x)) & (moved >= 0).all(axis=2)
        return bool(higher.all(axis=0).any())

    stationary = [(0.0, 0.0), (1.0, 0.0), (0.0, 2.0), (1.0, 2.0)]
    assert not any(rises(np.array(x)) for x in stationary)
    assert [float(example1_objective(x)) for x in stationary] == [0.0, 4.0, 3.0, 3.0]
    others = rng.uniform(0.1, 4.0, (200, 2))
    others = others[np.abs(others - [1.0, 2.0]).min(axis=1) > 0.15]
    assert all(rises(x) for x in others)
    assert all(rises(np.array(x)) for x in [(1.0, 1.0), (0.5, 2.0), (0.5, 0.0), (0.0, 3.0)])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1.0,), "x"),
        (([1.0, 2.0, 3.0],), "x"),
        (([1.0, 2.0], "soft"), "parameterization"),
        (([1.0, 2.0], "softmax", 0.0), "temperature"),
    ],
)
def test_example1_objective_errors(arguments, words):
    with pytest.raises(InputError, match=words):
        example1_objective(*arguments)


# Random problems


def same(one, other):
    packed = zip(one.followers.packed, other.followers.packed, strict=True)
    return (
        all(np.array_equal(a, b) for a, b in packed)
        and np.array_equal(one.followers.rewards, other.followers.rewards)
        and np.array_equal(one.payments.index, other.payments.index)
        and np.array_equal(one.leader.labels, other.leader.labels)
    )


def test_random_problem_is_reproducible():
    one, other = random_problem(3, rng=5), random_problem(3, rng=5)
    policies = np.full(one.followers.shape, 1.0 / 3.0)
    assert same(one, other)
    assert one.leader_value(policies) == other.leader_value(policies)
    assert not same(one, random_problem(3, rng=6))
    generator = np.random.default_rng(5)
    assert same(one, random_problem(3, rng=generator))
    assert not same(one, random_problem(3, rng=generator))  # the generator moved on
    first, longer = random_problem(2, rng=5).followers[1], one.followers[1]
    np.testing.assert_array_equal(first.reward, longer.reward)


def test_random_problem_options():
    problem = random_problem(
        2, 6, 4, 2, rng=1, unavailable=0.5, action_dependent=True, n_payments=3, cost_weight=0.7
    )
    assert problem.followers.shape == (2, 6, 4)
    assert problem.payments.size == 6
    assert problem.cost_weight == 0.7
    assert problem.leader.n_labels == 24
    missing = ~problem.followers.available
    assert missing.any()
    assert (problem.payments.index[missing] == -1).all()
    assert all(0.8 <= mdp.discount <= 0.95 for mdp in problem.followers)
    policies = np.zeros(problem.followers.shape)
    chosen = problem.followers.best_responses(problem.followers.rewards).actions
    np.put_along_axis(policies, chosen[:, :, None], 1.0, axis=2)
    assert 0.0 < problem.leader_value(policies) < 10.0


@pytest.mark.parametrize("action_dependent", [False, True])
def test_random_problem_falls_back_to_labels(action_dependent):
    problem = random_problem(6, 10, 3, rng=2, action_dependent=action_dependent)
    assert problem.leader.n_labels == 3
    assert problem.leader.labels.shape == (6, 10, 3 if action_dependent else 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "n: "),
        ({"branching": 0}, "branching"),
        ({"n_payments": 11}, "n_payments"),
        ({"unavailable": 1.0}, "unavailable"),
        ({"discounts": (0.9, 1.0)}, "discounts"),
        ({"n": 11}, "n: "),
    ],
)
def test_random_problem_errors(arguments, words):
    with pytest.raises(InputError, match=words):
        random_problem(rng=0, **arguments)


# Many followers


def test_crowd():
    problem = crowd(30, rng=1, size=7, capacity=4.0)
    followers, grid = problem.followers, problem.grid
    assert (problem.n, followers.n_states, followers.n_models) == (30, 50, 1)
    assert grid.goals == ((2, 2),)
    assert grid.lesser_goals == ((0, 6), (6, 0))
    # Blocks stand between the streets, and nobody starts in one.
    assert {grid.characters[cell] for cell in grid.starts} == {"."}
    lesser = [grid.state(cell) for cell in grid.lesser_goals]
    for i, start in enumerate(grid.starts):
        distances = [abs(start[0] - r) + abs(start[1] - c) for r, c in grid.lesser_goals]
        assert problem.payments.index[i, lesser[int(np.argmin(distances))], 0] == i
    assert problem.payments.size == 30
    # Two at one lesser goal are worth 2 - 2^2 / 8, one at the other 1 - 1 / 8.
    marginals = np.zeros((1, 30, problem.leader.n_labels))
    labels = problem.leader.labels[:, :, 0]
    at = [lesser[0], lesser[0], lesser[1], *[grid.sink] * 27]
    marginals[0, np.arange(30), labels[np.arange(30), at]] = 1.0
    assert problem.leader.expectations(marginals)[0][0] == pytest.approx(1.5 + 0.875)


def test_crowds_grow_and_have_types():
    small, large = crowd(5, rng=2), crowd(8, rng=2)
    assert_close(small.followers.rewards, large.followers.rewards[:5])
    assert small.grid.starts == large.grid.starts[:5]
    types = crowd(1000, rng=2, types=3)
    assert types.followers.counts.tolist() == [334, 333, 333]
    assert_close(types.followers.rewards, small.followers.rewards[:3])
    assert types.cost_at(1.0, types.followers.available / 4.0) == 1000.0


def test_each_of_a_crowd_has_a_stream_of_its_own():
    problem = crowd(12, rng=4)
    grid = problem.grid
    streets = np.argwhere(grid.characters == ".")
    for i, stream in enumerate(np.random.default_rng(4).spawn(12)):
        start = streets[stream.integers(len(streets))]
        assert grid.starts[i] == tuple(start)
        mdp = problem.followers[i]
        assert mdp.initial[grid.state(start)] == 1.0
        (goal,) = grid.goals
        assert mdp.reward[grid.state(goal), 0] == 10.0 + 2.0 * stream.uniform(-1.0, 1.0)
        for cell in grid.lesser_goals:
            assert mdp.reward[grid.state(cell), 0] == 8.0 + 2.0 * stream.uniform(-1.0, 1.0)


def test_a_crowd_that_finds_no_room_is_refused_before_it_is_drawn():
    with pytest.raises(MemoryLimitError, match=r"a crowd of 1\d+ different followers needs"):
        crowd(10**12)


@pytest.mark.slow
def test_a_hundred_thousand_followers_are_built_and_estimated_soon():
    crowd(10).memory_estimate()
    start = perf_counter()
    problem = crowd(100_000)
    built = perf_counter()
    estimate = problem.memory_estimate()
    assert perf_counter() - built < 2.0
    assert built - start < 20.0  # three seconds on an idle machine
    with pytest.raises(MemoryLimitError):
        estimate.raise_if_too_large(2.0**33)


def test_payments_move_a_crowd():
    problem = crowd(6)
    paid = problem.evaluate(3.0, fi.best_response_policies(problem, 3.0))
    nothing = problem.evaluate(0.0, fi.best_response_policies(problem, 0.0))
    assert paid.leader_value > nothing.leader_value + 0.1


def test_demand_response():
    n, slots, work = 7, 8, 3
    problem = demand_response(n, slots, rng=3, work=work)
    followers = problem.followers
    assert followers.shape == (n, slots * (work + 1) + 1, 2)
    assert (problem.payments.size, problem.payments.shared) == (slots, True)
    assert demand_response(n, slots, shared=False).payments.size == n * slots
    # A household that always consumes does so in the first slots, and rests from then on.
    available = followers.available
    policies = np.where(available[:, :, 1:], [0.0, 1.0], [1.0, 0.0])
    visits = followers.evaluate(followers.rewards, policies).visits
    load = (visits * policies[:, :, 1])[:, :-1].reshape(n, slots, work + 1).sum(axis=(0, 2))
    started = followers.packed.initial[:, work].sum()
    assert_close(load[:work], [n, n, started])
    assert_close(load[work:], np.zeros(slots - work))
    # Consumption that nobody shares out costs the leader its square, but for what is random.
    share = followers.packed.initial[:, work]
    expected = 2 * n**2 + share.sum() ** 2 + (share * (1 - share)).sum()
    assert problem.leader_value(policies) == pytest.approx(-expected / n)
    # Larger numbers leave the first households as they are.
    more = demand_response(n + 2, slots, rng=3, work=work)
    assert_close(more.followers.rewards[:n], followers.rewards)


@pytest.mark.parametrize(
    ("build", "arguments", "words"),
    [
        (crowd, {"n": 0}, "n: expected a positive integer"),
        (crowd, {"size": 6}, "size: expected an odd number"),
        (crowd, {"types": 101}, r"types: expected an integer in 1\.\.100"),
        (crowd, {"capacity": 0.0}, "capacity: expected a number > 0"),
        (demand_response, {"slots": 0}, "slots: expected a positive integer"),
        (demand_response, {"slots": 2}, "work: expected at most the 2 slots"),
    ],
)
def test_errors_of_models_of_many(build, arguments, words):
    with pytest.raises(InputError, match=words):
        build(**arguments)


# The registry


@pytest.mark.parametrize("name", sorted(MODELS))
def test_registry(name):
    build = MODELS[name]
    options = {"cost_weight": 0.25}
    if "rng" in inspect.signature(build).parameters:
        options["rng"] = 0
    assert build(**options).cost_weight == 0.25


def test_registry_is_complete_and_the_example_map_parses():
    assert {"example1", "gridworld", "paper-gridworld", "random", "crowd"} < set(MODELS)
    assert len(Grid.parse(EXAMPLE_MAP).starts) == 3
