"""One follower's model: three equal forms, copies, absorbing classes, and every input error."""

import gc
import weakref

import numba
import numpy as np
import pytest
import reference
import scipy.sparse
from conftest import ROUNDING, Arrays, assert_close, random_arrays, random_availability
from hypothesis import given
from hypothesis import strategies as st

from fastincentive import Followers, InputError, TabularMDP, best_response
from fastincentive.followers import transition
from fastincentive.followers.transition import ROW_SUM_TOLERANCE


def sparse_form(transition):
    """A matrices (S, S), rows of actions that do not exist included."""
    return [scipy.sparse.csr_array(transition[:, a]) for a in range(transition.shape[1])]


def successor_form(transition, rng):
    """Successor lists (S, A, K) with repeated successors, padding and shuffled entries."""
    states, actions, _ = transition.shape
    successors = np.tile(np.concatenate([np.arange(states)] * 2 + [[-7]]), (states, actions, 1))
    share = rng.random(transition.shape)
    parts = [share * transition, (1 - share) * transition, np.zeros((states, actions, 1))]
    order = rng.permutation(2 * states + 1)
    return successors[:, :, order].astype(np.int32), np.concatenate(parts, axis=2)[:, :, order]


def three_forms(arrays, rng):
    rest = (arrays.reward, arrays.discount, arrays.initial, arrays.available)
    successors, probabilities = successor_form(arrays.transition, rng)
    return [
        arrays.mdp(),
        TabularMDP(sparse_form(arrays.transition), *rest),
        TabularMDP.from_successors(successors, probabilities, *rest),
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("branching", [0, 2])
def test_three_forms_give_one_model(seed, branching):
    rng = np.random.default_rng(seed)
    arrays = random_arrays(rng, 7, 3, 0.9, 0.3, branching=branching)
    expected = np.where(arrays.available[:, :, None], arrays.transition, 0.0)
    for mdp in three_forms(arrays, rng):
        assert (mdp.n_states, mdp.n_actions) == (7, 3)
        assert_close(mdp.dense_transition(), expected, ROUNDING)
        np.testing.assert_array_equal(mdp.available, arrays.available)
        np.testing.assert_array_equal(mdp.reward, np.where(arrays.available, arrays.reward, 0.0))
        assert_close(mdp.initial, arrays.initial, ROUNDING)
        assert mdp.discount == 0.9
        np.testing.assert_array_equal(mdp.transition.absorbing, arrays.absorbing)
        np.testing.assert_array_equal(mdp.transition.sink, arrays.sinks)


def test_other_sparse_formats_and_duplicates():
    duplicated = scipy.sparse.coo_array(([0.25, 0.75, 1.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    for matrix in (duplicated, duplicated.tocsc(), duplicated.tolil()):
        mdp = TabularMDP([matrix], np.zeros(2))
        np.testing.assert_array_equal(mdp.dense_transition()[:, 0], [[0, 1], [1, 0]])
    mdp = TabularMDP((duplicated.tocsr(), duplicated.tocsr()), np.zeros(2))
    assert mdp.n_actions == 2


def test_nested_lists_are_arrays():
    mdp = TabularMDP([[[0.5, 0.5]], [[0, 1]]], [1, 0])
    np.testing.assert_array_equal(mdp.dense_transition()[:, 0], [[0.5, 0.5], [0, 1]])
    np.testing.assert_array_equal(mdp.reward, [[1.0], [0.0]])
    np.testing.assert_array_equal(mdp.initial, [0.5, 0.5])  # uniform by default
    assert mdp.discount == 0.95


def test_reward_of_states_is_the_reward_of_every_action():
    arrays = random_arrays(np.random.default_rng(0), 5, 3)
    mdp = TabularMDP(arrays.transition, np.arange(5.0))
    np.testing.assert_array_equal(mdp.reward, np.repeat(np.arange(5.0)[:, None], 3, axis=1))


def test_initial_state_number():
    arrays = random_arrays(np.random.default_rng(0), 4, 2)
    for number in (2, np.int32(2), 2.0):
        mdp = TabularMDP(arrays.transition, arrays.reward, initial=number)
        np.testing.assert_array_equal(mdp.initial, [0, 0, 1, 0])


def test_rows_within_the_tolerance_are_rescaled():
    rng = np.random.default_rng(1)
    arrays = random_arrays(rng, 4, 2)
    near = arrays.transition * (1 + 0.4 * ROW_SUM_TOLERANCE)
    initial = arrays.initial * (1 - 0.4 * ROW_SUM_TOLERANCE)
    near = Arrays(near, arrays.reward, 0.9, initial, arrays.available)
    for mdp in three_forms(near, rng):
        assert_close(mdp.dense_transition().sum(axis=2), np.ones((4, 2)), 1e-15)
        assert_close(mdp.initial.sum(), 1.0, 1e-15)


def test_rows_of_single_precision_are_accepted():
    rows = np.random.default_rng(0).random((300, 2, 300)).astype(np.float32)
    rows /= rows.sum(axis=2, keepdims=True)
    first = np.full(300, 1.0 / 300.0, np.float32)
    sums = rows.sum(axis=2, dtype=float)
    assert np.abs(sums - 1.0).max() > ROW_SUM_TOLERANCE
    rest = (np.ones(300), 0.9, first)
    successors = np.broadcast_to(np.arange(300), rows.shape)
    for mdp in (
        TabularMDP(rows, *rest),
        TabularMDP(sparse_form(rows), *rest),
        TabularMDP.from_successors(successors, rows, *rest),
    ):
        assert_close(mdp.dense_transition(), rows / sums[:, :, None], ROUNDING)
        assert_close(mdp.initial, np.full(300, 1.0 / 300.0), ROUNDING)
    with pytest.raises(InputError, match="Normalise the row in float64"):
        TabularMDP(rows.astype(float), *rest)
    for wrong in (rows * np.float32(0.99), rows * np.float32(np.nan)):
        for form in (wrong, sparse_form(wrong)):
            with pytest.raises(InputError, match="transition: expected"):
                TabularMDP(form, *rest)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (scipy.sparse.csr_array((5, 2)), r"a dense array, got csr_array. reward.toarray\(\)"),
        (sparse_form(np.ones((5, 2, 5))), r"\(5, 2\) or \(5,\), got sparse matrices. .* means"),
        (np.ones((2, 5, 5)), r"\(5, 2\) or \(5,\), got \(2, 5, 5\). .*P\[a\].multiply"),
        ("abc", "reward: expected an array of real numbers"),
    ],
)
def test_rewards_of_other_forms_are_explained(reward, message):
    laws = np.full((5, 2, 5), 0.2)
    for transition_ in (laws, sparse_form(laws)):
        with pytest.raises(InputError, match=message):
            TabularMDP(transition_, reward, 0.9)


@pytest.mark.parametrize("form", range(3))
def test_inputs_are_neither_changed_nor_aliased(form):
    rng = np.random.default_rng(5)
    arrays = random_arrays(rng, 5, 3, 0.9, 0.3)
    successors, probabilities = successor_form(arrays.transition, rng)
    matrices = sparse_form(arrays.transition)
    inputs = [arrays.reward, arrays.initial, arrays.available]
    if form == 0:
        inputs.append(arrays.transition)
    elif form == 1:
        inputs += [matrix.data for matrix in matrices]
    else:
        inputs += [successors, probabilities]
    before = [array.copy() for array in inputs]
    rest = (arrays.reward, 0.9, arrays.initial, arrays.available)
    if form == 0:
        mdp = TabularMDP(arrays.transition, *rest)
    elif form == 1:
        mdp = TabularMDP(matrices, *rest)
    else:
        mdp = TabularMDP.from_successors(successors, probabilities, *rest)
    for array, old in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(array, old)
        assert array.flags.writeable
    model = mdp.transition
    held = [mdp.reward, mdp.initial, mdp.available, model.probability, model.successor]
    held.append(model.row_start)
    for array in held:
        assert not any(np.shares_memory(array, given) for given in inputs)
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array.flat[0] = 0
    assert mdp.dense_transition().flags.writeable  # a new array each time


def test_replace_shares_the_model_and_checks_again():
    mdp = random_arrays(np.random.default_rng(2), 5, 2).mdp()
    other = mdp.replace(reward=np.ones(5), discount=0.5, initial=3)
    assert other.transition is mdp.transition
    assert other.discount == 0.5
    np.testing.assert_array_equal(other.reward, np.ones((5, 2)))
    np.testing.assert_array_equal(other.initial, np.eye(5)[3])
    same = mdp.replace()
    np.testing.assert_array_equal(same.reward, mdp.reward)
    np.testing.assert_array_equal(same.initial, mdp.initial)
    assert same.discount == mdp.discount == 0.9  # and the first is left as it was
    with pytest.raises(InputError, match="discount: expected a number in"):
        mdp.replace(discount=1.5)
    with pytest.raises(InputError, match="reward: expected 0 in every closed class"):
        mdp.replace(discount=1.0)
    with pytest.raises(InputError, match="initial: "):
        mdp.replace(initial=[1.0])


def test_repr():
    mdp = random_arrays(np.random.default_rng(2), 5, 2).mdp()
    assert repr(mdp) == "TabularMDP(n_states=5, n_actions=2, discount=0.9)"


# Absorbing classes and sinks


@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([1, 2]))
def test_absorbing_classes_are_the_bottom_classes(seed, states, branching):
    rng = np.random.default_rng(seed)
    available = random_availability(rng, states, 2, 0.4)
    successors = rng.integers(states, size=(states, 2, branching))
    probabilities = np.full((states, 2, branching), 1.0 / branching)
    mdp = TabularMDP.from_successors(successors, probabilities, np.zeros(states), 0.5, 0, available)
    model = mdp.transition
    expected = reference.bottom_classes(mdp.dense_transition(), available)
    np.testing.assert_array_equal(model.absorbing, expected)
    assert model.absorbing.any()  # every finite chain ends somewhere
    stays = (successors == np.arange(states)[:, None, None]).all(axis=2)
    np.testing.assert_array_equal(model.sink, (stays | ~available).all(axis=1))
    assert not (model.sink & ~model.absorbing).any()


def test_unavailable_action_does_not_open_a_class():
    transition = np.zeros((3, 2, 3))
    transition[0, :, 1] = 1.0
    transition[1, 0, 1] = 1.0
    transition[1, 1, 2] = 1.0  # the way out of state 1
    transition[2, :, 2] = 1.0
    available = np.ones((3, 2), bool)
    mdp = TabularMDP(transition, np.zeros(3), available=available)
    np.testing.assert_array_equal(mdp.transition.absorbing, [False, False, True])
    available[1, 1] = False
    mdp = TabularMDP(transition, np.zeros(3), available=available)
    np.testing.assert_array_equal(mdp.transition.absorbing, [False, True, True])
    np.testing.assert_array_equal(mdp.transition.sink, [False, True, True])


# Errors: argument, expected, got, first offending index, remedy

GOOD = np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])


