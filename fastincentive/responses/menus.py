"""Menus: what each follower can be made to do, at what price, and where it then is.

A line of payments to one follower is cut into regimes; each best response on it is an entry of the
follower's menu, at the cheapest payments on the line that buy it. Entries carry the label marginals
that the leader sees, so pricing one, given the others, is an inner product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._machine import check_large
from fastincentive.errors import InputError
from fastincentive.followers.chains import room
from fastincentive.followers.policies import net_rewards
from fastincentive.kernels import marginals as kernels
from fastincentive.problem.memory import response_bytes
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.regimes import LIST_REMEDY, Responses, alike, repeat, walk

__all__ = [
    "END",
    "Cut",
    "Lines",
    "Menus",
    "build",
    "certain",
    "check_unshared",
    "collect",
    "coordinate_lines",
    "cut",
    "join",
    "label_marginals",
    "merge",
    "policy_marginals",
    "price",
    "side_payments",
    "with_payments",
]

#: Label marginals of all entries may take this many bytes; the horizon is cut to keep it, but not
#: below so many times.
MOST_BYTES, LEAST_TIMES = 2**30, 64
#: What lies beyond the horizon is negligible up to this share of the objective.
NEGLIGIBLE = 1e-7
#: Lines are followed this much past their end: a response that begins there may do so by rounding.
END = 1.0 + 1e-12


@dataclass(frozen=True)
class Lines:
    """Lines of payments: line j moves the payments of one follower along a direction.

    Attributes
    ----------
    owner : int array (m,)
        The follower.
    base, direction : array (m, K)
        Payments in the order of ``reach`` at t = 0, and their change with t.
    """

    owner: NDArray[np.int64]
    base: FloatArray
    direction: FloatArray


@dataclass(frozen=True)
class Menus:
    """Entries of all followers' menus, sorted by follower.

    Attributes
    ----------
    owner : int array (C,)
    spread : array (C, K)
        Payments to the owner, in the order of its ``reach``.
    actions : int array (C, S)
        Its best response.
    laws : int array (C, S)
        The same, -1 in states that are not visited.
    first : int array (n + 1,)
        Entries of follower i are ``first[i]:first[i + 1]``.
    marginals : array (T, C, L)
        Label marginals.
    tail : float
        Bound on the leader's reward beyond T, whatever the entries.
    complete : bool
        Whether every best response on the lines is listed, up to where they were followed.
    unseen : float
        Price of the cheapest payments beyond which a line was not followed (they are worth a
        million times all else to the follower), inf if there are none.
    cut : Cut or None
        The regimes whose responses the entries are, one line for each follower, in this order; None
        for entries of several lines.
    """

    owner: NDArray[np.int64]
    spread: FloatArray
    actions: NDArray[np.int64]
    laws: NDArray[np.int64]
    first: NDArray[np.int64]
    marginals: FloatArray
    tail: float
    complete: bool
    unseen: float
    cut: Cut | None = None

    def of(self, i: int) -> slice:
        """Entries of follower i."""
        return slice(int(self.first[i]), int(self.first[i + 1]))

    def payments(self, problem: IncentiveProblem, pick: NDArray[np.int64]) -> FloatArray:
        """Payments (k,) that buy one entry per follower (n,)."""
        payments = problem.payments
        x = payments.lower.copy()
        paid = payments.reach >= 0
        x[payments.reach[paid]] = self.spread[pick][paid]
        # Points on a line may miss its bounds by rounding.
        return np.clip(x, payments.lower, payments.upper)


def coordinate_lines(problem: IncentiveProblem, x: FloatArray) -> Lines:
    """One line for each payment of each follower: from its lower bound, the others as in x.

    A follower without payments gets a line of no length, so that its menu is not empty.
    """
    payments = problem.payments
    paid = payments.reach >= 0
    owner, column = np.nonzero(paid)
    base = payments.spread(x)[owner]
    rows = np.arange(owner.size)
    base[rows, column] = payments.lower[payments.reach[owner, column]]
    direction = np.zeros(base.shape)
    direction[rows, column] = 1.0
    unpaid = np.flatnonzero(~paid.any(axis=1))
    nothing = np.zeros((unpaid.size, base.shape[1]))
    return join(Lines(owner, base, direction), Lines(unpaid, nothing, nothing))


def join(first: Lines, second: Lines) -> Lines:
    """Put two sets of lines together."""
    return Lines(
        np.concatenate([first.owner, second.owner]),
        np.concatenate([first.base, second.base]),
        np.concatenate([first.direction, second.direction]),
    )


class Cut(NamedTuple):
    """Lines, sorted by follower, and the best responses along them."""

    lines: Lines
    found: Responses
    equals: NDArray[np.int64]  # (m, S, A) first action that is the same as each


def cut(problem: IncentiveProblem, lines: Lines) -> Cut:
    """Cut lines into regimes."""
    payments, followers = problem.payments, problem.followers
    order = np.argsort(lines.owner, kind="stable")
    lines = Lines(lines.owner[order], lines.base[order], lines.direction[order])
    equals = alike(followers, payments.index, problem.leader.labels)[lines.owner]
    found = walk(
        repeat(followers.packed, lines.owner),
        net_rewards(
            followers.rewards[lines.owner], side_payments(problem, lines.owner, lines.base)
        ),
        side_payments(problem, lines.owner, lines.direction),
        equals,
        END * _ends(problem, lines),
    )
    return Cut(lines, _up_to(_ends(problem, lines), found), equals)


def _up_to(ends: FloatArray, found: Responses) -> Responses:
    """Cut off what lies past the ends (m,) of lines."""
    end = ends[found.line]
    return found._replace(
        lower=np.minimum(found.lower, end),
        upper=np.minimum(found.upper, end),
        ends=np.minimum(found.ends, ends),
    )


def collect(problem: IncentiveProblem, lines: Lines) -> Menus:
    """Cut lines into regimes: one entry for each best response, at its cheapest payments there."""
    regimes = cut(problem, lines)
    lines, found, _ = regimes
    owner = lines.owner[found.line]
    # Where payments fall along the line, the far end of the regime is the cheap one.
    base, direction = lines.base[found.line], lines.direction[found.line]
    ends = np.isfinite(found.upper)
    near = base + found.lower[:, None] * direction
    far = base + np.where(ends, found.upper, 0.0)[:, None] * direction
    falls = ends & (price(problem, owner, far) < price(problem, owner, near))
    spread = np.where(falls[:, None], far, near)
    # The responses on one line are different ones.
    once = np.unique(lines.owner).size == lines.owner.size
    chosen = slice(None) if once else _cheapest(problem, owner, spread, found.laws)
    menus = build(
        problem,
        owner[chosen],
        spread[chosen],
        found.actions[chosen],
        found.laws[chosen],
        bool(found.complete.all()),
        _unseen(problem, lines, found),
    )
    return replace(menus, cut=regimes) if once else menus


def _unseen(problem: IncentiveProblem, lines: Lines, found: Responses) -> float:
    short = found.ends < _ends(problem, lines)
    furthest = lines.base[short] + found.ends[short, None] * lines.direction[short]
    return float(price(problem, lines.owner[short], furthest).min(initial=np.inf))


def merge(problem: IncentiveProblem, first: Menus, second: Menus) -> Menus:
    """Put two menus together; of equal responses the cheaper one stays."""
    owner = np.concatenate([first.owner, second.owner])
    spread = np.concatenate([first.spread, second.spread])
    laws = np.concatenate([first.laws, second.laws])
    chosen = _cheapest(problem, owner, spread, laws)
    return build(
        problem,
        owner[chosen],
        spread[chosen],
        np.concatenate([first.actions, second.actions])[chosen],
        laws[chosen],
        first.complete and second.complete,
        min(first.unseen, second.unseen),
    )


def _cheapest(
    problem: IncentiveProblem,
    owner: NDArray[np.int64],
    spread: FloatArray,
    laws: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Of each follower's equal responses the cheapest, sorted by follower and price."""
    order = np.lexsort((price(problem, owner, spread), owner))
    _, kept = np.unique(np.column_stack([owner, laws])[order], axis=0, return_index=True)
    return order[np.sort(kept)]


