"""Followers packed into flat arrays: what is shared, and which policies are accepted."""

import pickle

import numpy as np
import pytest
from conftest import ROUNDING, assert_close, assert_identical, random_arrays, random_policy

from fastincentive import Followers, ImproperPolicyError, InputError, TabularMDP
from fastincentive.errors import MemoryLimitError
from fastincentive.followers.single import uniform_policies


def three_followers(unavailable=0.3):
    rng = np.random.default_rng(3)
    return [random_arrays(rng, 5, 3, gamma, unavailable) for gamma in (0.0, 0.9, 0.5)]


def unpack(packed, i):
    """Dense transitions (S, A, S) of follower i, read back from the flat arrays."""
    _, states, actions = packed.available.shape
    out = np.zeros((states, actions, states))
    for s in range(states):
        for a in range(actions):
            row = (packed.model[i] * states + s) * actions + a
            for e in range(packed.row_start[row], packed.row_start[row + 1]):
                out[s, a, packed.successor[e]] += packed.probability[e]
    return out


def test_packing_keeps_every_follower():
    arrays = three_followers()
    followers = Followers([each.mdp() for each in arrays])
    assert followers.shape == (followers.n, followers.n_states, followers.n_actions) == (3, 5, 3)
    assert len(followers) == followers.n_models == 3
    packed = followers.packed
    for i, each in enumerate(arrays):
        mask = each.available
        expected = np.where(mask[:, :, None], each.transition, 0.0)
        assert_close(unpack(packed, i), expected, ROUNDING)
        np.testing.assert_array_equal(followers.available[i], mask)
        np.testing.assert_array_equal(packed.absorbing[packed.model[i]], each.absorbing)
        np.testing.assert_array_equal(packed.sink[packed.model[i]], each.sinks)
        np.testing.assert_array_equal(followers.rewards[i], np.where(mask, each.reward, 0.0))
        assert_close(packed.initial[i], each.initial, ROUNDING)
        assert packed.discount[i] == each.discount
    assert packed.successor.dtype == np.int32
    assert [mdp.discount for mdp in followers] == [0.0, 0.9, 0.5]
    assert followers[1].discount == 0.9
    assert repr(followers) == "Followers(n=3, n_states=5, n_actions=3, n_models=3)"


def test_a_shared_model_is_stored_once():
    first, second, _ = (each.mdp() for each in three_followers())
    followers = Followers(
        [first, second, first, second.replace(discount=0.1), first.replace(initial=0)]
    )
    assert followers.n == 5
    assert followers.n_models == 2
    assert followers.packed.model.tolist() == [0, 1, 0, 1, 0]
    entries = first.transition.probability.size + second.transition.probability.size
    assert followers.packed.probability.size == entries
    for i, mdp in enumerate(followers):
        assert_close(unpack(followers.packed, i), mdp.dense_transition(), ROUNDING)


def test_arrays_make_the_same_followers():
    rng = np.random.default_rng(8)
    models = [each.mdp() for each in three_followers()]
    index, starts = np.array([0, 2, 0, 2]), np.array([3, 1, 4, 0])  # the second has no follower
    rewards = rng.normal(size=(4, 5, 3))
    discount = np.array([0.9, 0.2, 0.0, 0.5])
    mdps = [
        models[m].replace(reward=rewards[i], discount=discount[i], initial=int(starts[i]))
        for i, m in enumerate(index)
    ]
    one_by_one = Followers(mdps, [1, 2, 3, 4])
    at_once = Followers.from_arrays(
        models, rewards, discount, starts, index=index, counts=[1, 2, 3, 4]
    )
    laws = np.eye(5)[starts]
    from_laws = Followers.from_arrays(
        models, rewards, discount, laws, index=index, counts=[1, 2, 3, 4]
    )
    for other in (at_once, from_laws, pickle.loads(pickle.dumps(at_once)), Followers(at_once)):
        assert other.n_models == 2
        assert_identical(one_by_one.packed._asdict(), other.packed._asdict())
        np.testing.assert_array_equal(one_by_one.rewards, other.rewards)
        for one, two in zip(one_by_one, other, strict=True):
            np.testing.assert_array_equal(one.reward, two.reward)
            np.testing.assert_array_equal(one.initial, two.initial)
            assert one.discount == two.discount
            assert one.n_actions == two.n_actions
    assert at_once.counts.tolist() == [1, 2, 3, 4]
    last = at_once[-1]
    assert np.shares_memory(last.reward, at_once.rewards)
    with pytest.raises(ValueError, match="read-only"):
        last.reward[0, 0] = 1.0
    with pytest.raises(IndexError):
        at_once[4]


