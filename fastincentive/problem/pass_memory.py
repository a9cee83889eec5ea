"""What a leader pass keeps over time, how many bytes that takes, and whether there is room."""

from __future__ import annotations

from typing import NamedTuple

from numba import get_num_threads

from fastincentive._machine import UNGUARDED, check_memory
from fastincentive.followers.followers import Followers
from fastincentive.leader.base import BoundReward

__all__ = ["Footprint", "PassMemory", "block_length"]

#: State laws that need more bytes than this are not kept.
LAW_BYTES = 2**26


class Footprint(NamedTuple):
    """Bytes of the arrays over time, see ``MemoryEstimate``."""

    marginals: int
    laws: int
    conditional: int
    joining: int


def block_length(guess: int, done: int, limit: int) -> int:
    """Count the steps to go at once, after so many."""
    return min(guess if done == 0 else max(16, done // 2), limit - done)


class PassMemory:
    """The arrays over time of a pass over these followers.

    Parameters
    ----------
    followers : Followers
    leader : BoundReward
    max_horizon : int
        Sums over time stop here in any case.
    shows_states : bool
        Whether labels are the numbers of the states: marginals are then the state laws.
    """

    def __init__(
        self, followers: Followers, leader: BoundReward, max_horizon: int, shows_states: bool
    ) -> None:
        self.shape = followers.shape
        self.leader = leader
        self.max_horizon = max_horizon
        self.shows_states = shows_states
        #: No pass takes more bytes than this for each time.
        self._most_bytes = 16 * followers.n * (followers.n_states + 2 * leader.n_labels)

    def keeps_laws(self, count: int, gradient: bool, visits: bool) -> bool:
        """Whether the state laws of the first so many times are kept; for ``visits`` they are.

        A value has no use for them.
        """
        n, states, _ = self.shape
        room = gradient and 8 * count * n * states <= LAW_BYTES
        return visits or self.shows_states or room

    def footprint(
        self, horizon: int, guess: int, gradient: bool, visits: bool = False
    ) -> Footprint:
        """Bytes of a pass that ends after so many times and was guessed to end after ``guess``."""
        n, states, _ = self.shape
        by_label, by_state = 8 * n * self.leader.n_labels, 8 * n * states
        done = laws = count = 0
        while done < horizon:
            done += block_length(guess, done, self.max_horizon)
            laws = done * by_state if self.keeps_laws(done, gradient, visits) else laws
            count += 1
        marginals = 0 if self.shows_states else done * by_label
        conditional = horizon * by_label + self.leader.scratch_bytes(horizon)
        all_laws = done * by_state if self.keeps_laws(done, gradient, visits) else 0
        joining = 2 * marginals + laws + all_laws if count > 1 else 0
        if all_laws == 0 and gradient:  # gone through again, follower by follower
            all_laws = 8 * horizon * states * min(n, get_num_threads())
        later = marginals + all_laws + conditional
        return Footprint(marginals, all_laws, conditional, max(joining - later, 0))

    def check_room(self, done: int, horizon: int, guess: int, gradient: bool, visits: bool) -> None:
        """Raise if a pass over so many times takes more memory than there is.

        What the times ``done`` take is there already.
        """
        if horizon * self._most_bytes <= UNGUARDED:
            return
        n, states, actions = self.shape
        labels = self.leader.n_labels
        need = sum(self.footprint(horizon, guess, gradient, visits))
        need += 8 * n * states * actions * gradient
        shown = 0 if self.shows_states else labels
        kept = states if self.keeps_laws(done, gradient, visits) else 0
        there = 8 * done * n * (shown + kept)
        check_memory(
            f"a leader pass over {horizon} times or more (n = {n} followers, L = {labels} labels)",
            need - there,
        )
