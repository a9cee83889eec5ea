"""n followers as flat arrays, given one by one or all at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive._arrays import FloatArray, as_counts, check_shape
from fastincentive._checks import checked
from fastincentive.errors import invalid, shown
from fastincentive.followers.from_arrays import arrays_of
from fastincentive.followers.mdp import TabularMDP, as_mdp
from fastincentive.followers.packing import check_room, distinct_models, pack, stacked
from fastincentive.followers.transition import TransitionModel
from fastincentive.kernels.packed import Packed

__all__ = ["PackedFollowers"]


class PackedFollowers:
    """What ``Followers`` holds: see there."""

    packed: Packed
    rewards: FloatArray  # (n, S, A)
    counts: NDArray[np.int64]  # (n,) followers of each type
    shape: tuple[int, int, int]  # (n, S, A), that of policies and side payments
    models: list[TransitionModel]  # that of follower i is number ``packed.model[i]``

    def __init__(self, mdps: Sequence[TabularMDP], counts: ArrayLike | None = None) -> None:
        given = _of_one_size("followers", "follower", mdps)
        models, index = distinct_models(mdp.transition for mdp in given)
        self.counts = _checked_counts(counts, len(given))
        check_room(len(given), *given[0].available.shape)
        discount = np.array([mdp.discount for mdp in given])
        initial = stacked([mdp.initial for mdp in given])
        self._hold(models, pack(models, index, discount, initial), given)
        self.rewards = stacked([mdp.reward for mdp in given])

    @classmethod
    @checked
    def from_arrays(
        cls,
        models: TabularMDP | Sequence[TabularMDP],
        rewards: ArrayLike,
        discount: ArrayLike | None = None,
        initial: ArrayLike | None = None,
        *,
        index: ArrayLike | None = None,
        counts: ArrayLike | None = None,
    ) -> Self:
        """Build n followers at once, whose models are given once.

        Parameters
        ----------
        models : TabularMDP or sequence of M TabularMDP
            Transitions, and the discount and start of followers for whom none are given.
        rewards : array (n, S, A) or (n, S)
            Followers' own rewards; (n, S) means the same for every action. In (n, S, A) ``-inf``
            says that an action is not available.
        discount : float or array (n,), optional
        initial : array (n,) of integers or (n, S), optional
            First states, or their distributions.
        index : array (n,) of integers, optional
            The number of each follower's model; with one model, or n of them, it need not be given.
        counts : array (n,) of positive integers, optional
            How many followers are alike, see ``Followers``.

        Raises
        ------
        InputError
            With the argument, what was expected, what came, and the first offending follower.
        MemoryLimitError
            Before anything large is allocated, if there is no room.

        Examples
        --------
        >>> import numpy as np
        >>> import fastincentive as fi
        >>> mdp = fi.models.grid_mdp("S..G", slip=0.1)
        >>> rewards = np.random.default_rng(0).uniform(0.0, 1.0, (10_000, 5))
        >>> rewards[:, 4] = 0.0
        >>> fi.Followers.from_arrays(mdp, rewards, initial=np.arange(10_000) % 4)
        Followers(n=10000, n_states=5, n_actions=4, n_models=1)
        """
        given = [models] if isinstance(models, TabularMDP) else models
        known = _of_one_size("models", "model", given)
        every, owner, *laws, found = arrays_of(known, rewards, discount, initial, index)
        used, owner = np.unique(owner, return_inverse=True)
        distinct, number = distinct_models(every[m].transition for m in used.tolist())
        self = cls.__new__(cls)
        self.counts = _checked_counts(counts, len(found))
        self._hold(distinct, pack(distinct, number[owner], *laws))
        self.rewards = found
        return self

    def _hold(
        self,
        models: list[TransitionModel],
        packed: Packed,
        given: list[TabularMDP] | None = None,
    ) -> None:
        self.models = models
        self.packed = packed
        self.shape = (packed.model.size, *packed.available.shape[1:])
        self._given = given
        self._discounted = bool(packed.discount.max() < 1.0)

    def __reduce__(self) -> tuple[Any, ...]:
        # The packed arrays repeat what the models hold.
        if self._given is not None:
            return type(self), (self._given, self.counts)
        packed = self.packed
        arrays = (packed.model, packed.discount, packed.initial, self.rewards, self.counts)
        return _restored, (type(self), self.models, *arrays)

    def by_model(self) -> Self:
        """Return one follower for each model, who starts as all of the model's do together.

        The law of its start adds up to the number of these, and so do sums over them.
        """
        from scipy.sparse import csr_array

        packed, n = self.packed, self.n
        members = csr_array((np.ones(n), (packed.model, np.arange(n))), (self.n_models, n))
        first = np.unique(packed.model, return_index=True)[1]
        other = type(self).__new__(type(self))
        law = packed._replace(model=packed.model[first], discount=packed.discount[first])
        other._hold(self.models, law._replace(initial=members @ packed.initial))
        other.counts, other.rewards = np.ones(first.size, np.int64), self.rewards[first]
        return other

    def repeated(self, which: NDArray[np.int64]) -> Self:
        """Return followers of whom number j is like number ``which[j]`` of these, one of each."""
        packed = self.packed
        chosen = packed._replace(
            model=packed.model[which],
            discount=packed.discount[which],
            initial=packed.initial[which],
        )
        other = type(self).__new__(type(self))
        other._hold(self.models, chosen)
        other.counts, other.rewards = np.ones(which.size, np.int64), self.rewards[which]
        return other

    def discounted(self, discount: float) -> Self:
        """Return the same followers with another discount, the same for all."""
        packed = self.packed
        other = type(self).__new__(type(self))
        other._hold(self.models, packed._replace(discount=np.full(self.n, float(discount))))
        other.counts, other.rewards = self.counts, self.rewards
        return other

    @property
    def n(self) -> int:
        """Number of followers."""
        return self.packed.model.size

    @property
    def population(self) -> int:
        """Number of followers of all types together; n unless there are counts."""
        return int(self.counts.sum())

    @property
    def n_states(self) -> int:
        """Number of states S."""
        return self.packed.available.shape[1]

    @property
    def n_actions(self) -> int:
        """Number of actions A."""
        return self.packed.available.shape[2]

    @property
    def n_models(self) -> int:
        """Number of distinct transition models stored."""
        return len(self.models)

    @property
    def available(self) -> NDArray[np.bool_]:
        """(n, S, A) bool: which actions exist for which follower in which state."""
        return np.asarray(self.packed.available[self.packed.model])

    def __len__(self) -> int:
        """Return the number of followers."""
        return self.n

    def __getitem__(self, i: int) -> TabularMDP:
        """Return follower ``i``; one given in arrays is a view of these."""
        if self._given is not None:
            return self._given[i]
        i = range(self.n)[i]
        reward, initial = self.rewards[i], self.packed.initial[i]
        model, discount = self.models[self.packed.model[i]], float(self.packed.discount[i])
        return TabularMDP.of_checked(model, reward, discount, initial)

    def __iter__(self) -> Iterator[TabularMDP]:
        """Iterate over the followers."""
        return (self[i] for i in range(self.n))

    def __repr__(self) -> str:
        """Return the sizes."""
        return (
            f"Followers(n={self.n}, n_states={self.n_states}, n_actions={self.n_actions}, "
            f"n_models={self.n_models})"
        )


def _of_one_size(argument: str, noun: str, mdps: Iterable[TabularMDP]) -> list[TabularMDP]:
    """Return at least one follower or model, all of one size."""
    if not hasattr(mdps, "__iter__"):
        raise invalid(argument, "a sequence of TabularMDP", shown(mdps))
    given = [as_mdp(f"{argument}[{i}]", mdp) for i, mdp in enumerate(mdps)]
    if not given:
        raise invalid(argument, "at least one TabularMDP", "none")
    shape = given[0].available.shape
    for i, mdp in enumerate(given):
        if mdp.available.shape != shape:
            raise invalid(
                argument,
                f"{shape[0]} states and {shape[1]} actions, as the first {noun}",
                f"{mdp.n_states} and {mdp.n_actions}",
                f"{noun} {i}",
                "Pad with unreachable states, and mark missing actions unavailable.",
            )
    return given


def _checked_counts(counts: ArrayLike | None, n: int) -> NDArray[np.int64]:
    if counts is None:
        return np.ones(n, np.int64)
    found = as_counts("counts", counts)
    check_shape("counts", found, (n,), "one per type")
    return found


def _restored(
    kind: type[PackedFollowers],
    models: list[TransitionModel],
    index: NDArray[np.int64],
    discount: FloatArray,
    initial: FloatArray,
    rewards: FloatArray,
    counts: NDArray[np.int64],
) -> PackedFollowers:
    """Return what was pickled."""
    self = kind.__new__(kind)
    self._hold(models, pack(models, index, discount, initial))
    self.rewards, self.counts = rewards, counts
    return self
