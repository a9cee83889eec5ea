"""Every leader reward is asked the same questions; the answers are those of its definition."""

import itertools
import pickle
from dataclasses import replace
from functools import partial

import numba
import numpy as np
import pytest
from conftest import EXACT, ROUNDING, assert_close, random_game
from rewards import (
    REWARDS,
    Drawn,
    Setting,
    additive,
    best_choice,
    contract,
    random_laws,
    random_marginals,
)

import fastincentive as fi
from fastincentive.leader.base import BoundReward

STATES, ACTIONS = 3, 2
PAIRS = STATES * ACTIONS
SEES = ["states", "own states", "own actions"]
FORMS = [*SEES, "weighted", "in a sum"]
COUNTS = (2, 1)


def draw(name, form, n, seed=0, idle=0, counts=None):
    """Draw a reward of n followers or types, as it is or put together with others."""
    setting = Setting(n, STATES, ACTIONS, form if form in SEES else "own actions", idle, counts)
    rng = np.random.default_rng([seed, n])
    reward, earned = REWARDS[name].draw(rng, setting)
    if form == "weighted":
        return Drawn(-1.5 * reward, lambda s, a: -1.5 * earned(s, a))
    if form == "in a sum":
        other = additive(rng, replace(setting, sees="states"))
        return Drawn(reward + other.reward, lambda s, a: earned(s, a) + other.earned(s, a))
    return Drawn(reward, earned)


def bind(drawn, n):
    return drawn.reward.bind(n, STATES, ACTIONS)


def table_of(drawn, n):
    """What joint pairs of state and action earn, (S*A,)*n."""
    pairs = np.indices((PAIRS,) * n).reshape(n, -1).T
    return drawn.earned(*np.divmod(pairs, ACTIONS)).reshape((PAIRS,) * n)


def labels_of(bound):
    """Label (n, S*A) of each pair."""
    n = len(bound.labels)
    return np.broadcast_to(bound.labels, (n, STATES, ACTIONS)).reshape(n, PAIRS)


def marginals_of(bound, laws):
    """Label marginals (T, n, L) for laws (T, n, S*A) of pairs."""
    return np.einsum("tip,ipl->til", laws, np.eye(bound.n_labels)[labels_of(bound)])


every_reward = pytest.mark.parametrize("name", REWARDS)
up_to_four = pytest.mark.parametrize("n", [1, 2, 3, 4])


@pytest.mark.parametrize("form", FORMS)
@up_to_four
@every_reward
def test_expectations(name, n, form):
    drawn = draw(name, form, n)
    bound, table = bind(drawn, n), table_of(drawn, n)
    assert bound.labels.shape in ((n, STATES, 1), (n, STATES, ACTIONS))
    assert bound.labels.dtype == np.int64
    assert bound.labels.min() >= 0
    assert bound.labels.max() < bound.n_labels
    laws = random_laws(np.random.default_rng(n), 4, n, PAIRS)
    marginals = marginals_of(bound, laws)
    kept = marginals.copy()
    expected, conditional = bound.expectations(marginals)
    np.testing.assert_array_equal(marginals, kept)
    for t in range(len(laws)):
        assert_close(expected[t], contract(table, laws[t]), ROUNDING)
        for i in range(n):
            given = conditional[t, i, labels_of(bound)[i]]
            assert_close(given, contract(table, laws[t], i), ROUNDING)
    assert_close(bound.expected(marginals), expected, ROUNDING)
    assert_close(bound.conditional(marginals), conditional, ROUNDING)


@up_to_four
@every_reward
def test_joint_labels_earn_what_they_should(name, n, monkeypatch):
    drawn = draw(name, "own states", n)
    bound = bind(drawn, n)
    states = np.random.default_rng(n).integers(STATES, size=(200, n))
    labels = bound.labels[np.arange(n), states, 0]
    monkeypatch.setattr("fastincentive.leader.base.BLOCK", 64)  # several blocks
    earned = drawn.earned(states, np.zeros_like(states))
    assert_close(bound.sampled(labels), earned, ROUNDING)
    assert_close(BoundReward.at_labels(bound, labels), earned, ROUNDING)


