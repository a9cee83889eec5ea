"""The relaxation behind the bounds: one controller moves the followers, seeing all of them.

It maximises sum_t [gamma_l^t R_l - sum_i c_i gamma_i^t loss_i] over all history-dependent joint
policies, where loss_i(s, a) = V_i*(s) - Q_i*(s, a) >= 0: the discounted losses of a policy add up
to V_i* - V_i, what it gives up. Discounts differ, so the best policy depends on time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.followers.followers import Followers
from fastincentive.kernels import joint_control as kernels
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["Control", "Losses", "affordable", "find_losses", "lasting_pairs"]

#: Weights below this, relative to time 0, end the backward pass.
NEGLIGIBLE = 1e-13
#: Sweeps of value iteration, and steps of the backward pass, at most.
MOST_STEPS = 20_000
#: Elementary operations per step up to which a pair of followers is controlled jointly.
AFFORDABLE = 4_000_000

_ALONE = kernels.Mover(
    row_start=np.array([0, 1]),
    successor=np.zeros(1, np.int32),
    probability=np.ones(1),
    allowed=np.ones((1, 1), bool),
    loss=np.zeros((1, 1)),
    labels=np.zeros((1, 1), np.int64),
)
for _array in _ALONE[:3]:
    _array.setflags(write=False)  # as a model's are, or the kernels are compiled once more


class Losses(NamedTuple):
    """What actions cost the followers at given rewards."""

    loss: FloatArray  # (n, S, A) V*(s) - Q*(s, a), 0 for unavailable actions
    tied: NDArray[np.bool_]  # (n, S, A) optimal actions
    actions: NDArray[np.int64]  # (n, S) one optimal action
    best: FloatArray  # (n,) V_i* from the start
    unit: FloatArray  # (n,) the followers' units of reward


class Control:
    """Joint control of one or two followers.

    Parameters
    ----------
    followers : Followers
    which : sequence of int
        One or two numbers of followers.
    labels : int array (n, S, 1) or (n, S, A)
    table : array (L, L), or (L, 1) for one follower
        What the controller earns.
    discount : float
        The leader's.
    loss : array (n, S, A)
    allowed : bool array (n, S, A)
        Actions that the controller may take.
    """

    def __init__(
        self,
        followers: Followers,
        which: Sequence[int],
        labels: NDArray[np.int64],
        table: FloatArray,
        discount: float,
        loss: FloatArray,
        allowed: NDArray[np.bool_],
    ) -> None:
        shape = followers.shape[1:]
        movers = []
        for i in which:
            model = followers[i].transition
            movers.append(
                kernels.Mover(
                    model.row_start,
                    model.successor,
                    model.probability,
                    np.ascontiguousarray(allowed[i]),
                    np.ascontiguousarray(loss[i]),
                    np.ascontiguousarray(np.broadcast_to(labels[i], shape)),
                )
            )
        self._count = len(movers)
        self._first, self._second = movers if len(movers) == 2 else (movers[0], _ALONE)
        self._table = np.ascontiguousarray(table)
        own = [float(followers.packed.discount[i]) for i in which]
        self._discounts = np.array([discount, *own, *[discount] * (2 - len(own))])
        #: Followers with the leader's discount never fade beside it: they stay in the end value.
        self._counted = (self._discounts[1:] == discount).astype(float)
        self._start = [followers.packed.initial[i] for i in which]
        if len(which) == 1:
            self._start.append(np.ones(1))
        #: Whether every maximum so far is known up to rounding, with its losses.
        self.tight = True
        self._horizon = self._steps()
        self._end: tuple[FloatArray, int, FloatArray, FloatArray] | None = None

    def maximum(self, multipliers: FloatArray) -> tuple[float, FloatArray]:
        """Compute the maximum, and the losses (m,) of a policy that attains it.

        The maximum is an upper bound up to rounding, tight to about 1e-12 unless ``MOST_STEPS``
        cuts it, see ``tight``; inf if the controller can earn for ever. Minus the losses is a
        subgradient of the maximum in the multipliers (m,) >= 0.
        """
        weights = np.zeros(2)
        weights[: self._count] = multipliers
        outcome, value, lost = self._ending(weights * self._counted)
        if outcome == kernels.UNBOUNDED:
            return np.inf, np.zeros(self._count)
        self.tight = self.tight and outcome == kernels.TIGHT
        scale = self._discounts[0] ** self._horizon
        value, lost = scale * value, scale * lost
        kernels.backward_induction(
            self._first,
            self._second,
            self._table,
            self._discounts,
            weights,
            self._horizon,
            value,
            lost,
        )
        first, second = self._start
        totals = [float(first @ each @ second) for each in lost]
        return float(first @ value @ second), np.array(totals[: self._count])

    def values(self) -> FloatArray:
        """Bound what can be earned from each joint state, at no losses: (S_1, S_2) or (S, 1)."""
        outcome, value, _ = self._ending(np.zeros(2))
        return np.full(value.shape, np.inf) if outcome == kernels.UNBOUNDED else value

    def _ending(self, weights: FloatArray) -> tuple[int, FloatArray, FloatArray]:
        """Bound what can be earned for ever, with the losses of followers as patient as the leader.

        The others can lose nothing at best.
        """
        if self._end is None or not np.array_equal(self._end[0], weights):
            value = np.empty((self._first.allowed.shape[0], self._second.allowed.shape[0]))
            lost = np.empty((2, *value.shape))
            taken = np.zeros(lost.shape, np.int64)
            outcome = kernels.value_iteration(
                self._first,
                self._second,
                self._table,
                self._discounts[0],
                weights,
                self._counted,
                MOST_STEPS,
                value,
                taken,
            )
            if outcome != kernels.UNBOUNDED and not kernels.losses_for_ever(
                self._first,
                self._second,
                self._discounts[0],
                self._counted,
                taken,
                MOST_STEPS,
                lost,
            ):
                outcome = kernels.BOUND
            self._end = (weights, outcome, value, lost)
        return self._end[1:]

    def _steps(self) -> int:
        """Count the steps until the leader's weight or the others' losses are negligible.

        Then both can be had at their best: the sum is tight although it is taken apart.
        """
        others = self._discounts[1:][self._counted == 0.0]
        if others.size == 0:
            return 0
        fading = min(self._discounts[0], others.max())
        if fading == 0.0:
            return 1
        steps = np.ceil(np.log(NEGLIGIBLE) / np.log(fading))
        self.tight = bool(steps <= MOST_STEPS)
        return int(min(steps, MOST_STEPS))


def find_losses(problem: IncentiveProblem, payments: FloatArray) -> Losses:
    """Compute what actions cost the followers at payments (k,)."""
    followers = problem.followers
    best = followers.best_responses(problem.rewards(payments))
    there = followers.available
    q_values = np.where(there, best.q_values, 0.0)
    top = best.q_values.max(axis=2, keepdims=True)
    return Losses(
        loss=np.where(there, top - q_values, 0.0),
        tied=problem.optimal_actions(payments, best).tied,
        actions=best.actions,
        best=followers.start_values(best.values),
        unit=followers.units(best),
    )


def affordable(problem: IncentiveProblem) -> bool:
    """Whether the problem has two followers few and small enough to be controlled jointly."""
    _, states, actions = problem.followers.shape
    if problem.n != 2:
        return False
    branching = [each.transition.probability.size for each in problem.followers]
    work = states * actions * max(branching)
    return work <= AFFORDABLE


def lasting_pairs(followers: Followers, i: int, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """States and actions (S, A) that allowed actions (S, A) can take again and again for ever.

    They make up the end components of the follower's MDP (de Alfaro, Formal verification of
    probabilistic systems, 1997): sets of states that some policy never leaves.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    model = followers[i].transition
    states, actions = allowed.shape
    row = np.repeat(np.arange(states * actions), np.diff(model.row_start))
    likely = model.probability > 0
    row, target = row[likely], model.successor[likely]
    kept = allowed.reshape(-1).copy()
    while True:
        edge = kept[row]
        origin = row[edge] // actions
        graph = coo_array((np.ones(origin.size), (origin, target[edge])), shape=(states, states))
        _, component = connected_components(graph, directed=True, connection="strong")
        leaving = row[edge][component[origin] != component[target[edge]]]
        if leaving.size == 0:
            return kept.reshape(states, actions)
        kept[leaving] = False
