"""n followers packed into the flat arrays that the kernels read."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray, as_given, check_finite, check_shape, looks_finite
from fastincentive._checks import checked
from fastincentive.errors import ImproperPolicyError, InputError, invalid, shown
from fastincentive.followers.argument_checks import (
    MEANING,
    check_actions,
    check_answer,
    check_mask,
    check_policies,
    check_rewards,
    check_tolerance,
)
from fastincentive.followers.best_responses import (
    ResponseMemory,
    Sweepable,
    mixes_soon,
    recall_bytes,
    respond_by_policies,
    respond_large,
    sweepable,
)
from fastincentive.followers.evaluation import ROUTES, evaluate_packed
from fastincentive.followers.packed_followers import PackedFollowers
from fastincentive.followers.policies import deterministic_policies
from fastincentive.kernels import advantages, bellman, end_components, regimes
from fastincentive.kernels.jacobi import jacobi_response
from fastincentive.kernels.packed import DENSE_STATES, TIE

__all__ = ["FEW_STATES", "Followers"]

#: Up to this many states nothing is quicker than sweeps in order and a few factors.
FEW_STATES = 100
#: Action values that many times as large as what a follower earns are penalties.
PENALTY = 1000.0


class PolicyValues(NamedTuple):
    """What ``Followers.evaluate`` returns."""

    values: FloatArray  # (n, S)
    q_values: FloatArray  # (n, S, A), -inf for unavailable actions
    visits: FloatArray  # (n, S) unnormalised state occupancy, 0 in absorbing states at discount 1


class ResponseValues(NamedTuple):
    """What ``Followers.best_responses`` returns."""

    actions: NDArray[np.int64]  # (n, S)
    values: FloatArray  # (n, S) V*
    q_values: FloatArray  # (n, S, A) Q*, -inf for unavailable actions
    residual: FloatArray  # (n,) sup-norm Bellman residual
    iterations: NDArray[np.int64]  # (n,)


class OptimalActions(NamedTuple):
    """What ``Followers.optimal_actions`` returns."""

    tied: NDArray[np.bool_]  # (n, S, A) the optimal actions
    margin: FloatArray  # (n,) smallest loss by any other, inf where all are optimal


class Followers(PackedFollowers):
    """n independent followers over the same S states and A actions.

    Parameters
    ----------
    mdps : sequence of TabularMDP
        One per follower. Equal transition models are stored once.
    counts : array (n,) of positive integers, optional
        How many followers are alike: what is called a follower elsewhere is then a type, whose
        followers have one model, start, policy and payments. The leader's reward is that of the
        whole population, type by type; derivatives by a type's policy are those of all its
        followers together.

    Raises
    ------
    InputError
        If the list is empty, the sizes differ between followers, or a count is no positive integer.
    """

    @cached_property
    def sweepable(self) -> Sweepable | None:
        """The models in sweep order; None where sweeps do not apply (discount 1, ragged rows)."""
        return sweepable(self.packed, self.models) if self._discounted else None

    @cached_property
    def _mixes(self) -> bool:
        return mixes_soon(self.packed, self.models)

    def check_policies(
        self, policies: object, argument: str = "policies", single: bool = False
    ) -> FloatArray:
        """Return policies as an (n, S, A) array, or raise naming the first offending entry.

        ``single`` lets float32 policies stay so; else their rows are rescaled.
        """
        return check_policies(policies, self.available, argument, single)

    def deterministic_policies(self, actions: NDArray[np.int64]) -> FloatArray:
        """Policies (..., S, A) that take these actions (..., S) for certain."""
        return deterministic_policies(
            check_actions("actions", actions, self.n_actions), self.n_actions
        )

    def is_proper(self, policies: FloatArray, rewards: FloatArray | None = None) -> bool:
        """Whether followers with discount 1 are absorbed, or stay for ever and earn nothing.

        Under these policies and rewards (n, S, A), by default their own.
        """
        checked = self.check_policies(policies)
        given = self.rewards if rewards is None else rewards
        given = check_rewards(given, self.shape, self.packed)
        if self._discounted:
            return True
        try:
            self.evaluate(given, checked, checked=True)
        except ImproperPolicyError:
            return False
        return True

    def is_bounded(self, rewards: FloatArray) -> bool:
        """Whether no follower can earn for ever at discount 1, under rewards (n, S, A)."""
        rewards = check_rewards(rewards, self.shape, self.packed)
        if self._discounted:
            return True
        try:
            self.best_responses(rewards)
        except InputError:
            return False
        return True

    def raise_improper(self, follower: int, state: int) -> None:
        """Raise the error for a policy that is never absorbed at discount 1."""
        raise ImproperPolicyError(
            f"policies: expected a policy that reaches an absorbing state from everywhere, or "
            f"stays where nothing is earned, because follower {follower} has discount 1; got one "
            f"that never leaves a class around state {state}, where something is. Use a discount "
            "below 1 or a policy that leaves it."
        )

    def evaluate(
        self,
        rewards: FloatArray,
        policies: FloatArray,
        route: str = "auto",
        tolerance: float = 0.0,
        *,
        checked: bool = False,
    ) -> PolicyValues:
        """Values, Q-values and unnormalised state occupancies of policies under rewards (n, S, A).

        ``route`` is "auto", "sweeps" or "direct" (sparse factors), for more than ``DENSE_STATES``
        states; ``tolerance`` bounds the residual of sweeps, 0 means rounding. Of policies that are
        ``checked``, as in inner loops, nothing but the shape is looked at.

        Raises
        ------
        InputError
            If an argument has another shape, or is not as described.
        ImproperPolicyError
            If a follower with discount 1 is never absorbed under its policy, nor stays where
            nothing is earned.
        """
        if route not in ROUTES:
            raise invalid("route", f"one of {ROUTES}", repr(route))
        if checked:
            policies = as_given("policies", policies, self.shape, MEANING)
            rewards = as_given("rewards", rewards, self.shape, MEANING)
        else:
            policies = self.check_policies(policies)
            rewards = check_rewards(rewards, self.shape, self.packed)
        tolerance = check_tolerance(tolerance)
        *found, singular = evaluate_packed(
            self.models, self.packed, rewards, policies, route, tolerance
        )
        self._check_absorbed(singular)
        return PolicyValues(*found)

    def occupancy_from(self, sources: FloatArray, policies: FloatArray) -> FloatArray:
        """Unnormalised state occupancies (n, S) of policies from ``sources`` (n, S) of any sign.

        The solutions of y = sources + gamma_i (P_i^pi)' y; at discount 1 those of the absorbing
        states are left at 0.
        """
        sources = as_given("sources", sources, self.shape[:2], "(followers, states)")
        policies = self.check_policies(policies)
        check_finite("sources", sources)
        # What sweeps leave is relative to a mass of 1.
        mass = np.abs(sources).sum(axis=1, keepdims=True)
        scale = np.where(mass > 0.0, mass, 1.0)
        packed = self.packed._replace(initial=sources / scale)
        nothing = np.zeros(self.shape)
        return evaluate_packed(self.models, packed, nothing, policies)[2] * scale

    def _check_absorbed(self, singular: NDArray[np.int64]) -> None:
        """Raise if some follower has a state (-1: none) from which it is never absorbed."""
        if max(singular.tolist()) >= 0:
            i = int(np.argmax(singular >= 0))
            self.raise_improper(i, int(singular[i]))

    def best_responses(
        self,
        rewards: FloatArray,
        warm: NDArray[np.int64] | None = None,
        memory: ResponseMemory | None = None,
        tolerance: float = 0.0,
        *,
        checked: bool = False,
    ) -> ResponseValues:
        """Optimal actions and values of every follower under rewards (n, S, A).

        ``warm`` (n, S) are actions to start from, -1 for the uniform choice; ``memory`` keeps
        values, too, and predicts the next ones. With more than ``DENSE_STATES`` states the sup
        norm of the Bellman residual ends below ``tolerance``, by default close to rounding. Of what
        is ``checked``, as in inner loops, nothing but the shape is looked at.

        Raises
        ------
        InputError
            If an argument has another shape, or is not as described; if at discount 1 a follower's
            total reward is unbounded.
        """
        n, states, n_actions = self.shape
        if checked:
            rewards = as_given("rewards", rewards, self.shape, MEANING)
        else:
            rewards = check_rewards(rewards, self.shape, self.packed)
            if warm is not None:
                warm = check_actions("warm", warm, n_actions, -1)
            if memory is not None and not isinstance(memory, ResponseMemory):
                raise invalid("memory", "a ResponseMemory", shown(memory))
        if warm is not None:
            check_shape("warm", warm, (n, states), "(followers, states)")
        tolerance = check_tolerance(tolerance)
        known = self.sweepable
        if states > DENSE_STATES:
            if known is None or (warm is None and memory is None and self._mixes):
                found = respond_by_policies(self.models, self.packed, rewards, warm)
            else:
                found = respond_large(
                    self.models, self.packed, known, rewards, warm, memory, tolerance
                )
            return self._bounded(ResponseValues(*found))
        actions = np.empty((n, states), np.int64)
        values = np.empty((n, states))
        q_values = np.empty(self.shape)
        residual = np.empty(n)
        iterations = np.empty(n, np.int64)
        answer = ResponseValues(actions, values, q_values, residual, iterations)
        if warm is None and self._discounted:
            if known is not None and (states <= FEW_STATES or not self._mixes):
                bellman.first_responses(self.packed, known.ordered, rewards, *answer)
                return answer
            for i in range(n):  # factors judge what it finds
                jacobi_response(self.packed, i, rewards, actions[i], values[i], q_values[i])
        else:
            actions[:] = -1 if warm is None else warm
        bellman.best_responses(self.packed, rewards, *answer)
        return self._bounded(answer)

    def sensible(self, best: ResponseValues) -> NDArray[np.bool_]:
        """(n, S, A) bool: actions whose values say how large the followers' rewards are.

        All of them, but for penalties that nobody would incur: values that are a thousand times
        what a follower earns on its way, or stands to lose by its smallest mistake there.
        """
        actions, values = check_answer(best, self.shape)
        met = self.reached(self.deterministic_policies(actions) > 0.0)
        earned = np.where(met, np.abs(values), 0.0).max(axis=1)
        loss = np.where(met[:, :, None], values[:, :, None] - best.q_values, np.inf)
        least = np.where(loss > 1e-9, loss, np.inf).min(axis=(1, 2))
        size = np.maximum(earned, np.where(np.isfinite(least), least, 0.0))
        furthest = np.where(size > 0.0, PENALTY * size, np.inf)[:, None, None]
        return np.asarray(np.abs(best.q_values) <= np.minimum(furthest, np.finfo(float).max))

    def units(self, best: ResponseValues) -> FloatArray:
        """Units of reward (n,): the size of each follower's sensible action values, >= 1e-9."""
        size = np.where(self.sensible(best), np.abs(best.q_values), 0.0)
        return np.asarray(np.maximum(size.max(axis=(1, 2)), 1e-9))

    def optimal_actions(
        self, own: FloatArray, paid: FloatArray, best: ResponseValues
    ) -> OptimalActions:
        """Find all optimal actions under rewards own + paid (n, S, A), and how near the next are.

        Two actions are tied if they differ by less than ``TIE`` of what is added up at the state.
        At the start of each follower and wherever optimal actions lead from there, values are
        computed anew to the last digits.
        """
        own = check_rewards(own, self.shape, self.packed)
        paid = check_rewards(paid, self.shape, self.packed)
        actions, values = check_answer(best, self.shape)
        n, states, n_actions = self.shape
        tied, margin = np.empty(self.shape, np.bool_), np.empty(n)
        every = np.broadcast_to(np.arange(n_actions), self.shape).copy()
        nowhere = np.full((n, states), -1)
        points, laws = np.empty((n, 0)), np.empty((n, 0, states), np.int64)
        regimes.walk_lines.sized(own.size)(
            self.packed,
            regimes.Lines(own, paid, every, nowhere, np.full(n, -1.0)),
            actions,
            values,
            tied,
            margin,
            TIE,
            regimes.ResponseList(points, points, laws, laws, points),
            np.zeros((n, 6), np.int64),
        )
        return OptimalActions(tied, margin)

    def _bounded(self, answer: ResponseValues) -> ResponseValues:
        """Raise if some follower's total reward is unbounded (negative iterations)."""
        if answer.iterations.min() < 0:
            i = int(np.argmax(answer.iterations < 0))
            raise invalid(
                "reward",
                "a bounded best total reward, because the discount is 1",
                "a loop that earns for ever, from rewards and payments together",
                f"follower {i}",
                "Use a discount below 1, or lower the reward or the payment on the loop.",
            )
        return answer

    @checked
    def response_memory(self, most_gib: float = 1.0) -> ResponseMemory | None:
        """Return a memory for repeated ``best_responses``; None where it is of no use or too large.

        It serves more than ``DENSE_STATES`` states and discounts below 1.
        """
        known = self.sweepable if self.n_states > DENSE_STATES else None
        if known is None:
            return None
        return ResponseMemory() if recall_bytes(self.n, known) <= most_gib * 2**30 else None

    def idle(self, moving: FloatArray) -> NDArray[np.bool_]:
        """(n, S) bool: where a follower without discount can stay for ever while nothing moves.

        Nothing moves where ``moving`` (n, S, A) is 0: with rewards for it, nothing is earned.
        """
        moving = as_given("moving", moving, self.shape, MEANING)
        found = np.zeros(moving.shape[:2], bool)
        for i in np.flatnonzero(self.packed.discount == 1.0).tolist():
            action = np.empty(self.n_states, np.int64)
            end_components.mark_idle(self.packed, i, moving[i], action)
            found[i] = action >= 0
        return found

    def resting(self, moving: FloatArray, policies: FloatArray) -> NDArray[np.bool_]:
        """(n, S) bool: from where policies (n, S, A) without discount never move, see ``idle``."""
        moving = as_given("moving", moving, self.shape, MEANING)
        policies = as_given("policies", policies, self.shape, MEANING)
        found = np.zeros(moving.shape[:2], bool)
        for i in np.flatnonzero(self.packed.discount == 1.0).tolist():
            end_components.mark_resting(self.packed, i, policies[i], moving[i], found[i])
        return found

    def reached(self, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(n, S) bool: states that allowed actions (n, S, A) lead to from the starts."""
        allowed = check_mask("allowed", allowed, self.shape)
        met = np.empty(allowed.shape[:2], np.bool_)
        advantages.reached_states(self.packed, allowed, met)
        return met

    @checked
    def reachable(self, i: int) -> NDArray[np.bool_]:
        """(S,) bool: states that follower i can meet from its start, whatever it does."""
        if not 0 <= i < self.n:
            raise invalid("i", f"a follower in 0..{self.n - 1}", i)
        met, queue = np.empty(self.n_states, np.bool_), np.empty(self.n_states, np.int64)
        every = self.packed.available[self.packed.model[i]]
        advantages.mark_reachable(self.packed, i, every, met, queue)
        return met

    def start_values(self, values: FloatArray) -> FloatArray:
        """V_i(mu_i) (n,) from values (n, S)."""
        values = as_given("values", values, self.shape[:2], "(followers, states)")
        if not looks_finite(values) and np.isnan(values).any():
            raise invalid("values", "numbers", "NaN")
        return np.asarray(np.einsum("is,is->i", self.packed.initial, values))
