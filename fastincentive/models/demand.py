"""Demand response: households that shift their consumption over a day."""

from __future__ import annotations

import numpy as np

from fastincentive._checks import checked
from fastincentive._machine import check_large
from fastincentive._random import Rng, check_rng
from fastincentive.errors import invalid
from fastincentive.followers.followers import Followers
from fastincentive.followers.mdp import TabularMDP
from fastincentive.leader.congestion import CongestionReward
from fastincentive.problem.costs import ExpectedSpend
from fastincentive.problem.payments import Payments
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["demand_response"]

#: What a slot's work of the appliance is worth to a household, and how much less a slot later.
WORTH, DELAY = 3.0, 0.1
#: The time at which most households want it, and the standard deviation, as shares of the day.
PEAK, WIDTH = 0.7, 0.1
IDLE, CONSUME = 0, 1


@checked
def demand_response(
    n: int = 100,
    slots: int = 24,
    rng: Rng = 0,
    *,
    work: int = 3,
    shared: bool = True,
    cost_weight: float = 0.5,
) -> IncentiveProblem:
    """Pay n households to consume off the peak of a day.

    Each household has an appliance that must run for ``work`` slots of the day, one by one. It
    wants it at a time that is random, near the evening for most; every slot later is worth less to
    it, by its own impatience, every slot earlier half as much less. The leader pays for supply: N
    households that consume in a slot cost N^2 / n, so that a flat load is the cheapest. It may
    pay a bonus for consumption in each slot.

    Parameters
    ----------
    n : int
        Number of households.
    slots : int
        Time slots of the day.
    rng : None, int or numpy.random.Generator
        Seed. One stream per household, so another n leaves the first ones as they are.
    work : int
        Slots that the appliance must run, at most ``slots``.
    shared : bool
        Whether the bonus is a posted tariff, one for all households in each slot, or there is one
        for each household and slot.
    cost_weight : float
        w in f = V - w C(x); C is what is really paid out.

    Returns
    -------
    IncentiveProblem
        A household's state is (slot, slots of work left), number ``slot * (work + 1) + left``, or
        the end of the day; its actions are to idle and to consume. Discounts are 1. The leader has
        a ``CongestionReward`` with one resource per slot.

    Raises
    ------
    InputError
        If an argument is not as described.

    Examples
    --------
    >>> from fastincentive.models import demand_response
    >>> problem = demand_response(10, slots=6, work=2)
    >>> problem.followers.shape, problem.payments.size
    ((10, 19, 2), 6)
    """
    check_rng(rng)
    for name, value in (("n", n), ("slots", slots), ("work", work)):
        if value < 1:
            raise invalid(name, "a positive integer", value)
    if work > slots:
        raise invalid("work", f"at most the {slots} slots of a day", work)
    end = slots * (work + 1)
    check_large(f"{n} households", n * (4000.0 + 100.0 * end))
    slot, left = np.divmod(np.arange(end), work + 1)
    day = _day(slots, work)
    streams = np.random.default_rng(rng).spawn(n)
    mdps = [_household(stream, day, slots, work) for stream in streams]
    resources = np.full((n, end + 1, 2), -1)
    resources[:, :-1, CONSUME] = np.where(left > 0, slot, -1)
    index = np.where(resources >= 0, resources, -1)
    if not shared:
        index = np.where(index >= 0, index + slots * np.arange(n)[:, None, None], -1)
    return IncentiveProblem(
        Followers(mdps),
        CongestionReward.polynomial(resources, [0.0, 0.0, -1.0 / n]),
        Payments.from_index(index),
        leader_discount=1.0,
        cost_weight=cost_weight,
        cost=ExpectedSpend(),
    )


def _day(slots: int, work: int) -> TabularMDP:
    """Build a household's day without rewards: time passes, and consuming does a slot's work."""
    end = slots * (work + 1)
    slot, left = np.divmod(np.arange(end), work + 1)
    successors = np.full((end + 1, 2, 1), end)
    days = slot + 1 < slots
    successors[:-1][days, IDLE, 0] = np.arange(end)[days] + work + 1
    consuming = left > 0
    successors[:-1][days & consuming, CONSUME, 0] = np.arange(end)[days & consuming] + work
    available = np.ones((end + 1, 2), bool)
    available[:-1, CONSUME] = consuming
    available[-1, CONSUME] = False
    return TabularMDP.from_successors(
        successors,
        np.ones(successors.shape),
        np.zeros((end + 1, 2)),
        discount=1.0,
        initial=0,
        available=available,
    )


def _household(stream: np.random.Generator, day: TabularMDP, slots: int, work: int) -> TabularMDP:
    """Draw when a household wants its appliance to run, and what is left to do at first."""
    slot, left = np.divmod(np.arange(day.n_states - 1), work + 1)
    wanted = PEAK * slots + WIDTH * slots * stream.standard_normal()
    impatience = DELAY * stream.uniform(0.5, 1.5)
    late = np.maximum(slot - wanted, 0.0) + 0.5 * np.maximum(wanted - slot, 0.0)
    reward = np.zeros(day.reward.shape)
    reward[:-1, CONSUME] = np.where(left > 0, WORTH - impatience * late, 0.0)
    initial = np.zeros(day.n_states)
    # It begins the day with the work to do, or with one slot of it less.
    share = stream.uniform(0.5, 1.0)
    initial[work] += share
    initial[work - 1] += 1.0 - share
    return day.replace(reward=reward, initial=initial)
