"""What a problem needs of the machine's memory, what there is, and the refusal to ask for more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numba import get_num_threads

from fastincentive._checks import checked
from fastincentive._machine import check_memory, text_size
from fastincentive._tables import text_table
from fastincentive.errors import InputError
from fastincentive.followers.best_responses import recall_bytes
from fastincentive.followers.evaluation import MOST_FILL, likely_fill
from fastincentive.kernels.packed import DENSE_STATES
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.pass_memory import Footprint

__all__ = [
    "REFINED_STATES",
    "MemoryEstimate",
    "answered_horizon",
    "estimate_memory",
    "response_bytes",
    "search_bytes",
]

#: Arrays (n, S, A) that the ascent holds at once beside a leader pass, or after it (measured).
ASCENT_ARRAYS = 12
#: Rows of derivatives of each follower that a solve's measure of stationarity holds (measured).
STATIONARITY_ROWS = 5
#: A search over regimes refines a solve of up to so many states; on each line it finds so many
#: responses for each state, and holds their label marginals so many times (measured).
REFINED_STATES, ENTRIES, MARGINALS = 1000, 0.6, 3
#: Horizons of a solve lie between those of best responses and of random choice, here on a scale of
#: logarithms (measured); of more followers than ``MANY`` only the latter is known.
RANDOM, MANY = 2.0 / 3.0, 1000
#: Tables (S,)*n that doubling holds at once, and matrices (n, S, S).
JOINT_TABLES, JOINT_CHAINS = 8, 2


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by part; what the problem holds is counted, the rest is estimated.

    Attributes
    ----------
    horizon : int
        T, the times that the leader's sums go over.
    models, rewards, payments : int
        Held by the problem: the followers' transitions with what was derived from them so far; the
        rewards of followers and leader; where may be paid.
    policies : int
        Policies (n, S, A) and their chains.
    marginals, laws : int
        Label marginals (T, n, L), and state laws (T, n, S) if they are kept.
    conditional : int
        Conditional rewards (T, n, L), with what the leader's reward needs to find them.
    joining : int
        What exists twice for a moment while times are joined, as far as it is not less than what
        comes later.
    gradient : int
        dV/dpi (n, S, A).
    factors : int
        LU factors of followers with many states, of as many as are evaluated at once.
    product_space : int
        Tables over joint states (S,)*n, where doubling takes over.
    response : int
        What a solve remembers of the followers' best responses.
    ascent : int
        Further arrays of a solve: some (n, S, A), and what its longest passes take more than one
        whose horizon is known.
    stationarity : int
        What measures how stationary its end is: grows with the square of the number of followers
        that share payments or a budget.
    search : int
        What the search over regimes that refines a solve takes more than all before, guessed from
        the number of states; of more than ``REFINED_STATES`` there is none.
    sooner : int
        What the passes of a solve take less than those of followers who choose at random, because
        they end sooner: this is no part of the total.
    """

    horizon: int
    models: int
    rewards: int
    payments: int
    policies: int
    marginals: int
    laws: int
    conditional: int
    joining: int
    gradient: int
    factors: int
    product_space: int
    response: int
    ascent: int
    stationarity: int
    search: int = 0
    sooner: int = 0

    @property
    def held(self) -> int:
        """What the problem holds already."""
        return self.models + self.rewards + self.payments

    @property
    def leader_pass(self) -> int:
        """What ``problem.leader_gradient`` takes at most at once, on top of ``held``."""
        solve = self.response + self.ascent + self.stationarity + self.search
        if self.conditional:  # or the leader's value is solved for
            solve += self.factors
        return self.total + self.sooner - self.held - solve

    @property
    def total(self) -> int:
        """All parts: what a solve needs."""
        return sum(size for _, size in self._parts()) - self.sooner

    @checked
    def raise_if_too_large(self, available: float | None = None) -> MemoryEstimate:
        """Return the estimate itself, or raise if a solve needs more than there is.

        Parameters
        ----------
        available : float, optional
            Bytes; by default what the machine has left.

        Raises
        ------
        MemoryLimitError
        """
        check_memory(f"a solve over {self.horizon} times", self.total - self.held, available)
        return self

    def _parts(self) -> Iterator[tuple[str, int]]:
        for field in fields(self)[1:-1]:
            yield field.name, getattr(self, field.name)

    def __str__(self) -> str:
        """Return a table, one row per part that needs anything."""
        rows = [
            [name.replace("_", " "), text_size(size)] for name, size in self._parts() if size > 0
        ]
        sums = [["leader pass", text_size(self.leader_pass)], ["total", text_size(self.total)]]
        return text_table([f"T = {self.horizon}", "memory"], [*rows, *sums], "lr")


