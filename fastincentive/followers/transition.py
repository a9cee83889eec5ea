"""Transition models: successors with probabilities, from every form that people have them in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray, as_integers, as_numbers
from fastincentive.errors import invalid
from fastincentive.kernels.sparsity import Pattern, union_rows
from fastincentive.kernels.sweep_order import (
    Ordered,
    backward_order,
    count_pairs,
    ordered_rows,
    widest_row,
)
from fastincentive.kernels.symbolic_factorization import Fronts, analyse
from fastincentive.kernels.transitions import closed_classes, digest, pack_rows

__all__ = [
    "ROW_SUM_TOLERANCE",
    "TransitionModel",
    "availability",
    "check_probabilities",
    "check_rows",
    "from_dense",
    "from_lists",
    "from_sparse",
    "from_triples",
    "in_double",
]

#: Transition rows and initial distributions may miss 1 by this much; they are then rescaled.
ROW_SUM_TOLERANCE = 1e-9
#: As much for numbers of single precision, whose sums miss by so much at some 10,000 successors.
SINGLE_TOLERANCE = 1e-5

#: No factors of I - gamma P with more than about so many entries in L (0.2 GB).
MOST_FILL = 25_000_000


#: Models in use, by their shape and a digest of what is in them.
_in_use: dict[tuple[int, ...], ref[TransitionModel]] = {}


class TransitionModel:
    """Transitions of all (state, action) pairs as successor lists, and which pairs exist.

    Row ``s * A + a`` spans ``row_start[row]:row_start[row + 1]`` of ``successor`` (int32) and
    ``probability`` (float64). Two followers with the same ``TransitionModel`` object share it; what
    is built from equal transitions is the same object, for as long as somebody holds it.
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

    def shared(self) -> TransitionModel:
        """Return an equal model that is in use already, else this one."""
        key = (*self.available.shape, digest(self.successor, self.probability))
        known = _in_use.get(key)
        other = None if known is None else known()
        if other is not None and all(map(_same, self._given, other._given)):
            return other

        def forget(gone: ref[TransitionModel]) -> None:
            if in_use.get(key) is gone:
                del in_use[key]

        in_use = _in_use  # still there when Python shuts down
        in_use[key] = ref(self, forget)
        return self

    @property
    def _given(self) -> tuple[NDArray[Any], ...]:
        return self.row_start, self.successor, self.probability, self.available

    def __reduce__(self) -> tuple[Any, ...]:
        # What is derived from the lists is several times as large, and soon made again.
        return TransitionModel, self._given

    @cached_property
    def _levels(self) -> tuple[NDArray[np.int64], int, NDArray[np.bool_], int]:
        """Sweep order and its widest level, the sinks, and how many states lead to these."""
        states = self.available.shape[0]
        order, sink = np.empty(states, np.int64), np.empty(states, bool)
        breadth, led = backward_order(self.row_start, self.successor, sink, order)
        return order, int(breadth), sink, int(led)

    @property
    def sink(self) -> NDArray[np.bool_]:
        """(S,) bool: states that no available action leaves."""
        return self._levels[2]

    def left_with(self, actions: NDArray[np.bool_]) -> TransitionModel:
        """Return the model in which only these actions (S, A) are available, of those that are."""
        kept = actions & self.available
        length = np.diff(self.row_start)
        entries = np.repeat(kept.reshape(-1), length)
        start = np.concatenate([[0], np.cumsum(length * kept.reshape(-1))])
        return TransitionModel(start, self.successor[entries], self.probability[entries], kept)

    @cached_property
    def absorbing(self) -> NDArray[np.bool_]:
        """(S,) bool: states of the closed classes of the graph of all available actions."""
        _, _, sink, led = self._levels
        if led == sink.size:
            return sink
        closed = np.empty(sink.size, bool)
        closed_classes(self.row_start, self.successor, closed)
        return closed

    @property
    def sweep_order(self) -> tuple[NDArray[np.int64], int]:
        """The states (S,) in the order of sweeps, and the widest level of that order."""
        return self._levels[:2]

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
    def width(self) -> int:
        """Number of entries of the longest row."""
        return int(widest_row(self.row_start))

    @property
    def ragged(self) -> bool:
        """Whether rows padded to the longest one would waste too much."""
        return self.available.size * self.width > 2 * self.successor.size + 1000

    @cached_property
    def ordered(self) -> Ordered | None:
        """One model's transitions in sweep order, or None if padded rows would waste too much."""
        if self.ragged:
            return None
        order, _ = self.sweep_order
        successor = np.empty((*self.available.shape, self.width), np.uint32)
        probability = np.empty(successor.shape)
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


