"""One follower: a tabular Markov decision process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive.errors import InputError, invalid
from fastincentive.kernels.elimination import Fronts, analyse
from fastincentive.kernels.order import Ordered, backward_order, count_pairs, ordered_rows
from fastincentive.kernels.pattern import Pattern, union_rows

if TYPE_CHECKING:
    from scipy.sparse import sparray

__all__ = ["ROW_SUM_TOLERANCE", "TabularMDP"]

#: Transition rows and initial distributions may miss 1 by this much; they are then rescaled.
ROW_SUM_TOLERANCE = 1e-9

#: No factors of I - gamma P with more than about so many entries in L (0.2 GB).
MOST_FILL = 25_000_000

FloatArray = NDArray[np.float64]


class TransitionModel:
    """Transitions of all (state, action) pairs as successor lists, and which pairs exist.

    Row ``s * A + a`` spans ``row_start[row]:row_start[row + 1]`` of ``successor`` (int32) and
    ``probability`` (float64). Two followers with the same ``TransitionModel`` object share it.
    """

    def __init__(
        self,
        row_start: NDArray[np.int64],
        successor: NDArray[np.int32],
        probability: FloatArray,
        available: NDArray[np.bool_],
    ) -> None:
        self.row_start = row_start
        self.successor = successor
        self.probability = probability
        self.available = available
        self._fronts: Fronts | None = None
        self._too_much_work = 0.0  # there are no fronts up to this
        for array in (row_start, successor, probability, available):
            array.setflags(write=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # What is derived from the lists is several times as large, and soon made again.
        given = (self.row_start, self.successor, self.probability, self.available)
        return TransitionModel, given

    @cached_property
    def _pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """State pairs (from, to) that some available action connects."""
        states, actions = self.available.shape
        row = np.repeat(np.arange(states * actions), np.diff(self.row_start))
        keep = self.available.reshape(-1)[row] & (self.probability > 0)
        return row[keep] // actions, self.successor[keep].astype(np.int64)

    @cached_property
    def absorbing(self) -> NDArray[np.bool_]:
        """(S,) bool: states of the closed classes of the graph of all available actions."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        states = self.available.shape[0]
        origin, target = self._pairs
        graph = coo_array((np.ones(origin.size), (origin, target)), shape=(states, states))
        count, component = connected_components(graph, directed=True, connection="strong")
        closed = np.ones(count, bool)
        closed[component[origin[component[origin] != component[target]]]] = False
        return np.asarray(closed[component])

    @cached_property
    def sweep_order(self) -> tuple[NDArray[np.int64], int]:
        """The states (S,) in the order of sweeps, and the widest level of that order."""
        order = np.empty(self.available.shape[0], np.int64)
        breadth = int(backward_order(self.row_start, self.successor, self.sink, order))
        order.setflags(write=False)
        return order, breadth

    @property
    def breadth(self) -> int:
        """Widest level of the breadth-first order, the size of a separator."""
        return self.sweep_order[1]

    @cached_property
    def pairs(self) -> int:
        """How many (state, successor) pairs there are, whatever the action."""
        return int(count_pairs(self.row_start, self.successor, self.available.shape[0]))

    def fronts(self, most_work: float = math.inf) -> Fronts | None:
        """Where the factors of I - gamma P lie under any policy, laid out once.

        None where they get too big or take more than ``most_work``, as counted in ``Fronts``.
        """
        if self._fronts is None and most_work > self._too_much_work:
            states = self.available.shape[0]
            self._fronts = analyse(self.row_start, self.successor, states, MOST_FILL, most_work)
            self._too_much_work = most_work
        return self._fronts

    @cached_property
    def ordered(self) -> Ordered | None:
        """One model's transitions in sweep order, or None if padded rows would waste too much."""
        states, actions = self.available.shape
        width = int(np.diff(self.row_start).max())
        if states * actions * width > 2 * self.successor.size + 1000:
            return None
        order, _ = self.sweep_order
        successor = np.empty((states, actions, width), np.uint32)
        probability = np.empty((states, actions, width))
        ordered_rows(
            self.row_start, self.successor, self.probability, order, successor, probability
        )
        return Ordered(order[None], successor[None], probability[None])

    @cached_property
    def pattern(self) -> Pattern:
        """Successors of each state under any action, merged."""
        states, actions = self.available.shape
        start = np.empty(states + 1, np.uint32)
        column = np.empty(self.successor.size, np.uint32)
        place = np.empty(self.successor.size, np.uint32)
        end = union_rows(self.row_start, self.successor, actions, start, column, place)
        return Pattern(start[None], np.array([0, end]), column[:end].copy(), place)

    @cached_property
    def sink(self) -> NDArray[np.bool_]:
        """(S,) bool: states that no available action leaves."""
        stays = np.ones(self.available.shape[0], bool)
        origin, target = self._pairs
        stays[origin[origin != target]] = False
        return stays


