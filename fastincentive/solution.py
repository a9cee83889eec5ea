"""What ``solve`` returns: the recovered point, the ascent's own last iterate, and the history."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._tables import name_value_list
from fastincentive.errors import NotConvergedError

__all__ = ["Ascent", "Ending", "History", "Refinement", "Solution", "Status", "lots"]


class Status(IntEnum):
    """Why a run ended."""

    CONVERGED = 0
    STALLED = 1
    MAX_ITER = 2
    STOPPED = 3


#: What each status means and what to do next.
MESSAGES = {
    Status.CONVERGED: "converged: the step and every follower's gap are below the tolerance",
    Status.STALLED: "stalled: steps became too small to make progress before the tolerance was "
    "met; start from other payments or policies, or use multiplier='per-follower'",
    Status.MAX_ITER: "stopped at max_iter before the tolerance was met; raise max_iter, or use "
    "another start or step",
    Status.STOPPED: "stopped by the callback",
}


class Ending(NamedTuple):
    """Why a run ended, and after how many iterations and counted evaluations."""

    status: Status
    message: str
    iterations: int
    evaluations: int = 0


@dataclass
class History:
    """One entry per iteration, each evaluated at that iteration's own point (x, theta).

    ``stationarity`` is K of Definition 1, inf where ``solve`` was not asked to measure it.
    """

    leader_value: list[float] = field(default_factory=list)
    objective: list[float] = field(default_factory=list)
    feasibility: list[float] = field(default_factory=list)
    largest_gap: list[float] = field(default_factory=list)
    multiplier: list[float] = field(default_factory=list)
    residual: list[float] = field(default_factory=list)
    stationarity: list[float] = field(default_factory=list)
    payments: list[FloatArray] = field(default_factory=list)

    def arrays(self) -> dict[str, FloatArray]:
        """Return every column as an array: (nit,), and (nit, k) for the payments."""
        return {name: np.array(column, float) for name, column in vars(self).items()}

    def __len__(self) -> int:
        """Return the number of iterations recorded."""
        return len(self.objective)


@dataclass(frozen=True)
class Ascent:
    """The method's own last point (x, theta), which may miss feasibility by a little.

    Attributes
    ----------
    payments : array (k,)
    theta : array (n, S, A)
        Policy parameters.
    policies : array (n, S, A)
        pi_theta.
    leader_value, objective, feasibility : float
        V(pi_theta), f and q at exactly this point, q under the response model of the method.
    follower_gaps : array (n,)
        V_i* - V_i(pi_theta_i) under the response model of the method.
    multipliers : array (n,)
        Each follower's lambda (equal entries for the joint multiplier).
    stationarity : float
        K of Definition 1, projected (see ``certificate.stationarity``); of ``HyperGradient`` the
        largest entry of the projected hypergradient, of ``ZerothOrder`` the last radius.
    price : float
        Multiplier of a budget on ``ExpectedSpend``: what the objective would gain by a unit more of
        it, to first order. 0 where the budget is not used up, is on the payments alone, or is none.
    """

    payments: FloatArray
    theta: FloatArray
    policies: FloatArray
    leader_value: float
    objective: float
    feasibility: float
    follower_gaps: FloatArray
    multipliers: FloatArray
    stationarity: float
    price: float = 0.0


@dataclass(frozen=True)
class Refinement:
    """What the search over regimes started from, and how far it looked.

    Attributes
    ----------
    payments : array (k,)
        The payments before: those recovered from the ascent's last iterate.
    leader_value, objective, pessimistic_objective : float
        At those payments, exact best responses, ties broken for (against) the leader.
    improvement : float
        Objective after less objective before, >= 0 (of the pessimistic ones for
        ``WeakStackelberg``).
    entries : int
        Best responses that were priced, all followers together.
    sweeps : int
        Rounds over all followers, all starts together.
    complete : bool
        Whether every best response on the lines searched was listed. Then, with one payment per
        follower, the result is unilaterally optimal: no other payments to one follower are better.
        Where followers share payments: whether all combinations of tied responses were compared at
        every breakpoint; then one payment for all is the best there is.
    """

    payments: FloatArray
    leader_value: float
    objective: float
    pessimistic_objective: float
    improvement: float
    entries: int
    sweeps: int
    complete: bool


@dataclass(frozen=True)
class Solution:
    """What the leader really gets: payments as posted and exact best responses to them.

    Attributes
    ----------
    payments : array (k,)
        The payments to post.
    side_payments : array (n, S, A)
        The same as x(i, s, a).
    policies : array (n, S, A)
        Exact best responses, ties broken for the leader, by lot where that is best: see ``mixed``.
    leader_value, cost, objective : float
        V, C, and V - w C at this point.
    nominal_spend, expected_spend : float
        The plain sum of the payments, and what is paid out in expectation, discounted by the
        leader (inf if a follower is paid for ever at a leader's discount of 1).
    feasibility : float
        q <= 0; zero up to rounding.
    follower_gaps : array (n,)
    pessimistic_value, pessimistic_objective : float
        The same payments, ties broken against the leader.
    pessimistic_policies : array (n, S, A)
    success : bool
        Whether the method converged.
    status : Status
    message : str
    nit : int
        Iterations of the method.
    history : History
    ascent : Ascent or None
        The ascent's own last iterate, before recovery; None for methods without one.
    refinement : Refinement or None
        What the search over regimes added; None with ``refine=False``.
    upper_bound : float
        No payments have a larger objective, whatever best responses followers take, by lot or
        not; inf unless ``solve(..., certify=True)``.
    evaluations : int
        How often ``ZerothOrder`` evaluated the objective; 0 for methods that do not count.
    margins : array (n,) or None
        How close the nearest non-tie is: the least that each follower loses by an action that is
        not optimal, in a state that optimal actions lead to; inf if there is none. Actions that
        differ by less than about 2e-11 of what is added up at the state count as tied.
    mixed : bool array (n, S) or None
        States that followers visit and in which ``policies`` draw lots between tied actions. The
        leader's value depends on it, so these followers must be told how to break their ties.
    plan : str
        What ``solve`` did, by name, and why where it chose.
    """

    payments: FloatArray
    side_payments: FloatArray
    policies: FloatArray
    leader_value: float
    cost: float
    objective: float
    nominal_spend: float
    expected_spend: float
    feasibility: float
    follower_gaps: FloatArray
    pessimistic_value: float
    pessimistic_objective: float
    pessimistic_policies: FloatArray
    success: bool
    status: Status
    message: str
    nit: int
    history: History
    ascent: Ascent | None
    refinement: Refinement | None = None
    upper_bound: float = np.inf
    evaluations: int = 0
    margins: FloatArray | None = None
    mixed: NDArray[np.bool_] | None = None
    plan: str = ""

    @property
    def optimality_gap(self) -> float:
        """Upper bound less objective, inf without a bound."""
        return max(self.upper_bound - self.objective, 0.0)

    def raise_if_failed(self) -> Solution:
        """Return the solution itself, or raise NotConvergedError if the ascent did not converge."""
        if not self.success:
            raise NotConvergedError(self.message)
        return self

    def __str__(self) -> str:
        """Return a short table."""
        rows = [
            ("plan", self.plan),
            ("status", self.message),
            ("iterations", self.nit),
            ("payments", np.array2string(self.payments, precision=6, threshold=8)),
            ("leader value", f"{self.leader_value:.6f}"),
            ("objective", f"{self.objective:.6f}"),
            ("feasibility q", f"{self.feasibility + 0.0:.3e}"),  # never -0
            ("pessimistic objective", f"{self.pessimistic_objective:.6f}"),
            ("spend", f"{self.nominal_spend:.6f} nominal, {self.expected_spend:.6f} expected"),
        ]
        if self.margins is not None:
            rows.append(("nearest non-tie", f"{self.margins.min():.3e}"))
        if self.mixed is not None and self.mixed.any():
            rows.append(("followers to be told", lots(self.policies, self.mixed)))
        if self.upper_bound < np.inf:
            rows.append(("upper bound", f"{self.upper_bound:.6f}"))
        if self.refinement is not None:
            rows.append(("before refinement", f"{self.refinement.objective:.6f}"))
        if self.ascent is not None:
            rows += [
                ("largest gap at theta", f"{self.ascent.follower_gaps.max():.3e}"),
                ("stationarity K", f"{self.ascent.stationarity:.3e}"),
            ]
        return name_value_list(rows if self.plan else rows[1:])


#: States that are written out where lots are drawn.
_SHOWN = 4


def lots(policies: FloatArray, mixed: NDArray[np.bool_]) -> str:
    """Say with what probabilities followers draw lots in the states that are ``mixed`` (n, S)."""
    where = np.argwhere(mixed)
    texts = []
    for i, s in where[:_SHOWN].tolist():
        chances = (f"{a} with {policies[i, s, a]:.6g}" for a in np.flatnonzero(policies[i, s] > 0))
        texts.append(f"follower {i} in state {s} takes action " + ", ".join(chances))
    if len(where) > _SHOWN:
        texts.append(f"and {len(where) - _SHOWN} more")
    return "; ".join(texts)
