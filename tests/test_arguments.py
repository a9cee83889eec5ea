"""Arguments by kind: what a number, an array, a source of random numbers may be, and what becomes
of them afterwards. ``test_hostile_input.py`` tries every function, this file says what is right.
"""

import gc
import os
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import assert_identical
from numba.core.dispatcher import Dispatcher

import fastincentive as fi
from fastincentive import _arrays, _checks

COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


def problem_of(**changed):
    given = fi.models.random_problem(2, 6, 3, 2, 0, unavailable=0.2)
    return fi.IncentiveProblem(
        given.followers,
        fi.AdditiveReward(np.arange(12.0).reshape(2, 6)),
        fi.Payments.at_states([[0], [3]], upper=2.0),
        0.9,
        **changed,
    )


# -- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int8(1), Fraction(1), np.array(1.0)])
def test_a_number_is_any_real_number(value):
    assert type(_checks.number("x", value)) is float


@pytest.mark.parametrize("value", ["1", None, 1j, np.nan, [1.0], np.ones(1), 10**400, abs, b"1"])
def test_other_things_are_no_numbers(value):
    with pytest.raises(fi.InputError, match=r"^x: expected a number, got"):
        _checks.number("x", value)


@pytest.mark.parametrize("value", [1.0, "1", None, 10**300, 1e300, np.ones(1), 1j])
def test_what_is_whole_is_an_integer(value):
    with pytest.raises(fi.InputError, match=r"^x: expected an integer"):
        _checks.whole("x", value)
    assert type(_checks.whole("x", np.uint8(3))) is int


# -- by annotation ------------------------------------------------------------------------------


@_checks.checked
def example(
    problem: fi.IncentiveProblem | None,
    sizes: tuple[int, float] = (1, 2.0),
    *names: str,
    way: str = "auto",
) -> object:
    return problem, sizes, names, way


def test_arguments_are_what_the_signature_says():
    assert example(None, (np.int64(2), 3)) == (None, (2, 3.0), (), "auto")
    for wrong, expected in (
        ((3,), "problem: expected an IncentiveProblem, got int"),
        ((None, (1, 2, 3)), "sizes: expected 2 entries, got 3"),
        ((None, (1, "2")), r"sizes\[1\]: expected a number, got '2'"),
        ((None, {1: 2}), "sizes: expected a sequence, got dict"),
    ):
        with pytest.raises(fi.InputError, match=expected):
            example(*wrong)
    with pytest.raises(fi.InputError, match="way: expected text, got int"):
        example(None, way=1)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        example()


# -- arrays -------------------------------------------------------------------------------------


def test_masks_and_imaginary_parts_are_not_lost():
    masked = np.ma.masked_array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0, 0, 1, 0, 0, 0])
    with pytest.raises(fi.InputError, match=r"rewards: expected no masked .* at index \(2,\)"):
        fi.AdditiveReward(masked)
    assert (fi.AdditiveReward(masked.filled(7.0)).rewards[2] == 7.0).all()
    for wrong in (np.ones(6) + 0j, [1j] * 6, ["1"] * 6, [[1.0], [1.0, 2.0]], sp.eye(6)):
        with pytest.raises(fi.InputError, match=r"^rewards: expected"):
            fi.AdditiveReward(wrong)
        with pytest.raises(fi.InputError, match=r"^reward: expected"):
            fi.TabularMDP(np.eye(6)[:, None], wrong, 0.9)
    assert fi.AdditiveReward([Decimal(1), Fraction(1, 2)]).rewards.tolist() == [1.0, 0.5]


@pytest.mark.parametrize("size", [1e101, 1e308, np.inf])
def test_numbers_that_would_add_up_to_none_are_refused(size):
    with pytest.raises(fi.InputError, match="values: expected finite numbers"):
        fi.CountReward([0, 1], [0.0, size, -size])
    with pytest.raises(fi.InputError, match="reward: expected finite numbers"):
        fi.TabularMDP(np.eye(2)[:, None], [size, -size], 0.9)
    with pytest.raises(fi.InputError, match="rewards"):
        problem_of().followers.best_responses(np.full((2, 6, 3), size))


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_no_order_of_memory_compiles_a_kernel_anew():
    def forms(array):
        read_only = array.copy()
        read_only.flags.writeable = False
        strided = np.repeat(array, 2, axis=-1)[..., ::2]
        swapped = array if array.dtype == bool else array.astype(array.dtype.newbyteorder())
        return np.asfortranarray(array), read_only, strided, swapped, array.tolist()

    def use(k):
        def form(array):
            return array if k is None else forms(array)[k]

        given = problem_of().followers
        mdps = [
            fi.TabularMDP(
                form(mdp.dense_transition()),
                form(mdp.reward.copy()),
                0.9,
                form(mdp.initial.copy()),
                form(mdp.available.copy()),
            )
            for mdp in given
        ]
        followers = fi.Followers(mdps)
        leader = fi.AdditiveReward(form(np.arange(12.0).reshape(2, 6)))
        payments = fi.Payments.at_states([[0], [3]], upper=form(np.full(2, 2.0)))
        problem = fi.IncentiveProblem(followers, leader, payments, 0.9)
        at = form(np.ones(2)), form(fi.best_response_policies(problem, np.ones(2)))
        rewards = form(problem.rewards(np.ones(2)))
        warm = form(np.zeros((2, 6), np.int64))
        return [
            problem.evaluate(*at),
            problem.leader_gradient(at[1]),
            followers.best_responses(rewards, warm)._asdict(),
            followers.evaluate(rewards, at[1])._asdict(),
            problem.payments.project(at[0]),
            problem.leader.conditional(form(np.full((3, 2, problem.leader.n_labels), 1 / 6))),
        ]

    def compiled():
        every = (each for each in gc.get_objects() if isinstance(each, Dispatcher))
        return sum(len(each.signatures) for each in every)

    plain = use(None)
    before = compiled()
    for k in range(5):
        assert_identical(use(k), plain)
    assert compiled() == before


