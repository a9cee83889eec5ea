"""Mixtures to begin with: of each two responses that tie at the same payments, a few shares.

Between two breakpoints of a line a follower's best response is the only one, or tied as it is where
the regime begins; so what a follower may mix, at what payments, is read off its list of responses.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.followers.followers import Followers
from fastincentive.problem.costs import ExpectedSpend, LinearCost, QuadraticCost, expected_payouts
from fastincentive.problem.memory import lots_work
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menus import (
    Cut,
    policy_marginals,
    price,
    side_payments,
)

__all__ = ["Samples", "mixture_samples", "up_to"]

#: Shares of the second response in a mixture of two, and fewer where laws take longer.
SHARES, FEW = np.array([0.0, 0.125, 0.5, 0.875, 1.0]), np.array([0.0, 0.5, 1.0])
FEW_WORK = 60_000
#: How far small shares go, where one response stays in a state.
SMALL = (1 / 8, 1 / 32)
#: Of more responses than this that tie at the same payments, neighbours only are mixed.
ALL_PAIRS = 4


class Samples(NamedTuple):
    """G pairs of responses tied at the same payments, sorted by follower, in P mixtures each."""

    first: NDArray[np.int64]  # (n + 1,) pairs of follower i are first[i]:first[i + 1]
    spread: FloatArray  # (G, K) payments, in the order of the owner's ``reach``
    policies: FloatArray  # (G, P, S, A), from one response to the other
    marginals: FloatArray  # (T, G, P, L) label marginals
    cost: FloatArray  # (G, P) C

    def of(self, i: int) -> slice:
        """Pairs of follower i."""
        return slice(int(self.first[i]), int(self.first[i + 1]))


def mixture_samples(
    problem: IncentiveProblem, cut: Cut, known: FloatArray | None = None
) -> Samples | None:
    """Mix responses that tie somewhere on lines; None where that is too much to look at.

    Costs must be sums over followers. A follower that has nothing to mix at some payments keeps
    its only response there. ``known`` are the responses' label marginals (T, C, L), if they are.
    """
    if not isinstance(problem.cost, (ExpectedSpend, LinearCost, QuadraticCost)):
        return None
    work = problem.followers.n_states * problem.passes.likely_horizon
    _, most = lots_work(problem)
    if cut.found.line.size * work > most:
        return None
    pairs, spread = _tied_pairs(cut)
    levels = SHARES if len(pairs) * work <= FEW_WORK else FEW
    if len(pairs) * levels.size * work > most:
        return None
    number, shares = _with_small_shares(problem, cut, pairs, levels)
    pairs, spread = pairs[number], spread[number]
    owner = cut.lines.owner[cut.found.line[pairs[:, 0]]]
    policies = _mixed(problem, cut, pairs, shares)
    if isinstance(problem.cost, ExpectedSpend):
        many = np.repeat(owner, levels.size)
        each = policies.reshape(-1, *problem.followers.shape[1:])
        cost = _spent(problem, problem.cost, many, np.repeat(spread, levels.size, axis=0), each)
    else:
        cost = np.repeat(price(problem, owner, spread), levels.size)
    return Samples(
        first=np.searchsorted(owner, np.arange(problem.n + 1)),
        spread=spread,
        policies=policies,
        marginals=_marginals(problem, cut, (pairs, shares), policies, known),
        cost=cost.reshape(policies.shape[:2]),
    )


def _with_small_shares(
    problem: IncentiveProblem, cut: Cut, pairs: NDArray[np.int64], levels: FloatArray
) -> tuple[NDArray[np.int64], FloatArray]:
    """Return the pair, and shares (P,) of its second response, of each stretch of mixtures.

    Where one response stays in a state that the other leaves, how long it takes to leave depends on
    small chances: these have stretches of their own.
    """
    owner = cut.lines.owner[cut.found.line[pairs[:, 0]]]
    laws = cut.found.laws
    number: list[int] = []
    shares: list[FloatArray] = []
    for g, (one, other) in enumerate(pairs.tolist()):
        stretches = [levels]
        lots = np.flatnonzero((laws[one] != laws[other]) & (laws[one] >= 0) & (laws[other] >= 0))
        stay = [_stays(problem, int(owner[g]), lots, laws[each]) for each in (one, other)]
        if stay[0] != stay[1]:
            small = [scale * levels for scale in SMALL]
            stretches += small if stay[0] else [1.0 - each for each in small]
        number += [g] * len(stretches)
        shares += stretches
    return np.array(number, np.int64), np.array(shares)


def _stays(
    problem: IncentiveProblem, i: int, states: NDArray[np.int64], law: NDArray[np.int64]
) -> bool:
    """Whether follower i stays in one of these states, more likely than not."""
    model = problem.followers[i].transition
    for s in states.tolist():
        row = s * problem.followers.n_actions + int(law[s])
        entries = slice(int(model.row_start[row]), int(model.row_start[row + 1]))
        if model.probability[entries][model.successor[entries] == s].sum() > 0.5:
            return True
    return False


def _marginals(
    problem: IncentiveProblem,
    cut: Cut,
    mixed: tuple[NDArray[np.int64], FloatArray],
    policies: FloatArray,
    known: FloatArray | None,
) -> FloatArray:
    """Label marginals (T, G, P, L) of pairs and shares; those of a response are computed once."""
    pairs, shares = mixed
    owner = cut.lines.owner[cut.found.line]
    if known is None:
        responses = problem.followers.deterministic_policies(cut.found.actions)
        first = np.searchsorted(owner, np.arange(problem.n + 1))
        known, _ = policy_marginals(problem, owner, responses, first)
    # A mixture of a response with itself is that response.
    which = np.where(shares == 1.0, pairs[:, 1:], pairs[:, :1])
    new = (shares > 0.0) & (shares < 1.0) & (pairs[:, 0] != pairs[:, 1])[:, None]
    if new.any():
        # Every follower has some, for the horizon is that of the worst.
        owners = np.repeat(owner[pairs[:, 0]], new.sum(axis=1))
        extra = np.flatnonzero(np.bincount(owners, minlength=problem.n) == 0)
        owners = np.concatenate([owners, extra])
        order = np.argsort(owners, kind="stable")
        alone = cut.found.actions[np.searchsorted(owner, extra)]
        rest = problem.followers.deterministic_policies(alone)
        between, _ = policy_marginals(
            problem,
            owners[order],
            np.concatenate([policies[new], rest])[order],
            np.searchsorted(owners[order], np.arange(problem.n + 1)),
        )
        place = np.empty(order.size, np.int64)
        place[order] = np.arange(order.size)
        which[new] = known.shape[1] + place[: int(new.sum())]
        steps = max(len(known), len(between))
        known = np.concatenate([up_to(known, steps), up_to(between, steps)], axis=1)
    return known[:, which]


def up_to(marginals: FloatArray, steps: int) -> FloatArray:
    """Label marginals for so many steps; after the last one things stay as they are."""
    short = steps - len(marginals)
    if short > 0:
        marginals = np.concatenate([marginals, np.repeat(marginals[-1:], short, axis=0)])
    return np.ascontiguousarray(marginals[:steps])


def _tied_pairs(cut: Cut) -> tuple[NDArray[np.int64], FloatArray]:
    """Numbers (G, 2) of responses that tie at the payments (G, K)."""
    found, lines = cut.found, cut.lines
    pairs: list[tuple[int, int]] = []
    at: list[float] = []
    for line in range(lines.owner.size):
        own = np.flatnonzero(found.line == line)
        lower, upper = found.lower[own], found.upper[own]
        for t in np.unique(lower):
            tied = own[(lower <= t) & (t <= upper)]
            if tied.size == 1:
                chosen = [(int(tied[0]), int(tied[0]))]
            elif tied.size <= ALL_PAIRS:
                chosen = list(itertools.combinations(tied.tolist(), 2))
            else:
                chosen = list(itertools.pairwise(tied.tolist()))
            pairs += chosen
            at += [float(t)] * len(chosen)
    numbers = np.array(pairs, np.int64).reshape(-1, 2)
    which = found.line[numbers[:, 0]]
    return numbers, lines.base[which] + np.array(at)[:, None] * lines.direction[which]


def _mixed(
    problem: IncentiveProblem, cut: Cut, pairs: NDArray[np.int64], shares: FloatArray
) -> FloatArray:
    """Policies (G, P, S, A) at shares (G, P): lots are drawn where both come and differ."""
    first, second = (cut.found.laws[pairs[:, k]] for k in (0, 1))
    own = cut.found.actions[pairs[:, 0]]
    one = np.where(first >= 0, first, np.where(second >= 0, second, own))
    other = np.where(second >= 0, second, one)
    deterministic = problem.followers.deterministic_policies
    return np.asarray(
        (1.0 - shares[:, :, None, None]) * deterministic(one)[:, None]
        + shares[:, :, None, None] * deterministic(other)[:, None]
    )


def _spent(
    problem: IncentiveProblem,
    cost: ExpectedSpend,
    owner: NDArray[np.int64],
    spread: FloatArray,
    policies: FloatArray,
) -> FloatArray:
    """Price in expectation what each policy (M, S, A) is paid."""
    payments, followers = problem.payments, problem.followers
    reach = payments.reach[owner]
    prices = np.broadcast_to(cost.prices, payments.size)
    rates = side_payments(problem, owner, np.where(reach >= 0, prices[reach], 0.0) * spread)
    many = Followers([followers[i] for i in owner.tolist()])
    payable = payments.index[owner] >= 0
    return expected_payouts(many, rates, payable, policies, problem.leader_discount).values
