"""Cheapest payments for given policies, against dense programmes, scans and exact answers."""

import time

import numpy as np
import pytest
from conftest import assert_close
from scipy.optimize import linprog, minimize
from twin import label_table

import fastincentive as fi
from fastincentive.responses.ties import break_ties

MARGIN = 0.02


def with_payments(base, payments, cost=None, discount=0.9):
    """Return the same followers, with a leader who sees every joint state."""
    n, states, _ = base.followers.shape
    table = np.random.default_rng(0).random((states,) * n)
    return fi.IncentiveProblem(
        base.followers, fi.JointReward(table), payments, leader_discount=discount, cost=cost
    )


def random_base(seed, n=2, n_states=6, **settings):
    return fi.models.random_problem(n=n, n_states=n_states, rng=seed, **settings)


def rare_start(seed):
    """Return a random problem whose followers start in one state and may miss others."""
    base = random_base(seed, n_states=12, branching=1)
    return fi.IncentiveProblem(
        [mdp.replace(initial=0) for mdp in base.followers],
        fi.JointReward(np.random.default_rng(seed).random((12, 12))),
        fi.Payments.everywhere(),
        leader_discount=0.9,
    )


def last_visit(seed):
    """Return followers with discount 1 who sooner or later end in a sink."""
    rng = np.random.default_rng(seed)
    states, actions = 6, 3
    transition = 0.8 * rng.dirichlet(np.ones(states), size=(states, actions))
    transition[:, :, -1] += 0.2
    transition[-1] = np.eye(states)[-1]
    reward = rng.normal(size=(states, actions))
    reward[-1] = 0.0
    mdps = [fi.TabularMDP(transition, each, 1.0, 0) for each in (reward, reward[::-1] * 0.0)]
    table = rng.random((states, states))
    table[-1, -1] = 0.0
    return fi.IncentiveProblem(mdps, fi.JointReward(table), fi.Payments.everywhere())


def tariff(base):
    """One payment per state, the same for both followers."""
    n, states, actions = base.followers.shape
    index = np.broadcast_to(np.arange(states)[None, :, None], (n, states, actions))
    return fi.Payments.from_index(index)


def paper_everywhere():
    base = fi.models.paper_gridworld()
    leader = fi.LabelReward(base.leader.labels[:, :, 0], label_table(base))
    return fi.IncentiveProblem(base.followers, leader, fi.Payments.everywhere())