def _same(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Whether two arrays hold the same bytes: told in a fraction of the time that numbers take."""
    alike = first.shape == second.shape and first.dtype == second.dtype
    return alike and first.tobytes() == second.tobytes()


def in_double(rows: Any, argument: str = "initial") -> FloatArray:
    """Return chances (..., K) as a new array of doubles.

    Rows that were normalised in single precision are rescaled, where they are within that precision
    of a distribution; what is wrong with others is for the caller to say.
    """
    given = as_numbers(argument, rows)
    value = np.array(given, float, order="C")
    if given.dtype == np.float32 and value.size:
        total = value.sum(axis=-1, keepdims=True)
        value /= np.where(np.abs(total - 1.0) <= SINGLE_TOLERANCE, total, 1.0)
    return value


def check_rows(total: FloatArray, available: NDArray[np.bool_], argument: str) -> None:
    """Raise unless probabilities sum to 1 wherever an action is available."""
    bad = np.abs(total - 1.0) > ROW_SUM_TOLERANCE
    bad &= available
    if bad.any():
        s, a = (int(k) for k in np.argwhere(bad)[0])
        raise invalid(
            argument,
            f"probabilities that sum to 1 (within {ROW_SUM_TOLERANCE:g})",
            f"a sum of {total[s, a]:.12g}",
            f"state {s}, action {a}",
            "Normalise the row in float64, or mark the pair unavailable with "
            "available[s, a] = False.",
        )


def check_probabilities(value: FloatArray, argument: str) -> None:
    """Raise at the first number that is no probability."""
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


def availability(available: ArrayLike | None, states: int, actions: int) -> NDArray[np.bool_]:
    """Return (S, A) bool: which actions are available, at least one in each state."""
    if available is None:
        return np.ones((states, actions), bool)
    mask = np.array(as_numbers("available", available), order="C")
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


def from_dense(transition: Any, available: ArrayLike | None) -> TransitionModel:
    """Build a model from an array (S, A, S)."""
    if hasattr(transition, "tocsr") or isinstance(transition, str):
        expected = "an array (S, A, S) or a list of A scipy sparse matrices (S, S)"
        raise invalid("transition", expected, type(transition).__name__)
    dense = in_double(transition, "transition")
    if dense.ndim != 3 or dense.shape[0] != dense.shape[2] or dense.size == 0:
        raise invalid("transition", "an array of shape (S, A, S)", dense.shape)
    states, actions, _ = dense.shape
    mask = availability(available, states, actions)
    packed = _packed(np.empty((states, actions, 0), np.int64), dense, mask)
    if packed is not None:
        return packed
    dense[~mask] = 0.0
    check_probabilities(dense, "transition")
    state, action, successor = np.nonzero(dense)
    return _assemble(state, action, successor, dense[dense > 0], mask, "transition")


def from_sparse(matrices: Sequence[Any], available: ArrayLike | None) -> TransitionModel:
    """Build a model from one sparse matrix (S, S) for each action."""
    states = matrices[0].shape[0]
    rows = [_sparse_rows(matrix, states, a) for a, matrix in enumerate(matrices)]
    actions = len(rows)
    mask = availability(available, states, actions)
    row_of = [np.repeat(np.arange(states), np.diff(matrix.indptr)) for matrix in rows]
    state = np.concatenate(row_of)
    action = np.concatenate([np.full(r.size, a) for a, r in enumerate(row_of)])
    successor = np.concatenate([matrix.indices for matrix in rows])
    probability = np.concatenate([matrix.data for matrix in rows])
    if any(matrix.dtype == np.float32 for matrix in matrices):
        row = state * actions + action
        total = np.bincount(row, probability, states * actions)
        probability /= np.where(np.abs(total - 1.0) <= SINGLE_TOLERANCE, total, 1.0)[row]
    return _assemble(state, action, successor, probability, mask, "transition")


def _sparse_rows(matrix: Any, states: int, action: int) -> Any:
    """Return a sparse matrix (S, S) by rows, whose indices have been looked at.

    SciPy itself reads and writes wherever they point.
    """
    where = f"action {action}"
    if not hasattr(matrix, "tocsr"):
        raise invalid("transition", "a sparse matrix", type(matrix).__name__, where)
    if matrix.shape != (states, states):
        raise invalid("transition", f"shape ({states}, {states})", matrix.shape, where)
    if matrix.dtype.kind not in "fiub":
        raise invalid("transition", "real numbers", matrix.dtype, where)
    try:
        if hasattr(matrix, "check_format"):
            matrix.check_format(full_check=True)
    except ValueError as error:
        raise invalid("transition", "a valid sparse matrix", str(error), where) from None
    for index in getattr(matrix, "coords", ()) if matrix.format == "coo" else ():
        if index.size and not 0 <= index.min() <= index.max() < states:
            raise invalid("transition", f"indices in 0..{states - 1}", "others", where)
    return matrix.tocsr().astype(float)


def from_lists(
    successors: ArrayLike, probabilities: ArrayLike, available: ArrayLike | None
) -> TransitionModel:
    """Build a model from successors and probabilities (S, A, K)."""
    target = as_numbers("successors", successors)
    weight = in_double(probabilities, "probabilities")
    if target.ndim != 3 or target.size == 0 or target.shape != weight.shape:
        raise invalid(
            "successors and probabilities",
            "two arrays of one shape (S, A, K)",
            f"{target.shape} and {weight.shape}",
        )
    if not np.issubdtype(target.dtype, np.integer):
        raise invalid("successors", "integers", target.dtype)
    states, actions, _ = target.shape
    mask = availability(available, states, actions)
    packed = _packed(as_integers("successors", target), weight, mask)
    if packed is not None:
        return packed
    weight = np.where(mask[:, :, None], weight, 0.0)
    check_probabilities(weight, "probabilities")
    used = (weight > 0) & mask[:, :, None]
    bad = used & ((target < 0) | (target >= states))
    if bad.any():
        where = tuple(int(k) for k in np.argwhere(bad)[0])
        raise invalid(
            "successors", f"state numbers in 0..{states - 1}", int(target[where]), f"index {where}"
        )
    state, action, _ = np.nonzero(used)
    return _assemble(state, action, target[used], weight[used], mask, "probabilities")


def _packed(
    target: NDArray[np.int64], weight: FloatArray, available: NDArray[np.bool_]
) -> TransitionModel | None:
    """Build a model in one pass, see ``pack_rows``; None where anything is wrong with the rows.

    The arrays are the caller's own, contiguous and writable: kernels compile for one kind.
    """
    room = int(np.count_nonzero(weight))
    start = np.empty(available.size + 1, np.int64)
    successor, probability = np.empty(room, np.int32), np.empty(room)
    end = pack_rows(target, weight, available, ROW_SUM_TOLERANCE, start, successor, probability)
    if end < 0:
        return None
    if end < room:
        successor, probability = successor[:end].copy(), probability[:end].copy()
    return TransitionModel(start, successor, probability, available).shared()


def from_triples(
    pairs: NDArray[np.int64],
    successors: NDArray[np.int64],
    probability: FloatArray,
    available: NDArray[np.bool_],
) -> TransitionModel:
    """Build a model from moves (E,): from pairs s * A + a to successors; repeated ones add up."""
    states, actions = available.shape
    moves, place = np.unique(pairs * states + successors, return_inverse=True)
    row, successor = np.divmod(moves, states)
    total = np.bincount(place.reshape(-1), probability).astype(float)
    return _assemble(row // actions, row % actions, successor, total, available, "transition")


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
    check_rows(total.reshape(states, actions), available, argument)
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=states * actions))])
    return TransitionModel(
        start.astype(np.int64),
        successor[keep][order].astype(np.int32),
        weight / total[row],
        available,
    ).shared()