def changed(value, *index):
    array = GOOD.copy()
    array[index] = value
    return array


ZERO = np.zeros((2, 2))
ONE_MISSING = np.array([[True, True], [True, False]])

DENSE_ERRORS = {
    "row sum": (
        {"transition": changed(0.6, 1, 0, 1)},
        "transition: expected probabilities that sum to 1 (within 1e-09), got a sum of 0.6 at "
        "state 1, action 0. Normalise the row",
    ),
    "row sum just outside": (
        {"transition": changed(0.5 + 3e-9, 0, 0, 0)},
        "got a sum of 1.000000003 at state 0, action 0",
    ),
    "first of two": (
        {"transition": changed(0.6, slice(None), slice(None), 1)},
        "got a sum of 1.1 at state 0, action 0",
    ),
    "negative": (
        {"transition": changed([-0.5, 1.5], 0, 1)},
        "transition: expected finite probabilities >= 0, got -0.5 at index (0, 1, 0)",
    ),
    "NaN": (
        {"transition": changed(np.nan, 1, 1, 0)},
        "transition: expected finite probabilities >= 0, got nan at index (1, 1, 0)",
    ),
    "infinite": (
        {"transition": changed(np.inf, 1, 1, 0)},
        "got inf at index (1, 1, 0)",
    ),
    "two axes": (
        {"transition": np.eye(2)},
        "transition: expected an array of shape (S, A, S), got (2, 2)",
    ),
    "not square": (
        {"transition": np.ones((2, 2, 3)) / 3},
        "transition: expected an array of shape (S, A, S), got (2, 2, 3)",
    ),
    "empty": (
        {"transition": np.ones((0, 2, 0))},
        "transition: expected an array of shape (S, A, S), got (0, 2, 0)",
    ),
    "empty list": ({"transition": []}, "transition: expected"),
    "not an array": (
        {"transition": {"a": 1}},
        "transition: expected an array of real numbers, got dict",
    ),
    "reward shape": (
        {"reward": np.zeros((2, 3))},
        "reward: expected shape (2, 2) or (2,), got (2, 3)",
    ),
    "reward NaN": (
        {"reward": [[0.0, 1.0], [np.nan, 0.0]]},
        "reward: expected finite numbers, got nan at state 1, action 0",
    ),
    "reward infinite": (
        {"reward": [[0.0, 1.0], [0.0, np.inf]]},
        "reward: expected finite numbers, got inf at state 1, action 1",
    ),
    "discount above": ({"discount": 1.2}, "discount: expected a number in [0, 1], got 1.2"),
    "discount below": ({"discount": -0.1}, "discount: expected a number in [0, 1], got -0.1"),
    "discount NaN": ({"discount": np.nan}, "discount: expected a number in [0, 1], got nan"),
    "discount None": ({"discount": None}, "discount: expected a number in [0, 1], got None"),
    "discount word": ({"discount": "half"}, "discount: expected a number in [0, 1], got 'half'"),
    "initial sum": (
        {"initial": [0.5, 0.6]},
        "initial: expected a distribution that sums to 1 (within 1e-09), got a sum of 1.1",
    ),
    "initial negative": (
        {"initial": [1.5, -0.5]},
        "initial: expected finite probabilities >= 0, got -0.5 at index (1,)",
    ),
    "initial NaN": (
        {"initial": [np.nan, 1.0]},
        "initial: expected finite probabilities >= 0, got nan at index (0,)",
    ),
    "initial shape": (
        {"initial": [1.0, 0.0, 0.0]},
        "initial: expected shape (2,) or a state number, got (3,)",
    ),
    "initial too large": (
        {"initial": 2},
        "initial: expected a state number in 0..1, got 2",
    ),
    "initial below": ({"initial": -1}, "initial: expected a state number in 0..1, got -1"),
    "initial fraction": ({"initial": 0.5}, "initial: expected a state number in 0..1, got 0.5"),
    "initial number NaN": ({"initial": np.nan}, "initial: expected a state number in 0..1"),
    "available empty row": (
        {"available": [[True, True], [False, False]]},
        "available: expected at least one action in every state, got none at state 1. "
        "Give a state without choices one action",
    ),
    "available dtype": (
        {"available": np.ones((2, 2), int)},
        "available: expected a bool array of shape (2, 2), got int64 (2, 2)",
    ),
    "available shape": (
        {"available": np.ones((2, 3), bool)},
        "available: expected a bool array of shape (2, 2), got bool (2, 3)",
    ),
    "rewarding closed class": (
        {"discount": 1.0, "reward": [[0.0, 0.0], [0.0, 2.5]]},
        "reward: expected 0 in every closed class of states, because the discount is 1, got 2.5 "
        "at state 1, action 1. Add a sink state",
    ),
    "costly closed class": (
        {"discount": 1.0, "reward": [[0.0, 0.0], [-1.0, 0.0]]},
        "got -1 at state 1, action 0",
    ),
}


