"""Where a follower can stay for ever and earn nothing, at discount 1.

The total reward of a policy is defined if play ends, or if it ends up where every reward is 0: in a
zero-reward end component (de Alfaro, Formal Verification of Probabilistic Systems, 1997, section
3.3; Baier and Katoen, Principles of Model Checking, 2008, section 10.6.3). Both sets here are
greatest fixed points: pairs or states are taken away until what is left leads only into itself, in
one pass over the transitions with lists of predecessors (8 bytes for each transition).
"""

from __future__ import annotations

import numpy as np

from fastincentive.kernels.jit import jit

__all__ = ["STAY", "mark_idle", "mark_resting", "stay_together"]

#: Stands for an action: stay for ever where that earns nothing.
STAY = -2


@jit
def mark_idle(packed, i, rewards, action):
    """First action (S,) that keeps earning 0 for ever, -1 where none does.

    States from which follower i can meet nothing but rewards of 0 (S,A), whatever chance does, get
    an action that leads only to such states. Absorbing states count as such and get -1. Returns
    whether any state has one.
    """
    states, actions = rewards.shape
    m = packed.model[i]
    alive = np.zeros(states * actions, np.bool_)
    count = np.zeros(states, np.int64)
    before = np.zeros(states + 1, np.int64)
    some = False
    for s in range(states):
        if packed.absorbing[m, s]:
            continue
        for a in range(actions):
            if packed.available[m, s, a] and rewards[s, a] == 0.0:
                some = True
                alive[s * actions + a] = True
                count[s] += 1
                row = (m * states + s) * actions + a
                for e in range(packed.row_start[row], packed.row_start[row + 1]):
                    before[packed.successor[e] + 1] += 1
    for s in range(states):
        action[s] = -1
    if not some:
        return False
    for s in range(states):
        before[s + 1] += before[s]
    pair = np.empty(before[states], np.int64)
    free = before[:-1].copy()
    queue = np.empty(states, np.int64)
    end = 0
    for s in range(states):
        if count[s] == 0 and not packed.absorbing[m, s]:
            queue[end] = s
            end += 1
        for a in range(actions):
            if alive[s * actions + a]:
                row = (m * states + s) * actions + a
                for e in range(packed.row_start[row], packed.row_start[row + 1]):
                    c = packed.successor[e]
                    pair[free[c]] = s * actions + a
                    free[c] += 1
    k = 0
    while k < end:
        for e in range(before[queue[k]], before[queue[k] + 1]):
            if alive[pair[e]]:
                alive[pair[e]] = False
                s = pair[e] // actions
                count[s] -= 1
                if count[s] == 0:
                    queue[end] = s
                    end += 1
        k += 1
    some = False
    for s in range(states):
        for a in range(actions):
            if alive[s * actions + a] and action[s] < 0:
                action[s] = a
                some = True
    return some


@jit
def stay_together(packed, i, idle, actions):
    """Turn ``STAY`` (S,) into actions of ``idle`` (S,), there and wherever these lead."""
    states = actions.shape[0]
    n_actions = packed.available.shape[2]
    m = packed.model[i]
    met = np.empty(states, np.bool_)
    queue = np.empty(states, np.int64)
    end = 0
    for s in range(states):
        met[s] = actions[s] == STAY
        if met[s]:
            queue[end] = s
            end += 1
    k = 0
    while k < end:
        s = queue[k]
        actions[s] = idle[s]
        row = (m * states + s) * n_actions + idle[s]
        for e in range(packed.row_start[row], packed.row_start[row + 1]):
            c = packed.successor[e]
            # Who is met has value 0, too: one who left at that value might be led back here.
            if idle[c] >= 0 and not met[c]:
                met[c] = True
                queue[end] = c
                end += 1
        k += 1


@jit
def mark_resting(packed, i, policy, rewards, resting):
    """Mark the states (S,) from which a policy meets nothing but rewards of 0; whether any.

    Absorbing states count as such and are not marked.
    """
    states, actions = rewards.shape
    m = packed.model[i]
    before = np.zeros(states + 1, np.int64)
    queue = np.empty(states, np.int64)
    end = 0
    left = 0
    for s in range(states):
        resting[s] = not packed.absorbing[m, s]
        for a in range(actions):
            if policy[s, a] > 0.0 and resting[s] and rewards[s, a] != 0.0:
                resting[s] = False
                queue[end] = s
                end += 1
        left += resting[s]
        if resting[s]:
            for a in range(actions):
                if policy[s, a] > 0.0:
                    row = (m * states + s) * actions + a
                    for e in range(packed.row_start[row], packed.row_start[row + 1]):
                        before[packed.successor[e] + 1] += 1
    for s in range(states):
        before[s + 1] += before[s]
    origin = np.empty(before[states], np.int64)
    free = before[:-1].copy()
    for s in range(states):
        if resting[s]:
            for a in range(actions):
                if policy[s, a] > 0.0:
                    row = (m * states + s) * actions + a
                    for e in range(packed.row_start[row], packed.row_start[row + 1]):
                        c = packed.successor[e]
                        origin[free[c]] = s
                        free[c] += 1
    k = 0
    while k < end:
        for e in range(before[queue[k]], before[queue[k] + 1]):
            s = origin[e]
            if resting[s]:
                resting[s] = False
                left -= 1
                queue[end] = s
                end += 1
        k += 1
    return left > 0
