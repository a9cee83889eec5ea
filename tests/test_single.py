"""One follower: values, occupancies, best and soft best responses against the plain twins."""

import numba
import numpy as np
import pytest
import reference
import scipy.sparse
import scipy.sparse.linalg
from conftest import (
    EXACT,
    ROUNDING,
    SWEEPS,
    Arrays,
    assert_close,
    random_arrays,
    random_policy,
)
from hypothesis import given
from hypothesis import strategies as st

from fastincentive import (
    Followers,
    ImproperPolicyError,
    InputError,
    TabularMDP,
    best_response,
    evaluate_policy,
    occupancy_measure,
    soft_best_response,
)
from fastincentive.kernels import bellman
from fastincentive.kernels.packed import DENSE_STATES
from fastincentive.models import grid_mdp, gridworld

DISCOUNTS = [0.0, 0.5, 0.95, 0.999, 1.0]


def draw(seed, discount):
    """A follower and a policy: actions missing, closed classes of one or two states."""
    rng = np.random.default_rng([seed, int(1000 * discount)])
    closed = (1, 2)[seed % 2] if discount == 1.0 else seed % 3
    branching = (0, 2)[seed % 2]
    arrays = random_arrays(rng, 8, 3, discount, 0.3, closed, branching)
    return arrays, random_policy(rng, arrays.available, sparse=seed % 2 == 1)


# Policy evaluation and occupancy


@pytest.mark.parametrize("discount", DISCOUNTS)
@pytest.mark.parametrize("seed", range(4))
def test_values_match_the_linear_solve(seed, discount):
    arrays, policy = draw(seed, discount)
    values, q_values = evaluate_policy(arrays.mdp(), policy)
    expected_values, expected_q = arrays.evaluate(policy)
    assert_close(values, expected_values)
    mask = arrays.available
    assert_close(q_values[mask], expected_q[mask])
    assert (q_values[~mask] == -np.inf).all()


@pytest.mark.parametrize("discount", DISCOUNTS)
@pytest.mark.parametrize("seed", range(4))
def test_occupancy_matches_the_linear_solve(seed, discount):
    arrays, policy = draw(seed, discount)
    assert_close(occupancy_measure(arrays.mdp(), policy), arrays.occupancy(policy))


@given(st.integers(0, 10**6), st.sampled_from(DISCOUNTS))
def test_occupancy_obeys_its_flow_equation(seed, discount):
    arrays, policy = draw(seed, discount)
    occupancy = occupancy_measure(arrays.mdp(), policy)
    inflow = np.einsum("sa,sat->t", occupancy, arrays.transition)
    alive = np.ones(8, bool) if discount < 1 else ~arrays.absorbing
    residual = occupancy.sum(axis=1) - arrays.initial - discount * inflow
    assert_close(residual[alive] / max(1.0, occupancy.sum()), np.zeros(alive.sum()), ROUNDING)
    assert (occupancy >= 0).all()
    assert (occupancy[~arrays.available] == 0).all()
    assert (occupancy[~alive] == 0).all()
    if discount < 1.0:
        assert_close((1 - discount) * occupancy.sum(), 1.0)


@given(st.integers(0, 10**6), st.sampled_from(DISCOUNTS))
def test_value_is_occupancy_times_reward(seed, discount):
    arrays, policy = draw(seed, discount)
    mdp = arrays.mdp()
    values, _ = evaluate_policy(mdp, policy)
    occupancy = occupancy_measure(mdp, policy)
    assert_close(mdp.initial @ values, np.sum(occupancy * mdp.reward))


@given(st.integers(0, 10**6), st.sampled_from(DISCOUNTS))
def test_q_values_average_to_the_values(seed, discount):
    arrays, policy = draw(seed, discount)
    values, q_values = evaluate_policy(arrays.mdp(), policy)
    mean = np.sum(policy * np.where(arrays.available, q_values, 0.0), axis=1)
    assert_close(mean, values)


def test_occupancy_is_the_gradient_of_the_value_in_the_reward():
    arrays, policy = draw(0, 0.95)
    mdp = arrays.mdp()

    def value(reward):
        return mdp.initial @ evaluate_policy(mdp.replace(reward=reward), policy)[0]

    slope = reference.finite_difference(value, mdp.reward, arrays.available)
    assert_close(occupancy_measure(mdp, policy), slope, 1e-8)  # linear: no truncation error


