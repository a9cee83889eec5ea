"""Gridworlds from an ASCII map, and the one of the paper's experiment.

A map is a string with one line per row and one character per cell::

    .  free          S  start, otherwise free       #  wall
    F  fire          G  goal                        L  lesser goal

Cells are (row, column), counted from the top left. State ``columns * row + column`` is a cell, the
last state, ``rows * columns``, is the Sink. Actions are N, E, S, W; a follower moves as intended
with probability 1 - 2 slip and to each of the two perpendicular sides with probability slip.
Walls and borders bounce it back to its cell. Both kinds of goals lead to the Sink whatever the
action. Rewards are for acting in a cell, whatever the action.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastincentive.errors import invalid
from fastincentive.followers import Followers
from fastincentive.leader import LabelReward, LeaderReward
from fastincentive.mdp import FloatArray, TabularMDP
from fastincentive.payments import Payments
from fastincentive.problem import IncentiveProblem

__all__ = [
    "ACTIONS",
    "DEFAULT_REWARDS",
    "EXAMPLE_MAP",
    "PAPER_MAP",
    "Cell",
    "Grid",
    "grid_mdp",
    "gridworld",
    "lesser_goal_reward",
    "paper_gridworld",
    "paper_initial_policies",
]

Cell = tuple[int, int]
T = TypeVar("T")

#: Names of the actions, in order.
ACTIONS = ("N", "E", "S", "W")
#: Reward for acting in a cell, by its character; a start counts as a free cell.
DEFAULT_REWARDS: Mapping[str, float] = {".": 0.0, "F": -5.0, "L": 8.0, "G": 10.0}
#: The paper's 6x6 grid (Figure 3). Its layout is not in the text; see ``paper_gridworld``.
PAPER_MAP = """
....F.
..F.L.
S..F..
...FG.
.....L
G...F.
"""
#: What ``gridworld`` builds by default: a goal near the starts, a lesser goal behind a wall.
EXAMPLE_MAP = """
S..#...
.F.#.L.
S......
.F.#.F.
S..G...
"""

_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
_ELSEWHERE, _LESSER_GOAL, _SINK = range(3)
#: The leader's table over labels has 3**n entries; more followers than this need another reward.
_MOST_FOLLOWERS = 12


@dataclasses.dataclass(frozen=True)
class Grid:
    """A parsed map.

    Attributes
    ----------
    rows : tuple of str
        The map, one string per row.
    starts : tuple of (row, column)
        Cells marked ``S`` in reading order; in ``problem.grid`` one cell per follower.
    """

    rows: tuple[str, ...]
    starts: tuple[Cell, ...]

    @classmethod
    def parse(cls, layout: str) -> Grid:
        """Read a map; its rows are separated by line breaks or blanks.

        Raises
        ------
        InputError
            If the map is empty, its rows differ in length, or it holds an unknown character.
        """
        if not isinstance(layout, str):
            raise invalid("layout", "a map as one string", type(layout).__name__)
        rows = tuple(layout.split())
        if not rows:
            raise invalid("layout", "a map with at least one row", "none")
        for r, row in enumerate(rows):
            if len(row) != len(rows[0]):
                raise invalid("layout", f"{len(rows[0])} cells, as in row 0", len(row), f"row {r}")
            for c, character in enumerate(row):
                if character not in "S#" and character not in DEFAULT_REWARDS:
                    raise invalid(
                        "layout", "one of . S # F G L", repr(character), f"row {r}, column {c}"
                    )
        return cls(rows, _cells(rows, "S"))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self.rows), len(self.rows[0])

    @property
    def goals(self) -> tuple[Cell, ...]:
        """Cells marked ``G``."""
        return _cells(self.rows, "G")

    @property
    def lesser_goals(self) -> tuple[Cell, ...]:
        """Cells marked ``L``."""
        return _cells(self.rows, "L")

    @property
    def fires(self) -> tuple[Cell, ...]:
        """Cells marked ``F``."""
        return _cells(self.rows, "F")

    @property
    def walls(self) -> tuple[Cell, ...]:
        """Cells marked ``#``."""
        return _cells(self.rows, "#")

    @property
    def sink(self) -> int:
        """State number of the Sink, rows * columns."""
        return len(self.rows) * len(self.rows[0])

    def state(self, cell: Sequence[int], argument: str = "cell") -> int:
        """State number of a (row, column) that is not a wall."""
        height, width = self.shape
        if len(cell) != 2 or not (0 <= cell[0] < height and 0 <= cell[1] < width):
            raise invalid(argument, f"(row, column) on the {height}x{width} map", tuple(cell))
        row, column = (int(k) for k in cell)
        if self.rows[row][column] == "#":
            raise invalid(argument, "a cell that is not a wall", (row, column))
        return width * row + column

    def cell(self, state: int) -> Cell:
        """(row, column) of a state; the Sink has none."""
        if not 0 <= state < self.sink:
            raise invalid("state", f"a cell's state number in 0..{self.sink - 1}", state)
        return divmod(int(state), len(self.rows[0]))


