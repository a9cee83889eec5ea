"""No random MDP's best response misses its residual, whatever its graph, rows and discount."""

from __future__ import annotations

import numpy as np
import pytest
from random_mdps import chain_of

import fastincentive as fi
from fastincentive.bench.random_mdps import KINDS, random_mdp
from fastincentive.followers import best_responses as large
from fastincentive.followers.followers import Followers
from fastincentive.kernels.jacobi import jacobi_response

DISCOUNTS = (0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)
#: Sweeps are compiled for each pair of a number of actions and one of successors. Those with 4
#: actions and 3 or 1 are compiled for other tests, too; the rest takes the form for any lengths.
ACTIONS, ROWS = 4, (1, 3)


@pytest.fixture
def few_compiled(monkeypatch):
    lengths = large.constant_lengths

    def few(actions, width):
        return lengths(actions, width) if actions == ACTIONS and width in ROWS else ((), ())

    monkeypatch.setattr(large, "constant_lengths", few)


def check(mdp, warm=None):
    """The Bellman equation, Q, and that the actions earn what the values promise."""
    followers = Followers([mdp])
    found = followers.best_responses(followers.rewards, warm)
    values = found.values[0].copy()
    size = max(float(np.abs(values).max()), float(np.abs(mdp.reward).max()))
    policy = np.eye(mdp.n_actions)[found.actions[0]]
    moves, reward, pairs = chain_of(mdp, policy)
    q = mdp.reward + mdp.discount * (pairs @ values).reshape(mdp.reward.shape)
    if mdp.discount == 1.0:  # the last state is where play has ended
        q[-1] = values[-1] = 0.0
    missed = np.abs(q.max(axis=1) - values)
    assert missed.max() <= 1e-13 * size
    assert found.residual[0] == pytest.approx(missed.max(), abs=1e-13 * size)
    np.testing.assert_allclose(reward + moves @ values, values, atol=1e-12 * size)
    return found


@pytest.mark.parametrize("discount", DISCOUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_few_states(kind, discount):
    check(random_mdp(kind, 0, 20 + 7 * KINDS.index(kind), discount))


@pytest.mark.slow
@pytest.mark.parametrize("discount", DISCOUNTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("few_compiled")
def test_many_random_models(kind, discount):
    for seed in range(10):
        states = int(np.random.default_rng([seed, 1]).integers(20, 300 if kind == "dense" else 900))
        check(random_mdp(kind, seed, states, discount, ACTIONS))


@pytest.mark.slow
@pytest.mark.parametrize("discount", [0.99, 1.0])
@pytest.mark.parametrize("kind", ["local", "ragged"])
@pytest.mark.usefixtures("few_compiled")
def test_warm_actions_lead_to_the_same_values(kind, discount):
    mdp = random_mdp(kind, 3, 450, discount, ACTIONS)
    cold = check(mdp)
    warm = check(mdp, cold.actions)
    np.testing.assert_allclose(warm.values, cold.values, atol=1e-9 * np.abs(cold.values).max())


@pytest.mark.slow
@pytest.mark.usefixtures("few_compiled")
def test_unbounded_rewards_of_many_states_are_refused():
    # The first state has a loop that earns; all others must end.
    S = 500
    successors = np.stack([np.arange(S), np.full(S, S - 1)], axis=1)[:, :, None]
    successors[1:, 0] = S - 1
    reward = np.zeros((S, 2))
    reward[0, 0] = 1.0
    mdp = fi.TabularMDP.from_successors(successors, np.ones((S, 2, 1)), reward, 1.0)
    followers = Followers([mdp])
    with pytest.raises(fi.InputError, match="bounded best total reward"):
        followers.best_responses(followers.rewards)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobi_sweeps_answer_or_say_that_they_do_not(kind):
    mdp = random_mdp(kind, 4, 60, 0.999)
    followers = Followers([mdp])
    actions, values = np.empty(60, np.int64), np.empty(60)
    q_values = np.empty((60, mdp.n_actions))
    residual, passes, count = jacobi_response(
        followers.packed, 0, followers.rewards, actions, values, q_values
    )
    expected = mdp.reward + 0.999 * (mdp.dense_transition() @ values)
    np.testing.assert_allclose(q_values, expected, rtol=1e-12, atol=1e-12)
    assert residual == pytest.approx(np.abs(expected.max(axis=1) - values).max(), abs=1e-12)
    assert count <= 100
    if kind in ("sparse", "dense", "ragged", "hub"):
        exact = followers.best_responses(followers.rewards)
        assert residual <= passes
        np.testing.assert_allclose(values, exact.values[0], rtol=1e-9)