def test_arrays_take_discounts_and_starts_from_their_models():
    arrays = three_followers()[1]
    followers = Followers.from_arrays(arrays.mdp(), np.ones((2, 5)))
    assert followers.packed.discount.tolist() == [0.9, 0.9]
    assert_close(followers.packed.initial, [arrays.initial] * 2, ROUNDING)
    np.testing.assert_array_equal(followers.rewards[1], arrays.available.astype(float))
    each = [each.mdp() for each in three_followers()]
    assert Followers.from_arrays(each, np.ones((3, 5))).packed.model.tolist() == [0, 1, 2]


ARRAY_ERRORS = [
    ({"rewards": np.ones((4, 5, 2))}, r"rewards: expected shape \(4, 5, 3\) or \(4, 5\)"),
    ({"rewards": np.ones((0, 5, 3))}, "rewards: expected those of at least one follower"),
    ({"rewards": np.full((4, 5), np.nan)}, "got nan at follower 0, state 0"),
    ({"index": None}, r"index: expected numbers of shape \(4,\), because there are 3 models"),
    ({"index": [0, 1, 3, 0]}, r"index: expected numbers in 0\.\.2, got 3 at follower 2"),
    ({"index": [0.0] * 4}, "index: expected integers, got float64"),
    ({"discount": [0.5, 2.0, 0.5, 0.5]}, r"discount: expected numbers in .* at follower 1"),
    ({"discount": [0.5, 0.5]}, "discount: expected a number or shape"),
    ({"initial": [0, 1, 2, 5]}, r"initial: expected numbers in 0\.\.4, got 5 at follower 3"),
    ({"initial": np.ones((4, 5))}, "got a sum of 5 at follower 0"),
    ({"initial": [0.0] * 4}, "initial: expected numbers of states of shape"),
    ({"counts": [1, 1, 0, 1]}, "counts: expected positive integers, got 0 at type 2"),
    ({"models": []}, "models: expected at least one TabularMDP"),
]


@pytest.mark.parametrize(("changed", "message"), ARRAY_ERRORS)
def test_arrays_are_checked(changed, message):
    models = [each.mdp() for each in three_followers()]
    given = {"models": models, "rewards": np.ones((4, 5, 3)), "index": [0, 1, 2, 0], **changed}
    with pytest.raises(InputError, match=message):
        Followers.from_arrays(**given)


def test_the_absorbed_earn_nothing_in_arrays_either():
    mdp = random_arrays(np.random.default_rng(0), 5, 2, 1.0).mdp()
    with pytest.raises(InputError, match=r"rewards\[1\]: expected 0 in every closed class"):
        Followers.from_arrays(mdp, [mdp.reward, np.ones((5, 2))])


def test_more_followers_than_there_is_room_for_are_refused_at_once():
    mdp = three_followers()[0].mdp()
    rewards = np.broadcast_to(np.ones((1, 5, 3)), (2**50, 5, 3))
    with pytest.raises(MemoryLimitError, match=r"to hold \d+ followers with 5 states"):
        Followers.from_arrays(mdp, rewards)


def test_followers_that_share_answer_as_alone():
    first, second, _ = (each.mdp() for each in three_followers())
    followers = Followers([first, second, first.replace(discount=0.7), second])
    policies = random_policy(np.random.default_rng(0), followers.available)
    together = followers.evaluate(followers.rewards, policies)
    best = followers.best_responses(followers.rewards)
    for i, mdp in enumerate(followers):
        alone = Followers([mdp])
        single = alone.evaluate(alone.rewards, policies[i : i + 1])
        for one, other in zip(single, together, strict=True):
            np.testing.assert_array_equal(one[0], other[i])
        answer = alone.best_responses(alone.rewards)
        for one, other in zip(answer, best, strict=True):
            np.testing.assert_array_equal(one[0], other[i])


def test_uniform_policies_and_start_values():
    followers = Followers([each.mdp() for each in three_followers()])
    uniform = uniform_policies(followers)
    for i, mdp in enumerate(followers):
        for s in range(5):
            count = mdp.available[s].sum()
            np.testing.assert_array_equal(uniform[i, s], np.where(mdp.available[s], 1 / count, 0))
    values = np.random.default_rng(1).normal(size=(3, 5))
    expected = [mdp.initial @ row for mdp, row in zip(followers, values, strict=True)]
    assert_close(followers.start_values(values), expected, ROUNDING)


