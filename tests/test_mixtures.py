"""Followers that draw lots between tied actions: found, marked, kept, and never above the bound."""

import itertools

import numba
import numpy as np
import pytest
from conftest import assert_close
from scipy.optimize import linprog

import fastincentive as fi

#: Where lots are best the ascent, which draws none, need not converge.
pytestmark = pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
COMPILED = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="minutes without compiled kernels")
#: Random problems of each kind.
FEW = 4 if numba.config.DISABLE_JIT else 12
PRECISE = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


# -- one that waits, and one that is there at a set time -------------------------------------------


def meeting(weight=0.01, discount=0.9):
    """Follower 0 waits for 0.1 a step or goes on; follower 1 is at its goal at time 2 only."""
    transition, reward = np.zeros((6, 2, 6)), np.zeros((6, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1:3, :, 2] = transition[5, :, 2] = 1.0
    transition[3, :, 4] = transition[4, :, 5] = 1.0
    reward[0, 0] = 0.1
    table = np.zeros((6, 6))
    table[1, 5] = 10.0
    paid = np.zeros((2, 6, 2), bool)
    paid[0, 0, 1] = True
    return fi.IncentiveProblem(
        [fi.TabularMDP(transition, reward, 0.9, initial) for initial in (0, 3)],
        fi.JointReward(table),
        fi.Payments.at_pairs(paid),
        discount,
        weight,
    )


def test_waiting_by_lot_is_found_and_marked():
    solution = fi.solve(meeting())
    # Paid 1, going is worth as much as waiting for ever: 10 (0.9 p) 0.9 (1 - p) at p = 1/2.
    assert_close(solution.payments, [1.0])
    assert_close(solution.objective, 2.015, 1e-9)
    assert_close(solution.policies[0, 0], [0.5, 0.5], 1e-5)
    assert np.abs(solution.follower_gaps).max() <= 1e-9
    assert np.argwhere(solution.mixed).tolist() == [[0, 0]]
    assert "follower 0 in state 0 takes action 0 with 0.5" in str(solution)
    # Against the leader followers draw no lots that would help it.
    assert_close(solution.pessimistic_objective, -0.01)
    assert not ((solution.pessimistic_policies > 0).sum(axis=2) > 1).any()


@pytest.mark.parametrize(("wait", "steps"), [(0.1, 9), (0.02, 9), (0.02, 40)])
def test_a_mixture_that_must_wait_long(wait, steps):
    # Follower 1 is at its goal late: a good share of going is small.
    transition, reward = np.zeros((steps + 5, 2, steps + 5)), np.zeros((steps + 5, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1:3, :, 2] = transition[-1, :, 2] = 1.0
    for s in range(3, steps + 4):
        transition[s, :, s + 1] = 1.0
    reward[0, 0] = wait
    table = np.zeros((steps + 5, steps + 5))
    table[1, steps + 2] = 10.0
    paid = np.zeros((2, steps + 5, 2), bool)
    paid[0, 0, 1] = True
    problem = fi.IncentiveProblem(
        [fi.TabularMDP(transition, reward, 0.9, initial) for initial in (0, 3)],
        fi.JointReward(table),
        fi.Payments.at_pairs(paid),
        0.99,
        1e-4,
    )
    shares = np.linspace(0.0, 1.0, 100_001)
    best = 10.0 * 0.99 ** (steps - 1) * ((1 - shares) ** (steps - 2) * shares).max()
    assert_close(fi.solve(problem).objective, best - 1e-4 * wait / (1 - 0.9), 1e-8)


def test_lots_are_kept_in_files(tmp_path):
    solution = fi.solve(meeting())
    path = tmp_path / "solution.npz"
    fi.save_solution(path, solution)
    loaded = fi.load_solution(path)
    assert np.array_equal(loaded.mixed, solution.mixed)
    assert np.array_equal(loaded.policies, solution.policies)
    assert str(loaded) == str(solution)


def test_where_nothing_is_gained_nobody_draws_lots():
    for problem in (fi.models.paper_gridworld(), fi.models.example1()):
        assert not fi.solve(problem).mixed.any()


def test_ties_against_the_leader_are_not_mixed_for_it():
    solution = fi.solve(meeting(), tie_breaking=fi.WeakStackelberg())
    assert_close(solution.pessimistic_objective, 0.0, 1e-9)


# -- bounds that cover lots ------------------------------------------------------------------------


def test_lots_are_certified():
    solution = fi.solve(meeting(), method=fi.RegimeAscent(), certify=True)
    assert 0.0 <= solution.optimality_gap <= 1e-6
    # Over deterministic responses the bound is what these bring.
    assert_close(fi.upper_bound(meeting(), mixed=False), 0.0, 1e-9)
    solution = fi.solve(worker(0.5), certify=True)
    assert 0.0 <= solution.optimality_gap <= 1e-6


@pytest.mark.parametrize("waiters", [1, pytest.param(2, marks=COMPILED)])
def test_lots_of_several_are_certified(waiters):
    # Follower i comes to the meeting at time 2 by waiting a step with chance 1/2.
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1:, :, 2] = 1.0
    waiter = fi.TabularMDP(transition, np.zeros((3, 2)), 0.9, 0)
    clock = np.zeros((3, 2, 3))
    clock[[0, 1, 2], :, [1, 2, 2]] = 1.0
    # The clock is at 2 from time 2 on, but those that came before have left by then.
    table = np.zeros((3,) * (waiters + 1))
    table[(1,) * waiters + (2,)] = 1.0
    problem = fi.IncentiveProblem(
        [waiter] * waiters + [fi.TabularMDP(clock, np.zeros((3, 2)), 0.9, 0)],
        fi.JointReward(table),
        fi.Payments.at_states([[2]] * (waiters + 1), upper=0.0),
        0.9,
    )
    solution = fi.solve(problem, method=fi.RegimeAscent(), certify=True)
    shares = np.linspace(0.0, 1.0, 10_001)
    times = np.arange(2, 200)[:, None]
    arrival = (1 - shares) ** (times - 1) * shares
    best = (0.9**times * arrival**waiters).sum(axis=0).max()
    assert_close(solution.objective, best, 1e-7)
    assert 0.0 <= solution.optimality_gap <= 1e-6


@COMPILED
def test_the_bound_on_the_papers_grid_covers_lots():
    problem = fi.models.paper_gridworld()
    assert_close(fi.upper_bound(problem), fi.global_optimum(problem).bound, 1e-6)


# -- budgets on what is spent ----------------------------------------------------------------------


def worker(budget, weight=1.0, discount=0.0):
    """Works for 1: worth 10 to the leader, which may spend so much."""
    transition = np.zeros((2, 2, 2))
    transition[0, :, 1] = transition[1, :, 1] = 1.0
    reward = np.array([[0.0, -1.0], [0.0, 0.0]])
    paid = np.zeros((1, 2, 2), bool)
    paid[0, 0, 1] = True
    worth = np.zeros((1, 2, 2))
    worth[0, 0, 1] = 10.0
    return fi.IncentiveProblem(
        [fi.TabularMDP(transition, reward, discount, 0)],
        fi.AdditiveReward(worth),
        fi.Payments.at_pairs(paid, budget=budget),
        discount,
        weight,
        fi.ExpectedSpend(),
    )


@pytest.mark.parametrize("budget", [0.5, 0.25, 0.01, 1.0, 2.0])
def test_half_the_work_for_half_the_money(budget):
    problem = worker(budget)
    solution = fi.solve(problem)
    share = min(budget, 1.0)
    assert_close(solution.objective, 9.0 * share, 1e-8)
    assert problem.within_budget(solution.payments, solution.policies)
    assert solution.mixed.any() == (share < 1.0)
    # Over deterministic responses nothing is within the budget, and the answer says what lots add.
    optimum = fi.global_optimum(problem)
    assert_close(optimum.objective + optimum.mixing.gain, 9.0 * share, 1e-8)


def random_follower(rng, states, actions=2):
    """Moves to one state or two, rewards with one digit."""
    transition = np.zeros((states, actions, states))
    for s, a in itertools.product(range(states), range(actions)):
        count = int(rng.integers(1, 3))
        transition[s, a, rng.choice(states, count, replace=False)] = rng.dirichlet(np.ones(count))
    return transition, np.round(rng.normal(size=(states, actions)), 1)


def optimal(transition, reward, discount):
    """Tied actions (S, A), by value iteration."""
    values = np.zeros(len(transition))
    for _ in range(600):
        q_values = reward + discount * transition @ values
        values = q_values.max(axis=1)
    return q_values >= values[:, None] - 1e-9


def occupancy_programme(transition, tied, gain, spend, discount, budget):
    """Largest gain of mixtures of tied actions within the budget, from state 0."""
    states, actions = tied.shape
    flow = np.repeat(np.eye(states), actions, axis=1)
    flow -= discount * transition.reshape(-1, states).T
    found = linprog(
        -gain.ravel(),
        A_ub=spend.reshape(1, -1),
        b_ub=[budget],
        A_eq=flow,
        b_eq=np.eye(states)[0],
        bounds=[(0, None if each else 0) for each in tied.ravel()],
        options=PRECISE,
    )
    return -found.fun if found.status == 0 else -np.inf


def one_follower(seed):
    """A problem, and its optimum over all mixtures, by linear programmes; None if nothing binds."""
    rng = np.random.default_rng([seed, 5])
    states = int(rng.integers(3, 7))
    transition, reward = random_follower(rng, states)
    paid = np.zeros((1, states, 2), bool)
    paid[0, rng.integers(states), rng.integers(2)] = True
    worth = np.round(3.0 * rng.normal(size=states), 1)
    own, gamma = rng.choice([0.5, 0.8, 0.9], 2)
    weight = float(rng.choice([0.0, 0.1, 0.5]))
    mdp = fi.TabularMDP(transition, reward, own, 0)

    def problem(budget):
        payments = fi.Payments.at_pairs(paid, budget=budget)
        leader = fi.AdditiveReward(worth[None])
        return fi.IncentiveProblem([mdp], leader, payments, gamma, weight, fi.ExpectedSpend())

    free = fi.solve(problem(None), method=fi.RegimeAscent())
    if free.cost < 1e-6:
        return None, None
    budget = 0.5 * free.cost
    best = -np.inf
    for x in np.append(0.0, fi.follower_regimes(mdp, paid[0].astype(float)).breakpoints):
        spend = x * paid[0]
        tied = optimal(transition, reward + spend, own)
        gain = worth[:, None] - weight * spend
        best = max(best, occupancy_programme(transition, tied, gain, spend, gamma, budget))
    return problem(budget), best


def test_one_follower_beside_linear_programmes():
    helped = 0
    for seed in range(2 * FEW):
        problem, best = one_follower(seed)
        if problem is not None:
            solution = fi.solve(problem, method=fi.RegimeAscent())
            assert_close(solution.objective, best, 1e-6, f"{seed}")
            assert_close(fi.upper_bound(problem), best, 1e-6, f"{seed}")
            assert problem.within_budget(solution.payments, solution.policies)
            assert np.abs(solution.follower_gaps).max() <= 1e-9
            helped += bool(solution.mixed.any())
    assert helped > 0


# -- two followers, beside a grid of mixtures ------------------------------------------------------


def pair(seed, spend):
    """Two random followers with a payment each; None if a budget would not bind."""
    rng = np.random.default_rng([seed, 6])
    states = int(rng.integers(3, 6))
    models = [random_follower(rng, states) for _ in range(2)]
    followers = [
        fi.TabularMDP(*model, rng.choice([0.5, 0.8, 0.9]), int(rng.integers(states)))
        for model in models
    ]
    paid = np.zeros((2, states, 2), bool)
    paid[np.arange(2), rng.integers(states, size=2), rng.integers(2, size=2)] = True
    table = np.where(rng.random((states, states)) < 0.3, 3.0, 0.0)
    table *= np.round(rng.normal(size=table.shape), 1)
    gamma, weight = rng.choice([0.5, 0.8, 0.9]), float(rng.choice([0.01, 0.1, 0.5]))

    def problem(budget):
        payments = fi.Payments.at_pairs(paid, budget=budget)
        cost = fi.ExpectedSpend() if spend else None
        leader = fi.JointReward(table)
        return fi.IncentiveProblem(followers, leader, payments, gamma, weight, cost)

    if not spend:
        return problem(None), paid
    free = fi.solve(problem(None), method=fi.RegimeAscent())
    return (problem(0.5 * free.cost) if free.cost > 1e-6 else None), paid


def grid_search(problem, paid, points=9):
    """Best objective of mixtures on a grid, at all breakpoints: two states at most are mixed."""
    moves = [mdp.dense_transition() for mdp in problem.followers]
    lists = [
        np.append(0.0, fi.follower_regimes(mdp, paid[i].astype(float)).breakpoints)
        for i, mdp in enumerate(problem.followers)
    ]
    best = -np.inf
    for x in itertools.product(*lists):
        answers = []
        for i, mdp in enumerate(problem.followers):
            tied = optimal(moves[i], mdp.reward + x[i] * paid[i], mdp.discount)
            only = np.eye(2)[tied.argmax(axis=1)]
            several = np.flatnonzero(tied.sum(axis=1) > 1)[:2]
            answers.append([])
            for shares in itertools.product(np.linspace(0, 1, points), repeat=several.size):
                policy = only.copy()
                policy[several] = np.column_stack([shares, 1 - np.array(shares)])
                answers[-1].append(policy)
        for policies in itertools.product(*answers):
            cost = problem.cost_at(np.array(x), np.array(policies))
            if problem.affords(cost):
                value = problem.leader_value(np.array(policies))
                best = max(best, value - problem.cost_weight * cost)
    return best


@pytest.mark.parametrize("spend", [False, True])
def test_two_followers_beside_a_grid_of_mixtures(spend):
    mixed = 0
    for seed in range(FEW):
        problem, paid = pair(seed, spend)
        if problem is not None:
            solution = fi.solve(problem, method=fi.RegimeAscent())
            least = grid_search(problem, paid)
            bound = fi.upper_bound(problem)
            assert bound >= max(least, solution.objective) - 1e-9, seed
            assert bound <= solution.objective + 1e-6 * max(1.0, abs(bound)), seed
            assert solution.objective >= least - 1e-6 * max(1.0, abs(least)), seed
            assert np.abs(solution.follower_gaps).max() <= 1e-9
            assert problem.within_budget(solution.payments, solution.policies)
            mixed += bool(solution.mixed.any())
    assert mixed > 0 or not spend