def _cells(rows: Sequence[str], character: str) -> tuple[Cell, ...]:
    return tuple(
        (r, c) for r, row in enumerate(rows) for c, found in enumerate(row) if found == character
    )


def grid_mdp(
    layout: str | Grid,
    slip: float = 0.1,
    start: Sequence[int] | None = None,
    discount: float = 0.95,
    rewards: Mapping[str, float] | None = None,
) -> TabularMDP:
    """Build the MDP of one follower on a map.

    Parameters
    ----------
    layout : str or Grid
        See the module's docstring.
    slip : float in [0, 0.5]
        Probability of each of the two sideways moves.
    start : (row, column), optional
        By default the map's first ``S``.
    discount : float in [0, 1]
    rewards : mapping from character to float, optional
        Reward for acting in a cell; entries replace those of ``DEFAULT_REWARDS``.

    Returns
    -------
    TabularMDP
        With S = rows * columns + 1 states and the actions N, E, S, W. A wall cell is never entered;
        it leads to the Sink.

    Raises
    ------
    InputError
        If an argument is not as described.
    """
    grid = layout if isinstance(layout, Grid) else Grid.parse(layout)
    if not 0.0 <= slip <= 0.5:
        raise invalid("slip", "a probability in [0, 0.5] for each side", slip)
    if start is None:
        if not grid.starts:
            raise invalid("start", "a cell, or an S on the map", "none")
        start = grid.starts[0]
    entered = _neighbours(grid)
    # Intended, left and right of it: the actions are in cyclic order.
    successors = np.stack([entered, np.roll(entered, 1, axis=1), np.roll(entered, -1, axis=1)], 2)
    probabilities = np.broadcast_to([1.0 - 2.0 * slip, slip, slip], successors.shape)
    return TabularMDP.from_successors(
        successors,
        probabilities,
        _cell_rewards(grid, rewards),
        discount=discount,
        initial=grid.state(start, "start"),
    )


def _neighbours(grid: Grid) -> NDArray[np.int32]:
    """(S, 4) int32: the state that a move in each direction enters."""
    height, width = grid.shape
    out = np.full((grid.sink + 1, len(_MOVES)), grid.sink, np.int32)
    leaving = {*grid.goals, *grid.lesser_goals, *grid.walls}
    for s in range(grid.sink):
        r, c = grid.cell(s)
        if (r, c) in leaving:
            continue
        for a, (dr, dc) in enumerate(_MOVES):
            inside = 0 <= r + dr < height and 0 <= c + dc < width
            open_ = inside and grid.rows[r + dr][c + dc] != "#"
            out[s, a] = width * (r + dr) + c + dc if open_ else s
    return out


def _cell_rewards(grid: Grid, rewards: Mapping[str, float] | None) -> FloatArray:
    """(S,): reward for acting in each state, 0 in walls and in the Sink."""
    table = {**DEFAULT_REWARDS, **(rewards or {})}
    unknown = sorted(set(table) - set(DEFAULT_REWARDS))
    if unknown:
        raise invalid("rewards", "the characters . F L G", unknown)
    table |= {"S": table["."], "#": 0.0}
    return np.array([table[character] for row in grid.rows for character in row] + [0.0])


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
        The map; see the module's docstring for its characters and the dynamics.
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
    initial = [grid.state(cell, "starts") for cell in grid.starts]
    models = {alpha: grid_mdp(grid, alpha, rewards=rewards) for alpha in dict.fromkeys(slips)}
    mdps = [
        models[alpha].replace(discount=gamma, initial=state)
        for alpha, gamma, state in zip(slips, discounts, initial, strict=True)
    ]
    problem = IncentiveProblem(
        Followers(mdps),
        lesser_goal_reward(grid, n) if leader is None else leader,
        Payments.at_states(
            [[grid.state(cell, "paid") for cell in each] for each in sites], upper, budget
        ),
        leader_discount=leader_discount,
        cost_weight=cost_weight,
    )
    problem.grid = grid
    return problem


