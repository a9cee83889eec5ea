"""Stationarity of a point, computed apart from the method that produced it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive.errors import InputError, invalid
from fastincentive.followers.parameterization import Direct, Parameterization
from fastincentive.kernels import simplex
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["Stationarity", "stationarity"]

#: Probabilities and payments this near to a bound count as at it.
NEAR_BOUND = 1e-5
#: A budget on what is paid out is used up but for this share of it.
NEAR_BUDGET = 1e-3
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


@checked
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
    evaluation = problem.evaluate(x, pi, unbounded=True)
    limits = _Limits(problem, parameterization, x, pi)
    cone = _Cone(problem, parameterization, x, pi, geometry)
    everybody, every = np.arange(problem.n), np.arange(x.size)
    multipliers = np.zeros(problem.n)
    if multiplier == "joint":
        # The paper's single lambda, at the best responses to the payments themselves.
        basis = np.zeros((1, pi.size + x.size))
        for i in range(problem.n):
            basis[0] += limits.basis([i], every, everybody)[0][0]
        residual, weights, _ = _minimise(cone, limits.objective_gradient(everybody, every), basis)
        multipliers[:] = weights[0]
    else:
        # Followers without a common payment or budget are judged apart.
        parts = [(everybody, every)]
        used_up = limits.uses_up_budget(evaluation.cost)
        if not (cone.spent or used_up):
            parts = [(group, problem.payments.reaching(group)) for group in problem.payments.groups]
            parts.append((everybody[:0], np.setdiff1d(every, problem.payments.owned)))
        norms = np.zeros(len(parts))
        wish = np.zeros(x.size)
        new = np.ones(problem.n, bool)
        # Where the payments still want to move, look for the response that forbids it.
        for _ in range(20):
            for k, (group, variables) in enumerate(parts):
                if new[group].any() or not group.size:
                    basis, owner = limits.basis(group, variables, group)
                    if used_up:
                        # The budget on what is paid out has a multiplier of its own.
                        basis = np.concatenate([basis, limits.saving[None]])
                    gradient = limits.objective_gradient(group, variables)
                    norms[k], weights, rest = _minimise(
                        cone.part(group, variables), gradient, basis
                    )
                    wish[variables] = rest[rest.size - variables.size :]
                    multipliers[group] = 0.0
                    np.add.at(multipliers, owner, weights[: owner.size])
            if not wish.any():
                break
            new = limits.look(x + limits.nudge.min() * wish / np.abs(wish).max())
            if not new.any():
                break
        residual = float(np.linalg.norm(norms))
    return Stationarity(
        measure=residual - evaluation.feasibility,
        residual=residual,
        feasibility=evaluation.feasibility,
        multipliers=multipliers,
    )


def _minimise(
    cone: _Cone, gradient: FloatArray, basis: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """Minimise |T (gradient + lambda basis)| over lambda >= 0: the norm, lambda, and the vector.

    T is linear on the face that is active, so the non-negative least squares of the face is
    solved and the step to it taken as far as it helps (the squared norm is convex in lambda).
    """
    from scipy.optimize import nnls

    def at(weights: FloatArray) -> float:
        return float(np.linalg.norm(cone.project(gradient + weights @ basis)[0]))

    weights = np.zeros(len(basis))
    for _ in range(100 if len(basis) else 0):
        projected, face = cone.project(gradient + weights @ basis)
        design = np.stack([face(pull) for pull in basis], axis=1)
        change = nnls(*_reduced(design, -face(gradient), cone.row_size))[0] - weights
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
    projected, _ = cone.project(gradient + weights @ basis)
    return float(np.linalg.norm(projected)), weights, projected


def _reduced(design: FloatArray, target: FloatArray, size: int) -> tuple[FloatArray, FloatArray]:
    """Return a smaller least squares problem of the same solution.

    Few columns reach the ``size`` entries of one follower: an orthogonal change of these entries
    leaves no more of them than that.
    """
    kept: list[FloatArray] = []
    end = design.shape[0] // size * size
    for first in range(0, end, size):
        rows = slice(first, first + size)
        columns = np.flatnonzero(design[rows].any(axis=0))
        block = np.column_stack([design[rows, columns], target[rows]])
        if size > columns.size + 1:
            block = np.asarray(np.linalg.qr(block, mode="r"))
        whole = np.zeros((len(block), design.shape[1] + 1))
        whole[:, columns], whole[:, -1] = block[:, :-1], block[:, -1]
        kept.append(whole)
    both = np.concatenate([*kept, np.column_stack([design[end:], target[end:]])])
    return both[:, :-1], both[:, -1]


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
        #: Entries of each follower's policy.
        self.row_size = policies[0].size
        self._available = problem.followers.available
        self._at_zero = (policies <= NEAR_BOUND) & self._available
        payments = problem.payments
        near = NEAR_BOUND * (1.0 + np.abs(x))
        self._low = x <= payments.lower + near
        self._high = x >= payments.upper - near
        self._slope = payments.budget_slope(x)
        #: Whether the budget binds.
        self.spent = payments.budget is not None and payments.budget_use(x) >= (
            payments.budget - NEAR_BOUND * (1.0 + payments.budget)
        )

    def part(self, group: NDArray[np.int64], variables: NDArray[np.int64]) -> _Cone:
        """Return the cone of some followers' policies and some payments."""
        other = copy(self)
        other._shape = (group.size, *self._shape[1:])
        other._available, other._at_zero = self._available[group], self._at_zero[group]
        other._low, other._high = self._low[variables], self._high[variables]
        other._slope = self._slope[variables]
        return other

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
            if self.spent and change[paid] @ self._slope[paid] > 0.0:
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
    """Grad f, and the limiting gradients of each q_i that have been found, stacked (theta, x).

    Those by the payments are kept as (K,), in the order of ``reach``.
    """

    def __init__(
        self,
        problem: IncentiveProblem,
        parameterization: Parameterization,
        x: FloatArray,
        policies: FloatArray,
    ) -> None:
        followers, payments = problem.followers, problem.payments
        self._problem = problem
        self._rewards = problem.rewards(x)
        evaluated = followers.evaluate(self._rewards, policies, checked=True)
        best = followers.best_responses(self._rewards)
        self._own = payments.compress(evaluated.visits[:, :, None] * policies)
        self._top = followers.start_values(best.values)
        self._scale = 1.0 + np.abs(best.values).max(axis=1)
        slope = evaluated.visits[:, :, None] * np.where(
            followers.available, evaluated.q_values, 0.0
        )
        self._in_theta = parameterization.gradient(slope, policies)
        in_payments, in_policies = problem.cost_gradient(x, policies)
        # At discount 1 an iterate may earn for ever: of that a finite time is counted.
        objective_gradient = problem.leader_side.leader_pass(policies, warn=True).gradient
        assert objective_gradient is not None  # for the type checker
        #: - grad C, where C depends on the policies.
        self.saving = np.empty(0)
        if in_policies is not None:
            in_theta = parameterization.gradient(in_policies, policies)
            self.saving = -np.concatenate([in_theta.reshape(-1), in_payments])
            objective_gradient = objective_gradient - problem.cost_weight * in_policies
        self._objective_gradient = parameterization.gradient(objective_gradient, policies)
        self._price = -problem.cost_weight * in_payments
        #: How far to move each payment to see the other side of a kink.
        self.nudge = NEAR_KINK * (1.0 + np.abs(x))
        self._found: list[list[FloatArray]] = [[] for _ in range(followers.n)]
        self.look(x)
        # The policy's own occupancy is a limiting gradient where the policy is optimal.
        self._add(self._own, followers.start_values(evaluated.values))
        for column in payments.reach.T:
            which = np.unique(column[column >= 0])
            for sign in (1.0, -1.0):
                moved = x.copy()
                moved[which] += sign * self.nudge[which]
                self.look(moved)

    def uses_up_budget(self, cost: float) -> bool:
        """Whether what is paid out comes near its budget."""
        budget = self._problem.budget
        return bool(
            self.saving.size and budget is not None and cost >= (1.0 - NEAR_BUDGET) * budget
        )

    def look(self, payments: FloatArray) -> NDArray[np.bool_]:
        """Add what best responses to these payments show; (n,) bool for whom it was new."""
        followers = self._problem.followers
        try:
            answer = followers.best_responses(self._problem.rewards(payments))
        except InputError:
            # At discount 1 such payments would be earned for ever: the kink is not there.
            return np.zeros(followers.n, bool)
        reply = followers.deterministic_policies(answer.actions)
        here = followers.evaluate(self._rewards, reply, checked=True)
        slopes = self._problem.payments.compress(here.visits[:, :, None] * reply)
        return self._add(slopes, followers.start_values(here.values))

    def _add(self, slopes: FloatArray, values: FloatArray) -> NDArray[np.bool_]:
        new = np.zeros(values.size, bool)
        near = self._top - values <= NEAR_KINK * self._scale
        for i in np.flatnonzero(near).tolist():
            if all(np.abs(slopes[i] - other).max() > 1e-9 for other in self._found[i]):
                self._found[i].append(slopes[i])
                new[i] = True
        return new

    def objective_gradient(
        self, group: NDArray[np.int64], variables: NDArray[np.int64]
    ) -> FloatArray:
        """Grad f by the policies of some followers and some payments."""
        return np.concatenate([self._objective_gradient[group].reshape(-1), self._price[variables]])

    def basis(
        self,
        which: Sequence[int] | NDArray[np.int64],
        variables: NDArray[np.int64],
        group: NDArray[np.int64],
    ) -> tuple[FloatArray, NDArray[np.int64]]:
        """Limiting gradients of the q_i of ``which``, and the follower of each."""
        payments = self._problem.payments
        size = self._in_theta[0].size
        owner = np.array([i for i in which for _ in self._found[i]], np.int64)
        out = np.zeros((owner.size, group.size * size + variables.size))
        place = np.searchsorted(group, owner)
        slopes = [slope for i in which for slope in self._found[i]]
        for row, i, k, slope in zip(out, owner, place, slopes, strict=True):
            row[k * size : (k + 1) * size] = self._in_theta[i].reshape(-1)
            paid = payments.reach[i] >= 0
            columns = np.searchsorted(variables, payments.reach[i, paid])
            row[group.size * size + columns] = (self._own[i] - slope)[paid]
        return out, owner
