"""Symbolic LU factorisation of I - gamma P: which entries fill, found once for a model.

Elimination tree, postorder and column counts (Davis, Direct Methods for Sparse Linear Systems,
2006, chapter 4); relaxed supernodes (Ashcraft and Grimes, 1989). The pattern is the union over all
actions, made symmetric, so that it holds for every policy. Columns with similar patterns are joined
into fronts: dense blocks whose pivots are eliminated together (the multifrontal method). Columns
are *places* in the elimination order from here on. O(nnz) but for the order of elimination and the
column counts, whose work is that of the entries of L.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastincentive.kernels.jit import jit
from fastincentive.kernels.minimum_degree import minimum_degree

__all__ = [
    "Fronts",
    "analyse",
    "column_counts",
    "elimination_tree",
    "gather_fronts",
    "neighbours",
    "postorder",
]

#: Nanoseconds, measured on one machine, for each product, entry of the factors, stored transition
#: and front.
PRODUCT, ENTRY, TRANSITION, FRONT = 0.08, 3.0, 3.0, 500.0
#: A front takes in its last child if it then has at most FEW pivots; or at most so many, and no
#: more than this share of what is stored would be zeros.
FEW = 4
RELAXED = ((16, 0.8), (48, 0.1), (1 << 62, 0.05))


class Fronts(NamedTuple):
    """The fronts of a model and where everything lies; fronts come after their children.

    Front f of w pivots has m rows and columns, ``member[begin[f]:begin[f + 1]]``: its pivots first.
    From ``factor[f]`` on, the factors hold its w rows of length m (multipliers below the diagonal,
    pivots, U) and then the w multipliers of each of the r = m - w other rows. The update matrix
    (Schur complement) is r x r numbers, from ``stack[f]`` on, until it is added to the parent.
    """

    order: np.ndarray  # (S,) int64, the state at each place
    first: np.ndarray  # (F + 1,) int64, first pivot of each front
    begin: np.ndarray  # (F + 1,) int64
    member: np.ndarray  # (sum of m,) uint32, places
    position: np.ndarray  # (sum of m,) uint32, positions of the other rows in the parent's front
    parent: np.ndarray  # (F,) int64, -1 for roots
    child: np.ndarray  # (F,) int64, the last child, -1 for none
    sibling: np.ndarray  # (F,) int64, the child before, -1 for none
    factor: np.ndarray  # (F + 1,) int64
    stack: np.ndarray  # (F + 1,) int64, the last one is the size
    address: np.ndarray  # (nnz,) uint32, where each stored transition goes in the factors
    diagonal: np.ndarray  # (S,) uint32, where the diagonal entry of each state goes
    work: float  # nanoseconds of an evaluation, see ``estimated_time``


@jit
def neighbours(row_start, successor, states):
    """Pattern of P + P' without the diagonal, over all actions: start (S + 1,) and columns."""
    actions = (row_start.shape[0] - 1) // states
    mark = np.full(states, -1, np.int64)
    count = np.zeros(states + 1, np.int64)
    # Distinct pairs first, then both directions of each, then the distinct ones of these.
    pairs = np.empty((successor.shape[0], 2), np.int32)
    end = 0
    for s in range(states):
        mark[s] = s
        for e in range(row_start[s * actions], row_start[(s + 1) * actions]):
            c = successor[e]
            if mark[c] != s:
                mark[c] = s
                pairs[end, 0] = s
                pairs[end, 1] = c
                end += 1
                count[s + 1] += 1
                count[c + 1] += 1
    for s in range(states):
        count[s + 1] += count[s]
    both = np.empty(2 * end, np.int32)
    free = count[:-1].copy()
    for k in range(end):
        s, c = pairs[k, 0], pairs[k, 1]
        both[free[s]] = c
        free[s] += 1
        both[free[c]] = s
        free[c] += 1
    start = np.empty(states + 1, np.int64)
    mark[:] = -1
    end = 0
    for s in range(states):
        start[s] = end
        for e in range(count[s], count[s + 1]):
            c = both[e]
            if mark[c] != s:
                mark[c] = s
                both[end] = c
                end += 1
    start[states] = end
    return start, both[:end].copy()


@jit
def inverse(order):
    """Inverse permutation: the place of each state."""
    place = np.empty_like(order)
    for k in range(order.shape[0]):
        place[order[k]] = k
    return place


@jit
def elimination_tree(start, neighbour, order):
    """Parent of each place: the first later place that its column of the factors reaches."""
    states = order.shape[0]
    place = inverse(order)
    parent = np.full(states, -1, np.int64)
    ancestor = np.full(states, -1, np.int64)
    for k in range(states):
        s = order[k]
        for e in range(start[s], start[s + 1]):
            j = place[neighbour[e]]
            while j != -1 and j < k:
                following = ancestor[j]
                ancestor[j] = k
                if following == -1:
                    parent[j] = k
                j = following
    return parent


