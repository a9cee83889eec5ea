"""The search around the mixed-integer programme: points to beat, and loops to leave out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.certificates.milp_data import (
    SLACK,
    Pairs,
    from_start,
    leader_control,
    most_visits,
    payment_range,
    prices_of,
)
from fastincentive.certificates.milp_programme import CLOSE, build_programme
from fastincentive.errors import InfeasiblePolicyError
from fastincentive.followers.evaluation import evaluate_packed
from fastincentive.kernels import advantages as kernels
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.cheapest import cheapest_payments
from fastincentive.responses.regimes import repeat
from fastincentive.responses.ties import break_ties

__all__ = ["Search"]

#: Where the first payments to beat come from: the follower's rewards plus a multiple of the
#: leader's, in units of the follower's.
BLENDS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
#: Up to so many random payments are tried for better ones, and of the answers so many are priced.
SAMPLES = 1000
TRIED = 20
#: Fewer are tried where the factors of I - gamma P would take more operations than this.
OPERATIONS = 3e8


class _Point(NamedTuple):
    """Verified payments."""

    payments: FloatArray
    policies: FloatArray  # (1, S, A)
    objective: float


class Search:
    """Solve, verify what the solver found, exclude it if it does not keep its promise; repeat."""

    def __init__(self, problem: IncentiveProblem, max_visits: float, deadline: float) -> None:
        self.problem = problem
        self.pairs = pairs = Pairs(problem)
        self.deadline = deadline
        self.nodes = 0
        self.best: _Point | None = None
        #: (S,) what the follower does without payments.
        self._alone = problem.followers.best_responses(problem.followers.rewards).actions[0]
        #: No policy is worth more to the leader.
        self.bound = self._value_bound()
        for policies in self._first_policies():
            self._verify(policies, problem.payments.lower)
        for policies in self._sampled_policies():
            self._verify(policies, problem.payments.lower)
        objective = self.objective
        self._range = payment_range(problem, pairs, self.bound, objective)
        counted = [problem.leader_discount]
        if problem.followers[0].discount == 1.0 > problem.leader_discount:
            counted.append(1.0)
        visits = {each: most_visits(problem, pairs, each, max_visits) for each in counted}
        self.restricted = any(each.capped for each in visits.values())
        highest = np.abs(
            np.concatenate([self._range.low, self._range.high])[np.tile(pairs.reached, 2)]
        )
        self._unit = float(max(highest.max(), 1e-9)) / 10.0
        self._programme = build_programme(problem, pairs, self._range, visits, self._unit)
        spread = self.bound - objective
        self._stake = max(spread if spread < np.inf else 1.0, abs(objective), 1e-9)

    @property
    def objective(self) -> float:
        """The best verified objective."""
        return -np.inf if self.best is None else self.best.objective

    @property
    def closed(self) -> bool:
        """Whether the bound is met."""
        return self.bound - self.objective <= CLOSE * self._stake

    def run(self) -> str:
        """Close the gap between bound and objective as far as time allows; say how it ended."""
        excluded = 0
        while not self.closed:
            left = self.deadline - time.perf_counter()
            if left <= 0:
                return f"time limit reached, gap {self.bound - self.objective:.3g}"
            answer = self._programme.maximise(self._objective_terms(), left)
            self.nodes += answer.nodes
            if answer.status == 2:
                # Every policy that could do better has been excluded.
                self.bound = self.objective
                break
            self.bound = min(self.bound, max(answer.bound * self._stake / 10.0, self.objective))
            if answer.columns is None and answer.status != 1:
                return "the solver failed"
            if answer.columns is None:
                continue
            policies = self._policies(answer.columns["y"])
            self._verify(policies, answer.columns["x"] * self._unit)
            if not self.closed:
                excluded += 1
                if not self._exclude(policies):
                    self.bound = self.objective
        return f"optimal; {excluded} policies excluded" if excluded else "optimal"

    def _objective_terms(self) -> dict[str, FloatArray]:
        """Return the objective; the solver's tolerances are absolute, so the stake counts as 10."""
        problem, pairs = self.problem, self.pairs
        scale = 10.0 / self._stake
        discount = problem.leader_discount
        cost = problem.cost_weight * prices_of(problem)
        earned = np.where(pairs.running(discount)[pairs.state], pairs.leader_reward, 0.0)
        return {"d": scale * earned, "x": -scale * self._unit * cost}

    def _value_bound(self) -> float:
        """Bound on the leader's value: what it would get if it were to choose."""
        problem, reward = self.problem, self.pairs.leader_table
        if problem.leader_discount == 1.0:
            # Losses do not count: a follower that settles for ever may avoid them.
            reward = np.maximum(reward, 0.0)
        values, _ = leader_control(problem, reward[None], problem.leader_discount)
        total = float(from_start(problem, values)[0])
        return total + SLACK * abs(total)

    def _first_policies(self) -> Iterator[FloatArray]:
        """Yield policies that serve both in several proportions, the follower alone first."""
        problem = self.problem
        mdp = problem.followers[0]
        size = np.abs(mdp.reward).max() / max(np.abs(self.pairs.leader_table).max(), 1e-300)
        blends = np.array(BLENDS)[:, None, None] * max(size, 1e-9) * self.pairs.leader_table
        values, actions = leader_control(problem, mdp.reward + blends, mdp.discount)
        seen = set()
        for value, action in zip(values, actions, strict=True):
            if np.isfinite(value).all() and action.tobytes() not in seen:
                seen.add(action.tobytes())
                yield problem.followers.deterministic_policies(action[None])

    def _sampled_policies(self) -> Iterator[FloatArray]:
        """Yield the most promising of the best responses to random payments, most of them small."""
        problem = self.problem
        followers, payments = problem.followers, problem.payments
        most = payment_range(problem, self.pairs, self.bound, self.objective).most
        rng = np.random.default_rng(0)
        count = min(SAMPLES, int(OPERATIONS / followers.n_states**3) + 1)
        shape = (count, payments.size)
        paid = rng.random(shape) < rng.random((count, 1))
        points = np.where(paid, most * rng.random(shape) ** 3, 0.0)
        points = np.stack([payments.project(x) for x in points])
        rewards = followers.rewards + np.concatenate([payments.side_payments(x) for x in points])
        values, actions = leader_control(problem, rewards, followers[0].discount)
        bounded = np.isfinite(values).all(axis=1)
        points, actions = points[bounded], actions[bounded]
        policies, first = np.unique(actions, axis=0, return_index=True)
        choices = followers.deterministic_policies(policies)
        worth = self._leader_values(choices) - problem.cost_weight * (
            points[first] @ prices_of(problem)
        )
        for k in np.argsort(-worth)[:TRIED]:
            yield choices[k][None]

    def _leader_values(self, policies: FloatArray) -> FloatArray:
        """Leader's values (m,) of policies (m, S, A), at discount 1 with a discount near it."""
        problem = self.problem
        count = len(policies)
        packed = repeat(problem.followers.packed, np.zeros(count, np.int64))
        discount = min(problem.leader_discount, 0.999)
        values, *_ = evaluate_packed(
            problem.followers.models,
            packed._replace(discount=np.full(count, discount)),
            np.repeat(self.pairs.leader_table[None], count, axis=0),
            policies,
        )
        return from_start(problem, values)

    def _policies(self, chosen: FloatArray) -> FloatArray:
        """(1, S, A) from y (M,); where it never comes the follower does as without payments."""
        pairs = self.pairs
        alone = self.problem.followers.deterministic_policies(self._alone)
        choice = alone.copy()
        for s in np.flatnonzero(pairs.reached):
            at = np.flatnonzero(pairs.state == s)
            choice[s] = 0.0
            choice[s, pairs.action[at[np.argmax(chosen[at])]]] = 1.0
        met = self._met_states(choice)
        return np.where(met[:, None], choice, alone)[None]

    def _met_states(self, policy: FloatArray) -> NDArray[np.bool_]:
        """(S,) the states that a policy (S, A) comes to."""
        met = np.empty(policy.shape[0], bool)
        packed = self.problem.followers.packed
        kernels.mark_reachable(packed, 0, policy > 0, met, np.empty(met.size, np.int64))
        return met

    def _verify(self, policies: FloatArray, otherwise: FloatArray) -> None:
        """Verify a policy at its cheapest payments, or what the follower does at the others."""
        problem = self.problem
        payments = problem.payments.project(otherwise)
        if problem.followers.is_proper(policies):
            with suppress(InfeasiblePolicyError):
                payments = cheapest_payments(problem, policies).payments
        response = break_ties(problem, payments, 1.0, start=policies)
        value = problem.leader_pass(response, gradient=False).value
        objective = problem.net(value, problem.cost_at(payments, response))
        if objective > self.objective:
            self.best = _Point(payments, response, objective)

    def _exclude(self, policies: FloatArray) -> bool:
        """Rule out what a policy does where it comes; False if nothing else is left."""
        pairs = self.pairs
        met = self._met_states(policies[0])
        taken = (policies[0, pairs.state, pairs.action] > 0) & met[pairs.state]
        taken &= pairs.count[pairs.state] > 1
        if not taken.any():
            return False
        self._programme.require(-np.inf, taken.sum() - 1.0, y=taken.astype(float)[None, :])
        return True
