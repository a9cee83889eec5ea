"""Gridworlds from a map: n followers, their payments, and a leader that wants lesser goals.

``fastincentive.models.maps`` describes the maps and what a move does.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from fastincentive._arrays import as_numbers
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.followers.followers import Followers
from fastincentive.leader.base import LeaderReward
from fastincentive.leader.tables import LabelReward
from fastincentive.models.maps import ACTIONS, DEFAULT_REWARDS, Cell, Grid, grid_mdp
from fastincentive.problem.payments import Payments
from fastincentive.problem.problem import IncentiveProblem

__all__ = [
    "ACTIONS",
    "DEFAULT_REWARDS",
    "EXAMPLE_MAP",
    "Cell",
    "Grid",
    "grid_mdp",
    "gridworld",
    "lesser_goal_reward",
]

T = TypeVar("T")

#: What ``gridworld`` builds by default: a goal near the starts, a lesser goal behind a wall.
EXAMPLE_MAP = """
S..#...
.F.#.L.
S......
.F.#.F.
S..G...
"""

_ELSEWHERE, _LESSER_GOAL, _SINK = range(3)
#: The leader's table over labels has 3**n entries; more followers than this need another reward.
_MOST_FOLLOWERS = 12


def lesser_goal_reward(grid: Grid, n: int) -> LabelReward:
    """Reward a leader that wants the followers to meet at lesser goals, at the same time.

    With two followers it is the paper's: 10 when both are at a lesser goal, 8 when one is and the
    other is in the Sink, 2 when one is and the other is anywhere else, otherwise 0. With more
    followers it is the mean of this over all pairs of followers; a single follower earns the leader
    10 at a lesser goal.

    Parameters
    ----------
    grid : Grid
    n : int
        Number of followers, at most 12: the table has 3**n entries.

    Returns
    -------
    LabelReward
        With labels (S,): 0 elsewhere, 1 lesser goal, 2 Sink.
    """
    if n > _MOST_FOLLOWERS:
        raise invalid(
            "leader",
            f"a reward of your own for more than {_MOST_FOLLOWERS} followers",
            f"none for {n}",
            None,
            "Pass leader=...; the default's table would have 3**n entries.",
        )
    labels = np.full(grid.sink + 1, _ELSEWHERE)
    labels[[grid.state(cell) for cell in grid.lesser_goals]] = _LESSER_GOAL
    labels[grid.sink] = _SINK
    pair = np.zeros((3, 3))
    pair[_LESSER_GOAL, _LESSER_GOAL] = 10.0
    pair[_LESSER_GOAL, _SINK] = pair[_SINK, _LESSER_GOAL] = 8.0
    pair[_LESSER_GOAL, _ELSEWHERE] = pair[_ELSEWHERE, _LESSER_GOAL] = 2.0
    if n == 1:
        return LabelReward(labels, pair.diagonal())
    table = np.zeros((3,) * n)
    pairs = list(itertools.combinations(range(n), 2))
    for i, j in pairs:
        table += pair.reshape([3 if k in (i, j) else 1 for k in range(n)])
    return LabelReward(labels, table / len(pairs))


@checked
def gridworld(
    layout: str = EXAMPLE_MAP,
    *,
    slip: float | Sequence[float] = 0.1,
    discount: float | Sequence[float] = 0.95,
    starts: Sequence[Sequence[int]] | None = None,
    paid: Sequence[Sequence[Sequence[int]]] | None = None,
    rewards: Mapping[str, float] | None = None,
    leader: LeaderReward | None = None,
    leader_discount: float = 1.0,
    cost_weight: float = 0.1,
    upper: ArrayLike = np.inf,
    budget: float | None = None,
) -> IncentiveProblem:
    """Build the incentive problem of n followers on one map.

    The number of followers is that of the longest of ``slip``, ``discount``, ``starts`` and
    ``paid``; a single value is repeated for all.

    Parameters
    ----------
    layout : str
        The map; ``fastincentive.models.maps`` has its characters and the dynamics.
    slip : float or (n,) floats in [0, 0.5]
        Probability of each of the two sideways moves. Followers with equal slips share one
        transition model.
    discount : float or (n,) floats in [0, 1]
        The followers' discounts.
    starts : sequence of (row, column), optional
        One start for all followers, or one each; by default the cells marked ``S`` in reading
        order.
    paid : sequence of n sequences of (row, column), optional
        For each follower the cells where the leader may pay it, one payment for each; by default
        all lesser goals.
    rewards : mapping from character to float, optional
        Followers' reward for acting in a cell, replacing entries of ``DEFAULT_REWARDS``.
    leader : LeaderReward, optional
        By default ``lesser_goal_reward``.
    leader_discount : float in [0, 1]
    cost_weight : float
        w in f = V - w C(x); C is the sum of the payments.
    upper, budget
        Bounds on each payment and on their sum, as in ``Payments``.

    Returns
    -------
    IncentiveProblem
        With ``problem.grid`` the ``Grid``, ``grid.starts`` one cell per follower.

    Raises
    ------
    InputError
        If the map or another argument is not as described.

    Examples
    --------
    >>> from fastincentive.models import gridworld
    >>> problem = gridworld("S.L ..G", slip=(0.0, 0.1, 0.2))
    >>> problem.n, problem.followers.n_states, problem.payments.size
    (3, 7, 3)
    """
    grid = Grid.parse(layout)
    cells = grid.starts if starts is None else _as_cells(starts)
    if not cells:
        raise invalid("starts", "at least one start", "none", None, "Mark it with S on the map.")
    slips = _as_list(slip)
    discounts = _as_list(discount)
    sites = [list(grid.lesser_goals)] if paid is None else list(paid)
    n = max(len(slips), len(discounts), len(cells), len(sites))
    slips = _repeat("slip", slips, n)
    discounts = _repeat("discount", discounts, n)
    grid = dataclasses.replace(grid, starts=tuple(_repeat("starts", cells, n)))
    sites = _repeat("paid", sites, n)
    if not any(sites):
        raise invalid("paid", "at least one cell", "none", None, "Mark lesser goals with L.")
    problem = IncentiveProblem(
        _followers(grid, slips, discounts, rewards),
        lesser_goal_reward(grid, n) if leader is None else leader,
        Payments.at_states(
            [[grid.state(cell, "paid") for cell in each] for each in sites], upper, budget
        ),
        leader_discount=leader_discount,
        cost_weight=cost_weight,
    )
    problem.grid = grid
    return problem


def _followers(
    grid: Grid,
    slips: Sequence[float],
    discounts: Sequence[float],
    rewards: Mapping[str, float] | None,
) -> Followers:
    """Build the followers from their starts; those with equal slips share a transition model."""
    initial = [grid.state(cell, "starts") for cell in grid.starts]
    models = {alpha: grid_mdp(grid, alpha, rewards=rewards) for alpha in dict.fromkeys(slips)}
    return Followers(
        [
            models[alpha].replace(discount=gamma, initial=state)
            for alpha, gamma, state in zip(slips, discounts, initial, strict=True)
        ]
    )


def _as_list(value: float | Sequence[float]) -> list[float]:
    return [float(each) for each in np.atleast_1d(np.asarray(value, float))]


def _as_cells(starts: Sequence[Sequence[int]]) -> tuple[Cell, ...]:
    array = as_numbers("starts", starts)
    if array.ndim != 2 or array.shape[1] != 2 or not np.issubdtype(array.dtype, np.integer):
        raise invalid("starts", "a sequence of (row, column) integers", repr(starts))
    return tuple((int(r), int(c)) for r, c in array)


def _repeat(argument: str, values: Sequence[T], n: int) -> list[T]:
    if len(values) not in (1, n):
        raise invalid(argument, f"1 or {n} entries, one per follower", len(values))
    return [*values] * (n if len(values) == 1 else 1)