def answered_horizon(problem: ProblemPart) -> int:
    """Count the times of a gradient where followers answer no payments; 0 where that takes long."""
    followers = problem.followers
    if followers.n > MANY:
        return 0
    try:
        best = followers.best_responses(followers.rewards).actions
    except InputError:  # a follower earns without bound: there will be no solve
        return 0
    policies = followers.deterministic_policies(best)
    return problem.leader_side.gradient_horizon(policies)[0]


def _factor_bytes(problem: ProblemPart) -> int:
    """Guess what factors take, 0 where sweeps take their place."""
    followers = problem.followers
    if followers.n_states <= DENSE_STATES:
        return 0
    entries = max(
        likely_fill(model.sweep_order[0].size, model.sweep_order[1]) for model in followers.models
    )
    at_once = min(followers.n, get_num_threads())
    return int(8 * entries * at_once) if entries <= MOST_FILL else 0


def search_bytes(problem: ProblemPart, horizon: int) -> int:
    """Guess what a search over regimes takes, 0 where it is not run."""
    _, states, actions = problem.followers.shape
    if states > REFINED_STATES or problem.has_types:
        return 0
    entries = ENTRIES * states * problem.payments.owners.size
    marginals = MARGINALS * 8 * horizon * problem.leader.n_labels
    return int(entries * (response_bytes(states, actions) + marginals))


def response_bytes(states: int, actions: int) -> int:
    """Bytes that one best response of a list takes, with what is computed of it (measured)."""
    return states * (130 + 6 * actions)


def estimate_memory(
    problem: ProblemPart, horizon: int, doubled: bool, answered: int = 0
) -> MemoryEstimate:
    """Estimate what ``leader_gradient`` over so many times and a solve need.

    ``doubled`` tells that tables over joint states go on from there; ``answered`` how many times
    there are where followers answer no payments, 0 where that is not known.
    """
    followers, passes, payments = problem.followers, problem.passes, problem.payments
    n, states, _ = followers.shape
    alone = problem.leader_side.lone is not None
    size = Footprint(0, 0, 0, 0) if alone else passes.footprint(horizon, gradient=True)
    between = horizon
    if answered:
        between = min(horizon, int(answered ** (1.0 - RANDOM) * horizon**RANDOM))
    sooner = size if alone else passes.footprint(between, gradient=True)
    # Values take less time than gradients: a guess taken from them is too short.
    longest = sooner
    if not alone:
        longest = passes.footprint(between, gradient=True, guess=max(between - 1, 1))
    table = followers.rewards.nbytes
    chains = n * (8 * passes.pattern.largest + 17 * states)
    joint = 8 * (JOINT_TABLES * states**n + JOINT_CHAINS * n * states**2) if doubled else 0
    known = followers.sweepable if followers.response_memory() is not None else None
    # Followers that no payment or budget ties are judged apart.
    together = n if problem.budget is not None else 1
    if payments.shared:
        together = max(together, *(len(group) for group in payments.groups))
    seen: set[int] = set()
    found = MemoryEstimate(
        horizon=horizon,
        models=_array_bytes((followers.packed, followers.models, passes.pattern), seen),
        rewards=_array_bytes((followers, problem.leader), seen),
        payments=_array_bytes((payments, problem.cost), seen),
        policies=table + chains,
        marginals=size.marginals,
        laws=size.laws,
        conditional=0 if doubled else size.conditional,
        joining=size.joining,
        gradient=table,
        factors=_factor_bytes(problem),
        product_space=joint,
        response=0 if known is None else int(recall_bytes(n, known)),
        ascent=ASCENT_ARRAYS * table + max(sum(longest) - sum(sooner), 0),
        stationarity=STATIONARITY_ROWS * together * (together * table // n + 8 * payments.size),
        sooner=max(sum(size) - sum(sooner), 0),
    )
    searched = search_bytes(problem, answered) if answered else 0
    return replace(found, search=max(searched - (found.total - found.held), 0))


def _array_bytes(given: object, seen: set[int]) -> int:
    """Bytes of all arrays that an object of the package holds, but those ``seen`` before."""
    total = 0
    stack = [given]
    while stack:
        item = stack.pop()
        if isinstance(item, np.ndarray):
            while isinstance(item.base, np.ndarray):
                item = item.base
        if isinstance(item, (tuple, list)):
            stack += item
        elif id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, np.ndarray):
                total += item.nbytes
            elif type(item).__module__.startswith("fastincentive."):
                stack += vars(item).values()
    return total