def _check_rows(total: FloatArray, available: NDArray[np.bool_], argument: str) -> None:
    bad = np.abs(total - 1.0) > ROW_SUM_TOLERANCE
    bad &= available
    if bad.any():
        s, a = (int(k) for k in np.argwhere(bad)[0])
        raise invalid(
            argument,
            f"probabilities that sum to 1 (within {ROW_SUM_TOLERANCE:g})",
            f"a sum of {total[s, a]:.12g}",
            f"state {s}, action {a}",
            "Normalise the row, or mark the pair unavailable with available[s, a] = False.",
        )


def _check_probabilities(value: FloatArray, argument: str) -> None:
    bad = ~(value >= 0) | ~np.isfinite(value)
    if bad.any():
        where = tuple(int(k) for k in np.argwhere(bad)[0])
        raise invalid(
            argument,
            "finite probabilities >= 0",
            value[where],
            f"index {where}",
            "Negative, NaN and infinite entries are never valid.",
        )


def _availability(available: ArrayLike | None, states: int, actions: int) -> NDArray[np.bool_]:
    if available is None:
        return np.ones((states, actions), bool)
    mask = np.array(available)
    if mask.dtype != np.bool_ or mask.shape != (states, actions):
        raise invalid(
            "available",
            f"a bool array of shape ({states}, {actions})",
            f"{mask.dtype} {mask.shape}",
        )
    empty = ~mask.any(axis=1)
    if empty.any():
        raise invalid(
            "available",
            "at least one action in every state",
            "none",
            f"state {int(np.argmax(empty))}",
            "Give a state without choices one action that stays there with reward 0.",
        )
    return mask


class TabularMDP:
    """A finite Markov decision process of one follower.

    Parameters
    ----------
    transition : array (S, A, S), or A scipy sparse (S, S) matrices
        ``transition[s, a, s']`` is the probability of ``s'`` after action ``a`` in ``s``; sparse:
        one matrix per action, row ``s`` the law of the successor.
    reward : array (S, A) or (S,)
        Follower's own reward; (S,) means the same for every action.
    discount : float in [0, 1]
        At 1 the closed classes of states that are never left must have reward 0 (the total
        reward is then finite for every policy that reaches them).
    initial : array (S,) or int, optional
        Distribution of the first state, or its number; by default uniform.
    available : bool array (S, A), optional
        Which actions exist in which state; all by default.

    Notes
    -----
    Arrays are copied and read-only afterwards. Rows that sum to 1 within ``ROW_SUM_TOLERANCE``
    are rescaled.

    Raises
    ------
    InputError
        With the argument, what was expected, what came, and the first offending index.

    Examples
    --------
    Stay for 1 a step, or leave once for 5; with discount 0.9 staying earns 10.

    >>> import numpy as np
    >>> import fastincentive as fi
    >>> transition = np.zeros((2, 2, 2))
    >>> transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    >>> transition[1, :, 1] = 1.0
    >>> mdp = fi.TabularMDP(transition, [[1.0, 5.0], [0.0, 0.0]], discount=0.9, initial=0)
    >>> float(fi.best_response(mdp).values[0].round(9))
    10.0
    """

    transition: TransitionModel
    reward: FloatArray
    discount: float
    initial: FloatArray

    def __init__(
        self,
        transition: ArrayLike | Sequence[sparray],
        reward: ArrayLike,
        discount: float = 0.95,
        initial: ArrayLike | int | None = None,
        available: ArrayLike | None = None,
    ) -> None:
        if (
            isinstance(transition, (list, tuple))
            and len(transition) > 0
            and hasattr(transition[0], "tocsr")
        ):
            model = _from_sparse(transition, available)
        else:
            model = _from_dense(transition, available)
        self._finish(model, reward, discount, initial)

    @classmethod
    def from_successors(
        cls,
        successors: ArrayLike,
        probabilities: ArrayLike,
        reward: ArrayLike,
        discount: float = 0.95,
        initial: ArrayLike | int | None = None,
        available: ArrayLike | None = None,
    ) -> TabularMDP:
        """Build from successor lists (S, A, K): state numbers (integers) and their probabilities.

        Entries of probability 0 are padding and may name any state. Repeated successors add up.
        """
        self = cls.__new__(cls)
        self._finish(_from_lists(successors, probabilities, available), reward, discount, initial)
        return self

    def replace(
        self,
        *,
        reward: ArrayLike | None = None,
        discount: float | None = None,
        initial: ArrayLike | int | None = None,
    ) -> TabularMDP:
        """Return a copy with another reward, discount or start that shares the transition model."""
        other = TabularMDP.__new__(TabularMDP)
        other._finish(
            self.transition,
            self.reward if reward is None else reward,
            self.discount if discount is None else discount,
            self.initial if initial is None else initial,
        )
        return other

    def _finish(
        self, model: TransitionModel, reward: ArrayLike, discount: float, initial: Any
    ) -> None:
        states, actions = model.available.shape
        self.transition = model
        self.reward = _reward(reward, states, actions, model.available)
        self.discount = _discount("discount", discount)
        self.initial = _initial(initial, states)
        if self.discount == 1.0:
            check_absorbed_reward(model, self.reward, "reward")

    @property
    def n_states(self) -> int:
        """Number of states S."""
        return int(self.transition.available.shape[0])

    @property
    def n_actions(self) -> int:
        """Number of actions A."""
        return int(self.transition.available.shape[1])

    @property
    def available(self) -> NDArray[np.bool_]:
        """(S, A) bool: which actions exist in which state."""
        return self.transition.available

    def dense_transition(self) -> FloatArray:
        """Return the transition probabilities as a new array (S, A, S)."""
        model = self.transition
        out = np.zeros((self.n_states * self.n_actions, self.n_states))
        row = np.repeat(np.arange(out.shape[0]), np.diff(model.row_start))
        np.add.at(out, (row, model.successor), model.probability)
        return out.reshape(self.n_states, self.n_actions, self.n_states)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        # A pickle forgets that arrays are read-only, and kernels are compiled for either kind.
        for array in (self.reward, self.initial):
            array.setflags(write=False)

    def __repr__(self) -> str:
        """Return the sizes and the discount."""
        return (
            f"TabularMDP(n_states={self.n_states}, n_actions={self.n_actions}, "
            f"discount={self.discount})"
        )


