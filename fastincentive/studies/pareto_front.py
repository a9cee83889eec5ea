"""The trade-off between the leader's value and what payments cost, over weights or budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._progress import progress_bar
from fastincentive._tables import text_table
from fastincentive.errors import InputError, Interrupted, invalid
from fastincentive.methods._regime_search import regime_search
from fastincentive.methods._starts import best_response_policies
from fastincentive.methods.regime_ascent import RegimeAscent
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.recovery import recover

__all__ = ["ParetoFront", "pareto"]

#: Weights in the default range.
WEIGHTS = 12
#: The default range goes this factor beyond the weights between which the answer changes.
MARGIN = 1.25
#: Objectives this close, relative to their size, are equal: the cheaper point is taken.
TIE = 1e-12
#: Share of the value below which what a payment costs is negligible.
NEGLIGIBLE_SHARE = 1e-8
#: The default range stops where payments are worth it that add this share of the largest gain.
LEAST_GAIN_SHARE = 1e-3
#: The table shows at most this many payments.
_MOST_PAYMENTS = 4


@dataclass(frozen=True)
class ParetoFront:
    """What the leader gets for its money; point j answers weight or budget j, in rising order.

    Attributes
    ----------
    weights : array (m,)
        Weight w of the cost at each point.
    budgets : array (m,) or None
        Bound on the cost at each point; None if the weights were varied.
    payments : array (m, k)
    leader_values, costs, objectives : array (m,)
        V, C and V - w C at these payments and best responses to them, ties broken for the leader.
    nominal_spends, expected_spends : array (m,)
        The plain sum of the payments, and what is paid out in expectation, discounted by the
        leader (inf if a follower is paid for ever at a leader's discount of 1).
    pessimistic_values : array (m,)
        V at the same payments, ties broken against the leader.
    """

    weights: FloatArray
    budgets: FloatArray | None
    payments: FloatArray
    leader_values: FloatArray
    costs: FloatArray
    objectives: FloatArray
    nominal_spends: FloatArray
    expected_spends: FloatArray
    pessimistic_values: FloatArray

    @property
    def efficient(self) -> NDArray[np.bool_]:
        """Points (m,) that no other point beats: none has more value for at most the cost."""
        cheaper = self.costs[:, None] <= self.costs
        better = self.leader_values[:, None] >= self.leader_values
        strictly = cheaper & better & ~(cheaper.T & better.T)
        return np.asarray(~strictly.any(axis=0))

    def __str__(self) -> str:
        """Return a table, one row per point."""
        by_weight = self.budgets is None
        shown = self.weights if self.budgets is None else self.budgets
        few = self.payments.shape[1] <= _MOST_PAYMENTS
        names = [f"x{k}" for k in range(self.payments.shape[1])] if few else []
        header = [
            "weight w" if by_weight else "budget",
            *names,
            "cost",
            "value",
            "objective",
            "expected spend",
            "value, ties against",
            "efficient",
        ]
        rows = [
            [
                f"{shown[j]:.6g}",
                *(f"{x:.4f}" for x in self.payments[j] if few),
                f"{self.costs[j]:.4f}",
                f"{self.leader_values[j]:.4f}",
                f"{self.objectives[j]:.4f}",
                f"{self.expected_spends[j]:.4f}",
                f"{self.pessimistic_values[j]:.4f}",
                "yes" if best else "no",
            ]
            for j, best in enumerate(self.efficient)
        ]
        return text_table(header, rows, "r" * (len(header) - 1) + "l")


@checked
def pareto(
    problem: IncentiveProblem,
    weights: ArrayLike | None = None,
    budgets: ArrayLike | None = None,
    *,
    method: RegimeAscent | None = None,
    start: ArrayLike | None = None,
    progress: bool = False,
) -> ParetoFront:
    """Trace the trade-off between the leader's value and the cost of the payments.

    Every weight or budget is searched from the point before it. Each answer is the best of all the
    points that were found for any of them, so that the curve is consistent: cost and value fall
    as the weight rises, and the objective rises with the budget.

    Parameters
    ----------
    problem : IncentiveProblem
    weights : array (m,), optional
        Weights w of the cost, in any order, instead of the problem's own; its budget, if it has
        one, is kept. By default a geometric range: from below the weight at which the payments of
        the largest value are worth it, to above the weight from which no payment is.
    budgets : array (m,), optional
        Bounds on the cost, in any order, instead of the problem's own; its weight is kept (with 0
        the value alone counts).
    method : RegimeAscent, optional
        By default ``RegimeAscent()``.
    start : float or array (k,), optional
        Payments from which the first search starts; by default none are paid.
    progress : bool
        Show a progress bar (needs the ``progress`` extra).

    Returns
    -------
    ParetoFront
        In rising order of the weights or budgets.

    Raises
    ------
    InputError
        If both weights and budgets are given, one is negative or not finite, or the cost takes no
        budget.
    Interrupted
        A KeyboardInterrupt whose ``results`` is the front of the weights or budgets searched by
        then, the lower ones.

    Notes
    -----
    A weight only finds points on the convex hull of what can be attained; budgets also find those
    between. With two followers of one payment each every point is the optimum over deterministic
    best responses (see ``global_optimum``); otherwise the search is local.
    """
    if not isinstance(problem, IncentiveProblem):
        raise InputError(f"problem: expected an IncentiveProblem, got {type(problem).__name__}")
    method = RegimeAscent() if method is None else method
    if not isinstance(method, RegimeAscent):
        raise InputError(f"method: expected a RegimeAscent, got {type(method).__name__}")
    if weights is not None and budgets is not None:
        raise InputError("budgets: expected weights or budgets, got both")
    payments = problem.payments
    first = payments.lower if start is None else payments.check_bounds(start, "start")
    finder = _PointSearch(problem, method, first)
    if budgets is not None:
        limits = _sorted_numbers("budgets", budgets)
        variants = [problem.replace(budget=b) for b in limits.tolist()]
        weighed = np.full(limits.size, problem.cost_weight)
    else:
        limits = None
        weighed = finder.weights() if weights is None else _sorted_numbers("weights", weights)
        variants = [problem.replace(cost_weight=w) for w in weighed.tolist()]
    bar = progress_bar(len(variants)) if progress else None
    done = 0
    try:
        for variant in variants:
            finder.search(variant)
            done += 1
            if bar is not None:
                bar.update(1)
    except KeyboardInterrupt as interrupt:
        if done == 0:
            raise
        found = _front(problem, weighed, limits, variants[:done], finder)
        raise Interrupted(f"{done} of {len(variants)} points", found) from interrupt
    finally:
        if bar is not None:
            bar.close()
    return _front(problem, weighed, limits, variants, finder)


def _front(
    problem: IncentiveProblem,
    weights: FloatArray,
    budgets: FloatArray | None,
    variants: list[IncentiveProblem],
    finder: _PointSearch,
) -> ParetoFront:
    """Put the best point of each variant together."""
    chosen = [finder.best(variant) for variant in variants]
    return ParetoFront(
        weights=weights[: len(variants)],
        budgets=None if budgets is None else budgets[: len(variants)],
        payments=np.array([point.payments for point in chosen]),
        leader_values=np.array([point.value for point in chosen]),
        costs=np.array([point.cost for point in chosen]),
        objectives=np.array(
            [
                each.net(point.value, point.cost)
                for each, point in zip(variants, chosen, strict=True)
            ]
        ),
        nominal_spends=np.array([point.payments.sum() for point in chosen]),
        expected_spends=np.array(
            [problem.expected_spend(point.payments, point.policies) for point in chosen]
        ),
        pessimistic_values=np.array([point.pessimistic_value for point in chosen]),
    )


class _Point(NamedTuple):
    """Payments, best responses to them, and what they bring and cost."""

    payments: FloatArray  # (k,)
    policies: FloatArray  # (n, S, A)
    value: float
    cost: float
    pessimistic_value: float


class _PointSearch:
    """Searches one variant of a problem after another and keeps every point found."""

    def __init__(self, problem: IncentiveProblem, method: RegimeAscent, start: FloatArray) -> None:
        self._problem = problem
        self._method = method
        self._points: list[_Point] = []
        self._last = start
        self._last_policies: FloatArray | None = None
        # What can always be had, whatever the weight or budget.
        self._keep(problem, problem.payments.lower, None)

    def search(self, variant: IncentiveProblem) -> _Point:
        """Search a variant from where the search before it ended; return its best point."""
        point = self._search(variant)
        if variant.cost_weight == 0.0 and 0.0 < point.cost < np.inf:
            # Payments that bring nothing are left out only if they cost something.
            negligible = NEGLIGIBLE_SHARE * max(1.0, abs(point.value)) / point.cost
            self._search(variant.replace(cost_weight=negligible))
        return self.best(variant)

    def _search(self, variant: IncentiveProblem) -> _Point:
        found = regime_search(variant, self._method, self._last, self._last_policies)
        self._keep(variant, found.payments, found.policies)
        point = self.best(variant)
        self._last, self._last_policies = point.payments, point.policies
        return point

    def best(self, variant: IncentiveProblem) -> _Point:
        """Return the best point for a variant among all found, of equal ones the cheapest."""
        worth = np.array([variant.net_objective(point.value, point.cost) for point in self._points])
        top = float(worth.max())
        equal = np.flatnonzero(worth >= top - TIE * max(1.0, abs(top)))
        return self._points[min(equal, key=lambda j: self._points[j].cost)]

    def weights(self) -> FloatArray:
        """Return a range of weights that the answer depends on, and a little beyond."""
        problem = self._problem
        unpaid = self._points[0]
        most = self.search(problem.replace(cost_weight=0.0))
        gain = most.value - unpaid.value
        if not gain > 1e-9 * max(1.0, abs(most.value)):
            return np.array([problem.cost_weight])
        cost = most.cost if 0.0 < most.cost < np.inf else 1.0
        most = point = self.search(problem.replace(cost_weight=LEAST_GAIN_SHARE * gain / cost))
        if not 0.0 < most.cost < np.inf:
            return np.array([problem.cost_weight])
        # Newton's iteration for the largest gain per cost (Dinkelbach): it rises to the weight
        # from which no payment is worth it.
        high = 0.0
        while point.cost > 0.0 and (point.value - unpaid.value) / point.cost > high * (1.0 + 1e-9):
            high = (point.value - unpaid.value) / point.cost
            point = self.search(problem.replace(cost_weight=high))
        # The same towards the other end: down to the weight below which all payments are worth it.
        low = high
        while True:
            point = self.search(problem.replace(cost_weight=low * (1.0 - 1e-9)))
            saved = most.cost - point.cost
            lost = most.value - point.value
            if not (saved > 0.0 and 0.0 < lost / saved < low * (1.0 - 1e-6)):
                break
            low = lost / saved
        return np.geomspace(low / MARGIN, high * MARGIN, WEIGHTS)

    def _keep(
        self, variant: IncentiveProblem, payments: FloatArray, policies: FloatArray | None
    ) -> None:
        """Add these payments with exact best responses: the leader's best, and those found."""
        # ``best`` checks the budget, with the slack that the search allows.
        free = variant.replace(budget=None)
        found = best_response_policies(free, payments) if policies is None else policies
        answer = recover(free, payments, found, polish=False)
        worst = answer.pessimistic.leader_value
        # What is best for the leader without a budget may break it, what was found does not.
        for each, evaluation in (
            (answer.policies, answer.evaluation),
            (found, free.evaluate(payments, found)),
        ):
            self._points.append(
                _Point(payments, each, evaluation.leader_value, evaluation.cost, worst)
            )


def _sorted_numbers(argument: str, values: ArrayLike) -> FloatArray:
    """Return numbers >= 0 as (m,), in rising order."""
    numbers = np.atleast_1d(np.array(values, float))
    if numbers.ndim != 1 or numbers.size == 0:
        raise invalid(argument, "a list of numbers", f"shape {numbers.shape}")
    bad = ~((numbers >= 0) & np.isfinite(numbers))
    if bad.any():
        raise invalid(
            argument, "finite numbers >= 0", numbers[bad][0], f"position {int(np.argmax(bad))}"
        )
    return np.sort(numbers)
