"""At discount 1 a follower may stay for ever where nothing is earned, in an end component."""

import itertools

import numpy as np
import pytest
from conftest import assert_close
from scipy.optimize import linprog

import fastincentive as fi
from fastincentive.followers.followers import Followers

# Plain twins


def stays_for_ever(moves, still):
    """States (S,) from which moves (S, S) meet states that are still (S,) only."""
    while True:
        kept = still & ~(moves[:, ~still] > 0.0).any(axis=1)
        if (kept == still).all():
            return still
        still = kept


def chain_of(transition, reward, policy):
    each = np.arange(len(policy))
    return transition[each, policy], reward[each, policy]


def policy_values(moves, earned):
    """Total reward (S,) of a chain, None if it neither ends nor comes to rest somewhere."""
    ended = stays_for_ever(moves, earned == 0.0)
    comes = ended.copy()
    for _ in range(len(earned)):
        comes |= (moves[:, comes] > 0.0).any(axis=1)
    if not comes.all():
        return None
    values = np.zeros(len(earned))
    on = ~ended
    values[on] = np.linalg.solve(np.eye(on.sum()) - moves[np.ix_(on, on)], earned[on])
    return values


def all_policies(reward):
    return itertools.product(*[range(reward.shape[1])] * reward.shape[0])


def earns_for_ever(transition, reward):
    for policy in all_policies(reward):
        moves, earned = chain_of(transition, reward, list(policy))
        lazy = np.linalg.matrix_power(0.5 * (np.eye(len(earned)) + moves), 4096)
        if (lazy @ earned > 1e-9).any():
            return True
    return False


def best_values(transition, reward):
    """V* (S,) as the least values that beat every action, and are >= 0 where one may stay."""
    states = reward.shape[0]
    still = np.ones(states, bool)
    while True:
        inside = (reward == 0.0) & ~(transition[:, :, ~still] > 0.0).any(axis=2)
        kept = still & inside.any(axis=1)
        if (kept == still).all():
            break
        still = kept
    rows = (transition - np.eye(states)[:, None, :]).reshape(-1, states)
    bounds = [(0.0, None) if here else (None, None) for here in still]
    found = linprog(np.ones(states), rows, -reward.reshape(-1), bounds=bounds)
    return found.x if found.success else None


# Random models with chances to wait


def random_model(rng, states, actions=2):
    """Costs, some loops and moves for free, and a sink as the last state."""
    transition = np.zeros((states + 1, actions, states + 1))
    for s, a in itertools.product(range(states), range(actions)):
        met = rng.choice(states + 1, size=rng.integers(1, 3), replace=False)
        transition[s, a, met] = rng.dirichlet(np.ones(met.size))
    for s in np.flatnonzero(rng.random(states) < 0.7):
        transition[s, 0] = 0.0
        transition[s, 0, s if rng.random() < 0.5 else rng.integers(states)] = 1.0
    transition[states, :, states] = 1.0
    reward = -rng.integers(0, 3, size=(states + 1, actions)).astype(float)
    reward[:, 0] *= rng.random(states + 1) < 0.4
    reward[states] = 0.0
    return transition, reward


def follower(transition, reward, start=0):
    """The follower, or None where some closed class costs something for ever."""
    try:
        return fi.TabularMDP(transition, reward, 1.0, start)
    except fi.InputError:
        return None


@pytest.mark.parametrize("first", [0, pytest.param(60, marks=pytest.mark.slow)])
def test_best_responses_are_those_of_all_policies(first):
    count = 0
    for seed in range(first, 60 if first == 0 else 600):
        rng = np.random.default_rng(seed)
        transition, reward = random_model(rng, int(rng.integers(2, 5)))
        mdp = follower(transition, reward, None)
        if mdp is None or earns_for_ever(transition, reward):
            continue
        count += 1
        found = [
            policy_values(*chain_of(transition, reward, list(p))) for p in all_policies(reward)
        ]
        right = np.max([each for each in found if each is not None], axis=0)
        answer = fi.best_response(mdp)
        assert_close(answer.values, right, 1e-9)
        held = Followers([mdp]).evaluate(mdp.reward[None], answer.policy[None])
        assert_close(held.values[0], right, 1e-9)
        assert_close(best_values(transition, reward), right, 1e-7)
    assert count > 20


LARGE = [pytest.param(size, marks=pytest.mark.slow) for size in (390, 450)]