def test_normalized_occupancy():
    arrays, policy = draw(1, 0.95)
    mdp = arrays.mdp()
    normalized = occupancy_measure(mdp, policy, normalized=True)
    assert_close(normalized, 0.05 * arrays.occupancy(policy))
    assert_close(normalized.sum(), 1.0)
    with pytest.raises(InputError, match="normalized: expected False at discount 1"):
        occupancy_measure(mdp.replace(reward=np.zeros(8), discount=1.0), policy, normalized=True)


def test_evaluation_by_hand():
    """Each step leaves state 0 with probability 1/2 and earns 3: V = 3 / (1 - gamma / 2)."""
    transition = np.zeros((2, 1, 2))
    transition[0, 0] = [0.5, 0.5]
    transition[1, 0, 1] = 1.0
    for discount in DISCOUNTS:
        mdp = TabularMDP(transition, [3.0, 0.0], discount, 0)
        values, q_values = evaluate_policy(mdp, np.ones((2, 1)))
        assert_close(values, [3 / (1 - discount / 2), 0.0], ROUNDING)
        assert_close(q_values[:, 0], values, ROUNDING)
        visits = occupancy_measure(mdp, np.ones((2, 1)))[:, 0]
        assert_close(visits[0], 1 / (1 - discount / 2), ROUNDING)


# Best responses


def assert_best_response(arrays, answer, tolerance=EXACT):
    """Check value, Bellman equation, and that the returned policy earns the value."""
    _, values, q_values = arrays.best_response()
    mask = arrays.available
    assert_close(answer.values, values, tolerance)
    assert_close(answer.q_values[mask], q_values[mask], tolerance)
    assert (answer.q_values[~mask] == -np.inf).all()
    assert ((answer.policy == 0) | (answer.policy == 1)).all()
    assert (answer.policy.sum(axis=1) == 1).all()
    assert (answer.policy[~mask] == 0).all()
    assert_close(arrays.evaluate(answer.policy)[0], values, tolerance)
    assert answer.residual <= 1e-12 * max(1.0, np.abs(values).max())
    assert_close(answer.q_values.max(axis=1), answer.values, tolerance)
    assert answer.iterations >= 1


@pytest.mark.parametrize("discount", DISCOUNTS)
@pytest.mark.parametrize("seed", range(4))
def test_best_response_matches_value_iteration(seed, discount):
    arrays, _ = draw(seed, discount)
    assert_best_response(arrays, best_response(arrays.mdp()))


@given(st.integers(0, 10**6), st.sampled_from(DISCOUNTS))
def test_no_policy_beats_the_best_response(seed, discount):
    arrays, policy = draw(seed, discount)
    mdp = arrays.mdp()
    best = best_response(mdp).values
    assert (evaluate_policy(mdp, policy)[0] <= best + EXACT * max(1.0, np.abs(best).max())).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_lone_follower_answers_as_one_of_many(seed):
    arrays, _ = draw(seed, 0.95)
    mdp = arrays.mdp()
    one = best_response(mdp)
    followers = Followers([mdp, mdp.replace(discount=0.9)])
    many = followers.best_responses(followers.rewards)
    np.testing.assert_array_equal(one.values, many.values[0])
    np.testing.assert_array_equal(one.q_values, many.q_values[0])
    np.testing.assert_array_equal(one.policy.argmax(axis=1), many.actions[0])
    assert (one.residual, one.iterations) == (many.residual[0], many.iterations[0])


def test_first_action_of_a_tie():
    transition = np.zeros((2, 3, 2))
    transition[:, :, 1] = 1.0
    available = np.array([[False, True, True], [True, True, True]])
    answer = best_response(TabularMDP(transition, np.zeros(2), 0.5, available=available))
    np.testing.assert_array_equal(answer.policy.argmax(axis=1), [1, 0])


