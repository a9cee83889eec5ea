"""The leader's side of a problem: V and its gradient, and the tables over joint states."""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator
from copy import copy
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import (
    LARGEST,
    FloatArray,
    as_given,
    check_finite,
    check_shape,
    looks_finite,
)
from fastincentive.errors import TruncationWarning, invalid
from fastincentive.followers.argument_checks import MEANING
from fastincentive.followers.chains import settled_states
from fastincentive.followers.followers import Followers
from fastincentive.followers.policies import uniform_over
from fastincentive.leader.base import BoundReward
from fastincentive.problem import product_space
from fastincentive.problem.doubling import MOST_TERMS
from fastincentive.problem.endless import Endless, endless_error, endless_reward
from fastincentive.problem.lone_pass import LonePass
from fastincentive.problem.passes import (
    SHORT_STEPS,
    Forward,
    ForwardPass,
    LeaderPass,
    StoppingRule,
)
from fastincentive.problem.queries import Conditional, Expected, Query, run_single
from fastincentive.problem.uniform_pass import UniformPass

__all__ = ["LeaderSide"]

#: Sums over time take at least so many steps before doubling is tried.
LEAST_STEPS = 64


class LeaderSide:
    """What the leader earns along the followers' chains; policies are not checked here.

    Parameters
    ----------
    followers : Followers
    leader : BoundReward
    discount : float
        The leader's.
    tail_tolerance : float
        Sums over time stop when the rest is certified below this times ``magnitude``.
    max_horizon : int
        Sums over time stop here in any case.

    Attributes
    ----------
    passes : ForwardPass
        The forward and backward passes over the followers' chains.
    magnitude : float
        Largest |reward| of a step.
    free_when_absorbed : bool
        Whether the leader earns nothing once every follower is absorbed.
    steps_before_doubling : float
        After so many steps doubling on the product space is cheaper; inf where it never is.
    lone : LonePass or None
        What takes the place of sums over time where there is one follower only.

    Raises
    ------
    InputError
        If the leader earns for ever at discount 1.
    """

    def __init__(
        self,
        followers: Followers,
        leader: BoundReward,
        discount: float,
        tail_tolerance: float,
        max_horizon: int,
    ) -> None:
        self.discount = discount
        self.tail_tolerance = tail_tolerance
        self.max_horizon = max_horizon
        self.passes = ForwardPass(followers, leader, max_horizon)
        packed = followers.packed
        self.magnitude = leader.magnitude(self.label_mask(packed.initial >= 0))
        if not self.magnitude <= LARGEST:
            raise invalid("leader", f"rewards of at most {LARGEST:g} in size", self.magnitude)
        absorbed = self.label_mask(packed.absorbing[packed.model])
        self.free_when_absorbed = leader.magnitude(absorbed) == 0.0
        if discount == 1.0 and not self.free_when_absorbed:
            raise invalid(
                "leader",
                "reward 0 once every follower is in a closed class of states, because the "
                "leader's discount is 1",
                f"up to {leader.magnitude(absorbed):g} a step for ever",
                None,
                "Use leader_discount below 1, or give the followers a sink where the leader "
                "earns nothing.",
            )
        self.lone = LonePass.of(followers, leader)
        self.steps_before_doubling = np.inf
        if leader.labels.shape[2] == 1 and followers.population == followers.n:
            self.steps_before_doubling = max(
                LEAST_STEPS,
                product_space.break_even(followers, self.passes.pattern, leader.n_labels),
            )

    def part(self, first: int, last: int, followers: Followers) -> LeaderSide:
        """Return the side of followers first..last-1, for a shard of them.

        What is known of all followers stays as it is: bounds on the leader's reward, horizons and
        tolerances. Of the reward itself only the labels are left: expectations are asked for.
        """
        labels = ShownLabels(self.leader.labels[first:last], self.leader.n_labels)
        other = copy(self)
        other.passes = self.passes.part(followers, labels)
        return other

    @property
    def followers(self) -> Followers:
        """Those whose chains these are."""
        return self.passes.followers

    @property
    def leader(self) -> BoundReward:
        """The leader's reward; in a shard only its labels."""
        return self.passes.leader

    @property
    def small(self) -> bool:
        """Whether a leader pass may take the product space, or two followers at once."""
        return self.passes.has_table or self.steps_before_doubling < self.max_horizon

    def _as_kernels_take(self, policies: FloatArray) -> FloatArray:
        """Return finite policies (n, S, A), single precision as it is; more is not looked at."""
        if getattr(policies, "dtype", None) == np.float32 and policies.flags.carray:
            check_shape("policies", policies, self.followers.shape, MEANING)
        else:
            policies = as_given("policies", policies, self.followers.shape, MEANING)
        if not looks_finite(policies):
            check_finite("policies", policies)
        return policies

    def label_mask(self, states: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(n, L) bool: the labels that the marked states (n, S) can show."""
        return self.passes.label_mask(states)

    # -- V and dV/dpi -------------------------------------------------------------------------

    def leader_pass(
        self,
        policies: FloatArray,
        gradient: bool = True,
        warn: bool = False,
        discount: float | None = None,
        unbounded: bool = True,
    ) -> LeaderPass:
        """Forward marginals, conditional rewards, backward adjoint.

        ``discount`` stands in for the leader's own. Doubling on the product space takes over
        where so many steps would be needed that it is cheaper. With ``warn`` a value that has no
        bound is infinite, or refused unless it may be ``unbounded``.
        """
        found = run_single(self.leader_pass_steps(policies, gradient, discount), self)
        if warn:
            if found.truncation == np.inf:
                endless = self._endless(policies)
                if endless is not None and not unbounded:
                    raise endless_error(endless)
                if endless is not None:
                    value = math.copysign(math.inf, endless.rate)
                    return found._replace(value=value, truncation=0.0)
            relative = found.truncation / max(self.magnitude, 1e-300)
            _warn_if_cut("leader's value", found.horizon, found.truncation, relative)
        return found

    def _endless(self, policies: FloatArray) -> Endless | None:
        """Find what never ends in a sum that was cut."""
        exact = np.asarray(policies, float)
        seen = self.forward(exact).marginals
        return endless_reward(self.followers, self.leader, exact, seen)

    def leader_pass_steps(
        self, policies: FloatArray, gradient: bool = True, discount: float | None = None
    ) -> Generator[Query, Any, LeaderPass]:
        """As ``leader_pass``, for a shard of the followers that asks what it must know of all."""
        policies = self._as_kernels_take(policies)
        stopping = self._stopping(gradient, discount, self._first_limit)
        gamma, limit = stopping.discount, stopping.limit
        if self.lone is not None:
            alone = self.lone.run(policies, gradient, gamma)
            if alone is not None:
                return alone
        short = self.passes.short(policies, stopping, gradient)
        if short is not None and short.horizon > 0:
            return short
        if short is not None and limit <= SHORT_STEPS and limit < self.max_horizon:
            packed = self.followers.packed
            settled = packed.absorbing[packed.model] if self.free_when_absorbed else None
            return self._doubled(policies, gamma, settled, limit, gradient)
        found = yield from self.passes.run_steps(policies, stopping, gradient)
        if found.marginals.shape[0] == limit < self.max_horizon:
            if _doubles(found, gamma):
                return self._doubled(policies, gamma, found.settled, limit, gradient)
            stopping = stopping._replace(limit=self.max_horizon)
            found = yield from self.passes.run_steps(policies, stopping, gradient)
        horizon, truncation = found.marginals.shape[0], found.truncation
        slopes = None
        if gradient:
            conditional = yield Conditional(found.marginals)
            value, slopes = self.passes.gradients(policies, found, conditional, gamma)
        else:
            expected = yield Expected(found.marginals)
            value = float(gamma ** np.arange(horizon) @ expected)
        return LeaderPass(value, slopes, horizon, truncation)

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
        policies = self._as_kernels_take(policies)
        stopping = self._stopping(gradient, discount, self.max_horizon if limit is None else limit)
        return self.passes.run(policies, stopping, gradient, measure=measure)

    def gradient_horizon(
        self, policies: FloatArray | None = None, discount: float | None = None
    ) -> tuple[int, bool]:
        """Count the times that a gradient goes over, and tell whether doubling goes on from there.

        Along the followers' chains, in little memory; without policies along one for each model,
        as if all followers chose at random. ``discount`` stands in for the leader's own.
        """
        passes = self.passes
        if policies is None:
            models = self.followers.n_models
            passes = UniformPass(passes, ShownLabels(self.leader.labels[:models], 1))
            policies = uniform_over(passes.followers.available)
        limit = self._first_limit
        found = self._measured(passes, policies, limit, discount)
        cut = found.marginals.shape[0] == limit < self.max_horizon
        doubled = cut and _doubles(found, self.discount if discount is None else discount)
        if cut and not doubled:
            found = self._measured(passes, policies, self.max_horizon, discount)
        return found.marginals.shape[0], doubled

    def _measured(
        self, passes: ForwardPass, policies: FloatArray, limit: int, discount: float | None
    ) -> Forward:
        stopping = self._stopping(True, discount, limit)
        return run_single(passes.run_steps(policies, stopping, True, measure=True), self)

    @property
    def _first_limit(self) -> int:
        """Steps after which doubling is tried, or the sum is cut."""
        return int(min(self.steps_before_doubling, self.max_horizon))

    def _stopping(self, gradient: bool, discount: float | None, limit: int) -> StoppingRule:
        # A gradient is as large as values times visits, so it is cut later.
        tolerance = self.tail_tolerance * self.magnitude * (0.05 if gradient else 1.0)
        return StoppingRule(
            self.discount if discount is None else discount,
            limit,
            tolerance,
            self.magnitude,
            self.free_when_absorbed,
        )

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

    # -- tables over joint states -------------------------------------------------------------

    def joint_occupancy(self, policies: FloatArray, method: str, max_gib: float) -> FloatArray:
        """Visitation (S,)*n, see ``IncentiveProblem.joint_occupancy``."""
        n, states, _ = self.followers.shape
        if method not in ("auto", "sum", "stein"):
            raise invalid("method", '"auto", "sum" or "stein"', repr(method))
        product_space.check_memory("joint_occupancy", states, n, max_gib)
        gamma = self.discount
        if method == "stein":
            if n != 2:
                raise invalid("method", '"sum" unless there are two followers', '"stein"')
            stein = product_space.stein_visitation(self.followers, policies, gamma)
            _warn_if_cut("joint occupancy", stein.terms, stein.left)
            return stein.total
        # Visits are counted, not rewards.
        stopping = StoppingRule(gamma, self.max_horizon, self.tail_tolerance, 1.0, gamma == 1.0)
        found = self.passes.run(policies, stopping, visits=True)
        _warn_if_cut("joint occupancy", found.marginals.shape[0], found.truncation)
        return product_space.summed_visitation(self.followers, found.laws, gamma)

    def joint_values(self, policies: FloatArray, max_gib: float) -> FloatArray:
        """Leader's value from every joint state (S,)*n, see ``IncentiveProblem.joint_values``."""
        n, states, _ = self.followers.shape
        product_space.check_memory("joint_values", states, n, max_gib)
        settled = self.followers.packed.absorbing[self.followers.packed.model]
        ends = self.free_when_absorbed
        if ends and self.discount == 1.0:
            settled = settled_states(self.followers, policies)
            ends = self.leader.magnitude(self.label_mask(settled)) == 0.0
        bounded = ends or self.discount < 1.0
        found = product_space.joint_values(
            self.followers,
            self.passes.pattern,
            policies,
            self.leader.joint_table(policies),
            self.discount,
            ~settled if ends else None,
            MOST_TERMS if bounded else self.max_horizon,
        )
        scale = max(1.0, float(np.abs(found.total).max()))
        _warn_if_cut("joint values", found.terms, found.left, found.left / scale)
        return found.total


class ShownLabels(BoundReward):
    """What a shard knows of the leader's reward: which labels its followers show."""

    def __init__(self, labels: NDArray[np.int64], n_labels: int) -> None:
        self.labels = labels
        self.n_labels = n_labels

    def __setstate__(self, state: dict[str, Any]) -> None:
        # What a cluster sends cannot be written to: kernels would be compiled once more for it.
        vars(self).update(state, labels=np.array(state["labels"]))

    def expectations(self, marginals: FloatArray) -> tuple[FloatArray, FloatArray]:
        _refuse()

    def magnitude(self, possible: NDArray[np.bool_] | None = None) -> float:
        _refuse()


def _refuse() -> NoReturn:
    raise NotImplementedError(
        "a shard of the followers knows the labels of the leader's reward and not the reward: "
        "its steps ask for expectations, see problem.queries"
    )


def _doubles(found: Forward, gamma: float) -> bool:
    """Whether doubling on the product space can go on from a forward pass that was cut."""
    return bool(np.isfinite(found.truncation)) and not (found.moving and gamma == 1.0)


def _warn_if_cut(what: str, horizon: int, truncation: float, relative: float | None = None) -> None:
    """Warn where a public method of the problem was called, above the check of its arguments."""
    if (truncation if relative is None else relative) > 1e-6:
        warnings.warn(
            f"the {what} was cut after {horizon} steps; what is left out is bounded by "
            f"{truncation:.3g}. Some policy is absorbed too slowly or never; raise "
            "max_horizon or use leader_discount < 1.",
            TruncationWarning,
            stacklevel=5,
        )
