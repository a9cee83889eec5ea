"""A fill-reducing order of elimination: approximate minimum degree.

The quotient graph of George and Liu (The evolution of the minimum degree ordering algorithm, 1989)
with the approximate degrees of Amestoy, Davis and Duff (1996): a state that is eliminated becomes
an *element*, the clique of the states that it had been adjacent to. States here are those of a
transition model, the nodes of the graph.
"""

from __future__ import annotations

import numpy as np

from fastincentive.kernels.jit import jit

__all__ = ["minimum_degree"]


@jit
def pack_elements(element_start, element_size, alive, made, count, pool):
    """Garbage collection: move the elements not absorbed together; returns the pool's new end."""
    end = 0
    for k in range(count):
        e = made[k]
        if alive[e]:
            begin = element_start[e]
            element_start[e] = end
            for j in range(element_size[e]):
                pool[end] = pool[begin + j]
                end += 1
    return end


@jit
def minimum_degree(start, neighbour, most, most_products):
    """Order of elimination (S,) of a symmetric pattern, and whether there is one.

    There is none where L would have more than ``most`` entries off the diagonal, or where
    eliminating takes more than ``most_products`` products.
    """
    states = start.shape[0] - 1
    # Of each state not yet eliminated: the elements that it is in, then the states that it is
    # adjacent to otherwise.
    items = neighbour.copy()
    elements = np.zeros(states, np.int64)
    length = np.empty(states, np.int64)
    element_start = np.zeros(states, np.int64)
    element_size = np.zeros(states, np.int64)
    pool = np.empty(items.shape[0] + 2 * states + 1, np.int32)
    end = 0
    waits = np.ones(states, np.bool_)  # states not yet eliminated
    alive = np.zeros(states, np.bool_)  # elements not yet absorbed
    outside = np.zeros(states, np.int64)  # states of an element outside of the newest one
    seen = np.full(states, -1, np.int64)
    mark = np.full(states, -1, np.int64)
    # Doubly linked lists of the states of each degree.
    degree = np.empty(states, np.int64)
    head = np.full(states + 1, -1, np.int64)
    after = np.full(states, -1, np.int64)
    before = np.full(states, -1, np.int64)
    for s in range(states - 1, -1, -1):
        length[s] = start[s + 1] - start[s]
        d = length[s]
        degree[s] = d
        after[s] = head[d]
        if head[d] >= 0:
            before[head[d]] = s
        head[d] = s
    order = np.empty(states, np.int64)
    total = 0
    products = 0.0
    least = 0
    for k in range(states):
        while head[least] < 0:
            least += 1
        p = head[least]
        head[least] = after[p]
        if after[p] >= 0:
            before[after[p]] = -1
        waits[p] = False
        order[k] = p
        # The states that p was adjacent to.
        if end + states > pool.shape[0]:
            end = pack_elements(element_start, element_size, alive, order, k, pool)
        begin = end
        mark[p] = p
        for e in range(start[p], start[p] + elements[p]):
            old = items[e]
            if alive[old]:
                alive[old] = False
                for j in range(element_start[old], element_start[old] + element_size[old]):
                    s = pool[j]
                    if mark[s] != p:
                        mark[s] = p
                        pool[end] = s
                        end += 1
        for e in range(start[p] + elements[p], start[p] + length[p]):
            s = items[e]
            if waits[s] and mark[s] != p:
                mark[s] = p
                pool[end] = s
                end += 1
        size = end - begin
        element_start[p] = begin
        element_size[p] = size
        alive[p] = True
        total += size
        products += size * float(size)
        if total > most or products > most_products:
            return order, False
        for j in range(begin, end):
            s = pool[j]
            for e in range(start[s], start[s] + elements[s]):
                old = items[e]
                if alive[old]:
                    if seen[old] != p:
                        seen[old] = p
                        outside[old] = element_size[old]
                    outside[old] -= 1
        for j in range(begin, end):
            s = pool[j]
            put = start[s]
            d = size - 1
            for e in range(start[s], start[s] + elements[s]):
                old = items[e]
                if alive[old]:
                    if outside[old] == 0:
                        alive[old] = False
                    else:
                        d += outside[old]
                        items[put] = old
                        put += 1
            kept = put - start[s]
            # The states behind move by at most as much as there is room for p in front of them.
            other = start[s] + elements[s]
            rest = start[s] + length[s]
            put += 1
            hold = -1
            for e in range(other, rest):
                t = items[e]
                if waits[t] and mark[t] != p:
                    d += 1
                    if hold >= 0:
                        items[put] = hold
                        put += 1
                    hold = t
            if hold >= 0:
                items[put] = hold
                put += 1
            items[start[s] + kept] = p
            elements[s] = kept + 1
            length[s] = put - start[s]
            d = min(d, degree[s] + size - 1, states - k - 2)
            old_degree = degree[s]
            if before[s] >= 0:
                after[before[s]] = after[s]
            else:
                head[old_degree] = after[s]
            if after[s] >= 0:
                before[after[s]] = before[s]
            degree[s] = d
            after[s] = head[d]
            before[s] = -1
            if head[d] >= 0:
                before[head[d]] = s
            head[d] = s
            least = min(least, d)
    return order, True