def test_a_warm_start_does_not_change_the_answer():
    followers = Followers([each.mdp() for each in three_followers()])
    cold = followers.best_responses(followers.rewards)
    warm = followers.best_responses(followers.rewards, cold.actions)
    np.testing.assert_array_equal(warm.actions, cold.actions)
    np.testing.assert_array_equal(warm.values, cold.values)
    assert warm.iterations.max() == 1
    worst = np.argmin(np.where(followers.available, cold.q_values, np.inf), axis=2)
    before = worst.copy()
    far = followers.best_responses(followers.rewards, worst)
    assert_close(far.values, cold.values, ROUNDING)
    np.testing.assert_array_equal(worst, before)  # not written to


# Errors


def test_followers_must_have_one_size():
    rng = np.random.default_rng(0)
    small, large = random_arrays(rng, 4, 2).mdp(), random_arrays(rng, 5, 2).mdp()
    message = (
        r"followers: expected 4 states and 2 actions, as the first follower, got 5 and 2 at "
        r"follower 2\. Pad with unreachable states"
    )
    with pytest.raises(InputError, match=message):
        Followers([small, small, large])
    more = random_arrays(rng, 4, 3).mdp()
    with pytest.raises(InputError, match="got 4 and 3 at follower 1"):
        Followers([small, more])


def test_followers_must_be_mdps():
    mdp = random_arrays(np.random.default_rng(0), 4, 2).mdp()
    with pytest.raises(InputError, match=r"followers\[1\]: expected a TabularMDP, got ndarray"):
        Followers([mdp, np.eye(2)])
    with pytest.raises(InputError, match="followers: expected at least one TabularMDP, got none"):
        Followers([])


POLICY_ERRORS = {
    "negative": (
        lambda p: p.__setitem__((1, 2), [-0.5, 1.5, 0.0]),
        "probabilities >= 0, and 0 for unavailable actions, got -0.5 at follower 1, state 2, "
        "action 0",
    ),
    "NaN": (
        lambda p: p.__setitem__((2, 0, 1), np.nan),
        "got nan at follower 2, state 0, action 1",
    ),
    "unavailable": (
        lambda p: p.__setitem__((0, 4), [0.5, 0.25, 0.25]),
        "and 0 for unavailable actions, got 0.25 at follower 0, state 4, action 2",
    ),
    "sum": (
        lambda p: p.__setitem__((1, 3, 0), p[1, 3, 0] + 0.5),
        "rows that sum to 1 (within 1e-09), got 1.5 at follower 1, state 3",
    ),
    "sum just outside": (
        lambda p: p.__setitem__((2, 4, 1), p[2, 4, 1] + 2e-9),
        "at follower 2, state 4",
    ),
}


@pytest.mark.parametrize("case", POLICY_ERRORS)
def test_policy_errors(case):
    spoil, message = POLICY_ERRORS[case]
    rng = np.random.default_rng(0)
    available = np.ones((5, 3), bool)
    available[4, 2] = False
    transition = rng.dirichlet(np.ones(5), size=(5, 3))
    mdp = TabularMDP(transition, np.zeros(5), available=available)
    followers = Followers([mdp] * 3)
    policies = random_policy(rng, followers.available)
    followers.check_policies(policies)
    spoil(policies)
    with pytest.raises(InputError) as error:
        followers.check_policies(policies, "start")
    assert str(error.value).startswith("start: expected ")
    assert message in str(error.value)


def test_policies_of_the_wrong_shape():
    followers = Followers([each.mdp() for each in three_followers()])
    message = r"policies: expected shape \(3, 5, 3\) \(followers, states, actions\), got \(5, 3\)"
    with pytest.raises(InputError, match=message):
        followers.check_policies(np.ones((5, 3)) / 3)


def test_checked_policies_are_copies():
    followers = Followers([each.mdp() for each in three_followers()])
    policies = uniform_policies(followers)
    assert not np.shares_memory(followers.check_policies(policies), policies)
    assert_close(followers.check_policies(policies.tolist()), policies, 0.0)
    short = followers.check_policies(policies.astype(np.float32))
    assert_close(short.sum(axis=2), np.ones(short.shape[:2]), 1e-15)
    fortran = followers.check_policies(np.asfortranarray(policies))
    assert fortran.flags.c_contiguous


