"""What has to be supported: policies, the actions that compete, and the cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import InfeasiblePolicyError
from fastincentive.followers.followers import Followers
from fastincentive.followers.mdp import TabularMDP
from fastincentive.followers.transition import TransitionModel
from fastincentive.problem.bound_payments import BoundPayments
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.ties import unit_of_reward

__all__ = [
    "BoolArray",
    "SupportTask",
    "check_absorbed",
    "competing_actions",
    "started_everywhere",
    "transition_matrix",
    "visited_states",
]

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class SupportTask:
    """Make policies optimal from the starts of ``followers``, with ``bonus`` for competitors."""

    problem: IncentiveProblem
    followers: Followers
    policies: FloatArray
    visited: BoolArray  # (n, S)
    bonus: FloatArray  # (n, S, A)

    @property
    def payments(self) -> BoundPayments:
        """The problem's payments."""
        return self.problem.payments

    def cost(self, x: FloatArray) -> float:
        """C(x), or C(x, pi) where it depends on the policies."""
        return self.problem.cost_pass(x, self.policies, gradient=False).value

    def prices(self, x: FloatArray) -> FloatArray:
        """Return dC/dx (k,)."""
        return self.problem.cost_pass(x, self.policies).payments

    def within_budget(self, x: FloatArray) -> bool:
        """Whether C is at most the budget, up to rounding."""
        budget = self.problem.budget
        return budget is None or self.cost(x) <= budget * (1.0 + 1e-12)

    def unit(self, x: FloatArray) -> FloatArray:
        """Return each follower's unit of reward (n,), the margin included."""
        return np.maximum(unit_of_reward(self.problem, x), self.bonus.max(axis=(1, 2)))

    def gap_and_slope(self, x: FloatArray, who: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Gap V* - V (n,) at payments x, and how fast each payment closes it (n, K).

        Only those in ``who`` get the bonus: for the others it might be earned for ever.
        """
        rewards = self.problem.rewards(x) + np.where(who[:, None, None], self.bonus, 0.0)
        own = self.followers.evaluate(rewards, self.policies, checked=True)
        best = self.followers.best_responses(rewards)
        answer = self.followers.deterministic_policies(best.actions)
        other = self.followers.evaluate(rewards, answer, checked=True)
        gap = self.followers.start_values(other.values - own.values)
        occupancy = own.visits[:, :, None] * self.policies - other.visits[:, :, None] * answer
        return gap, self.payments.compress(occupancy)


def visited_states(problem: IncentiveProblem, policies: FloatArray) -> BoolArray:
    """(n, S) bool: states that are met with positive probability, absorbing ones left out.

    Those where a follower stays for ever are met, although their visits are not counted.
    """
    followers, packed = problem.followers, problem.followers.packed
    met: BoolArray = followers.evaluate(problem.moving, policies, checked=True).visits > 0
    patient = packed.discount == 1.0
    if patient.any():
        there = followers.reached(policies > 0) & ~packed.absorbing[packed.model]
        met |= there & patient[:, None]
    return met


def started_everywhere(followers: Followers, visited: BoolArray) -> Followers:
    """Start in all visited states alike: optimal from there is optimal in each, however rare."""
    mdps: list[TabularMDP] = []
    for mdp, states in zip(followers, visited, strict=True):
        mdps.append(mdp.replace(initial=states / states.sum()) if states.any() else mdp)
    return Followers(mdps)


def competing_actions(
    problem: IncentiveProblem, policies: FloatArray, visited: BoolArray
) -> BoolArray:
    """(n, S, A) bool: actions at visited states that differ from all that the policy takes."""
    followers = problem.followers
    labels = np.broadcast_to(problem.leader.labels, followers.shape)
    same_law = {id(mdp.transition): mdp.transition for mdp in followers}
    laws = {key: _same_law(model) for key, model in same_law.items()}
    competing = np.empty(followers.shape, bool)
    for i, mdp in enumerate(followers):
        same = laws[id(mdp.transition)].copy()
        for known in (mdp.reward, problem.payments.index[i], labels[i]):
            same &= known[:, :, None] == known[:, None, :]
        taken = (same & (policies[i] > 0)[:, None, :]).any(axis=2)
        competing[i] = visited[i][:, None] & mdp.available & ~taken
    return competing


def check_absorbed(problem: IncentiveProblem, policies: FloatArray, visited: BoolArray) -> None:
    """Raise if a follower at discount 1 has a choice that matters once it is absorbed.

    There nothing can be paid, so that it is indifferent whatever the payments.
    """
    met = np.zeros(visited.shape, bool)
    for i, mdp in enumerate(problem.followers):
        if mdp.discount < 1.0:
            continue
        model = mdp.transition
        taken = np.repeat((policies[i] > 0).reshape(-1), np.diff(model.row_start))
        origin = np.repeat(np.arange(policies[i].size), np.diff(model.row_start)) // mdp.n_actions
        here = visited[i] | (mdp.initial > 0)
        count = -1
        while count != here.sum():
            count = here.sum()
            here[model.successor[taken & here[origin]]] = True
        met[i] = here & model.absorbing
    open_choice = competing_actions(problem, policies, met)
    if open_choice.any():
        i, s, a = (int(k) for k in np.argwhere(open_choice)[0])
        raise InfeasiblePolicyError(
            f"policies: no payments make these best responses by a margin; follower {i}, whose "
            f"discount is 1, is absorbed in state {s}, where nothing can be paid and action {a} is "
            "as good to it. Use a discount below 1, or a leader whose labels are the same for them."
        )


def _same_law(model: TransitionModel) -> BoolArray:
    """(S, A, A) bool: whether two actions in a state lead on alike."""
    states, actions = model.available.shape
    same = np.zeros((states, actions, actions), bool)
    moves = transition_matrix(model)
    for a in range(actions):
        same[:, a, a] = True
        for b in range(a):
            off = abs(moves[a::actions] - moves[b::actions]).max(axis=1).toarray().reshape(-1)
            same[:, a, b] = same[:, b, a] = off <= 1e-14
    return same


def transition_matrix(model: TransitionModel) -> Any:
    """P as a sparse matrix (S A, S)."""
    from scipy.sparse import csr_array

    return csr_array(
        (model.probability, model.successor, model.row_start),
        shape=(model.row_start.size - 1, model.available.shape[0]),
    )
