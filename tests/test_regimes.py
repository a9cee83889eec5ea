"""Regimes: every best response along a line of payments, against enumeration and sampling."""

import itertools

import numba
import numpy as np
import pytest
import reference
from conftest import EXACT, SWEEPS, Arrays, assert_close, random_arrays

import fastincentive as fi
from fastincentive import _machine
from fastincentive.kernels.regimes import LISTED, SINGLES_BYTES
from fastincentive.responses.menus import coordinate_lines, cut
from fastincentive.responses.regimes import follower_regimes

UPPER = 30.0
#: Best responses that the followers of this file give at random payments, all lines together.
SAMPLES = 10_000


# Twins: enumeration of all policies, and best responses alone


def as_arrays(mdp):
    return Arrays(
        mdp.dense_transition(), mdp.reward, mdp.discount, mdp.initial, np.array(mdp.available)
    )


def spread(arrays, direction):
    """D as (S, A), 0 where there is no action."""
    line = np.asarray(direction, float)
    line = np.repeat(line[:, None], arrays.reward.shape[1], axis=1) if line.ndim == 1 else line
    return np.where(arrays.available, line, 0.0)


def line_of(arrays, direction, policy):
    """Value at t = 0 and slope of a policy, from the initial distribution."""
    occupancy = arrays.occupancy(policy)
    reward = np.where(arrays.available, arrays.reward, 0.0)
    return float((occupancy * reward).sum()), float((occupancy * spread(arrays, direction)).sum())


def response_at(arrays, direction, t):
    """(constant, slope) of a best response at t, by value iteration."""
    reward = np.where(arrays.available, arrays.reward, 0.0) + t * spread(arrays, direction)
    policy, _, _ = reference.best_response(
        arrays.transition, reward, arrays.discount, arrays.available
    )
    return line_of(arrays, direction, policy)


def kinks(arrays, direction, low, high):
    """Kinks of V* between two payments: where the lines of two best responses cross."""
    first, second = response_at(arrays, direction, low), response_at(arrays, direction, high)
    if second[1] - first[1] <= 1e-7:
        return []
    t = (first[0] - second[0]) / (second[1] - first[1])
    middle = response_at(arrays, direction, t)
    worth = first[0] + first[1] * t
    if middle[0] + middle[1] * t <= worth + 1e-8 * max(1.0, abs(worth)):
        return [t]
    return kinks(arrays, direction, low, t) + kinks(arrays, direction, t, high)


def enumerate_laws(arrays, direction, upper):
    """{law: (lower, upper)} of all deterministic policies that are optimal somewhere.

    A law is the tuple of actions in visited states, -1 elsewhere; of actions that nobody can tell
    apart only the first counts.
    """
    states, actions = arrays.reward.shape
    line = spread(arrays, direction)
    choices = []
    for s in range(states):
        seen, kept = [], []
        for a in np.flatnonzero(arrays.available[s]):
            row = (*arrays.transition[s, a].round(12), arrays.reward[s, a], line[s, a])
            if row not in seen:
                seen.append(row)
                kept.append(int(a))
        choices.append(kept)
    lines = {}
    for pick in itertools.product(*choices):
        policy = np.eye(actions)[list(pick)]
        chain = reference.policy_transition(arrays.transition, policy)
        visited = reference.reachability(chain > 0)[arrays.initial > 0].any(axis=0)
        law = tuple(a if seen else -1 for a, seen in zip(pick, visited, strict=True))
        if law not in lines:
            lines[law] = line_of(arrays, direction, policy)
    found = {}
    for law, (c, d) in lines.items():
        low, high = 0.0, upper
        for other, slope in lines.values():
            if abs(slope - d) <= 1e-12:
                high = high if other <= c + 1e-10 else -np.inf
            elif slope < d:
                low = max(low, (other - c) / (d - slope))
            else:
                high = min(high, (c - other) / (slope - d))
        if low <= high + 1e-10:
            found[law] = (low, high)
    return found


def laws_of(arrays, regimes):
    """{law: (lower, upper)} as listed by the package."""
    found = {}
    for policy, low, high in zip(regimes.policies, regimes.lower, regimes.upper, strict=True):
        chain = reference.policy_transition(arrays.transition, policy)
        visited = reference.reachability(chain > 0)[arrays.initial > 0].any(axis=0)
        law = tuple(np.where(visited, policy.argmax(axis=1), -1).tolist())
        assert law not in found  # each once
        found[law] = (low, high)
    return found


