"""Random MDPs of many kinds, and what SciPy says of a policy on them."""

from __future__ import annotations

import numpy as np
from scipy import sparse

import fastincentive as fi

KINDS = (
    "sparse",  # a random graph: mixes soon, factors fill up
    "dense",
    "ragged",  # a few rows reach everywhere
    "hub",  # every state may fall back to one
    "ring",  # periodic, or nearly
    "local",  # a band
    "deterministic",
    "clusters",  # two that seldom exchange mass
    "tree",  # children lead to their parent and back
)


def random_matrices(kind, rng, states, actions):
    """One transition matrix for each action, CSR."""
    here = np.arange(states)
    found = []
    for a in range(actions):
        count = 3
        if kind == "dense":
            found.append(sparse.csr_array(rng.dirichlet(np.full(states, 0.3), states)))
            continue
        if kind == "ring":
            columns = (here[:, None] + a + np.array([1, 1 + (a > 0)])) % states
        elif kind == "local":
            columns = np.clip(here[:, None] + rng.integers(-2, 3, (states, count)), 0, states - 1)
        elif kind == "deterministic":
            columns = rng.integers(0, states, (states, 1))
        elif kind == "clusters":
            half = states // 2
            columns = rng.integers(0, half, (states, count)) + half * (here >= half)[:, None]
        elif kind == "tree":
            columns = np.stack(
                [(here - 1) // 2, 2 * here + 1 + rng.integers(0, 2, states), here], axis=1
            ).clip(0, states - 1)
        else:
            columns = rng.integers(0, states, (states, count))
        weights = rng.dirichlet(np.full(columns.shape[1], 0.5), states)
        rows = np.repeat(here, columns.shape[1])
        moves = sparse.csr_array((weights.ravel(), (rows, columns.ravel())), (states, states))
        if kind == "hub":
            moves = 0.9 * moves + 0.1 * _to_state(states, states // 3)
        if kind == "clusters":
            moves = (1.0 - 1e-4) * moves + 1e-4 * _to_state(states, int(rng.integers(states)))
        if kind == "ragged":
            moves = moves.tolil()
            for s in rng.choice(states, 3, replace=False):
                moves[s] = np.full(states, 1.0 / states)
            moves = sparse.csr_array(moves)
        found.append(moves)
    return found


def _to_state(states, goal):
    column = np.full(states, goal)
    return sparse.csr_array((np.ones(states), (np.arange(states), column)), (states, states))


def random_mdp(kind, seed, states, discount):
    """At discount 1 the last state absorbs, and every move may end there."""
    rng = np.random.default_rng([seed, KINDS.index(kind), states])
    actions = int(rng.integers(2, 5))
    matrices = random_matrices(kind, rng, states, actions)
    reward = rng.normal(size=(states, actions)) * rng.choice([1e-3, 1.0, 100.0])
    if discount == 1.0:
        leave = rng.choice([1e-4, 1e-2, 0.1])
        alive = np.ones(states)
        alive[-1] = 0.0
        end = _to_state(states, states - 1)
        matrices = [
            sparse.csr_array(
                sparse.diags_array((1.0 - leave) * alive) @ moves
                + sparse.diags_array(1.0 - (1.0 - leave) * alive) @ end
            )
            for moves in matrices
        ]
        reward[-1] = 0.0
    return fi.TabularMDP(matrices, reward, discount, initial=states // 2)


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
