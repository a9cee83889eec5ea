"""The objective near a mixture, to second and third order: bounds that are sharp in small boxes.

The objective changes with the probabilities p of tied actions by g . d + 1/2 d'Hd and a rest.
Derivatives count a visit to one state, then to others, each with the difference that an action
makes there. With N_k the most discounted visits to a state from the start, N'_k those from
anywhere, and D the span of what an action makes a difference of,

    |H_kl| <= 2 (N_k N'_l + N_l N'_k) D,  |T_klm| <= 4 (N_k N'_l N'_m + its permutations) D.

Where two followers draw lots at the same time, 2 min(N_k, N_l) D is added to the first, and to the
second the same with a pair, or all three, in the place of single visits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.certificates.mixture_relaxation import ROUGH, Best, Rows, gains, largest
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["Expansion"]

#: Step of the differences of gradients.
STEP = 1e-6
#: With more probabilities than this second derivatives are bounded only.
MOST_FREE = 12


class _Free(NamedTuple):
    """Probabilities that may move in a box: of some actions, from one action of the same state."""

    i: NDArray[np.int64]
    s: NDArray[np.int64]
    a: NDArray[np.int64]
    rest: NDArray[np.int64]

    def slope(self, gradient: FloatArray) -> FloatArray:
        """Return derivatives (K,) by the probabilities, from those by all (n, S, A)."""
        return np.asarray(gradient[self.i, self.s, self.a] - gradient[self.i, self.s, self.rest])


class _Local(NamedTuple):
    """The objective and the cost at a point, with their derivatives by free probabilities."""

    value: float
    cost: float
    slope: FloatArray  # (K,)
    spent: FloatArray  # (K,)


class Expansion:
    """Bounds at payments x on mixtures of tied actions.

    Parameters
    ----------
    problem : IncentiveProblem
    payments : array (k,)
    best : array (n, S, A)
        Policies around which boxes are expanded, if they are in them.
    rows : sequence of Rows
        What followers may do at these payments.
    table : array (L, ..., L)
        What the leader earns at joint labels.
    """

    def __init__(
        self,
        problem: IncentiveProblem,
        payments: FloatArray,
        best: FloatArray,
        rows: Sequence[Rows],
        table: FloatArray,
    ) -> None:
        self._problem, self._payments = problem, payments
        self.best = best
        gamma = problem.leader_discount
        #: As ``Best.work``.
        self.work = 0.0
        #: N and N' (n, S).
        self._visits = np.zeros(problem.followers.shape[:2])
        self._again = np.zeros(self._visits.shape)
        for i, own in enumerate(rows):
            for s in np.flatnonzero(np.bincount(own.of) > 1).tolist():
                met = self._largest([own], (own.of == s).astype(float), gamma)
                self._visits[i, own.states[s]] = met.start
                self._again[i, own.states[s]] = met.values.max()
        spent = np.zeros(())
        for own in rows:
            spent = np.add.outer(spent, own.spent)
        gain = gains(table, rows) - problem.cost_weight * spent
        #: D of the objective, and of the cost.
        self._spans = (self._span(rows, gain, gamma), self._span(rows, spent, gamma))
        self._known = bool(np.isfinite(self._again).all() and np.isfinite(self._spans).all())

    def _largest(self, rows: Sequence[Rows], gain: FloatArray, discount: float) -> Best:
        found = largest(rows, gain, discount, share=ROUGH)
        self.work += found.work
        return found

    def _span(self, rows: Sequence[Rows], gain: FloatArray, discount: float) -> float:
        """Bound the span of what an action can make a difference of."""
        if not gain.any():
            return 0.0
        high = self._largest(rows, gain, discount).values.max()
        low = -self._largest(rows, -gain, discount).values.max()
        # What is earned now, and what is still to come.
        return float(np.ptp(gain) + max(high - low, 0.0))

    def widest(self, least: FloatArray, most: FloatArray) -> tuple[int, int, int]:
        """Follower, state and action whose probability is least known, by visits."""
        width = (most - least) * np.clip(self._visits, 1e-12, 1e12)[:, :, None]
        i, s, a = np.unravel_index(int(np.argmax(width)), width.shape)
        return int(i), int(s), int(a)

    def bound(self, least: FloatArray, most: FloatArray, limit: float) -> float:
        """Bound the objective in a box of probabilities (n, S, A), within the budget."""
        if not self._known:
            return np.inf
        centre = self._centre(least, most)
        free = most > least
        i, s, a = np.nonzero(free)
        # The likeliest action of a state follows from the others.
        likeliest = np.where(free, centre, -1.0).argmax(axis=2)
        kept = a != likeliest[i, s]
        i, s, a = i[kept], s[kept], a[kept]
        moved = _Free(i, s, a, likeliest[i, s])
        here = self._local(centre, moved)
        if here is None:
            return np.inf
        steps = np.stack([least[i, s, a], most[i, s, a]]) - centre[i, s, a]
        bends = self._second(moved)
        prices = [0.0]
        if limit < np.inf:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = here.slope / here.spent
            prices += ratios[np.isfinite(ratios) & (ratios > 0.0)].tolist()
            prices += [2.0 * max(prices)] if len(prices) > 1 else []

        def bound(price: float, bend: FloatArray, rest: float) -> float:
            each = (here.slope - price * here.spent) * steps + 0.5 * bend * steps**2
            room = price * (limit - here.cost) if price else 0.0
            return float(here.value + room + each.max(axis=0).sum()) + rest

        spans = [self._spans[0] + price * self._spans[1] for price in prices]
        bounds = [
            bound(price, bends * span, 0.0) for price, span in zip(prices, spans, strict=True)
        ]
        if 0 < i.size <= MOST_FREE:
            hessian = self._hessian(centre, moved, here)
            wide = np.abs(steps).max(axis=0)
            for price, span in zip(prices, spans, strict=True):
                bend = _largest_bend(hessian[0] - price * hessian[1])
                slack = i.size * (0.5 * STEP * self._third(moved, np.ones(i.size)) * span)
                slack += i.size * 1e-12 / STEP * max(1.0, span)
                rest = self._third(moved, wide) * span / 6.0
                bounds.append(bound(price, bend + slack, rest))
        return min(bounds) + 1e-12 * max(1.0, abs(here.value))

    def _local(self, policies: FloatArray, moved: _Free) -> _Local | None:
        problem = self._problem
        leader = problem.leader_pass(policies)
        cost = problem.cost_pass(self._payments, policies)
        assert leader.gradient is not None  # for the type checker
        if not np.isfinite(cost.value):
            return None
        spent = np.zeros(moved.i.size) if cost.policies is None else moved.slope(cost.policies)
        slope = moved.slope(leader.gradient) - problem.cost_weight * spent
        return _Local(problem.net(leader.value, cost.value), cost.value, slope, spent)

    def _hessian(self, policies: FloatArray, moved: _Free, here: _Local) -> FloatArray:
        """Second derivatives (2, K, K) of objective and cost, by differences towards the inside."""
        out = np.zeros((2, moved.i.size, moved.i.size))
        for k in range(moved.i.size):
            i, s = moved.i[k], moved.s[k]
            trial = policies.copy()
            step = STEP if trial[i, s, moved.a[k]] < 0.5 else -STEP
            trial[i, s, moved.a[k]] += step
            trial[i, s, moved.rest[k]] -= step
            there = self._local(trial, moved)
            if there is None:
                out[:, k] = np.inf
            else:
                out[0, k] = (there.slope - here.slope) / step
                out[1, k] = (there.spent - here.spent) / step
        return 0.5 * (out + out.transpose(0, 2, 1))

    def _second(self, moved: _Free) -> FloatArray:
        """Sum over l of the bounds on |H_kl|, over D: (K,)."""
        first, again = self._visits[moved.i, moved.s], self._again[moved.i, moved.s]
        total = 2.0 * (first * again.sum() + again * first.sum())
        apart = moved.i[:, None] != moved.i
        return np.asarray(total + 2.0 * (np.minimum.outer(first, first) * apart).sum(axis=1))

    def _third(self, moved: _Free, wide: FloatArray) -> float:
        """Sum over k, l, m of the bounds on |T_klm| times widths (K,), over D."""
        first = float(self._visits[moved.i, moved.s] @ wide)
        again = float(self._again[moved.i, moved.s] @ wide)
        every = float(wide.sum())
        return first * (24.0 * again**2 + 24.0 * again * every + 4.0 * every**2)

    def _centre(self, least: FloatArray, most: FloatArray) -> FloatArray:
        """Policies in a box: the best where it holds them, else near them."""
        policies = np.clip(self.best, least, most)
        short = 1.0 - policies.sum(axis=2, keepdims=True)
        # Towards the bounds on the side that is missing.
        toward = np.where(short > 0.0, most - policies, policies - least)
        room = toward.sum(axis=2, keepdims=True)
        share = np.divide(short, room, out=np.zeros(short.shape), where=room > 0.0)
        return np.asarray(np.clip(policies + share * toward, 0.0, 1.0))


def _largest_bend(hessian: FloatArray) -> FloatArray:
    """Find q (K,) with d'Hd <= sum_k q_k d_k^2: Gershgorin's circles, or the largest eigenvalue."""
    if not np.isfinite(hessian).all():
        return np.full(len(hessian), np.inf)
    diagonal = hessian.diagonal()
    circles = diagonal + np.abs(hessian).sum(axis=1) - np.abs(diagonal)
    top = float(np.linalg.eigvalsh(hessian)[-1])
    return np.full(len(hessian), top) if top < circles.max() else circles