@pytest.mark.parametrize("states", [6, 60, *LARGE])
def test_best_responses_of_more_states_are_those_of_the_programme(states):
    for seed in range(3):
        transition, reward = random_model(np.random.default_rng([states, seed]), states)
        mdp = follower(transition, reward, None)
        if mdp is None:
            continue
        answer = fi.best_response(mdp)
        assert_close(answer.values, best_values(transition, reward), 1e-6)
        held = Followers([mdp]).evaluate(mdp.reward[None], answer.policy[None])
        assert_close(held.values[0], answer.values, 1e-9)
        again = Followers([mdp]).best_responses(
            mdp.reward[None], warm=np.argmax(answer.policy, axis=1)[None]
        )
        assert_close(again.values[0], answer.values, 1e-9)


def loop_of_two(cost):
    """0 and 1 lead to each other at a cost; 1 can leave for the sink at a cost of 2."""
    transition = np.zeros((3, 2, 3))
    transition[0, :, 1] = transition[1, 0, 0] = transition[1, 1, 2] = transition[2, :, 2] = 1.0
    return transition, np.array([[-cost, -cost], [0.0, -2.0], [0.0, 0.0]])


def test_a_loop_of_two_states_is_stayed_in_only_where_all_of_it_is_free():
    free, costly = (fi.TabularMDP(*loop_of_two(cost), 1.0, 0) for cost in (0.0, 0.1))
    assert_close(fi.best_response(free).values, [0.0, 0.0, 0.0])
    assert_close(fi.best_response(costly).values, [-2.1, -2.0, 0.0])
    round_trip = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert_close(fi.evaluate_policy(free, round_trip)[0], [0.0, 0.0, 0.0])
    with pytest.raises(fi.ImproperPolicyError):
        fi.evaluate_policy(costly, round_trip)


# What the leader earns from followers that may wait


def random_problem(seed):
    """Return a problem with one payment and what the leader earns per state, or None."""
    rng = np.random.default_rng(seed)
    transition, reward = random_model(rng, int(rng.integers(2, 4)))
    mdp = follower(transition, reward)
    index = np.full((1, *reward.shape), -1)
    index[0, rng.integers(reward.shape[0] - 1), 1] = 0
    earned = rng.integers(-1, 6, size=reward.shape[0]).astype(float)
    earned[-1] = 0.0
    discount, weight = rng.choice([0.9, 0.95]), rng.choice([0.1, 1.0])
    upper = rng.choice([2.0, 5.0])
    if mdp is None or mdp.transition.absorbing[np.argwhere(index >= 0)[0, 1]]:
        return None
    problem = fi.IncentiveProblem(
        [mdp],
        fi.AdditiveReward(earned),
        fi.Payments.from_index(index, upper=upper),
        leader_discount=discount,
        cost_weight=weight,
    )
    return problem, earned


def best_objective(problem, earned):
    """The leader's best over all responses, at every payment at which two of them tie."""
    (mdp,) = problem.followers
    transition, reward = mdp.dense_transition(), mdp.reward
    paid = (problem.payments.index[0] >= 0).astype(float)
    upper = problem.payments.upper[0]
    policies = [list(p) for p in all_policies(reward)]
    lines = []
    for policy in policies:
        moves, own = chain_of(transition, reward, policy)
        still = chain_of(transition, np.abs(reward) + paid, policy)[1]
        if policy_values(moves, still) is not None:
            on = ~stays_for_ever(moves, still == 0.0)
            visits = np.zeros(len(own))
            eye = np.eye(on.sum())
            visits[on] = np.linalg.solve(eye - moves[np.ix_(on, on)].T, np.eye(len(own))[0, on])
            lines.append((visits @ own, visits @ chain_of(transition, paid, policy)[1]))
    points = {0.0, upper, *(-reward[paid > 0])}
    for (a, b), (c, d) in itertools.combinations(lines, 2):
        points |= {(c - a) / (b - d)} if abs(b - d) > 1e-12 else set()
    best = -np.inf
    for t in points:
        if not 0.0 <= t <= upper:
            continue
        rewards = reward + t * paid
        rewards[np.abs(rewards) < 1e-12] = 0.0
        if earns_for_ever(transition, rewards):
            continue
        values = [policy_values(*chain_of(transition, rewards, p)) for p in policies]
        top = max(each[0] for each in values if each is not None)
        for policy, value in zip(policies, values, strict=True):
            if value is not None and value[0] >= top - 1e-9:
                moves, _ = chain_of(transition, reward, policy)
                lasting = np.eye(len(moves)) - problem.leader_discount * moves
                best = max(best, np.linalg.solve(lasting, earned)[0] - problem.cost_weight * t)
    return best


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
@pytest.mark.parametrize("first", [0, pytest.param(10, marks=pytest.mark.slow)])
def test_optima_are_those_of_all_responses_at_all_breakpoints(first):
    count = 0
    for seed in range(first, 10 if first == 0 else 120):
        found = random_problem(seed)
        if found is None:
            continue
        count += 1
        problem, _ = found
        right = best_objective(*found)
        size = 1e-6 * max(1.0, abs(right))
        certified = fi.global_optimum(problem)
        assert certified.complete
        assert_close(certified.objective, right, 1e-6)
        solution = fi.solve(problem)
        # A mixture of tied responses may be worth more than each.
        mixed = (solution.policies.max(axis=2) < 1.0).any()
        assert solution.objective >= right - size
        assert mixed or solution.objective <= right + size
    assert count > 4