def test_waiting_for_ever_is_no_answer_at_discount_one():
    """Staying is free, so its Q equals that of leaving, but only leaving earns the value."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1, :, 1] = 1.0
    available = np.ones((2, 2), bool)
    reward = np.array([[0.0, 1.0], [0.0, 0.0]])
    arrays = Arrays(transition, reward, 1.0, np.array([1.0, 0.0]), available)
    answer = best_response(arrays.mdp())
    assert_best_response(arrays, answer)
    np.testing.assert_array_equal(answer.policy[0], [0, 1])


@pytest.mark.parametrize("swap", [False, True])
def test_leaving_at_a_cost_at_discount_one(swap):
    """Waiting for ever earns 0, more than the -1 of leaving.

    At discount 1 policies count that are absorbed, or stay where nothing is earned.
    """
    transition = np.zeros((2, 2, 2))
    stay, leave = (1, 0) if swap else (0, 1)
    transition[0, stay, 0] = transition[0, leave, 1] = 1.0
    transition[1, :, 1] = 1.0
    reward = np.zeros((2, 2))
    reward[0, leave] = -1.0
    mdp = TabularMDP(transition, reward, 1.0, 0)
    answer = best_response(mdp)
    # Whatever is returned must be consistent: the policy earns the values.
    values, _ = evaluate_policy(mdp, answer.policy)
    assert_close(values, answer.values)
    assert_close(answer.values, [0.0, 0.0])
    costly = mdp.replace(reward=mdp.reward - np.array([[0.1], [0.0]]))
    assert_close(best_response(costly).values, [-1.1, 0.0])


@pytest.mark.parametrize("slip", [0.0, 0.1])
def test_zero_reward_loops_on_a_small_grid(slip):
    """Without slip and discount a follower may wander for free: the goal must still be reached."""
    problem = gridworld("S.L #.G", slip=slip, discount=1.0)
    (mdp,) = problem.followers
    available = np.ones((7, 4), bool)
    arrays = Arrays(mdp.dense_transition(), mdp.reward, 1.0, mdp.initial, available)
    answer = best_response(mdp)
    assert_best_response(arrays, answer)
    if slip == 0.0:
        assert_close(answer.values[[0, 1, 2, 4, 5, 6]], [10.0, 10.0, 8.0, 10.0, 10.0, 0.0])
        rewards = problem.rewards(np.array([3.0]))  # 11 at the lesser goal
        paid = problem.followers.best_responses(rewards)
        assert_close(paid.values[0][[0, 1, 2, 4, 5]], [11.0, 11.0, 11.0, 11.0, 10.0])
        policy = np.eye(4)[paid.actions]
        held = problem.followers.evaluate(rewards, policy)
        assert_close(held.values, paid.values)


# Soft best responses


def earns_entropy(arrays):
    """(S,) bool: not the sinks, nor, at discount 1, the states where a follower is absorbed."""
    return ~arrays.sinks & ~(arrays.absorbing & (arrays.discount == 1.0))


def soft_reference(arrays, tau):
    return reference.soft_best_response(
        arrays.transition,
        arrays.reward,
        arrays.discount,
        arrays.available,
        tau,
        ~earns_entropy(arrays),
    )


@pytest.mark.parametrize("tau", [0.02, 0.5])
@pytest.mark.parametrize("discount", DISCOUNTS)
@pytest.mark.parametrize("seed", range(3))
def test_soft_best_response_matches_value_iteration(seed, discount, tau):
    arrays, _ = draw(seed, discount)
    if discount == 1.0:  # a step must cost more than its entropy earns
        costly = arrays.reward - 2.0 * ~arrays.absorbing[:, None]
        arrays = Arrays(arrays.transition, costly, 1.0, arrays.initial, arrays.available)
    policy, values, q_values = soft_reference(arrays, tau)
    answer = soft_best_response(arrays.mdp(), tau)
    assert_close(answer.values, values)
    mask = arrays.available
    assert_close(answer.q_values[mask], q_values[mask])
    assert (answer.q_values[~mask] == -np.inf).all()
    entropic = earns_entropy(arrays)
    # an error of Q is divided by tau in the logarithm of the policy
    assert_close(answer.policy[entropic], policy[entropic], EXACT / tau)
    assert (answer.policy[~mask] == 0).all()
    assert_close(answer.policy.sum(axis=1), np.ones(8), ROUNDING)
    assert answer.residual <= 1e-11 * max(1.0, np.abs(values).max())


def test_soft_values_count_the_entropy_of_the_policy():
    arrays, _ = draw(3, 0.95)
    answer = soft_best_response(arrays.mdp(), 0.3)
    policy = answer.policy
    entropy = -np.sum(policy * np.log(np.where(policy > 0, policy, 1.0)), axis=1, keepdims=True)
    bonus = 0.3 * entropy * ~arrays.sinks[:, None]
    paid = Arrays(arrays.transition, arrays.reward + bonus, 0.95, arrays.initial, arrays.available)
    assert_close(paid.evaluate(policy)[0], answer.values)


def test_soft_response_tends_to_the_best_response():
    arrays, _ = draw(2, 0.95)
    hard = best_response(arrays.mdp())
    soft = soft_best_response(arrays.mdp(), 1e-4)
    bound = 1e-4 * np.log(3) / (1 - 0.95)
    assert (soft.values >= hard.values - EXACT * 20).all()
    assert (soft.values <= hard.values + bound + EXACT * 20).all()


def test_sinks_earn_no_entropy_but_their_best_reward():
    """A sink's choices count like any other's, only their entropy does not."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1, :, 1] = 1.0
    reward = np.array([[0.0, 0.0], [0.0, 1.0]])
    arrays = Arrays(transition, reward, 0.9, np.array([1.0, 0.0]), np.ones((2, 2), bool))
    _, values, _ = soft_reference(arrays, 0.5)
    assert values[1] == pytest.approx(10.0)
    answer = soft_best_response(arrays.mdp(), 0.5)
    assert_close(answer.values, values)
    assert_close(answer.policy[1], [0.0, 1.0])


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
def test_temperature_must_be_positive(temperature):
    arrays, _ = draw(0, 0.5)
    with pytest.raises(InputError, match="temperature: expected a number"):
        soft_best_response(arrays.mdp(), temperature)