def test_indices_of_sparse_matrices_are_looked_at():
    """SciPy reads and writes wherever they point."""
    good = sp.csr_array(np.eye(3))
    for name in ("indices", "indptr"):
        for entry in (3, -1, 2**30):
            bad = good.copy()
            getattr(bad, name)[1] = entry
            with pytest.raises(fi.InputError, match=r"^transition: expected a valid sparse"):
                fi.TabularMDP([good, bad], np.zeros((3, 2)), 0.9)
    bad = sp.coo_array(np.eye(3))
    bad.coords[1][0] = 7
    with pytest.raises(fi.InputError, match=r"transition: expected indices in 0\.\.2"):
        fi.TabularMDP([good, bad], np.zeros((3, 2)), 0.9)
    with pytest.raises(fi.InputError, match="transition: expected real numbers, got complex128"):
        fi.TabularMDP([good, good.astype(complex)], np.zeros((3, 2)), 0.9)


@pytest.mark.parametrize(
    "counts", [[2**63, 1], np.array([2**63, 1], np.uint64), [2**31, 1], [2**30, 2**30], [1.0, 2.0]]
)
def test_counts_do_not_overflow(counts):
    given = problem_of().followers
    with pytest.raises(fi.InputError, match=r"^counts: expected"):
        fi.Followers(list(given), counts)
    small = fi.Followers(list(given), np.array([2, 3], np.uint8))
    assert small.population == 5
    assert small.counts.dtype == np.int64


# -- more than there is -------------------------------------------------------------------------


def test_sizes_that_no_machine_holds_are_told_of():
    class Huge(fi.TabularMDP):
        n_states = 10**6

    mdp = problem_of().followers[0]
    huge = Huge.__new__(Huge)
    vars(huge).update(vars(mdp))
    with pytest.raises(fi.MemoryLimitError, match=r"dense table of 1000000 states needs .* GiB"):
        huge.dense_transition()
    crowd = fi.Followers(list(problem_of().followers), [2**30, 5])
    for reward in (fi.ProductReward(np.ones((2, 6))), fi.CountReward([0] * 6, [0.0, 1.0])):
        with pytest.raises((fi.MemoryLimitError, fi.InputError)):
            fi.IncentiveProblem(crowd, reward, fi.Payments.everywhere(), 0.9)
    policies = fi.best_response_policies(problem_of(), 0.0)
    with pytest.raises(fi.InputError, match=r"trajectories: expected at most .*, got 1000000000"):
        fi.Reinforce(10**9, 100).estimate(problem_of(), policies)


# -- what is given stays, and what is given away is one's own ------------------------------------


def test_a_callback_that_writes_into_its_report_changes_nothing():
    def spoil(report):
        for array in (report.payments, report.policies, report.theta, report.multipliers):
            array[:] = 0.5
        report.evaluation.follower_gaps[:] = 1.0

    method = fi.BilevelAscent(max_iter=20)
    with pytest.warns(fi.ConvergenceWarning):
        plain = fi.solve(problem_of(), method, refine=False)
    with pytest.warns(fi.ConvergenceWarning):
        other = fi.solve(problem_of(), method, refine=False, callback=spoil)
    assert_identical(other, plain)


def test_a_cost_that_writes_into_its_payments_changes_nothing():
    class Sum:
        def value(self, payments):
            total = float(payments.sum())
            payments[:] = 0.0
            return total

        def gradient(self, payments):
            payments[:] = 0.0
            return np.ones_like(payments)

    method = fi.BilevelAscent(max_iter=20)
    with pytest.warns(fi.ConvergenceWarning):
        plain = fi.solve(problem_of(cost=fi.CustomCost(np.sum, np.ones_like)), method)
    for cost in (Sum(), fi.CustomCost(Sum().value, Sum().gradient)):
        with pytest.warns(fi.ConvergenceWarning):
            assert_identical(fi.solve(problem_of(cost=cost), method), plain)


def test_one_look_tells_whether_all_numbers_are_finite():
    assert _arrays.looks_finite(np.full(1000, 1e50))
    for entry in (np.inf, -np.inf, np.nan, 1e101):
        assert not _arrays.looks_finite(np.array([[1.0, entry]]))
        assert not _arrays.looks_finite(np.append(np.full(20_000, 1e99), entry))
    assert _arrays.looks_finite(np.full((2, 10_000), -1e99))
    assert _arrays.looks_finite(np.empty(0))
