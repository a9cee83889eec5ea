"""Recovery: payments that support a policy, and ties broken both ways, against brute force."""

import itertools

import numpy as np
import pytest
from conftest import assert_close
from twin import label_table

import fastincentive as fi
from fastincentive.responses.cheapest import supporting_payments
from fastincentive.responses.recovery import recover
from fastincentive.responses.ties import break_ties


@pytest.fixture(scope="module")
def paper():
    return fi.models.paper_gridworld()


def gap(problem, payments, policies):
    return problem.evaluate(payments, policies).follower_gaps


def test_supporting_payments_are_the_cheapest(paper):
    target = fi.best_response_policies(paper, np.array([9.5, 5.6]))
    x, supported = supporting_payments(paper, target, np.zeros(2))
    assert supported.all()
    assert gap(paper, x, target).max() <= 1e-10
    # A little less for either follower no longer buys it.
    for i in range(2):
        less = x.copy()
        less[i] -= 1e-6
        assert gap(paper, less, target)[i] > 1e-9
    assert (x <= [9.5, 5.6]).all()


def test_policies_that_no_payment_buys_are_reported(paper):
    # Walking into the fires for ever is optimal at no payment for a goal.
    policies = fi.leader_optimal_policies(paper)
    policies[0] = np.eye(4)[0]
    fallback = np.array([1.0, 1.5])
    x, supported = supporting_payments(paper, policies, fallback)
    assert not supported[0]
    assert x[0] == fallback[0]


@pytest.mark.parametrize("seed", range(4))
def test_several_payments_by_linear_programme(seed):
    problem = fi.models.random_problem(n=2, n_states=6, n_payments=3, rng=seed)
    payments = np.random.default_rng(seed).uniform(0.0, 3.0, problem.payments.size)
    target = fi.best_response_policies(problem, payments)
    x, supported = supporting_payments(problem, target, payments)
    assert supported.all()
    assert x.sum() <= payments.sum() + 1e-9
    assert gap(problem, x, target).max() <= 1e-9
    # Scaled down they do not support the policy, or nothing was needed at all.
    assert x.sum() < 1e-9 or gap(problem, 0.999 * x, target).max() > 1e-12


def test_shared_payments_and_a_budget_by_one_programme(paper):
    index = np.full(paper.followers.shape, -1)
    index[:, 29], index[:, 10] = 0, 1
    leader = fi.LabelReward(paper.leader.labels[:, :, 0], label_table(paper))
    posted = np.array([9.5, 5.6])
    problem = fi.IncentiveProblem(paper.followers, leader, fi.Payments.from_index(index))
    target = fi.best_response_policies(problem, posted)
    x, supported = supporting_payments(problem, target, posted)
    assert supported.all()
    assert gap(problem, x, target).max() <= 1e-9
    assert x.sum() <= posted.sum() + 1e-9
    poor = fi.IncentiveProblem(
        paper.followers, leader, fi.Payments.from_index(index, budget=0.5 * x.sum())
    )
    _, bought = supporting_payments(poor, target, np.zeros(2))
    assert not bought.any()


def tied_problem():
    """Two followers, each indifferent between two ways; the leader likes them to meet."""
    transition = np.zeros((4, 2, 4))
    transition[0, 0, 1] = transition[0, 1, 2] = 1.0
    transition[1:, :, 3] = 1.0
    reward = np.zeros((4, 2))
    reward[1], reward[2] = 1.0, 1.0
    mdps = [fi.TabularMDP(transition, reward, 0.9, 0)] * 2
    table = np.zeros((4, 4))
    table[1, 1], table[2, 2], table[1, 2] = 2.0, 3.0, -1.0
    return fi.IncentiveProblem(mdps, fi.JointReward(table), fi.Payments.at_states([[1], [1]]))


def test_ties_are_broken_for_and_against_the_leader():
    problem = tied_problem()
    values = {}
    for picks in itertools.product(range(2), repeat=2):
        policies = np.zeros(problem.followers.shape)
        policies[:, 1:, 0] = 1.0
        for i, a in enumerate(picks):
            policies[i, 0, a] = 1.0
        values[picks] = problem.leader_value(policies)
    zero = np.zeros(2)
    best = break_ties(problem, zero, 1.0)
    worst = break_ties(problem, zero, -1.0)
    assert_close(problem.leader_value(best), max(values.values()))
    assert_close(problem.leader_value(worst), min(values.values()))
    # Away from the tie there is one answer.
    paid = np.array([0.1, 0.0])
    once = problem.leader_value(break_ties(problem, paid, 1.0))
    assert_close(once, max(v for k, v in values.items() if k[0] == 0))


