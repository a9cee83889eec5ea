"""One follower: a tabular Markov decision process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive.errors import InputError, invalid, shown

if TYPE_CHECKING:
    from scipy.sparse import sparray
from fastincentive._arrays import LARGEST, FloatArray, as_floats, as_numbers
from fastincentive._checks import number
from fastincentive._machine import check_large
from fastincentive.followers.transition import (
    ROW_SUM_TOLERANCE,
    TransitionModel,
    availability,
    check_probabilities,
    from_dense,
    from_lists,
    from_sparse,
    in_double,
)

__all__ = ["TabularMDP"]

#: What to do about rewards of transitions.
MEANS = (
    "Rewards of transitions enter by their means, sum over s' of P(s' | s, a) r(s, a, s'); of "
    "matrices P[a] and r[a] the column of action a is (P[a] * r[a]).sum(axis=1), with "
    "P[a].multiply(r[a]) if they are sparse."
)


class TabularMDP:
    """A finite Markov decision process of one follower.

    Parameters
    ----------
    transition : array (S, A, S), or A scipy sparse (S, S) matrices
        ``transition[s, a, s']`` is the probability of ``s'`` after action ``a`` in ``s``; sparse:
        one matrix per action, row ``s`` the law of the successor.
    reward : array (S, A) or (S,)
        Follower's own reward; (S,) means the same for every action. In an array (S, A) ``-inf``
        says that the action does not exist, as ``available`` does.
    discount : float in [0, 1]
        At 1 the closed classes of states that are never left must have reward 0 (the total
        reward is then finite for every policy that reaches them). A follower may also stay for
        ever in states that it could leave, if nothing is earned there.
    initial : array (S,) or int, optional
        Distribution of the first state, or its number; by default uniform.
    available : bool array (S, A), optional
        Which actions exist in which state; all by default.

    Notes
    -----
    Arrays are copied and read-only afterwards. Rows that sum to 1 within ``ROW_SUM_TOLERANCE``
    are rescaled; so are those of float32 arrays within single precision.

    Rewards of transitions enter by their means: R(s, a) = sum over s' of P(s' | s, a) r(s, a, s').

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
        available = _available(reward, available)
        if (
            isinstance(transition, (list, tuple))
            and len(transition) > 0
            and hasattr(transition[0], "tocsr")
        ):
            model = from_sparse(transition, available)
        else:
            model = from_dense(transition, available)
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
        model = from_lists(successors, probabilities, _available(reward, available))
        return cls.of_model(model, reward, discount, initial)

    @classmethod
    def of_model(
        cls, model: TransitionModel, reward: ArrayLike, discount: float, initial: Any
    ) -> TabularMDP:
        """Build from a transition model that has been checked."""
        self = cls.__new__(cls)
        self._finish(model, reward, discount, initial)
        return self

    @classmethod
    def of_checked(
        cls,
        model: TransitionModel,
        reward: FloatArray,
        discount: float,
        initial: FloatArray,
    ) -> TabularMDP:
        """Put a follower together from views of arrays that were checked for many at once."""
        self = cls.__new__(cls)
        self.transition, self.discount = model, discount
        for array in (reward, initial):
            array.setflags(write=False)
        self.reward, self.initial = reward, initial
        return self

    def replace(
        self,
        *,
        reward: ArrayLike | None = None,
        discount: float | None = None,
        initial: ArrayLike | int | None = None,
    ) -> TabularMDP:
        """Return a copy with another reward, discount or start that shares the transition model.

        An action whose new reward is ``-inf`` is no longer available: the model is then another.
        """
        model = self.transition
        left = model.available if reward is None else _available(reward, model.available)
        if left is not model.available:
            there = availability(left, self.n_states, self.n_actions)
            model = model if np.array_equal(there, model.available) else model.left_with(there)
        other = TabularMDP.__new__(TabularMDP)
        other._finish(
            model,
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
        self.reward = _checked_reward(reward, states, actions, model.available)
        self.discount = _checked_discount("discount", discount)
        self.initial = _checked_initial(initial, states)
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
        need = 8.0 * self.n_states * self.n_actions * self.n_states
        check_large(f"A dense table of {self.n_states} states", need)
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


def _checked_discount(argument: str, discount: float) -> float:
    try:
        value = number(argument, discount)
    except InputError:
        raise invalid(argument, "a number in [0, 1]", shown(discount)) from None
    if not 0.0 <= value <= 1.0:
        raise invalid(argument, "a number in [0, 1]", value)
    return value


def _available(reward: ArrayLike, available: ArrayLike | None) -> ArrayLike | None:
    """Return which actions exist: those with reward -inf do not."""
    if not isinstance(reward, np.ndarray):
        try:
            reward = np.asarray(reward, float)
        except (TypeError, ValueError):
            return available  # refused later
    if reward.dtype.kind != "f" or reward.ndim != 2 or not reward.size or reward.min() > -np.inf:
        return available
    there = reward != -np.inf
    if available is None:
        return there
    given = np.asarray(available)
    return given & there if given.shape == there.shape and given.dtype == bool else available


def _checked_reward(
    reward: ArrayLike, states: int, actions: int, available: NDArray[np.bool_]
) -> FloatArray:
    shapes = f"shape ({states}, {actions}) or ({states},)"
    if isinstance(reward, (list, tuple)) and any(hasattr(each, "tocsr") for each in reward):
        raise invalid("reward", f"an array of {shapes}", "sparse matrices", None, MEANS)
    value = as_floats("reward", reward)
    if value.shape == (states,):
        value = np.repeat(value[:, None], actions, axis=1)
    if value.shape != (states, actions):
        raise invalid("reward", shapes, value.shape, None, MEANS if value.ndim == 3 else "")
    value[~available] = 0.0
    bad = ~(np.abs(value) <= LARGEST)
    if bad.any():
        s, a = (int(k) for k in np.argwhere(bad)[0])
        small = f" of at most {LARGEST:g}" if np.isfinite(value[s, a]) else ""
        raise invalid("reward", f"finite numbers{small}", value[s, a], f"state {s}, action {a}")
    value.setflags(write=False)
    return value


def _checked_initial(initial: Any, states: int) -> FloatArray:
    given = None if initial is None else as_numbers("initial", initial)
    if given is None:
        value = np.full(states, 1.0 / states)
    elif given.ndim == 0:
        state = float(given)
        if not (state.is_integer() and 0 <= state < states):
            raise invalid("initial", f"a state number in 0..{states - 1}", initial)
        value = np.zeros(states)
        value[int(state)] = 1.0
    else:
        value = in_double(given)
        if value.shape != (states,):
            raise invalid("initial", f"shape ({states},) or a state number", value.shape)
        check_probabilities(value, "initial")
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


def as_mdp(argument: str, value: object) -> TabularMDP:
    """Return ``value`` if it is a TabularMDP, else raise."""
    if not isinstance(value, TabularMDP):
        raise InputError(f"{argument}: expected a TabularMDP, got {type(value).__name__}")
    return value
