"""All best responses of a follower to several payments: the linear pieces of its optimal value.

The optimal value is a maximum of linear functions of the payments, one for each policy; it is
averaged over all states that can be met, so that decisions in rare states show as well. Its linear
pieces are found by refinement: the upper envelope of the known ones is compared with it at its
vertices. A vertex above which the value lies shows a new piece; when there is none the two agree
everywhere, because the value is convex. The cheapest payments for a response, at a linear cost, are
at a vertex.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import HalfspaceIntersection, QhullError

from fastincentive._arrays import FloatArray
from fastincentive.errors import InputError
from fastincentive.followers.evaluation import evaluate_packed
from fastincentive.kernels import bellman
from fastincentive.problem.problem import IncentiveProblem
from fastincentive.responses.menus import Lines, side_payments
from fastincentive.responses.regimes import repeat

__all__ = ["vertex_lines"]

#: Pieces that differ by less than this share of their values count as one.
RESOLUTION = 1e-10
#: Where more steps count than this, rounding may move a vertex to where nothing ties any more.
LONGEST = 2e4
#: Of more payments to one follower the vertices are too many: of two for each alone there are 2^K.
MOST_PAYMENTS = 10
#: So many payments are answered at once, to bound the memory that this takes.
AT_ONCE = 4096
#: Vertices are found up to this share of the box.
DIGITS = 1e-13


def vertex_lines(
    problem: IncentiveProblem, upper: FloatArray, most_pieces: int
) -> tuple[Lines, bool]:
    """Lines of no length at every vertex of every follower's optimal value, and whether all.

    A follower with more than ``MOST_PAYMENTS`` gets a line along each of them instead, and one
    along all together.

    Parameters
    ----------
    problem : IncentiveProblem
    upper : array (k,)
        Finite upper bounds of the payments.
    most_pieces : int
        A follower with more pieces than this is left incomplete.
    """
    owners: list[NDArray[np.int64]] = []
    bases: list[FloatArray] = []
    directions: list[FloatArray] = []
    complete = True
    for i in range(problem.n):
        reach = problem.payments.reach[i]
        paid = reach[reach >= 0]
        low, high = problem.payments.lower[paid], upper[paid]
        if (high > low).sum() > MOST_PAYMENTS:
            along = np.vstack([np.diag(high - low), high - low])
            found, whole = np.tile(low, (len(along), 1)), False
        else:
            found, whole = _vertices(problem, i, low, high, most_pieces)
            along = np.zeros(found.shape)
        complete = complete and whole
        owners.append(np.full(len(found), i))
        for parts, columns in ((bases, found), (directions, along)):
            parts.append(np.pad(columns, ((0, 0), (0, reach.size - paid.size))))
    lines = Lines(np.concatenate(owners), np.concatenate(bases), np.concatenate(directions))
    return lines, complete


def _vertices(
    problem: IncentiveProblem, i: int, low: FloatArray, high: FloatArray, most: int
) -> tuple[FloatArray, bool]:
    """Vertices (m, K) of the cells of the optimal value in a box, and whether they are all."""
    free = np.flatnonzero(high > low)
    if free.size == 0:
        return low[None], True
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * free.size, indexing="ij"), axis=-1)
    points = corners.reshape(-1, free.size)

    def spread(shares: FloatArray) -> FloatArray:
        """Payments (m, K) at shares of the box, on the payments that have room."""
        out = np.tile(low, (len(shares), 1))
        out[:, free] = np.clip(low[free] + shares * (high - low)[free], low[free], high[free])
        return out

    slopes = np.empty((0, free.size))
    constants = np.empty(0)
    longest = 0.0
    while True:
        count, unit = slopes.shape[0], 1e-300
        new_slopes, new_constants = [slopes], [constants]
        for first in range(0, len(points), AT_ONCE):
            part = points[first : first + AT_ONCE]
            # In shares of the box, so that payments have no scale of their own.
            values, slope, constant, steps = _responses(problem, i, spread(part))
            longest, unit = max(longest, steps), max(unit, float(np.abs(values).max()))
            slope = (slope * (high - low))[:, free]
            known = (slopes @ part.T + constants[:, None]).max(axis=0, initial=-np.inf)
            above = values > known + RESOLUTION * np.maximum(np.abs(values), np.abs(constant))
            new_slopes.append(slope[above])
            new_constants.append(constant[above])
        slopes, constants = np.concatenate(new_slopes), np.concatenate(new_constants)
        if slopes.shape[0] == count:
            exact = np.array([_polished(each, slopes, constants) for each in points])
            return spread(exact), longest <= LONGEST
        kept = _different(slopes, constants)
        slopes, constants = slopes[kept], constants[kept]
        # Where no piece is new, rounding hides what there is to find.
        if not count < kept.size <= most:
            return spread(points), False
        try:
            points = _envelope_vertices(slopes / unit, constants / unit)
        except QhullError:
            # Nearly parallel pieces: the geometry cannot be resolved.
            return spread(points), False


def _different(slopes: FloatArray, constants: FloatArray) -> NDArray[np.int64]:
    """Which pieces to keep of those that are the same up to rounding."""
    sizes = np.append(np.abs(slopes).max(axis=0), np.abs(constants).max())
    rows = np.column_stack([slopes, constants]) / np.where(sizes > 0.0, sizes, 1.0)
    return np.asarray(np.unique(np.round(rows, 12), axis=0, return_index=True)[1])


def _polished(point: FloatArray, slopes: FloatArray, constants: FloatArray) -> FloatArray:
    """Move a vertex (K,) to where the pieces that meet there meet exactly, within the box."""
    inside = (point > 0.0) & (point < 1.0)
    for _ in range(2):
        values = slopes @ point + constants
        top = int(np.argmax(values))
        size = np.abs(constants) + np.abs(slopes) @ (point + DIGITS / RESOLUTION)
        below = values[top] - values
        rows: list[FloatArray] = []
        short: list[float] = []
        for k in np.argsort(below)[1:].tolist():
            if len(rows) == inside.sum() or below[k] > RESOLUTION * (size[k] + size[top]):
                break
            row = (slopes[k] - slopes[top])[inside]
            length = float(np.linalg.norm(row))
            # One more condition, unless it says the same as those that are nearer.
            if length > 0.0 and np.linalg.matrix_rank([*rows, row / length], 1e-6) > len(rows):
                rows.append(row / length)
                short.append(below[k] / length)
        if not rows:
            break
        point = point.copy()
        change = np.linalg.lstsq(np.array(rows), np.array(short), rcond=None)[0]
        point[inside] = np.clip(point[inside] + change, 0.0, 1.0)
    return point


def _responses(
    problem: IncentiveProblem, i: int, points: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Mean optimal value (m,) at payments (m, K), its slope there (m, K), its part unpaid (m,).

    With the most steps that a best response counts.
    """
    followers, payments = problem.followers, problem.payments
    count = len(points)
    owner = np.full(count, i)
    spread = np.zeros((count, payments.reach.shape[1]))
    spread[:, : points.shape[1]] = points
    start = followers.reachable(i) / followers.reachable(i).sum()
    packed = repeat(followers.packed, owner)._replace(initial=np.tile(start, (count, 1)))
    rewards = followers.rewards[owner] + side_payments(problem, owner, spread)
    states, actions = followers.n_states, followers.n_actions
    best = np.full((count, states), -1)
    values = np.empty((count, states))
    q_values = np.empty((count, states, actions))
    status = np.empty(count, np.int64)
    bellman.best_responses(packed, rewards, best, values, q_values, np.empty(count), status)
    if status.min() < 0:
        raise InputError(
            "upper: expected payments that cannot be earned for ever at discount 1, got some "
            "that can; set smaller upper bounds"
        )
    policies = followers.deterministic_policies(best)
    values, _, visits, _ = evaluate_packed(followers.models, packed, rewards, policies)
    occupancy = (visits[:, :, None] * policies).reshape(count, -1)
    index = payments.index[i].reshape(-1)
    slope = np.stack(
        [occupancy[:, index == k].sum(axis=1) for k in payments.reach[i][: points.shape[1]]], axis=1
    )
    unpaid = occupancy @ np.where(followers.available[i], followers.rewards[i], 0.0).reshape(-1)
    return np.asarray(values @ start), slope, unpaid, float(visits.sum(axis=1).max())


def _envelope_vertices(slopes: FloatArray, constants: FloatArray) -> FloatArray:
    """Vertices (m, K) of the upper envelope of lines in the unit box, of values up to about 1."""
    size = slopes.shape[1]
    top = float((slopes.clip(0.0).sum(axis=1) + constants).max()) + 1.0
    # Rows of a . (x, v) + b <= 0: above every line, inside the box, below a cap.
    eye = np.eye(size)
    zero = np.zeros((size, 1))
    rows = np.concatenate(
        [
            np.column_stack([slopes, -np.ones(len(slopes)), constants]),
            np.column_stack([-eye, zero, zero]),
            np.column_stack([eye, zero, -np.ones((size, 1))]),
            np.append(np.zeros(size), [1.0, -top])[None],
        ]
    )
    level = float((slopes.sum(axis=1) * 0.5 + constants).max())
    inside = np.append(np.full(size, 0.5), 0.5 * (level + top))
    corners = HalfspaceIntersection(rows, inside, qhull_options="H Qx Q12").intersections
    corners = corners[np.isfinite(corners).all(axis=1)]
    corners = corners[corners[:, -1] < top - 1e-6]
    return np.unique(np.clip(np.round(corners[:, :-1], 14), 0.0, 1.0), axis=0)