@pytest.mark.parametrize("case", DENSE_ERRORS)
def test_input_errors(case):
    arguments, message = DENSE_ERRORS[case]
    with pytest.raises(InputError) as error:
        TabularMDP(**{"transition": GOOD, "reward": ZERO, **arguments})
    assert message in str(error.value)


@pytest.mark.parametrize("rubbish", [np.nan, -1.0, np.inf, 7.0])
def test_rows_of_unavailable_actions_may_hold_anything(rubbish):
    transition = changed(rubbish, 1, 1)
    reward = np.array([[0.0, 1.0], [0.0, rubbish]])
    mask = ONE_MISSING
    good = TabularMDP(GOOD, ZERO, available=mask).dense_transition()
    assert (good[1, 1] == 0).all()
    mdp = TabularMDP(transition, reward, available=mask)
    np.testing.assert_array_equal(mdp.dense_transition(), good)
    np.testing.assert_array_equal(mdp.reward, [[0.0, 1.0], [0.0, 0.0]])
    mdp = TabularMDP(sparse_form(transition), reward, available=mask)
    np.testing.assert_array_equal(mdp.dense_transition(), good)
    states = np.broadcast_to(np.arange(2), (2, 2, 2))
    mdp = TabularMDP.from_successors(states, transition, reward, available=mask)
    np.testing.assert_array_equal(mdp.dense_transition(), good)