def check_absorbed_reward(model: TransitionModel, reward: FloatArray, argument: str) -> None:
    """Raise if at discount 1 a closed class of states earns a reward for ever."""
    bad = model.absorbing[:, None] & model.available & (reward != 0)
    if bad.any():
        s, a = (int(k) for k in np.argwhere(bad)[0])
        raise invalid(
            argument,
            "0 in every closed class of states, because the discount is 1",
            f"{reward[s, a]:g}",
            f"state {s}, action {a}",
            "Add a sink state with reward 0 that every play reaches, or use a discount below 1.",
        )


def _discount(argument: str, discount: float) -> float:
    try:
        value = float(discount)
    except (TypeError, ValueError):
        raise invalid(argument, "a number in [0, 1]", repr(discount)) from None
    if not 0.0 <= value <= 1.0:
        raise invalid(argument, "a number in [0, 1]", value)
    return value


def _reward(
    reward: ArrayLike, states: int, actions: int, available: NDArray[np.bool_]
) -> FloatArray:
    value = np.array(reward, float)
    if value.shape == (states,):
        value = np.repeat(value[:, None], actions, axis=1)
    if value.shape != (states, actions):
        raise invalid("reward", f"shape ({states}, {actions}) or ({states},)", value.shape)
    value[~available] = 0.0
    bad = ~np.isfinite(value)
    if bad.any():
        s, a = (int(k) for k in np.argwhere(bad)[0])
        raise invalid("reward", "finite numbers", value[s, a], f"state {s}, action {a}")
    value.setflags(write=False)
    return value


def _initial(initial: Any, states: int) -> FloatArray:
    if initial is None:
        value = np.full(states, 1.0 / states)
    elif np.ndim(initial) == 0:
        try:
            number = float(initial)
        except (TypeError, ValueError):
            number = -1.0
        if not (number.is_integer() and 0 <= number < states):
            raise invalid("initial", f"a state number in 0..{states - 1}", initial)
        value = np.zeros(states)
        value[int(initial)] = 1.0
    else:
        value = np.array(initial, float)
        if value.shape != (states,):
            raise invalid("initial", f"shape ({states},) or a state number", value.shape)
        _check_probabilities(value, "initial")
        total = value.sum()
        if abs(total - 1.0) > ROW_SUM_TOLERANCE:
            raise invalid(
                "initial",
                f"a distribution that sums to 1 (within {ROW_SUM_TOLERANCE:g})",
                f"a sum of {total:.12g}",
            )
        value /= total
    value.setflags(write=False)
    return value