def integer_arrays(rng, states, actions, random_moves=False):
    """Small integers, discount 1/2: many exact ties."""
    transition = np.zeros((states, actions, states))
    for s, a in itertools.product(range(states), range(actions)):
        transition[s, a, rng.integers(states)] += 0.5
        transition[s, a, rng.integers(states) if random_moves else transition[s, a].argmax()] += 0.5
    reward = rng.integers(-2, 3, size=(states, actions)).astype(float)
    initial = np.zeros(states)
    initial[rng.integers(states, size=2)] = 1.0
    return Arrays(
        transition, reward, 0.5, initial / initial.sum(), np.ones((states, actions), bool)
    )


def sampled_lines():
    """(arrays, direction) of many kinds."""
    rng = np.random.default_rng(7)
    paper = fi.models.paper_gridworld()
    out = [
        (as_arrays(paper.followers[0]), np.arange(37) == 29),
        (as_arrays(paper.followers[1]), np.arange(37) == 10),
    ]
    for k in range(3):
        arrays = random_arrays(rng, 7, 3, 0.9, unavailable=0.3 * (k > 0), branching=3)
        out.append((arrays, np.arange(7) == k))
    arrays = random_arrays(rng, 7, 3, 1.0, unavailable=0.2, closed=2, branching=3)
    out.append((arrays, np.where(arrays.absorbing, 0.0, rng.random(7))))
    arrays = random_arrays(rng, 6, 4, 0.8, unavailable=0.2)
    out.append((arrays, rng.normal(size=6)))
    arrays = random_arrays(rng, 6, 3, 0.95)
    out.append((arrays, rng.normal(size=(6, 3))))
    arrays = random_arrays(rng, 6, 3, 0.9)
    out.append((arrays, -rng.random((6, 3))))
    arrays = random_arrays(rng, 6, 3, 1.0, unavailable=0.2)
    line = rng.normal(size=(6, 3))
    line[arrays.absorbing] = 0.0
    out.append((arrays, line))
    return out


LINES = sampled_lines()
NAMES = [
    "paper 1",
    "paper 2",
    "one state",
    "unavailable",
    "another state",
    "discount 1",
    "several states",
    "pairs",
    "negative",
    "discount 1, pairs",
]