def test_the_improper_follower_is_named():
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1] = transition[1, 0, 0] = 1.0
    transition[:2, 1, 2] = 1.0
    transition[2, :, 2] = 1.0
    mdp = TabularMDP(transition, np.zeros(3), 0.9)
    followers = Followers([mdp, mdp.replace(discount=1.0), mdp])
    policies = np.zeros((3, 3, 2))
    policies[:, :, 0] = 1.0
    message = "follower 1 has discount 1; got one that never leaves a class around state [01]"
    assert_close(followers.evaluate(followers.rewards, policies).values, np.zeros((3, 3)))
    costly = np.zeros(followers.shape)
    costly[:, :2] = -1.0
    with pytest.raises(ImproperPolicyError, match=message):
        followers.evaluate(costly, policies)
    policies[1, 1] = [0.0, 1.0]
    followers.evaluate(costly, policies)  # one way out is enough


def test_proper_policies_are_absorbed_or_stay_for_nothing():
    # One action stays in state 0, the other goes to the sink.
    moves = np.zeros((2, 2, 2))
    moves[0, 0, 0] = moves[0, 1, 1] = moves[1, :, 1] = 1.0
    for discount in (1.0, 0.9):
        for earned in (0.0, -1.0):
            rewards = np.array([[earned, 0.0], [0.0, 0.0]])
            followers = Followers([TabularMDP(moves, rewards, discount)])
            stays, goes = (followers.deterministic_policies(np.full((1, 2), a)) for a in (0, 1))
            assert followers.is_proper(goes)
            assert followers.is_proper(stays) == (discount < 1.0 or earned == 0.0)


def test_optimal_actions_are_tied_by_what_stands_at_the_state():
    moves = np.zeros((2, 3, 2))
    moves[:, :, 1] = 1.0
    for size in (1.0, 1e6):
        reward = np.zeros((2, 3))
        reward[0] = size * np.array([1.0, 1.0 - 1e-12, 1.0 - 1e-9])
        available = np.array([[True, True, True], [True, False, False]])
        followers = Followers([TabularMDP(moves, reward, 0.5, available=available)])
        rewards = followers.rewards
        best = followers.best_responses(rewards)
        assert_close(followers.units(best), [size])
        found = followers.optimal_actions(rewards, np.zeros(rewards.shape), best)
        assert found.tied[0].tolist() == [[True, True, False], [True, False, False]]
        assert_close(found.margin / (1e-9 * size), [1.0], 1e-6)
    nothing = followers.best_responses(np.zeros(followers.shape))
    assert followers.units(nothing).tolist() == [1e-9]


@pytest.mark.parametrize("penalty", [1e3, 1e8, 1e12])
def test_penalties_that_nobody_incurs_hide_no_difference(penalty):
    moves = np.zeros((3, 3, 3))
    moves[0, 0, 1] = moves[0, 1, 2] = moves[0, 2, 0] = moves[1:, :, 2] = 1.0
    reward = np.zeros((3, 3))
    reward[0] = [0.5, 0.5 + 1e-6, -penalty]
    reward[1] = 1.0 - 1e-6
    followers = Followers([TabularMDP(moves, reward, 0.9, 0)])
    best = followers.best_responses(followers.rewards)
    found = followers.optimal_actions(followers.rewards, np.zeros(followers.shape), best)
    assert found.tied[0, 0].tolist() == [True, False, False]
    assert_close(found.margin, [0.9 * (1.0 - 1e-6) - 1e-6], 1e-9)
    assert followers.units(best)[0] < 10.0 or penalty == 1e3


@pytest.mark.parametrize("rest", [1e-2, 1e-5, 1e-8])
def test_patient_followers_tell_small_differences_apart(rest):
    # Two jobs for ever, worth 1 and 1 + delta a step: values are 1 / rest, and not the difference.
    moves = np.zeros((2, 2, 2))
    moves[:, 0, 0] = moves[:, 1, 1] = 1.0
    for delta in (1e-3, 1e-7):
        followers = Followers([TabularMDP(moves, [[1.0, 1.0 + delta]] * 2, 1.0 - rest, 0)])
        best = followers.best_responses(followers.rewards)
        found = followers.optimal_actions(followers.rewards, np.zeros(followers.shape), best)
        assert found.tied[0].tolist() == [[False, True], [False, True]]
        assert_close(found.margin / delta, [1.0], 1e-6)
