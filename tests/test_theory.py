"""Smoothness constants: the paper's numbers, and bounds on measured second derivatives."""

import numpy as np
import pytest

from fastincentive.certificates.theory import (
    leader_smoothness,
    pl_constant,
    policy_constants,
    smoothness_direct,
    smoothness_softmax,
    step_bound,
)
from fastincentive.errors import InputError
from fastincentive.followers.followers import Followers
from fastincentive.followers.mdp import TabularMDP
from fastincentive.followers.parameterization import Direct, Softmax
from fastincentive.leader.counts import CountReward
from fastincentive.leader.tables import JointReward
from fastincentive.models import example1, paper_gridworld, random_problem
from fastincentive.problem.payments import Payments
from fastincentive.problem.problem import IncentiveProblem


def test_printed_constants_of_proposition_2():
    assert smoothness_direct(0.9, 4) == pytest.approx(2 * 0.9 * 4 / 0.1**3)
    assert smoothness_softmax(0.9) == pytest.approx(8 / 0.1**3)
    assert smoothness_direct(0.9, 4, 10.0) == pytest.approx(10 * smoothness_direct(0.9, 4))
    assert smoothness_softmax(0.9, 0.5, 3.0) == pytest.approx(12 * smoothness_softmax(0.9))


def test_one_follower_is_proposition_2():
    assert leader_smoothness(0.9, 1, 4) == pytest.approx(smoothness_direct(0.9, 4))
    for n in (1, 5):
        mine = leader_smoothness(0.9, n, 4, "softmax", 0.1, 2.0)
        assert mine == pytest.approx(smoothness_softmax(0.9, 0.1, 2.0) / 8.0)


def test_printed_constants_of_lemma_3():
    assert policy_constants(3, 4, "direct", source="paper") == (12.0, 24.0)
    first, second = policy_constants(3, 4, "softmax", 0.5, source="paper")
    assert first == 6.0
    assert second == pytest.approx(3 * 16 * (12 + 1 - 1) / 0.25)


# C1 and C2 against joint policies written out


def derivatives(policies, direction, kind, tau):
    """Absolute sums of the first two derivatives of the joint policy at one joint state.

    ``policies`` and ``direction`` (n, A); by central differences over all joint actions.
    """

    def joint(alpha):
        if kind == "direct":
            each = policies + alpha * direction
        else:
            each = policies * np.exp(alpha * direction / tau)
            each /= each.sum(axis=1, keepdims=True)
        out = np.ones(1)
        for row in each:
            out = np.multiply.outer(out, row)
        return out

    h = 1e-4 * tau
    first = (joint(h) - joint(-h)) / (2 * h)
    second = (joint(h) - 2 * joint(0.0) + joint(-h)) / h**2
    return np.abs(first).sum(), np.abs(second).sum()


@pytest.mark.parametrize("kind", ["direct", "softmax"])
@pytest.mark.parametrize("tau", [1.0, 0.05])
@pytest.mark.parametrize(("n", "actions"), [(1, 2), (1, 4), (2, 3), (3, 2)])
def test_policy_constants_hold(kind, tau, n, actions):
    rng = np.random.default_rng(n * 10 + actions)
    first, second = policy_constants(n, actions, kind, tau)
    for _ in range(200):
        policies = rng.dirichlet(np.full(actions, rng.choice([0.2, 1.0, 20.0])), size=n)
        direction = rng.standard_normal((n, actions))
        direction /= np.linalg.norm(direction)
        one, two = derivatives(policies, direction, kind, tau)
        assert one <= first * (1 + 1e-5)
        assert two <= second * (1 + 1e-4) + 1e-5


def test_the_printed_softmax_constant_is_no_bound_and_the_derived_one_is_reached():
    policies, direction = np.full((1, 2), 0.5), np.array([[1.0, -1.0]]) / np.sqrt(2.0)
    one, _ = derivatives(policies, direction, "softmax", 0.05)
    assert one > 7 * policy_constants(1, 2, "softmax", 0.05, source="paper")[0]
    assert one == pytest.approx(policy_constants(1, 2, "softmax", 0.05)[0], rel=1e-6)


# The constants against measured Hessians


def norm_of_jacobian(function, point, h):
    """Spectral norm of the Jacobian of a vector function, by central differences."""
    columns = [
        (function(point + h * e) - function(point - h * e)) / (2 * h) for e in np.eye(point.size)
    ]
    return np.linalg.norm(np.array(columns), 2)


