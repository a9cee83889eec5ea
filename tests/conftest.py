"""Seeded generators, hypothesis settings and the one table of tolerances.

The generators return plain arrays, which `reference` and the package read alike.
"""

from __future__ import annotations

import itertools
import signal
from dataclasses import dataclass, is_dataclass

import numpy as np
import reference
from hypothesis import HealthCheck, settings

from fastincentive import IncentiveProblem, JointReward, Payments, TabularMDP

settings.register_profile(
    "fastincentive",
    deadline=None,  # the first example compiles
    derandomize=True,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fastincentive")
# Interrupts arrive, also where the tests were started in the background; children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tolerances, relative to max(1, largest magnitude): see `assert_close`.
#: The same sum in another order; nothing is amplified.
ROUNDING = 1e-13
#: Two direct solves of systems with a condition number up to about 1e4, or sums over time that
#: stop at a certified tail of 1e-12.
EXACT = 1e-10
#: Gauss-Seidel sweeps end at a change of 1e-14 per sweep; with slow mixing the error is up to
#: 1e5 times as large.
SWEEPS = 1e-8
#: Central differences with a step of 1e-6: truncation and cancellation are both near 1e-9.
GRADIENT = 1e-6
#: Standard errors that a Monte Carlo mean may be off: a chance of 6e-5 with a fixed seed.
STANDARD_ERRORS = 4.0


def assert_identical(one, two):
    """Compare nested results bit by bit."""
    if is_dataclass(one):
        one, two = vars(one), vars(two)
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        one, two = list(one.values()), list(two.values())
    if isinstance(one, (list, tuple)):
        assert len(one) == len(two)
        for left, right in zip(one, two, strict=True):
            assert_identical(left, right)
    elif isinstance(one, np.ndarray):
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        assert one.tobytes() == two.tobytes()
    elif isinstance(one, float):
        assert one.hex() == two.hex()
    else:
        assert one == two


def assert_close(actual, expected, tolerance=EXACT, message=""):
    """Compare arrays entry by entry; the error is relative to the largest magnitude, at least 1."""
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    assert actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(actual, expected, rtol=0.0, atol=tolerance * scale, err_msg=message)


@dataclass(frozen=True)
class Arrays:
    """One follower as plain arrays; rows of unavailable actions hold finite rubbish."""

    transition: np.ndarray  # (S, A, S)
    reward: np.ndarray  # (S, A)
    discount: float
    initial: np.ndarray  # (S,)
    available: np.ndarray  # (S, A)

    @property
    def absorbing(self):
        """(S,) bool: the states that count as absorbed at discount 1."""
        return reference.bottom_classes(self.transition, self.available)

    @property
    def sinks(self):
        """(S,) bool: the states that no available action leaves."""
        stays = np.array([self.transition[s, :, s] == 1.0 for s in range(len(self.reward))])
        return np.all(stays | ~self.available, axis=1)

    def mdp(self):
        """Return the same follower as the package's object."""
        return TabularMDP(self.transition, self.reward, self.discount, self.initial, self.available)

    def evaluate(self, policy):
        """Return the reference's V (S,), Q (S, A)."""
        return reference.evaluate_policy(
            self.transition, self.reward, self.discount, policy, self.absorbing
        )

    def occupancy(self, policy):
        """Return the reference's unnormalised occupancy (S, A)."""
        return reference.occupancy_measure(
            self.transition, self.discount, self.initial, policy, self.absorbing
        )

    def best_response(self):
        """Return the reference's policy, V* and Q*."""
        return reference.best_response(self.transition, self.reward, self.discount, self.available)


def random_availability(rng, states, actions, unavailable):
    """Return a mask (S, A) with each action missing with a probability, one always there."""
    mask = rng.random((states, actions)) >= unavailable
    mask[np.arange(states), rng.integers(actions, size=states)] = True
    return mask


def random_arrays(rng, states=6, actions=3, discount=0.9, unavailable=0.0, closed=0, branching=0):
    """Draw one follower; at discount 1 the last states are a closed class without reward.

    Parameters
    ----------
    closed : int
        Size of the closed class (one at least when the discount is 1). Every other state's
        actions lead there with probability of about 0.2, so every policy is absorbed.
    branching : int
        Number of successors; 0 for all states.
    """
    available = random_availability(rng, states, actions, unavailable)
    transition = rng.dirichlet(np.ones(states), size=(states, actions))
    if branching:
        keep = np.argsort(rng.random(transition.shape), axis=2) < branching
        transition = np.where(keep, transition, 0.0)
        transition /= transition.sum(axis=2, keepdims=True)
    reward = rng.normal(size=(states, actions))
    initial = rng.dirichlet(np.ones(states))
    if discount == 1.0:
        closed = max(closed, 1)
    if closed:
        transition *= 0.8
        transition[:, :, -1] += 0.2
        inside = rng.dirichlet(np.ones(closed), size=(closed, actions))
        transition[-closed:] = 0.0
        transition[-closed:, :, -closed:] = inside
        reward[-closed:] = 0.0
    # What is written at actions that do not exist must not matter.
    transition[~available] = rng.random(transition[~available].shape)
    reward[~available] = 99.0
    return Arrays(transition, reward, discount, initial, available)


def random_policy(rng, available, sparse=False):
    """Draw a policy (..., A) on the available actions; `sparse`: deterministic in some states."""
    policy = np.where(available, rng.exponential(size=available.shape), 0.0)
    if sparse:
        top = policy == policy.max(axis=-1, keepdims=True)
        certain = rng.random(available.shape[:-1]) < 0.5
        policy = np.where(certain[..., None] & ~top, 0.0, policy)
    return policy / policy.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class Game:
    """n followers, a leader's table and policies, as plain arrays."""

    followers: list[Arrays]
    table: np.ndarray  # (S,) * n or (S, A) * n
    discount: float
    policies: np.ndarray  # (n, S, A)

    @property
    def available(self):
        """(n, S, A) bool."""
        return np.stack([each.available for each in self.followers])

    def problem(self, payments=None, leader=None, **settings):
        """Return the package's problem; by default follower 0 may be paid in state 0."""
        if payments is None:
            payments = Payments.at_states([[0]] + [[] for _ in self.followers[1:]])
        return IncentiveProblem(
            [each.mdp() for each in self.followers],
            JointReward(self.table) if leader is None else leader,
            payments,
            leader_discount=self.discount,
            **settings,
        )

    def _reference(self, function, policies):
        return function(
            [each.transition for each in self.followers],
            [each.initial for each in self.followers],
            list(self.policies if policies is None else policies),
            self.table,
            self.discount,
            [each.absorbing for each in self.followers],
        )

    def value(self, policies=None):
        """Return the leader's value by an explicit solve on the product space."""
        return self._reference(reference.kron_leader_value, policies)

    def gradient(self, policies=None):
        """Return its derivative (n, S, A) by an explicit solve on the product space."""
        return self._reference(reference.kron_leader_gradient, policies)

    def joint_values(self):
        """Return the leader's value of every joint state (S,) * n by an explicit solve."""
        values = reference._kron_joint_values(
            [each.transition for each in self.followers],
            list(self.policies),
            self.table,
            self.discount,
            [each.absorbing for each in self.followers],
        )
        return values.reshape((len(self.followers[0].initial),) * len(self.followers))

    def occupancy(self):
        """Return the joint occupancy (S,) * n by an explicit solve on the product space."""
        return reference.kron_joint_occupancy(
            [each.transition for each in self.followers],
            [each.initial for each in self.followers],
            list(self.policies),
            self.discount,
            [each.absorbing for each in self.followers],
        )


def random_game(
    rng, n, states, actions, discount=0.9, by_action=False, unavailable=0.25, closed=0, sparse=False
):
    """Draw a game; at leader discount 1 its table is 0 where all followers are absorbed."""
    if discount == 1.0:
        closed = max(closed, 1)
    followers = [
        random_arrays(rng, states, actions, rng.uniform(0.5, 0.95), unavailable, closed)
        for _ in range(n)
    ]
    table = rng.normal(size=(states, actions) * n if by_action else (states,) * n)
    if closed:
        for joint in itertools.product(range(states - closed, states), repeat=n):
            index = tuple(itertools.chain.from_iterable((s, slice(None)) for s in joint))
            table[index if by_action else joint] = 0.0
    policies = np.stack([random_policy(rng, each.available, sparse) for each in followers])
    return Game(followers, table, discount, policies)
