"""What payments guarantee: ties both ways, the weak objective, margins, and payment ranges."""

import numpy as np
import pytest
from conftest import assert_close

import fastincentive as fi
from fastincentive.models import gridworld, paper_gridworld, random_problem
from fastincentive.responses.menus import coordinate_lines
from fastincentive.solver.weak_stackelberg import guarded_menus


@pytest.fixture(scope="module")
def paper():
    return paper_gridworld()


def random_leader(n, states):
    return fi.JointReward(np.random.default_rng(n).random((states,) * n))


def problems():
    yield paper_gridworld()
    for seed in range(4):
        yield random_problem(1 + seed, n_states=6, rng=seed, n_payments=1 + seed % 2)


def test_pessimistic_is_never_above_optimistic():
    rng = np.random.default_rng(3)
    for problem in problems():
        for _ in range(10):
            x = rng.exponential(2.0, problem.payments.size)
            values = fi.stackelberg_values(problem, x)
            assert values.pessimistic.objective <= values.optimistic.objective + 1e-12
            assert values.exact
            assert values.optimistic.follower_gaps.max() <= 1e-9
            assert values.pessimistic.follower_gaps.max() <= 1e-9


def test_at_a_breakpoint_the_two_differ_and_inside_a_regime_they_agree(paper):
    solution = fi.solve(paper)
    at = fi.stackelberg_values(paper, solution.payments)
    assert_close(at.optimistic.objective, solution.objective)
    assert_close(at.pessimistic.objective, solution.pessimistic_objective)
    assert at.pessimistic.objective < at.optimistic.objective - 1.0
    inside = fi.stackelberg_values(paper, solution.payments + 1e-3)
    assert_close(inside.pessimistic.leader_value, inside.optimistic.leader_value, 1e-12)


def test_payments_out_of_bounds_are_refused(paper):
    with pytest.raises(fi.InputError, match="payment 0"):
        fi.stackelberg_values(paper, [-1.0, 0.0])
    with pytest.raises(fi.InputError, match="payment 1"):
        fi.payment_ranges(paper, [1.0, -2.0])


# -- margins -------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [1e-6, 1e-3, 0.05])
def test_with_a_margin_ties_no_longer_matter(margin):
    for seed in range(6):
        base = random_problem(2, n_states=6, rng=seed)
        problem = fi.IncentiveProblem(
            base.followers,
            random_leader(2, 6),
            fi.Payments.everywhere(),
            leader_discount=0.9,
        )
        wanted = np.eye(3)[np.argmax(fi.leader_optimal_policies(problem), axis=2)]
        bought = fi.cheapest_payments(problem, wanted, margin)
        values = fi.stackelberg_values(problem, bought.payments)
        assert_close(values.pessimistic.leader_value, values.optimistic.leader_value, 1e-9)
        assert_close(values.pessimistic.leader_value, problem.leader_value(wanted), 1e-9)
        assert bought.price_of_margin >= 0.0


# -- the weak objective --------------------------------------------------------------------------


def test_the_weak_objective_is_what_payments_guarantee(paper):
    strong = fi.solve(paper)
    weak = fi.solve(paper, tie_breaking=fi.WeakStackelberg())
    assert weak.pessimistic_objective > strong.pessimistic_objective + 1.0
    assert weak.pessimistic_objective <= strong.objective + 1e-9
    # With a small margin nearly all of the strong value can be guaranteed.
    assert_close(weak.pessimistic_objective, strong.objective, 1e-3)
    assert_close(weak.pessimistic_objective, weak.objective, 1e-9)
    values = fi.stackelberg_values(paper, weak.payments)
    assert_close(values.pessimistic.objective, weak.pessimistic_objective, 1e-12)
    assert weak.refinement.improvement >= 0.0


def test_a_larger_margin_guarantees_less(paper):
    values = [
        fi.solve(
            paper, method=fi.RegimeAscent(), tie_breaking=fi.WeakStackelberg(margin)
        ).pessimistic_objective
        for margin in (1e-7, 1e-5, 1e-3)
    ]
    assert values[0] >= values[1] >= values[2]


@pytest.mark.parametrize("seed", range(6))
def test_no_payments_guarantee_more(seed):
    problem = random_problem(2, n_states=6, rng=seed, n_payments=1)
    weak = fi.solve(
        problem, method=fi.RegimeAscent(), tie_breaking=fi.WeakStackelberg(margin=1e-8)
    ).pessimistic_objective
    rng = np.random.default_rng(seed)
    for _ in range(200):
        x = rng.exponential(1.0, 2) * (rng.random(2) < 0.8)
        assert fi.stackelberg_values(problem, x).pessimistic.objective <= weak + 1e-6