def walked(case, upper=UPPER):
    arrays, direction = LINES[case]
    return arrays, direction, follower_regimes(arrays.mdp(), spread(arrays, direction), upper)


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(LINES)), ids=NAMES)
def test_random_payments_get_a_listed_response(case):
    arrays, direction, regimes = walked(case)
    assert regimes.complete
    assert regimes.bounded
    mdp = arrays.mdp()
    rng = np.random.default_rng(case)
    line, reward = spread(arrays, direction), np.array(mdp.reward)
    known = {}
    for t in rng.uniform(0.0, UPPER, SAMPLES // len(LINES)):
        best = fi.best_response(mdp.replace(reward=reward + t * line))
        value = float(mdp.initial @ best.values)
        assert_close(regimes.value(t), value)
        key = best.policy.tobytes()
        if key not in known:
            known[key] = arrays.occupancy(best.policy)
        listed = regimes.occupancies[regimes.optimal(t)]
        assert len(listed) > 0
        assert np.abs(listed - known[key]).max(axis=(1, 2)).min() <= 1e-9 * known[key].max()


@pytest.mark.parametrize("case", range(len(LINES)), ids=NAMES)
def test_parts_fit_together(case):
    arrays, direction, regimes = walked(case)
    line, reward = spread(arrays, direction), np.where(arrays.available, arrays.reward, 0.0)
    # Intervals cover the line; V* is convex.
    assert regimes.lower.min() == 0.0
    assert regimes.upper.max() == UPPER
    assert (np.diff(regimes.lower) >= 0).all()
    ends = np.maximum.accumulate(regimes.upper)
    assert (regimes.lower[1:] <= ends[:-1]).all()
    slopes = regimes.slopes[regimes.upper > regimes.lower]
    assert (np.diff(slopes) >= -1e-10 * np.abs(slopes).max()).all()
    assert ((regimes.breakpoints > 0) & (regimes.breakpoints <= UPPER)).all()
    for k, policy in enumerate(regimes.policies):
        assert (policy.sum(axis=1) == 1.0).all()
        assert not policy[~arrays.available].any()
        paid = Arrays(
            arrays.transition,
            reward + regimes.lower[k] * line,
            arrays.discount,
            arrays.initial,
            arrays.available,
        )
        values, q_values = paid.evaluate(policy)
        occupancy = paid.occupancy(policy)
        assert_close(regimes.values[k], values)
        assert_close(regimes.occupancies[k], occupancy)
        assert_close(regimes.start_values[k], arrays.initial @ values)
        assert_close(regimes.slopes[k], (occupancy * line).sum())
        # Optimal in every state where it begins, and from the start where it ends.
        best = np.where(arrays.available, q_values, -np.inf).max(axis=1)
        assert (best <= values + 1e-9 * max(1.0, np.abs(values).max())).all()
        assert_close(
            regimes.start_values[k] + regimes.slopes[k] * (regimes.upper[k] - regimes.lower[k]),
            regimes.value(regimes.upper[k]),
        )


@pytest.mark.parametrize("case", range(2, len(LINES)), ids=NAMES[2:])
def test_breakpoints_are_the_kinks_of_best_responses(case):
    arrays, direction, regimes = walked(case)
    assert_close(regimes.breakpoints, kinks(arrays, direction, 0.0, UPPER), 1e-8)


@pytest.mark.parametrize("seed", range(12))
def test_small_followers_against_all_policies(seed):
    rng = np.random.default_rng(seed)
    arrays = random_arrays(rng, 4, 3, [0.5, 0.9, 1.0][seed % 3], unavailable=0.2 * (seed % 2))
    direction = rng.normal(size=(4, 3)) if seed % 4 else rng.random(4)
    direction = np.where(arrays.absorbing if arrays.discount == 1 else False, 0.0, direction.T).T
    regimes = follower_regimes(arrays.mdp(), spread(arrays, direction), UPPER)
    expected = enumerate_laws(arrays, direction, UPPER)
    found = laws_of(arrays, regimes)
    assert set(found) == set(expected)
    for law, interval in expected.items():
        assert_close(found[law], interval, 1e-8)


@pytest.mark.parametrize("seed", range(150))
def test_exact_ties_against_all_policies(seed):
    # Whole numbers and discount 1/2: advantages vanish at once, for good, or nowhere.
    rng = np.random.default_rng(seed)
    states, actions = [(4, 3), (5, 2)][seed % 2]
    arrays = integer_arrays(rng, states, actions, seed % 3 == 0)
    direction = rng.integers(-1, 2, size=(states, actions) if seed % 5 == 0 else states)
    regimes = follower_regimes(arrays.mdp(), spread(arrays, direction), 8.0)
    expected = enumerate_laws(arrays, direction, 8.0)
    found = laws_of(arrays, regimes)
    if regimes.complete:
        assert set(found) == set(expected)
    else:
        assert set(found) < set(expected)
    for law, interval in found.items():
        if regimes.complete:
            assert_close(interval, expected[law], 1e-9)
        else:
            assert interval[0] >= expected[law][0] - 1e-9
            assert interval[1] <= expected[law][1] + 1e-9
    # V* is exact even where not every tied response is listed.
    for t in [0.0, *rng.uniform(0, 8, 5), 8.0]:
        best = response_at(arrays, direction, t)
        assert_close(regimes.value(t), best[0] + best[1] * t)


# The paper's grid


def test_paper_breakpoints():
    paper = fi.models.paper_gridworld()
    second = follower_regimes(paper.followers[1], 10)
    for expected in (1.8152, 4.3600, 5.4449):
        assert np.abs(second.breakpoints - expected).min() <= 1e-4
    first = follower_regimes(paper.followers[0], 29)
    assert np.abs(first.breakpoints - 9.2300).min() <= 1e-4
    for regimes in (first, second):
        assert regimes.complete
        assert regimes.bounded
        assert regimes.upper[-1] == np.inf


@pytest.mark.parametrize("i", range(2))
def test_paper_responses_change_at_breakpoints_only(i):
    mdp, state = fi.models.paper_gridworld().followers[i], [29, 10][i]
    arrays, line = as_arrays(mdp), spread(as_arrays(mdp), np.arange(37) == state)
    points = [0.0, *follower_regimes(mdp, state, 15.0).breakpoints, 15.0]

    def visits(t):
        best = fi.best_response(mdp.replace(reward=mdp.reward + t * line))
        return arrays.occupancy(best.policy)

    last = None
    for low, high in itertools.pairwise(points):
        first, second = visits(low + 1e-6), visits(high - 1e-6)
        assert_close(first, second)
        # Seldom visited, but visited.
        assert last is None or np.abs(first - last).max() > 1e-15
        last = second


# Degenerate cases by hand


def corridor(rewards=((0.0, 0.0), (1.0, 1.0)), discount=0.5):
    """Start at 0 or 1, evenly; from each go to 2 (paid) or to 3."""
    transition = np.zeros((4, 2, 4))
    transition[:2, 0, 3] = transition[:2, 1, 2] = 1.0
    transition[2:, :, 3] = 1.0
    reward = np.zeros((4, 2))
    reward[:2] = np.transpose(rewards)[:, ::-1]
    return Arrays(transition, reward, discount, np.array([0.5, 0.5, 0, 0]), np.ones((4, 2), bool))


def test_advantages_that_vanish_together():
    arrays = corridor()
    regimes = follower_regimes(arrays.mdp(), 2)
    assert_close(regimes.breakpoints, [2.0])
    # Both states flip at 2: either may go first.
    assert len(regimes.optimal(2.0)) == 4
    assert len(regimes.optimal(1.9)) == len(regimes.optimal(2.1)) == 1
    assert sorted(regimes.slopes) == [0.0, 0.25, 0.25, 0.5]
    assert (regimes.lower[1:3] == regimes.upper[1:3]).all()


def test_a_tie_that_lasts_is_no_breakpoint():
    # From each state 2 and 3 are alike whatever is paid, for both lead to the payment.
    arrays = corridor(((0.0, 0.0), (0.0, 0.0)))
    regimes = follower_regimes(arrays.mdp(), np.array([0.0, 0.0, 1.0, 1.0]), 5.0)
    assert len(regimes.lower) == len(enumerate_laws(arrays, [0, 0, 1, 1], 5.0))
    for t in (0.0, 1.0, 5.0):
        assert_close(regimes.value(t), response_at(arrays, [0, 0, 1, 1], t) @ np.array([1.0, t]))
    longest = regimes.upper - regimes.lower
    assert longest.max() == 5.0


def test_copies_of_an_action_count_once():
    arrays = corridor()
    twice = Arrays(
        np.concatenate([arrays.transition] * 3, axis=1),
        np.concatenate([arrays.reward] * 3, axis=1),
        arrays.discount,
        arrays.initial,
        np.ones((4, 6), bool),
    )
    once, copied = (follower_regimes(each.mdp(), 2) for each in (arrays, twice))
    assert len(copied.lower) == len(once.lower)
    assert_close(copied.lower, once.lower)
    assert_close(copied.slopes, once.slopes)
    # Paid differently they are no copies.
    direction = np.zeros((4, 6))
    direction[2] = 1.0
    direction[0, 0] = 1e-3
    told = follower_regimes(twice.mdp(), direction, 3.0)
    assert set(laws_of(twice, told)) == set(enumerate_laws(twice, direction, 3.0))


def test_more_ties_than_can_be_listed():
    # Seven states in a row, two ways through each: 128 responses, all alike to the follower.
    transition = np.zeros((10, 2, 10))
    for s in range(7):
        transition[s, 0, s + 1] = 1.0
        transition[s, 1, s + 1] = transition[s, 1, s + 2] = 0.5
    transition[7:, :, 9] = 1.0
    mdp = fi.TabularMDP(transition, np.zeros(10), 0.9, 0)
    regimes = follower_regimes(mdp, np.arange(10) == 0, 2.0)
    assert not regimes.complete
    assert_close(regimes.slopes, np.ones(len(regimes.slopes)))
    assert len(regimes.lower) >= 8
    assert_close(regimes.value(1.5), 1.5)


def way(states):
    """States in a row, two ways through each, and nothing to tell them apart: all is tied."""
    row = np.arange(states)
    successors = np.minimum(row[:, None, None] + [[[1], [2]]], states - 1)
    return fi.TabularMDP.from_successors(
        successors, np.ones(successors.shape), np.zeros((states, 2)), discount=0.9, initial=0
    )


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="minutes without compiled kernels")
def test_ties_of_many_states_are_listed_as_far_as_a_list_may_grow():
    states = 3000
    found = follower_regimes(way(states), 0, 2.0)
    assert not found.complete
    # All 12,000 single changes would take 570 MB.
    assert LISTED < len(found.lower) <= 1.01 * SINGLES_BYTES / (16 * states)
    assert_close(found.slopes, np.ones(len(found.slopes)))


