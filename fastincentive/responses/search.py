"""One entry per follower: the search over combinations of menu entries."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._machine import check_large
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menu_costs import menu_costs
from fastincentive.responses.menus import Menus
from fastincentive.responses.regimes import LIST_REMEDY

__all__ = ["RegimePoint", "Search", "better"]

#: An improvement below this share of the objective's size is rounding.
GAIN = 1e-11


def better(value: float, than: float) -> bool:
    """Whether a value is larger by more than rounding; anything is better than -inf."""
    if not np.isfinite(than):
        return bool(value > than)
    return bool(value > than + GAIN * max(1e-3, abs(than)))


@dataclass(frozen=True)
class RegimePoint:
    """Where the search ended.

    Attributes
    ----------
    payments : array (k,)
    policies : array (n, S, A)
        Best responses to them, deterministic.
    objective : float
        V - w C, up to the tail tolerance.
    sweeps : int
        Rounds over all followers, all starts together.
    entries : int
        Best responses considered.
    complete : bool
        Whether every best response on the lines was listed.
    trace : list of float
        The objective after each improvement of the start that won.
    menus : Menus or None
        The entries that were searched last, where payments reach one follower each.
    """

    payments: FloatArray
    policies: FloatArray
    objective: float
    sweeps: int
    entries: int
    complete: bool
    trace: list[float] = field(default_factory=list)
    menus: Menus | None = None


class Search:
    """Choose one entry per follower: coordinate and pair moves over fixed menus.

    With ``sign`` -1 the worst combination is sought: values and costs change sign.
    """

    def __init__(self, problem: IncentiveProblem, menus: Menus, sign: float = 1.0) -> None:
        self.problem = problem
        self.menus = menus
        self.weights: FloatArray = problem.leader_discount ** np.arange(
            menus.marginals.shape[0], dtype=float
        )
        # Followers that do the leader's worst do not mind its budget.
        self.costs = menu_costs(problem, menus, budget=sign > 0.0)
        self.sign = sign
        self.sweeps = 0

    def objective(self, pick: NDArray[np.int64]) -> float:
        """Return V - w C of one entry each (n,)."""
        expected = self.problem.leader.expected(self.marginals(pick))
        return self.sign * (float(self.weights @ expected) - self.costs.total(pick))

    def marginals(self, pick: NDArray[np.int64]) -> FloatArray:
        """Label marginals (T, n, L) of one entry each."""
        return np.ascontiguousarray(self.menus.marginals[:, pick])

    def climb(
        self, pick: NDArray[np.int64], pairs: bool, trace: list[float]
    ) -> tuple[NDArray[np.int64], float]:
        """Improve follower by follower, then pair by pair, until nothing helps."""
        value = self.objective(pick)
        trace.append(value)
        while True:
            pick = self._sweep(pick)
            if pairs:
                pick = self._sweep_pairs(pick)
            following = self.objective(pick)
            if not better(following, value):
                return pick, max(value, following)
            value = following
            trace.append(value)

    def _sweep(self, pick: NDArray[np.int64]) -> NDArray[np.int64]:
        """Each follower in turn takes its best entry, given the others' as they are by then."""
        self.sweeps += 1
        pick = pick.copy()
        if self.problem.has_types:
            # All followers of a type move together: the reward is not linear in its marginals.
            for i in range(self.problem.n):
                entries = self.menus.of(i)
                trials = np.tile(pick, (entries.stop - entries.start, 1))
                trials[:, i] = np.arange(entries.start, entries.stop)
                worth = np.array([self.objective(trial) for trial in trials])
                if better(worth.max(), worth[pick[i] - entries.start]):
                    pick[i] = entries.start + int(np.argmax(worth))
            return pick
        marginals = self.marginals(pick)
        for i, conditional in enumerate(self.problem.leader.turns(marginals)):
            worth = self.worth(i, conditional, pick)
            first = self.menus.of(i).start
            best = int(np.argmax(worth))
            if better(worth[best], worth[pick[i] - first]):
                pick[i] = first + best
                marginals[:, i] = self.menus.marginals[:, pick[i]]
        return pick

    def worth(self, i: int, conditional: FloatArray, pick: NDArray[np.int64]) -> FloatArray:
        """Objective with each of follower i's entries, up to a constant."""
        return self.sign * (self.values(i, conditional) - self.costs.of(i, pick))

    def values(self, i: int, conditional: FloatArray) -> FloatArray:
        """V of each of follower i's entries, given its conditional rewards (T, L)."""
        entries = self.menus.of(i)
        marginals = self.menus.marginals[:, entries]
        weighted = self.weights[:, None] * conditional
        return np.einsum("tcl,tl->c", marginals, weighted)

    def single_values(self) -> FloatArray:
        """V - w C of every entry (C,) of the only follower."""
        marginals = self.marginals(self.menus.first[:1])
        conditional = next(iter(self.problem.leader.turns(marginals)))
        return self.worth(0, conditional, self.menus.first[:1])

    def pair_values(self, pick: NDArray[np.int64], i: int, j: int) -> FloatArray:
        """V - w C of every pair of entries (C_i, C_j) of two followers, the others as in pick."""
        menus = self.menus
        sizes = np.diff(menus.first)[[i, j]]
        check_large(
            f"Pricing all pairs of {sizes[0]} and {sizes[1]} best responses",
            24.0 * float(sizes[0]) * float(sizes[1]),
            LIST_REMEDY,
        )
        table = self.problem.leader.pair(self.marginals(pick), i, j)
        table *= self.weights[:, None, None]
        second = np.matmul(table, menus.marginals[:, menus.of(j)].transpose(0, 2, 1))
        first = menus.marginals[:, menus.of(i)].transpose(1, 0, 2)
        values = first.reshape(first.shape[0], -1) @ second.reshape(-1, second.shape[2])
        return np.asarray(self.sign * (values - self.costs.pair(i, j, pick)))

    def _sweep_pairs(self, pick: NDArray[np.int64]) -> NDArray[np.int64]:
        pick = pick.copy()
        for i, j in itertools.combinations(range(self.problem.n), 2):
            values = self.pair_values(pick, i, j)
            starts = self.menus.first[[i, j]]
            current = values[tuple(pick[[i, j]] - starts)]
            best = np.unravel_index(int(np.argmax(values)), values.shape)
            if better(values[best], current):
                pick[[i, j]] = np.array(best) + starts
        return pick

    def payments(self, pick: NDArray[np.int64]) -> FloatArray:
        """Payments (k,) that buy these entries."""
        return self.menus.payments(self.problem, pick)

    def policies(self, pick: NDArray[np.int64]) -> FloatArray:
        """Policies (n, S, A) of these entries."""
        return self.problem.followers.deterministic_policies(self.menus.actions[pick])

    def from_starts(
        self,
        count: int,
        pairs: bool,
        rng: np.random.Generator,
        payments: FloatArray,
        policies: FloatArray | None,
        trace: list[float],
    ) -> tuple[NDArray[np.int64], float]:
        """Climb from the entries nearest to a point, the cheapest and dearest, and random ones.

        The dearest are for leaders who earn only when all followers do as they are paid to.
        """
        paid = self.menus.spread.sum(axis=1)
        starts = [self.nearest(payments, policies), self._least(paid), self._least(-paid)]
        # With up to two followers one climb compares every combination.
        if pairs and self.problem.n <= 2:
            del starts[1:]
        else:
            first, last = self.menus.first[:-1], self.menus.first[1:]
            starts += [rng.integers(first, last) for _ in range(count)]
        best, top = starts[0], -np.inf
        for pick in starts:
            steps: list[float] = []
            found, value = self.climb(pick, pairs, steps)
            if value > top:
                best, top = found, value
                trace[:] = steps
        return best, top

    def nearest(self, payments: FloatArray, policies: FloatArray | None) -> NDArray[np.int64]:
        """Each follower's entry nearest to payments (k,), of equal ones the most similar policy."""
        menus, spread = self.menus, self.problem.payments.spread(payments)
        off = np.abs(menus.spread - spread[menus.owner]).sum(axis=1)
        if policies is not None:
            chosen = np.argmax(policies, axis=2)[menus.owner]
            off += 1e-9 * ((menus.laws != chosen) & (menus.laws >= 0)).sum(axis=1)
        return self._least(off)

    def like(self, laws: NDArray[np.int64]) -> NDArray[np.int64]:
        """Entries with these actions in visited states (n, S)."""
        off = (self.menus.laws != laws[self.menus.owner]).sum(axis=1)
        return self._least(off.astype(float))

    def _least(self, key: FloatArray) -> NDArray[np.int64]:
        """Entry (n,) with the smallest key (C,) in each menu."""
        order = np.lexsort((key, self.menus.owner))
        return np.asarray(order[self.menus.first[:-1]])