def _as_list(value: float | Sequence[float]) -> list[float]:
    return [float(each) for each in np.atleast_1d(np.asarray(value, float))]


def _as_cells(starts: Sequence[Sequence[int]]) -> tuple[Cell, ...]:
    array = np.asarray(starts)
    if array.ndim != 2 or array.shape[1] != 2 or not np.issubdtype(array.dtype, np.integer):
        raise invalid("starts", "a sequence of (row, column) integers", repr(starts))
    return tuple((int(r), int(c)) for r, c in array)


def _repeat(argument: str, values: Sequence[T], n: int) -> list[T]:
    if len(values) not in (1, n):
        raise invalid(argument, f"1 or {n} entries, one per follower", len(values))
    return [*values] * (n if len(values) == 1 else 1)


def paper_gridworld(
    slips: Sequence[float] = (0.1, 0.05),
    discount: float | Sequence[float] = 0.95,
    cost_weight: float = 0.1,
    start: Sequence[int] = (2, 0),
    *,
    upper: ArrayLike = np.inf,
) -> IncentiveProblem:
    """Build the 6x6 gridworld of the paper's experiment (Section 4, Figure 3).

    Two robots start in one cell. Goals (3, 4) and (5, 0) pay 10, lesser goals (1, 4) and (4, 5)
    pay 8, fires (0, 4), (1, 2), (2, 3), (3, 3) and (5, 4) cost 5. The leader, whose discount is 1,
    earns 10 when both robots are at a lesser goal, 8 when one is and the other is in the Sink, and
    2 when one is and the other is anywhere else. It may pay robot 1 at (4, 5) and robot 2 at
    (1, 4); the cost is the sum of both payments.

    Parameters
    ----------
    slips : (2,) floats in [0, 0.5]
        Probability of each sideways move, alpha_1 and alpha_2. The paper does not print them:
        the defaults are a choice of this package, as is ``discount``.
    discount : float or (2,) floats in [0, 1]
        The robots' discounts.
    cost_weight : float
        w in f = V - w C(x).
    start : (row, column)
        Start of both robots.
    upper : float or (2,)
        Largest payments.

    Returns
    -------
    IncentiveProblem
        With 37 states, 4 actions, payments (robot 1 at state 29, robot 2 at state 10), and
        ``problem.grid``.

    Notes
    -----
    Figure 3's layout is not in the text either; this one is the research group's published grid
    with a single robot. Table 1 can therefore be compared, but not to the last digit.
    """
    if len(slips) != 2:
        raise invalid("slips", "two probabilities, one per robot", len(slips))
    return gridworld(
        PAPER_MAP,
        slip=slips,
        discount=discount,
        starts=[start],
        paid=[[(4, 5)], [(1, 4)]],
        cost_weight=cost_weight,
        upper=upper,
    )


def paper_initial_policies(problem: IncentiveProblem, promise: float = 20.0) -> FloatArray:
    """Build the third initialisation of the paper's Table 1.

    The text asks for a robot 1 with a high and a robot 2 with a low probability of reaching a
    lesser goal, and gives no policies. Here robot 1 best-responds to a payment of ``promise`` where
    it may be paid (it then reaches a lesser goal with probability 0.88) and robot 2 to no payment
    (with probability 0.00003).

    Parameters
    ----------
    problem : IncentiveProblem
        From ``paper_gridworld``; any problem will do, all followers but the first unpaid.
    promise : float
        Payment that the first follower answers to, in units of its reward.

    Returns
    -------
    array (n, S, A)
        Deterministic policies.
    """
    rewards = problem.rewards(np.where(problem.payments.reaches[0], float(promise), 0.0))
    rewards[1:] = problem.followers.rewards[1:]
    actions = problem.followers.best_responses(rewards).actions
    return np.asarray(np.eye(problem.followers.n_actions)[actions])
