"""The leader's passes, kernel by kernel, beside plain NumPy.

Some tests set ``passes._guess`` or take ``passes._table`` away: how long a pass is guessed to be,
and whether two followers are passed over in one call, must change no answer, and no public switch
turns either.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import EXACT, ROUNDING, assert_close, random_game

from fastincentive import (
    CountReward,
    Followers,
    IncentiveProblem,
    InputError,
    JointReward,
    LabelReward,
    Payments,
    TabularMDP,
)
from fastincentive.kernels import contraction as table_kernels
from fastincentive.kernels import marginals as kernels
from fastincentive.kernels.sparsity import concatenate_patterns, policy_weights
from fastincentive.leader import contraction
from fastincentive.models import grid_mdp, random_problem
from fastincentive.problem import pass_memory, passes
from fastincentive.problem.product_space import chains


def drawn(n=3, states=6, actions=2, discount=0.9, **settings):
    game = random_game(np.random.default_rng([n, states]), n, states, actions, discount, **settings)
    return game, game.problem()


def moves_of(game):
    return [
        np.einsum("sa,sat->st", policy, each.transition)
        for policy, each in zip(game.policies, game.followers, strict=True)
    ]


def test_patterns_hold_every_successor_once():
    for problem in (random_problem(3, 12, 3, 2, rng=0, unavailable=0.3), drawn()[1]):
        followers = problem.followers
        pattern = problem.passes.pattern
        packed = followers.packed
        for i, mdp in enumerate(followers):
            m = packed.model[i]
            column = pattern.column[pattern.base[m] : pattern.base[m + 1]]
            reached = mdp.dense_transition().any(axis=1)
            for s in range(followers.n_states):
                row = column[pattern.start[m, s] : pattern.start[m, s + 1]]
                assert len(set(row.tolist())) == len(row)
                assert reached[s, row].sum() == reached[s].sum()
            # Every transition finds its own successor again.
            first = m * mdp.available.size
            edges = slice(packed.row_start[first], packed.row_start[first + mdp.available.size])
            assert (column[pattern.place[edges]] == packed.successor[edges]).all()
        again = concatenate_patterns(
            [followers[i].transition.pattern for i in range(len(followers))]
        )
        assert again.base[-1] == again.column.size


def test_weighed_rows_are_the_chain():
    game, problem = drawn(sparse=True)
    pattern = problem.passes.pattern
    packed = problem.followers.packed
    for i, move in enumerate(moves_of(game)):
        weight = np.full(pattern.largest, np.nan)
        policy_weights(packed, pattern, i, game.policies[i], weight)
        m = packed.model[i]
        column = pattern.column[pattern.base[m] : pattern.base[m + 1]]
        dense = np.zeros_like(move)
        for s in range(len(move)):
            row = slice(pattern.start[m, s], pattern.start[m, s + 1])
            dense[s, column[row]] = weight[row]
        assert_close(dense, move, ROUNDING)
    assert_close(chains(problem.followers, game.policies), np.stack(moves_of(game)), ROUNDING)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("by_action", [True, False])
def test_forward_laws(by_action, keep):
    game, problem = drawn(by_action=by_action)
    n, states, actions = game.policies.shape
    packed, pattern = problem.followers.packed, problem.passes.pattern
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=(n, states, actions if by_action else 1))
    rest = rng.random((n, states))
    state = passes.room(packed, pattern, 7)
    state.rest[:] = rest
    laws = np.full((7 if keep else 0, n, states), np.nan)
    seen = np.full((7, n, 3), np.nan)
    kernels.forward_laws(
        packed, pattern, game.policies, labels, 0.9, kernels.WEIGH, state, laws, seen
    )
    for i, move in enumerate(moves_of(game)):
        law = game.followers[i].initial
        for t in range(7):
            if keep:
                assert_close(laws[t, i], law, ROUNDING)
            joint = law[:, None] * game.policies[i]
            shown = np.broadcast_to(labels[i], joint.shape)
            expected = [joint[shown == label].sum() for label in range(3)]
            assert_close(seen[t, i], expected, ROUNDING)
            assert_close(state.remainder[t, i], law @ rest[i], ROUNDING)
            law = law @ move
        assert_close(state.masses[i], law, ROUNDING)


@pytest.mark.parametrize("discount", [0.5, 0.95, 1.0])
@pytest.mark.parametrize("slip", [0.0, 0.1, 0.4])
def test_the_time_until_settled_is_bounded_and_not_far_off(slip, discount):
    """From every state; a random walk takes hundreds of steps, one towards the goal a few."""
    mdp = grid_mdp("....#\n..#..\n.....\nS...G", slip)
    for policy in (np.full((21, 4), 0.25), np.eye(4)[np.ones(21, int)]):
        transition = np.einsum("sa,sat->st", policy, mdp.dense_transition())
        followers = Followers([mdp])
        packed, pattern = followers.packed, passes.pattern_of(followers)
        state = passes.room(packed, pattern)
        none = np.empty((0, 1, 21))
        labels = np.zeros((1, 21, 1), np.int64)
        kernels.forward_laws(
            packed, pattern, policy[None], labels, discount, kernels.SETTLE, state, none, none
        )
        open_states = ~state.settled[0]
        killed = discount * transition[np.ix_(open_states, open_states)]
        exact = np.linalg.solve(np.eye(len(killed)) - killed, np.ones(len(killed)))
        found = state.rest[0, open_states]
        assert (found >= exact * (1.0 - 1e-12)).all()
        assert (found <= 3.0 * exact.max()).all()
        assert (state.rest[0, ~open_states] == 0.0).all()


def test_first_below():
    remainder = np.array([[3.0, 1.0], [2.0, 1.0], [0.5, 0.5], [0.1, 0.0]])
    assert kernels.first_below(remainder, 1.0, 0, 1.0) == (2, 1.0)
    assert kernels.first_below(remainder, 0.5, 1, 1.0) == (1, 0.75)
    at, left = kernels.first_below(remainder, 0.5, 0, 1e-3)
    assert at == -1
    assert left == pytest.approx(0.1 * 0.5**3)


def test_joint_laws_and_expected_rewards():
    rng = np.random.default_rng(0)
    marginals = rng.dirichlet(np.ones(4), (5, 3))
    laws = np.empty((5, 64))
    table_kernels.joint_laws(marginals, laws)
    assert_close(laws, np.einsum("ta,tb,tc->tabc", *marginals.transpose(1, 0, 2)).reshape(5, 64))
    assert_close(contraction.joint_laws(marginals), laws, ROUNDING)
    tables = rng.normal(size=(5, 64))
    expected = np.empty(5)
    table_kernels.varying_expected(tables, marginals, expected)
    assert_close(expected, (laws * tables).sum(axis=1), ROUNDING)


# The passes in one call


def leaders(rng, states):
    table = rng.normal(size=(states, states))
    table[-1, -1] = 0.0
    labels = rng.integers(3, size=(2, states))
    labels[:, -1] = 2
    small = rng.normal(size=(3, 3))
    small[2, 2] = 0.0
    return [JointReward(table), LabelReward(labels, small)]


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("closed", [0, 1])
def test_one_call_equals_the_passes(kind, discount, closed):
    game = random_game(np.random.default_rng(7), 2, 9, 3, discount, closed=closed, sparse=True)
    leader = leaders(np.random.default_rng(1), 9)[kind]
    problem, plain = game.problem(leader=leader), game.problem(leader=leader)
    assert problem.passes._table is not None
    plain.passes._table = None
    for gradient in (True, False):
        found = problem.leader_pass(game.policies, gradient)
        expected = plain.leader_pass(game.policies, gradient)
        assert found.horizon == expected.horizon
        assert found.truncation == pytest.approx(expected.truncation)
        assert_close(found.value, expected.value, EXACT)
        if gradient:
            assert_close(found.gradient, expected.gradient, EXACT)
        else:
            assert found.gradient is None


@pytest.mark.parametrize("times", [0, 20, 90, 1000])
def test_gradients_whether_laws_are_kept_or_not(monkeypatch, times):
    game, _ = drawn(n=3, discount=0.9)
    labels = np.arange(6) % 2
    problem = game.problem(leader=LabelReward(labels, np.arange(8.0).reshape(2, 2, 2)))
    expected = problem.leader_gradient(game.policies)
    monkeypatch.setattr(pass_memory, "LAW_BYTES", times * game.policies[:, :, 0].nbytes)
    for guess in (16, 64, 300):
        problem.passes._guess = guess
        found = problem.forward(game.policies, gradient=True)
        assert found.laws.shape[0] in (0, found.marginals.shape[0])
        problem.passes._guess = guess
        assert_close(problem.leader_gradient(game.policies), expected, ROUNDING)


def test_the_route_does_not_depend_on_earlier_calls():
    """Calls before it with long and short horizons leave an answer the same, bit by bit."""
    stay = np.zeros((2, 2, 2))
    stay[0, 0, 0] = stay[0, 1, 1] = 1.0
    stay[1, :, 1] = 1.0
    mdp = TabularMDP(stay, np.zeros(2), 0.9, 0)
    table = np.array([[1.0, 0.3], [-0.7, 0.0]])

    def build():
        return IncentiveProblem([mdp, mdp], JointReward(table), Payments.at_states([[0], []]))

    problem = build()
    policies = [np.array([[[p, 1 - p], [1.0, 0.0]]] * 2) for p in (0.5, 0.9, 0.99, 0.9999)]
    alone = [build().leader_pass(each) for each in policies]
    for k in (3, 0, 2, 1, 0, 3, 2):
        again = problem.leader_pass(policies[k])
        assert again.value == alone[k].value
        assert again.gradient.tobytes() == alone[k].gradient.tobytes()


@pytest.mark.parametrize("labels", ["states", "pairs"])
def test_single_precision_storage(labels):
    rng = np.random.default_rng(5)
    game = random_game(rng, 4, 30, 3, 0.9, unavailable=0.2)
    shape = (30,) if labels == "states" else (4, 30, 3)
    problem = IncentiveProblem(
        game.problem().followers,
        CountReward(rng.integers(2, size=shape), rng.normal(size=5)),
        Payments.everywhere(),
        0.95,
    )
    problem.leader_side.steps_before_doubling = np.inf  # not on the product space
    policies = game.policies.astype(np.float32)
    assert not problem.small
    # A law is off by up to 6e-8 of itself for each step, values by the same share of their size.
    horizon = 1.0 / (1.0 - 0.95)
    share = 6e-8 * horizon
    size = problem.magnitude * horizon
    value = problem.leader_value(game.policies)
    assert problem.leader_value(policies) == pytest.approx(value, abs=share * size)
    gradient, expected = problem.leader_gradient(policies), problem.leader_gradient(game.policies)
    assert gradient.dtype == np.float32
    assert expected.dtype == np.float64
    visits = np.abs(expected).max()
    assert np.abs(gradient - expected).max() <= share * max(visits, size)
    off = policies.copy()
    off[0, 0] *= 1.00001
    with pytest.raises(InputError, match=r"rows that sum to 1 \(within 1e-06\)"):
        problem.leader_value(off)