def gradients(problem, parameterization):
    """Gradients of f and of g = sum_i V_i as functions of (x, theta), one flat vector."""
    shape, k = problem.followers.shape, problem.payments.size

    def split(point):
        policies = parameterization.policies(point[k:].reshape(shape), problem.followers)
        return point[:k], policies

    def of_f(point):
        x, policies = split(point)
        slopes = parameterization.gradient(problem.leader_pass(policies).gradient, policies)
        return np.concatenate([-problem.cost_weight * problem.cost.gradient(x), slopes.ravel()])

    def of_g(point):
        x, policies = split(point)
        result = problem.followers.evaluate(problem.rewards(x), policies, checked=True)
        visits = result.visits[:, :, None]
        slopes = parameterization.gradient(visits * result.q_values, policies)
        return np.concatenate([problem.payments.pull_back(visits * policies), slopes.ravel()])

    return of_f, of_g


def small_problem(n, seed, payments=None):
    """n followers with 3 states and 2 actions, and a leader that sees states and actions."""
    if payments is None:
        payments = Payments.everywhere(upper=2.0)
    followers = random_problem(n, 3, 2, 2, rng=seed, discounts=(0.3, 0.8)).followers
    table = np.random.default_rng(seed).random((3, 2) * n)
    return IncentiveProblem(
        followers, JointReward(table), payments, leader_discount=0.7, cost_weight=0.3
    )


def shared_tariff(n):
    index = np.arange(6).reshape(3, 2)
    return Payments.from_index(np.repeat(index[None], n, axis=0), budget=2.0)


@pytest.mark.parametrize("parameterization", [Direct(), Softmax(1.0), Softmax(0.2)])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_bounds_hold_on_measured_hessians(n, parameterization):
    """All of f and g in (x, theta): the leader's, the followers' and the mixed derivatives."""
    for seed in range(3):
        problem = small_problem(n, seed, shared_tariff(n) if seed == 2 else None)
        rng = np.random.default_rng(seed)
        policies = rng.dirichlet(np.ones(2), size=problem.followers.shape[:2])
        theta = parameterization.parameters(policies, problem.followers)
        k = problem.payments.size
        point = np.concatenate([rng.uniform(0.0, 2.0 / k, k), theta.ravel()])
        kind = "direct" if isinstance(parameterization, Direct) else "softmax"
        tau = 1.0 if kind == "direct" else parameterization.temperature
        of_f, of_g = (
            norm_of_jacobian(function, point, 1e-5 * tau)
            for function in gradients(problem, parameterization)
        )
        bound = 1.0 / step_bound(problem, parameterization)
        assert 0.0 < of_g <= bound
        assert 0.0 < of_f <= bound
        assert of_f <= leader_smoothness(0.7, n, 2, kind, tau, problem.leader.magnitude())


# The step bound


def test_step_bound_written_out():
    problem = small_problem(2, 0)
    discounts = [mdp.discount for mdp in problem.followers]
    largest = (problem.followers.rewards + 2.0).max(axis=(1, 2))
    h = max(smoothness_direct(g, 2, b) for g, b in zip(discounts, largest, strict=True))
    c = max(np.sqrt(2.0) / (1.0 - g) ** 2 for g in discounts)
    of_g = np.linalg.norm([[h, c], [c, 0.0]], 2)
    of_f = leader_smoothness(0.7, 2, 2, reward_bound=problem.leader.magnitude())
    assert step_bound(problem, Direct()) == pytest.approx(1.0 / max(of_g, of_f))


def test_step_bound_needs_bounded_payments():
    problem = random_problem(2, rng=0)
    with pytest.raises(InputError, match=r"payment_bound.*payment 0"):
        step_bound(problem, Direct())
    near = step_bound(problem, Direct(), payment_bound=1.0)
    far = step_bound(problem, Direct(), payment_bound=100.0)
    assert 0.0 < far < near
    with pytest.raises(InputError, match="payment_bound"):
        step_bound(problem, Direct(), payment_bound=-1.0)


class QuadraticCost:
    """C(x) = 50 |x|^2."""

    def value(self, payments):
        return 50.0 * float(payments @ payments)

    def gradient(self, payments):
        return 100.0 * payments


def test_step_bound_counts_the_cost():
    base = small_problem(1, 0)
    problem = IncentiveProblem(
        base.followers,
        JointReward(np.zeros(3)),
        Payments.everywhere(upper=1.0),
        leader_discount=0.5,
        cost_weight=1e6,
        cost=QuadraticCost(),
    )
    with pytest.raises(InputError, match="cost_smoothness"):
        step_bound(problem, Direct())
    assert step_bound(problem, Direct(), cost_smoothness=100.0) == pytest.approx(1e-8)
    with pytest.raises(InputError, match="cost_smoothness"):
        step_bound(problem, Direct(), cost_smoothness=-1.0)


