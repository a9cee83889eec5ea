"""Best responses that draw lots: where the leader gains by it, and how much.

A follower that is indifferent may do anything between. The leader's value is not linear in one
follower's policy where others move at the same time, nor is what a budget on expected spend allows:
half of what is beyond it may be within. What may be mixed is read off the followers' responses to
their payments; a few shares of each pair are priced, and the best are climbed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive.errors import MemoryLimitError
from fastincentive.followers.policies import uniform_over
from fastincentive.problem.costs import ExpectedSpend
from fastincentive.problem.memory import lots_work, spend_budget
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.cheapest import supporting_payments
from fastincentive.responses.menus import Menus, coordinate_lines, cut, join, policy_marginals
from fastincentive.responses.mixture_climb import (
    Mixture,
    climbed_mixture,
    net_of_mixture,
    tied_actions,
)
from fastincentive.responses.mixture_samples import Samples, mixture_samples, up_to
from fastincentive.responses.regimes import alike, walk

__all__ = ["best_mixture", "mixing_may_help"]

#: Pairs of followers are mixed together with at most this many of them.
PAIRED = 6
#: Multiplications for which the mixtures of two followers are priced together.
PAIR_WORK = 30_000_000
#: Mixtures climbed in each round, and rounds.
CLIMBED, ROUNDS = 12, 3
#: Products of followers, states and steps in each round: larger problems have fewer climbs.
CLIMB_WORK = 250_000
#: Payments shared between followers: points on their lines that are looked at, where a budget
#: depends on what followers do, and else.
POINTS, FEW_POINTS = 64, 16
#: With more probabilities than this only those of the followers looked at are free.
MANY_TIED = 24
#: A gain below this share of the objective is none.
GAIN = 1e-9


def mixing_may_help(problem: IncentiveProblem) -> bool:
    """Whether the leader can gain by followers that draw lots.

    Not where its value is a sum over followers and no budget depends on what they do: both are
    linear in each follower's occupancy.
    """
    return spend_budget(problem) < np.inf or problem.leader.additive_parts() is None


def best_mixture(
    problem: IncentiveProblem,
    payments: FloatArray,
    policies: FloatArray,
    objective: float,
    menus: Menus | None = None,
) -> Mixture | None:
    """Search for a mixture of best responses that is better than a point; None if none is found.

    Parameters
    ----------
    problem : IncentiveProblem
    payments : array (k,)
    policies : array (n, S, A)
    objective : float
        -inf if the point is beyond the budget.
    menus : Menus, optional
        All followers' responses on their lines, if they are known.

    Notes
    -----
    At the payments of the point, and at all breakpoints of each payment, the others as there. Work
    is bounded; types of followers with counts above 1 are not mixed.
    """
    if problem.has_types or not mixing_may_help(problem):
        return None
    found = _climbed(problem, Mixture(payments, policies, objective), menus)
    if not _better(found.objective, objective):
        return None
    return found


def _climbed(problem: IncentiveProblem, best: Mixture, menus: Menus | None) -> Mixture:
    n, states, _ = problem.followers.shape
    best = _at(problem, best, best)
    if n * states * problem.passes.likely_horizon > lots_work(problem)[0]:
        return best
    if problem.payments.shared:
        return _at_points(problem, best)
    if menus is not None and menus.cut is not None:
        samples = mixture_samples(problem, menus.cut, menus.marginals)
    else:
        samples = _sampled(problem, best.payments)
    if samples is None:
        return best
    for _ in range(ROUNDS if 2 < n <= PAIRED else 1):
        before = best.objective
        best = _round(problem, samples, best)
        if not _better(best.objective, before):
            break
    return best


def _sampled(problem: IncentiveProblem, x: FloatArray) -> Samples | None:
    """Mixtures on the lines of each payment, the others as in x, or none; None if too many."""
    lines = coordinate_lines(problem, x)
    if problem.payments.reach.shape[1] > 1:
        lines = join(lines, coordinate_lines(problem, problem.payments.lower))
    try:
        return mixture_samples(problem, cut(problem, lines))
    except MemoryLimitError:
        return None


def _better(value: float, than: float) -> bool:
    if not np.isfinite(than):
        return value > than
    return value > than + GAIN * max(1.0, abs(than))


def _at(
    problem: IncentiveProblem, best: Mixture, trial: Mixture, owners: tuple[int, ...] = ()
) -> Mixture:
    """Climb from a trial point if its slope promises something better.

    The trial's objective is not looked at. Where too much is tied only ``owners`` draw lots.
    """
    tied = tied_actions(problem, trial.payments, trial.policies)
    if owners and int((tied.sum(axis=2) - 1).clip(0).sum()) > MANY_TIED:
        others = np.delete(np.arange(problem.n), owners)
        tied[others] = trial.policies[others] > 0.0
    if not (tied.sum(axis=2) > 1).any() or not _promises(problem, best, trial, tied):
        return best
    start = trial.policies
    lots = bool((start.max(axis=2) < 1.0).any())
    if spend_budget(problem) < np.inf or not lots:
        # Towards all that is tied, so that nothing is out of sight.
        share = 0.1 if lots else 0.25
        start = (1.0 - share) * start + share * uniform_over(tied)
    found = climbed_mixture(problem, trial.payments, tied, start)
    better = _larger(best, found)
    several = problem.payments.shared or problem.payments.reach.shape[1] > 1
    return better if better is best or not several else _repriced(problem, better)


def _promises(
    problem: IncentiveProblem, best: Mixture, trial: Mixture, tied: NDArray[np.bool_]
) -> bool:
    """Whether twice what the slope promises, within the budget, is better than the best."""
    leader = problem.leader_pass(trial.policies)
    cost = problem.cost_pass(trial.payments, trial.policies)
    slope = leader.gradient
    assert slope is not None  # for the type checker
    if not np.isfinite(cost.value):
        return False
    value = problem.net(leader.value, cost.value)
    spent = np.zeros(slope.shape) if cost.policies is None else cost.policies
    slope = slope - problem.cost_weight * spent
    room = spend_budget(problem) - cost.value

    def gain(price: float) -> float:
        worth = slope - price * spent
        top = np.where(tied, worth, -np.inf).max(axis=2)
        met = tied.any(axis=2)
        here = (worth * trial.policies).sum(axis=2)
        return float((top - here)[met].sum()) + (price * room if price else 0.0)

    prices = [0.0]
    if room < np.inf and spent.any():
        unit = float(np.abs(slope).max()) / float(np.abs(spent).max())
        prices += (unit * 2.0 ** np.arange(-6.0, 7.0)).tolist()
    most = min(gain(price) for price in prices)
    return _better(value + (2.0 * most if most > 0.0 else 0.5 * most), best.objective)


def _larger(first: Mixture, second: Mixture) -> Mixture:
    return second if _better(second.objective, first.objective) else first


def _repriced(problem: IncentiveProblem, mixture: Mixture) -> Mixture:
    """Buy a mixture at the cheapest payments there are."""
    x, supported = supporting_payments(problem, mixture.policies, mixture.payments)
    if not supported.all():
        return mixture
    value = net_of_mixture(problem, x, mixture.policies)
    return _larger(mixture, Mixture(x, mixture.policies, value))


# -- payments of one follower each -----------------------------------------------------------------


class _Cell(NamedTuple):
    """Mixtures of one follower or two at certain payments, from which to climb."""

    estimate: float  # what they may be worth
    owners: tuple[int, ...]
    pairs: tuple[int, ...]  # which of the samples
    shares: tuple[int, ...]  # and with which share


def _round(problem: IncentiveProblem, samples: Samples, best: Mixture) -> Mixture:
    """Climb from the most promising mixtures of one follower or two, the others as they are."""
    cells = sorted(_cells(problem, samples, best), key=lambda each: -each.estimate)
    held = best
    tried: dict[bytes, int] = {}
    climbed = 0
    _, states, _ = problem.followers.shape
    work = problem.n * states * problem.passes.likely_horizon
    most = min(max(CLIMB_WORK // work, 2), CLIMBED)
    for cell in cells:
        if climbed == most or not _better(cell.estimate, best.objective):
            break
        payments, policies = held.payments.copy(), held.policies.copy()
        for i, pair, share in zip(cell.owners, cell.pairs, cell.shares, strict=True):
            reach = problem.payments.reach[i]
            payments[reach[reach >= 0]] = samples.spread[pair, reach >= 0]
            policies[i] = samples.policies[pair, share]
        payments = np.clip(payments, problem.payments.lower, problem.payments.upper)
        key = payments.tobytes()
        tried[key] = tried.get(key, 0) + 1
        if tried[key] <= 4:
            climbed += 1
            best = _at(problem, best, Mixture(payments, policies, -np.inf), cell.owners)
    return best


def _cells(problem: IncentiveProblem, samples: Samples, held: Mixture) -> Iterator[_Cell]:
    """Cells that may be better than the point held."""
    n = problem.n
    steps = len(samples.marginals)
    budget = spend_budget(problem)
    every = np.arange(n)
    marginals, _ = policy_marginals(problem, every, held.policies, np.arange(n + 1))
    marginals = up_to(marginals, steps)
    weights = problem.leader_discount ** np.arange(steps, dtype=float)
    spent = _spent_each(problem, held)
    weight = problem.cost_weight
    sizes = samples.cost.shape[1] * np.diff(samples.first)
    labels = marginals.shape[2]
    paired = [
        (i, j)
        for i, j in itertools.combinations(range(n if n <= PAIRED else 0), 2)
        if float(sizes[i]) * float(sizes[j]) * steps * labels <= PAIR_WORK
    ]
    if n != 2 or not paired:
        conditional = problem.leader.conditional(marginals) * weights[:, None, None]
        for i in range(n):
            own = samples.of(i)
            laws = samples.marginals[:, own]
            values = np.tensordot(laws, conditional[:, i], axes=((0, 3), (0, 1)))
            cost = samples.cost[own] + (spent.sum() - spent[i])
            block = (values - weight * cost)[:, :, None], cost[:, :, None]
            for pair, share, estimate in _promising(*block, budget, held.objective):
                yield _Cell(estimate, (i,), (own.start + pair,), (share,))
    for i, j in paired:
        one, two = samples.of(i), samples.of(j)
        size = (one.stop - one.start, two.stop - two.start)
        shares = samples.cost.shape[1]
        table = problem.leader.pair(marginals, i, j) * weights[:, None, None]
        first = samples.marginals[:, one].reshape(steps, -1, labels)
        second = samples.marginals[:, two].reshape(steps, -1, labels)
        seen = np.matmul(table, second.transpose(0, 2, 1)).reshape(-1, second.shape[1])
        values = first.transpose(1, 0, 2).reshape(first.shape[1], -1) @ seen
        cost = samples.cost[one].reshape(-1, 1) + samples.cost[two].reshape(1, -1)
        cost += spent.sum() - spent[i] - spent[j]
        net, cost = (
            each.reshape(size[0], shares, size[1], shares)
            .transpose(0, 2, 1, 3)
            .reshape(-1, shares, shares)
            for each in (values - weight * cost, cost)
        )
        for cell, share, estimate in _promising(net, cost, budget, held.objective):
            pair = divmod(cell, size[1])
            numbers = (one.start + pair[0], two.start + pair[1])
            yield _Cell(estimate, (i, j), numbers, divmod(share, shares))


def _spent_each(problem: IncentiveProblem, held: Mixture) -> FloatArray:
    """C (n,) of each follower at a point."""
    payments = problem.payments
    if isinstance(problem.cost, ExpectedSpend):
        paid = np.array(
            [
                problem.cost_pass(
                    np.where(payments.reaches[i], held.payments, 0.0), held.policies, gradient=False
                ).value
                for i in range(problem.n)
            ]
        )
        return paid
    each = (payments.prices + payments.curvature * held.payments) * held.payments
    return np.asarray((payments.reaches * each).sum(axis=1))


def _promising(
    values: FloatArray, cost: FloatArray, budget: float, least: float
) -> Iterator[tuple[int, int, float]]:
    """Cells whose mixtures may be worth more than ``least``: number, best sample, estimate.

    ``values`` (cells, P, P or 1) are V - w C of what one follower or two mix.
    """
    flat = values.reshape(len(values), -1)
    best = flat.argmax(axis=1)
    if budget == np.inf:
        # Between two samples it may be worth as much more as it bends.
        bend = np.zeros(len(values))
        for axis in (1, 2) if values.shape[2] > 1 else (1,):
            turned = np.moveaxis(values, axis, 1)
            middle = turned[:, turned.shape[1] // 2] - 0.5 * (turned[:, 0] + turned[:, -1])
            bend = np.maximum(bend, middle.max(axis=1))
        top = flat.max(axis=1)
        ends = values[:, :: values.shape[1] - 1, :: max(values.shape[2] - 1, 1)]
        bend = np.maximum(bend, top - ends.reshape(len(values), -1).max(axis=1))
        estimate = np.where(bend > 1e-12 * np.abs(top), top + bend, -np.inf)
        starts = [(estimate, best)]
    else:
        starts = _within(flat, cost.reshape(len(values), -1) - budget)
    for estimate, best in starts:
        for cell in np.flatnonzero(estimate > least):
            if _better(float(estimate[cell]), least):
                yield int(cell), int(best[cell]), float(estimate[cell])


def _within(values: FloatArray, over: FloatArray) -> list[tuple[FloatArray, NDArray[np.int64]]]:
    """Estimate what mixtures of samples (cells, m) are worth, ``over`` the budget by so much.

    As if lots were drawn between samples: the least of the Lagrangians over some multipliers. With
    the best samples there that are beyond the budget, and those within it.
    """
    payable = np.isfinite(over)
    # What is paid for ever, at a leader's discount of 1, is no part of any mixture.
    values, over = np.where(payable, values, -np.inf), np.where(payable, over, 0.0)
    known = values[payable]
    unit = float(np.ptp(known)) / max(float(np.ptp(over)), 1e-9) if known.size else 0.0
    estimate, multiplier = np.full(len(values), np.inf), np.zeros((len(values), 1))
    for each in unit * np.concatenate([[0.0], 2.0 ** np.arange(-8.0, 13.0)]):
        top = (values - each * over).max(axis=1)
        multiplier[top < estimate] = each
        estimate = np.minimum(estimate, top)
    bounds = values - multiplier * over
    allowed = payable & (over <= 0.0)
    estimate = np.where(allowed.any(axis=1), estimate, -np.inf)
    inside = np.where(allowed, bounds, -np.inf).argmax(axis=1)
    beyond = payable & (over > 0.0)
    outside = np.where(beyond, bounds, -np.inf).argmax(axis=1)
    return [(estimate, inside), (np.where(beyond.any(axis=1), estimate, -np.inf), outside)]


# -- payments shared between followers -------------------------------------------------------------


def _at_points(problem: IncentiveProblem, best: Mixture) -> Mixture:
    """Climb from even mixtures at breakpoints of the followers, payment by payment."""
    trials = []
    try:
        points = _breakpoints(problem, best.payments)
    except MemoryLimitError:
        return best
    for payments in points:
        responses = problem.followers.best_responses(problem.rewards(payments))
        only = problem.followers.deterministic_policies(responses.actions)
        tied = tied_actions(problem, payments, only)
        several = (tied.sum(axis=2) > 1)[:, :, None]
        if several.any():
            even = uniform_over(np.where(several, tied, only > 0.0))
            if problem.followers.is_proper(even, problem.rewards(payments)):
                value = problem.leader_pass(even, gradient=False).value
                cost = problem.cost_pass(payments, even, gradient=False).value
                trials.append(Mixture(payments, even, problem.net(value, cost)))
    trials.sort(key=lambda each: -each.objective)
    for trial in trials[:CLIMBED]:
        best = _at(problem, best, trial)
    return best


def _breakpoints(problem: IncentiveProblem, x: FloatArray) -> list[FloatArray]:
    """Payments (k,) at which some follower's response changes, one payment moved from x."""
    payments, followers = problem.payments, problem.followers
    equals = alike(followers, payments.index, problem.leader.labels)
    points: list[FloatArray] = []
    for k in range(payments.size):
        axis = (np.arange(payments.size) == k).astype(float)
        base = np.where(axis > 0.0, payments.lower, x)
        found = walk(
            followers.packed,
            problem.rewards(base),
            payments.side_payments(axis),
            equals,
            np.full(problem.n, payments.upper[k] - payments.lower[k]),
        )
        points += [base + t * axis for t in np.unique(found.lower)]
        if len(points) > POINTS:
            break
    nearest = np.argsort([np.abs(each - x).sum() for each in points], kind="stable")
    most = POINTS if spend_budget(problem) < np.inf else FEW_POINTS
    return [points[k] for k in nearest[:most]]
