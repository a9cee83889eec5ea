"""A crowd in a city: many followers, two destinations of limited capacity."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive._machine import UNGUARDED, check_memory
from fastincentive._random import Rng, check_rng
from fastincentive.errors import invalid
from fastincentive.followers.followers import Followers
from fastincentive.leader.congestion import CongestionReward
from fastincentive.models.maps import Grid, grid_mdp
from fastincentive.problem.costs import LinearCost
from fastincentive.problem.payments import Payments
from fastincentive.problem.problem import IncentiveProblem

__all__ = ["city_map", "crowd"]

#: Bytes that a follower takes for each state while its problem is built (measured).
BYTES = 120
#: What a follower earns at the goal and at a lesser goal, on average and at most more or less.
GOAL, LESSER_GOAL, SPREAD = 10.0, 8.0, 2.0


@checked
def city_map(size: int) -> str:
    """Draw a city: blocks between streets, the goal in the middle, a lesser goal in two corners.

    Parameters
    ----------
    size : int
        Rows and columns, an odd number of at least 5.
    """
    if size < 5 or size % 2 == 0:
        raise invalid("size", "an odd number of at least 5", size)
    rows = [["#" if r % 2 and c % 2 else "." for c in range(size)] for r in range(size)]
    middle = size // 2 - size // 2 % 2
    rows[middle][middle] = "G"
    rows[0][size - 1] = rows[size - 1][0] = "L"
    return "\n".join("".join(row) for row in rows)


@checked
def crowd(
    n: int = 100,
    rng: Rng = 0,
    *,
    size: int = 9,
    slip: float = 0.05,
    discount: float = 0.95,
    types: int | None = None,
    capacity: float | None = None,
    cost_weight: float = 0.02,
) -> IncentiveProblem:
    """Send a crowd to two lesser destinations, neither of them too full at any time.

    n followers, who share one map, start on random streets. Each likes the goal in the middle
    best, more or less. The leader is paid for followers at the two lesser goals, as a dispatcher of
    a ride fleet or an operator of charging stations would be: N followers at one of them at a time
    are worth N - N^2 / (2 capacity), so that more than its capacity are worth less.

    Parameters
    ----------
    n : int
        Number of followers.
    rng : None, int or numpy.random.Generator
        Seed of starts and rewards. One stream per follower, so another n leaves the first followers
        as they are.
    size : int
        Rows and columns of the city, an odd number of at least 5; see ``city_map``.
    slip : float in [0, 0.5]
        Probability of each of the two sideways moves.
    discount : float in [0, 1]
        The followers' discount.
    types : int, optional
        Draw so many types of followers, as many of each as possible (n / types, or one more), in
        place of n followers each with its own start and rewards.
    capacity : float, optional
        Followers at a lesser goal at a time that are worth most; by default n / 20, at least 1.
    cost_weight : float
        w in f = V - w C(x); C is the sum of the payments to all followers.

    Returns
    -------
    IncentiveProblem
        With a ``CongestionReward``, leader's discount 1, and one payment per follower (or type:
        then each is paid it), at the lesser goal nearer to its start. ``problem.grid`` is the
        ``Grid``.

    Raises
    ------
    InputError
        If an argument is not as described.

    Examples
    --------
    >>> from fastincentive.models import crowd
    >>> problem = crowd(1000)
    >>> problem.n, problem.followers.n_models, problem.payments.size
    (1000, 1, 1000)
    >>> crowd(1_000_000, types=50).followers.population
    1000000
    """
    check_rng(rng)
    if n < 1:
        raise invalid("n", "a positive integer", n)
    drawn = n if types is None else int(types)
    if not 1 <= drawn <= n:
        raise invalid("types", f"an integer in 1..{n}", types)
    most = max(1.0, n / 20.0) if capacity is None else float(capacity)
    if not most > 0.0:
        raise invalid("capacity", "a number > 0", capacity)
    grid = Grid.parse(city_map(size))
    _check_room(drawn, grid.sink + 1)
    streets = np.argwhere(grid.characters == ".")
    base = grid_mdp(grid, slip, streets[0].tolist(), discount)
    starts, likes = _draw(np.random.default_rng(rng), drawn, streets)
    lesser = [grid.state(cell) for cell in grid.lesser_goals]
    rewards = np.tile(base.reward[:, 0], (drawn, 1))
    rewards[:, [grid.state(grid.goals[0]), *lesser]] = likes
    far = np.abs(starts[:, None] - grid.lesser_goals).sum(axis=2)
    counts = np.full(drawn, n // drawn) + (np.arange(drawn) < n % drawn)
    resources = [lesser.index(s) if s in lesser else -1 for s in range(grid.sink + 1)]
    problem = IncentiveProblem(
        Followers.from_arrays(base, rewards, initial=starts @ [size, 1], counts=counts),
        CongestionReward.polynomial(resources, [0.0, 1.0, -0.5 / most]),
        Payments.at_states([[lesser[k]] for k in far.argmin(axis=1)]),
        leader_discount=1.0,
        cost_weight=cost_weight,
        cost=LinearCost(counts),
    )
    problem.grid = dataclasses.replace(grid, starts=tuple(map(tuple, starts.tolist())))
    return problem


def _check_room(n: int, states: int) -> None:
    """Raise if the machine cannot hold so many followers with their payments."""
    need = BYTES * n * states
    if need > UNGUARDED:
        check_memory(f"a crowd of {n} different followers", need)


def _draw(
    source: np.random.Generator, n: int, streets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], FloatArray]:
    """Draw where n followers start (n, 2), and what they like the goal and lesser goals (n, 3)."""
    street, spread = np.empty(n, np.int64), np.empty((n, 3))
    for i, stream in enumerate(source.spawn(n)):
        street[i] = stream.integers(len(streets))
        spread[i] = stream.random(3)
    likes = [GOAL, LESSER_GOAL, LESSER_GOAL] + SPREAD * (2.0 * spread - 1.0)
    return streets[street], likes