def doomed_problem(leader_discount=1.0):
    """Two followers that do not discount, and are absorbed whatever they do."""
    rng = np.random.default_rng(0)
    transition = np.zeros((4, 2, 4))
    transition[:3] = rng.dirichlet(np.ones(4), size=(3, 2))
    transition[3, :, 3] = 1.0
    mdps = [
        TabularMDP(transition, np.vstack([rng.random((3, 2)), np.zeros((1, 2))]), 1.0, 0)
        for _ in range(2)
    ]
    table = np.zeros((4, 2, 4, 2))
    table[:3, :, :3] = rng.random((3, 2, 3, 2))
    return IncentiveProblem(
        mdps, JointReward(table), Payments.at_states([[1], [2]], upper=2.0), leader_discount
    )


@pytest.mark.parametrize("parameterization", [Direct(), Softmax(0.5)])
def test_bounds_hold_without_discounting(parameterization):
    """Steps until absorption stand for 1 / (1 - discount)."""
    for leader_discount in (1.0, 0.9):
        problem = doomed_problem(leader_discount)
        rng = np.random.default_rng(1)
        policies = rng.dirichlet(np.ones(2), size=problem.followers.shape[:2])
        theta = parameterization.parameters(policies, problem.followers)
        point = np.concatenate([rng.uniform(0.0, 2.0, 2), theta.ravel()])
        bound = 1.0 / step_bound(problem, parameterization)
        for function in gradients(problem, parameterization):
            assert 0.0 < norm_of_jacobian(function, point, 1e-5) <= bound
    # An end that is certain after two steps: T = 2 for each follower, 4 for both.
    first, second = policy_constants(2, 2)
    largest = 6.0 * (second * 4**2 + 2.0 * first**2 * 4**3)
    assert step_bound(example1(), Direct(), payment_bound=0.0) == pytest.approx(1.0 / largest)


def test_no_bound_where_a_follower_may_wander_for_ever():
    with pytest.raises(InputError, match=r"leader_discount.*does not exist: follower 0 can stay"):
        step_bound(paper_gridworld(), Direct())
    followers = paper_gridworld().followers
    mdps = [mdp.replace(discount=1.0) for mdp in followers]
    payments = Payments.at_states([[10], [29]], upper=1.0)
    problem = IncentiveProblem(mdps, JointReward(np.zeros((37, 37))), payments, 0.9)
    with pytest.raises(InputError, match=r"discount of follower 0.*does not exist"):
        step_bound(problem, Softmax(0.05))
    types = IncentiveProblem(
        Followers(list(random_problem(2, rng=0).followers), [2, 1]),
        CountReward(np.arange(10) % 2, np.arange(4.0)),
        Payments.at_states([[1], [2]], upper=1.0),
        0.9,
    )
    with pytest.raises(InputError, match="expected counts of 1 for a step bound"):
        step_bound(types, Direct())
    for call in (
        lambda: smoothness_direct(1.0, 4),
        lambda: smoothness_softmax(1.0),
        lambda: leader_smoothness(1.0, 2, 4),
    ):
        with pytest.raises(InputError, match=r"^discount: .*does not exist"):
            call()


# The PL inequality


def tangent_square(slopes, policies, available):
    """|T slopes|^2, T the projection on the tangent cone of the policies, written out by rows."""
    actions = slopes.shape[-1]
    rows = (each.reshape(-1, actions) for each in (slopes, policies, available))
    total = 0.0
    for row, pi, there in zip(*rows, strict=True):
        # Of the faces that it lies in, the projection is the longest one that stays in the cone.
        at_zero = np.flatnonzero(there & (pi == 0.0))
        longest = 0.0
        for kept in range(2**at_zero.size):
            free = there.copy()
            free[at_zero] = kept >> np.arange(at_zero.size) & 1
            moved = np.where(free, row - row[free].mean(), 0.0)
            if (moved[at_zero] >= 0.0).all():
                longest = max(longest, float(moved @ moved))
        total += longest
    return total


def raw_slopes(problem, x, policies):
    """The gradient of g by direct policies (n, S, A)."""
    result = problem.followers.evaluate(problem.rewards(x), policies, checked=True)
    return result.visits[:, :, None] * result.q_values


