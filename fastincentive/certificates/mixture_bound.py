"""A bound over best responses that draw lots, tight on small problems: branch and bound.

Payments matter at the breakpoints of the followers' responses only: between two of them what ties
does so where the regime begins, for less. So followers are first confined to stretches of their
breakpoints, with all that is optimal somewhere on them, and at single breakpoints to boxes of the
probabilities of tied actions. Each part is bounded by a controller that sees all followers, and in
small boxes by the second-order expansion of the objective.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._highs import linprog
from fastincentive.certificates.joint_control import Control
from fastincentive.certificates.mixture_expansion import Expansion
from fastincentive.certificates.mixture_relaxation import Best, Rows, gains, largest, rows_of
from fastincentive.problem.bound_payments import ROUNDING
from fastincentive.problem.costs import ExpectedSpend, LinearCost, QuadraticCost
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menus import Cut, coordinate_lines, cut
from fastincentive.responses.mixture_climb import climbed_mixture
from fastincentive.responses.regimes import alike

__all__ = ["bound_with_lots", "in_reach", "programmes_of_one"]

#: Joint states, and joint labels, of problems that are small enough.
MOST_JOINT = 3_000
#: Multiplications after which parts that are left stay as they are bounded: a few seconds.
MOST_WORK = 3e9
#: Parts bounded, at most.
MOST_PARTS = 2_000
#: Expansions are renewed after so many cuts of a box.
RENEWED = 3
#: The bound is not made sharper than this share of the objective.
SHARP = 1e-8
#: Pairs of states and actions, and breakpoints, of linear programmes for one follower.
MOST_PAIRS, MOST_POINTS = 2_000, 300
#: Boxes this narrow are not cut.
NARROW = 1e-9


@dataclass(frozen=True, order=True)
class _Part:
    """Stretches of breakpoints, and boxes of probabilities where they are single ones."""

    rank: float  # minus the bound
    number: int
    low: tuple[int, ...] = field(compare=False)
    high: tuple[int, ...] = field(compare=False)
    least: FloatArray = field(compare=False)  # (n, S, A)
    most: FloatArray = field(compare=False)
    multiplier: float = field(compare=False)  # of a budget on what is spent
    expansion: Expansion | None = field(compare=False)
    depth: int = field(compare=False)  # how often its boxes were cut

    @property
    def bound(self) -> float:
        return -self.rank


def in_reach(problem: IncentiveProblem) -> bool:
    """Whether a problem is small enough, with one payment per follower, of its own, at most.

    The cost must be a sum over payments.
    """
    sums = isinstance(problem.cost, (ExpectedSpend, LinearCost, QuadraticCost))
    payments = problem.payments
    n, states, _ = problem.followers.shape
    small = max(float(states) ** n, float(problem.leader.n_labels) ** n) <= MOST_JOINT
    return sums and small and not payments.shared and payments.reach.shape[1] == 1


def bound_with_lots(problem: IncentiveProblem, known: float, most: float) -> float:
    """Bound the objective of all best responses, mixed or not; inf where nothing is known.

    Parameters
    ----------
    problem : IncentiveProblem
        One that is ``in_reach``.
    known : float
        An objective that is attained. Nothing below it is looked for.
    most : float
        A bound that is known.
    """
    lines = cut(problem, coordinate_lines(problem, problem.payments.lower))
    if not lines.found.complete.all() or not np.isfinite(most):
        return np.inf
    return _Branching(problem, lines, known, most).bound()


class _Branching:
    """The search tree."""

    def __init__(self, problem: IncentiveProblem, found: Cut, known: float, most: float) -> None:
        self._problem = problem
        self._known = known
        self._most = most
        n = problem.n
        own = [np.flatnonzero(found.lines.owner[found.found.line] == i) for i in range(n)]
        #: Breakpoints of each follower.
        self._at = [np.unique(found.found.lower[each]) for each in own]
        self._tied = [self._optimal(i, found) for i in range(n)]
        self._moves = [mdp.dense_transition() for mdp in problem.followers]
        self._spends = isinstance(problem.cost, ExpectedSpend)
        self._limit = np.inf if problem.budget is None else problem.budget * (1.0 + ROUNDING)
        leader = problem.leader
        labels = np.indices((leader.n_labels,) * n).reshape(n, -1).T
        self._table = leader.sampled(labels).reshape((leader.n_labels,) * n)
        self._ceiling = _ceiling(problem)
        self._work = 0.0
        #: Bound on parts that cannot be cut any more.
        self._closed = -np.inf
        self._numbers = itertools.count()

    def _optimal(self, i: int, cut: Cut) -> NDArray[np.bool_]:
        """Optimal actions (K, S, A) of follower i at its breakpoints, as far as they lead."""
        problem, found = self._problem, cut.found
        own = np.flatnonzero(cut.lines.owner[found.line] == i)
        equals = alike(problem.followers, problem.payments.index, problem.leader.labels)[i]
        out = []
        for t in self._at[i]:
            tied = problem.optimal_actions(self._payments([(i, t)])).tied[i]
            for laws in found.laws[own[(found.lower[own] <= t) & (t <= found.upper[own])]]:
                visited = np.flatnonzero(laws >= 0)
                tied[visited, laws[visited]] = True
            # Of actions that make no difference one stands for all.
            once = np.zeros(tied.shape, bool)
            state, action = np.nonzero(tied)
            once[state, equals[state, action]] = True
            out.append(once)
        return np.array(out)

    def _payments(self, chosen: list[tuple[int, float]]) -> FloatArray:
        """Payments (k,) with some followers paid so much."""
        payments = self._problem.payments
        x = payments.lower.copy()
        for i, t in chosen:
            k = payments.reach[i]
            x[k[k >= 0]] += t
        return np.clip(x, payments.lower, payments.upper)

    def _point(self, low: tuple[int, ...]) -> FloatArray:
        return self._payments([(i, self._at[i][k]) for i, k in enumerate(low)])

    def bound(self) -> float:
        """Return the bound when all parts are closed or the work is done."""
        n = self._problem.n
        last = tuple(each.size - 1 for each in self._at)
        heap: list[_Part] = []
        self._push(heap, (0,) * n, last, self._stretch((0,) * n, last), 0.0, None, 0)
        for _ in range(MOST_PARTS):
            if not heap or heap[0].bound <= self._target() or self._work > MOST_WORK:
                break
            self._split(heap, heapq.heappop(heap))
        left = heap[0].bound if heap else -np.inf
        return min(max(left, self._closed, self._target()), self._most)

    def _target(self) -> float:
        return self._known + SHARP * max(1.0, abs(self._known))

    def _split(self, heap: list[_Part], part: _Part) -> None:
        sizes = [high - low for low, high in zip(part.low, part.high, strict=True)]
        if max(sizes) > 0:
            i = int(np.argmax(sizes))
            middle = (part.low[i] + part.high[i]) // 2
            below = (*part.high[:i], middle, *part.high[i + 1 :])
            above = (*part.low[:i], middle + 1, *part.low[i + 1 :])
            for low, high in ((part.low, below), (above, part.high)):
                self._push(heap, low, high, self._stretch(low, high), part.multiplier, None, 0)
            return
        expansion = part.expansion
        if expansion is None or part.depth % RENEWED == 0:
            expansion = self._expanded(part, expansion)
            self._work += expansion.work
        i, s, a = expansion.widest(part.least, part.most)
        low, high = part.least[i, s, a], part.most[i, s, a]
        if high - low < NARROW:
            self._closed = max(self._closed, part.bound)
            return
        middle = 0.5 * (low + high)
        for least, most in ((low, middle), (middle, high)):
            box = part.least.copy(), part.most.copy()
            box[0][i, s, a], box[1][i, s, a] = least, most
            if self._tightened(*box, i, s):
                self._push(
                    heap, part.low, part.high, box, part.multiplier, expansion, part.depth + 1
                )

    @staticmethod
    def _tightened(least: FloatArray, most: FloatArray, i: int, s: int) -> bool:
        """Tighten the bounds on probabilities of a state that add up to one; False if none do."""
        low, high = least[i, s], most[i, s]
        least[i, s] = np.maximum(low, 1.0 - (high.sum() - high))
        most[i, s] = np.minimum(high, 1.0 - (low.sum() - low))
        return bool((least[i, s] <= most[i, s] + 1e-15).all())

    def _expanded(self, part: _Part, before: Expansion | None) -> Expansion:
        """Expand the objective around the best mixture that is found at single breakpoints."""
        problem = self._problem
        x = self._point(part.low)
        rows = self._rows(part.low, part.least, part.most)
        if before is not None:
            return Expansion(problem, x, before.best, rows, self._table)
        tied = part.most > 0.0
        even = tied / np.maximum(tied.sum(axis=2, keepdims=True), 1)
        found = climbed_mixture(problem, x, tied, even)
        self._known = max(self._known, found.objective)
        return Expansion(problem, x, found.policies, rows, self._table)

    def _rates(self, low: tuple[int, ...]) -> FloatArray:
        """Price (n, S, A) of what is paid at breakpoints."""
        x = self._point(low)
        cost = self._problem.cost
        if not isinstance(cost, ExpectedSpend):
            return np.zeros(self._problem.followers.shape)
        return self._problem.payments.side_payments(cost.prices * x)

    def _rows(self, low: tuple[int, ...], least: FloatArray, most: FloatArray) -> list[Rows]:
        problem = self._problem
        met = problem.followers.reached(most > 0.0)
        rates = self._rates(low)
        return [
            rows_of(problem, i, self._moves[i], (least[i], most[i]), met[i], rates[i])
            for i in range(problem.n)
        ]

    def _stretch(
        self, low: tuple[int, ...], high: tuple[int, ...]
    ) -> tuple[FloatArray, FloatArray]:
        """Least and most probabilities (n, S, A) on stretches of breakpoints."""
        ways = [
            each[a : b + 1].any(axis=0) for each, a, b in zip(self._tied, low, high, strict=True)
        ]
        most = np.array(ways).astype(float)
        return np.where((most.sum(axis=2) == 1.0)[:, :, None], most, 0.0), most

    def _push(
        self,
        heap: list[_Part],
        low: tuple[int, ...],
        high: tuple[int, ...],
        box: tuple[FloatArray, FloatArray],
        multiplier: float,
        expansion: Expansion | None,
        depth: int,
    ) -> None:
        """Bound a part, and keep it unless nothing in it can be better than what is known."""
        target = self._target()
        bound = np.inf
        if expansion is not None:
            bound = expansion.bound(*box, self._limit)
        if bound > target:
            upper, multiplier = self._controlled(low, box, multiplier, target)
            bound = min(bound, upper)
        if bound > target:
            number = next(self._numbers)
            part = _Part(-bound, number, low, high, *box, multiplier, expansion, depth)
            heapq.heappush(heap, part)

    def _largest(self, rows: list[Rows], gain: FloatArray, target: float) -> Best:
        ceiling = self._ceiling
        if ceiling is not None:
            ceiling = ceiling[np.ix_(*[each.states for each in rows])]
        found = largest(rows, gain, self._problem.leader_discount, target, ceiling)
        self._work += found.work
        return found

    def _controlled(
        self,
        low: tuple[int, ...],
        box: tuple[FloatArray, FloatArray],
        multiplier: float,
        target: float,
    ) -> tuple[float, float]:
        """Bound by a controller that sees all followers, and the multiplier of the budget."""
        problem = self._problem
        rows = self._rows(low, *box)
        gain = gains(self._table, rows)
        weight = problem.cost_weight
        if not self._spends:
            cost = problem.cost.value(self._point(low))  # type: ignore[union-attr]
            if cost > self._limit:
                return -np.inf, 0.0
            found = self._largest(rows, gain, target + weight * cost)
            return found.start - weight * cost, 0.0
        spent = np.zeros(())
        for each in rows:
            spent = np.add.outer(spent, each.spent)

        def bound(price: float) -> float:
            extra = price * self._limit if price else 0.0
            found = self._largest(rows, gain - (weight + price) * spent, target - extra)
            return found.start + extra

        best = bound(multiplier)
        if self._limit == np.inf or best <= target:
            return best, multiplier
        unit = max(float(np.ptp(gain)), 1e-9) / max(float(spent.max()), 1e-9)
        trials = [0.0] if multiplier else []
        scale = 2.0 ** np.array([1.0, -1.0] if multiplier else np.arange(0.0, -12.0, -2.0))
        trials += ((multiplier or unit) * scale).tolist()
        for price in trials:
            upper = bound(price)
            if upper < best:
                best, multiplier = upper, price
            if best <= target:
                break
        return best, multiplier


def _ceiling(problem: IncentiveProblem) -> FloatArray | None:
    """Bound what can be earned from each joint state; needed at discount 1, known for two."""
    if problem.leader_discount < 1.0 or problem.n != 2:
        return None
    leader, followers = problem.leader, problem.followers
    free = np.zeros(followers.shape)
    table = leader.label_table()
    return Control(
        followers, range(2), leader.labels, table, 1.0, free, followers.available
    ).values()


def programmes_of_one(problem: IncentiveProblem) -> float:
    """Bound the objective of one follower with one payment, whose spending a budget bounds.

    Value and spending are linear in the discounted occupancy: a linear programme at each breakpoint
    is exact. inf where that is not so.
    """
    payments, followers = problem.payments, problem.followers
    gamma, cost = problem.leader_discount, problem.cost
    _, states, actions = followers.shape
    if problem.n > 1 or payments.size > 1 or gamma == 1.0 or not isinstance(cost, ExpectedSpend):
        return np.inf
    lines = cut(problem, coordinate_lines(problem, payments.lower))
    points = np.unique(lines.found.lower)
    small = states * actions <= MOST_PAIRS and points.size <= MOST_POINTS
    if not (small and lines.found.complete.all()):
        return np.inf
    flow = np.repeat(np.eye(states), actions, axis=1)
    flow -= gamma * followers[0].dense_transition().reshape(-1, states).T
    labels = np.broadcast_to(problem.leader.labels[0], (states, actions))
    worth = problem.leader.label_table()[labels]
    best = -np.inf
    for t in points.tolist():
        x = np.array([t])
        spent = payments.side_payments(cost.prices * x)[0]
        tied = problem.optimal_actions(x).tied[0]
        met = followers.reached(tied[None])[0]
        limit = np.inf if problem.budget is None else problem.budget * (1.0 + ROUNDING)
        found = linprog(
            -(worth - problem.cost_weight * spent).ravel(),
            A_ub=spent.reshape(1, -1) if limit < np.inf else None,
            b_ub=[limit] if limit < np.inf else None,
            A_eq=flow[met],
            b_eq=followers.packed.initial[0][met],
            bounds=[(0.0, None if each else 0.0) for each in (tied & met[:, None]).ravel()],
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )
        if found.status not in (0, 2):
            return np.inf
        best = max(best, -np.inf if found.status == 2 else -float(found.fun))
    return best + SHARP * max(1.0, abs(best))