@jit
def postorder(parent):
    """Places sorted so that subtrees are contiguous, children before their parents."""
    states = parent.shape[0]
    child = np.full(states, -1, np.int64)
    sibling = np.full(states, -1, np.int64)
    for k in range(states - 1, -1, -1):
        if parent[k] >= 0:
            sibling[k] = child[parent[k]]
            child[parent[k]] = k
    found = np.empty(states, np.int64)
    stack = np.empty(states, np.int64)
    end = 0
    for root in range(states):
        if parent[root] >= 0:
            continue
        top = 0
        stack[0] = root
        while top >= 0:
            k = stack[top]
            if child[k] >= 0:
                top += 1
                stack[top] = child[k]
                child[k] = sibling[child[k]]
            else:
                found[end] = k
                end += 1
                top -= 1
    return found


@jit
def column_counts(start, neighbour, order, parent):
    """Entries of each column of L with its diagonal."""
    states = order.shape[0]
    place = inverse(order)
    count = np.ones(states, np.int64)
    mark = np.full(states, -1, np.int64)
    for k in range(states):
        mark[k] = k
        s = order[k]
        for e in range(start[s], start[s + 1]):
            j = place[neighbour[e]]
            if j < k:
                while mark[j] != k:
                    mark[j] = k
                    count[j] += 1
                    j = parent[j]
    return count


@jit
def amalgamate_columns(parent, count):
    """Join columns to fronts (relaxed supernodes): first column and number of rows of each."""
    states = parent.shape[0]
    children = np.zeros(states, np.int64)
    for k in range(states):
        if parent[k] >= 0:
            children[parent[k]] += 1
    first = np.empty(states + 1, np.int64)
    of = np.empty(states, np.int64)
    number = 0
    for k in range(states):
        if k == 0 or parent[k - 1] != k or count[k - 1] != count[k] + 1 or children[k] > 1:
            first[number] = k
            number += 1
        of[k] = number - 1
    first[number] = states
    # Relaxed: a front takes in the child just before it where that stores few zeros.
    rows = np.empty(number, np.int64)
    zeros = np.zeros(number)
    begin = first[:number].copy()
    before = np.full(number, -1, np.int64)  # the front that ends just before this one
    for f in range(number):
        rows[f] = count[first[f]]
        before[f] = f - 1
        last = first[f + 1] - 1
        while before[f] >= 0:
            g = before[f]
            above = parent[begin[f] - 1]
            if above < begin[f] or above > last:
                break
            w = last + 1 - begin[g]
            v = begin[f] - begin[g]
            m = v + rows[f]
            size = w * m - 0.5 * w * (w - 1)
            own = (w - v) * rows[f] - 0.5 * (w - v) * (w - v - 1)
            under = v * rows[g] - 0.5 * v * (v - 1)
            lost = zeros[f] + zeros[g] + size - own - under
            joins = w <= FEW
            for most, share in RELAXED:
                joins = joins or (w <= most and lost <= share * size)
            if not joins:
                break
            begin[f] = begin[g]
            rows[f] = m
            zeros[f] = lost
            before[f] = before[g]
    # The last front and those before it, from behind.
    kept = 0
    f = number - 1
    keep = np.empty(number, np.int64)
    while f >= 0:
        keep[kept] = f
        kept += 1
        f = before[f]
    final = np.empty(kept + 1, np.int64)
    height = np.empty(kept, np.int64)
    for k in range(kept):
        final[k] = begin[keep[kept - 1 - k]]
        height[k] = rows[keep[kept - 1 - k]]
    final[kept] = states
    return final, height


@jit
def stack_updates(rows, first, above, child, sibling):
    """Where the update matrix of each front lies (F + 1,); the last entry is the size of all."""
    fronts = rows.shape[0]
    # The update matrix of a front lies in the one of two stacks that its children's do not lie in.
    depth = np.zeros(fronts, np.int64)
    for f in range(fronts - 1, -1, -1):
        if above[f] >= 0:
            depth[f] = 1 - depth[above[f]]
    stack = np.zeros(fronts + 1, np.int64)
    height = np.zeros(2, np.int64)
    most = np.zeros(2, np.int64)
    for f in range(fronts):
        c = child[f]
        while c >= 0:
            height[depth[c]] = min(height[depth[c]], stack[c])
            c = sibling[c]
        r = rows[f] - (first[f + 1] - first[f])
        stack[f] = height[depth[f]]
        height[depth[f]] += r * r
        most[depth[f]] = max(most[depth[f]], height[depth[f]])
    for f in range(fronts):
        stack[f] += depth[f] * most[0]
    stack[fronts] = most[0] + most[1]
    return stack