def test_a_reward_of_an_unavailable_action_in_a_closed_class_is_no_error():
    reward = np.array([[1.0, 0.0], [0.0, 9.0]])
    mdp = TabularMDP(GOOD, reward, 1.0, available=ONE_MISSING)
    np.testing.assert_array_equal(mdp.reward, [[1.0, 0.0], [0.0, 0.0]])


SPARSE_ERRORS = {
    "shape": (
        [scipy.sparse.eye_array(2), scipy.sparse.eye_array(3)],
        "transition: expected shape (2, 2), got (3, 3) at action 1",
    ),
    "not square": (
        [scipy.sparse.csr_array(np.ones((2, 3)) / 3)],
        "transition: expected shape (2, 2), got (2, 3) at action 0",
    ),
    "row sum": (
        [scipy.sparse.eye_array(2), scipy.sparse.diags_array([1.0, 0.7])],
        "transition: expected probabilities that sum to 1 (within 1e-09), got a sum of 0.7 at "
        "state 1, action 1",
    ),
    "empty row": (
        [scipy.sparse.diags_array([1.0, 0.0])],
        "got a sum of 0 at state 1, action 0",
    ),
    "negative": (
        [scipy.sparse.csr_array([[0.0, 1.0], [2.0, -1.0]])],
        "transition: expected finite probabilities >= 0, got -1.0 at state 1, action 0, "
        "successor 1",
    ),
    "NaN": (
        [scipy.sparse.csr_array([[np.nan, 1.0], [0.0, 1.0]])],
        "got nan at state 0, action 0, successor 0",
    ),
}


