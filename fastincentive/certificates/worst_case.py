"""The leader's worst case over everything that is nearly a best response."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._highs import linprog
from fastincentive.certificates.bounds import MIXTURES, label_masks, reference_labels
from fastincentive.certificates.joint_control import (
    Control,
    Losses,
    affordable,
    find_losses,
    lasting_pairs,
)
from fastincentive.errors import InputError, invalid
from fastincentive.kernels.packed import TIE
from fastincentive.problem.costs import ExpectedSpend
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["WorstCase", "worst_near_response"]

BoolArray = NDArray[np.bool_]

#: The dual of one follower is maximised to this relative gap,
GAP = 1e-10
#: that of two, which is a bound only, to this one,
PAIR_GAP = 1e-6
#: both with at most so many evaluations.
EVALUATIONS = 80


@dataclass(frozen=True)
class WorstCase:
    """What the leader is left with if the followers answer as badly as they may.

    Attributes
    ----------
    leader_value : float
        The least value of the leader, or a lower bound on it; -inf if it can lose for ever.
    objective : float
        ``leader_value`` - w C(payments).
    exact : bool
        Whether ``leader_value`` is known to be the least value, not only a lower bound.
    epsilon : array (n,)
        What the followers may give up.
    multipliers : array (n,)
        The rate at which ``leader_value`` falls with epsilon, follower by follower; 0 where
        epsilon is no restriction, nan where it is 0.
    """

    leader_value: float
    objective: float
    exact: bool
    epsilon: FloatArray
    multipliers: FloatArray


@checked
def worst_near_response(
    problem: IncentiveProblem, payments: ArrayLike, epsilon: ArrayLike
) -> WorstCase:
    """Find the leader's worst case over responses that are optimal up to epsilon.

    Every follower may choose any policy, randomised or dependent on its history, that is worth at
    least V_i* - epsilon_i to it at these payments. At epsilon 0 these are the best responses,
    ties broken against the leader.

    Parameters
    ----------
    problem : IncentiveProblem
    payments : float or array (k,)
    epsilon : float or array (n,)
        In units of the followers' discounted total reward, >= 0.

    Returns
    -------
    WorstCase
        Exact for one follower, and for rewards that add up over the followers
        (``AdditiveReward`` and sums of such); otherwise a lower bound. A lower bound as well where
        discounts near 1 leave too many steps to count.

    Raises
    ------
    InputError
        If payments or epsilon are not as described, or the cost is ``ExpectedSpend``, which
        depends on the responses too.

    Notes
    -----
    Minimising the leader's value under a bound on a follower's value is a constrained MDP. Over
    history-dependent policies the pairs of values that can be had form a convex set, so the
    Lagrangian dual is exact [1]_: maximise over lambda >= 0 the least value of
    V + lambda (V_i* - V_i - epsilon_i), found by dynamic programming although the discounts
    differ; the dual is concave and piecewise linear, and is maximised by cutting planes [2]_.

    Where the leader's reward does not add up, two followers are moved by one controller that sees
    both, and more are bounded by a sum over followers that is never above the reward.

    At discount 1 the result is a lower bound where policies may avoid absorption for ever.

    References
    ----------
    .. [1] E. Altman, Constrained Markov Decision Processes, Chapman & Hall/CRC, 1999.
    .. [2] J. E. Kelley, "The cutting-plane method for solving convex programs", Journal of the
       Society for Industrial and Applied Mathematics 8, 1960.

    Examples
    --------
    >>> import fastincentive as fi
    >>> problem = fi.models.example1()
    >>> near = fi.worst_near_response(problem, [0.5, 0.5], 0.1)
    >>> near.leader_value <= fi.worst_near_response(problem, [0.5, 0.5], 0.0).leader_value
    True
    """
    problem.refuse_types("worst_near_response")
    x = problem.payments.check(payments)
    if isinstance(problem.cost, ExpectedSpend):
        raise InputError(
            "cost: expected a cost of the payments alone, got ExpectedSpend, which depends on the "
            "responses too"
        )
    slack = np.array(epsilon, float)
    if slack.ndim == 0:
        slack = np.full(problem.n, float(slack))
    if slack.shape != (problem.n,):
        raise invalid("epsilon", f"a number or shape ({problem.n},)", slack.shape)
    if not ((slack >= 0) & np.isfinite(slack)).all():
        raise invalid("epsilon", "finite numbers >= 0", slack)
    task = _Task(problem, find_losses(problem, x), slack)
    own = problem.leader.additive_parts()
    if own is not None:
        value, multipliers, closed = task.separate(own)
        exact = closed and task.settled(own)
    elif affordable(problem):
        value, multipliers, _ = task.joint()
        exact = False
    else:
        value, multipliers = task.minorants()
        exact = False
    return WorstCase(
        leader_value=value,
        objective=problem.net(value, problem.cost_pass(x, np.empty(0), gradient=False).value),
        exact=exact,
        epsilon=slack,
        multipliers=np.where(task.strict, np.nan, multipliers),
    )


class _Task:
    """The followers' losses and what they may do at given payments."""

    def __init__(self, problem: IncentiveProblem, losses: Losses, slack: FloatArray) -> None:
        self._problem = problem
        self._losses = losses
        self._slack = slack
        #: Followers without slack, up to rounding: they take optimal actions only.
        self.strict = slack <= 20.0 * TIE * losses.unit
        self._allowed = np.where(
            self.strict[:, None, None], losses.tied, problem.followers.available
        )

    def joint(self) -> tuple[float, FloatArray, bool]:
        """Two followers, moved by one controller."""
        return self._least_value(range(2), -self._problem.leader.label_table())

    def separate(self, own: FloatArray) -> tuple[float, FloatArray, bool]:
        """Rewards (n, L) that add up; the last says whether all the gaps were closed."""
        found = [self._least_value([i], -rewards[:, None]) for i, rewards in enumerate(own)]
        values, multipliers, closed = zip(*found, strict=True)
        return float(sum(values)), np.concatenate(multipliers), all(closed)

    def minorants(self) -> tuple[float, FloatArray]:
        """Take the best of several sums over followers that are never above the reward."""
        problem = self._problem
        possible, lasting = label_masks(problem, self._allowed)
        best, multipliers = -np.inf, np.zeros(problem.n)
        for share in MIXTURES:
            reference = reference_labels(problem, self._losses.actions, possible, share)
            own = problem.leader.majorant(-1.0, possible, lasting, reference)
            if own is not None:
                value, rates, _ = self.separate(-own)
                if value > best:
                    best, multipliers = value, rates
        return best, multipliers

    def settled(self, own: FloatArray) -> bool:
        """Whether the dynamic programme at discount 1 finds what policies can attain.

        It does where all are absorbed, and for the leader where no reward is negative.
        """
        if self._problem.leader_discount == 1.0 and own[self._absorbed()].any():
            return False
        followers = self._problem.followers
        packed = followers.packed
        for i in range(followers.n):
            patient = packed.discount[i] == 1.0
            if not patient and (self._problem.leader_discount < 1.0 or own.min() >= 0.0):
                continue
            lasting = lasting_pairs(followers, i, self._allowed[i]).any(axis=1)
            if (lasting & ~packed.absorbing[packed.model[i]]).any():
                return False
        return True

    def _absorbed(self) -> BoolArray:
        packed = self._problem.followers.packed
        return self._problem.leader_side.label_mask(packed.absorbing[packed.model])

    def _control(self, which: list[int], table: FloatArray, allowed: BoolArray) -> Control:
        problem = self._problem
        return Control(
            problem.followers,
            which,
            problem.leader.labels,
            table,
            problem.leader_discount,
            self._losses.loss,
            allowed,
        )

    def _least_value(
        self, which: range | list[int], table: FloatArray
    ) -> tuple[float, FloatArray, bool]:
        """Least value of followers ``which``: a lower bound, multipliers, whether it is exact.

        ``table`` is minus what the leader earns.
        """
        numbers = list(which)
        control = self._control(numbers, table, self._allowed)
        free = np.flatnonzero(~self.strict[numbers])
        slack = self._slack[numbers][free]
        multipliers = np.zeros(len(numbers))

        def dual(rates: FloatArray) -> tuple[float, FloatArray]:
            """Value and supergradient (m,) of the dual."""
            multipliers[free] = rates
            most, lost = control.maximum(multipliers)
            return 0.0 - most - float(rates @ slack), lost[free] - slack

        value, slope = dual(np.zeros(free.size))
        if free.size == 0 or (value > -np.inf and (slope <= 0.0).all()):
            return value, np.zeros(len(numbers)), control.tight and value > -np.inf
        optimal = np.zeros(self._allowed.shape, bool)
        np.put_along_axis(optimal, self._losses.actions[:, :, None], True, axis=2)
        strict = self._control(numbers, table, optimal)
        attained = 0.0 - strict.maximum(np.zeros(len(numbers)))[0]
        best, rates, closed = _maximise_dual(dual, value, slope, attained, slack)
        multipliers[:] = 0.0
        multipliers[free] = rates
        return best, multipliers, closed and control.tight and strict.tight