PROBLEMS = {
    "states": lambda: fi.models.random_problem(n=2, n_states=8, n_payments=4, rng=3),
    "everywhere": lambda: with_payments(random_base(1), fi.Payments.everywhere()),
    "unavailable": lambda: with_payments(random_base(7, unavailable=0.3), fi.Payments.everywhere()),
    "tariff": lambda: with_payments(random_base(2), tariff(random_base(2))),
    "unvisited": lambda: rare_start(4),
    "discount 1": lambda: last_visit(5),
    "paper": paper_everywhere,
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_policy_bought_at_some_price_is_bought_more_cheaply(name):
    problem = PROBLEMS[name]()
    posted = np.random.default_rng(11).uniform(0.0, 1.0, problem.payments.size)
    target = fi.best_response_policies(problem, posted)
    found = fi.cheapest_payments(problem, target)
    unit = max(1.0, np.abs(problem.rewards(posted)).max())
    assert problem.evaluate(found.payments, target).follower_gaps.max() <= 1e-10 * unit
    assert found.cost <= posted.sum() + 1e-9
    assert found.price_of_margin == 0.0
    assert (found.margins >= -1e-9 * unit).all()
    # Dearer than nothing means that a little less no longer buys it.
    if found.cost > 1e-6:
        less = problem.evaluate(found.payments * (1 - 1e-4), target).follower_gaps
        assert less.max() > 1e-9


@pytest.mark.parametrize("name", PROBLEMS)
def test_with_a_margin_it_does_not_matter_how_ties_are_broken(name):
    problem = PROBLEMS[name]()
    posted = np.random.default_rng(11).uniform(0.0, 1.0, problem.payments.size)
    target = fi.best_response_policies(problem, posted)
    if name == "tariff":
        # A tariff does not buy every margin: take one that it surely buys.
        own = fi.cheapest_payments(problem, target)
        best = problem.followers.best_responses(problem.rewards(posted)).q_values
        lead = np.diff(np.sort(best, axis=2)[:, :, -2:], axis=2).min()
        margin = 0.5 * lead
        assert own.cost <= posted.sum()
    else:
        margin = MARGIN
    found = fi.cheapest_payments(problem, target, margin)
    assert (found.margins >= margin - 1e-9).all()
    assert_close(found.cost, found.payments.sum())
    assert found.price_of_margin > 0.0
    for_ = break_ties(problem, found.payments, 1.0)
    against = break_ties(problem, found.payments, -1.0)
    assert_close(problem.leader_value(for_), problem.leader_value(target), 1e-9)
    assert_close(problem.leader_value(against), problem.leader_value(target), 1e-9)


def dense_programme(problem, policies, margin, prices):
    """Solve for the least cost by eliminating the values; every state must be visited."""
    k = problem.payments.size
    rows, limits = [], []
    for i, mdp in enumerate(problem.followers):
        states, actions = mdp.n_states, mdp.n_actions
        moves = mdp.discount * mdp.dense_transition()
        paid = np.zeros((states, actions, k))
        for s, a in np.argwhere(problem.payments.index[i] >= 0):
            paid[s, a, problem.payments.index[i, s, a]] = 1.0
        inverse = np.linalg.inv(np.eye(states) - np.einsum("sa,sat->st", policies[i], moves))
        constant = inverse @ (policies[i] * mdp.reward).sum(axis=1)
        slope = inverse @ np.einsum("sa,sak->sk", policies[i], paid)
        for s in range(states):
            for a in range(actions):
                if policies[i, s, a] == 0.0:
                    rows.append(paid[s, a] + moves[s, a] @ slope - slope[s])
                    limits.append(constant[s] - mdp.reward[s, a] - moves[s, a] @ constant - margin)
    return linprog(prices, A_ub=np.array(rows), b_ub=np.array(limits)), rows, limits


@pytest.mark.parametrize("margin", [0.0, MARGIN])
@pytest.mark.parametrize("seed", range(6))
def test_least_cost_of_a_dense_programme(seed, margin):
    base = random_base(seed)
    payments = fi.Payments.everywhere() if seed % 2 else fi.Payments.at_states([range(6)] * 2)
    prices = np.random.default_rng(seed).uniform(0.5, 2.0, 12 if seed % 2 == 0 else 36)
    problem = with_payments(base, payments, fi.LinearCost(prices))
    posted = np.random.default_rng(seed).uniform(0.0, 1.0, problem.payments.size)
    target = fi.best_response_policies(problem, posted)
    dense, _, _ = dense_programme(problem, target, margin, prices)
    if not dense.success:
        with pytest.raises(fi.InfeasiblePolicyError):
            fi.cheapest_payments(problem, target, margin)
        return
    found = fi.cheapest_payments(problem, target, margin)
    assert_close(found.cost, dense.fun, 1e-8)
    assert_close(found.cost, prices @ found.payments)


@pytest.mark.parametrize(
    "cost",
    [
        fi.QuadraticCost(0.1, np.linspace(0.5, 2.0, 12)),
        fi.CustomCost(lambda x: float(np.exp(2 * x).sum()), lambda x: 2 * np.exp(2 * x)),
    ],
    ids=["quadratic", "custom"],
)
@pytest.mark.parametrize("shared", [False, True])
def test_least_convex_cost(cost, shared):
    base = random_base(8)
    payments = fi.Payments.at_states([range(6)] * 2)
    if shared:
        # The followers share the payment in state 0; one action there has its own.
        index = np.arange(12).reshape(2, 6, 1).repeat(3, axis=2)
        index[1, 0] = [0, 0, 6]
        payments = fi.Payments.from_index(index)
    problem = with_payments(base, payments, cost)
    posted = np.random.default_rng(5).uniform(0.0, 2.0, problem.payments.size)
    target = fi.best_response_policies(problem, posted)
    found = fi.cheapest_payments(problem, target)
    _, rows, limits = dense_programme(problem, target, 0.0, np.ones(problem.payments.size))
    other = minimize(
        cost.value,
        posted,
        jac=cost.gradient,
        bounds=[(0.0, None)] * posted.size,
        constraints={
            "type": "ineq",
            "fun": lambda x: np.array(limits) - np.array(rows) @ x,
            "jac": lambda x: -np.array(rows),
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert other.success
    assert_close(found.cost, other.fun, 1e-7)
    assert problem.evaluate(found.payments, target).follower_gaps.max() <= 1e-10


def test_one_payment_each_by_a_scan():
    paper = fi.models.paper_gridworld()
    posted = np.array([9.5, 5.6])
    target = fi.best_response_policies(paper, posted)
    found = fi.cheapest_payments(paper, target)

    def worst(payments):
        return paper.evaluate(payments, target).follower_gaps

    for i in range(2):
        grid = [worst(np.where(np.arange(2) == i, x, posted))[i] for x in np.linspace(0, 12, 121)]
        first = np.linspace(0, 12, 121)[np.argmax(np.array(grid) <= 1e-10)]
        assert first - 0.1 <= found.payments[i] <= first + 1e-12


def test_states_that_are_hardly_ever_visited_follow_the_policy_too():
    # One step in 1e11 leads to a state with a choice: the start's value cannot see it.
    transition = np.zeros((3, 2, 3))
    transition[0, :, 1], transition[0, :, 2] = 1e-11, 1.0 - 1e-11
    transition[1:, :, 2] = 1.0
    mdp = fi.TabularMDP(transition, [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]], 0.9, 0)
    mask = np.zeros((1, 3, 2), bool)
    mask[0, 1, 1] = True
    leader = fi.JointReward(np.zeros(3))
    problem = fi.IncentiveProblem([mdp], leader, fi.Payments.at_pairs(mask))
    policies = np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    assert_close(fi.cheapest_payments(problem, policies).payments, [1.0])
    found = fi.cheapest_payments(problem, policies, 0.5)
    assert_close(found.payments, [1.5])
    assert_close(found.margins, [0.5])
    assert_close(found.price_of_margin, 0.5)


def test_actions_that_are_the_same_to_all_do_not_compete():
    transition = np.full((1, 2, 1), 1.0)
    mdp = fi.TabularMDP(transition, [[1.0, 1.0]], 0.5)
    leader = fi.JointReward(np.zeros(1))
    both = fi.IncentiveProblem([mdp], leader, fi.Payments.at_states([[0]]))
    policies = np.array([[[1.0, 0.0]]])
    found = fi.cheapest_payments(both, policies, 0.5)
    assert found.payments == [0.0]
    assert np.isinf(found.margins).all()
    # Paid apart, or told apart by the leader, they do.
    apart = fi.IncentiveProblem([mdp], leader, fi.Payments.everywhere())
    assert_close(fi.cheapest_payments(apart, policies, 0.5).payments, [0.5, 0.0])
    seen = fi.IncentiveProblem(
        [mdp], fi.JointReward(np.array([[0.0, 1.0]])), fi.Payments.at_states([[0]]), 0.5
    )
    with pytest.raises(fi.InfeasiblePolicyError, match=r"short of a lead of 0\.5 over action 1"):
        fi.cheapest_payments(seen, policies, 0.5)


def test_actions_that_a_policy_mixes_tie_among_themselves():
    base = random_base(12)
    problem = with_payments(base, fi.Payments.everywhere())
    policies = np.zeros(problem.followers.shape)
    policies[:, :, 0], policies[:, :, 2] = 0.3, 0.7
    found = fi.cheapest_payments(problem, policies, MARGIN)
    best = problem.followers.best_responses(problem.rewards(found.payments))
    assert_close(best.q_values[:, :, 0], best.q_values[:, :, 2], 1e-9)
    assert (best.values - best.q_values[:, :, 1] >= MARGIN - 1e-9).all()
    assert (found.margins >= MARGIN - 1e-9).all()


def test_a_larger_margin_costs_more():
    problem = with_payments(random_base(3), fi.Payments.everywhere())
    target = fi.best_response_policies(problem, np.linspace(0.0, 1.0, problem.payments.size))
    found = [fi.cheapest_payments(problem, target, margin) for margin in (0.0, 0.01, 0.1, 1.0)]
    assert (np.diff([each.cost for each in found]) > 0).all()
    prices = [each.price_of_margin for each in found]
    assert_close(prices, np.array([each.cost for each in found]) - found[0].cost)


def test_what_cannot_be_bought_is_explained():
    # State 0 chooses between 1 now and nothing; the payment is where it does not matter.
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1] = transition[0, 1, 2] = 1.0
    transition[1:, :, 2] = 1.0
    mdp = fi.TabularMDP(transition, [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], 0.5, 0)
    leader = fi.JointReward(np.zeros((3, 3)))
    policies = np.array([[[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]] * 2)
    policies[0, 0] = [1.0, 0.0]
    problem = fi.IncentiveProblem([mdp, mdp], leader, fi.Payments.at_states([[1], [1]]))
    with pytest.raises(fi.InfeasiblePolicyError) as caught:
        fi.cheapest_payments(problem, policies)
    assert "follower 1: state 0 action 1 stays worse than action 0 by 1" in str(caught.value)
    assert "follower 0: " not in str(caught.value)
    assert "allow a payment for follower 1 in state 0" in str(caught.value)
    assert "margin" not in str(caught.value)
    # Where it does matter, but not enough of it is allowed.
    mask = np.zeros((2, 3, 2), bool)
    mask[1, 0, 1] = True
    bounded = fi.IncentiveProblem([mdp, mdp], leader, fi.Payments.at_pairs(mask, upper=0.75))
    with pytest.raises(fi.InfeasiblePolicyError, match=r"worse than action 0 by 0\.25") as caught:
        fi.cheapest_payments(bounded, policies)
    assert "raise upper" in str(caught.value)
    # And where there is enough, the margin may be too much.
    enough = fi.IncentiveProblem([mdp, mdp], leader, fi.Payments.at_pairs(mask, upper=1.0))
    assert_close(fi.cheapest_payments(enough, policies).payments, [1.0])
    with pytest.raises(fi.InfeasiblePolicyError, match="smaller margin"):
        fi.cheapest_payments(enough, policies, 0.5)


def test_long_explanations_are_cut():
    problem = with_payments(random_base(2), fi.Payments.at_states([[0], [0]]))
    target = np.eye(3)[np.argmin(problem.followers.rewards, axis=2)]
    with pytest.raises(fi.InfeasiblePolicyError, match=r"and [0-9]+ more") as caught:
        fi.cheapest_payments(problem, target)
    assert str(caught.value).count("stays") == 5


def test_a_margin_that_would_be_earned_for_ever_is_refused():
    # At discount 1 waiting in state 0 is worth as much as going on.
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1, :, 1] = 1.0
    mdp = fi.TabularMDP(transition, [[0.0, 1.0], [0.0, 0.0]], 1.0, 0)
    mask = np.zeros((1, 2, 2), bool)
    mask[0, 0, 1] = True
    problem = fi.IncentiveProblem([mdp], fi.JointReward([1.0, 0.0]), fi.Payments.at_pairs(mask))
    policies = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    assert_close(fi.cheapest_payments(problem, policies).payments, [0.0])
    with pytest.raises(
        fi.InfeasiblePolicyError, match=r"0\.1 short of a lead of 0\.1 over action 0"
    ):
        fi.cheapest_payments(problem, policies, 0.1)


def test_bounds_are_kept():
    base = random_base(6)
    free = with_payments(base, fi.Payments.everywhere())
    target = fi.best_response_policies(free, np.linspace(0.0, 1.0, free.payments.size))
    found = fi.cheapest_payments(free, target)
    upper = 0.8 * found.payments.max()
    bounded = with_payments(base, fi.Payments.everywhere(upper=upper))
    tight = fi.cheapest_payments(bounded, target)
    assert tight.payments.max() <= upper
    assert tight.cost > found.cost
    assert bounded.evaluate(tight.payments, target).follower_gaps.max() <= 1e-10


def test_the_budget_bounds_the_cost():
    base = random_base(6)
    free = with_payments(base, fi.Payments.everywhere())
    target = fi.best_response_policies(free, np.linspace(0.0, 1.0, free.payments.size))
    cost = fi.cheapest_payments(free, target).cost
    rich = with_payments(base, fi.Payments.everywhere(budget=cost * (1 + 1e-9)))
    assert_close(fi.cheapest_payments(rich, target).cost, cost)
    poor = with_payments(base, fi.Payments.everywhere(budget=0.9 * cost))
    with pytest.raises(fi.InfeasiblePolicyError, match="Raise the budget"):
        fi.cheapest_payments(poor, target)


def test_expected_spend_is_least():
    base = random_base(9)
    spend = with_payments(base, fi.Payments.everywhere(), fi.ExpectedSpend())
    target = fi.best_response_policies(spend, np.linspace(0.0, 1.0, spend.payments.size))
    found = fi.cheapest_payments(spend, target, MARGIN)
    prices, _ = spend.cost_gradient(0.0, target)
    dense, _, _ = dense_programme(spend, target, MARGIN, prices)
    assert_close(found.cost, dense.fun, 1e-8)
    assert_close(found.cost, spend.cost_at(found.payments, target))


@pytest.mark.slow
def test_many_followers_with_one_payment_each():
    n, states = 200, 10
    base = [random_base(seed, n=1, n_states=states, n_payments=1) for seed in range(n)]
    followers = [each.followers[0] for each in base]
    sites = [[int(np.argwhere(each.payments.index[0] >= 0)[0, 0])] for each in base]
    leader = fi.AdditiveReward(np.random.default_rng(1).random((n, states)))
    problem = fi.IncentiveProblem(followers, leader, fi.Payments.at_states(sites), 0.9)
    posted = np.random.default_rng(0).uniform(0.0, 3.0, n)
    target = fi.best_response_policies(problem, posted)
    fi.cheapest_payments(problem, target)
    start = time.perf_counter()
    found = fi.cheapest_payments(problem, target)
    assert time.perf_counter() - start < 2.0
    assert (found.payments <= posted + 1e-12).all()
    assert problem.evaluate(found.payments, target).follower_gaps.max() <= 1e-10
    best = problem.followers.best_responses(problem.rewards(posted)).q_values
    margin = 0.9 * np.diff(np.sort(best, axis=2)[:, :, -2:], axis=2).min()
    safe = fi.cheapest_payments(problem, target, margin)
    assert (safe.margins >= margin - 1e-9).all()
    assert found.cost < safe.cost <= posted.sum()


@pytest.mark.parametrize("margin", [-0.1, np.inf, np.nan])
def test_bad_margins(margin):
    problem = fi.models.example1()
    with pytest.raises(fi.InputError, match=r"margin: expected a (finite )?number"):
        fi.cheapest_payments(problem, fi.leader_optimal_policies(problem), margin)


def test_no_margin_where_absorbed_followers_have_a_choice_that_the_leader_sees():
    transition = np.zeros((2, 2, 2))
    transition[:, :, 1] = 1.0
    mdp = fi.TabularMDP(transition, [[1.0, 0.0], [0.0, 0.0]], 1.0, 0)
    labels = np.array([[[0, 0], [1, 2]]])
    problem = fi.IncentiveProblem(
        [mdp],
        fi.LabelReward(labels, [0.0, 1.0, 2.0]),
        fi.Payments.at_states([[0]]),
        leader_discount=0.9,
    )
    wanted = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    assert fi.cheapest_payments(problem, wanted).cost == 0.0
    with pytest.raises(fi.InfeasiblePolicyError, match="absorbed in state 1"):
        fi.cheapest_payments(problem, wanted, 0.1)
