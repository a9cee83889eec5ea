"""The incentive design problem: followers, leader and payments; f, q and their gradients."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from copy import copy
from hashlib import sha256
from types import EllipsisType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import InputError, TruncationWarning, invalid
from fastincentive.followers.chains import settled_states
from fastincentive.followers.followers import Followers
from fastincentive.followers.mdp import TabularMDP
from fastincentive.leader.base import BoundReward, LeaderReward
from fastincentive.problem import product_space
from fastincentive.problem.costs import Cost, ExpectedSpend, LinearCost, Payouts, expected_payouts
from fastincentive.problem.doubling import MOST_TERMS
from fastincentive.problem.memory import MemoryEstimate, estimate_memory
from fastincentive.problem.passes import SHORT_STEPS, Forward, ForwardPass, LeaderPass
from fastincentive.problem.payments import ROUNDING, Payments
from fastincentive.problem.queries import (
    Conditional,
    CostOf,
    Expected,
    Query,
    SequentialReduce,
    run_single,
)

if TYPE_CHECKING:
    from fastincentive.engines import Engine
from fastincentive.problem.evaluation import Evaluation

__all__ = ["IncentiveProblem"]

#: Sums over time take at least so many steps before doubling is tried.
LEAST_STEPS = 64


class CostPass(NamedTuple):
    """The cost at a point and its derivatives."""

    value: float
    payments: FloatArray  # (k,) dC/dx
    policies: FloatArray | None  # (n, S, A) dC/dpi; None if the cost does not depend on policies


class _Spent(NamedTuple):
    """What all followers of a type are paid in expectation."""

    value: float
    visits: FloatArray  # (n, S, 1)
    q_values: FloatArray  # (n, S, A), 0 at unavailable actions


class IncentiveProblem:
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
        #: Whether types of followers have counts above 1.
        self.has_types = followers.population > followers.n
        self.leader: BoundReward = (
            leader.bind_types(followers.counts, *followers.shape[1:])
            if self.has_types
            else leader.bind(*followers.shape)
        )
        self.cost: Cost | ExpectedSpend = LinearCost() if cost is None else cost
        self.payments = payments.bind(followers, self.cost)
        #: Which payments (k,) of the whole problem these are: all, but in a shard of it.
        self.variables = np.arange(self.payments.size)
        #: Whether a shard must ask for the cost.
        self.cost_is_asked = False
        #: Bound on the cost, or None.
        self.budget = payments.budget
        self.leader_discount = float(leader_discount)
        self.cost_weight = weight
        self.tail_tolerance = float(tail_tolerance)
        self.max_horizon = int(max_horizon)
        self._meet(followers)
        #: The map behind a grid problem, for plots.
        self.grid: object | None = None

    def _meet(self, followers: Followers) -> None:
        """Find what depends on the followers' models and the leader together."""
        self.followers = followers
        packed = followers.packed
        #: Whether some policies may be improper: some follower does not discount.
        self.undiscounted = bool((packed.discount == 1.0).any())
        #: The forward and backward passes over the followers' chains.
        self.passes = ForwardPass(followers, self.leader, self.max_horizon)
        #: Largest |reward| of the leader.
        self.magnitude = self.leader.magnitude(self.label_mask(packed.initial >= 0))
        absorbed = self.label_mask(packed.absorbing[packed.model])
        #: Whether the leader earns nothing once every follower is absorbed.
        self.free_when_absorbed = self.leader.magnitude(absorbed) == 0.0
        if self.leader_discount == 1.0 and not self.free_when_absorbed:
            raise invalid(
                "leader",
                "reward 0 once every follower is in a closed class of states, because the "
                "leader's discount is 1",
                f"up to {self.leader.magnitude(absorbed):g} a step for ever",
                None,
                "Use leader_discount below 1, or give the followers a sink where the leader "
                "earns nothing.",
            )
        #: After so many steps doubling on the product space is cheaper.
        self._most_steps = np.inf
        if self.leader.labels.shape[2] == 1 and not self.has_types:
            self._most_steps = max(
                LEAST_STEPS,
                product_space.break_even(followers, self.passes.pattern, self.leader.n_labels),
            )

    @property
    def n(self) -> int:
        """Number of followers."""
        return self.followers.n

    @property
    def small(self) -> bool:
        """Whether a leader pass may take the product space, or two followers at once."""
        return self.passes.has_table or self._most_steps < self.max_horizon

    def __repr__(self) -> str:
        """Return the sizes."""
        n, states, actions = self.followers.shape
        return (
            f"IncentiveProblem(n={n}, n_states={states}, n_actions={actions}, "
            f"n_payments={self.payments.size}, leader_discount={self.leader_discount}, "
            f"cost_weight={self.cost_weight})"
        )

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
        other = copy(self)
        if followers is not None:
            new = followers if isinstance(followers, Followers) else Followers(followers)
            old = self.followers
            if new.shape != old.shape or not np.array_equal(new.counts, old.counts):
                raise invalid("followers", f"those of {old!r}, sizes and counts", repr(new))
            bound = self.payments
            payments = Payments.from_index(bound.index, bound.upper, self.budget)
            other.payments = payments.bind(new, self.cost)
            other._meet(new)
        if cost_weight is not None:
            other.cost_weight = _weight(cost_weight)
        if not isinstance(budget, EllipsisType):
            bound = self.payments
            payments = Payments.from_index(bound.index, bound.upper, budget)
            other.payments = payments.bind(self.followers, self.cost)
            other.budget = payments.budget
        return other

    def fingerprint(self) -> str:
        """Return a digest of the followers, leader, payments and weights: equal for equal problems.

        The leader's reward enters through its expectations at a few label marginals.
        """
        shape = (4, self.n, self.leader.n_labels)
        marginals = np.random.default_rng(0).dirichlet(np.ones(shape[2]), size=shape[:2])
        if isinstance(self.cost, ExpectedSpend):
            spend = "expected spend"
            cost = [np.broadcast_to(self.cost.prices, self.payments.size)]
        else:
            spend = ""
            cost = [
                np.asarray(self.cost.gradient(np.linspace(low, 1.0, self.payments.size)), float)
                for low in (0.0, 1.0)
            ]
        digest = sha256(repr((self.leader_discount, self.cost_weight, spend)).encode())
        for array in (
            *self.followers.packed,
            self.followers.rewards,
            self.leader.labels,
            *self.leader.expectations(marginals),
            self.payments.index,
            self.payments.upper,
            np.array(np.inf if self.budget is None else self.budget),
            *cost,
            *([self.followers.counts] if self.has_types else []),
        ):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    # -- the leader ---------------------------------------------------------------------------

    def leader_value(self, policies: ArrayLike) -> float:
        """V(pi): the leader's expected discounted reward under policies (n, S, A), eq. 1.

        Policies may be float32, see ``leader_gradient``.
        """
        checked = self.followers.check_policies(policies, single=not self.small)
        return self.leader_pass(checked, gradient=False, warn=True).value

    def leader_gradient(self, policies: ArrayLike) -> FloatArray:
        """dV/dpi (n, S, A): every policy entry a free variable; 0 at unavailable actions.

        At a leader's discount of 1 the derivative is infinite where a follower idles for ever in a
        state that it could leave to the leader's profit; only a finite time of it is counted.

        float32 policies give a float32 gradient, which takes half the memory. Sums are taken in
        float64; but each policy entry is off by up to 6e-8 of itself, which changes a law at time t
        by up to 6e-8 t, and the result is rounded. (Float64 all the same where the problem is small
        enough for its product space.)
        """
        checked = self.followers.check_policies(policies, single=not self.small)
        gradient = self.leader_pass(checked, warn=True).gradient
        assert gradient is not None  # for the type checker: gradient=True returns one
        return gradient

    def leader_pass(
        self,
        policies: FloatArray,
        gradient: bool = True,
        warn: bool = False,
        discount: float | None = None,
    ) -> LeaderPass:
        """Forward marginals, conditional rewards, backward adjoint; policies are not checked.

        ``discount`` stands in for the leader's own. Doubling on the product space takes over
        where so many steps would be needed that it is cheaper.
        """
        found = run_single(self.leader_pass_steps(policies, gradient, discount), self)
        if warn:
            relative = found.truncation / max(self.magnitude, 1e-300)
            self._warn_if_cut("leader's value", found.horizon, found.truncation, relative)
        return found

    def leader_pass_steps(
        self, policies: FloatArray, gradient: bool = True, discount: float | None = None
    ) -> Generator[Query, Any, LeaderPass]:
        """As ``leader_pass``, for a shard of the followers that asks what it must know of all."""
        gamma = self.leader_discount if discount is None else discount
        tolerance = self._tolerance(gradient)
        limit = int(min(self._most_steps, self.max_horizon))
        short = self.passes.short(
            policies, gamma, limit, tolerance, self.magnitude, self.free_when_absorbed, gradient
        )
        if short is not None and short.horizon > 0:
            return short
        if short is not None and limit <= SHORT_STEPS and limit < self.max_horizon:
            packed = self.followers.packed
            settled = packed.absorbing[packed.model] if self.free_when_absorbed else None
            return self._doubled(policies, gamma, settled, limit, gradient)
        found = yield from self._forward_steps(policies, limit, gamma, gradient)
        if found.marginals.shape[0] == limit < self.max_horizon:
            if _doubles(found, gamma):
                return self._doubled(policies, gamma, found.settled, limit, gradient)
            found = yield from self._forward_steps(policies, None, gamma, gradient)
        horizon, truncation = found.marginals.shape[0], found.truncation
        slopes = None
        if gradient:
            conditional = yield Conditional(found.marginals)
            value, slopes = self.passes.gradients(policies, found, conditional, gamma)
        else:
            expected = yield Expected(found.marginals)
            value = float(gamma ** np.arange(horizon) @ expected)
        return LeaderPass(value, slopes, horizon, truncation)

    def _doubled(
        self,
        policies: FloatArray,
        gamma: float,
        settled: NDArray[np.bool_] | None,
        steps: int,
        gradient: bool,
    ) -> LeaderPass:
        """Value and gradient by doubling, where ``steps`` steps were not enough."""
        found = product_space.joint_pass(
            self.followers,
            self.passes.pattern,
            policies,
            self.leader.joint_table(policies),
            gamma,
            None if settled is None else ~settled,
            gradient,
        )
        return LeaderPass(found.value, found.gradient, steps, found.left)

    def _warn_if_cut(
        self, what: str, horizon: int, truncation: float, relative: float | None = None
    ) -> None:
        if (truncation if relative is None else relative) > 1e-6:
            warnings.warn(
                f"the {what} was cut after {horizon} steps; what is left out is bounded by "
                f"{truncation:.3g}. Some policy is absorbed too slowly or never; raise "
                "max_horizon or use leader_discount < 1.",
                TruncationWarning,
                stacklevel=4,
            )

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
        n, states, _ = self.followers.shape
        if method not in ("auto", "sum", "stein"):
            raise invalid("method", '"auto", "sum" or "stein"', repr(method))
        product_space.check_memory("joint_occupancy", states, n, max_gib)
        if method == "stein":
            if n != 2:
                raise invalid("method", '"sum" unless there are two followers', '"stein"')
            stein = product_space.stein_visitation(self.followers, checked, self.leader_discount)
            self._warn_if_cut("joint occupancy", stein.terms, stein.left)
            return stein.total
        gamma = self.leader_discount
        found = self.passes.run(
            checked,
            gamma,
            self.max_horizon,
            self.tail_tolerance,
            1.0,
            settles=gamma == 1.0,
            visits=True,
        )
        self._warn_if_cut("joint occupancy", found.marginals.shape[0], found.truncation)
        return product_space.summed_visitation(self.followers, found.laws, gamma)

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
        n, states, _ = self.followers.shape
        product_space.check_memory("joint_values", states, n, max_gib)
        settled = self.followers.packed.absorbing[self.followers.packed.model]
        ends = self.free_when_absorbed
        if ends and self.leader_discount == 1.0:
            settled = settled_states(self.followers, checked)
            ends = self.leader.magnitude(self.label_mask(settled)) == 0.0
        bounded = ends or self.leader_discount < 1.0
        found = product_space.joint_values(
            self.followers,
            self.passes.pattern,
            checked,
            self.leader.joint_table(checked),
            self.leader_discount,
            ~settled if ends else None,
            MOST_TERMS if bounded else self.max_horizon,
        )
        scale = max(1.0, float(np.abs(found.total).max()))
        self._warn_if_cut("joint values", found.terms, found.left, found.left / scale)
        return found.total

    def refuse_types(self, what: str) -> None:
        """Raise if there are counts above 1, which ``what`` does not know."""
        if self.has_types:
            raise InputError(
                f"followers: expected counts of 1 for {what}, got {self.followers.population} "
                f"followers of {self.n} types. List the followers one by one."
            )

    def label_mask(self, states: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(n, L) bool: the labels that the marked states (n, S) can show."""
        return self.passes.label_mask(states)

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
        return run_single(self._forward_steps(policies, limit, discount, gradient, measure), self)

    def _forward_steps(
        self,
        policies: FloatArray,
        limit: int | None,
        discount: float | None,
        gradient: bool,
        measure: bool = False,
    ) -> Generator[Query, Any, Forward]:
        return self.passes.run_steps(
            policies,
            self.leader_discount if discount is None else discount,
            self.max_horizon if limit is None else limit,
            self._tolerance(gradient),
            self.magnitude,
            self.free_when_absorbed,
            gradient,
            measure=measure,
        )

    def _tolerance(self, gradient: bool) -> float:
        """Bound on the tail: a gradient is as large as values times visits, so it is cut later."""
        return self.tail_tolerance * self.magnitude * (0.05 if gradient else 1.0)

    # -- the cost -----------------------------------------------------------------------------

    def cost_at(self, payments: ArrayLike, policies: ArrayLike) -> float:
        """C at payments (k,) and policies (n, S, A), whether they keep the budget or not.

        Raises
        ------
        InputError
            If payments or policies have another shape or are out of bounds.
        """
        x, checked = self._check_point(payments, policies)
        return self.cost_pass(x, checked, gradient=False).value

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
        return float(self.followers.counts @ self._payouts(x, checked).values)

    def within_budget(self, payments: ArrayLike, policies: ArrayLike, slack: float = 1e-9) -> bool:
        """Whether C at this point is at most the budget, up to the relative ``slack``.

        True without a budget.

        Raises
        ------
        InputError
            If payments or policies have another shape or are out of bounds.
        """
        return self.budget is None or self.affords(self.cost_at(payments, policies), slack)

    def affords(self, cost: float, slack: float = ROUNDING) -> bool:
        """Whether the budget, if there is one, allows this cost."""
        return self.budget is None or cost <= self.budget * (1.0 + slack)

    def cost_pass(
        self, payments: FloatArray, policies: FloatArray, gradient: bool = True
    ) -> CostPass:
        """C and its derivatives; nothing is checked. Without ``gradient`` dC/dx is empty."""
        if isinstance(self.cost, ExpectedSpend):
            spent = self._spent(payments, policies)
            if not gradient:
                return CostPass(spent.value, np.empty(0), None)
            paid = self.payments.pull_back(spent.visits * policies)
            return CostPass(spent.value, self.cost.prices * paid, spent.visits * spent.q_values)
        slope = self.cost.gradient(payments) if gradient else np.empty(0)
        return CostPass(self.cost.value(payments), slope, None)

    def cost_pass_steps(
        self, payments: FloatArray, policies: FloatArray
    ) -> Generator[Query, Any, CostPass]:
        """As ``cost_pass``, for a shard of the followers: the values of all shards add up to C."""
        if not isinstance(self.cost, ExpectedSpend) and self.cost_is_asked:
            value, slope = yield CostOf(self.variables, payments)
            return CostPass(value, slope, None)
        if not isinstance(self.cost, ExpectedSpend) or not self.payments.shared:
            return self.cost_pass(payments, policies)
        # Shards take turns, for sums in another order round otherwise.
        spent = self._spent(payments, policies)
        paid, _ = yield SequentialReduce(self.variables, np.zeros(payments.size), False)
        paid = self.payments.pull_back(spent.visits * policies, paid)
        paid, _ = yield SequentialReduce(self.variables, paid, True)
        return CostPass(spent.value, self.cost.prices * paid, spent.visits * spent.q_values)

    def net(self, leader_value: float, cost: float) -> float:
        """Return f = V - w C: the leader's value less what the payments cost it."""
        # Without a weight an infinite cost counts nothing.
        return leader_value - self.cost_weight * cost if self.cost_weight else leader_value

    def _spent(self, payments: FloatArray, policies: FloatArray) -> _Spent:
        assert isinstance(self.cost, ExpectedSpend)  # for the type checker
        found = self._payouts(self.cost.prices * payments, policies)
        counts = self.followers.counts
        visits = found.visits[:, :, None] * counts[:, None, None]
        q_values = np.where(self.followers.available, found.q_values, 0.0)
        return _Spent(float(counts @ found.values), visits, q_values)

    def _payouts(self, payments: FloatArray, policies: FloatArray) -> Payouts:
        return expected_payouts(
            self.followers,
            self.payments.side_payments(payments),
            self.payments.index >= 0,
            policies,
            self.leader_discount,
        )

    def _check_point(
        self, payments: ArrayLike, policies: ArrayLike
    ) -> tuple[FloatArray, FloatArray]:
        return self.payments.check_bounds(payments), self.followers.check_policies(policies)

    # -- memory -------------------------------------------------------------------------------

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
        even = self.followers.available / self.followers.available.sum(axis=2, keepdims=True)
        checked = self.followers.check_policies(even if policies is None else policies)
        limit = int(min(self._most_steps, self.max_horizon))
        found = self.forward(checked, limit, gradient=True, measure=True)
        cut = found.marginals.shape[0] == limit < self.max_horizon
        doubled = cut and _doubles(found, self.leader_discount)
        if cut and not doubled:
            found = self.forward(checked, None, gradient=True, measure=True)
        counted = self if engine is None else engine.largest_shard(self)
        return estimate_memory(counted, found.marginals.shape[0], doubled)

    # -- both levels --------------------------------------------------------------------------

    def rewards(self, payments: FloatArray) -> FloatArray:
        """R_i + x_i (n, S, A) for payments (k,), eq. 2."""
        return self.followers.rewards + self.payments.side_payments(payments)

    def evaluate(self, payments: ArrayLike, policies: ArrayLike) -> Evaluation:
        """Leader's value, cost, objective, follower values and gaps, and feasibility at a point.

        Parameters
        ----------
        payments : float or array (k,)
        policies : array (n, S, A)
        """
        x = self.payments.check(payments)
        checked = self.followers.check_policies(policies)
        leader = self.leader_pass(checked, gradient=False, warn=True)
        rewards = self.rewards(x)
        values = self.followers.start_values(self.followers.evaluate(rewards, checked).values)
        best = self.followers.start_values(self.followers.best_responses(rewards).values)
        cost = self.cost_pass(x, checked, gradient=False).value
        return self.assemble(leader, cost, values, best)

    def assemble(
        self, leader: LeaderPass, cost: float, values: FloatArray, best: FloatArray
    ) -> Evaluation:
        """Put an Evaluation together: the leader's pass, C, V_i (n,) and V_i* (n,)."""
        gaps = best - values
        return Evaluation(
            leader_value=leader.value,
            cost=cost,
            objective=self.net(leader.value, cost),
            follower_values=values,
            best_values=best,
            follower_gaps=gaps,
            feasibility=-float(self.followers.counts @ gaps),
            horizon=leader.horizon,
            truncation=leader.truncation,
        )


def _doubles(found: Forward, gamma: float) -> bool:
    """Whether doubling on the product space can go on from a forward pass that was cut."""
    return bool(np.isfinite(found.truncation)) and not (found.moving and gamma == 1.0)


def _weight(cost_weight: float) -> float:
    if not (cost_weight >= 0 and np.isfinite(cost_weight)):
        raise invalid("cost_weight", "a finite number >= 0", cost_weight)
    return float(cost_weight)
