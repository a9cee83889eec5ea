"""Stationarity of a point, computed apart from the method that produced it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fastincentive.errors import invalid
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
    are found by moving each payment a little up and down. Exact best responses stand for V_i*.
    """
    from scipy.optimize import nnls

    if geometry not in ("tangent", "ambient"):
        raise invalid("geometry", '"tangent" or "ambient"', repr(geometry))
    if multiplier not in ("per-follower", "joint"):
        raise invalid("multiplier", '"per-follower" or "joint"', repr(multiplier))
    parameterization = Direct() if parameterization is None else parameterization
    x = problem.payments.check(payments)
    pi = problem.followers.check_policies(policies)
    evaluation = problem.evaluate(x, pi)
    ahead, pulls = _gradients(problem, parameterization, x, pi)
    n = problem.n
    owners = [i for i, each in enumerate(pulls) for _ in each]
    basis = np.stack([pull for each in pulls for pull in each])
    if multiplier == "joint":
        basis = np.sum([each[0] for each in pulls], axis=0)[None]
    cone = _Cone(problem, parameterization, x, pi, geometry)

    # min over lambda >= 0 of |T(f + lambda q)|^2: T is linear on the face that is active, so
    # solve the non-negative least squares of the face and repeat; keep the best point seen.
    weights = np.zeros(len(basis))
    best, best_weights = np.inf, weights
    for _ in range(100):
        direction = ahead + weights @ basis
        projected, face = cone.project(direction)
        size = float(np.linalg.norm(projected))
        if size < best * (1.0 - 1e-12):
            best, best_weights = size, weights
        design = np.stack([face(pull) for pull in basis], axis=1)
        solved = nnls(design, -face(ahead))[0]
        if np.allclose(solved, weights, rtol=1e-12, atol=1e-14):
            break
        # The full step, or the best point on the way: the squared norm is convex in lambda.
        lengths = 2.0 ** -np.arange(0.0, 12.0)
        sizes = [
            float(np.linalg.norm(cone.project(ahead + w @ basis)[0]))
            for w in (weights + t * (solved - weights) for t in lengths)
        ]
        at = int(np.argmin(sizes))
        if sizes[at] >= size * (1.0 - 1e-14):
            break
        weights = weights + lengths[at] * (solved - weights)
    lam = np.zeros(n)
    if multiplier == "joint":
        lam[:] = best_weights[0]
    else:
        np.add.at(lam, owners, best_weights)
    return Stationarity(
        measure=best - evaluation.feasibility,
        residual=best,
        feasibility=evaluation.feasibility,
        multipliers=lam,
    )


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

    def project(self, vector: FloatArray) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
        """Return the projection, and the linear projection on the face it lies in."""
        size = int(np.prod(self._shape))
        rows = vector[:size].reshape(self._shape)
        free = np.ones(self._shape, bool)
        paid = np.ones(vector.size - size, bool)
        if self._tangent:
            change = vector[size:]
            paid = ~((self._low & (change < 0)) | (self._high & (change > 0)))
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
            return np.concatenate([part.reshape(-1), np.where(paid, other[size:], 0.0)])

        return face(vector), face


def _gradients(
    problem: IncentiveProblem,
    parameterization: Parameterization,
    x: FloatArray,
    policies: FloatArray,
) -> tuple[FloatArray, list[list[FloatArray]]]:
    """Grad f, and for each follower the limiting gradients of q_i, as stacked (theta, x)."""
    followers, bound = problem.followers, problem.payments
    n = followers.n
    leader = problem.leader_gradient(policies)
    cost = -problem.cost_weight * problem.cost.gradient(x)
    ahead = np.concatenate([parameterization.gradient(leader, policies).reshape(-1), cost])
    rewards = problem.rewards(x)
    held = followers.evaluate(rewards, policies)
    best = followers.best_responses(rewards)
    own = bound.pull_back_each(held.visits[:, :, None] * policies)
    slope = held.visits[:, :, None] * np.where(followers.available, held.q_values, 0.0)
    in_theta = parameterization.gradient(slope, policies)
    top = followers.start_values(best.values)
    scale = 1.0 + np.abs(best.values).max(axis=1)

    trials = [x]
    nudge = NEAR_KINK * (1.0 + np.abs(x))
    for c in range(bound.reach.shape[1]):
        which = np.unique(bound.reach[:, c][bound.reach[:, c] >= 0])
        for sign in (1.0, -1.0):
            moved = x.copy()
            moved[which] += sign * nudge[which]
            trials.append(moved)
    found: list[list[FloatArray]] = [[] for _ in range(n)]
    for trial in trials:
        answer = followers.best_responses(problem.rewards(trial))
        reply = np.eye(followers.n_actions)[answer.actions]
        here = followers.evaluate(rewards, reply)
        values = followers.start_values(here.values)
        slopes = bound.pull_back_each(here.visits[:, :, None] * reply)
        for i in range(n):
            if top[i] - values[i] > NEAR_KINK * scale[i]:
                continue
            if all(np.abs(slopes[i] - other).max() > 1e-9 for other in found[i]):
                found[i].append(slopes[i])
    # A best response nearest to the policy is a further limiting gradient; it is the policy's
    # own occupancy where the policy is optimal.
    near = followers.start_values(held.values) >= top - NEAR_KINK * scale
    for i in np.flatnonzero(near).tolist():
        if all(np.abs(own[i] - other).max() > 1e-9 for other in found[i]):
            found[i].append(own[i])
    pulls: list[list[FloatArray]] = []
    for i in range(n):
        block = np.zeros(followers.shape)
        block[i] = in_theta[i]
        pulls.append([np.concatenate([block.reshape(-1), own[i] - s]) for s in found[i]])
    return ahead, pulls
