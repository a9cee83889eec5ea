"""Policies on random MDPs, and what SciPy says of them."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def random_policy(mdp, seed):
    """Mixed, and nearly deterministic in a half of the states."""
    rng = np.random.default_rng(seed)
    policy = rng.dirichlet(np.ones(mdp.n_actions), mdp.n_states)
    sharp = rng.random(mdp.n_states) < 0.5
    policy[sharp] = np.eye(mdp.n_actions)[rng.integers(0, mdp.n_actions, int(sharp.sum()))]
    return policy


def chain_of(mdp, policy):
    """gamma P^pi (S, S) and R^pi (S,); at discount 1 the last state is killed."""
    states, actions = policy.shape
    model = mdp.transition
    pairs = sparse.csr_array(
        (model.probability, model.successor, model.row_start), (states * actions, states)
    )
    choose = sparse.csr_array(
        (policy.ravel(), np.arange(states * actions), np.arange(states + 1) * actions),
        (states, states * actions),
    )
    moves = mdp.discount * sparse.csr_array(choose @ pairs)
    reward = (policy * mdp.reward).sum(axis=1)
    if mdp.discount == 1.0:
        alive = np.ones(states)
        alive[-1] = 0.0
        moves = sparse.csr_array(sparse.diags_array(alive) @ moves)
    return moves, reward, pairs


def residuals(mdp, policy, values, visits):
    """What V and the occupancy miss their equations by, in sup norm."""
    moves, reward, _ = chain_of(mdp, policy)
    start = mdp.initial.copy()
    flow = moves.T @ visits
    if mdp.discount == 1.0:
        start[-1] = flow[-1] = 0.0
    first = np.abs(reward + moves @ values - values).max()
    return first, np.abs(start + flow - visits).max()
