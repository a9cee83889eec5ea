"""Where the leader may pay: indices, ties, bounds, budgets, and what is refused."""

import numpy as np
import pytest
import reference
from conftest import ROUNDING, assert_close, random_arrays
from hypothesis import given
from hypothesis import strategies as st

from fastincentive import Followers, InputError, Payments
from fastincentive.problem.bound_payments import BoundPayments

SHAPE = (2, 5, 3)


def two_followers(unavailable=0.0, discount=0.9):
    rng = np.random.default_rng(0)
    return Followers(
        [random_arrays(rng, *SHAPE[1:], discount, unavailable).mdp() for _ in range(2)]
    )


def test_at_states_pays_every_action_there():
    bound = Payments.at_states([[3, 1], [4]]).bind(two_followers())
    assert bound.size == 3
    x = bound.side_payments(np.array([1.0, 2.0, 4.0]))
    expected = np.zeros(SHAPE)
    expected[0, 3], expected[0, 1], expected[1, 4] = 1.0, 2.0, 4.0
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(bound.reaches, [[True, True, False], [False, False, True]])
    np.testing.assert_array_equal(bound.reach, [[0, 1], [2, -1]])
    assert not bound.shared


def test_at_states_skips_unavailable_actions():
    followers = two_followers(0.5)
    states = [s for s in range(5) if not followers.available[0, s].all()]
    assert states  # or nothing is tested
    bound = Payments.at_states([states, []]).bind(followers)
    x = bound.side_payments(np.ones(bound.size))
    expected = np.zeros(SHAPE)
    expected[0, states] = followers.available[0, states]
    np.testing.assert_array_equal(x, expected)


def test_at_pairs_counts_in_c_order():
    mask = np.zeros(SHAPE, bool)
    mask[1, 0, 2] = mask[0, 4, 1] = mask[0, 2, 0] = True
    bound = Payments.at_pairs(mask).bind(two_followers())
    x = bound.side_payments(np.array([1.0, 2.0, 3.0]))
    assert (x[0, 2, 0], x[0, 4, 1], x[1, 0, 2]) == (1.0, 2.0, 3.0)
    assert x.sum() == 6.0


def test_everywhere_is_every_available_pair():
    followers = two_followers(0.4)
    bound = Payments.everywhere().bind(followers)
    assert bound.size == followers.available.sum()
    np.testing.assert_array_equal(bound.index >= 0, followers.available)
    paid = np.arange(1.0, bound.size + 1)
    np.testing.assert_array_equal(bound.side_payments(paid)[followers.available], paid)


def test_everywhere_leaves_absorbing_states_out_at_discount_one():
    rng = np.random.default_rng(1)
    mdps = [random_arrays(rng, 5, 3, discount, 0.3, closed=2).mdp() for discount in (1.0, 0.9)]
    bound = Payments.everywhere().bind(Followers(mdps))
    paid = bound.index >= 0
    np.testing.assert_array_equal(paid[0, :3], mdps[0].available[:3])
    assert not paid[0, 3:].any()
    np.testing.assert_array_equal(paid[1], mdps[1].available)


def tariff_index():
    """Payment 0 is follower 0's alone, 1 is posted for both, 2 is at two states of follower 1."""
    index = np.full(SHAPE, -1)
    index[0, 0] = 0
    index[:, 2, 1] = 1
    index[1, 3:, 0] = 2
    return index


def test_an_index_ties_payments_across_followers():
    bound = Payments.from_index(tariff_index()).bind(two_followers())
    assert bound.size == 3
    x = bound.side_payments(np.array([1.0, 2.0, 4.0]))
    np.testing.assert_array_equal(x[0, 0], [1, 1, 1])
    assert x[0, 2, 1] == x[1, 2, 1] == 2.0
    np.testing.assert_array_equal(x[1, :, 0], [0, 0, 0, 4, 4])
    assert x.sum() == 3 + 4 + 8
    assert bound.shared
    np.testing.assert_array_equal(bound.reaches, [[True, True, False], [False, True, True]])
    np.testing.assert_array_equal(bound.reach, [[0, 1], [1, 2]])
    gradient = np.arange(30.0).reshape(SHAPE)
    together = [0 + 1 + 2, 7 + 22, 24 + 27]
    np.testing.assert_array_equal(bound.pull_back(gradient), together)
    each = bound.pull_back_each(gradient)
    np.testing.assert_array_equal(each, [[3, 7, 0], [0, 22, 51]])


def random_bound(seed):
    rng = np.random.default_rng(seed)
    index = np.full(SHAPE, -1)
    size = int(rng.integers(1, 8))
    places = rng.choice(30, size=int(rng.integers(size, 31)), replace=False)
    index.reshape(-1)[places] = np.concatenate(
        [np.arange(size), rng.integers(size, size=places.size - size)]
    )
    return rng, Payments.from_index(index).bind(two_followers())