def _maximise_dual(
    dual: Callable[[FloatArray], tuple[float, FloatArray]],
    value: float,
    slope: FloatArray,
    attained: float,
    slack: FloatArray,
) -> tuple[float, FloatArray, bool]:
    """Maximise a concave dual over rates >= 0 by cutting planes, from its value and slope at 0.

    ``attained`` - rates . slack is above the dual everywhere. Returns the largest value found,
    where it is, and whether it is the maximum.
    """
    count = slack.size
    if attained == -np.inf:
        return -np.inf, np.zeros(count), False
    size = max(abs(attained), abs(value) if value > -np.inf else 0.0, 1e-300)
    # In units in which values are near 1 and the first cut has slope -1.
    unit = size / slack
    rows = [np.append(np.ones(count), 1.0)]
    limits = [attained / size]
    best, where = value, np.zeros(count)
    below: FloatArray | None = None if value > -np.inf else np.zeros(count)
    trial = where
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    for _ in range(EVALUATIONS):
        if value > -np.inf:
            pace = slope * unit / size
            rows.append(np.append(-pace, 1.0))
            limits.append(value / size - float(pace @ (trial / unit)))
            if value > best:
                best, where = value, trial
        elif below is None or (trial >= below).all():
            below = trial
        if best == -np.inf:
            # The leader can lose for ever until the followers' losses weigh enough.
            trial = np.maximum(8.0 * trial, unit)
        else:
            answer = linprog(
                np.append(np.zeros(count), -1.0),
                np.array(rows),
                np.array(limits),
                bounds=[(0.0, None)] * count + [(None, None)],
                options=options,
            )
            if answer.status != 0:
                return best, where, False
            if -answer.fun * size - best <= (GAP if count == 1 else PAIR_GAP) * size:
                return best, where, True
            trial = answer.x[:count] * unit
            if below is not None and (trial <= below).all():
                trial = 0.5 * (below + where)
        value, slope = dual(trial)
    return best, where, False