def pl_sides(problem, x, policies, parameterization):
    """|grad_theta g|^2, on the tangent cone for direct policies, and g* - g."""
    slopes = raw_slopes(problem, x, policies)
    gap = -problem.evaluate(x, policies).feasibility
    if isinstance(parameterization, Direct):
        return tangent_square(slopes, policies, problem.followers.available), gap
    return float((parameterization.gradient(slopes, policies) ** 2).sum()), gap


def drawn_policies(rng, shape, least):
    """From nearly uniform to nearly, or quite, deterministic ones; no entry below ``least``."""
    policies = rng.gamma(rng.choice([0.05, 0.5, 5.0]), size=shape) + 1e-300
    policies /= policies.sum(axis=2, keepdims=True)
    if rng.random() < 0.3:
        policies = np.eye(shape[2])[policies.argmax(axis=2)]
    policies = np.maximum(policies, least)
    return policies / policies.sum(axis=2, keepdims=True)


@pytest.mark.parametrize("parameterization", [Direct(), Softmax(0.3, floor=1e-12)])
@pytest.mark.parametrize("discount", [0.8, 1.0])
def test_the_pl_inequality_holds(parameterization, discount):
    rng = np.random.default_rng(7)
    least = 0.0 if isinstance(parameterization, Direct) else 1e-9
    shares = []
    for seed in range(12):
        problem = doomed_problem() if discount == 1.0 else small_problem(2, seed)
        for _ in range(5):
            x = rng.uniform(0.0, 2.0, problem.payments.size)
            policies = drawn_policies(rng, problem.followers.shape, least)
            square, gap = pl_sides(problem, x, policies, parameterization)
            if gap < 1e-9:
                continue
            kappa = pl_constant(problem, x, policies, parameterization)
            shares.append(kappa * gap / square if kappa else 0.0)
            # The printed constant is one for the raw gradient.
            raw = parameterization.gradient(raw_slopes(problem, x, policies), policies)
            printed = pl_constant(problem, x, policies, parameterization, source="paper")
            assert printed * gap <= (raw**2).sum() * (1.0 + 1e-9)
    assert len(shares) > 40
    assert 0.1 < max(shares) <= 1.0 + 1e-9  # and no empty promise


def test_no_pl_constant_holds_everywhere():
    problem, even = example1(), np.full((2, 4, 2), 0.5)
    best = np.eye(2)[[[0, 0, 0, 0], [1, 0, 0, 0]]]
    # At best responses both sides are 0.
    assert pl_constant(problem, 0.0, best) == np.inf
    # Payments that all but make both followers indifferent.
    for m in (1e-1, 1e-3, 1e-5):
        x = [1.0 - m, 2.0 - m]
        square, gap = pl_sides(problem, x, even, Direct())
        assert pl_constant(problem, x, even) * gap == pytest.approx(square)
        assert square / gap == pytest.approx(m)
    # Softmax, nearer and nearer to the best responses.
    tail = [
        pl_constant(problem, 0.0, (1.0 - m) * best + m * even, Softmax(1.0))
        for m in (1e-1, 1e-3, 1e-5)
    ]
    assert tail[0] > 50.0 * tail[1] > 2500.0 * tail[2] > 0.0
    # A follower that never comes where it would have to change.
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1] = transition[0, 1, 2] = 1.0
    transition[1:, :, 2] = 1.0
    mdp = TabularMDP(transition, [[-1.0, 0.0], [5.0, -5.0], [0.0, 0.0]], 0.9, 0)
    lost = IncentiveProblem([mdp], JointReward(np.zeros(3)), Payments.at_states([[1]]), 0.9)
    assert pl_constant(lost, 0.0, np.eye(2)[[[1, 1, 0]]]) == 0.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: smoothness_direct(-0.1, 4), "discount"),
        (lambda: smoothness_direct(0.9, 0), "n_actions"),
        (lambda: smoothness_direct(0.9, 2.5), "n_actions"),
        (lambda: smoothness_direct(0.9, 4, -1.0), "reward_bound"),
        (lambda: smoothness_softmax(0.9, 0.0), "temperature"),
        (lambda: leader_smoothness(0.9, 0, 4), "n: "),
        (lambda: leader_smoothness(0.9, 2, 4, "soft"), "parameterization"),
        (lambda: policy_constants(2, 4, source="book"), "source"),
        (lambda: pl_constant(example1(), 0.0, np.full((2, 4, 2), 0.5), source="book"), "source"),
    ],
)
def test_errors_name_the_argument(call, words):
    with pytest.raises(InputError, match=words):
        call()