@given(st.integers(0, 10**6))
def test_pull_back_is_the_adjoint_of_side_payments(seed):
    rng, bound = random_bound(seed)
    payments, gradient = rng.normal(size=bound.size), rng.normal(size=SHAPE)
    spread = bound.side_payments(payments)
    assert_close(np.sum(spread * gradient), payments @ bound.pull_back(gradient), ROUNDING * 30)
    each = bound.pull_back_each(gradient)
    assert_close(each.sum(axis=0), bound.pull_back(gradient), ROUNDING)
    assert (each[~bound.reaches] == 0).all()
    for i in range(2):
        alone = np.zeros(SHAPE)
        alone[i] = gradient[i]
        assert_close(each[i], bound.pull_back(alone), ROUNDING)
        held = np.flatnonzero(bound.reaches[i])
        assert bound.reach[i, : held.size].tolist() == held.tolist()
        assert (bound.reach[i, held.size :] == -1).all()


def test_gradients_at_unpaid_pairs_may_be_anything():
    bound = Payments.at_states([[1], []]).bind(two_followers())
    gradient = np.full(SHAPE, -np.inf)
    gradient[0, 1] = 2.0
    np.testing.assert_array_equal(bound.pull_back(gradient), [6.0])
    np.testing.assert_array_equal(bound.pull_back_each(gradient), [[6.0], [0.0]])


# Bounds and budgets


def test_projection_on_the_bounds():
    bound = Payments.at_states([[0, 1], [2]], upper=[1.0, 2.0, np.inf]).bind(two_followers())
    np.testing.assert_array_equal(bound.lower, [0, 0, 0])
    np.testing.assert_array_equal(bound.upper, [1, 2, np.inf])
    projected = bound.project(np.array([3.0, -1.0, 50.0]))
    np.testing.assert_array_equal(projected, [1.0, 0.0, 50.0])
    one = Payments.at_states([[0, 1], [2]], upper=1.5).bind(two_followers())
    np.testing.assert_array_equal(one.project(np.full(3, 9.0)), [1.5, 1.5, 1.5])


@given(st.integers(0, 10**6))
def test_projection_on_the_budget(seed):
    rng = np.random.default_rng(seed)
    upper = np.where(rng.random(3) < 0.3, np.inf, 2 * rng.random(3))
    budget = float(2 * rng.random())
    bound = Payments.at_states([[0, 1], [2]], upper, budget).bind(two_followers())
    vector = 2 * rng.normal(size=3)
    before = vector.copy()
    projected = bound.project(vector)
    np.testing.assert_array_equal(vector, before)
    assert_close(
        projected, reference.project_budget(vector, np.zeros(3), upper, np.ones(3), budget)
    )
    bound.check(projected)  # what is projected is accepted


def test_check_repeats_a_number_and_copies():
    bound = Payments.at_states([[0, 1], [2]], upper=3.0).bind(two_followers())
    np.testing.assert_array_equal(bound.check(2), [2.0, 2.0, 2.0])
    given_payments = np.array([0.0, 3.0, 1.0])
    checked = bound.check(given_payments)
    np.testing.assert_array_equal(checked, given_payments)
    assert not np.shares_memory(checked, given_payments)
    np.testing.assert_array_equal(bound.check([0, 1, 2]), [0.0, 1.0, 2.0])


CHECK_ERRORS = {
    "negative": ([0.0, -0.5, 9.0], "finite payment between 0 and 3, got -0.5 at payment 1 "),
    "above": ([0.0, 0.5, 3.5], "got 3.5 at payment 2 (follower 1, state 2)"),
    "NaN": ([np.nan, 0.5, 0.5], "got nan at payment 0 (follower 0, state 4)"),
    "shape": ([0.0, 1.0], "expected a number or shape (3,), got (2,)"),
    "number": (-1.0, "got -1.0 at payment 0"),
    "budget": ([2.0, 2.0, 2.0], "expected a cost of at most the budget 5, got 6"),
}


@pytest.mark.parametrize("case", CHECK_ERRORS)
def test_payment_errors(case):
    bound = Payments.at_states([[4, 1], [2]], upper=3.0, budget=5.0).bind(two_followers())
    payments, message = CHECK_ERRORS[case]
    with pytest.raises(InputError) as error:
        bound.check(payments, "start")
    assert str(error.value).startswith("start: expected ")
    assert message in str(error.value)


def test_an_infinite_payment_is_refused_without_a_bound():
    bound = Payments.at_states([[0], []]).bind(two_followers())
    with pytest.raises(InputError, match="payments: expected a finite payment between 0 and inf"):
        bound.check([np.inf])