# What is refused


def loop_or_leave(reward, states=3):
    """0 <-> 1 by action 0, the sink by action 1; the other states lead to the sink."""
    transition = np.zeros((states, 2, states))
    transition[:, :, -1] = 1.0
    transition[0, 0] = np.eye(states)[1]
    transition[1, 0] = np.eye(states)[0]
    full = np.zeros((states, 2))
    full[:2] = reward
    return TabularMDP(transition, full, 1.0, 0)


def round_trips(states):
    policy = np.zeros((states, 2))
    policy[:, 0] = 1.0
    return policy


SIZES = [3, pytest.param(DENSE_STATES + 1, marks=pytest.mark.slow)]


# the policy loops in states that are visited, or in states that are not
@pytest.mark.parametrize("initial", [0, 2])
@pytest.mark.parametrize("states", SIZES)
def test_improper_policy_at_discount_one(states, initial):
    mdp = loop_or_leave([[1.0, 0.0], [-1.0, 0.0]], states).replace(initial=initial)
    for function in (evaluate_policy, occupancy_measure):
        with pytest.raises(ImproperPolicyError, match="follower 0 has discount 1"):
            function(mdp, round_trips(states))
    leave = round_trips(states)
    leave[1] = [0.9, 0.1]
    visits = occupancy_measure(mdp.replace(initial=0), leave).sum(axis=1)
    assert_close(visits[:2], [10.0, 10.0], SWEEPS)


@pytest.mark.parametrize("states", SIZES)
def test_unbounded_reward_at_discount_one(states):
    with pytest.raises(InputError, match="bounded best total reward, because the discount is 1"):
        best_response(loop_or_leave([[1.0, 0.0], [-0.5, 0.0]], states))
    # a loop that costs is left
    answer = best_response(loop_or_leave([[1.0, 0.0], [-1.5, 0.0]], states))
    assert_close(answer.values[:2], [1.0, 0.0], SWEEPS)


@pytest.mark.parametrize("states", SIZES)
def test_unbounded_entropy_at_discount_one(states):
    """A free way back and forth: one more round trip always earns more entropy."""
    with pytest.raises(InputError, match="regularised total reward is bounded"):
        soft_best_response(loop_or_leave(0.0, states), 0.5)
    # any cost of a round trip bounds it: V = -tau * log(exp(cost / tau) - 1)
    for cost in (0.5, 0.01):
        answer = soft_best_response(loop_or_leave(-cost, states), 0.5)
        expected = -0.5 * np.log(np.expm1(cost / 0.5))
        assert_close(answer.values[:2], [expected, expected], SWEEPS)


def test_wrong_arguments_of_the_functions():
    arrays, policy = draw(0, 0.5)
    mdp = arrays.mdp()
    with pytest.raises(InputError, match="mdp: expected a TabularMDP, got ndarray"):
        evaluate_policy(arrays.transition, policy)
    with pytest.raises(InputError, match=r"policy: expected shape \(1, 8, 3\)"):
        evaluate_policy(mdp, policy[:7])
    with pytest.raises(InputError, match="policy: expected rows that sum to 1"):
        occupancy_measure(mdp, 2 * policy)


# Sweeps, which compiled code takes beyond DENSE_STATES only


@pytest.fixture
def sweeps_only(monkeypatch):
    """Take the sweeps for problems of any size."""
    if not numba.config.DISABLE_JIT:
        pytest.skip("the number is compiled in")
    monkeypatch.setattr(bellman, "DENSE_STATES", 0)


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.usefixtures("sweeps_only")
def test_sweeps_on_small_problems(seed, discount):
    arrays, policy = draw(seed, discount)
    mdp = arrays.mdp()
    assert_close(evaluate_policy(mdp, policy)[0], arrays.evaluate(policy)[0])
    assert_close(occupancy_measure(mdp, policy), arrays.occupancy(policy))
    assert_best_response(arrays, best_response(mdp))
    if discount < 1.0:
        answer = soft_best_response(mdp, 0.5)
        assert_close(answer.values, soft_reference(arrays, 0.5)[1])


