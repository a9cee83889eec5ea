"""Drawing lots between tied actions: the leader's value, climbed over the mixtures at one point.

The probabilities of tied actions in the states that these lead to are free; of each state's one
follows from the others. Sequential quadratic programming moves them, with the exact gradients of
the leader's value and, under a budget on what is spent, of the cost.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.kernels.packed import TIE
from fastincentive.problem.costs import ExpectedSpend
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.regimes import alike

__all__ = ["Mixture", "climbed_mixture", "net_of_mixture", "tied_actions", "without_specks"]

#: More free probabilities than this are left alone.
MOST_FREE = 64
MOST_STEPS = 40
#: Probabilities below this are rounding, where nothing is lost without them.
SPECK = 1e-7


class Mixture(NamedTuple):
    """Payments and best responses to them that may draw lots."""

    payments: FloatArray  # (k,)
    policies: FloatArray  # (n, S, A)
    objective: float


def tied_actions(
    problem: IncentiveProblem, payments: FloatArray, policies: FloatArray
) -> NDArray[np.bool_]:
    """(n, S, A) bool: optimal actions in states that tied actions can lead to, else the policy.

    Of actions that make no difference, to anyone, one stands for all.
    """
    followers = problem.followers
    rewards = problem.rewards(payments)
    tied = problem.optimal_actions(payments, followers.best_responses(rewards)).tied
    equals = alike(followers, problem.payments.index, problem.leader.labels)
    i, s, a = np.nonzero(policies > 0.0)
    taken = np.zeros(tied.shape, bool)
    taken[i, s, equals[i, s, a]] = True
    tied &= (equals == np.arange(followers.n_actions)) & ~taken
    tied |= policies > 0.0
    return np.where(followers.reached(tied)[:, :, None], tied, policies > 0.0)


def net_of_mixture(problem: IncentiveProblem, payments: FloatArray, policies: FloatArray) -> float:
    """V - w C, -inf beyond the budget and for what is no best response in floating point.

    At discount 1 tied actions can make a follower wait for ever, or so long that its value is lost.
    """
    cost = problem.cost_pass(payments, policies, gradient=False).value
    rewards = problem.rewards(payments)
    if not (problem.affords(cost) and problem.followers.is_proper(policies, rewards)):
        return -np.inf
    best = problem.followers.best_responses(rewards)
    values = problem.followers.evaluate(rewards, policies, checked=True).values
    gap = problem.followers.start_values(best.values) - problem.followers.start_values(values)
    if (np.abs(gap) > 100.0 * TIE * problem.followers.units(best)).any():
        return -np.inf
    return problem.net(problem.leader_pass(policies, gradient=False).value, cost)


def climbed_mixture(
    problem: IncentiveProblem,
    payments: FloatArray,
    tied: NDArray[np.bool_],
    start: FloatArray,
) -> Mixture:
    """Climb from policies ``start`` (n, S, A) over the mixtures of tied actions (n, S, A).

    A local search. The start may exceed the budget; the objective is -inf if all that was met does.
    """
    value = net_of_mixture(problem, payments, start)
    slope = _Slope(problem, payments, tied, start)
    if not 0 < slope.size <= MOST_FREE:
        return Mixture(payments, start, value)
    from scipy.optimize import minimize

    options: Any = {"maxiter": MOST_STEPS, "ftol": 1e-12}
    limits: list[Any] = []
    if slope.budget < np.inf:
        limits.append({"type": "ineq", "fun": slope.room, "jac": slope.room_slope})
    full = slope.sums[slope.sums.sum(axis=1) > 1]
    if len(full):
        limits.append({"type": "ineq", "fun": lambda z: 1.0 - full @ z, "jac": lambda z: -full})
    minimize(
        slope.loss,
        slope.start,
        jac=slope.loss_slope,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * slope.size,
        constraints=limits,
        options=options,
    )
    found = without_specks(problem, Mixture(payments, *slope.best))
    return found if found.objective > value else Mixture(payments, start, value)


def without_specks(problem: IncentiveProblem, mixture: Mixture) -> Mixture:
    """Leave out probabilities that are rounding, if what is left is as good a best response."""
    kept = np.where(mixture.policies > SPECK, mixture.policies, 0.0)
    kept /= kept.sum(axis=2, keepdims=True)
    value = net_of_mixture(problem, mixture.payments, kept)
    least = mixture.objective - 1e-12 * max(1.0, abs(mixture.objective))
    # What was met on the way was not verified as a best response.
    if value >= least:
        return Mixture(mixture.payments, kept, value)
    value = net_of_mixture(problem, mixture.payments, mixture.policies)
    return Mixture(mixture.payments, mixture.policies, value)


class _Point(NamedTuple):
    z: FloatArray
    value: float  # V - w C
    cost: float
    slope: FloatArray
    cost_slope: FloatArray


class _Slope:
    """V - w C and its derivatives in the free probabilities."""

    def __init__(
        self,
        problem: IncentiveProblem,
        payments: FloatArray,
        tied: NDArray[np.bool_],
        start: FloatArray,
    ) -> None:
        self._problem, self._payments = problem, payments
        several = tied.sum(axis=2) > 1
        self._base = start.copy()
        self._base[several] = 0.0
        # The likeliest action of a state is the one that follows from the others.
        likeliest = np.where(tied, start, -1.0).argmax(axis=2)
        free = tied & several[:, :, None]
        np.put_along_axis(free, likeliest[:, :, None], False, axis=2)
        self._free = np.nonzero(free)
        i, s, _ = self._free
        self._rest = (i, s, likeliest[i, s])
        self.size = i.size
        states, group = np.unique(np.column_stack([i, s]), axis=0, return_inverse=True)
        #: (groups, size) 1 where a probability belongs to a state.
        self.sums = np.zeros((len(states), self.size))
        self.sums[group.reshape(-1), np.arange(self.size)] = 1.0
        self.start = start[self._free]
        spends = isinstance(problem.cost, ExpectedSpend) and problem.budget is not None
        self.budget = float(problem.budget) if spends and problem.budget is not None else np.inf
        self._scale = 1.0
        self._last: _Point | None = None
        #: The best policies met within the budget, and their V - w C.
        self.best: tuple[FloatArray, float] = (start, -np.inf)

    def _policies(self, z: FloatArray) -> FloatArray:
        z = np.clip(z, 0.0, 1.0)
        total = self.sums @ z
        z = z / (self.sums.T @ np.maximum(total, 1.0))
        policies = self._base.copy()
        policies[self._free] = z
        policies[self._rest] = 1.0 - self.sums.T @ np.minimum(total, 1.0)
        return policies

    def _at(self, z: FloatArray) -> _Point:
        if self._last is not None and np.array_equal(self._last.z, z):
            return self._last
        problem = self._problem
        policies = self._policies(z)
        none = np.zeros(self.size)
        point = _Point(z.copy(), -1e6 * self._scale, 0.0, none, none)
        rewards = problem.rewards(self._payments)
        if not problem.undiscounted or problem.followers.is_proper(policies, rewards):
            leader = problem.leader_pass(policies)
            cost = problem.cost_pass(self._payments, policies)
            assert leader.gradient is not None  # for the type checker
            if np.isfinite(cost.value) or problem.cost_weight == 0.0:
                slope = self._pulled(leader.gradient)
                spent = none if cost.policies is None else self._pulled(cost.policies)
                value = problem.net(leader.value, cost.value)
                slope = slope - problem.cost_weight * spent
                point = _Point(z.copy(), value, cost.value, slope, spent)
                if problem.affords(cost.value) and value > self.best[1]:
                    self.best = (policies, value)
        if self._last is None:
            self._scale = max(float(np.abs(point.slope).max()), 1e-3 * abs(point.value), 1e-9)
        self._last = point
        return point

    def _pulled(self, gradient: FloatArray) -> FloatArray:
        return np.asarray(gradient[self._free] - gradient[self._rest])

    def loss(self, z: FloatArray) -> float:
        return -self._at(z).value / self._scale

    def loss_slope(self, z: FloatArray) -> FloatArray:
        return -self._at(z).slope / self._scale

    def room(self, z: FloatArray) -> FloatArray:
        return np.array([(self.budget - self._at(z).cost) / max(self.budget, 1e-9)])

    def room_slope(self, z: FloatArray) -> FloatArray:
        return -self._at(z).cost_slope[None] / max(self.budget, 1e-9)