def test_descriptions_of_payments():
    index = tariff_index()
    index[1, :, 2] = 3
    bound = Payments.from_index(index).bind(two_followers())
    assert bound.describe(0) == "follower 0, state 0"
    assert bound.describe(3) == "5 pairs from follower 1, state 0"
    mask = np.zeros(SHAPE, bool)
    mask[1, 4, 2] = True
    bound = Payments.at_pairs(mask).bind(two_followers())
    assert bound.describe(0) == "follower 1, state 4, action 2"


# What is refused

UNAVAILABLE = np.array([[True, True, True]] * 4 + [[True, False, True]])


def wide_mask(*pairs):
    mask = np.zeros(SHAPE, bool)
    for pair in pairs:
        mask[pair] = True
    return mask


def gap_index():
    index = tariff_index()
    index[index == 1] = 5
    return index


BIND_ERRORS = {
    "lists": (Payments.at_states([[0]]), "states: expected one list per follower, 2, got 1"),
    "state": (
        Payments.at_states([[0], [5]]),
        "states: expected numbers in 0..4, got 5 at follower 1",
    ),
    "negative state": (
        Payments.at_states([[-1], []]),
        "states: expected numbers in 0..4, got -1 at follower 0",
    ),
    "twice": (
        Payments.at_states([[0], [3, 3]]),
        "states: expected each state once, got 3 at follower 1",
    ),
    "mask": (
        Payments.at_pairs(np.ones((2, 5), bool)),
        "mask: expected shape (2, 5, 3), got (2, 5)",
    ),
    "index": (
        Payments.from_index(np.zeros((2, 5), int)),
        "index: expected shape (2, 5, 3), got (2, 5)",
    ),
    "gap": (
        Payments.from_index(gap_index()),
        "index: expected -1 for no payment, else numbers 0..k-1 without gaps, got [0, 2, 5]",
    ),
    "below -1": (
        Payments.from_index(np.where(tariff_index() < 0, -2, tariff_index())),
        "index: expected -1 for no payment",
    ),
    "none": (Payments.at_states([[], []]), "payments: expected at least one payment, got none"),
    "none in a mask": (
        Payments.at_pairs(wide_mask()),
        "payments: expected at least one payment, got none",
    ),
    "upper": (
        Payments.at_states([[0], [1]], upper=[1.0, 2.0, 3.0]),
        "upper: expected a number or shape (2,), got (3,)",
    ),
}


@pytest.mark.parametrize("case", BIND_ERRORS)
def test_binding_errors(case):
    payments, message = BIND_ERRORS[case]
    with pytest.raises(InputError) as error:
        payments.bind(two_followers())
    assert message in str(error.value)


def test_payments_at_unavailable_actions_are_refused():
    rng = np.random.default_rng(3)
    followers = two_followers(0.5)
    i, s, a = (int(k) for k in rng.permutation(np.argwhere(~followers.available))[0])
    message = (
        "payments: expected payments for available actions only, got an unavailable action at "
        f"follower {i}, state {s}, action {a}"
    )
    with pytest.raises(InputError) as error:
        Payments.at_pairs(wide_mask((i, s, a))).bind(followers)
    assert message in str(error.value)


def test_payments_for_ever_are_refused_at_discount_one():
    followers = two_followers(discount=1.0)
    message = r"no payment in an absorbing state.*got one at follower 1, state 4, action 0"
    with pytest.raises(InputError, match=message):
        Payments.at_states([[0], [4]]).bind(followers)
    Payments.at_states([[0], [3]]).bind(followers)


def test_arguments_of_payments():
    with pytest.raises(InputError, match="upper: expected numbers >= 0, got -1"):
        Payments.everywhere(upper=-1.0)
    with pytest.raises(InputError, match="upper: expected numbers >= 0"):
        Payments.everywhere(upper=[1.0, np.nan])
    for budget in (-0.5, np.nan):
        with pytest.raises(InputError, match="budget: expected a number"):
            Payments.everywhere(budget=budget)
    with pytest.raises(InputError, match="index: expected integers, got float64"):
        Payments.from_index(np.zeros(SHAPE))


def test_inputs_are_copied():
    index, upper = tariff_index(), np.ones(3)
    payments = Payments.from_index(index, upper)
    index[:], upper[:] = -1, np.nan
    bound = payments.bind(two_followers())
    assert isinstance(bound, BoundPayments)
    assert bound.size == 3
    np.testing.assert_array_equal(bound.upper, [1, 1, 1])


def test_an_integer_mask_is_refused():
    with pytest.raises(InputError, match="mask: expected a bool array"):
        Payments.at_pairs(np.full((2, 3, 2), -1))