def test_a_job_done_at_a_loss_must_be_paid_for():
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1:, :, 2] = 1.0
    mdp = fi.TabularMDP(transition, [[0.0, -1.0], [0.0, 0.0], [0.0, 0.0]], 1.0, 0)
    problem = fi.IncentiveProblem(
        [mdp],
        fi.AdditiveReward([0.0, 5.0, 0.0]),
        fi.Payments.at_states([[1]], upper=5.0),
        leader_discount=1.0,
        cost_weight=1.0,
    )
    assert_close(fi.solve(problem).objective, 4.0, 1e-6)
    assert_close(fi.global_optimum(problem).objective, 4.0, 1e-6)
    assert_close(fi.single_follower_optimum(problem).objective, 4.0, 1e-6)
    works = np.zeros((1, 3, 2))
    works[0, 0, 1] = works[0, 1:, 0] = 1.0
    assert_close(fi.cheapest_payments(problem, works).payments, [1.0])
    waits = works.copy()
    waits[0, 0] = [1.0, 0.0]
    assert_close(fi.cheapest_payments(problem, waits).payments, [0.0])


@pytest.mark.filterwarnings("ignore::fastincentive.ConvergenceWarning")
def test_a_follower_stays_where_payments_come_up_to_the_costs():
    # Staying costs 2, which the leader may pay exactly: more would be earned for ever.
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, :, 1] = 1.0
    mdp = fi.TabularMDP(transition, [[-2.0, -1.0], [0.0, 0.0]], 1.0, 0)
    index = np.array([[[0, -1], [-1, -1]]])
    problem = fi.IncentiveProblem(
        [mdp],
        fi.AdditiveReward([1.0, 0.0]),
        fi.Payments.from_index(index, upper=3.0),
        leader_discount=0.9,
        cost_weight=1.0,
    )
    for found in (fi.solve(problem), fi.global_optimum(problem)):
        assert_close(found.payments, [2.0])
        assert_close(found.objective, 8.0, 1e-6)
    regimes = fi.follower_regimes(mdp, (index[0] >= 0).astype(float))
    assert not regimes.bounded
    assert_close(regimes.lower.max(), 2.0)
    with pytest.raises(fi.InputError, match="stayed in for nothing"):
        fi.single_follower_optimum(problem)


def stay_or_go(earned):
    """A follower that stays for nothing or goes at a cost of 1; the leader earns where it stays."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, :, 1] = 1.0
    return fi.IncentiveProblem(
        [fi.TabularMDP(transition, [[0.0, -1.0], [0.0, 0.0]], 1.0, 0)],
        fi.AdditiveReward([earned, 0.0]),
        fi.Payments.from_index(np.array([[[-1, 0], [-1, -1]]]), upper=3.0),
        leader_discount=1.0,
        cost_weight=1.0,
        max_horizon=1000,
    )


def test_a_leader_that_earns_for_ever_where_a_follower_stays_is_told_so():
    problem = stay_or_go(2.0)
    for method in (
        fi.solve,
        lambda problem: fi.solve(problem, fi.BilevelAscent()),
        fi.global_optimum,
        fi.single_follower_optimum,
    ):
        with pytest.raises(fi.InputError, match=r"got 2 a step for ever at follower 0.* states 0"):
            method(problem)
    assert fi.upper_bound(problem) == np.inf


def test_a_leader_that_loses_for_ever_where_a_follower_stays_pays_it_to_go():
    problem = stay_or_go(-2.0)
    found = fi.solve(problem)
    assert_close(found.objective, -3.0)
    assert found.pessimistic_value == -np.inf  # at the price it may as well stay
    assert_close(fi.global_optimum(problem).objective, -3.0)
    assert fi.stackelberg_values(problem, [0.5]).optimistic.leader_value == -np.inf


def test_a_leader_that_earns_nothing_where_a_follower_stays_is_answered():
    assert_close(fi.solve(stay_or_go(0.0)).objective, 0.0)
    assert fi.global_optimum(stay_or_go(0.0)).complete