@jit
def row_positions(first, begin, member, child, sibling):
    """Positions (sum of m,) of the rows of each front, but for its pivots', in its parent's."""
    at = np.empty(first[-1], np.int64)
    position = np.zeros(begin[-1], np.uint32)
    for f in range(child.shape[0]):
        for e in range(begin[f], begin[f + 1]):
            at[member[e]] = e - begin[f]
        c = child[f]
        while c >= 0:
            for e in range(begin[c] + first[c + 1] - first[c], begin[c + 1]):
                position[e] = at[member[e]]
            c = sibling[c]
    return position


@jit
def gather_fronts(row_start, successor, start, neighbour, order, parent, count):
    """Lay out the fronts; ``order`` is a postorder of its own elimination tree ``parent``."""
    states = order.shape[0]
    actions = (row_start.shape[0] - 1) // states
    first, rows = amalgamate_columns(parent, count)
    fronts = rows.shape[0]
    place = inverse(order)
    of = np.empty(states, np.int64)
    begin = np.zeros(fronts + 1, np.int64)
    factor = np.zeros(fronts + 1, np.int64)
    above = np.full(fronts, -1, np.int64)
    for f in range(fronts):
        w = first[f + 1] - first[f]
        begin[f + 1] = begin[f] + rows[f]
        factor[f + 1] = factor[f] + w * rows[f] + (rows[f] - w) * w
        for k in range(first[f], first[f + 1]):
            of[k] = f
    for f in range(fronts):
        k = parent[first[f + 1] - 1]
        if k >= 0:
            above[f] = of[k]
    child = np.full(fronts, -1, np.int64)
    sibling = np.full(fronts, -1, np.int64)
    member = np.empty(begin[fronts], np.uint32)
    mark = np.full(states, -1, np.int64)
    other = np.empty(states, np.int64)
    for f in range(fronts):
        end = begin[f]
        last = first[f + 1]
        found = 0
        for k in range(first[f], last):
            member[end] = k
            end += 1
            s = order[k]
            for e in range(start[s], start[s + 1]):
                j = place[neighbour[e]]
                if j >= last and mark[j] != f:
                    mark[j] = f
                    other[found] = j
                    found += 1
        c = child[f]
        while c >= 0:
            for e in range(begin[c] + first[c + 1] - first[c], begin[c + 1]):
                j = member[e]
                if j >= last and mark[j] != f:
                    mark[j] = f
                    other[found] = j
                    found += 1
            c = sibling[c]
        other[:found].sort()
        for e in range(found):
            member[end] = other[e]
            end += 1
        if above[f] >= 0:
            sibling[f] = child[above[f]]
            child[above[f]] = f
    stack = stack_updates(rows, first, above, child, sibling)
    position = row_positions(first, begin, member, child, sibling)
    diagonal = np.empty(states, np.uint32)
    for k in range(states):
        f = of[k]
        diagonal[order[k]] = factor[f] + (k - first[f]) * (rows[f] + 1)
    address = np.empty(successor.shape[0], np.uint32)
    for s in range(states):
        i = place[s]
        for e in range(row_start[s * actions], row_start[(s + 1) * actions]):
            j = place[successor[e]]
            f = of[min(i, j)]
            w, m = first[f + 1] - first[f], rows[f]
            if i < first[f + 1]:
                column = j - first[f]
                if j >= first[f + 1]:
                    column = w + np.searchsorted(member[begin[f] + w : begin[f + 1]], np.uint32(j))
                address[e] = factor[f] + (i - first[f]) * m + column
            else:
                row = np.searchsorted(member[begin[f] + w : begin[f + 1]], np.uint32(i))
                address[e] = factor[f] + w * m + row * w + j - first[f]
    return (
        order,
        first,
        begin,
        member,
        position,
        above,
        child,
        sibling,
        factor,
        stack,
        address,
        diagonal,
    )


def analyse(
    row_start: np.ndarray, successor: np.ndarray, states: int, most: int, most_work: float
) -> Fronts | None:
    """Order and lay out the elimination.

    None where L would have more than ``most`` entries, or where the work is certain to be above
    ``most_work``.
    """
    start, neighbour = neighbours(row_start, successor, states)
    order, found = minimum_degree(start, neighbour, most, most_work / PRODUCT)
    if not found:
        return None
    order = order[postorder(elimination_tree(start, neighbour, order))]
    parent = elimination_tree(start, neighbour, order)
    count = column_counts(start, neighbour, order, parent)
    layout = gather_fronts(row_start, successor, start, neighbour, order, parent, count)
    return Fronts._make([*layout, estimated_time(layout)])


def estimated_time(layout: Any) -> float:
    """Estimate the time of an evaluation in nanoseconds, from counts of operations."""
    first, begin, factor, address = layout[1], layout[2], layout[8], layout[10]
    pivots, rows = np.diff(first).astype(float), np.diff(begin).astype(float)
    # Each pivot updates the rows and columns that come after it.
    products = pivots * (rows * (rows - pivots) + pivots**2 / 3.0)
    entries = ENTRY * factor[-1] + TRANSITION * address.size
    return float(PRODUCT * products.sum() + entries + FRONT * pivots.size)