@up_to_four
@every_reward
def test_magnitude(name, n):
    rng = np.random.default_rng(n)
    for form, seed in (("own actions", 0), ("own actions", 1), ("in a sum", 2)):
        drawn = draw(name, form, n, seed)
        bound, table = bind(drawn, n), np.abs(table_of(drawn, n))
        tight = REWARDS[name].tight and form != "in a sum"
        shown = np.zeros((n, bound.n_labels), bool)
        np.put_along_axis(shown, labels_of(bound), True, axis=1)
        some = shown & (rng.random(shown.shape) < 0.6)
        some[np.arange(n), labels_of(bound)[:, 0]] = True
        # Pairs whose labels are possible.
        pairs = [np.flatnonzero(row[own]) for row, own in zip(some, labels_of(bound), strict=True)]
        assert bound.magnitude() >= table.max() * (1 - ROUNDING)
        for size, largest in (
            (bound.magnitude(shown), table.max()),
            (bound.magnitude(some), table[np.ix_(*pairs)].max()),
        ):
            assert size >= largest * (1 - ROUNDING)
            if tight:
                assert_close(size, largest, ROUNDING)
        some[0] = False
        assert bound.magnitude(some) == 0.0


@pytest.mark.parametrize("form", ["own actions", "in a sum"])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
@every_reward
def test_turns_see_the_changes_made_on_the_way(name, n, form):
    rng = np.random.default_rng(n)
    bound = bind(draw(name, form, n), n)
    for turns in (bound.turns, partial(BoundReward.turns, bound)):
        marginals, seen = random_marginals(rng, 4, bound), []
        for i, conditional in enumerate(turns(marginals)):
            fresh = bound.expectations(marginals)[1][:, i]
            assert_close(conditional, fresh, ROUNDING)
            seen.append((conditional, fresh))
            if i != 1:
                marginals[:, i] = random_marginals(rng, 4, bound)[:, i]
        assert len(seen) == n
        for conditional, fresh in seen:  # each turn's array is its own
            assert_close(conditional, fresh, ROUNDING)


@every_reward
def test_turns_of_many(name):
    n = 17
    if not REWARDS[name].many:
        pytest.skip("a table over so many followers has no room")
    rng = np.random.default_rng(n)
    setting = Setting(n, STATES, ACTIONS)
    bound = REWARDS[name].draw(rng, setting).reward.bind(n, STATES, ACTIONS)
    marginals = random_marginals(rng, 3, bound)
    for i, conditional in enumerate(bound.turns(marginals)):
        assert_close(conditional, bound.expectations(marginals)[1][:, i], ROUNDING)
        marginals[:, i] = random_marginals(rng, 3, bound)[:, i]
    assert i == n - 1


@pytest.mark.parametrize("n", [2, 3, 4])
@every_reward
def test_pairs(name, n):
    drawn = draw(name, "own actions", n)
    bound, table = bind(drawn, n), table_of(drawn, n)
    laws = random_laws(np.random.default_rng(n), 3, n, PAIRS)
    labels, marginals = labels_of(bound), marginals_of(bound, laws)
    for i, j in itertools.permutations(range(n), 2):
        for found in (bound.pair(marginals, i, j), BoundReward.pair(bound, marginals, i, j)):
            assert found.shape == (3, bound.n_labels, bound.n_labels)
            for t in range(3):
                given = found[t][np.ix_(labels[i], labels[j])]
                assert_close(given, contract(table, laws[t], i, j), ROUNDING)


@pytest.mark.parametrize("form", ["own actions", "in a sum"])
@up_to_four
@every_reward
def test_relaxed_bounds_every_choice(name, n, form):
    rng = np.random.default_rng(n)
    weights, horizon = 0.9 ** np.arange(4), 4
    for seed in range(5):
        bound = bind(draw(name, form, n, seed), n)
        candidates = [
            random_laws(rng, horizon, rng.integers(1, 4), bound.n_labels).transpose(1, 0, 2)
            for _ in range(n)
        ]
        single = [each[:1] for each in candidates]
        one = [candidates[0], *single[1:]]
        best = [best_choice(bound, each, weights) for each in (candidates, single, one)]
        for relaxed in (bound.relaxed, partial(BoundReward.relaxed, bound)):
            assert relaxed(candidates, weights) >= best[0] - EXACT
            assert_close(relaxed(single, weights), best[1], ROUNDING)
            assert relaxed(one, weights) >= best[2] - EXACT
        assert_close(BoundReward.relaxed(bound, one, weights), best[2], ROUNDING)
        if name == "additive" and form != "in a sum":
            assert_close(bound.relaxed(candidates, weights), best[0], ROUNDING)
        elif n == 1 and name != "sum" and form != "in a sum":
            assert_close(bound.relaxed(one, weights), best[2], ROUNDING)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 2, 3])
