"""Tables of Gymnasium environments: endings, missing pairs, sizes; some written out by hand."""

import tracemalloc

import numpy as np
import pytest
from conftest import assert_close

import fastincentive as fi
from fastincentive.errors import InputError


class Table:
    """What is read of an environment."""

    def __init__(self, table, initial):
        self.P, self.initial_state_distrib = table, np.array(initial)


def certain(following, reward=0.0, ended=False):
    """A move with one outcome."""
    return [(1.0, following, reward, ended)]


def test_tables_of_gymnasium_itself():
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("CliffWalking-v1")
    mdp = fi.mdp_from_gymnasium(env, 0.95)
    best = fi.best_response(mdp)
    # Thirteen steps beside the cliff, the last of them to the goal.
    assert best.values[36] == pytest.approx(-(1.0 - 0.95**13) / 0.05)
    transition = mdp.dense_transition()
    assert (transition[47, :, 48] == 1.0).all()
    assert (transition[48, :, 48] == 1.0).all()
    lake_mdp = fi.mdp_from_gymnasium(gymnasium.make("FrozenLake-v1"), 0.99)
    assert (lake_mdp.dense_transition()[[5, 7, 11, 12, 15]][:, :, 16] == 1.0).all()
    # The value of the slippery lake at discount 0.99 is well known.
    assert fi.best_response(lake_mdp).values[0] == pytest.approx(0.5420259, abs=1e-6)


def test_a_random_table_beside_its_dense_model():
    rng = np.random.default_rng(0)
    states, actions = 30, 3
    dense = rng.dirichlet(np.full(states, 0.05), size=(states, actions))
    rewards = rng.normal(size=dense.shape)
    table = {
        s: {
            a: [(dense[s, a, t], t, rewards[s, a, t], False) for t in range(states)]
            + [(0.0, 0, np.nan, True)]
            for a in range(actions)
        }
        for s in range(states)
    }
    read = fi.mdp_from_gymnasium(Table(table, np.full(states, 1.0 / states)), 0.9)
    mdp = fi.TabularMDP(dense, (dense * rewards).sum(axis=2), 0.9)
    assert_close(fi.best_response(read).values[:-1], fi.best_response(mdp).values)
    assert_close(read.dense_transition()[:-1, :, :-1], dense)


def test_only_what_episodes_come_to_says_where_they_end():
    # 0 -> 1, where the episode ends; 2, where none comes, leads to 1 as well and goes on.
    table = {
        0: {0: certain(1, 1.0, True)},
        1: {0: certain(0)},
        2: {0: certain(1, 5.0)},
    }
    mdp = fi.mdp_from_gymnasium(Table(table, [1.0, 0.0, 0.0]), 0.9)
    dense = mdp.dense_transition()[:, 0]
    assert dense[0, 1] == 1.0  # the leader sees where the episode ended
    assert dense[1, 3] == 1.0
    assert dense[2, 1] == 1.0
    # Where one may come to 1 and go on, its end is the Sink itself.
    both = fi.mdp_from_gymnasium(Table(table, [0.5, 0.0, 0.5]), 0.9).dense_transition()[:, 0]
    assert both[0, 3] == 1.0
    assert both[1, 0] == 1.0
    # An episode that ends where it begins.
    ring = {0: {0: certain(1, 1.0)}, 1: {0: certain(0, 1.0, True)}}
    assert_close(
        fi.best_response(fi.mdp_from_gymnasium(Table(ring, [1.0, 0.0]), 0.9)).values,
        [1.9, 1.0, 0.0],
    )


def test_missing_pairs_are_unavailable():
    table = {0: {0: certain(1), 1: certain(2, 1.0)}, 1: {0: certain(2, 3.0)}}
    for each in (table, [[certain(1), certain(2, 1.0)], [certain(2, 3.0), []], {}]):
        mdp = fi.mdp_from_gymnasium(Table(each, [1.0, 0.0, 0.0]), 0.9)
        assert mdp.available[:2].tolist() == [[True, True], [True, False]]
        assert_close(fi.best_response(mdp).values, [2.7, 3.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: {0: [(1.0, 2)]}}, r"env.P: expected \(probability, next state, .* state 1, action 0"),
        ({1: {0: certain(7)}}, r"next states in 0..2, got 7 at state 1, action 0"),
        ({1: {0: [(0.4, 1, 0.0, False)]}}, r"sum of 0.4 at state 1, action 0"),
        ({1: {0: [(-1.0, 1, 0.0, False), (2.0, 1, 0.0, False)]}}, "probabilities >= 0, got -1.0"),
        ({1: {0: certain(1, np.inf)}}, r"reward: expected finite .* state 1, action 0"),
        ({"one": {}}, r"env.P: expected numbers in 0..2, got 'one'"),
        ({1: {-1: certain(0)}}, r"env.P\[1\]: expected numbers in 0..1048575, got -1"),
        ({1: {0: 3}}, r"env.P\[1\]\[0\]: expected a list, got int"),
        ({1: {0: [(1.0, 10**30, 0.0, True)]}}, r"next states in 0..2"),
        ({1: 3}, r"env.P\[1\]: expected a dict or a list, got int"),
    ],
)
def test_what_is_wrong_with_a_table(change, message):
    table = {s: {0: certain(min(s + 1, 2))} for s in range(3)} | change
    with pytest.raises(InputError, match=message):
        fi.mdp_from_gymnasium(Table(table, [1.0, 0.0, 0.0]))


def test_no_table():
    with pytest.raises(InputError, match="P and initial_state_distrib, got object"):
        fi.mdp_from_gymnasium(object())


def test_memory_grows_with_what_is_listed():
    states = 4000
    table = [[certain(min(s + 1, states - 1)), certain(s)] for s in range(states)]
    env = Table(table, np.eye(1, states)[0])
    tracemalloc.start()
    fi.mdp_from_gymnasium(env, 0.9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # a table of all pairs and successors has 256 MB
