"""Stationarity of a point, computed apart from the method that produced it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fastincentive.errors import InputError, invalid
from fastincentive.kernels import simplex
from fastincentive.mdp import FloatArray
from fastincentive.policy import Direct, Parameterization
from fastincentive.problem import IncentiveProblem

__all__ = ["Stationarity", "stationarity"]

#: Probabilities and payments this near to a bound count as at it.
NEAR_BOUND = 1e-5
#: Best responses to payments this near, or worth this little less, give limiting gradients of q.
NEAR_KINK = 1e-4


@dataclass(frozen=True)
class Stationarity:
    """The measure K of Definition 1 at a point, and what it is made of.

    Attributes
    ----------
    measure : float
        K = min over lambda >= 0 of |T (grad f + lambda grad q)| - q.
    residual : float
        The norm at the minimum.
    feasibility : float
        q.
    multipliers : array (n,)
        The minimising lambda_i (all equal for the joint multiplier).
    """

    measure: float
    residual: float
    feasibility: float
    multipliers: FloatArray


def stationarity(
    problem: IncentiveProblem,
    payments: ArrayLike,
    policies: ArrayLike,
    parameterization: Parameterization | None = None,
    geometry: str = "tangent",
    multiplier: str = "per-follower",
) -> Stationarity:
    """Measure K of Definition 1 (Liu et al., 2022), projected on the tangent cone by default.

    Parameters
    ----------
    problem : IncentiveProblem
    payments : float or array (k,)
    policies : array (n, S, A)
    parameterization : Direct or Softmax
        In whose parameters gradients and norm are taken.
    geometry : "tangent" or "ambient"
        Whether the direction is projected on the tangent cone of the feasible set (the policies'
        simplices and the payments' bounds), or raw as in the paper's text, where it does not
        vanish at a solution.
    multiplier : "per-follower" or "joint"

    Notes
    -----
    At payments where a follower is indifferent V_i* has a kink and grad_x q jumps; there the
    minimum runs over the limiting gradients as well (each with a multiplier of its own), which
    are found by moving payments a little, up, down, and where the residual points. Exact best
    responses stand for V_i*.
    """
    if geometry not in ("tangent", "ambient"):
        raise invalid("geometry", '"tangent" or "ambient"', repr(geometry))
    if multiplier not in ("per-follower", "joint"):
        raise invalid("multiplier", '"per-follower" or "joint"', repr(multiplier))
    parameterization = Direct() if parameterization is None else parameterization
    x = problem.payments.check(payments)
    pi = problem.followers.check_policies(policies)
    evaluation = problem.evaluate(x, pi)
    limits = _Limits(problem, parameterization, x, pi)
    cone = _Cone(problem, parameterization, x, pi, geometry)
    if multiplier == "joint":
        # The paper's single lambda, at the best responses to the payments themselves.
        basis = np.sum([pulls[0] for pulls in limits.pulls()], axis=0)[None]
        residual, weights, _ = _minimise(cone, limits.ahead, basis)
        multipliers = np.full(problem.n, weights[0])
    else:
        # Where the payments still want to move, look for the response that forbids it.
        for _ in range(20):
            pulls = limits.pulls()
            basis = np.stack([pull for each in pulls for pull in each])
            residual, weights, rest = _minimise(cone, limits.ahead, basis)
            wish = rest[-x.size :]
            if not wish.any() or not limits.look(
                x + limits.nudge.min() * wish / np.abs(wish).max()
            ):
                break
        multipliers = np.zeros(problem.n)
        np.add.at(multipliers, [i for i, each in enumerate(pulls) for _ in each], weights)
    return Stationarity(
        measure=residual - evaluation.feasibility,
        residual=residual,
        feasibility=evaluation.feasibility,
        multipliers=multipliers,
    )


def _minimise(
    cone: _Cone, ahead: FloatArray, basis: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """Minimise |T (ahead + lambda basis)| over lambda >= 0: the norm, lambda, and the vector.

    T is linear on the face that is active, so the non-negative least squares of the face is
    solved and the step to it taken as far as it helps (the squared norm is convex in lambda).
    """
    from scipy.optimize import nnls

    def at(weights: FloatArray) -> float:
        return float(np.linalg.norm(cone.project(ahead + weights @ basis)[0]))

    weights = np.zeros(len(basis))
    for _ in range(100):
        projected, face = cone.project(ahead + weights @ basis)
        design = np.stack([face(pull) for pull in basis], axis=1)
        change = nnls(design, -face(ahead))[0] - weights
        # The norm is convex along the step: halve it as long as that helps.
        length, size = 1.0, at(weights + change)
        for _ in range(11):
            shorter = at(weights + 0.5 * length * change)
            if shorter >= size:
                break
            length, size = 0.5 * length, shorter
        if size >= float(np.linalg.norm(projected)) * (1.0 - 1e-12):
            break
        weights = weights + length * change
    projected, _ = cone.project(ahead + weights @ basis)
    return float(np.linalg.norm(projected)), weights, projected


class _Cone:
    """Projection on the tangent cone of policies and payments, stacked into one vector."""

    def __init__(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        x: FloatArray,
        policies: FloatArray,
        geometry: str,
    ) -> None:
        self._tangent = geometry == "tangent"
        self._rows = isinstance(parameterization, Direct)
        self._shape = policies.shape
        self._available = problem.followers.available
        self._at_zero = (policies <= NEAR_BOUND) & self._available
        bound = problem.payments
        near = NEAR_BOUND * (1.0 + np.abs(x))
        self._low = x <= bound.lower + near
        self._high = x >= bound.upper - near
        self._slope = bound.budget_slope(x)
        self._spent = bound.budget is not None and bound.budget_use(x) >= (
            bound.budget - NEAR_BOUND * (1.0 + bound.budget)
        )

    def project(self, vector: FloatArray) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
        """Return the projection, and the linear projection on the face it lies in."""
        size = int(np.prod(self._shape))
        rows = vector[:size].reshape(self._shape)
        free = np.ones(self._shape, bool)
        paid = np.ones(vector.size - size, bool)
        level = False
        if self._tangent:
            change = vector[size:]
            paid = ~((self._low & (change < 0)) | (self._high & (change > 0)))
            if self._spent and change[paid] @ self._slope[paid] > 0.0:
                # The budget binds: the change costs nothing, on those that may still move.
                level = True
                reach = float(np.linalg.norm(change))
                moved = np.empty(change.size)
                simplex.project_budget(
                    change,
                    np.where(self._low, 0.0, -reach),
                    np.where(self._high, 0.0, reach),
                    self._slope,
                    0.0,
                    moved,
                )
                paid = (moved != 0.0) | ~(self._low | self._high)
            if self._rows:
                free = self._available.copy()
                for _ in range(self._shape[2]):
                    mean = np.where(free, rows, 0.0).sum(axis=2, keepdims=True)
                    mean = mean / free.sum(axis=2, keepdims=True)
                    drop = free & self._at_zero & (rows < mean)
                    if not drop.any():
                        break
                    free &= ~drop

        def face(other: FloatArray) -> FloatArray:
            part = other[:size].reshape(self._shape)
            if self._tangent and self._rows:
                mean = np.where(free, part, 0.0).sum(axis=2, keepdims=True)
                part = np.where(free, part - mean / free.sum(axis=2, keepdims=True), 0.0)
            along = other[size:]
            if level:
                slope = np.where(paid, self._slope, 0.0)
                along = along - slope * (slope @ along) / max(float(slope @ slope), 1e-300)
            return np.concatenate([part.reshape(-1), np.where(paid, along, 0.0)])

        return face(vector), face


class _Limits:
    """Grad f, and the limiting gradients of each q_i that have been found, stacked (theta, x)."""

    def __init__(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        x: FloatArray,
        policies: FloatArray,
    ) -> None:
        followers, bound = problem.followers, problem.payments
        self._problem = problem
        self._rewards = problem.rewards(x)
        held = followers.evaluate(self._rewards, policies)
        best = followers.best_responses(self._rewards)
        self._own = bound.pull_back_each(held.visits[:, :, None] * policies)
        self._top = followers.start_values(best.values)
        self._scale = 1.0 + np.abs(best.values).max(axis=1)
        slope = held.visits[:, :, None] * np.where(followers.available, held.q_values, 0.0)
        self._in_theta = parameterization.gradient(slope, policies)
        in_payments, in_policies = problem.cost_gradient(x, policies)
        ahead = problem.leader_gradient(policies)
        if in_policies is not None:
            ahead = ahead - problem.cost_weight * in_policies
        in_theta = parameterization.gradient(ahead, policies)
        self.ahead = np.concatenate([in_theta.reshape(-1), -problem.cost_weight * in_payments])
        #: How far to move each payment to see the other side of a kink.
        self.nudge = NEAR_KINK * (1.0 + np.abs(x))
        self._found: list[list[FloatArray]] = [[] for _ in range(followers.n)]
        self.look(x)
        # The policy's own occupancy is a limiting gradient where the policy is optimal.
        self._add(self._own, followers.start_values(held.values))
        for column in bound.reach.T:
            which = np.unique(column[column >= 0])
            for sign in (1.0, -1.0):
                moved = x.copy()
                moved[which] += sign * self.nudge[which]
                self.look(moved)

    def look(self, payments: FloatArray) -> bool:
        """Add what best responses to these payments show; whether anything was new."""
        followers = self._problem.followers
        try:
            answer = followers.best_responses(self._problem.rewards(payments))
        except InputError:
            # At discount 1 such payments would be earned for ever: the kink is not there.
            return False
        reply = np.eye(followers.n_actions)[answer.actions]
        here = followers.evaluate(self._rewards, reply)
        slopes = self._problem.payments.pull_back_each(here.visits[:, :, None] * reply)
        return self._add(slopes, followers.start_values(here.values))

    def _add(self, slopes: FloatArray, values: FloatArray) -> bool:
        new = False
        near = self._top - values <= NEAR_KINK * self._scale
        for i in np.flatnonzero(near).tolist():
            if all(np.abs(slopes[i] - other).max() > 1e-9 for other in self._found[i]):
                self._found[i].append(slopes[i])
                new = True
        return new

    def pulls(self) -> list[list[FloatArray]]:
        """Limiting gradients of q_i, follower by follower."""
        result = []
        for i, slopes in enumerate(self._found):
            block = np.zeros(self._in_theta.shape)
            block[i] = self._in_theta[i]
            row = block.reshape(-1)
            result.append([np.concatenate([row, self._own[i] - slope]) for slope in slopes])
        return result
