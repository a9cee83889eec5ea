"""The first of the leader's passes: how the followers' laws evolve, and when to stop.

The sum over time stops where what is left is certified to be below the tolerance: by the discount,
or by the mass that is not yet in states where the leader earns nothing any more.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._machine import UNGUARDED, check_memory
from fastincentive.followers.chains import pattern_of, room
from fastincentive.followers.followers import Followers
from fastincentive.kernels import marginals as kernels
from fastincentive.kernels.fused_pass import Horizon, fused_pass
from fastincentive.kernels.marginals import SETTLE, STEP, WEIGH, Chains
from fastincentive.leader.base import BoundReward, scratch_bytes, small_table
from fastincentive.problem.queries import AnyOf, Earliest, Magnitude, Query, run_single

__all__ = ["SHORT_STEPS", "Forward", "ForwardPass", "LeaderPass"]

#: Two followers with at most so many labels and steps are passed over in one call.
SHORT_LABELS, SHORT_STEPS = 64, 512
#: State laws that need more bytes than this are not kept.
LAW_BYTES = 2**26


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


def _block(guess: int, done: int, limit: int) -> int:
    """Count the steps to go at once, after so many."""
    return min(guess if done == 0 else max(16, done // 2), limit - done)


def _discounted_steps(gamma: float, stop: float, limit: int) -> int:
    """Count the steps until the discount alone leaves less than ``stop``."""
    share = stop * (1.0 - gamma)
    if not (0.0 < gamma < 1.0 and share < 1.0):
        return 0
    return min(limit, max(math.ceil(math.log(share) / math.log(gamma)), 1))


class Footprint(NamedTuple):
    """Bytes of the arrays over time, see ``MemoryEstimate``."""

    marginals: int
    laws: int
    conditional: int
    joining: int


class ForwardPass:
    """The forward pass of one problem.

    Parameters
    ----------
    followers : Followers
    leader : BoundReward
    max_horizon : int
        Sums over time stop here in any case.
    everybody : int, optional
        Number of followers of all shards; by default these.
    moves_when_absorbed : bool, optional
        Whether some follower of any shard moves on within a closed class.
    """

    def __init__(
        self,
        followers: Followers,
        leader: BoundReward,
        max_horizon: int,
        everybody: int | None = None,
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
        self.everybody = followers.n if everybody is None else everybody
        self._none = np.empty((0, *packed.initial.shape))
        self._edges = int(np.diff(self.pattern.base)[packed.model].sum())
        #: Whether a label is the number of the state.
        self.shows_states = leader.labels.shape[2] == 1 and bool(
            leader.n_labels == followers.n_states
            and (leader.labels[:, :, 0] == np.arange(followers.n_states)).all()
        )
        self._guess = 64
        #: No pass takes more bytes than this for each time.
        self._most_bytes = 16 * followers.n * (followers.n_states + 2 * leader.n_labels)
        #: A small table over two followers' labels of states, and its transpose.
        self._table: tuple[FloatArray, FloatArray] | None = None
        table = small_table(leader, SHORT_LABELS) if followers.n == 2 else None
        if table is not None:
            self._table = table, np.ascontiguousarray(table.T)

    @property
    def has_table(self) -> bool:
        """Whether ``short`` may apply."""
        return self._table is not None

    def __reduce__(self) -> tuple[Any, ...]:
        given = (self.followers, self.leader, self.max_horizon)
        return ForwardPass, (*given, self.everybody, self.moves_when_absorbed)

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
        measure: bool = False,
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
        measure : bool
            Only the horizon is asked for: nothing is kept, the marginals have no labels.

        Raises
        ------
        MemoryLimitError
            If there is no room for laws and marginals over so many times.
        """
        steps = self.run_steps(
            policies, gamma, limit, tolerance, magnitude, settles, gradient, visits, measure
        )
        return run_single(steps, self)

    def run_steps(
        self,
        policies: FloatArray,
        gamma: float,
        limit: int,
        tolerance: float,
        magnitude: float,
        settles: bool,
        gradient: bool = False,
        visits: bool = False,
        measure: bool = False,
    ) -> Generator[Query, Any, Forward]:
        """As ``run``, for a shard of the followers that asks what it needs to know of all."""
        packed = self.followers.packed
        stop = tolerance / magnitude if magnitude > 0.0 else np.inf
        moving = settles and gradient and self.moves_when_absorbed
        certified = settles and not (moving and gamma < 1.0)
        state = room(packed, self.pattern)
        stage = SETTLE if certified else WEIGH
        if not certified:
            self._discounted(state.rest, gamma)
        blocks: list[tuple[FloatArray, FloatArray]] = []
        done = 0
        ahead = 0 if certified else _discounted_steps(gamma, stop, limit)
        if measure and ahead > 0:
            times = np.empty((ahead, self.followers.n, 0))
            return Forward(times, self._none, state.weights, tolerance, None, moving)
        while True:
            block = _block(self._guess, done, limit)
            if not measure:
                self._check_room(done, max(done + block, ahead), gradient, visits)
            state, *kept = self._steps(policies, gamma, stage, state, done, block, visits, measure)
            if stage == SETTLE and (yield AnyOf(any(state.lost.tolist()))):
                # Some policy has states it never leaves: fine where the leader earns nothing.
                moving = gradient and (
                    yield AnyOf(bool((state.settled & ~packed.sink[packed.model]).any()))
                )
                ends = not visits and (yield Magnitude(self.label_mask(state.settled))) == 0.0
                certified = ends and not (moving and gamma < 1.0)
                if not certified:
                    self._discounted(state.rest, gamma)
                    state.masses[:] = packed.initial
                    state, *kept = self._steps(
                        policies, gamma, STEP, state, done, block, visits, measure
                    )
            stage = STEP
            at, left = yield Earliest(state.remainder, gamma, done, stop)
            blocks.append((kept[0], kept[1]))
            done += block
            # The bound at t covers t itself and all that follows; keep one step at least.
            horizon = done if at < 0 else max(done - block + at, 1)
            if at >= 0 or done == limit:
                break
        truncation = left * magnitude if certified or gamma < 1.0 else np.inf
        if moving and certified:
            later = yield from self._time_from_everywhere(policies, state, stop)
            horizon = min(horizon + later, limit)
            if horizon > done:
                if not measure:
                    self._check_room(done, horizon, gradient, visits)
                more = horizon - done
                _, *kept = self._steps(policies, gamma, STEP, state, done, more, visits, measure)
                blocks.append((kept[0], kept[1]))
        if not measure:
            self._guess = min(horizon + 2, self.max_horizon)
        if len(blocks) == 1:
            laws, marginals = blocks[0]
        else:
            laws, marginals = self._joined(blocks)
        known = state.settled if certified else None
        return Forward(
            marginals[:horizon], laws[:horizon], state.weights, truncation, known, moving
        )

    def short(
        self,
        policies: FloatArray,
        gamma: float,
        limit: int,
        tolerance: float,
        magnitude: float,
        settles: bool,
        gradient: bool,
    ) -> LeaderPass | None:
        """Pass over two followers with a small table over labels of states in one call.

        None where that does not apply, or where more than ``SHORT_STEPS`` steps were needed and
        are allowed; a horizon of 0 where the limit does not suffice.
        """
        if self._table is None:
            return None
        most = min(limit, SHORT_STEPS)
        moving = settles and gradient and self.moves_when_absorbed
        if gamma == 1.0 and (moving or not settles):
            return None
        stage = SETTLE if settles and not moving else WEIGH
        stop = tolerance / magnitude if magnitude > 0.0 else np.inf
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
                Horizon(gamma, stage, steps, stop),
                self.shows_states,
                slopes,
            )
        if horizon < 0 or (horizon == 0 and limit > SHORT_STEPS):
            return None
        self._guess = horizon + 2 if horizon else most
        # Floats of Python, also where the kernel is plain Python.
        truncation = float(left) * magnitude
        return LeaderPass(float(value), slopes if gradient else None, int(horizon), truncation)

    def _discounted(self, rest: FloatArray, gamma: float) -> None:
        """Weigh every state by a share of what the discount leaves; at 1 nothing is known."""
        rest.fill(1.0 / ((1.0 - gamma) * self.everybody) if gamma < 1.0 else np.inf)

    def _steps(
        self,
        policies: FloatArray,
        gamma: float,
        stage: int,
        state: Chains,
        done: int,
        count: int,
        visits: bool,
        measure: bool,
    ) -> tuple[Chains, FloatArray, FloatArray]:
        """Go ``count`` times on: the chains after them, their laws and label marginals."""
        n, states = self._none.shape[1:]
        keep = not measure and self._keeps(done + count, visits)
        laws = np.empty((count, n, states)) if keep else self._none
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

    def _keeps(self, count: int, visits: bool) -> bool:
        """Whether the state laws of the first so many times are kept."""
        size = 8 * count * self.followers.n * self.followers.n_states
        return visits or self.shows_states or size <= LAW_BYTES

    def footprint(
        self, horizon: int, gradient: bool, visits: bool = False, guess: int | None = None
    ) -> Footprint:
        """Bytes of a pass that ends after so many times, guessed as at present, or as ``guess``."""
        n, states = self._none.shape[1:]
        by_label, by_state = 8 * n * self.leader.n_labels, 8 * n * states
        done = laws = count = 0
        while done < horizon:
            done += _block(self._guess if guess is None else guess, done, self.max_horizon)
            laws = done * by_state if self._keeps(done, visits) else laws
            count += 1
        marginals = 0 if self.shows_states else done * by_label
        conditional = horizon * by_label + scratch_bytes(self.leader, horizon, n)
        held = done * by_state if self._keeps(done, visits) else 0
        joining = 2 * marginals + laws + held if count > 1 else 0
        if held == 0 and gradient:  # gone through again, follower by follower
            held = 8 * horizon * states * min(n, get_num_threads())
        later = marginals + held + conditional
        return Footprint(marginals, held, conditional, max(joining - later, 0))

    def _check_room(self, done: int, horizon: int, gradient: bool, visits: bool) -> None:
        """Raise if a pass over so many times takes more memory than there is."""
        if horizon * self._most_bytes <= UNGUARDED:
            return
        n, states, actions = self.followers.shape
        labels = self.leader.n_labels
        need = sum(self.footprint(horizon, gradient, visits)) + 8 * n * states * actions * gradient
        shown = 0 if self.shows_states else labels
        held = 8 * done * n * (shown + (states if self._keeps(done, visits) else 0))
        check_memory(
            f"a leader pass over {horizon} times or more (n = {n} followers, L = {labels} labels)",
            need - held,
        )

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
        state = state._replace(
            masses=np.ones(state.masses.shape), remainder=np.empty((block, self.followers.n))
        )
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
