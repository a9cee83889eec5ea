"""The first of the leader's passes: how the followers' laws evolve, and when to stop.

The sum over time stops where what is left is certified to be below the tolerance: by the discount,
or by the mass that is not yet in states where the leader earns nothing any more.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.followers.chains import pattern_of, room
from fastincentive.followers.followers import Followers
from fastincentive.kernels import marginals as kernels
from fastincentive.kernels.fused_pass import Horizon, fused_pass
from fastincentive.kernels.marginals import SETTLE, STEP, WEIGH, Chains
from fastincentive.leader.base import BoundReward
from fastincentive.problem.pass_memory import Footprint, PassMemory, block_length
from fastincentive.problem.queries import AnyOf, Earliest, Magnitude, Query, run_single

__all__ = ["SHORT_STEPS", "Forward", "ForwardPass", "LeaderPass", "StoppingRule"]

#: Two followers with at most so many labels and steps are passed over in one call.
SHORT_LABELS, SHORT_STEPS = 64, 512


class Forward(NamedTuple):
    """What the forward pass found, for T times."""

    marginals: FloatArray  # (T, n, L) label marginals
    laws: FloatArray  # (T, n, S) state laws, or (0, n, S) where they would take too much memory
    weights: FloatArray  # (n, E) weights of the chains on the pattern
    truncation: float  # bound on what lies beyond T
    settled: NDArray[np.bool_] | None  # (n, S) where the bound is by the time until all are settled
    moving: bool  # whether more time was asked for, since followers could leave where they settle


class LeaderPass(NamedTuple):
    """The leader's value and what else the passes found."""

    value: float
    gradient: FloatArray | None  # (n, S, A), w.r.t. the policy entries
    horizon: int
    truncation: float


class StoppingRule(NamedTuple):
    """Where a sum over time stops: what is left out is certified to be small, or ``limit``."""

    discount: float  # the leader's, or what stands in for it
    limit: int  # most steps
    tolerance: float  # bound on what may lie beyond the horizon
    magnitude: float  # largest |reward| of a step
    settles: bool  # whether nothing is earned once all followers are absorbed

    @property
    def share(self) -> float:
        """The tolerance as a share of the largest reward; inf where nothing is earned."""
        return self.tolerance / self.magnitude if self.magnitude > 0.0 else np.inf


def _discounted_steps(gamma: float, stop: float, limit: int) -> int:
    """Count the steps until the discount alone leaves less than ``stop``."""
    share = stop * (1.0 - gamma)
    if not (0.0 < gamma < 1.0 and share < 1.0):
        return 0
    return min(limit, max(math.ceil(math.log(share) / math.log(gamma)), 1))