@every_reward
def test_joint_states(name, n, form, monkeypatch):
    drawn = draw(name, form, n)
    bound = bind(drawn, n)
    policies = np.random.default_rng(n).dirichlet(np.ones(ACTIONS), size=(n, STATES))
    monkeypatch.setattr("fastincentive.leader.base.BLOCK", 64)  # several blocks
    table = table_of(drawn, n).reshape((STATES, ACTIONS) * n)
    for i in range(n):  # the first pair of axes becomes one of states, and goes last
        table = np.einsum("sa...,sa->...s", table, policies[i])
    assert_close(bound.joint_table(policies), table, ROUNDING)
    assert_close(BoundReward.joint_table(bound, policies), table, ROUNDING)


@up_to_four
@every_reward
def test_tables_parts_and_majorants(name, n):
    drawn = draw(name, "own states", n)
    bound, labels = bind(drawn, n), np.arange(n)
    states = np.array(list(itertools.product(range(STATES), repeat=n)))
    seen = bound.labels[labels, states, 0]
    earned = drawn.earned(states, np.zeros_like(states))
    if n < 3:
        assert_close(bound.label_table()[tuple(seen.T)], earned, ROUNDING)
    small = bound.small_table(10)
    if small is not None:
        assert_close(small[tuple(seen.T)], earned, ROUNDING)
        assert bound.small_table(bound.n_labels - 1) is None
    parts = bound.additive_parts()
    assert n > 1 or parts is not None
    if parts is not None:
        assert_close(parts[labels, seen].sum(axis=1), earned, ROUNDING)
    possible = np.zeros((n, bound.n_labels), bool)
    np.put_along_axis(possible, bound.labels[:, :, 0], True, axis=1)
    reference = possible / possible.sum(axis=1, keepdims=True)
    for sign, lasting in itertools.product((1.0, -1.0), (False, True)):
        u = bound.majorant(sign, possible, possible & lasting, reference)
        if u is None:
            assert lasting
            continue
        assert (u[labels, seen].sum(axis=1) >= sign * earned - 1e-12).all()
        assert not lasting or parts is not None or (u <= 0.0).all()


@every_reward
def test_pickled_copies_are_the_same(name):
    bound = bind(draw(name, "in a sum", 3), 3)
    marginals = random_marginals(np.random.default_rng(0), 4, bound)
    copy = pickle.loads(pickle.dumps(bound))
    for one, other in zip(bound.expectations(marginals), copy.expectations(marginals), strict=True):
        assert one.tobytes() == other.tobytes()


@every_reward
def test_scratch_memory(name):
    bound = bind(draw(name, "own actions", 3), 3)
    sizes = [bound.scratch_bytes(horizon) for horizon in (10, 1000)]
    assert 0 <= sizes[0] <= sizes[1]
    assert sizes[1] <= 10 * 8 * 1000 * 3 * bound.n_labels + 10**6


@pytest.mark.parametrize("form", SEES)
@every_reward
def test_shapes_that_do_not_fit_are_refused(name, form):
    reward = draw(name, form, 3).reward
    for n, states, actions in ((3, STATES + 1, ACTIONS), (3, STATES - 1, ACTIONS)):
        with pytest.raises(fi.InputError, match="expected"):
            reward.bind(n, states, actions)
    if form != "states":
        with pytest.raises(fi.InputError, match="expected"):
            reward.bind(4, STATES, ACTIONS)
    if form == "own actions":
        with pytest.raises(fi.InputError, match="expected"):
            reward.bind(3, STATES, ACTIONS + 1)
    with pytest.raises(fi.InputError, match="weight: expected a finite number"):
        np.inf * reward