def with_payments(
    problem: IncentiveProblem, menus: Menus, entries: NDArray[np.int64], x: FloatArray
) -> Menus:
    """Buy entries, one of each of some followers, at payments x where these cost less."""
    reach = problem.payments.reach[menus.owner[entries]]
    other = np.where(reach >= 0, x[reach], 0.0)
    cheaper = price(problem, menus.owner[entries], other) < price(
        problem, menus.owner[entries], menus.spread[entries]
    )
    spread = menus.spread.copy()
    spread[entries[cheaper]] = other[cheaper]
    return replace(menus, spread=spread, cut=None)


def price(problem: IncentiveProblem, owner: NDArray[np.int64], spread: FloatArray) -> FloatArray:
    """Cost of payments (m, K), or their sum, to rank them for one response."""
    payments = problem.payments
    reach = payments.reach[owner]
    each = (payments.prices[reach] + payments.curvature[reach] * spread) * spread
    return np.where(reach >= 0, each, 0.0).sum(axis=1)


def _ends(problem: IncentiveProblem, lines: Lines) -> FloatArray:
    """Where each line leaves the bounds."""
    payments = problem.payments
    base, direction = lines.base, lines.direction
    reach = payments.reach[lines.owner]
    high = np.where(reach >= 0, payments.upper[reach], np.inf)
    low = np.where(reach >= 0, payments.lower[reach], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.where(direction > 0, (high - base) / direction, np.inf)
        ends = np.where(direction < 0, (base - low) / -direction, ends)
    return np.asarray(np.maximum(ends.min(axis=1), 0.0))


def side_payments(
    problem: IncentiveProblem, owner: NDArray[np.int64], spread: FloatArray
) -> FloatArray:
    """x(s, a) (m, S, A) of one follower each, from its payments (m, K)."""
    payments = problem.payments
    # Where each payment stands in the follower's own list.
    place = np.full((problem.n, payments.size + 1), -1)
    rows, columns = np.nonzero(payments.reach >= 0)
    place[rows, payments.reach[rows, columns]] = columns
    index = np.take_along_axis(
        place,
        np.where(payments.index >= 0, payments.index, payments.size).reshape(problem.n, -1),
        axis=1,
    )[owner]
    amounts = np.take_along_axis(spread, np.maximum(index, 0), axis=1)
    return np.where(index >= 0, amounts, 0.0).reshape(owner.size, *payments.index.shape[1:])


def build(
    problem: IncentiveProblem,
    owner: NDArray[np.int64],
    spread: FloatArray,
    actions: NDArray[np.int64],
    laws: NDArray[np.int64],
    complete: bool,
    unseen: float = np.inf,
) -> Menus:
    """Put entries, sorted by follower, together with their label marginals."""
    first = np.searchsorted(owner, np.arange(problem.n + 1))
    marginals, tail = label_marginals(problem, owner, actions, first)
    return Menus(owner, spread, actions, laws, first, marginals, tail, complete, unseen)


def certain(problem: IncentiveProblem, complete: bool, tail: float, objective: float) -> bool:
    """Whether all responses are listed, and what is left out beyond the horizon is negligible."""
    size = abs(objective) if np.isfinite(objective) else 0.0
    return complete and tail <= NEGLIGIBLE * max(problem.magnitude, size)


def label_marginals(
    problem: IncentiveProblem,
    owner: NDArray[np.int64],
    actions: NDArray[np.int64],
    first: NDArray[np.int64],
) -> tuple[FloatArray, float]:
    """Label marginals (T, C, L) of every entry, and a bound on what lies beyond T."""
    policies = problem.followers.deterministic_policies(actions)
    return policy_marginals(problem, owner, policies, first)


def policy_marginals(
    problem: IncentiveProblem,
    owner: NDArray[np.int64],
    policies: FloatArray,
    first: NDArray[np.int64],
) -> tuple[FloatArray, float]:
    """As ``label_marginals``, of policies (C, S, A)."""
    followers, leader = problem.followers, problem.leader
    gamma = problem.leader_discount
    count, size = owner.size, response_bytes(*followers.shape[1:])
    check_large(
        f"What {count} best responses show to the leader over time",
        count * (8.0 * 2 * LEAST_TIMES * leader.n_labels + size),
        LIST_REMEDY,
    )
    packed = repeat(followers.packed, owner)
    labels = np.ascontiguousarray(leader.labels[owner])
    pattern = problem.passes.pattern
    chains = room(packed, pattern)
    none = np.empty((0, *chains.rest.shape))
    settles = problem.leader_side.free_when_absorbed
    stage = kernels.SETTLE if settles else kernels.WEIGH
    kernels.forward_laws(packed, pattern, policies, labels, gamma, stage, chains, none, none)
    certified = _weigh_by_time(problem, owner, chains, settles)
    per_step = count * leader.n_labels * 8
    limit = int(np.clip(MOST_BYTES // per_step, LEAST_TIMES, problem.max_horizon))
    tolerance = problem.tail_tolerance
    blocks: list[FloatArray] = []
    done, block = 0, 128
    while True:
        block = min(block, limit - done)
        marginals = np.empty((block, count, leader.n_labels))
        chains = chains._replace(remainder=np.empty((block, count)))
        kernels.forward_laws(
            packed, pattern, policies, labels, gamma, kernels.STEP, chains, none, marginals
        )
        blocks.append(marginals)
        # The worst entry of each follower, summed over the followers.
        worst = np.maximum.reduceat(chains.remainder, first[:-1], axis=1).sum(axis=1)
        left = gamma ** np.arange(done, done + block) * worst
        below = np.flatnonzero(left <= tolerance)
        done += block
        if below.size or done == limit:
            break
        block = 2 * block
    if below.size:
        horizon = max(done - block + int(below[0]), 1)
        rest_of_it = float(left[below[0]])
    else:
        horizon, rest_of_it = done, float(left[-1])
    joined = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    tail = rest_of_it * problem.magnitude if certified else np.inf
    return joined[:horizon], tail


def _weigh_by_time(
    problem: IncentiveProblem, owner: NDArray[np.int64], chains: kernels.Chains, settles: bool
) -> bool:
    """Weigh states by the time until the leader's reward is settled; whether that is known."""
    if settles:
        each: NDArray[np.bool_] = np.zeros((problem.n, chains.rest.shape[1]), np.bool_)
        np.logical_or.at(each, owner, chains.settled)
        if problem.leader.magnitude(problem.leader_side.label_mask(each)) == 0.0:
            return True
    gamma = problem.leader_discount
    chains.rest.fill(1.0 / ((1.0 - gamma) * problem.n) if gamma < 1.0 else np.inf)
    return gamma < 1.0


def check_unshared(problem: IncentiveProblem, what: str) -> None:
    """Raise if a payment reaches several followers."""
    if problem.payments.shared:
        raise InputError(
            f"{what}: expected payments that reach one follower each, got payments shared "
            "between followers"
        )