def many_ties(n_rows=5):
    """A corridor of free choices: more combinations than are enumerated."""
    states = n_rows + 3
    transition = np.zeros((states, 2, states))
    for s in range(n_rows):
        transition[s, 0, s + 1] = 1.0
        transition[s, 1, s + 1] = 0.5
        transition[s, 1, s + 2] = 0.5
    transition[n_rows:, :, states - 1] = 1.0
    mdps = [fi.TabularMDP(transition, np.zeros((states, 2)), 0.9, 0)] * 2
    rng = np.random.default_rng(8)
    table = rng.normal(size=(states, states))
    table[-1, -1] = 0.0
    return fi.IncentiveProblem(mdps, fi.JointReward(table), fi.Payments.at_states([[1], [1]]))


def test_local_search_over_many_ties_improves_and_brackets():
    problem = many_ties()
    zero = np.zeros(2)
    best = problem.leader_value(break_ties(problem, zero, 1.0))
    worst = problem.leader_value(break_ties(problem, zero, -1.0))
    values = []
    for picks in itertools.product(range(2), repeat=10):
        policies = np.zeros(problem.followers.shape)
        policies[:, :, 0] = 1.0
        for k, a in enumerate(picks):
            policies[k // 5, k % 5] = np.eye(2)[a]
        values.append(problem.leader_pass(policies, gradient=False).value)
    assert worst < np.median(values) < best
    assert best <= max(values) + 1e-9
    assert worst >= min(values) - 1e-9
    # No single change helps: at least as good as nineteen in twenty.
    assert best >= np.quantile(values, 0.95)
    assert worst <= np.quantile(values, 0.05)


@pytest.mark.slow
def test_polish_saves_an_iterate_short_of_its_kink(paper):
    breakpoint_ = 5.44488391
    solution = fi.solve(paper)
    assert abs(solution.payments[1] - breakpoint_) < 1e-6
    short = solution.payments.copy()
    short[1] -= 1e-7
    raw = recover(paper, short, solution.policies, polish=False)
    kept = recover(paper, short, solution.policies, polish=True)
    assert kept.evaluation.objective >= solution.objective - 1e-6
    assert raw.evaluation.objective < kept.evaluation.objective - 1e-3


def budget_problem(budget):
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 2] = transition[0, 1, 1] = 1.0
    transition[1:, :, 2] = 1.0
    mdp = fi.TabularMDP(transition, [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], 0.5, 0)
    mask = np.zeros((1, 3, 2), bool)
    mask[0, 0, 1] = mask[0, 1, 0] = True
    return fi.IncentiveProblem(
        [mdp],
        fi.JointReward([0.0, 10.0, 0.0]),
        fi.Payments.at_pairs(mask, upper=[np.inf, 1.0], budget=budget),
        leader_discount=0.9,
        cost_weight=0.1,
        cost=fi.LinearCost([10.0, 1.0]),
    )


def test_a_binding_budget_is_kept_to_the_last_digit():
    # One unit buys the way, half of it late: x0 + x1 / 2 = 1 at the cost 10 x0 + x1, x1 <= 1.
    problem = budget_problem(6.0)
    policies = np.array([[[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]])
    fallback = np.array([0.55, 0.5])
    x, supported = supporting_payments(problem, policies, fallback)
    assert supported.all()
    assert_close(x, [0.5, 1.0], 1e-9)
    recovered = recover(problem, x, policies)
    assert recovered.evaluation.cost <= 6.0 * (1 + 1e-12)
    assert_close(recovered.evaluation.objective, 9.0 - 0.1 * 6.0, 1e-9)
    assert fi.stationarity(problem, x, policies).measure <= 1e-6
    kept, bought = supporting_payments(budget_problem(5.9), policies, fallback)
    assert not bought.any()
    assert_close(kept, fallback)


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
def test_a_run_under_a_binding_budget_ends_with_a_solution():
    problem = budget_problem(6.0)
    solution = fi.solve(problem, fi.BilevelAscent(max_iter=50), initial_payments=[0.55, 0.5])
    assert problem.within_budget(solution.payments, solution.policies, slack=1e-12)
    assert solution.feasibility >= -1e-9


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::fastincentive.TruncationWarning")
def test_payments_that_could_be_earned_for_ever_do_not_end_a_run_with_an_error():
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1, :, 1] = 1.0
    mdp = fi.TabularMDP(transition, [[0.0, 1.0], [0.0, 0.0]], 1.0, 0)
    leader = fi.JointReward([[1.0, 0.5], [0.5, 0.0]])
    problem = fi.IncentiveProblem([mdp, mdp], leader, fi.Payments.everywhere())
    policies = np.zeros((2, 2, 2))
    policies[:, :, 1] = 1.0
    assert np.isfinite(fi.stationarity(problem, 0.0, policies).measure)
    # The start comes down to where nothing is earned for ever; the loop is never paid for.
    for start in ("best-response", "leader-optimal"):
        solution = fi.solve(problem, fi.BilevelAscent(max_iter=40), initial_policies=start)
        assert solution.payments[0] <= 1e-12
        assert solution.follower_gaps.max() <= 1e-9
        assert solution.objective >= 1.0
    with pytest.raises(fi.InputError, match="rewards and payments together"):
        fi.solve(problem, initial_payments=np.full(4, 2.0))
