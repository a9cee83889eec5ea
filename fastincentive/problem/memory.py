"""What a problem needs of the machine's memory, what there is, and the refusal to ask for more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numba import get_num_threads

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._machine import check_memory, text_size
from fastincentive._tables import text_table
from fastincentive.errors import InputError
from fastincentive.followers.best_responses import recall_bytes
from fastincentive.followers.evaluation import MOST_FILL, likely_fill
from fastincentive.kernels.packed import DENSE_STATES
from fastincentive.problem.costs import ExpectedSpend
from fastincentive.problem.part import ProblemPart
from fastincentive.problem.pass_memory import Footprint

__all__ = [
    "REFINED_STATES",
    "START_DISCOUNT",
    "MemoryEstimate",
    "estimate_memory",
    "horizons_of",
    "lists_first",
    "lots_work",
    "response_bytes",
    "shares_much",
    "spend_budget",
]

#: Arrays (n, S, A) that the ascent holds at once beside a leader pass, or after it (measured).
ASCENT_ARRAYS = 12
#: Rows of derivatives of each follower that a solve's measure of stationarity holds (measured).
STATIONARITY_ROWS = 5
#: A search over regimes refines a solve of up to so many states; on the line of a follower's only
#: payment it finds so many responses for each state, of one with K payments so many times K^2 (all
#: measured). It holds their label marginals so many times, with several payments more.
REFINED_STATES, ENTRIES, SEVERAL = 1000, 0.7, 1.5
MARGINALS, MARGINALS_OF_SEVERAL = 3.5, 5.0
#: Lots are looked for up to so many products of followers, states and times, and of mixtures,
#: states and times; these are held so many times, and their label marginals (measured).
PASS_WORK, MIXED_WORK, SPENDING = 200_000, 2_000_000, 5
MIXED, MIXED_MARGINALS = 5, 9
#: A search over regimes goes first where followers have so few payments each, and its lists take at
#: most so many bytes.
FEW_PAYMENTS, MOST_BYTES = 3, 2**30
#: Followers squared times shared payments up to which lines are searched: all followers answer at
#: each of their breakpoints.
MOST_SHARED = 100_000
#: The policies that a run starts with are found from random choice, at this discount at most.
START_DISCOUNT = 0.99
#: Best responses of more followers are not asked how long they take.
MANY = 1000
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
        What the passes of a solve take less than those of followers who choose at random: it finds
        its start at a discount of 0.99 at most, or lists best responses from the first. This is no
        part of the total.
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


class Horizons(NamedTuple):
    """How many times sums go over."""

    gradient: int  # where followers choose at random, or by given policies
    doubled: bool  # whether tables over joint states go on from there
    start: int  # where a solve begins, if it does not list all responses at once
    answered: int  # where followers answer no payments; 0 where that is not known


def horizons_of(problem: ProblemPart, policies: FloatArray | None, answers: bool) -> Horizons:
    """Count the times of gradients; without ``answers`` those of best responses are left out."""
    horizon, doubled = problem.leader_side.gradient_horizon(policies)
    answered = _answered_horizon(problem) if answers else 0
    start = horizon
    if policies is None and answered and lists_first(problem):
        start = answered
    elif policies is None and problem.leader_discount > START_DISCOUNT:
        start = min(problem.leader_side.gradient_horizon(None, START_DISCOUNT)[0], horizon)
    return Horizons(horizon, doubled, start, answered)


def _answered_horizon(problem: ProblemPart) -> int:
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


def lists_first(problem: ProblemPart) -> bool:
    """Whether a solve is a search over responses along lines through few payments."""
    payments = problem.payments
    few = payments.reach.shape[1] <= FEW_PAYMENTS
    if payments.shared:
        few = payments.size == 1 and not shares_much(problem)
    elif spend_budget(problem) < np.inf:
        # What is really paid out ties several payments together: lines miss more of it.
        few = payments.reach.shape[1] <= 1
    return (
        few
        and not problem.has_types
        and problem.followers.n_states <= REFINED_STATES
        and search_bytes(problem, problem.passes.likely_horizon) <= MOST_BYTES
    )


def shares_much(problem: ProblemPart) -> bool:
    """Whether so many followers share payments that searches along lines take long."""
    return problem.payments.shared and problem.n**2 * problem.payments.size > MOST_SHARED


def search_bytes(problem: ProblemPart, horizon: int) -> int:
    """Guess what a search over regimes takes, 0 where it is not run."""
    _, states, actions = problem.followers.shape
    if states > REFINED_STATES or problem.has_types:
        return 0
    paid = (problem.payments.reach >= 0).sum(axis=1)
    if problem.payments.shared:  # one line at a time, which all followers answer
        paid = np.ones(paid.size)
    several = bool((paid > 1).any())
    entries = ENTRIES * states * np.where(paid > 1, SEVERAL * paid**2, 1.0).sum()
    shown = 8.0 * horizon * problem.leader.n_labels
    size = response_bytes(states, actions)
    found = entries * (size + (MARGINALS_OF_SEVERAL if several else MARGINALS) * shown)
    pairs = ENTRIES * states * np.where(paid > 1, 2.0 * paid, 1.0).sum()
    spends = spend_budget(problem) < np.inf
    lots = not problem.payments.shared and (spends or problem.leader.additive_parts() is None)
    passed, mixed = lots_work(problem)
    work = states * horizon
    if lots and paid.size * work <= passed and 3.0 * pairs * work <= mixed:
        found = max(found, pairs * (MIXED * size + MIXED_MARGINALS * shown))
    return int(found)


def spend_budget(problem: ProblemPart) -> float:
    """Budget on what depends on the policies, inf if there is none."""
    if problem.budget is None or not isinstance(problem.cost, ExpectedSpend):
        return np.inf
    return float(problem.budget)


def lots_work(problem: ProblemPart) -> tuple[int, int]:
    """Up to how much work lots are looked for: ``PASS_WORK`` and ``MIXED_WORK``.

    More of it where a budget depends on what followers do, for there they are often best.
    """
    more = SPENDING if spend_budget(problem) < np.inf else 1
    return more * PASS_WORK, more * MIXED_WORK


def response_bytes(states: int, actions: int) -> int:
    """Bytes that one best response of a list takes, with what is computed of it (measured)."""
    return states * (130 + 6 * actions)


def estimate_memory(problem: ProblemPart, horizons: Horizons) -> MemoryEstimate:
    """Estimate what ``leader_gradient`` over so many times and a solve need."""
    horizon, doubled, between, answered = horizons
    followers, passes, payments = problem.followers, problem.passes, problem.payments
    n, states, _ = followers.shape
    alone = problem.leader_side.lone is not None
    size = Footprint(0, 0, 0, 0) if alone else passes.footprint(horizon, gradient=True)
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