# Types


@pytest.mark.parametrize("form", FORMS)
@every_reward
def test_types_stand_for_their_followers(name, form):
    n, everybody = len(COUNTS), sum(COUNTS)
    if not REWARDS[name].types:
        reward = draw(name, form, everybody).reward
        with pytest.raises(fi.InputError, match="a reward that is the same whichever followers"):
            reward.bind_types(np.array(COUNTS), STATES, ACTIONS)
        return
    drawn = draw(name, form, n, counts=COUNTS)
    bound = drawn.reward.bind_types(np.array(COUNTS), STATES, ACTIONS)
    laws = random_laws(np.random.default_rng(0), 4, n, PAIRS)
    expected, conditional = bound.expectations(marginals_of(bound, laws))
    table, first = table_of(drawn, everybody), np.cumsum(COUNTS) - COUNTS
    for t, each in enumerate(np.repeat(laws, COUNTS, axis=1)):
        assert_close(expected[t], contract(table, each), ROUNDING)
        for i in range(n):
            given = conditional[t, i, labels_of(bound)[i]]
            assert_close(given, contract(table, each, first[i]), ROUNDING)
    assert bound.magnitude() >= np.abs(table).max() * (1 - ROUNDING)
    assert bound.magnitude(np.zeros((n, bound.n_labels), bool)) == 0.0
    assert bound.scratch_bytes(10) > 0


# Within a problem


@pytest.mark.parametrize("discount", [0.9, 1.0])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 2, 3])
@every_reward
def test_problems_equal_the_product_space(name, n, form, discount):
    drawn = draw(name, form, n, idle=1)
    game = random_game(np.random.default_rng(n), n, STATES, ACTIONS, discount, closed=1)
    game = replace(game, table=table_of(drawn, n).reshape((STATES, ACTIONS) * n))
    problem = game.problem(leader=drawn.reward)
    value, gradient = game.value(), np.where(game.available, game.gradient(), 0.0)
    assert_close(problem.leader_value(game.policies), value)
    assert_close(problem.leader_gradient(game.policies), gradient)
    assert problem.fingerprint() != game.problem().fingerprint() or name == "joint table"
    if problem.small:
        # Private: only a problem far too slow for a test needs doubling by itself.
        problem.leader_side.steps_before_doubling = 1
        assert_close(problem.leader_value(game.policies), value)
        assert_close(problem.leader_gradient(game.policies), gradient)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="minutes without compiled kernels")
@every_reward
def test_many_followers_make_a_problem(name):
    n = 50
    if not REWARDS[name].many:
        pytest.skip("a table over so many followers has no room")
    rng = np.random.default_rng(0)
    game = random_game(rng, 1, STATES, ACTIONS, closed=1)
    reward = REWARDS[name].draw(rng, Setting(n, STATES, ACTIONS, "states", idle=1)).reward
    problem = replace(game, followers=game.followers * n).problem(leader=reward)
    policies = rng.dirichlet(np.ones(ACTIONS), size=(n, STATES))
    policies = np.where(game.available, policies, 0.0)
    policies /= policies.sum(axis=2, keepdims=True)
    gradient = problem.leader_gradient(policies)
    # All followers are alike: exchanging two exchanges their rows.
    if name not in ("pairwise", "one pair table"):
        order = np.r_[1, 0, 2:n]
        assert_close(problem.leader_gradient(policies[order]), gradient[order], EXACT)
        assert_close(problem.leader_value(policies[order]), problem.leader_value(policies), EXACT)
    move = np.zeros_like(policies)
    move[3] = rng.dirichlet(np.ones(ACTIONS), size=STATES) * game.available[0]
    move[3] /= move[3].sum(axis=1, keepdims=True)
    move[3] -= policies[3]
    step = 1e-4
    slope = problem.leader_value(policies + step * move) - problem.leader_value(policies)
    # The value is not linear in a policy over time: the difference is off by the step.
    assert abs(slope / step - (gradient * move).sum()) <= 100 * step * max(1.0, problem.magnitude)
