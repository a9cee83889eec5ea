"""The first of the leader's passes: how the followers' laws evolve, and when to stop.

The sum over time stops where what is left is certified to be below the tolerance: by the discount,
or by the mass that is not yet in states where the leader earns nothing any more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive.followers import Followers
from fastincentive.kernels import jit
from fastincentive.kernels import marginals as kernels
from fastincentive.kernels.pattern import Pattern, stack_patterns
from fastincentive.leader import BoundReward
from fastincentive.mdp import FloatArray

__all__ = ["Forward", "ForwardPass", "form", "pattern_of"]

#: State laws that need more bytes than this are not kept.
LAW_BYTES = 2**26
#: Threads pay off where they save this many times ``THREADED_SIZE`` steps along a transition.
WORK_PER_SIZE = 20


def pattern_of(followers: Followers) -> Pattern:
    """Merge the successor rows of the followers' models."""
    _, first = np.unique(followers.packed.model, return_index=True)
    return stack_patterns([followers[i].transition.pattern for i in first.tolist()])


def form(kernel: jit.Switch, followers: int, steps: float) -> Any:
    """Choose the form of a kernel that takes so many steps for all followers together.

    Not by size: matrix products stand between these kernels, and their threads and ours, both
    awake, would stall each other for longer than a small kernel takes.
    """
    saved = steps * (1.0 - 1.0 / followers)
    return kernel.threaded if saved >= WORK_PER_SIZE * jit.THREADED_SIZE else kernel.serial


class Forward(NamedTuple):
    """What the forward pass found, for T times."""

    marginals: FloatArray  # (T, n, L) label marginals
    laws: FloatArray  # (T, n, S) state laws, or (0, n, S) where they would take too much memory
    weights: FloatArray  # (n, E) weights of the chains on the pattern
    truncation: float  # bound on what lies beyond T