class ForwardPass:
    """The forward pass of one problem.

    Parameters
    ----------
    followers : Followers
    leader : BoundReward
    max_horizon : int
        Sums over time stop here in any case.
    n_total : int, optional
        Number of followers of all shards; by default these.
    moves_when_absorbed : bool, optional
        Whether some follower of any shard moves on within a closed class.
    """

    def __init__(
        self,
        followers: Followers,
        leader: BoundReward,
        max_horizon: int,
        n_total: int | None = None,
        moves_when_absorbed: bool | None = None,
    ) -> None:
        self.followers = followers
        self.leader = leader
        self.max_horizon = max_horizon
        self.pattern = pattern_of(followers)
        packed = followers.packed
        absorbing = packed.absorbing[packed.model]
        if moves_when_absorbed is None:
            moves_when_absorbed = bool((absorbing & ~packed.sink[packed.model]).any())
        self.moves_when_absorbed = moves_when_absorbed
        self.n_total = followers.n if n_total is None else n_total
        #: How many followers of the problem each one of these stands for (n,).
        self.stand_for = np.ones(followers.n)
        self._none = np.empty((0, *packed.initial.shape))
        self._edges = int(np.diff(self.pattern.base)[packed.model].sum())
        #: Whether a label is the number of the state.
        self.shows_states = leader.labels.shape[2] == 1 and bool(
            leader.n_labels == followers.n_states
            and (leader.labels[:, :, 0] == np.arange(followers.n_states)).all()
        )
        self._guess = 64
        self._memory = PassMemory(followers, leader, max_horizon, self.shows_states)
        #: A small table over two followers' labels of states, and its transpose.
        self._table: tuple[FloatArray, FloatArray] | None = None
        table = leader.small_table(SHORT_LABELS) if followers.n == 2 else None
        if table is not None:
            self._table = table, np.ascontiguousarray(table.T)

    @property
    def has_table(self) -> bool:
        """Whether ``short`` may apply."""
        return self._table is not None

    def __reduce__(self) -> tuple[Any, ...]:
        given = (self.followers, self.leader, self.max_horizon)
        return ForwardPass, (*given, self.n_total, self.moves_when_absorbed)

    def part(self, followers: Followers, leader: BoundReward) -> ForwardPass:
        """Return the pass over some of these followers, for a shard of them."""
        known = (self.max_horizon, self.n_total, self.moves_when_absorbed)
        return ForwardPass(followers, leader, *known)

    def label_mask(self, states: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(n, L) bool: the labels that the marked states (n, S) can show."""
        labels, count = self.leader.labels, self.leader.n_labels
        n = self.followers.n
        mask = np.zeros(n * count, bool)
        marked = states[:, :, None]
        if labels.shape[2] > 1:
            marked = marked & self.followers.available
        mask[(labels + count * np.arange(n)[:, None, None])[marked]] = True
        return mask.reshape(n, count)

    def run(
        self,
        policies: FloatArray,
        stopping: StoppingRule,
        gradient: bool = False,
        visits: bool = False,
        measure: bool = False,
    ) -> Forward:
        """Laws and label marginals up to the certified horizon or the limit.

        Parameters
        ----------
        policies : array (n, S, A)
        stopping : StoppingRule
        gradient : bool
            Where followers settle in states that they could leave, or move on within a closed
            class, what a deviation would earn takes more time than the value.
        visits : bool
            Joint visits are asked for: a policy's states that it never leaves count, and all laws
            are kept.
        measure : bool
            Only the horizon is asked for: nothing is kept, the marginals have no labels.

        Raises
        ------
        MemoryLimitError
            If there is no room for laws and marginals over so many times.
        """
        return run_single(self.run_steps(policies, stopping, gradient, visits, measure), self)

    def run_steps(
        self,
        policies: FloatArray,
        stopping: StoppingRule,
        gradient: bool = False,
        visits: bool = False,
        measure: bool = False,
    ) -> Generator[Query, Any, Forward]:
        """As ``run``, for a shard of the followers that asks what it needs to know of all."""
        packed = self.followers.packed
        gamma, limit, stop = stopping.discount, stopping.limit, stopping.share
        moving = stopping.settles and gradient and self.moves_when_absorbed
        certified = stopping.settles and not (moving and gamma < 1.0)
        state = room(packed, self.pattern)
        stage = SETTLE if certified else WEIGH
        if not certified:
            self._weigh_by_discount(state.rest, gamma)
        known_steps = 0 if certified else _discounted_steps(gamma, stop, limit)
        if measure and known_steps > 0:
            times = np.empty((known_steps, self.followers.n, 0))
            return Forward(times, self._none, state.weights, stopping.tolerance, None, moving)
        blocks: list[tuple[FloatArray, FloatArray]] = []
        done = 0
        while True:
            block = block_length(self._guess, done, limit)
            if not measure:
                self._check_room(done, max(done + block, known_steps), gradient, visits)
            keeps = not measure and self._memory.keeps_laws(done + block, gradient, visits)
            state, *kept = self._steps(policies, gamma, stage, state, done, block, keeps, measure)
            if stage == SETTLE and (yield AnyOf(any(state.lost.tolist()))):
                moving, ends = yield from self._where_some_never_settle(state, gradient, visits)
                certified = ends and not (moving and gamma < 1.0)
                if not certified:
                    self._weigh_by_discount(state.rest, gamma)
                    state.masses[:] = packed.initial
                    state, *kept = self._steps(
                        policies, gamma, STEP, state, done, block, keeps, measure
                    )
            stage = STEP
            at, left = yield Earliest(state.remainder, gamma, done, stop)
            blocks.append((kept[0], kept[1]))
            done += block
            # The bound at t covers t itself and all that follows; keep one step at least.
            horizon = done if at < 0 else max(done - block + at, 1)
            if at >= 0 or done == limit:
                break
        truncation = left * stopping.magnitude if certified or gamma < 1.0 else np.inf
        if moving and certified:
            later = yield from self._time_from_everywhere(policies, state, stop)
            horizon = min(horizon + later, limit)
            if horizon > done:
                if not measure:
                    self._check_room(done, horizon, gradient, visits)
                more = horizon - done
                keeps = not measure and self._memory.keeps_laws(done + more, gradient, visits)
                _, *kept = self._steps(policies, gamma, STEP, state, done, more, keeps, measure)
                blocks.append((kept[0], kept[1]))
        if not measure:
            self._guess = min(horizon + 2, self.max_horizon)
        laws, marginals = blocks[0] if len(blocks) == 1 else self._joined(blocks)
        settled = state.settled if certified else None
        return Forward(
            marginals[:horizon], laws[:horizon], state.weights, truncation, settled, moving
        )

    def _where_some_never_settle(
        self, state: Chains, gradient: bool, visits: bool
    ) -> Generator[Query, Any, tuple[bool, bool]]:
        """Ask what is so when some policy has states that it never leaves.

        Whether a gradient asks for more time, since followers could leave where they stay; and
        whether the leader earns nothing once all followers are settled, so that the sum ends.
        """
        moving = False
        if gradient:
            packed = self.followers.packed
            leaves = state.settled & ~packed.sink[packed.model]
            moving = yield AnyOf(bool(leaves.any()))
        ends = not visits and (yield Magnitude(self.label_mask(state.settled))) == 0.0
        return moving, ends

    def short(
        self,
        policies: FloatArray,
        stopping: StoppingRule,
        gradient: bool,
    ) -> LeaderPass | None:
        """Pass over two followers with a small table over labels of states in one call.

        None where that does not apply, or where more than ``SHORT_STEPS`` steps were needed and
        are allowed; a horizon of 0 where the limit does not suffice.
        """
        if self._table is None:
            return None
        gamma, limit, settles = stopping.discount, stopping.limit, stopping.settles
        most = min(limit, SHORT_STEPS)
        moving = settles and gradient and self.moves_when_absorbed
        if gamma == 1.0 and (moving or not settles):
            return None
        stage = SETTLE if settles and not moving else WEIGH
        slopes = np.empty(policies.shape if gradient else (0, 0, 0))
        horizon, steps = 0, 0
        # Whether this applies must not depend on earlier calls: other sums would round otherwise.
        while horizon == 0 and steps < most:
            steps = min(4 * steps if steps else self._guess, most)
            self._check_room(0, steps, gradient, visits=True)
            horizon, left, value = fused_pass(
                self.followers.packed,
                self.pattern,
                policies,
                self.leader.labels,
                self._table,
                Horizon(gamma, stage, steps, stopping.share),
                self.shows_states,
                slopes,
            )
        if horizon < 0 or (horizon == 0 and limit > SHORT_STEPS):
            return None
        self._guess = horizon + 2 if horizon else most
        # Floats of Python, also where the kernel is plain Python.
        truncation = float(left) * stopping.magnitude
        return LeaderPass(float(value), slopes if gradient else None, int(horizon), truncation)

    def _weigh_by_discount(self, rest: FloatArray, gamma: float) -> None:
        """Weigh every state by a share of what the discount leaves; at 1 nothing is known."""
        rest.fill(1.0 / ((1.0 - gamma) * self.n_total) if gamma < 1.0 else np.inf)

    def _steps(
        self,
        policies: FloatArray,
        gamma: float,
        stage: int,
        state: Chains,
        done: int,
        count: int,
        keeps: bool,
        measure: bool,
    ) -> tuple[Chains, FloatArray, FloatArray]:
        """Go ``count`` times on: the chains after them, their laws and label marginals."""
        n, states = self._none.shape[1:]
        laws = np.empty((count, n, states)) if keeps else self._none
        marginals = self._none
        if not (measure or self.shows_states):
            marginals = np.empty((count, n, self.leader.n_labels))
        state = state._replace(remainder=np.empty((count, n)))
        kernels.forward_laws.suited(count * self._edges, n)(
            self.followers.packed,
            self.pattern,
            policies,
            self.leader.labels,
            gamma,
            stage,
            state,
            laws,
            marginals,
        )
        if measure:
            return state, np.empty((count, n, 0)), np.empty((count, n, 0))
        return state, laws, laws if self.shows_states else marginals

    @property
    def likely_horizon(self) -> int:
        """Times that a pass is likely to go over, from the last one."""
        return self._guess

    def footprint(self, horizon: int, gradient: bool, guess: int | None = None) -> Footprint:
        """Bytes of a pass that ends after so many times, guessed as at present, or as ``guess``."""
        return self._memory.footprint(horizon, self._guess if guess is None else guess, gradient)

    def _check_room(self, done: int, horizon: int, gradient: bool, visits: bool) -> None:
        """Raise if a pass over so many times takes more memory than there is."""
        self._memory.check_room(done, horizon, self._guess, gradient, visits)

    def _joined(self, blocks: list[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
        """State laws, if all blocks have them, and label marginals of all blocks."""
        marginals = np.concatenate([block[1] for block in blocks])
        if self.shows_states:
            return marginals, marginals
        if all(laws.shape[0] == some.shape[0] for laws, some in blocks):
            return np.concatenate([block[0] for block in blocks]), marginals
        return self._none, marginals

    def _time_from_everywhere(
        self, policies: FloatArray, state: Chains, stop: float
    ) -> Generator[Query, Any, int]:
        """Count the steps until followers started in every state are settled."""
        block, done = 64, 0
        masses = np.repeat(self.stand_for[:, None], state.masses.shape[1], axis=1)
        state = state._replace(masses=masses, remainder=np.empty((block, self.followers.n)))
        run = kernels.forward_laws.suited(block * self._edges, self.followers.n)
        while done < self.max_horizon:
            run(
                self.followers.packed,
                self.pattern,
                policies,
                self.leader.labels,
                1.0,
                STEP,
                state,
                self._none,
                self._none,
            )
            at, _ = yield Earliest(state.remainder, 1.0, 0, stop)
            if at >= 0:
                return int(done + at)
            done += block
        return self.max_horizon

    def gradients(
        self, policies: FloatArray, found: Forward, conditional: FloatArray, gamma: float
    ) -> tuple[float, FloatArray]:
        """V and dV/dpi (n, S, A) from conditional rewards (T, n, L): the backward pass."""
        out = np.empty_like(policies)
        n = policies.shape[0]
        values = np.empty(n)
        kernels.leader_gradients.suited(2 * conditional.shape[0] * self._edges, n)(
            self.followers.packed,
            self.pattern,
            policies,
            self.leader.labels,
            kernels.ForwardLaws(found.weights, found.laws),
            conditional,
            gamma,
            found.truncation < np.inf,
            out,
            values,
        )
        counts = self.followers.counts
        if counts.max() > 1:
            out *= counts[:, None, None]
        return float(values[0]), out