@pytest.mark.parametrize("room", [1, 3, 1000])
def test_walks_that_stop_for_want_of_room_go_on_where_they_stopped(room, monkeypatch):
    rng = np.random.default_rng(5)
    problem = fi.models.random_problem(4, n_states=8, rng=rng, n_payments=3)
    lines = coordinate_lines(problem, problem.payments.lower)
    expected = cut(problem, lines).found
    assert len(np.unique(np.bincount(expected.line))) > 2  # lines stop after different times
    monkeypatch.setattr("fastincentive.responses.regimes.FIRST_ROOM", room)
    for found, told in zip(cut(problem, lines).found, expected, strict=True):
        np.testing.assert_array_equal(found, told)


def test_lists_without_room_are_refused_before_they_grow(monkeypatch):
    problem = fi.models.random_problem(2, n_states=6, rng=0, n_payments=1)
    certified = fi.upper_bound(problem)
    fi.solve(problem)
    monkeypatch.setattr(_machine, "UNGUARDED", 0)
    monkeypatch.setattr("fastincentive.responses.regimes.FIRST_ROOM", 1)
    asked = []
    monkeypatch.setattr(_machine, "available_memory", lambda: asked.append(1) or 2e4)
    refused = pytest.raises(
        fi.MemoryLimitError, match=r"best responses.* needs .* MiB .*Upper bounds"
    )
    for search in (
        lambda: fi.solve(problem, fi.RegimeAscent()),
        lambda: fi.global_optimum(problem),
        lambda: follower_regimes(way(20), np.arange(20) == 0, 2.0),
    ):
        with refused:
            search()
    assert asked
    assert fi.upper_bound(problem) >= certified - 1e-9


