"""Maps of gridworlds, and the MDP of one follower on a map.

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
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastincentive._arrays import FloatArray
from fastincentive._checks import checked
from fastincentive.errors import invalid
from fastincentive.followers.mdp import TabularMDP

__all__ = ["ACTIONS", "DEFAULT_REWARDS", "Cell", "Grid", "grid_mdp"]

Cell = tuple[int, int]

#: Names of the actions, in order.
ACTIONS = ("N", "E", "S", "W")
#: Reward for acting in a cell, by its character; a start counts as a free cell.
DEFAULT_REWARDS: Mapping[str, float] = {".": 0.0, "F": -5.0, "L": 8.0, "G": 10.0}

_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))


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
    @checked
    def parse(cls, layout: str) -> Grid:
        """Read a map; its rows are separated by line breaks or blanks.

        Raises
        ------
        InputError
            If the map is empty, its rows differ in length, or it holds an unknown character.
        """
        rows = tuple(layout.split())
        if not rows:
            raise invalid("layout", "a map with at least one row", "none")
        known = {*DEFAULT_REWARDS, *"S#"}
        for r, row in enumerate(rows):
            if len(row) != len(rows[0]):
                raise invalid("layout", f"{len(rows[0])} cells, as in row 0", len(row), f"row {r}")
            if not known.issuperset(row):
                c, character = next((c, x) for c, x in enumerate(row) if x not in known)
                raise invalid(
                    "layout", "one of . S # F G L", repr(character), f"row {r}, column {c}"
                )
        grid = cls(rows, ())
        return dataclasses.replace(grid, starts=grid._cells("S"))

    @cached_property
    def characters(self) -> NDArray[np.str_]:
        """(rows, columns): the character of each cell."""
        text = "".join(self.rows)
        return np.frombuffer(text.encode("utf-32-le"), "<U1").reshape(self.shape)

    def _cells(self, character: str) -> tuple[Cell, ...]:
        return tuple((r, c) for r, c in np.argwhere(self.characters == character).tolist())

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self.rows), len(self.rows[0])

    @property
    def goals(self) -> tuple[Cell, ...]:
        """Cells marked ``G``."""
        return self._cells("G")

    @property
    def lesser_goals(self) -> tuple[Cell, ...]:
        """Cells marked ``L``."""
        return self._cells("L")

    @property
    def fires(self) -> tuple[Cell, ...]:
        """Cells marked ``F``."""
        return self._cells("F")

    @property
    def walls(self) -> tuple[Cell, ...]:
        """Cells marked ``#``."""
        return self._cells("#")

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


@checked
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
    number = np.arange(grid.sink, dtype=np.int32).reshape(height, width)
    wall = grid.characters == "#"
    out = np.full((grid.sink + 1, len(_MOVES)), grid.sink, np.int32)
    for a, (dr, dc) in enumerate(_MOVES):
        # Walls and borders bounce the follower back.
        entered = number.copy()
        here = (slice(max(-dr, 0), height - max(dr, 0)), slice(max(-dc, 0), width - max(dc, 0)))
        there = (slice(max(dr, 0), height - max(-dr, 0)), slice(max(dc, 0), width - max(-dc, 0)))
        entered[here] = np.where(wall[there], number[here], number[there])
        out[:-1, a] = entered.reshape(-1)
    out[:-1][np.isin(grid.characters, ["G", "L", "#"]).reshape(-1)] = grid.sink
    return out


def _cell_rewards(grid: Grid, rewards: Mapping[str, float] | None) -> FloatArray:
    """(S,): reward for acting in each state, 0 in walls and in the Sink."""
    table = {**DEFAULT_REWARDS, **(rewards or {})}
    unknown = sorted(set(table) - set(DEFAULT_REWARDS))
    if unknown:
        raise invalid("rewards", "the characters . F L G", unknown)
    table["S"] = table["."]
    out = np.zeros(grid.sink + 1)
    for character, value in table.items():
        out[:-1][(grid.characters == character).reshape(-1)] = value
    return out