class ForwardPass:
    """The forward pass of one problem.

    Parameters
    ----------
    followers : Followers
    leader : BoundReward
    max_horizon : int
        Sums over time stop here in any case.
    """

    def __init__(self, followers: Followers, leader: BoundReward, max_horizon: int) -> None:
        self.followers = followers
        self.leader = leader
        self.max_horizon = max_horizon
        self.pattern = pattern_of(followers)
        packed = followers.packed
        absorbing = packed.absorbing[packed.model]
        self._moves_when_absorbed = bool((absorbing & ~packed.sink[packed.model]).any())
        self._edges = int(np.diff(self.pattern.base)[packed.model].sum())
        #: Whether a label is the number of the state.
        self.shows_states = leader.labels.shape[2] == 1 and bool(
            leader.n_labels == followers.n_states
            and (leader.labels[:, :, 0] == np.arange(followers.n_states)).all()
        )
        self._guess = 64

    def label_mask(self, states: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(n, L) bool: the labels that the marked states (n, S) can show."""
        mask = np.zeros((self.followers.n, self.leader.n_labels), bool)
        exists = states[:, :, None] & self.followers.available
        labels = np.broadcast_to(self.leader.labels, self.followers.shape)
        mask[np.nonzero(exists)[0], labels[exists]] = True
        return mask

    def run(
        self,
        policies: FloatArray,
        gamma: float,
        limit: int,
        tolerance: float,
        magnitude: float,
        settles: bool,
        gradient: bool = False,
        visits: bool = False,
    ) -> Forward:
        """Laws and label marginals up to the certified horizon or the limit.

        Parameters
        ----------
        policies : array (n, S, A)
        gamma : float
            The leader's discount.
        limit : int
            Most steps.
        tolerance : float
            Bound on what may lie beyond the horizon.
        magnitude : float
            Largest reward of a step.
        settles : bool
            Whether nothing is earned once all followers are absorbed.
        gradient : bool
            Where followers settle in states that they could leave, or move on within a closed
            class, what a deviation would earn takes more time than the value.
        visits : bool
            Joint visits are asked for: a policy's states that it never leaves count, and all laws
            are kept.
        """
        packed = self.followers.packed
        n, states, _ = self.followers.shape
        rest = np.empty((n, states))
        weights = np.empty((n, self.pattern.largest))
        settled = np.empty((n, states), np.bool_)
        lost = np.empty(n, np.bool_)
        form(kernels.chain_rows, n, 8 * self._edges)(
            packed, self.pattern, policies, gamma, settles, weights, rest, settled, lost
        )
        certified, moving = settles, False
        if settles:
            moving = gradient and self._moves_when_absorbed
            if lost.any():
                # Some policy has states it never leaves: fine where the leader earns nothing.
                certified = not visits and self.leader.magnitude(self.label_mask(settled)) == 0.0
                moving = gradient and bool((settled & ~packed.sink[packed.model]).any())
            if moving and gamma < 1.0:
                certified = False
        if not certified:
            # A share of what the discount leaves; at 1 nothing is known.
            rest.fill(1.0 / ((1.0 - gamma) * n) if gamma < 1.0 else np.inf)
            certified = gamma < 1.0
        stop = tolerance / magnitude if magnitude > 0.0 else np.inf
        masses = packed.initial.copy()
        blocks: list[tuple[FloatArray, FloatArray]] = []
        done = 0
        while True:
            block = min(self._guess if done == 0 else max(16, done // 2), limit - done)
            laws, marginals, remainder = self._steps(policies, rest, weights, masses, block, visits)
            at, left = kernels.first_below(remainder, gamma, done, stop)
            blocks.append((laws, marginals))
            done += block
            # The bound at t covers t itself and all that follows; keep one step at least.
            horizon = done if at < 0 else max(done - block + at, 1)
            if at >= 0 or done == limit:
                break
        truncation = float(left) * magnitude if certified else np.inf
        if moving and certified:
            beyond = self._time_from_everywhere(policies, weights, rest, stop)
            horizon = min(horizon + beyond, limit)
            if horizon > done:
                more = self._steps(policies, rest, weights, masses, horizon - done, visits)
                blocks.append(more[:2])
        self._guess = min(horizon + 2, self.max_horizon)
        if len(blocks) == 1:
            laws, marginals = blocks[0]
        else:
            marginals = np.concatenate([block[1] for block in blocks])
            if self.shows_states:
                laws = marginals
            elif visits or marginals.shape[0] * n * states * 8 <= LAW_BYTES:
                laws = np.concatenate([block[0] for block in blocks])
            else:
                laws = np.empty((0, n, states))
        return Forward(marginals[:horizon], laws[:horizon], weights, truncation)

    def _steps(
        self,
        policies: FloatArray,
        rest: FloatArray,
        weights: FloatArray,
        masses: FloatArray,
        count: int,
        visits: bool,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Laws, label marginals and remainders of the next ``count`` times; moves ``masses`` on."""
        n, states, _ = self.followers.shape
        keep = visits or self.shows_states or count * n * states * 8 <= LAW_BYTES
        laws = np.empty((count if keep else 0, n, states))
        marginals = np.empty((0 if self.shows_states else count, n, self.leader.n_labels))
        remainder = np.empty((count, n))
        form(kernels.forward_laws, n, count * self._edges)(
            self.followers.packed,
            self.pattern,
            policies,
            self.leader.labels,
            rest,
            weights,
            masses,
            laws,
            marginals,
            remainder,
        )
        return laws, laws if self.shows_states else marginals, remainder

    def _time_from_everywhere(
        self, policies: FloatArray, weights: FloatArray, rest: FloatArray, stop: float
    ) -> int:
        """Count the steps until followers started in every state are settled."""
        n, states, _ = self.followers.shape
        masses = np.ones((n, states))
        none = np.empty((0, n, states))
        block, done = 64, 0
        while done < self.max_horizon:
            remainder = np.empty((block, n))
            form(kernels.forward_laws, n, block * self._edges)(
                self.followers.packed,
                self.pattern,
                policies,
                self.leader.labels,
                rest,
                weights,
                masses,
                none,
                none,
                remainder,
            )
            at, _ = kernels.first_below(remainder, 1.0, 0, stop)
            if at >= 0:
                return int(done + at)
            done += block
        return self.max_horizon

    def gradients(
        self, policies: FloatArray, found: Forward, conditional: FloatArray, gamma: float
    ) -> FloatArray:
        """dV/dpi (n, S, A) from conditional rewards (T, n, L): the backward pass."""
        out = np.empty(self.followers.shape)
        n = self.followers.n
        form(kernels.leader_gradients, n, 2 * conditional.shape[0] * self._edges)(
            self.followers.packed,
            self.pattern,
            policies,
            self.leader.labels,
            found.weights,
            found.laws,
            conditional,
            gamma,
            found.truncation < np.inf,
            out,
        )
        return out
