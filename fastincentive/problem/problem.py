"""The incentive design problem: followers, leader and payments; f, q and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from types import EllipsisType
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive.errors import InputError, invalid, shown
from fastincentive.followers.followers import Followers
from fastincentive.followers.mdp import TabularMDP
from fastincentive.leader.base import LeaderReward
from fastincentive.problem.costs import Cost, ExpectedSpend, LinearCost
from fastincentive.problem.evaluation import Evaluation
from fastincentive.problem.fingerprint import fingerprint
from fastincentive.problem.leader_side import LeaderSide
from fastincentive.problem.memory import MemoryEstimate, estimate_memory, horizons_of
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.passes import Forward
from fastincentive.problem.payments import Payments
from fastincentive.problem.spending import Spending

__all__ = ["IncentiveProblem"]


#: Times that a forward pass may be asked for, whatever ``max_horizon`` is.
MOST_TIMES = 10**6


class Engine(Protocol):
    """What ``memory_estimate`` asks of an engine."""

    def largest_shard(self, problem: IncentiveProblem) -> ProblemPart:
        """Return the shard with most followers."""
        ...


class IncentiveProblem(ProblemPart):
    """Incentive design for n independent followers (Problem 1 of the paper).

    Parameters
    ----------
    followers : Followers or sequence of TabularMDP
        The lower level.
    leader : LeaderReward
        The leader's reward on the joint state.
    payments : Payments
        Where the leader may pay.
    leader_discount : float in [0, 1]
        At 1 the reward must vanish once every follower is in a closed class of states.
    cost_weight : float
        w >= 0 in f = V - w C(x).
    cost : Cost or ExpectedSpend, optional
        C; by default the sum of the payment variables. ``LinearCost``, ``QuadraticCost``,
        ``ExpectedSpend`` or any object with ``value(payments)`` and ``gradient(payments)``.
    tail_tolerance : float
        Sums over time stop when the rest is certified below this times the largest |reward|.
    max_horizon : int
        Sums over time stop here in any case, with a TruncationWarning and the bound on the rest.

    Raises
    ------
    InputError
        If the parts do not fit together.
    """

    @checked
    def __init__(
        self,
        followers: Followers | Sequence[TabularMDP],
        leader: LeaderReward,
        payments: Payments,
        leader_discount: float = 1.0,
        cost_weight: float = 0.1,
        cost: Cost | ExpectedSpend | None = None,
        *,
        tail_tolerance: float = 1e-12,
        max_horizon: int = 20_000,
    ) -> None:
        if not isinstance(followers, Followers):
            followers = Followers(followers)
        if not isinstance(leader, LeaderReward):
            raise InputError(f"leader: expected a LeaderReward, got {type(leader).__name__}")
        if not isinstance(payments, Payments):
            raise InputError(
                f"payments: expected a Payments (for example fi.Payments.everywhere()), "
                f"got {type(payments).__name__}"
            )
        if not 0.0 <= leader_discount <= 1.0:
            raise invalid("leader_discount", "a number in [0, 1]", leader_discount)
        weight = _weight(cost_weight)
        if not tail_tolerance > 0:
            raise invalid("tail_tolerance", "a number > 0", tail_tolerance)
        if max_horizon < 1:
            raise invalid("max_horizon", "a positive integer", max_horizon)
        bound_leader = (
            leader.bind_types(followers.counts, *followers.shape[1:])
            if followers.population > followers.n
            else leader.bind(*followers.shape)
        )
        cost = LinearCost() if cost is None else cost
        discount = float(leader_discount)
        spending = Spending(followers, payments.bind(followers, cost), cost, discount)
        leader_side = LeaderSide(
            followers, bound_leader, discount, float(tail_tolerance), int(max_horizon)
        )
        super().__init__(followers, leader_side, spending, weight, payments.budget)
        #: The map behind a grid problem, for plots.
        self.grid: object | None = None

    @property
    def tail_tolerance(self) -> float:
        """Sums over time stop when the rest is certified below this times ``magnitude``."""
        return self.leader_side.tail_tolerance

    @property
    def max_horizon(self) -> int:
        """Sums over time stop here in any case."""
        return self.leader_side.max_horizon

    @property
    def small(self) -> bool:
        """Whether a leader pass may take the product space, or two followers at once."""
        return self.leader_side.small

    def __repr__(self) -> str:
        """Return the sizes."""
        n, states, actions = self.followers.shape
        return (
            f"IncentiveProblem(n={n}, n_states={states}, n_actions={actions}, "
            f"n_payments={self.payments.size}, leader_discount={self.leader_discount}, "
            f"cost_weight={self.cost_weight})"
        )

    @checked
    def replace(
        self,
        *,
        cost_weight: float | None = None,
        budget: float | EllipsisType | None = ...,
        followers: Followers | Sequence[TabularMDP] | None = None,
    ) -> IncentiveProblem:
        """Return a copy with another cost weight, budget or followers; the rest is shared.

        Parameters
        ----------
        cost_weight : float, optional
            By default the problem's own.
        budget : float or None, optional
            Bound on the cost, None for none; by default the problem's own.
        followers : Followers or sequence of TabularMDP, optional
            Other models of the followers, with the same sizes and counts.

        Raises
        ------
        InputError
            If the weight or budget is negative or not a number, the cost takes no budget, or the
            followers do not fit: as when a problem is built.
        """
        new, leader_side, spending = self.followers, self.leader_side, self.spending
        if followers is not None:
            new = followers if isinstance(followers, Followers) else Followers(followers)
            old = self.followers
            if new.shape != old.shape or not np.array_equal(new.counts, old.counts):
                raise invalid("followers", f"those of {old!r}, sizes and counts", repr(new))
            leader_side = LeaderSide(
                new, self.leader, self.leader_discount, self.tail_tolerance, self.max_horizon
            )
        limit = self.budget if isinstance(budget, EllipsisType) else budget
        if followers is not None or not isinstance(budget, EllipsisType):
            payments = Payments.from_index(self.payments.index, self.payments.stated_upper, limit)
            limit = payments.budget
            bound_payments = payments.bind(new, self.cost)
            spending = Spending(new, bound_payments, self.cost, self.leader_discount)
        weight = self.cost_weight if cost_weight is None else _weight(cost_weight)
        other = copy(self)  # what is no part of it stays: the map
        ProblemPart.__init__(other, new, leader_side, spending, weight, limit)
        return other

    def fingerprint(self) -> str:
        """Return a digest of all that the values depend on: equal for equal problems.

        The leader's reward enters through its expectations at a few label marginals.
        """
        return fingerprint(self)

    # -- the leader ---------------------------------------------------------------------------

    @checked
    def leader_value(self, policies: ArrayLike) -> float:
        """V(pi): the leader's expected discounted reward under policies (n, S, A), eq. 1.

        Policies may be float32, see ``leader_gradient``. One without a bound is an InputError.
        """
        checked = self.followers.check_policies(policies, single=not self.small)
        return self.leader_side.leader_pass(checked, False, warn=True, unbounded=False).value

    @checked
    def leader_gradient(self, policies: ArrayLike) -> FloatArray:
        """dV/dpi (n, S, A): every policy entry a free variable; 0 at unavailable actions.

        At a leader's discount of 1 the derivative is infinite where a follower idles for ever in a
        state that it could leave to the leader's profit; only a finite time of it is counted.
        float32 policies give a float32 gradient, in half the memory. Sums are taken in float64; but
        each policy entry is off by up to 6e-8 of itself, which changes a law at time t by 6e-8 t,
        and the result is rounded. (Float64 all the same where the product space is small.)
        """
        checked = self.followers.check_policies(policies, single=not self.small)
        gradient = self.leader_side.leader_pass(checked, warn=True, unbounded=False).gradient
        assert gradient is not None  # for the type checker: gradient=True returns one
        return gradient

    @checked
    def joint_occupancy(
        self, policies: ArrayLike, method: str = "auto", max_gib: float = 2.0
    ) -> FloatArray:
        """Unnormalised visitation d(s_1, ..., s_n) = sum_t gamma^t prod_i Pr(s_i^t), (S,)*n.

        At discount 1 the joint states in which all followers are absorbed stay at 0 (they are
        visited for ever).

        Parameters
        ----------
        policies : array (n, S, A)
        method : "auto", "sum" or "stein"
            Sum over time, or (two followers) the Stein equation W = mu_1 mu_2' + gamma P_1' W P_2
            by doubling. "auto" takes the sum.
        max_gib : float
            Refuse to allocate more than this for the result.

        Raises
        ------
        ProductSpaceTooLargeError
            If the table would need more than ``max_gib`` GiB.
        """
        checked = self.followers.check_policies(policies)
        self.refuse_types("joint_occupancy")
        return self.leader_side.joint_occupancy(checked, method, max_gib)

    @checked
    def joint_values(self, policies: ArrayLike, max_gib: float = 2.0) -> FloatArray:
        """Leader's value W(s_1, ..., s_n) from every joint state, (S,)*n.

        The solution of W = R + gamma (P_1 x ... x P_n) W, where R(s_1, ..., s_n) is the expected
        reward of one step there, by doubling: a relative residual of about 1e-14. At discount 1
        W is 0 where the leader earns nothing any more.

        Parameters
        ----------
        policies : array (n, S, A)
        max_gib : float
            Refuse to allocate more than this for the result; a few more tables of its size are
            needed on the way.

        Returns
        -------
        array (S,)*n
            ``leader_value`` is its mean over the independent initial states.

        Raises
        ------
        ProductSpaceTooLargeError
            If the table would need more than ``max_gib`` GiB.

        Warns
        -----
        TruncationWarning
            If at discount 1 some policy is never absorbed, from some joint state, where the leader
            earns: what is returned are then the first ``max_horizon`` steps or somewhat more.
        """
        checked = self.followers.check_policies(policies)
        self.refuse_types("joint_values")
        return self.leader_side.joint_values(checked, max_gib)

    @checked
    def forward(
        self,
        policies: FloatArray,
        limit: int | None = None,
        discount: float | None = None,
        gradient: bool = False,
        measure: bool = False,
    ) -> Forward:
        """State laws and label marginals up to the certified horizon or the limit, with the bound.

        A ``gradient`` asks for more times than the value; ``measure`` asks for nothing but the
        horizon.
        """
        if limit is not None and not 1 <= limit <= max(self.max_horizon, MOST_TIMES):
            most = max(self.max_horizon, MOST_TIMES)
            raise invalid("limit", f"an integer in 1..{most:g}", limit)
        if discount is not None and not 0.0 <= discount <= 1.0:
            raise invalid("discount", "a number in [0, 1]", discount)
        return self.leader_side.forward(policies, limit, discount, gradient, measure)

    # -- the cost -----------------------------------------------------------------------------

    @checked
    def cost_at(self, payments: ArrayLike, policies: ArrayLike) -> float:
        """C at payments (k,) and policies (n, S, A), whether they keep the budget or not.

        Raises
        ------
        InputError
            If payments or policies have another shape or are out of bounds.
        """
        x, checked = self._check_point(payments, policies)
        return self.cost_pass(x, checked, gradient=False).value

    @checked
    def cost_gradient(
        self, payments: ArrayLike, policies: ArrayLike
    ) -> tuple[FloatArray, FloatArray | None]:
        """dC/dx (k,) and dC/dpi (n, S, A), None if the cost does not depend on policies.

        As in ``leader_gradient`` every policy entry is a free variable, and entries of unavailable
        actions are 0. Where a follower is paid for ever at a leader's discount of 1 the derivatives
        are infinite; only a finite time is counted.

        Raises
        ------
        InputError
            If payments or policies have another shape or are out of bounds.
        """
        found = self.cost_pass(*self._check_point(payments, policies))
        return found.payments, found.policies

    @checked
    def expected_spend(self, payments: ArrayLike, policies: ArrayLike) -> float:
        """Compute the expected total paid out, discounted by the leader, whatever the cost.

        sum_i sum_t gamma^t E[x(i, s_t, a_t)] with the leader's gamma. At discount 1 it is inf if a
        follower is paid for ever, in states that it never leaves.

        Parameters
        ----------
        payments : float or array (k,)
        policies : array (n, S, A)

        Raises
        ------
        InputError
            If payments or policies have another shape or are out of bounds.
        """
        x, checked = self._check_point(payments, policies)
        return self.spending.expected(x, checked)

    @checked
    def within_budget(self, payments: ArrayLike, policies: ArrayLike, slack: float = 1e-9) -> bool:
        """Whether C at this point is at most the budget, up to the relative ``slack``.

        True without a budget.

        Raises
        ------
        InputError
            If payments or policies have another shape or are out of bounds.
        """
        return self.budget is None or self.affords(self.cost_at(payments, policies), slack)

    def _check_point(
        self, payments: ArrayLike, policies: ArrayLike
    ) -> tuple[FloatArray, FloatArray]:
        return self.payments.check_bounds(payments), self.followers.check_policies(policies)

    # -- memory -------------------------------------------------------------------------------

    @checked
    def memory_estimate(
        self, policies: ArrayLike | None = None, engine: Engine | None = None
    ) -> MemoryEstimate:
        """Estimate the memory of a leader gradient and of a solve, part by part, before they run.

        Where the discount does not give the horizon, it is counted along the followers' chains, in
        about the time of ``leader_value`` and little memory. A leader pass that the machine cannot
        hold raises MemoryLimitError by itself, before it takes a GiB or more.

        Parameters
        ----------
        policies : array (n, S, A), optional
            Where the horizon is counted; uniform by default. At a leader's discount of 1 other
            policies may need a longer one, up to ``max_horizon``.
        engine : Engine, optional
            Count the largest shard of a run on this engine instead: what one of its workers holds.
            Where ``solve`` is called the problem, label marginals and conditional rewards of all
            followers are held as well, and in the end what recovery needs.

        Returns
        -------
        MemoryEstimate
            Bytes by part, ``.leader_pass`` and ``.total``; ``str`` gives a table, and
            ``.raise_if_too_large()`` refuses what the machine cannot hold.

        Raises
        ------
        InputError
            If the policies have another shape or are none.

        Examples
        --------
        >>> from fastincentive.models import random_problem
        >>> estimate = random_problem(3, rng=0).memory_estimate()
        >>> 0 < estimate.leader_pass < estimate.total < 2**20
        True
        """
        checked = None if policies is None else self.followers.check_policies(policies)
        if engine is not None and not hasattr(engine, "largest_shard"):
            raise invalid("engine", "engines.Local() or engines.Dask(client)", shown(engine))
        part: ProblemPart = self if engine is None else engine.largest_shard(self)
        # What follows a run is not done by the workers that share it.
        return estimate_memory(part, horizons_of(self, checked, part.followers.n == self.n))

    # -- both levels --------------------------------------------------------------------------

    @checked
    def evaluate(
        self, payments: ArrayLike, policies: ArrayLike, *, unbounded: bool = False
    ) -> Evaluation:
        """Leader's value, cost, objective, follower values and gaps, and feasibility at a point.

        Parameters
        ----------
        payments : float or array (k,)
        policies : array (n, S, A)
        unbounded : bool
            Whether a value may be infinite: at a leader's discount of 1, where a follower stays for
            ever and the leader earns or loses there. Else that is an InputError.
        """
        x = self.payments.check(payments)
        checked = self.followers.check_policies(policies)
        leader = self.leader_side.leader_pass(checked, False, True, unbounded=unbounded)
        rewards = self.rewards(x)
        values = self.followers.start_values(
            self.followers.evaluate(rewards, checked, checked=True).values
        )
        best = self.followers.start_values(self.followers.best_responses(rewards).values)
        cost = self.cost_pass(x, checked, gradient=False).value
        return self.assemble(leader, cost, values, best)


def _weight(value: float) -> float:
    if 0.0 <= value < np.inf:
        return float(value)
    raise invalid("cost_weight", "a finite number >= 0", value)
