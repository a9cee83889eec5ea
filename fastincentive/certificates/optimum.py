"""The certified optimum over all best responses, by enumeration and branch and bound."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._tables import name_value_list
from fastincentive.certificates.bounds import bound_beyond, most_worth_paying
from fastincentive.certificates.mixing import Mixing, search_mixing
from fastincentive.certificates.value_vertices import vertex_lines
from fastincentive.errors import invalid
from fastincentive.problem.costs import ExpectedSpend, LinearCost, QuadraticCost
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menus import Menus, certain, check_unshared, collect, coordinate_lines
from fastincentive.responses.search import Search

__all__ = ["GlobalOptimum", "RunnerUp", "global_optimum"]

#: Random starts of the local search whose answers branch and bound has to beat.
RANDOM_STARTS = 8


@dataclass(frozen=True)
class RunnerUp:
    """The best combination of responses but one.

    Attributes
    ----------
    payments : array (k,)
    objective : float
    """

    payments: FloatArray
    objective: float


@dataclass(frozen=True)
class GlobalOptimum:
    """The best payments and what proves it.

    Attributes
    ----------
    payments : array (k,)
    policies : array (n, S, A)
        The deterministic best responses that are best for the leader.
    leader_value, cost, objective : float
        Evaluated anew at this point by ``problem.evaluate``, not by the search.
    bound : float
        No deterministic best response to any payments has a larger objective; one that draws lots
        may, see ``mixing`` and ``upper_bound``.
    combinations : int
        Combinations of responses: the product of the followers' numbers of responses.
    evaluated : int
        Combinations whose objective was computed; the others are excluded by bounds.
    responses : int array (n,)
        Number of responses of each follower.
    runner_up : RunnerUp or None
        The second best combination, None if there is only one.
    mixing : Mixing
        What mixing between tied actions would add, at the best combinations and elsewhere.
    complete : bool
        Whether every combination of tied actions was listed and the search ran to its end; if not,
        ``bound`` holds over the responses that were listed.
    seconds : float
    margins : array (n,)
        How close the nearest non-tie is, see ``Solution``.
    """

    payments: FloatArray
    policies: FloatArray
    leader_value: float
    cost: float
    objective: float
    bound: float
    combinations: int
    evaluated: int
    responses: NDArray[np.int64]
    runner_up: RunnerUp | None
    mixing: Mixing
    complete: bool
    seconds: float
    margins: FloatArray

    @property
    def gap(self) -> float:
        """Bound less objective: 0 up to rounding when the search ran to its end."""
        return max(self.bound - self.objective, 0.0)

    def __str__(self) -> str:
        """Return a short table."""
        rows = [
            ("payments", np.array2string(self.payments, precision=6, threshold=8)),
            ("objective", f"{self.objective:.6f}"),
            ("bound without lots", f"{self.bound:.6f}"),
            ("combinations", f"{self.combinations} ({self.evaluated} evaluated)"),
            ("runner-up", "none" if self.runner_up is None else f"{self.runner_up.objective:.6f}"),
            ("mixing adds", f"{self.mixing.gain:.3g}"),
            ("complete", "yes" if self.complete else "no"),
        ]
        return name_value_list(rows)


@checked
def global_optimum(
    problem: IncentiveProblem,
    *,
    time_limit: float = np.inf,
    mixing: int = 5,
    most_responses: int = 20_000,
) -> GlobalOptimum:
    """Find the best payments over all deterministic best responses, with a certificate.

    Each follower's best responses to all payments are listed exactly: by parametric policy
    iteration for one payment, as the linear pieces of its optimal value for several. With two
    followers every combination is priced; with more, branch and bound excludes most of them.

    A best response is optimal in every state that it visits, also where a follower's discount of 0
    lets its value from the start forget them. A ``CustomCost`` is taken to grow with every payment;
    where its gradient shows that it does not, the certificate is left incomplete.

    Parameters
    ----------
    problem : IncentiveProblem
        With payments that reach one follower each. Several payments per follower need a linear
        cost; the number of responses grows quickly with their number: two or three on small grids.
    time_limit : float
        Seconds after which the branch and bound returns what it has, with the bound still open.
    mixing : int
        At how many of the best combinations, and if at any, elsewhere, mixing is searched.
    most_responses : int
        With several payments per follower: if one has more responses than about this many the
        list, and with it the certificate, is left incomplete. So it is where one has more than ten
        payments: only lines along each, and along all together, are searched.

    Raises
    ------
    InputError
        If payments are shared between followers; if there are several per follower and the cost is
        not linear, or a payment that neither an upper bound nor a budget limits costs nothing; with
        more than two followers, if the cost is not a sum over payments.
    MemoryLimitError
        If the lists of responses, or of pairs of them, find no room.
    """
    check_unshared(problem, "problem")
    problem.refuse_types("global_optimum")
    if not time_limit > 0:
        raise invalid("time_limit", "a number of seconds > 0", time_limit)
    if mixing < 0 or mixing != int(mixing):
        raise invalid("mixing", "an integer >= 0", mixing)
    summed = isinstance(problem.cost, (LinearCost, QuadraticCost, ExpectedSpend))
    if problem.n > 2 and not summed:
        raise invalid("cost", "a sum over payments, with more than two followers", problem.cost)
    began = time.perf_counter()
    several = problem.payments.reach.shape[1] > 1
    lines, listed = (
        vertex_lines(problem, _finite_upper(problem), most_responses)
        if several
        else (coordinate_lines(problem, problem.payments.lower), True)
    )
    menus = collect(problem, lines)
    search = Search(problem, menus)
    tree = _Tree(search, max(mixing, 2), began + time_limit)
    tree.run()
    best = [pick for _, pick in tree.best]
    payments, policies = search.payments(best[0]), search.policies(best[0])
    evaluation = problem.evaluate(payments, policies)
    return GlobalOptimum(
        payments=payments,
        policies=policies,
        leader_value=evaluation.leader_value,
        cost=evaluation.cost,
        objective=evaluation.objective,
        bound=tree.bound + menus.tail,
        combinations=int(np.prod(np.diff(menus.first).astype(object))),
        evaluated=tree.evaluated,
        responses=np.diff(menus.first),
        runner_up=_runner_up(search, tree.best),
        mixing=_mixed(search, best[:mixing], (payments, policies, evaluation.objective)),
        complete=(
            listed
            and certain(problem, menus.complete, menus.tail, evaluation.objective)
            and tree.done
            and _cost_grows(problem, menus)
            and bound_beyond(problem, menus) < evaluation.objective
        ),
        seconds=time.perf_counter() - began,
        margins=problem.optimal_actions(payments).margin,
    )


def _mixed(
    search: Search, best: list[NDArray[np.int64]], top: tuple[FloatArray, FloatArray, float]
) -> Mixing:
    """Search for mixtures, at these combinations, and if there are any also elsewhere."""
    points = [(search.payments(pick), search.policies(pick)) for pick in best]
    return search_mixing(search.problem, top[:2], top[2], points, search.menus if points else None)


def _runner_up(search: Search, best: list[tuple[float, NDArray[np.int64]]]) -> RunnerUp | None:
    return RunnerUp(search.payments(best[1][1]), best[1][0]) if len(best) > 1 else None


def _cost_grows(problem: IncentiveProblem, menus: Menus) -> bool:
    """Whether C grows with each payment, as far as its gradient at the entries shows.

    Then each response is cheapest where it begins, which is where it was priced.
    """
    if isinstance(problem.cost, (LinearCost, QuadraticCost, ExpectedSpend)):
        return True
    payments = problem.payments
    for owner, spread in zip(menus.owner, menus.spread, strict=True):
        x = payments.lower.copy()
        paid = payments.reach[owner] >= 0
        x[payments.reach[owner, paid]] = spread[paid]
        if (problem.cost.gradient(x.copy()) < 0.0).any():
            return False
    return True


def _finite_upper(problem: IncentiveProblem) -> FloatArray:
    """Upper bounds; payments without one cost more beyond these than they can be worth."""
    if not isinstance(problem.cost, LinearCost):
        raise invalid(
            "cost", "LinearCost, with several payments per follower", type(problem.cost).__name__
        )
    payments = problem.payments
    if np.isfinite(payments.upper).all():
        return payments.upper
    price = problem.cost_weight * payments.prices
    if np.isinf(payments.upper[price == 0.0]).any():
        raise invalid("upper", "an upper bound for every payment that costs nothing", "none")
    most = most_worth_paying(problem)
    if most == np.inf:
        raise invalid("upper", "upper bounds, because the leader's gain is unbounded", "none")
    with np.errstate(divide="ignore"):
        return np.minimum(payments.upper, most / price)


class _Tree:
    """Depth first over the followers, most entries last; the last two are priced together."""

    def __init__(self, search: Search, keep: int, deadline: float) -> None:
        self._search = search
        self._keep = keep
        self._deadline = deadline
        self._weights = search.weights
        menus = search.menus
        n = search.problem.n
        #: Entries of each follower that may still be part of the best combinations.
        self._alive = [np.arange(menus.first[i], menus.first[i + 1]) for i in range(n)]
        #: The best combinations so far, (objective, entries (n,)), best first.
        self.best: list[tuple[float, NDArray[np.int64]]] = []
        self.evaluated = 0
        self.bound = -np.inf
        self.done = True

    def run(self) -> None:
        search = self._search
        n = search.problem.n
        if n == 1:
            values = search.single_values()
            self.evaluated = values.size
            self._add(values, lambda index: np.array(index))
        else:
            if n > 2:
                self._insert_local_optima()
                self._exclude_entries()
            if not self._out_of_time() or n == 2:
                self._branch([])
            else:
                self.bound = self._bound({})
                self.done = False
        self.best = [each for each in self.best if np.isfinite(each[0])]
        if not self.best:
            raise invalid(
                "budget",
                "one that allows some payments, or none at all",
                self._search.problem.budget,
            )
        self.bound = max(self.bound, self.best[0][0])

    def _out_of_time(self) -> bool:
        return time.perf_counter() > self._deadline

    def _insert_local_optima(self) -> None:
        """Take the local search's answer as the first combination to beat."""
        search = self._search
        rng = np.random.default_rng(0)
        first, last = search.menus.first[:-1], search.menus.first[1:]
        cheapest = search.nearest(search.problem.payments.lower, None)
        self._insert(search.objective(cheapest), cheapest)
        for _ in range(RANDOM_STARTS):
            if self._out_of_time():
                break
            pick, value = search.climb(rng.integers(first, last), True, [])
            self._insert(value, pick)

    def _cutoff(self) -> float:
        """Objective below which combinations are of no interest."""
        if len(self.best) < 2:
            return -np.inf
        return self.best[1][0]

    def _exclude_entries(self) -> None:
        """Drop entries that no combination with them can save."""
        n = self._search.problem.n
        changed = True
        while changed:
            changed = False
            for i in range(n):
                if self._out_of_time():
                    return
                bounds = np.array([self._bound({i: int(c)}) for c in self._alive[i]])
                keep = bounds >= self._cutoff()
                if not keep.all() and keep.any():
                    self._alive[i] = self._alive[i][keep]
                    changed = True

    def _bound(self, fixed: dict[int, int]) -> float:
        """Upper bound on the objective of all combinations with these entries."""
        search = self._search
        menus = search.menus
        chosen = [
            np.array([fixed[i]]) if i in fixed else alive for i, alive in enumerate(self._alive)
        ]
        candidates = [
            np.ascontiguousarray(menus.marginals[:, entries].transpose(1, 0, 2))
            for entries in chosen
        ]
        cost = sum(search.costs.least(entries) for entries in chosen)
        return search.problem.leader.relaxed(candidates, self._weights) - cost

    def _branch(self, fixed: list[int]) -> None:
        """Branch on the next follower, or price the last two."""
        n = self._search.problem.n
        level = len(fixed)
        if level == n - 2:
            self._price_last_two(fixed)
            return
        bounds = [
            (self._bound({**dict(enumerate(fixed)), level: int(c)}), int(c))
            for c in self._alive[level]
        ]
        for upper, entry in sorted(bounds, reverse=True):
            if upper < self._cutoff():
                break
            if self._out_of_time():
                self.bound = max(self.bound, upper)
                self.done = False
                break
            self._branch([*fixed, entry])

    def _price_last_two(self, fixed: list[int]) -> None:
        search = self._search
        first = search.menus.first
        n = search.problem.n
        pick = np.concatenate([np.array(fixed, np.int64), first[n - 2 : n]])
        values = search.pair_values(pick, n - 2, n - 1)
        self.evaluated += values.size
        self._add(values, lambda index: np.concatenate([pick[: n - 2], first[n - 2 : n] + index]))

    def _add(self, values: FloatArray, entries: object) -> None:
        """Keep the best of these values (one axis per free follower)."""
        flat = values.reshape(-1)
        count = min(self._keep, flat.size)
        for k in np.argpartition(flat, flat.size - count)[flat.size - count :]:
            if len(self.best) < self._keep or flat[k] > self.best[-1][0]:
                index = np.unravel_index(int(k), values.shape)
                self._insert(float(flat[k]), entries(np.array(index)))  # type: ignore[operator]

    def _insert(self, value: float, pick: NDArray[np.int64]) -> None:
        if any(np.array_equal(pick, other) for _, other in self.best):
            return
        self.best.append((value, pick))
        self.best.sort(key=lambda each: -each[0])
        del self.best[self._keep :]