def test_a_solve_that_finds_no_room_to_refine_keeps_what_it_has(monkeypatch):
    problem = fi.models.random_problem(2, n_states=6, rng=0, n_payments=1)
    method = fi.BilevelAscent()
    expected = fi.solve(problem, method, refine=False)

    def refuse(*_):
        raise fi.MemoryLimitError("no room")

    monkeypatch.setattr("fastincentive.solver.refinement.regime_search", refuse)
    with pytest.warns(fi.ConvergenceWarning, match="not refined: no room"):
        found = fi.solve(problem, method)
    assert found.refinement is None
    assert_close(found.payments, expected.payments)


def test_payments_that_can_be_earned_for_ever():
    # Stay for -1 + t, or go for nothing: from t = 1 on there is no end.
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, :, 1] = 1.0
    mdp = fi.TabularMDP(transition, [[-1.0, 0.0], [0.0, 0.0]], 1.0, 0)
    regimes = follower_regimes(mdp, 0)
    assert not regimes.bounded
    assert regimes.upper.max() <= 1.0 + 1e-12
    assert_close(regimes.value(0.5), 0.5)
    short = follower_regimes(mdp, 0, 0.5)
    assert short.bounded
    assert_close(short.upper, [0.5])
    with pytest.raises(fi.InputError):
        fi.best_response(mdp.replace(reward=[[0.5, 0.0], [0.0, 0.0]]))
    # A price on staying takes nobody for ever.
    assert follower_regimes(mdp, [-1.0, 0.0]).bounded


def test_tied_loops_that_never_end_are_not_listed():
    # At discount 1 waiting is free and promises the goal's 5, which it never earns.
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1:, :, 2] = 1.0
    mdp = fi.TabularMDP(transition, [0.0, 5.0, 0.0], 1.0, 0)
    regimes = follower_regimes(mdp, 1, 3.0)
    assert_close(regimes.policies[:, 0], [[0.0, 1.0]])
    assert_close(regimes.value(2.0), 7.0)