@pytest.mark.usefixtures("sweeps_only")
def test_sweeps_refuse_what_has_no_answer():
    with pytest.raises(ImproperPolicyError, match="follower 0 has discount 1"):
        evaluate_policy(loop_or_leave([[1.0, 0.0], [-1.0, 0.0]]), round_trips(3))
    with pytest.raises(InputError, match="bounded best total reward"):
        best_response(loop_or_leave([[1.0, 0.0], [-0.5, 0.0]]))


# Beyond DENSE_STATES: sweeps over sparse rows, compared with sparse direct solves


def large_grid(discount, **settings):
    rng = np.random.default_rng(7)
    cells = rng.choice(list("........F"), size=(21, 21))
    cells[0, 0], cells[20, 20], cells[10, 15] = "S", "G", "L"
    mdp = grid_mdp("\n".join(map("".join, cells)), 0.1, None, discount, **settings)
    assert mdp.n_states == 442 > DENSE_STATES
    return mdp


def sparse_solves(mdp, reward, policy):
    """V and the occupancy of the states by scipy's direct solver; the last state is the sink."""
    chain = scipy.sparse.csr_array(np.einsum("sa,sat->st", policy, mdp.dense_transition()))
    alive = np.ones(mdp.n_states)
    if mdp.discount == 1.0:
        alive[-1] = 0.0
    mask = scipy.sparse.diags_array(alive)
    system = scipy.sparse.eye_array(mdp.n_states) - mdp.discount * mask @ chain @ mask
    mean = np.sum(policy * reward, axis=1) * alive
    values = scipy.sparse.linalg.spsolve(system.tocsc(), mean)
    visits = scipy.sparse.linalg.spsolve(system.T.tocsc(), mdp.initial * alive)
    return values, visits


@pytest.mark.slow
@pytest.mark.parametrize("discount", DISCOUNTS)
def test_large_evaluation(discount):
    mdp = large_grid(discount)
    policy = random_policy(np.random.default_rng(1), mdp.available)
    values, q_values = evaluate_policy(mdp, policy)
    occupancy = occupancy_measure(mdp, policy)
    expected_values, expected_visits = sparse_solves(mdp, mdp.reward, policy)
    assert_close(values, expected_values, SWEEPS)
    assert_close(occupancy, expected_visits[:, None] * policy, SWEEPS)
    expected_q = mdp.reward + discount * mdp.dense_transition() @ expected_values
    assert_close(q_values, expected_q, SWEEPS)


@pytest.mark.slow
@pytest.mark.parametrize("discount", DISCOUNTS)
def test_large_best_response(discount):
    mdp = large_grid(discount)
    answer = best_response(mdp)
    backup = (mdp.reward + discount * mdp.dense_transition() @ answer.values).max(axis=1)
    assert_close(answer.values, backup, 1e-12)
    earned, _ = sparse_solves(mdp, mdp.reward, answer.policy)
    assert_close(answer.values, earned, SWEEPS)


@pytest.mark.slow
@pytest.mark.parametrize("discount", DISCOUNTS)
def test_large_soft_best_response(discount):
    mdp = large_grid(discount, rewards={".": -0.5})
    tau = 0.1
    answer = soft_best_response(mdp, tau)
    masked = mdp.reward + discount * mdp.dense_transition() @ answer.values
    top = masked.max(axis=1, keepdims=True)
    backup = top[:, 0] + tau * np.log(np.exp((masked - top) / tau).sum(axis=1))
    assert_close(answer.values[:-1], backup[:-1])
    assert answer.values[-1] == 0.0  # no entropy in the sink
    policy = answer.policy
    entropy = -np.sum(policy * np.log(np.where(policy > 0, policy, 1.0)), axis=1, keepdims=True)
    entropy[-1] = 0.0
    earned, _ = sparse_solves(mdp, mdp.reward + tau * entropy, policy)
    assert_close(answer.values, earned, SWEEPS)


@pytest.mark.parametrize("unit", [1e-15, 1e-9, 1e9])
def test_best_response_does_not_depend_on_the_unit_of_reward(unit):
    rng = np.random.default_rng(1)
    transition = rng.dirichlet(np.ones(6), size=(6, 3))
    reward = rng.normal(size=(6, 3))
    plain = best_response(TabularMDP(transition, reward, 0.95))
    scaled = best_response(TabularMDP(transition, unit * reward, 0.95))
    np.testing.assert_array_equal(scaled.policy, plain.policy)
    assert_close(scaled.values / unit, plain.values)