def test_the_weak_objective_with_several_or_shared_payments():
    problem = random_problem(2, n_states=6, rng=11, n_payments=2)
    strong = fi.solve(problem, method=fi.RegimeAscent())
    weak = fi.solve(problem, method=fi.RegimeAscent(), tie_breaking=fi.WeakStackelberg())
    assert weak.pessimistic_objective >= strong.pessimistic_objective - 1e-9
    index = np.full(problem.followers.shape, -1)
    index[:, 2] = 0
    shared = fi.IncentiveProblem(
        problem.followers, random_leader(2, 6), fi.Payments.from_index(index), 0.9
    )
    strong = fi.solve(shared, method=fi.RegimeAscent())
    weak = fi.solve(shared, method=fi.RegimeAscent(), tie_breaking=fi.WeakStackelberg())
    assert weak.pessimistic_objective >= strong.pessimistic_objective - 1e-9


def test_a_follower_that_is_always_indifferent_takes_the_worst():
    # Two ways to the sink that cost the follower the same whatever is paid: only one pays.
    transition = np.zeros((4, 2, 4))
    transition[0, 0, 1] = transition[0, 1, 2] = 1.0
    transition[1:, :, 3] = 1.0
    mdp = fi.TabularMDP(transition, np.zeros((4, 2)), 0.9, 0)
    problem = fi.IncentiveProblem(
        [mdp], fi.JointReward([0.0, 5.0, 1.0, 0.0]), fi.Payments.at_states([[3]]), 0.9
    )
    guarded = guarded_menus(problem, coordinate_lines(problem, np.zeros(1)), 1e-6)
    assert guarded.offer.tolist().count(guarded.offer[0]) == 2
    solution = fi.solve(problem, method=fi.RegimeAscent(), tie_breaking=fi.WeakStackelberg())
    assert_close(solution.objective, 4.5)
    assert_close(solution.pessimistic_objective, 0.9)
    assert_close(solution.payments, [0.0])


def test_without_refinement_the_same_response_is_bought_with_a_margin(paper):
    plain = fi.solve(paper, refine=False)
    guarded = fi.solve(paper, refine=False, tie_breaking=fi.WeakStackelberg())
    assert guarded.refinement is None
    assert guarded.pessimistic_objective > plain.pessimistic_objective + 1.0
    assert_close(guarded.pessimistic_objective, plain.objective, 1e-3)


@pytest.mark.parametrize("margin", [0.0, -1.0, np.inf, np.nan])
def test_margins_are_positive(margin):
    with pytest.raises(fi.InputError, match="margin"):
        fi.WeakStackelberg(margin)


def test_tie_breaking_is_one_of_two(paper):
    with pytest.raises(
        fi.InputError, match="tie_breaking: expected a StrongStackelberg or a WeakStackelberg"
    ):
        fi.solve(paper, tie_breaking="weak")


# -- how far payments may move -------------------------------------------------------------------


def test_ranges_on_the_paper_grid(paper):
    ranges = fi.payment_ranges(paper, fi.solve(paper).payments)
    # The cheapest payments for their response: a little less, and it is lost.
    assert_close(ranges.slack, [0.0, 0.0], 1e-9)
    assert_close(ranges.upper, [12.5551, 5.7970], 1e-4)


def problem_for_ranges():
    yield random_problem(3, n_states=7, rng=4, n_payments=2)
    yield gridworld("S.L ..G", slip=(0.05, 0.1), discount=1.0, rewards={".": -0.3, "F": -5.0})
    base = random_problem(3, n_states=7, rng=5)
    index = np.full(base.followers.shape, -1)
    index[:2, 1] = 0
    index[1:, 4] = 1
    yield fi.IncentiveProblem(
        base.followers, random_leader(3, 7), fi.Payments.from_index(index, upper=5.0), 0.9
    )


def test_inside_the_range_the_response_is_kept_and_outside_it_is_not():
    rng = np.random.default_rng(7)
    for problem in problem_for_ranges():
        x = rng.uniform(0.1, 2.0, problem.payments.size)
        policies = fi.stackelberg_values(problem, x).optimistic_policies
        ranges = fi.payment_ranges(problem, x, policies)
        assert (ranges.lower <= x).all()
        assert (x <= ranges.upper).all()
        for k in range(x.size):
            for value, inside in (
                (ranges.lower[k], True),
                (ranges.lower[k] + 0.5 * (x[k] - ranges.lower[k]), True),
                (min(ranges.upper[k], x[k] + 50.0), True),
                (ranges.lower[k] - 1e-3, False),
                (ranges.upper[k] + 1e-3, False),
            ):
                moved = x.copy()
                moved[k] = value
                if not (problem.payments.lower[k] <= value <= problem.payments.upper[k]):
                    continue
                gap = problem.evaluate(moved, policies).follower_gaps.max()
                assert (gap <= 1e-9) == inside


def test_ranges_need_best_responses(paper):
    uniform = np.full(paper.followers.shape, 0.25)
    with pytest.raises(fi.InputError, match="deterministic"):
        fi.payment_ranges(paper, 1.0, uniform)
    wrong = fi.stackelberg_values(paper, [9.5, 6.0]).optimistic_policies
    with pytest.raises(fi.InputError, match="gap"):
        fi.payment_ranges(paper, 0.0, wrong)