def _from_dense(transition: Any, available: ArrayLike | None) -> TransitionModel:
    try:
        dense = np.array(transition, float)
    except (TypeError, ValueError):
        raise invalid(
            "transition",
            "an array (S, A, S) or a list of A scipy sparse matrices (S, S)",
            type(transition).__name__,
        ) from None
    if dense.ndim != 3 or dense.shape[0] != dense.shape[2] or dense.size == 0:
        raise invalid("transition", "an array of shape (S, A, S)", dense.shape)
    states, actions, _ = dense.shape
    mask = _availability(available, states, actions)
    dense[~mask] = 0.0
    _check_probabilities(dense, "transition")
    total = dense.sum(axis=2)
    _check_rows(total, mask, "transition")
    dense /= np.where(mask, total, 1.0)[:, :, None]
    row, column = np.nonzero(dense.reshape(states * actions, states))
    counts = np.bincount(row, minlength=states * actions)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return TransitionModel(
        start, column.astype(np.int32), dense.reshape(-1, states)[row, column], mask
    )


def _from_sparse(matrices: Sequence[Any], available: ArrayLike | None) -> TransitionModel:
    states = matrices[0].shape[0]
    for a, matrix in enumerate(matrices):
        if matrix.shape != (states, states):
            raise invalid("transition", f"shape ({states}, {states})", matrix.shape, f"action {a}")
    rows = [matrix.tocsr().astype(float) for matrix in matrices]
    actions = len(rows)
    mask = _availability(available, states, actions)
    row_of = [np.repeat(np.arange(states), np.diff(matrix.indptr)) for matrix in rows]
    state = np.concatenate(row_of)
    action = np.concatenate([np.full(r.size, a) for a, r in enumerate(row_of)])
    successor = np.concatenate([matrix.indices for matrix in rows])
    probability = np.concatenate([matrix.data for matrix in rows])
    return _assemble(state, action, successor, probability, mask, "transition")


def _from_lists(
    successors: ArrayLike, probabilities: ArrayLike, available: ArrayLike | None
) -> TransitionModel:
    target = np.asarray(successors)
    weight = np.asarray(probabilities, float)
    if target.ndim != 3 or target.size == 0 or target.shape != weight.shape:
        raise invalid(
            "successors and probabilities",
            "two arrays of one shape (S, A, K)",
            f"{target.shape} and {weight.shape}",
        )
    if not np.issubdtype(target.dtype, np.integer):
        raise invalid("successors", "integers", target.dtype)
    states, actions, _ = target.shape
    mask = _availability(available, states, actions)
    weight = np.where(mask[:, :, None], weight, 0.0)
    _check_probabilities(weight, "probabilities")
    used = (weight > 0) & mask[:, :, None]
    bad = used & ((target < 0) | (target >= states))
    if bad.any():
        where = tuple(int(k) for k in np.argwhere(bad)[0])
        raise invalid(
            "successors", f"state numbers in 0..{states - 1}", int(target[where]), f"index {where}"
        )
    state, action, _ = np.nonzero(used)
    return _assemble(state, action, target[used], weight[used], mask, "probabilities")


def _assemble(
    state: NDArray[Any],
    action: NDArray[Any],
    successor: NDArray[Any],
    probability: FloatArray,
    available: NDArray[np.bool_],
    argument: str,
) -> TransitionModel:
    """Sort triples into rows and check that every available row is a distribution."""
    states, actions = available.shape
    bad = (~(probability >= 0) | ~np.isfinite(probability)) & available[state, action]
    if bad.any():
        k = int(np.argmax(bad))
        raise invalid(
            argument,
            "finite probabilities >= 0",
            probability[k],
            f"state {int(state[k])}, action {int(action[k])}, successor {int(successor[k])}",
        )
    keep = available[state, action] & (probability != 0)
    row = (state * actions + action)[keep]
    order = np.argsort(row, kind="stable")
    row = row[order]
    weight = probability[keep][order]
    total = np.bincount(row, weights=weight, minlength=states * actions).astype(float)
    _check_rows(total.reshape(states, actions), available, argument)
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=states * actions))])
    return TransitionModel(
        start.astype(np.int64),
        successor[keep][order].astype(np.int32),
        weight / total[row],
        available,
    )


def as_mdp(argument: str, value: object) -> TabularMDP:
    """Return ``value`` if it is a TabularMDP, else raise."""
    if not isinstance(value, TabularMDP):
        raise InputError(f"{argument}: expected a TabularMDP, got {type(value).__name__}")
    return value