@pytest.mark.parametrize("case", SPARSE_ERRORS)
def test_sparse_input_errors(case):
    matrices, message = SPARSE_ERRORS[case]
    with pytest.raises(InputError) as error:
        TabularMDP(matrices, np.zeros(2))
    assert message in str(error.value)


LIST_ERRORS = {
    "too large": (
        [[[0, 1]], [[1, 2]]],
        [[[0.5, 0.5]], [[0.5, 0.5]]],
        "successors: expected state numbers in 0..1, got 2 at index (1, 0, 1)",
    ),
    "below": (
        [[[-1, 1]], [[1, 1]]],
        [[[0.5, 0.5]], [[0.5, 0.5]]],
        "successors: expected state numbers in 0..1, got -1 at index (0, 0, 0)",
    ),
    "fraction": (
        [[[0.0, 1.0]], [[1.0, 1.0]]],
        [[[0.5, 0.5]], [[0.5, 0.5]]],
        "successors: expected integers, got float64",
    ),
    "two shapes": (
        [[[0, 1]], [[1, 1]]],
        [[[1.0]], [[1.0]]],
        "successors and probabilities: expected two arrays of one shape (S, A, K), got (2, 1, 2) "
        "and (2, 1, 1)",
    ),
    "two axes": (
        [[0, 1], [1, 1]],
        [[0.5, 0.5], [0.5, 0.5]],
        "two arrays of one shape (S, A, K), got (2, 2) and (2, 2)",
    ),
    "row sum": (
        [[[0, 1]], [[1, 1]]],
        [[[0.5, 0.5]], [[0.5, 0.25]]],
        "probabilities: expected probabilities that sum to 1 (within 1e-09), got a sum of 0.75 at "
        "state 1, action 0",
    ),
    "negative": (
        [[[0, 1]], [[1, 1]]],
        [[[-0.5, 1.5]], [[0.5, 0.5]]],
        "probabilities: expected finite probabilities >= 0, got -0.5 at index (0, 0, 0)",
    ),
    "NaN": (
        [[[0, 1]], [[1, 1]]],
        [[[0.5, 0.5]], [[np.nan, 1.0]]],
        "probabilities: expected finite probabilities >= 0, got nan at index (1, 0, 0)",
    ),
}