def test_more_states_than_are_factored():
    rng = np.random.default_rng(3)
    arrays = random_arrays(rng, 420, 2, 0.8, branching=3)
    mdp = arrays.mdp()
    line = np.where(rng.random(420) < 0.05, 1.0, 0.0)
    regimes = follower_regimes(mdp, line, 0.5)
    assert regimes.complete
    assert len(regimes.breakpoints) > 5
    assert (np.diff(regimes.slopes) >= -1e-9).all()
    for t in rng.uniform(0.0, 0.5, 6):
        best = fi.best_response(mdp.replace(reward=mdp.reward + t * line[:, None]))
        assert_close(regimes.value(t), mdp.initial @ best.values, SWEEPS)
        near = np.abs(regimes.occupancies[regimes.optimal(t)] - arrays.occupancy(best.policy))
        assert near.max(axis=(1, 2)).min() <= SWEEPS
    assert_close(regimes.occupancies[0], arrays.occupancy(regimes.policies[0]), SWEEPS)


def test_a_line_of_no_length_and_directions_of_nothing():
    mdp = corridor().mdp()
    regimes = follower_regimes(mdp, 2, 0.0)
    assert_close(regimes.lower, [0.0])
    assert_close(regimes.upper, [0.0])
    assert len(regimes.breakpoints) == 0
    still = follower_regimes(mdp, np.zeros((4, 2)))
    assert_close(still.lower, [0.0])
    assert still.upper[0] == np.inf
    # At a tie the line begins with all of them.
    tied = follower_regimes(mdp.replace(reward=np.zeros((4, 2))), 2, 0.0)
    assert len(tied.lower) == 4


def test_state_number_and_vector_mean_the_same():
    mdp = fi.models.paper_gridworld().followers[1]
    by_number = follower_regimes(mdp, 10, 6.0)
    by_vector = follower_regimes(mdp, np.arange(37) == 10, 6.0)
    by_pairs = follower_regimes(mdp, np.repeat((np.arange(37) == 10)[:, None], 4, axis=1), 6.0)
    for other in (by_vector, by_pairs):
        assert_close(other.lower, by_number.lower, EXACT)
        assert (other.policies == by_number.policies).all()
    assert_close(follower_regimes(mdp, np.int64(10), 6.0).lower, by_number.lower)


def test_follower_seldom_at_the_payment():
    # One chance in ten million to be paid: the breakpoint is at 1e7 / 0.9, and it counts.
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 2] = 1.0
    transition[0, 1, 1], transition[0, 1, 2] = 1e-7, 1.0 - 1e-7
    transition[1:, :, 2] = 1.0
    mdp = fi.TabularMDP(transition, [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], 0.9, 0)
    regimes = follower_regimes(mdp, 1)
    # Beyond what is resolved nothing may be claimed.
    assert regimes.upper.max() < 2e7 / 0.9 or abs(regimes.value(1e8) - 9.0) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"mdp": 3}, "mdp"),
        ({"direction": 4}, "direction"),
        ({"direction": -1}, "direction"),
        ({"direction": 0.5}, "direction"),
        ({"direction": np.zeros(3)}, "direction"),
        ({"direction": np.zeros((2, 4))}, "direction"),
        ({"direction": [0.0, np.nan, 0.0, 0.0]}, "direction"),
        ({"direction": [0.0, np.inf, 0.0, 0.0]}, "direction"),
        ({"upper": -1.0}, "upper"),
        ({"upper": np.nan}, "upper"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(fi.InputError, match=name):
        follower_regimes(**({"mdp": corridor().mdp(), "direction": 2} | arguments))


def test_no_payment_where_a_follower_stays_for_ever():
    arrays = random_arrays(np.random.default_rng(0), 4, 2, 1.0)
    with pytest.raises(fi.InputError, match="absorbing"):
        follower_regimes(arrays.mdp(), 3)


def test_no_payment_for_actions_that_do_not_exist():
    arrays = corridor()
    available = arrays.available.copy()
    available[0, 1] = False
    mdp = fi.TabularMDP(
        arrays.transition, arrays.reward, arrays.discount, arrays.initial, available
    )
    line = np.zeros((4, 2))
    line[0, 1] = 1.0
    with pytest.raises(fi.InputError, match="unavailable"):
        follower_regimes(mdp, line)
    # A whole state means the actions that it has.
    assert_close(follower_regimes(mdp, 0, 1.0).slopes, [0.5])