@pytest.mark.parametrize("case", LIST_ERRORS)
def test_successor_list_errors(case):
    successors, probabilities, message = LIST_ERRORS[case]
    with pytest.raises(InputError) as error:
        TabularMDP.from_successors(successors, probabilities, np.zeros(2))
    assert message in str(error.value)


def test_equal_transitions_are_one_model_while_in_use():
    rng = np.random.default_rng(3)
    arrays = random_arrays(rng, 5, 2, 0.9)
    first = arrays.mdp()
    for mdp in (arrays.mdp(), TabularMDP(sparse_form(arrays.transition), arrays.reward)):
        assert mdp.transition is first.transition
    other = random_arrays(rng, 5, 2, 0.9).mdp()
    assert other.transition is not first.transition
    fewer = TabularMDP(arrays.transition[:, :1], arrays.reward[:, :1])
    assert fewer.transition is not first.transition
    gone = weakref.ref(first.transition)
    del first, mdp
    gc.collect()
    assert gone() is None
    assert arrays.mdp().dense_transition() == pytest.approx(arrays.transition)


def test_the_same_digest_does_not_make_models_equal(monkeypatch):
    monkeypatch.setattr(transition, "digest", lambda *_: 0.0)
    rng = np.random.default_rng(4)
    models = [random_arrays(rng, 4, 2, 0.9, branching=2).mdp().transition for _ in range(3)]
    assert len({id(model) for model in models}) == 3


def test_a_thousand_followers_given_one_array_hold_one_copy():
    rng = np.random.default_rng(5)
    arrays = random_arrays(rng, 20, 3, 0.9)
    rewards = rng.random((1000 if not numba.config.DISABLE_JIT else 10, 20, 3))
    followers = Followers([TabularMDP(arrays.transition, reward) for reward in rewards])
    assert followers.n_models == 1
    assert len({id(mdp.transition) for mdp in followers}) == 1


def test_input_errors_are_value_errors():
    assert issubclass(InputError, ValueError)


# Rewards of -inf


def test_actions_with_reward_minus_infinity_are_left_out():
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(3), size=(3, 2))
    reward = rng.random((3, 2))
    reward[1, 0] = -np.inf
    built = TabularMDP(transition, reward, 0.9, 0)
    whole = TabularMDP(transition, np.zeros((3, 2)), 0.9, 0)
    replaced = whole.replace(reward=reward)
    some = np.stack([np.zeros((3, 2)), reward, reward])
    packed = Followers.from_arrays(whole, some)
    assert packed.n_models == 2
    expected = best_response(built).values
    for mdp in (replaced, packed[1], packed[2]):
        np.testing.assert_array_equal(mdp.available, built.available)
        np.testing.assert_array_equal(best_response(mdp).values, expected)
    assert packed[0].available.all()
    assert replaced.replace(reward=reward).transition is replaced.transition
    reward[1, 1] = -np.inf
    for ask in (
        lambda: whole.replace(reward=reward),
        lambda: Followers.from_arrays(whole, [reward]),
    ):
        with pytest.raises(InputError, match="state 1"):
            ask()
